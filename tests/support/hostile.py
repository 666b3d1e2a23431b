"""Hostile input: each case ends in one clear error or right handling, is counted, and is kept from doing harm."""

from __future__ import annotations

import contextlib
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar, cast

from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.errors import BenchError

T = TypeVar("T")
SECONDS = 60  # of one case, on a machine that others use too
ROOM = 4 << 30  # bytes of addresses that a case may ask for: more is refused by the system
GROWTH = 1 << 20  # KiB by which a case may make the process larger than it ever was: 1 GiB

HEAD = """\
# Hostile and broken input

What was tried, by kind of input. Each case ends in one clear error that says what is wrong, or is handled
rightly; none ends in a traceback, takes longer than {seconds} s, makes the process a gigabyte larger, or gives a
number without a word. A clear error is one line (a check of a dataset lists one line for each file).

Made by `python -m pytest tests/hostile --hostile results/faults/hostile.md`.

"""


class Hang(BaseException):
    """A case took too long; no handler of errors catches it."""


class Counts:
    """How many inputs of one kind ended how, and the file of tests that tried them."""

    def __init__(self, file: str) -> None:
        self.file, self.errors, self.handled = file, 0, 0


class Hostile:
    """Tries inputs of one kind, and counts them.

    Args:
        counts: those of the kind.
    """

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.found: object = None

    def refused(self, call: Callable[[], object], *words: str, lines: bool = False) -> str:
        """The message of a call that must end in a clear error with ``words``; of one line, or of ``lines``."""
        message = self._error(call)
        assert message is not None, f"accepted: {self.found!r:.300}"
        assert lines or "\n" not in message, message
        for word in words:
            assert word in message, message
        self.counts.errors += 1
        return message

    def handled(self, call: Callable[[], T]) -> T:
        """What a call gives that must end well; the test looks at it."""
        message = self._error(call)
        assert message is None, message
        self.counts.handled += 1
        return cast(T, self.found)

    def either(self, call: Callable[[], T]) -> T | None:
        """What a call gives, or None if it ended in a clear error; for what is drawn at random."""
        if self._error(call) is not None:
            self.counts.errors += 1
            return None
        self.counts.handled += 1
        return cast(T, self.found)

    def _error(self, call: Callable[[], object]) -> str | None:
        """What a clear error says; None if there is none, and then ``found`` is what the call gave."""
        message = None
        with _bounded():
            try:
                self.found = call()
            except BenchError as error:
                message = str(error)
        assert message is None or (message.strip() and len(message) < 3000), message
        return message

    def command(self, *words: object, exit_code: int = 2) -> Result:
        """A call of ``bench`` that must end with an exit code: 2 is a clear error, any other is right handling.

        Nothing of an error steers the terminal.
        """
        with _bounded():
            result = CliRunner().invoke(main, [str(word) for word in words])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        assert result.exit_code == exit_code, result.output
        assert result.output.replace("\n", "").isprintable() or exit_code != 2, result.output
        if exit_code == 2:
            self.counts.errors += 1
        else:
            self.counts.handled += 1
        return result


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Time, addresses and memory of one case."""

    def stop(number: int, frame: object) -> None:
        raise Hang(f"more than {SECONDS} s")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    limits = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_addresses() + ROOM, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < GROWTH, f"the process has grown by {grown / 1024:.0f} MiB"


def _addresses() -> int:
    with open("/proc/self/statm", encoding="ascii") as stream:
        return int(stream.read().split()[0]) * resource.getpagesize()


def table(kinds: dict[str, Counts]) -> str:
    """The table of :data:`HEAD`, in Markdown."""
    lines = ["| kind of input | tried | clear error | handled rightly | how to repeat |", "|---|--:|--:|--:|---|"]
    rows = [(kind, c.errors, c.handled, f"`pytest {c.file}`") for kind, c in sorted(kinds.items())]
    rows.append(("**all**", sum(row[1] for row in rows), sum(row[2] for row in rows), "`pytest tests/hostile`"))
    lines += [f"| {kind} | {bad + good} | {bad} | {good} | {repeat} |" for kind, bad, good, repeat in rows]
    return HEAD.format(seconds=SECONDS) + "\n".join(lines) + "\n"
