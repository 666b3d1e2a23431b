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
        task: this trial, if its need was measured; None if nothing is known.
    """

    cores: int
    free: int
    need: int
    task: Task | None = None

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
        if self.task is None:
            need = f"at least {self.need / gib:.1f} GiB each"
        else:
            need = f"{self.need / gib:.1f} GiB each, as measured of {self.task.method}"
        side = "1 worker" if workers == 1 else f"{workers} workers"
        return (
            f"{side} (of {self.cores} cores; memory for {self.in_memory}: {self.free / gib:.1f} GiB free, {need})"
        )


def room(tasks: Sequence[Task], records: Iterable[Record], cores: int, free: int) -> Room:
    """The room for workers that carry out these trials.

    A worker needs what it took to carry out trials of the same method with the same options on the same dataset.
    Of their peaks the lowest counts, since a process that has carried out others before has the peak of those.
    """
    kinds = {(task.method, task.dataset): task for task in tasks}
    peaks: dict[tuple[str, str], int] = {}
    for record in records:
        kind, ran = (record.method.label, record.dataset.label), record.provenance
        if kind in kinds and ran.peak_memory_mib is not None and ran.device.startswith("cpu"):
            peaks[kind] = min(peaks.get(kind, ran.peak_memory_mib), ran.peak_memory_mib)
    if not peaks:
        return Room(cores, free, LEAST)
    largest = max(peaks, key=lambda each: peaks[each])
    need = int(peaks[largest] * 2**20 * MARGIN)
    if need < LEAST and len(peaks) < len(kinds):
        return Room(cores, free, LEAST)
    return Room(cores, free, need, kinds[largest])
