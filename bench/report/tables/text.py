"""Numbers and lines of text as all printed formats have them."""

from __future__ import annotations

import re

from bench.errors import printable, shorten
from bench.report.tables.model import NO_SEEDS, Cell, Table


def number(cell: Cell, table: Table) -> str:
    """The number in print, or a word for the reason why there is none."""
    if cell.mean is None:
        return "n/a" if cell.status == "undefined" else cell.status
    return _digits(cell.mean, table)


def deviation(cell: Cell, table: Table) -> str:
    """The deviation in print; empty where there is none to show."""
    if not table.has_deviations:
        return ""
    if cell.deviation is not None:
        return _digits(cell.deviation, table)
    return NO_SEEDS if cell.mean is not None and cell.structural else ""


def _digits(value: float, table: Table) -> str:
    return f"{100 * value:.1f}" if table.percent else f"{value:.3f}"


def clean(text: str) -> str:
    """Names come from folders: without line breaks and control characters."""
    return printable(text, instead=" ")


def short(name: str, longest: int = 80) -> str:
    """A name as it fits into a figure: without control characters, and if it is long without its middle."""
    return shorten(clean(name), longest, middle=True)


def sentence(text: str) -> str:
    """The text on one line, with a full stop unless it ends as a sentence does."""
    text = " ".join(str(text).split())
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def width(text: str) -> int:
    """Columns of a terminal that the text takes."""
    from rich.cells import cell_len

    return cell_len(text)


def wrap(text: str, limit: int) -> list[str]:
    """``text`` in lines no wider than ``limit``, broken at spaces, brackets and commas, or else anywhere."""
    lines = [""]
    for piece in re.findall(r"[^\s,\[(]*[,\[(]?\s*", clean(text)):
        if lines[-1] and width(lines[-1] + piece.rstrip()) > limit:
            lines.append("")
        for character in piece:
            if width(lines[-1] + character) > limit and not character.isspace():
                lines.append("")
            lines[-1] += character
    return [line.rstrip() for line in lines if line.strip()] or [""]
