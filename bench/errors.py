"""Errors for users, one clear line with the way out; and text as such a line can hold it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Similarity from which on a name counts as mistyped: "bottel" and "bottle" have 0.83, "foo" and "wood" 0.57.
_ALIKE = 0.7
_BEGINNING = 4  # letters of a name that tell which one is meant, where only one begins with them


class BenchError(Exception):
    """A mistake or a lack that the user can mend; the command line prints it without a stack trace."""


class NotApplicable(BenchError):  # noqa: N818 - it is an answer, not a failure
    """A method was asked for what it cannot do; the trial is recorded as skipped, with this reason."""


def shorten(text: str, longest: int = 100, *, middle: bool = False) -> str:
    """``text`` cut to ``longest`` characters, with an ellipsis at its end, or in its middle."""
    if len(text) <= longest:
        return text
    if middle:
        half = longest // 2
        return f"{text[:half]}…{text[-half:]}"
    return text[: longest - 1] + "…"


def printable(text: str, *, keep: str = "", instead: str | None = None) -> str:
    """``text`` as any terminal shows it and any file stores it.

    Control characters, line breaks, marks that turn the direction of writing and halves of surrogate pairs are
    escaped (``\\x1b``).

    Args:
        keep: characters that stay, such as line breaks.
        instead: text in their place, instead of the escape.
    """
    if text.isprintable():
        return text
    parts = []
    for character in text:
        if character.isprintable() or character in keep:
            parts.append(character)
        else:
            parts.append(character.encode("unicode_escape").decode() if instead is None else instead)
    return "".join(parts)


def first_line(error: BaseException) -> str:
    """The first line of an exception's message; its type's name if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that ``name`` misspells or begins, in whatever case; None if it is like none."""
    by_lower_case = {each.lower(): each for each in known}
    name = name.lower()
    for lower_case, each in by_lower_case.items():
        if sorted(lower_case) == sorted(name):  # letters in another order: much of a short name differs then
            return each
    longer = [each for lower_case, each in by_lower_case.items() if lower_case.startswith(name)]
    if len(longer) == 1 and len(name) >= _BEGINNING:
        return longer[0]
    found = difflib.get_close_matches(name, by_lower_case, n=1, cutoff=_ALIKE)
    return by_lower_case[found[0]] if found else None


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> BenchError:
    """The error for a name that does not exist: ``unknown category 'bottel' of mvtec. Did you mean 'bottle'? ...``

    Args:
        kind: of the name, such as ``category``.
        name: that was given.
        known: names that exist.
        where: the name was looked for: ``of mvtec``, ``in prompts.yaml``.
    """
    names = sorted(known)
    name = shorten(name)
    near = nearest(name, names)
    subject = f"unknown {kind} {name!r} {where}".rstrip()
    question = f" Did you mean {near!r}?" if near else ""
    return BenchError(f"{subject}.{question} Known: {', '.join(names) or 'none'}.")
