"""Executors: where trials run. They change neither a trial's numbers nor its record."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from bench.study.task import Batch, Job
from bench.trial.batch import JobOutcome

# (trial or fit, what it is doing, steps done, steps in all); called in the driver, often
Report = Callable[[Job, str, int, int], None]

NOT_YET = None
"""Comes from an executor's source in place of a batch: nothing can begin now, but more will come; ask again."""

Source = Iterable[Batch | None]


class Executor(Protocol):
    """An executor plugin: a class built as ``cls(config, workers, logs)``.

    ``config`` is an instance of ``cls.Config``, a frozen dataclass of options (``ray[gpus=0.25]``). ``workers`` is
    how many trials run side by side, None for as many as there is room for. What trials print goes to
    ``logs/ab/<key>.log``, for a batch under its first trial's key (and see :func:`share_log`).
    """

    Config: ClassVar[type[Any]]

    def __init__(self, config: Any, workers: int | None, logs: Path) -> None: ...

    def on_gpu(self, device: str) -> bool:
        """Tell if trials of a study with this ``device``, such as ``auto``, compute on a GPU.

        Raises:
            BenchError: there is no such device where this executor's workers are.
        """
        ...

    def run(self, batches: Source, report: Report) -> Iterator[tuple[Job, JobOutcome]]:
        """Carry out batches by :func:`bench.trial.batch.run_batch`, in any order; yield each job with its outcome.

        Batches are taken from the iterable one by one, only when there is room for them: taking one claims its
        jobs. Where it gives :data:`NOT_YET`, trials wait for fits that are under way: it is asked again after
        every outcome. Closing the generator stops what is running. The progress of a batch is reported of its
        first job.
        """
        ...


def log_path(logs: Path, task: Job) -> Path:
    """File for the output of a trial, if it prints anything."""
    return logs / task.key[:2] / f"{task.key}.log"


def share_log(logs: Path, batch: Batch, outcomes: Sequence[JobOutcome]) -> None:
    """A batch has ended: its output is found under the key of every trial of it that failed, too.

    Unless the disk is full, say: the trials matter more.
    """
    output = log_path(logs, batch[0])
    with contextlib.suppress(OSError):
        for task, outcome in zip(batch[1:], outcomes[1:], strict=True):
            path = log_path(logs, task)
            path.unlink(missing_ok=True)  # of an earlier run
            if outcome.status == "failed" and output.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(output, path)


def check_time_limit(seconds: float | None) -> None:
    """For configs with a limit on a trial's time: it must be positive.

    Raises:
        ValueError: it is not.
    """
    if seconds is not None and seconds <= 0:
        raise ValueError("a trial needs some time: choose more than 0 seconds")
