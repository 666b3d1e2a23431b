"""Trials on this machine: in worker processes, or inside this one."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

from bench.errors import BenchError
from bench.executors import NOT_YET, Report, Source, check_time_limit, log_path, share_log
from bench.executors.pool import Scheduler, Worker
from bench.executors.room import room
from bench.executors.worker import BatchRunner, Done, Progress, Tracker, free_memory, memory
from bench.store.record import Record
from bench.study.task import Batch, Job, Task
from bench.trial.batch import JobOutcome, run_batch


@dataclass(frozen=True)
class LocalConfig:
    """Options.

    Attributes:
        time_limit: seconds that a trial may take.
    """

    time_limit: float | None = None

    def __post_init__(self) -> None:
        check_time_limit(self.time_limit)


class LocalExecutor:
    """Runs trials in ``workers`` spawned processes, or in this process if ``workers`` is 0.

    By default there is one for each core, as far as there is memory, or for each GPU, which it fills. After one
    has died there are half as many: most often memory ran out, and fewer side by side need less of it.

    Raises:
        BenchError: a time limit, and no process that could be stopped.
    """

    Config: ClassVar[type[Any]] = LocalConfig

    def __init__(self, config: LocalConfig, workers: int | None, logs: Path) -> None:
        if workers == 0 and config.time_limit is not None:
            raise BenchError("with --workers 0 a trial cannot be stopped; give --workers 1, or no --time-limit")
        self.config, self.workers, self.logs = config, workers, logs

    def on_gpu(self, device: str) -> bool:
        """Tell if trials compute on a GPU, see :meth:`bench.executors.Executor.on_gpu`."""
        from bench.tools.devices import choose_device

        return choose_device(device).startswith("cuda")

    def choose_workers(self, tasks: Sequence[Task], records: Iterable[Record]) -> str:
        """Settle the number of workers for these trials, unless it is given; the sentence that says so.

        On a CPU there are as many as there are cores and memory for (:mod:`bench.executors.room`). The sentence is
        empty where trials run on GPUs or in this process, and for a given number that there is memory for.

        Args:
            tasks: trials to be run.
            records: of finished trials, which tell the memory that trials like them took.
        """
        if not tasks or self.workers == 0 or visible_gpus(tasks[0].device):
            return ""
        found = room(tasks, records, cores(), free_memory())
        given, self.workers = self.workers, self.workers or found.workers
        if given is not None and (given <= found.in_memory or not found.measured):
            return ""
        return found.in_words(self.workers)

    def run(self, batches: Source, report: Report) -> Iterator[tuple[Job, JobOutcome]]:
        """Run batches, see :meth:`bench.executors.Executor.run`."""
        if self.workers == 0:
            yield from _in_process(batches, report)
            return
        source = iter(batches)
        if not (first := next(source, ())):
            return
        gpus = visible_gpus(first[0].device)
        pool = _ProcessPool(self.workers or len(gpus) or cores(), gpus, self.logs)
        yield from Scheduler(pool, report, self.config.time_limit).run(itertools.chain([first], source))


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(device: str) -> list[str]:
    """The GPUs that ``device`` stands for, as ``CUDA_VISIBLE_DEVICES`` names them; none on a CPU.

    One that is chosen by its number (``cuda:1``), and a Mac's, count as one without a name.
    """
    from bench.tools.devices import choose_device

    chosen = choose_device(device)
    if chosen == "cpu":
        return []
    if chosen != "cuda":
        return [""]
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()  # of those that are named there, the ones that exist
    return given.split(",")[:count] if given else [str(number) for number in range(count)]


def _in_process(batches: Source, report: Report) -> Iterator[tuple[Job, JobOutcome]]:
    from bench.tools.devices import limit_threads

    limit_threads()
    for batch in batches:
        assert batch is not NOT_YET  # nothing is under way here when this loop asks
        report(batch[0], "starts", 0, 0)
        tracker = Tracker(lambda *progress, task=batch[0]: report(task, *progress))
        yield from zip(batch, run_batch(batch, tracker), strict=True)


class _ProcessPool:
    """Spawned processes, shared out among the GPUs."""

    deaths: tuple[type[BaseException], ...] = (BrokenProcessPool,)

    def __init__(self, workers: int, gpus: list[str], logs: Path) -> None:
        self.workers, self.gpus, self.logs = workers, gpus, logs
        self.share = memory() // workers
        self.started: list[_Process] = []

    def size(self) -> int:
        return self.workers

    def start(self) -> Worker:
        self.started = [worker for worker in self.started if not worker.stopped]
        busy = [worker.gpu for worker in self.started]
        worker = _Process(self.share, min(self.gpus, key=busy.count, default=""), self.logs)
        self.started.append(worker)
        return worker

    def check(self, worker: Worker) -> None:
        worker.ready.result()

    def is_to_blame(self, worker: Worker, death: BaseException) -> bool:
        self.workers = max(1, self.workers // 2)
        return True

    def progress(self) -> Iterator[Progress]:
        for worker in self.started:
            yield from worker.progress()


class _Process:
    """One spawned process: a pool of its own, so that it ends alone, and so that it can be stopped."""

    def __init__(self, share: int, gpu: str, logs: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.gpu, self.logs, self.stopped = gpu, logs, False
        # A pipe of its own, too: a shared queue is spoilt by a process that is killed while it holds the lock.
        self._reader, self._writer = context.Pipe(duplex=False)
        initial = (self._writer, share, gpu)
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_start, initargs=initial)
        with _without_main():  # the first job starts the process
            self.ready: Future[Any] = self._pool.submit(os.getpid)

    def submit(self, batch: Batch) -> Future[Done]:
        return self._pool.submit(_work, batch, self.logs)

    def progress(self) -> Iterator[Progress]:
        while not self.stopped and self._reader.poll():
            yield self._reader.recv()

    def stop(self) -> None:
        """End the process at once: after Ctrl-C a training is not waited for."""
        self.stopped = True
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.join()
        self._reader.close()
        self._writer.close()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Processes that are spawned meanwhile do not run the user's script.

    A worker needs nothing of it; and a script that runs a study without asking for its ``__name__`` first would
    run it again in every worker, and those in theirs.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


# ------------------------------------------------------------ in the worker

_runner: BatchRunner | None = None
_progress: Connection | None = None


def _start(progress: Connection, share: int, gpu: str) -> None:
    global _runner, _progress
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers itself
    threading.Thread(target=_end_with_driver, daemon=True).start()
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _runner, _progress = BatchRunner(share), progress


def _end_with_driver() -> None:
    """End this process with its driver; it would wait for its next task for ever."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        multiprocessing.connection.wait([driver.sentinel])
        os._exit(1)


def _work(batch: Batch, logs: Path) -> Done:
    assert _runner is not None and _progress is not None
    done = _runner.work(batch, _progress.send, log_path(logs, batch[0]))
    share_log(logs, batch, done.outcomes)
    return done
