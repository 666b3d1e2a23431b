"""Executors: where trials run. They change neither a trial's numbers nor its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bench.study import Batch, Task
from bench.trial import Outcome

# (task, what it is doing, steps done, steps in all); called in the driver, often
Report = Callable[[Task, str, int, int], None]


class Executor(Protocol):
    """An executor plugin: a class built as ``cls(workers)``."""

    def run(self, batches: Iterable[Batch], report: Report) -> Iterator[tuple[Task, Outcome]]:
        """Carry out batches by :func:`bench.trial.run_together`, in any order; yield each task with its outcome.

        Batches are taken from the iterable one by one, only when there is room for them: taking one claims its
        tasks. Closing the generator stops what is running. What a batch's trials do is reported of its first.
        """
        ...
