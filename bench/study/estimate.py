"""Estimates of the durations of trials, from finished trials like them.

A trial takes as long as the finished ones that are most like it. Where those had other options, data or shots, the
time of training is scaled by the work that the method declares (:class:`bench.contracts.HasWork`), and the time of
scoring and measuring by the number of images. Where that cannot be known there is no estimate: another encoder, or
other options of a method that is trained and declares nothing.
"""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.contracts import HasWork
from bench.data.splits import Manifest
from bench.store.record import AnyRecord, Record, as_records
from bench.store.store import Store
from bench.study.task import Task
from bench.tools.registry import METHODS
from bench.tools.spec import config_from_dict

# What a duration depends on, the most important first: method and its encoders, label (options) of the method,
# dataset, protocol, shots. Trials are alike in as many of these, from the first on, as finished ones
# are there for.
Kind = tuple[Any, ...]
_CLOSE = 5
_SAME_OPTIONS, _SAME_DATA = 2, 3
ROUGH = "?"  # marks what comes from trials that are less alike


class Sizes(NamedTuple):
    """Numbers of images of a split: to learn from, of the target to be given, to score."""

    train: int
    support: int
    test: int


Lookup = Callable[[str], Sizes | None]  # the hash of a split -> its sizes, if they are known


@dataclass(frozen=True)
class Duration:
    """The expected duration of one trial.

    Attributes:
        fit: seconds of training, which trials with one fit share.
        rest: seconds of everything else.
        rough: whether the trials that it comes from had other options, dataset, protocol or number of shots.
        basis: numbers of these trials, in the order in which they were added.
    """

    fit: float
    rest: float
    rough: bool
    basis: frozenset[int]

    @property
    def seconds(self) -> float:
        """Of the whole trial."""
        return self.fit + self.rest


@dataclass(frozen=True)
class _Extent:
    """Amount of what a trial does; None where it is not known."""

    work: float | None
    sizes: Sizes | None


@dataclass(frozen=True)
class _Finished:
    """A finished trial."""

    number: int
    seconds: Mapping[str, float]
    extent: _Extent


class Durations:
    """Durations of trials to come, from finished ones; more may be added as they finish.

    Trials of another method say nothing, and neither do those on another device: of what ``device`` allows, that
    of the latest finished trial counts.

    Args:
        names: methods that are of interest.
        device: torch device of the trials to come; ``auto`` allows all.
        sizes: looks up the sizes of splits, of trials to come and of finished ones.

    Attributes:
        device: of the latest finished trial, as recorded; empty without any.
    """

    def __init__(self, names: Collection[str], device: str = "auto", sizes: Lookup = lambda _: None) -> None:
        self.names, self.sizes, self._allowed = frozenset(names), sizes, device
        self.device, self._latest, self._count = "", "", 0
        self._known: dict[str, dict[Kind, list[_Finished]]] = {}  # by device
        self._answers: dict[tuple[Kind, _Extent], Duration | None] = {}

    def add(self, record: Record) -> None:
        """Take a trial into account, if it has finished and its durations were recorded."""
        seconds, ran_on = record.seconds, record.provenance.device
        if record.status != "ok" or "total" not in seconds or record.method.name not in self.names:
            return
        if self._allowed != "auto" and ran_on.startswith("cpu") != (self._allowed == "cpu"):
            return
        if (record.provenance.finished, ran_on) >= (self._latest, self.device):
            self._latest, self.device = record.provenance.finished, ran_on
        parts = dict(seconds)
        if record.fit_seconds is not None and "fit" not in parts:  # it was trained before, for several trials
            parts["fit"] = record.fit_seconds
            parts["total"] += record.fit_seconds
        trained = bool(record.method.trained)
        extent = self._extent(record.method.name, record.method.config, record.protocol.manifest, trained)
        finished = _Finished(self._count, parts, extent)
        self._count += 1
        kind = _of_record(record)
        for length in range(1, _CLOSE + 1):
            self._known.setdefault(ran_on, {}).setdefault(kind[:length], []).append(finished)
        self._answers.clear()

    def of(self, task: Task) -> Duration | None:
        """The duration of a trial; None if nothing is known of it."""
        method = task.identity["method"]
        trained = _traits(method["name"], method["config"], "trained")
        extent = self._extent(method["name"], method["config"], task.identity["protocol"]["manifest"], trained)
        kind = _of_task(task)
        if (kind, extent) not in self._answers:
            self._answers[kind, extent] = self._find(kind, extent, trained)
        return self._answers[kind, extent]

    def _extent(self, name: str, config: Mapping[str, Any], manifest: str | None, trained: bool) -> _Extent:
        sizes = self.sizes(manifest) if manifest else None
        n_images = 0
        if sizes is not None:
            n_images = sizes.train if trained else sizes.support
        return _Extent(_work(name, config, n_images), sizes)

    def _find(self, kind: Kind, extent: _Extent, trained: bool) -> Duration | None:
        known = self._known.get(self.device, {})
        for length in range(_CLOSE, 0, -1):
            found = known.get(kind[:length], [])
            if length < _CLOSE:
                found = [each for each in found if _comparable(each, extent, trained, length)]
            if found:
                pairs = [_scaled(each, extent, trained) for each in found]
                # The median of the whole, split as on average: medians of parts would not add up.
                whole = statistics.median(fit + rest for fit, rest in pairs)
                total = sum(fit + rest for fit, rest in pairs)
                share = sum(fit for fit, _ in pairs) / total if total else 0.0
                basis = frozenset(each.number for each in found)
                return Duration(whole * share, whole * (1 - share), length < _CLOSE, basis)
        return None


@dataclass(frozen=True)
class Estimate:
    """Estimated durations of some trials.

    Attributes:
        seconds: key of a trial -> its duration; trials without a basis are left out.
        basis: number of finished trials that this comes from.
        device: of those trials, as recorded; empty without any.
        rough: keys of trials whose basis has other options, another dataset, protocol or number of shots, and may
            be far off.
        unknown: label of a method of which no trial like these has finished -> number of its trials.
        shared: seconds within ``seconds`` that are counted more than once, since trials share a fit.
    """

    seconds: Mapping[str, float]
    basis: int
    device: str
    rough: Collection[str]
    unknown: Mapping[str, int]
    shared: float = 0.0

    def wall(self, workers: int) -> float:
        """Seconds until the last of the trials with a basis has ended, ``workers`` of them side by side."""
        durations = self.seconds.values()
        return max((sum(durations) - self.shared) / max(workers, 1), max(durations, default=0.0))

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
            yield f"no estimate for {number} of them: no trial like those of {methods} has finished in this store"


def estimate(
    tasks: Sequence[Task],
    records: Iterable[AnyRecord],
    device: str = "auto",
    sizes: Lookup = lambda _: None,
) -> Estimate:
    """The durations of trials: the median of the finished ones that are most like each.

    Args:
        tasks: trials to be run.
        records: of trials that ran before, whatever their study.
        device: torch device of ``tasks``; ``auto`` allows all.
        sizes: looks up the sizes of splits.
    """
    durations = durations_of(tasks, records, device, sizes)
    seconds: dict[str, float] = {}
    basis: set[int] = set()
    rough, unknown, shared = set[str](), Counter[str](), 0.0
    fits: set[str] = set()
    for task in tasks:
        found = durations.of(task)
        if found is None:
            unknown[task.method] += 1
            continue
        seconds[task.key] = found.seconds
        basis |= found.basis
        if found.rough:
            rough.add(task.key)
        if task.fit_key in fits and can_share(task):
            shared += found.fit
        fits.add(task.fit_key)
    return Estimate(seconds, len(basis), durations.device, rough, unknown, shared)


def durations_of(
    tasks: Iterable[Task], records: Iterable[AnyRecord], device: str = "auto", sizes: Lookup = lambda _: None
) -> Durations:
    """Durations of ``tasks`` that ``records`` tell of; arguments are those of :func:`estimate`."""
    durations = Durations({task.identity["method"]["name"] for task in tasks}, device, sizes)
    for record in as_records(records):
        durations.add(record)
    return durations


def can_share(task: Task) -> bool:
    """True if other trials with the same fit need not train it again."""
    return bool(task.fit_key) and hasattr(METHODS.load(task.identity["method"]["name"]), "restore")


def sizes_of_splits(store: Store, planned: Mapping[str, Manifest]) -> Lookup:
    """Look up sizes of splits: of those that are planned, and of those that the store's records refer to."""

    @functools.cache
    def find(hash_: str) -> Sizes | None:
        manifest = planned.get(hash_)
        if manifest is not None:
            return Sizes(len(manifest.train), len(manifest.support), len(manifest.test))
        content = store.manifest(hash_)
        if content is None:
            return None
        try:
            anomalous = sum(len(draw["ids"]) for draw in content["anomalous"].values())
            return Sizes(len(content["normal"]) + anomalous, len(content["support"]), len(content["test"]))
        except (KeyError, TypeError, AttributeError):  # of an earlier version
            return None

    return find


# ------------------------------------------------------------ scaling


def _comparable(finished: _Finished, extent: _Extent, trained: bool, alike: int) -> bool:
    """True if a trial that is like the other in its first ``alike`` traits says how long that takes."""
    if finished.extent == extent and extent.sizes is not None and alike >= _SAME_OPTIONS:
        return True
    if finished.extent.work is None or extent.work is None:
        # How long training takes is not known, nor is what the options of one that trains nothing change.
        return alike >= (_SAME_DATA if trained else 1)
    # Scaling needs to know which part of the time is to be scaled.
    return not trained or finished.extent.work == extent.work or "fit" in finished.seconds


def _scaled(finished: _Finished, extent: _Extent, trained: bool) -> tuple[float, float]:
    """Seconds of training and of the rest that a finished trial foretells for one of this extent."""
    seconds, before = finished.seconds, finished.extent
    work = images = all_images = 1.0
    if before.work is not None and extent.work is not None:
        work = extent.work / before.work
    if before.sizes is not None and extent.sizes is not None:
        images = _ratio(extent.sizes.test, before.sizes.test)
        all_images = _ratio(sum(extent.sizes), sum(before.sizes))
    score = images
    if not trained and extent.sizes is not None and extent.sizes.support:
        score = max(work, images)  # it may learn from them while it scores
    factors = {"fit": work if trained else 1.0, "score": score, "metrics": images, "encode": all_images}
    rest = seconds["total"] - sum(seconds.get(part, 0.0) for part in factors)
    fit = seconds.get("fit", 0.0) * factors.pop("fit")
    return fit, max(rest, 0.0) + sum(seconds.get(part, 0.0) * factor for part, factor in factors.items())


def _ratio(now: int, before: int) -> float:
    return now / before if before else 1.0


def _work(name: str, config: Mapping[str, Any], n_images: int) -> float | None:
    """The work that a method declares; None if it declares none, or nothing that is of use."""
    # Of a plugin, or for options of an earlier version, it may go wrong in any way, and it is but an estimate.
    with contextlib.suppress(Exception):
        cls = METHODS.load(name)
        if isinstance(cls, HasWork):
            work = float(cls.work(config_from_dict(cls.Config, config), n_images))  # type: ignore[attr-defined]
            if math.isfinite(work) and work > 0:
                return work
    return None


def _traits(name: str, config: Mapping[str, Any], trait: str) -> bool:
    with contextlib.suppress(Exception):
        cls = METHODS.load(name)
        return bool(getattr(cls.traits(config_from_dict(cls.Config, config)), trait))
    return True


def _of_task(task: Task) -> Kind:
    encoders = tuple(sorted(each["name"] for each in task.identity["encoders"].values()))
    name = task.identity["method"]["name"]
    return (name, encoders), task.method, task.dataset, task.protocol, task.shots


def _of_record(record: Record) -> Kind:
    encoders = tuple(sorted(encoder.name for encoder in record.encoders.values()))
    name = (record.method.name, encoders)
    return name, record.method.label, record.dataset.label, record.protocol.label, record.shots


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
