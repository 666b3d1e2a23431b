"""One batch in this process: trials or fits, whatever an executor is given."""

from __future__ import annotations

from typing import cast

from bench.study.task import Batch, Fit, Job, Task
from bench.trial.fit import FitOutcome, Track, run_fits
from bench.trial.trial import Outcome, failed, run_together

JobOutcome = Outcome | FitOutcome


def run_batch(batch: Batch, track: Track | None = None) -> list[JobOutcome]:
    """The outcomes of a batch's trials or fits, in order; see :func:`run_together` and :func:`run_fits`."""
    if isinstance(batch[0], Fit):
        return list(run_fits(cast(tuple[Fit, ...], batch), track))
    return list(run_together(cast(tuple[Task, ...], batch), track))


def failed_job(job: Job, reason: str) -> JobOutcome:
    """The outcome of a trial or fit that could not even say why it failed, because its process is gone."""
    if isinstance(job, Fit):
        return FitOutcome("failed", reason)
    return failed(job, reason)
