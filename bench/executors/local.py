"""Trials on this machine: in worker processes, or inside this one.

On a CPU every worker computes with one thread, and parallelism comes from trials side by side: that is
faster for models of this size, and it makes results independent of the number of cores.
"""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from typing import Any

from bench.executors import Report
from bench.study import Batch, Task
from bench.trial import Outcome, failed, run_together

_POLL = 0.2  # seconds between looks at the workers' reports
_GRACE = 5.0  # seconds that a worker without work has to end


class LocalExecutor:
    """Runs trials in ``workers`` spawned processes, or in this process if ``workers`` is 0.

    A worker that dies (killed for memory, a crash in native code) costs the trials in flight one more try
    each, alone; the one that kills its worker again is recorded as failed.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def run(self, batches: Iterable[Batch], report: Report) -> Iterator[tuple[Task, Outcome]]:
        if self.workers == 0:
            yield from _in_process(batches, report)
            return
        suspects: list[Task] = []
        source = iter(batches)  # outlives the pools; `yield from` would close it with the first one
        while (first := next(source, None)) is not None:
            # A broken pool ends `_pool`; what was in flight becomes suspect and the rest goes on in a new one.
            yield from _pool(self.workers, itertools.chain([first], source), report, suspects)
            if suspects:  # most often memory ran out: fewer side by side need less of it
                self.workers = max(1, self.workers // 2)
            for task in suspects:
                again: list[Task] = []
                yield from _pool(1, [(task,)], report, again)
                for culprit in again:
                    yield (
                        culprit,
                        failed(culprit, "the worker process died, twice; most often it ran out of memory"),
                    )
            suspects.clear()


def _in_process(batches: Iterable[Batch], report: Report) -> Iterator[tuple[Task, Outcome]]:
    from bench.devices import limit_threads

    limit_threads()
    for batch in batches:
        report(batch[0], "starts", 0, 0)
        tracker = _Tracker(lambda *news, task=batch[0]: report(task, *news))
        yield from zip(batch, run_together(batch, tracker), strict=True)


class _Tracker:
    """Wraps a loop of training steps and tells about it, a few times a second at most."""

    def __init__(self, tell: Any) -> None:
        self.tell = tell

    def __call__(self, steps: Iterable[Any], description: str) -> Iterator[Any]:
        total = len(steps) if isinstance(steps, Sized) else 0
        told = 0.0
        for count, step in enumerate(steps):
            if (now := time.monotonic()) - told > _POLL:
                self.tell(description, count, total)
                told = now
            yield step


def _pool(
    workers: int, batches: Iterable[Batch], report: Report, suspects: list[Task]
) -> Iterator[tuple[Task, Outcome]]:
    """Run batches in a pool until they end or the pool breaks; then ``suspects`` holds what was in flight."""
    context = multiprocessing.get_context("spawn")
    news: Queue[tuple[str, str, int, int]] = context.Queue()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(news, workers))
    source = iter(batches)
    flying: dict[Future[list[Outcome]], Batch] = {}
    try:
        while True:
            while len(flying) < workers and (batch := next(source, None)) is not None:
                report(batch[0], "starts", 0, 0)
                try:
                    future = pool.submit(_work, batch)
                except BrokenProcessPool:  # another batch's worker has just died; this one is claimed already
                    suspects.extend(batch)
                    raise
                flying[future] = batch
            if not flying:
                return
            landed, _ = wait(flying, timeout=_POLL, return_when=FIRST_COMPLETED)
            _pass_on(news, {batch[0].key: batch[0] for batch in flying.values()}, report)
            for future in landed:
                outcomes = future.result()
                yield from zip(flying.pop(future), outcomes, strict=True)
    except BrokenProcessPool:
        suspects.extend(itertools.chain.from_iterable(flying.values()))
    finally:
        _stop(pool)


def _pass_on(news: Queue[tuple[str, str, int, int]], flying: dict[str, Task], report: Report) -> None:
    while True:
        try:
            key, description, count, total = news.get_nowait()
        except (queue.Empty, EOFError, OSError):
            return
        if key in flying:
            report(flying[key], description, count, total)


def _stop(pool: ProcessPoolExecutor) -> None:
    """End the workers now: after Ctrl-C nobody waits for a training to finish."""
    processes = list((pool._processes or {}).values())
    idle = not pool._pending_work_items and not pool._broken
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        if idle:  # it ends by itself, unless a method has left a thread or a child that does not
            process.join(_GRACE)
        process.kill()
        process.join()


# ------------------------------------------------------------ in the worker

_news: Queue[tuple[str, str, int, int]] | None = None


def _start(news: Queue[tuple[str, str, int, int]], workers: int) -> None:
    global _news
    from bench.devices import limit_threads
    from bench.features import CACHE

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers itself
    threading.Thread(target=_end_with_driver, daemon=True).start()
    limit_threads()
    CACHE.limit = min(CACHE.limit, _memory() // (2 * workers))
    _news = news


def _end_with_driver() -> None:
    """A worker whose driver was killed would wait for its next task for ever."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        multiprocessing.connection.wait([driver.sentinel])
        os._exit(1)


def _memory() -> int:
    """Bytes of memory in this machine; a modest guess where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


def _work(batch: Batch) -> list[Outcome]:
    queue_ = _news

    def tell(description: str, count: int, total: int) -> None:
        if queue_ is not None:
            queue_.put((batch[0].key, description, count, total))

    return run_together(batch, _Tracker(tell))
