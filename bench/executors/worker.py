"""The worker's side: a process that carries out batches of trials, its memory and its output."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, NamedTuple

from bench.study.task import Batch
from bench.trial.batch import JobOutcome, run_batch

CONTROL_GROUPS = Path("/sys/fs/cgroup")
PAUSE = 0.2  # seconds between two reports of one trial's progress

# (key of the batch's first job, what it is doing, steps done, steps in all)
Progress = tuple[str, str, int, int]


class Done(NamedTuple):
    """The answer of a worker to a batch.

    Attributes:
        outcomes: of the batch's trials or fits, in order.
        worn: the process has gathered so much memory that it should be replaced.
        broken: it has lost its GPU. It must be replaced, and if the batch had several trials, all but one of them
            failed through no fault of their own.
    """

    outcomes: list[JobOutcome]
    worn: bool
    broken: bool = False


class BatchRunner:
    """Carries out batches in this process. Encoders, data and features stay loaded between them.

    On a CPU it computes with one thread; parallelism comes from trials side by side: that is faster for models of
    this size, and it makes results independent of the number of cores.

    Args:
        share: bytes of the machine's memory that this process may count on.
    """

    def __init__(self, share: int) -> None:
        from bench.encoders.features import CACHE
        from bench.tools.devices import limit_threads

        limit_threads()
        CACHE.limit = min(CACHE.limit, share // 2)
        self._share = share
        self._at_first = 0

    def work(self, batch: Batch, tell: Callable[[Progress], object], log: Path) -> Done:
        """Carry out a batch, and tell how it goes on; what it prints goes to ``log``."""
        with captured(log):
            outcomes = run_batch(batch, Tracker(lambda *progress: tell((batch[0].key, *progress))))
        held = _resident()
        self._at_first = self._at_first or held
        # Encoders and cached features may rightly fill the share; a leak goes on growing after the first trial.
        worn = held > max(self._share, 2 * self._at_first)
        failed = any(outcome.status == "failed" for outcome in outcomes)
        return Done(outcomes, worn, broken=failed and has_lost_gpu())


class Tracker:
    """Wraps a loop of training steps and tells about it, a few times a second at most."""

    def __init__(self, tell: Callable[[str, int, int], object]) -> None:
        self.tell = tell

    def __call__(self, steps: Iterable[Any], description: str) -> Iterator[Any]:
        total = len(steps) if isinstance(steps, Sized) else 0
        reported = 0.0
        for count, step in enumerate(steps):
            if (now := time.monotonic()) - reported > PAUSE:
                self.tell(description, count, total)
                reported = now
            yield step


@contextlib.contextmanager
def captured(log: Path) -> Iterator[None]:
    """Send the output of this process to ``log`` meanwhile, native code's too; no output leaves no file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # A character that the log's encoding lacks fails no trial. The stream that replaces one which a method closed
    # is lenient already, and cannot be reconfigured: it does not seek.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")
    with log.open("wb") as file:
        kept = [(number, os.dup(number)) for number in (1, 2)]
        try:
            _redirect((number, file.fileno()) for number in (1, 2))
            with warnings.catch_warnings():  # lest one that an earlier trial gave be thought known
                yield
        finally:
            _redirect(kept)
            for _, copy in kept:
                os.close(copy)
    if log.stat().st_size == 0:
        log.unlink()


def _redirect(numbers: Iterable[tuple[int, int]]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    for number, target in numbers:
        os.dup2(target, number)


def has_lost_gpu() -> bool:
    """True if a kernel has crashed, after which nothing that this process asks of its GPU can succeed."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def memory() -> int:
    """Bytes of memory in this machine or container; a modest guess where the system does not tell."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        total = 8 * 2**30
    return min(total, _limit() or total)


def free_memory() -> int:
    """Bytes of memory that new processes may have; all of it where the system does not tell what is free."""
    total = memory()
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return total
    return min(
        total, next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), total)
    )


def _limit() -> int | None:
    """The limit of a container or a job of a batch system, by Linux's control groups; None without one."""
    limits = []
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            limits.append(int((CONTROL_GROUPS / name).read_text(encoding="ascii")))
    return min(limits, default=None)


def _resident() -> int:
    """Bytes that this process holds for itself, mapped files left out; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)
