"""Tables as Markdown, as GitHub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.report.tables import text
from bench.report.tables.model import Cell, Table


def render(table: Table) -> str:
    """The heading, the table and its footnotes."""
    heads = [*map(_escape, table.stub)]
    for column in table.columns:
        shots = f" ({_escape(column.group)})" if column.group else ""
        heads.append(_escape(column.head) + column.mark + shots)
    lines = [
        f"**{_escape(table.heading)}**",
        "",
        _row(heads),
        _row([":--"] * len(table.stub) + ["--:"] * len(table.columns)),
    ]
    section = ""
    for row in table.rows:
        if row.section not in ("", section):
            lines.append(_row([f"*{_escape(row.section)}*", *[""] * (len(heads) - 1)]))
        section = row.section
        stub = [f"**{_escape(head)}**" if row.average else _escape(head) for head in row.heads]
        lines.append(_row([*stub, *(_cell(cell, table) for cell in row.cells)]))
    notes = table.footnotes()
    if notes:
        lines.append("")
    for note in notes:
        mark = f"{_mark(note.mark)} " if note.mark else ""
        lines.append(f"- {mark}{_escape(note.text)}")
    return "\n".join(lines) + "\n"


def _cell(cell: Cell, table: Table) -> str:
    number, deviation = text.number(cell, table), text.deviation(cell, table)
    if cell.best:
        number = f"**{number}**"
    elif table.is_second(cell):
        number = f"<ins>{number}</ins>"
    return number + (f" ± {deviation}" if deviation else "") + "".join(map(_mark, cell.marks))


def _mark(mark: str) -> str:
    return f"<sup>{mark}</sup>" if mark.isalpha() else mark


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(name: str) -> str:
    """The name with markup, table borders, HTML and math escaped."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", text.clean(name))
