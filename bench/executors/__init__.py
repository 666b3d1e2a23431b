"""Executors: where trials run. They change neither a trial's numbers nor its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from bench.study import Task
from bench.trial import Outcome

# (task, what it is doing, steps done, steps in all); called in the driver, often
Report = Callable[[Task, str, int, int], None]


class Executor(Protocol):
    """An executor plugin: a class built as ``cls(workers)``."""

    def run(self, tasks: Iterable[Task], report: Report) -> Iterator[tuple[Task, Outcome]]:
        """Carry out tasks, in any order, and yield each with its outcome as it ends.

        Tasks are taken from the iterable one by one, only when there is room for them: taking one claims it.
        Closing the generator stops what is running.
        """
        ...
