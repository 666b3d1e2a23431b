"""Time and memory per method, from the records of its trials."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.report.page.trials import PageTrial
from bench.store.record import Record
from bench.tools.groups import group

# a trial's seconds, as records have them, and the engine's, which are those of no part
PARTS = ("data", "encode", "fit", "score", "metrics", "engine", "total")


@dataclass(frozen=True)
class Speed:
    """The finished trials of one method at one number of shots on one device.

    Attributes:
        shots: None for a method that does not learn.
        device: as the records say; empty if they do not.
        trials: number of trials with durations.
        seconds: one of :data:`PARTS` -> its median over the trials; None where none has that part.
        total: seconds of all trials together.
        passes: images put through a frozen encoder, in all trials together; None if no record says.
        memory: lowest and highest peak of resident memory in MiB, of the processes that ran the trials; None
            if no record says.
    """

    shots: int | None
    device: str
    trials: int
    seconds: dict[str, float | None]
    total: float
    passes: int | None
    memory: tuple[int, int] | None


def speeds(trials: Iterable[PageTrial]) -> list[Speed]:
    """One for each number of shots and device among the trials of one method, in their order."""
    timed = (trial.record for trial in trials if trial.record.status == "ok" and trial.record.seconds)
    groups = group(timed, lambda record: (record.shots, record.provenance.device))
    return [_speed(shots, device, own) for (shots, device), own in groups.items()]


def _speed(shots: int | None, device: str, records: list[Record]) -> Speed:
    served = Counter(fit.key for record in records if (fit := record.provenance.fit) is not None)
    every = []
    for record in records:
        seconds, fit = _with_engine(record.seconds), record.provenance.fit
        if fit is not None:
            share = fit.seconds / served[fit.key]
            seconds = {**seconds, "fit": share, "total": seconds.get("total", 0.0) + share}
        every.append(seconds)
    found = {part: [seconds[part] for seconds in every if part in seconds] for part in PARTS}
    ran = [record.provenance for record in records]
    memory = [each.peak_memory_mib for each in ran if each.peak_memory_mib is not None]
    passes = [each.encoder_passes for each in ran if each.encoder_passes is not None]
    return Speed(
        shots=shots,
        device=device,
        trials=len(records),
        seconds={part: statistics.median(values) if values else None for part, values in found.items()},
        total=sum(found["total"]),
        passes=sum(passes) if passes else None,
        memory=(min(memory), max(memory)) if memory else None,
    )


def _with_engine(seconds: Mapping[str, float]) -> Mapping[str, float]:
    if "total" not in seconds:
        return seconds
    parts = sum(value for part, value in seconds.items() if part != "total")
    # parts are rounded one by one, so that their sum may exceed the total
    return {**seconds, "engine": max(0.0, round(seconds["total"] - parts, 3))}
