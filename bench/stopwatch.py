"""The old place of :mod:`bench.tools.stopwatch`, kept for one release."""

from bench.tools.stopwatch import Stopwatch, timed

__all__ = ["Stopwatch", "timed"]
