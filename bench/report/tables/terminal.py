"""Tables in a terminal: columns aligned at the decimal point, side by side as far as they fit."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bench.report.tables import text
from bench.report.tables.model import SECOND, Table

if TYPE_CHECKING:
    from rich.text import Text

_GAP, _GROUP_GAP = 2, 4

_Line = list[tuple[str, str]]  # pieces of text and their styles


def render(table: Table, width: int, *, star: bool) -> Text:
    """The heading, the table and its footnotes; the best in bold, with ``star`` also with a star."""
    from rich.text import Text

    result = Text()
    for pieces in _lines(table, width, star):
        line = Text.assemble(*pieces)
        line.rstrip()
        result.append_text(line).append("\n")
    return result


def _lines(table: Table, width: int, star: bool) -> Iterator[_Line]:
    for part in _fill(table.heading, width):
        yield [(part, "bold")]
    stub = _Stub(table, max(12, width // 4))
    columns = [_Column(table, i, star) for i in range(len(table.columns))]
    for block in _blocks(columns, width - stub.width):
        yield []
        yield from _block(table, stub, block)
    notes = table.footnotes(star=star)
    if notes:
        yield []
    for note in notes:
        mark = f"{_marks([note.mark])} " if note.mark else ""
        for part in _fill(note.text, width, mark):
            yield [(part, "dim")]


class _Stub:
    """The heads of rows: the lines of each, all but the last of them alone, padded to one width."""

    def __init__(self, table: Table, limit: int) -> None:
        columns = list(zip(table.stub, *(row.heads for row in table.rows), strict=True))
        limit = max(12, limit // len(columns))
        wrapped = [[text.wrap(head, limit) for head in column] for column in columns]
        widths = [max(text.width(part) for lines in column for part in lines) for column in wrapped]
        lines = []
        for cells in zip(*wrapped, strict=True):
            # The last lines of all columns are level: they are joined from the bottom up.
            bottom_up = []
            for parts in itertools.zip_longest(*(reversed(own) for own in cells), fillvalue=""):
                padded = [_pad(part, width) for part, width in zip(parts, widths, strict=True)]
                bottom_up.append((" " * _GAP).join(padded))
            lines.append(bottom_up[::-1])
        self.head, *self.rows = lines
        self.width = sum(widths) + _GAP * (len(widths) - 1)


class _Column:
    """The texts of one column: the lines of its head; of each cell the number, what follows, its style."""

    def __init__(self, table: Table, index: int, star: bool) -> None:
        column, cells = table.columns[index], [row.cells[index] for row in table.rows]
        before = max((len(text.number(cell, table)) for cell in cells if cell.mean is not None), default=0)
        self.cells: list[tuple[str, str, str]] = []
        for cell in cells:
            number, deviation, marks = text.number(cell, table), text.deviation(cell, table), _marks(cell.marks)
            if cell.mean is None:
                self.cells.append((number + marks, "", "dim"))
                continue
            sign = style = ""
            if cell.best:
                sign, style = "*", "bold"
            elif table.is_second(cell):
                sign, style = SECOND, "underline"
            tail = f" ± {deviation}" if deviation else ""
            tail += (sign if star else "") + marks
            self.cells.append((number.rjust(before), tail, style))
        widest = max(len(number + tail) for number, tail, _ in self.cells)
        self.group = column.group
        self.head = text.wrap(column.head + column.mark, max(widest, 9))
        self.width = max(widest, *map(text.width, self.head))


def _blocks(columns: list[_Column], room: int) -> list[list[_Column]]:
    """The columns side by side as far as they fit: all of them, else group by group."""

    def fit(block: list[_Column]) -> bool:
        lacking = sum(lack for _, lack in _lacks(block))
        return sum(_gaps(block)) + sum(column.width for column in block) + lacking <= room

    if fit(columns):
        return [columns]
    blocks: list[list[_Column]] = []
    for column in columns:
        if blocks and blocks[-1][-1].group == column.group and fit([*blocks[-1], column]):
            blocks[-1].append(column)
        else:
            blocks.append([column])
    return blocks


def _lacks(block: Sequence[_Column]) -> Iterator[tuple[_Column, int]]:
    """The last column of each group, and by how much the group is narrower than its title."""
    for group, run in itertools.groupby(block, lambda column: column.group):
        columns = list(run)
        inner = sum(column.width for column in columns) + _GAP * (len(columns) - 1)
        yield columns[-1], max(0, len(group) - inner)


def _gaps(block: Sequence[_Column]) -> list[int]:
    """The spaces before each column."""
    return [_GAP, *(_GAP if a.group == b.group else _GROUP_GAP for a, b in itertools.pairwise(block))]


def _block(table: Table, stub: _Stub, block: Sequence[_Column]) -> Iterator[_Line]:
    gaps, first = _gaps(block), stub.width
    for column, lack in _lacks(block):
        column.width += lack
    rule = [("─" * (first + sum(gaps) + sum(column.width for column in block)), "dim")]
    if any(column.group for column in block):
        titles, rules = [(" " * first, "")], [(" " * first, "")]
        for group, run in itertools.groupby(zip(gaps, block, strict=True), lambda pair: pair[1].group):
            spaces, columns = zip(*run, strict=True)
            inner = sum(column.width for column in columns) + sum(spaces[1:])
            titles += [(" " * spaces[0], ""), (group.center(inner), "bold")]
            rules += [(" " * spaces[0], ""), ("─" * inner, "dim")]
        yield titles
        yield rules
    height = max(len(stub.head), *(len(column.head) for column in block))
    for level in range(-height, 0):  # heads end on one line
        line = [(stub.head[level] if -level <= len(stub.head) else " " * first, "bold")]
        for gap, column in zip(gaps, block, strict=True):
            word = column.head[level] if -level <= len(column.head) else ""
            line.append((" " * gap + _pad(word, column.width), "bold"))
        yield line
    yield rule
    section = ""
    for position, (row, lines) in enumerate(zip(table.rows, stub.rows, strict=True)):
        if row.section not in ("", section):
            yield from [rule] * (position > 0)
            yield [(text.clean(row.section), "italic")]
        section = row.section
        if row.average:
            yield rule
        for part in lines[:-1]:
            yield [(part, "")]
        line = [(lines[-1], "bold" if row.average else "")]
        for gap, column in zip(gaps, block, strict=True):
            number, tail, style = column.cells[position]
            rest = column.width - len(number + tail)
            line += [(" " * gap, ""), (number, style), (tail + " " * rest, "")]
        yield line


def _marks(marks: Iterable[str]) -> str:
    return "".join(f"[{mark}]" if mark.isalpha() else mark for mark in marks)


def _pad(word: str, width: int) -> str:
    return word + " " * (width - text.width(word))


def _fill(sentence: str, width: int, mark: str = "") -> list[str]:
    """``mark`` and a sentence in lines of at most ``width``."""
    return textwrap.wrap(
        text.clean(sentence),
        max(width, 20 + len(mark)),
        initial_indent=mark,
        subsequent_indent=" " * len(mark),
        break_long_words=False,
        break_on_hyphens=False,
    )
