"""Time of a trial's parts: seconds by the name of the part, each second in one part."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar


class Stopwatch:
    """Seconds by name; a name that is timed inside another is taken out of the outer one."""

    def __init__(self) -> None:
        self._total = 0.0
        self._seconds: dict[str, float] = {}
        self._inner = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Take the time of the trial: meanwhile :func:`timed` reports here, in the same thread."""
        before, begin = _running.set(self), time.perf_counter()
        try:
            yield
        finally:
            self._total += time.perf_counter() - begin
            _running.reset(before)

    def add_share(self, other: Stopwatch, trials: int) -> None:
        """Count what was done for several trials at once."""
        for name, seconds in other._seconds.items():
            self._seconds[name] = self._seconds.get(name, 0.0) + seconds / trials
        self._total += other._total / trials

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        outer, self._inner = self._inner, 0.0
        begin = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - begin
            self._seconds[name] = self._seconds.get(name, 0.0) + elapsed - self._inner
            self._inner = outer + elapsed

    def seconds(self) -> dict[str, float]:
        """By name, and in ``total`` while it was running."""
        return {name: round(value, 3) for name, value in {**self._seconds, "total": self._total}.items()}


# What works beside a trial in threads of its own takes none of the trial's time, and finds none here.
_running: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


@contextlib.contextmanager
def timed(name: str) -> Iterator[None]:
    """Count what follows as a part of the running trial, wherever in it; outside of trials it does nothing."""
    watch = _running.get()
    with watch(name) if watch is not None else contextlib.nullcontext():
        yield
