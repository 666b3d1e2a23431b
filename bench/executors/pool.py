"""The driver's side of every executor with workers: hands out batches, watches over them, collects outcomes.

An executor gives :class:`Scheduler` a :class:`WorkerPool`. A library for the local workers (pebble, loky) would
replace the process of ``local.py``, some forty lines, but not this file, which a cluster needs, too: a batch is
claimed only when there is room for it, a worker has its own GPU, trials are tried again one by one after a worker
died, and machines may be lost.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from bench.errors import BenchError, first_line
from bench.executors import NOT_YET, Report, Source
from bench.executors.worker import Done, Progress
from bench.study.task import Batch, Fit, Job
from bench.trial.batch import JobOutcome, failed_job

_POLL = 0.2  # seconds between looks at the workers
TRIES = 2  # of a trial whose worker dies
NODES = 5  # machines that a trial may lose under it
STARTS = 3  # workers in a row that die before they can begin


class Worker(Protocol):
    """A process for one batch at a time; it is dead if a future fails with one of ``WorkerPool.deaths``."""

    ready: Future[Any]

    def submit(self, batch: Batch) -> Future[Done]:
        """Begin a batch; the worker is ready and idle."""
        ...

    def stop(self) -> None:
        """End the process now, whatever it is doing."""
        ...


class WorkerPool(Protocol):
    """A source of workers.

    Attributes:
        deaths: exceptions of a future whose worker has died.
    """

    deaths: tuple[type[BaseException], ...]

    def size(self) -> int:
        """The number of workers that there may be at this moment."""
        ...

    def start(self) -> Worker:
        """Start a worker, which takes its time."""
        ...

    def check(self, worker: Worker) -> None:
        """Check a worker that is ready now, or has died before.

        Raises:
            BenchError: it is not one that this run can use, and others would not be either.
        """
        ...

    def is_to_blame(self, worker: Worker, death: BaseException) -> bool:
        """True if the trials of a busy worker that died may have killed it; else its machine was lost."""
        ...

    def progress(self) -> Iterable[Progress]:
        """The progress that workers have reported since the last call."""
        ...


@dataclass
class _Job:
    worker: Worker
    batch: Batch
    begin: float


class Scheduler:
    """Runs batches on the workers of a pool.

    A worker that dies (killed for memory, a crash in native code) costs the trials that it had in hand one more
    try each, alone, when everything else has been run; the one that kills its worker again is recorded as failed.
    A machine that is lost is not its trials' fault: they are handed out again.

    Args:
        pool: source of workers.
        report: see :data:`bench.executors.Report`.
        time_limit: seconds that a trial may take; a batch of n may take n times as long, and is then tried again
            trial by trial.
    """

    def __init__(self, pool: WorkerPool, report: Report, time_limit: float | None) -> None:
        self.pool, self.report, self.time_limit = pool, report, time_limit
        self.starting: list[Worker] = []
        self.idle: list[Worker] = []
        self.flying: dict[Future[Done], _Job] = {}
        self.waiting: deque[Batch] = deque()
        self.suspects: deque[Job] = deque()
        self.deaths: Counter[str] = Counter()
        self.lost_nodes: Counter[str] = Counter()
        self.failed_starts = 0
        self.most = 0  # workers at once

    def run(self, batches: Source) -> Iterator[tuple[Job, JobOutcome]]:
        """Run batches, see :meth:`bench.executors.Executor.run`."""
        source = iter(batches)
        ended: list[tuple[Job, JobOutcome]] = []
        try:
            while self._take(source) or ended:
                self._start_workers()
                self._submit_waiting()
                yield from ended  # while the workers are busy again
                futures = [*self.flying, *(worker.ready for worker in self.starting)]
                if futures:
                    wait(futures, timeout=_POLL, return_when=FIRST_COMPLETED)
                elif self.waiting:  # for room
                    time.sleep(_POLL)
                self._report_progress()
                self._check_started()
                ended = [pair for future in list(self.flying) for pair in self._collect(future)]
        finally:
            for worker in [*self.starting, *self.idle, *(job.worker for job in self.flying.values())]:
                worker.stop()

    def _take(self, source: Iterator[Batch | None]) -> bool:
        """Take batches while there is room for them; False if nothing is left to do."""
        room = self.pool.size()
        more_to_come = False
        while len(self.waiting) + len(self.flying) < room:
            batch = next(source, ())
            if not batch:
                more_to_come = batch is NOT_YET
                break
            self.report(batch[0], "starts", 0, 0)
            self.waiting.append(batch)
        if self.suspects and not self.waiting and not self.flying:
            self.waiting.append((self.suspects.popleft(),))
        return bool(self.waiting or self.flying or more_to_come)

    def _start_workers(self) -> None:
        """Start workers while there is work for them, and stop idle ones that there is no longer room for."""
        room, staff = self.pool.size(), len(self.starting) + len(self.idle) + len(self.flying)
        for _ in range(min(room, len(self.waiting) + len(self.flying)) - staff):
            self.starting.append(self.pool.start())
        self.most = max(self.most, len(self.starting) + len(self.idle) + len(self.flying))
        for _ in range(min(staff - room, len(self.idle))):
            self.idle.pop().stop()

    def _check_started(self) -> None:
        for worker in [worker for worker in self.starting if worker.ready.done()]:
            self.starting.remove(worker)
            try:
                self.pool.check(worker)
            except self.pool.deaths as error:
                worker.stop()
                self.failed_starts += 1
                if self.failed_starts >= STARTS and not self.idle and not self.flying:
                    raise BenchError(f"no worker can be started: {' '.join(str(error).split())}") from None
            else:
                self.failed_starts = 0
                self.idle.append(worker)

    def _submit_waiting(self) -> None:
        while self.waiting and self.idle:
            worker = self.idle.pop()
            try:
                future = worker.submit(self.waiting[0])
            except self.pool.deaths:  # while it was idle
                worker.stop()
            else:
                self.flying[future] = _Job(worker, self.waiting.popleft(), time.monotonic())

    def _report_progress(self) -> None:
        tasks = {job.batch[0].key: job.batch[0] for job in self.flying.values()}
        for key, description, count, total in self.pool.progress():
            if key in tasks:
                self.report(tasks[key], description, count, total)

    def _collect(self, future: Future[Done]) -> list[tuple[Job, JobOutcome]]:
        """The outcomes of a job if it has ended, in whatever way."""
        job = self.flying[future]
        if not future.done():
            return self._stop_late(future, job)
        del self.flying[future]
        try:
            done = future.result()
        except self.pool.deaths as death:
            job.worker.stop()
            return self._lost(job, death)
        except Exception as error:  # the outcome could not travel
            self.idle.append(job.worker)
            return self._blame(job.batch, f"its outcome could not be returned: {first_line(error)}")
        if done.worn or done.broken:
            job.worker.stop()
        else:
            self.idle.append(job.worker)
        if done.broken and len(job.batch) > 1:
            self.suspects.extend(job.batch)
            return []
        return list(zip(job.batch, done.outcomes, strict=True))

    def _stop_late(self, future: Future[Done], job: _Job) -> list[tuple[Job, JobOutcome]]:
        if self.time_limit is None or time.monotonic() - job.begin < self.time_limit * len(job.batch):
            return []
        del self.flying[future]
        job.worker.stop()
        return self._blame(job.batch, f"took longer than {self.time_limit:g} seconds; raise --time-limit")

    def _blame(self, batch: Batch, reason: str) -> list[tuple[Job, JobOutcome]]:
        """Fail a trial; of several, it is not known which has failed, so that each is tried again alone."""
        if len(batch) == 1:
            return _all_failed(batch, reason)
        self.suspects.extend(batch)
        return []

    def _lost(self, job: _Job, death: BaseException) -> list[tuple[Job, JobOutcome]]:
        """The outcomes of a job whose worker died; its trials are tried again, or have failed."""
        keys = [task.key for task in job.batch]
        if not self.pool.is_to_blame(job.worker, death):
            self.lost_nodes.update(keys)
            if max(self.lost_nodes[key] for key in keys) < NODES:
                self.waiting.append(job.batch)
                return []
            return _all_failed(job.batch, f"{NODES} machines were lost while it ran")
        self.deaths.update(keys)
        self.suspects.extend(task for task in job.batch if self.deaths[task.key] < TRIES)
        culprits = tuple(task for task in job.batch if self.deaths[task.key] >= TRIES)
        return [(job, failed_job(job, _died(job, self.most))) for job in culprits]


def _died(job: Job, workers: int) -> str:
    """The reason of a trial whose worker died, one of so many, with what can be changed."""
    method = (job.task if isinstance(job, Fit) else job).identity["method"]
    size = method["config"].get("batch_size")
    advice = ["--workers 1"] if workers > 1 else []
    if isinstance(size, int) and size > 2:
        advice.append(f"--set {method['name']}.batch_size={size // 2}")
    tried = f": try {' or '.join(advice)}" if advice else ""
    return f"the worker process died, twice; most often it ran out of memory{tried}"


def _all_failed(batch: Batch, reason: str) -> list[tuple[Job, JobOutcome]]:
    return [(job, failed_job(job, reason)) for job in batch]
