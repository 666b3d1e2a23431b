"""Number of workers on this machine's CPU: as many as it has cores and memory for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.store.record import Record
from bench.study.task import Task

LEAST = 2 * 2**30  # bytes of a worker of which nothing is known: Python, torch, an encoder, its features
MARGIN = 1.25  # above what a trial was measured to need: another one has other images


@dataclass(frozen=True)
class Room:
    """The workers that a machine has room for.

    Attributes:
        cores: that may be used.
        free: bytes of memory.
        need: bytes of a worker, for the most demanding of the trials.
        measured: the method, with its options, of the trials whose need was measured; empty if nothing is known.
    """

    cores: int
    free: int
    need: int
    measured: str = ""

    @property
    def in_memory(self) -> int:
        """Workers that there is memory for; at least one, for a single one has to be tried."""
        return max(1, self.free // self.need)

    @property
    def workers(self) -> int:
        """Workers that there are cores and memory for."""
        return min(self.cores, self.in_memory)

    def in_words(self, workers: int) -> str:
        """A sentence on this number of workers."""
        gib = 2**30
        need = f"at least {self.need / gib:.1f} GiB each"
        if self.measured:
            need = f"{self.need / gib:.1f} GiB each, as measured of {self.measured}"
        side = "1 worker" if workers == 1 else f"{workers} workers"
        return (
            f"{side} (of {self.cores} cores; memory for {self.in_memory}: {self.free / gib:.1f} GiB free, {need})"
        )


def room(tasks: Sequence[Task], records: Iterable[Record], cores: int, free: int) -> Room:
    """The room for workers that carry out these trials.

    A worker needs what it took to carry out trials of the same method with the same options on the same dataset;
    where there are none, what it took with any other options. Of the peaks under the same options the lowest
    counts, since a process that has carried out other trials before has the peak of those.
    """
    names = {(task.identity["method"]["name"], task.dataset) for task in tasks}
    peaks: dict[tuple[str, str], dict[str, int]] = {}  # (method, dataset) -> with options -> MiB
    for record in records:
        name, label, ran = (record.method.name, record.dataset.label), record.method.label, record.provenance
        if name in names and ran.peak_memory_mib is not None and ran.device.startswith("cpu"):
            own = peaks.setdefault(name, {})
            own[label] = min(own.get(label, ran.peak_memory_mib), ran.peak_memory_mib)
    need, measured = 0, ""
    for task in tasks:
        own = peaks.get((task.identity["method"]["name"], task.dataset), {})
        if task.method in own:
            own = {task.method: own[task.method]}
        for label, peak in own.items():
            if peak * 2**20 * MARGIN > need:
                need, measured = int(peak * 2**20 * MARGIN), label
    if not measured or (need < LEAST and len(peaks) < len(names)):
        return Room(cores, free, LEAST)
    return Room(cores, free, need, measured)
