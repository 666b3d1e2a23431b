"""Errors for users: one clear line, with the way out."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class BenchError(Exception):
    """A mistake or a lack that the user can mend; the command line prints it without a stack trace."""


class NotApplicable(BenchError):  # noqa: N818 - it is an answer, not a failure
    """A method was asked for what it cannot do; the trial is recorded as skipped, with this reason."""


def shorten(name: str, longest: int = 100) -> str:
    """A name as it fits into a message."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def printable(text: str) -> str:
    """``text`` on one line, as it can be printed and stored: what is no text or steers terminals is escaped."""
    odd = ("Cc", "Cf", "Cs")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in odd else c for c in text)


def first_line(error: Exception) -> str:
    """What an exception says, without the rest of its story."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def unknown(kind: str, name: str, known: Iterable[str]) -> BenchError:
    """The error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    name = shorten(name)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    question = f" Did you mean {near[0]!r}?" if near else ""
    return BenchError(f"unknown {kind} {name!r}.{question} Known: {', '.join(names) or 'none'}.")
