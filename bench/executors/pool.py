"""The driver's side of every executor with workers: hands out batches, watches over them, collects outcomes."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any, Protocol

from bench.errors import BenchError, first_line
from bench.executors import Report
from bench.executors.worker import Done, News
from bench.study.task import Batch, Task
from bench.trial.trial import Outcome, failed

_POLL = 0.2  # seconds between looks at the workers
TRIES = 2  # of a trial whose worker dies
NODES = 5  # machines that a trial may lose under it
STARTS = 3  # workers in a row that die before they can begin


class Worker(Protocol):
    """A process that carries out one batch at a time; it is dead if a future fails with ``Crew.deaths``."""

    ready: Future[Any]

    def submit(self, batch: Batch) -> Future[Done]:
        """Begin a batch; the worker is ready and idle."""
        ...

    def stop(self) -> None:
        """End the process now, whatever it is doing."""
        ...


class Crew(Protocol):
    """Where workers come from."""

    deaths: tuple[type[BaseException], ...]

    def size(self) -> int:
        """How many workers there may be at this moment."""
        ...

    def hire(self) -> Worker:
        """Start a worker, which takes its time."""
        ...

    def welcome(self, worker: Worker) -> None:
        """Look at what a worker says now that it is ready.

        Raises:
            BenchError: it is not one that this run can use, and others would not be either.
        """
        ...

    def blames(self, worker: Worker, death: BaseException) -> bool:
        """A busy worker has died: whether its trial may have killed it. Otherwise its machine was lost."""
        ...

    def news(self) -> Iterable[News]:
        """What the workers have told since."""
        ...


@dataclass
class _Job:
    worker: Worker
    batch: Batch
    begin: float


class Shift:
    """One run of a crew.

    A worker that dies (killed for memory, a crash in native code) costs the trials that it had in hand one more
    try each, alone, when everything else has been run; the one that kills its worker again is recorded as failed.
    A machine that is lost is not its trials' fault: they are handed out again.

    Args:
        crew: where workers come from.
        report: see :data:`bench.executors.Report`.
        time_limit: seconds that a trial may take; a batch of n may take n times as long, and is then tried again
            trial by trial.
    """

    def __init__(self, crew: Crew, report: Report, time_limit: float | None) -> None:
        self.crew, self.report, self.time_limit = crew, report, time_limit
        self.starting: list[Worker] = []
        self.idle: list[Worker] = []
        self.flying: dict[Future[Done], _Job] = {}
        self.waiting: deque[Batch] = deque()
        self.suspects: deque[Task] = deque()
        self.deaths: Counter[str] = Counter()
        self.lost_nodes: Counter[str] = Counter()
        self.failed_starts = 0

    def run(self, batches: Iterable[Batch]) -> Iterator[tuple[Task, Outcome]]:
        """As :meth:`bench.executors.Executor.run`."""
        source = iter(batches)
        ended: list[tuple[Task, Outcome]] = []
        try:
            while self._take(source) or ended:
                self._hire()
                self._hand_out()
                yield from ended  # while the workers are busy again
                futures = [*self.flying, *(worker.ready for worker in self.starting)]
                if futures:
                    wait(futures, timeout=_POLL, return_when=FIRST_COMPLETED)
                elif self.waiting:  # for room
                    time.sleep(_POLL)
                self._pass_on()
                self._greet()
                ended = [pair for future in list(self.flying) for pair in self._collect(future)]
        finally:
            for worker in [*self.starting, *self.idle, *(job.worker for job in self.flying.values())]:
                worker.stop()

    def _take(self, source: Iterator[Batch]) -> bool:
        """Take batches while there is room for them; whether there is anything left to do."""
        room = self.crew.size()
        while len(self.waiting) + len(self.flying) < room and (batch := next(source, None)) is not None:
            self.report(batch[0], "starts", 0, 0)
            self.waiting.append(batch)
        if self.suspects and not self.waiting and not self.flying:
            self.waiting.append((self.suspects.popleft(),))
        return bool(self.waiting or self.flying)

    def _hire(self) -> None:
        """Start the workers that there is work for, and let those go that there is no longer room for."""
        room, staff = self.crew.size(), len(self.starting) + len(self.idle) + len(self.flying)
        for _ in range(min(room, len(self.waiting) + len(self.flying)) - staff):
            self.starting.append(self.crew.hire())
        for _ in range(min(staff - room, len(self.idle))):
            self.idle.pop().stop()

    def _greet(self) -> None:
        for worker in [worker for worker in self.starting if worker.ready.done()]:
            self.starting.remove(worker)
            try:
                self.crew.welcome(worker)
            except self.crew.deaths as error:
                worker.stop()
                self.failed_starts += 1
                if self.failed_starts >= STARTS and not self.idle and not self.flying:
                    raise BenchError(f"no worker can be started: {' '.join(str(error).split())}") from None
            else:
                self.failed_starts = 0
                self.idle.append(worker)

    def _hand_out(self) -> None:
        while self.waiting and self.idle:
            worker = self.idle.pop()
            try:
                future = worker.submit(self.waiting[0])
            except self.crew.deaths:  # while it was idle
                worker.stop()
            else:
                self.flying[future] = _Job(worker, self.waiting.popleft(), time.monotonic())

    def _pass_on(self) -> None:
        tasks = {job.batch[0].key: job.batch[0] for job in self.flying.values()}
        for key, description, count, total in self.crew.news():
            if key in tasks:
                self.report(tasks[key], description, count, total)

    def _collect(self, future: Future[Done]) -> list[tuple[Task, Outcome]]:
        """The outcomes of a job if it has ended, in whatever way."""
        job = self.flying[future]
        if not future.done():
            return self._stop_late(future, job)
        del self.flying[future]
        try:
            done = future.result()
        except self.crew.deaths as death:
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

    def _stop_late(self, future: Future[Done], job: _Job) -> list[tuple[Task, Outcome]]:
        if self.time_limit is None or time.monotonic() - job.begin < self.time_limit * len(job.batch):
            return []
        del self.flying[future]
        job.worker.stop()
        return self._blame(job.batch, f"took longer than {self.time_limit:g} seconds; raise --time-limit")

    def _blame(self, batch: Batch, reason: str) -> list[tuple[Task, Outcome]]:
        """A trial has failed; one of several, nobody knows which, so that each is tried again alone."""
        if len(batch) == 1:
            return _all_failed(batch, reason)
        self.suspects.extend(batch)
        return []

    def _lost(self, job: _Job, death: BaseException) -> list[tuple[Task, Outcome]]:
        """What becomes of a job whose worker died."""
        keys = [task.key for task in job.batch]
        if not self.crew.blames(job.worker, death):
            self.lost_nodes.update(keys)
            if max(self.lost_nodes[key] for key in keys) < NODES:
                self.waiting.append(job.batch)
                return []
            return _all_failed(job.batch, f"{NODES} machines were lost while it ran")
        self.deaths.update(keys)
        self.suspects.extend(task for task in job.batch if self.deaths[task.key] < TRIES)
        culprits = tuple(task for task in job.batch if self.deaths[task.key] >= TRIES)
        return _all_failed(culprits, "the worker process died, twice; most often it ran out of memory")


def _all_failed(batch: Batch, reason: str) -> list[tuple[Task, Outcome]]:
    return [(task, failed(task, reason)) for task in batch]
