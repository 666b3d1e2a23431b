"""Tables in print: the terminal, Markdown, CSV and LaTeX.

Usage::

    print_table(table)                        # to the terminal, the best in bold
    text = render(table, "latex")             # one table
    text = render_all(tables, "markdown")     # several; one CSV header for all
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.errors import unknown
from bench.report.tables import csv_, latex, markdown, terminal
from bench.report.tables.model import FORMATS, Format, Table

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["FORMATS", "Format", "print_table", "render", "render_all"]

DEFAULT_WIDTH = 100  # of the terminal format when nothing is known of the terminal


def render(table: Table, format: Format, *, width: int | None = None) -> str:
    """One table as text that ends with a line break.

    Args:
        table: the table.
        format: ``terminal`` (plain text; the best has a star), ``markdown``, ``csv`` or ``latex``.
        width: columns of the terminal; the other formats do not depend on it.

    Raises:
        BenchError: an unknown format.
    """
    return render_all([table], format, width=width)


def render_all(tables: Sequence[Table], format: Format, *, width: int | None = None) -> str:
    """Several tables as one text; see :func:`render`."""
    if format == "csv":
        return csv_.render(tables)
    if format == "latex":
        return latex.render(tables)
    if format == "markdown":
        return "\n".join(map(markdown.render, tables))
    if format == "terminal":
        return "\n".join(terminal.render(table, width or DEFAULT_WIDTH, star=True).plain for table in tables)
    raise unknown("format", format, FORMATS)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table to a terminal, at its width; the best in bold, or with a star where bold is not shown."""
    if console is None:
        from rich.console import Console

        console = Console()
    star = not console.is_terminal or console.color_system is None
    text = terminal.render(table, console.width, star=star)
    console.print(text, soft_wrap=True, highlight=False, end="")
