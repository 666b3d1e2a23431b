"""Estimates of the durations of trials, from finished trials like them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.store.record import AnyRecord, Record, as_records
from bench.study.task import Task

# What a duration depends on, the most important first: name and label (options) of the method, dataset, protocol,
# shots. Trials are alike in as many of these, from the first on, as there are finished trials for.
Kind = tuple[str | int | None, ...]
_CLOSE = 5
ROUGH = "?"  # marks what comes from trials that are less alike


@dataclass(frozen=True)
class Estimate:
    """Estimated durations of some trials.

    Attributes:
        seconds: key of a trial -> its duration; trials without a basis are left out.
        basis: number of finished trials that this comes from.
        device: of those trials, as recorded; empty without any.
        rough: keys of trials whose basis has other options, another dataset, protocol or number of shots, and may
            be far off.
        unknown: label of a method of which no trial has finished -> number of its trials.
    """

    seconds: Mapping[str, float]
    basis: int
    device: str
    rough: Collection[str]
    unknown: Mapping[str, int]

    def wall(self, workers: int) -> float:
        """Seconds until the last of the trials with a basis has ended, ``workers`` of them side by side."""
        durations = self.seconds.values()
        return max(sum(durations) / max(workers, 1), max(durations, default=0.0))

    def lines(self, workers: int) -> Iterator[str]:
        """All of it in words."""
        if self.seconds:
            side = f"{workers} side by side" if workers > 1 else "one after the other"
            basis = f"from {self.basis} finished {'trial' if self.basis == 1 else 'trials'} on {self.device}"
            yield f"about {in_words(self.wall(workers))}, {side} ({basis})"
        if self.rough:
            alike = "from other options, data, protocol or shots, and may be far off"
            yield f"{len(self.rough)} of the estimates ({ROUGH}) come {alike}"
        if self.unknown:
            number, methods = sum(self.unknown.values()), ", ".join(self.unknown)
            yield f"no estimate for {number} of them: no trial of {methods} has finished in this store"


def estimate(tasks: Sequence[Task], records: Iterable[AnyRecord], device: str = "auto") -> Estimate:
    """The durations of trials: the median of the finished ones that are most like each.

    Trials of another method say nothing, and neither do those on another device: of what ``device`` allows, that
    of the latest finished trial counts.

    Args:
        tasks: trials to be run.
        records: of trials that ran before, whatever their study.
        device: torch device of ``tasks``; ``auto`` allows all.
    """
    names = {_of_task(task)[0] for task in tasks}
    finished = []
    for record in as_records(records):
        seconds, kind = record.seconds.get("total"), _of_record(record)
        if record.status == "ok" and seconds is not None and kind[0] in names:
            ran_on = record.provenance.device
            if device == "auto" or ran_on.startswith("cpu") == (device == "cpu"):
                finished.append((record.provenance.finished, ran_on, kind, seconds))
    here = max(finished)[1] if finished else ""
    known: dict[Kind, list[tuple[int, float]]] = {}
    for number, (_, where, kind, seconds) in enumerate(finished):
        if where == here:
            for length in range(1, _CLOSE + 1):
                known.setdefault(kind[:length], []).append((number, seconds))
    durations: dict[str, float] = {}
    basis: set[int] = set()
    rough, unknown = set[str](), Counter[str]()
    for task in tasks:
        kind = _of_task(task)
        length = next((length for length in range(_CLOSE, 0, -1) if kind[:length] in known), 0)
        if not length:
            unknown[task.method] += 1
            continue
        numbers, times = zip(*known[kind[:length]], strict=True)
        durations[task.key] = statistics.median(times)
        basis.update(numbers)
        if length < _CLOSE:
            rough.add(task.key)
    return Estimate(durations, len(basis), here, rough, unknown)


def _of_task(task: Task) -> Kind:
    return task.identity["method"]["name"], task.method, task.dataset, task.protocol, task.shots


def _of_record(record: Record) -> Kind:
    return record.method.name, record.method.label, record.dataset.label, record.protocol.label, record.shots


def in_words(seconds: float) -> str:
    """A duration with as many digits as an estimate is worth: ``8 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h"
