"""Progress of a run as plain lines, for programs and notebooks."""

from __future__ import annotations

import sys
import time

from bench.study.task import Fit, Job, Task
from bench.tools.text import count


def say(text: str) -> None:
    """Print a line for the user: on standard error, or on standard output in a notebook, where errors are red."""
    print(text, file=sys.stdout if "ipykernel" in sys.modules else sys.stderr, flush=True)


class LogListener:
    """Prints a line for each trial that has ended.

    Args:
        total: trials to run.
    """

    def __init__(self, total: int) -> None:
        self.total, self.ended = total, 0
        self._began, self._waiting = time.monotonic(), 0

    def report(self, job: Job, description: str, count: int, total: int) -> None:
        """Steps are not printed."""

    def finished(self, task: Task, status: str, reason: str | None) -> None:
        self.ended += 1
        why = f": {reason}" if reason else ""
        self._line(f"{self.ended}/{self.total} {status} {task.dataset} · {task.title}{why}")

    def fitted(self, fit: Fit, status: str, reason: str | None) -> None:
        self._line(f"{status} {fit.title}{f': {reason}' if reason else ''}")

    def waiting(self, number: int) -> None:
        if number != self._waiting:  # it is told again and again
            self._waiting = number
            self._line(f"waiting for {count(number, 'trial')} of another process")

    def _line(self, text: str) -> None:
        seconds = round(time.monotonic() - self._began)
        say(f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} {text}")
