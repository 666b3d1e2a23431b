"""Threads for work that NumPy does outside the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Below this many pixels starting threads costs more than it gains.
_THREADED = 1 << 22
# Beyond this many the search, which is repeated in each part of the negatives, eats what the sort gains.
_MAX_THREADS = 4


def threads_for(pixels: int) -> int:
    """Return how many threads to use for so many pixels."""
    if pixels < _THREADED:
        return 1
    # The processors this process may use, where the system says; else all there are.
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, _MAX_THREADS)


def each(function: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """Map in order; NumPy releases the interpreter lock in sorts, searches and copies, so threads do help."""
    if threads == 1:
        return [function(item) for item in items]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(function, items))
