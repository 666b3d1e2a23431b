"""Former names of :mod:`bench.executors.pool`, for one release.

``Shift`` is now ``Scheduler`` and ``Crew`` is ``WorkerPool``, whose methods were renamed too: ``hire`` is
``start``, ``welcome`` is ``check``, ``blames`` is ``is_to_blame`` and ``news`` is ``progress``.
"""

from bench.executors.pool import Scheduler as Shift
from bench.executors.pool import Worker
from bench.executors.pool import WorkerPool as Crew

__all__ = ["Crew", "Shift", "Worker"]
