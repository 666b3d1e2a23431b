"""Tables in print: the terminal, Markdown, CSV and LaTeX.

Usage::

    print_table(table)                        # to the terminal, the best in bold
    text = render(table, "latex")             # one table
    text = render_all(tables, "markdown")     # several; one CSV header for all
"""

from __future__ import annotations

import csv
import functools
import importlib.metadata
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.errors import unknown
from bench.report.table import INCOMPLETE, NO_SEEDS, Cell, Column, Note, Row, Table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

Format = Literal["terminal", "markdown", "csv", "latex"]
FORMATS: tuple[str, ...] = get_args(Format)
DEFAULT_WIDTH = 100  # of the terminal format when nothing is known of the terminal

CSV_FIELDS = (
    "dataset",
    "metric",
    "protocol",
    "category",
    "shots",
    "method",
    "mean",
    "std",
    "seeds",
    "status",
    "reason",
    "metric_protocol",
    "eval_size",
)
_NO_NUMBER = {"failed": "failed", "undefined": "n/a", "skipped": "skipped", "missing": "missing"}


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
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    if format == "csv":
        return _csv(tables)
    if format == "terminal":
        texts = [_terminal(table, width or DEFAULT_WIDTH, styled=False).plain for table in tables]
    else:
        texts = [{"markdown": _markdown, "latex": _latex}[format](table) for table in tables]
    return "\n".join(texts)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table to a terminal, at its width; the best in bold, or with a star where bold is not shown."""
    if console is None:
        from rich.console import Console

        console = Console()
    styled = console.is_terminal and console.color_system is not None
    console.print(_terminal(table, console.width, styled=styled), soft_wrap=True, highlight=False, end="")


# ---------------------------------------------------------------- what all formats share


def _number(value: float, table: Table) -> str:
    return f"{100 * value:.1f}" if table.percent else f"{value:.3f}"


def _deviation(cell: Cell, table: Table) -> str:
    """The deviation in print: empty where there is none to show."""
    if cell.deviation is not None:
        return _number(cell.deviation, table)
    return NO_SEEDS if cell.structural and table.has_deviations else ""


def _is_incomplete(cell: Cell, total: int) -> bool:
    return cell.mean is not None and cell.covered is not None and cell.covered < total


def _marks(cell: Cell, total: int) -> list[str]:
    return [INCOMPLETE] * _is_incomplete(cell, total) + [cell.mark] * bool(cell.mark)


def _total(table: Table) -> int:
    return sum(not row.average for row in table.rows)


def _clean(text: str) -> str:
    """Names come from folders: without line breaks and control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def _runs(columns: Sequence[Column]) -> Iterator[tuple[str, int]]:
    """Head and number of columns of each column group, from left to right."""
    start = 0
    for i in range(1, len(columns) + 1):
        if i == len(columns) or columns[i].group != columns[start].group:
            yield columns[start].group, i - start
            start = i


# ---------------------------------------------------------------- terminal

_GAP, _GROUP_GAP = 2, 4


def _terminal(table: Table, width: int, *, styled: bool) -> Text:
    from rich.text import Text

    text = Text()

    def line(*parts: tuple[str, str]) -> None:
        whole = "".join(part for part, _ in parts)
        room = len(whole.rstrip())
        for part, style in parts:
            text.append(part[:room], style if styled else "")
            room = max(room - len(part), 0)
        text.append("\n")

    for part in _fill(_clean(table.heading), width):
        line((part, "bold"))
    columns = [_TerminalColumn(table, i, star=not styled) for i in range(len(table.columns))]
    first = _fit([_clean(row.head) for row in table.rows] + ["Category"], max(12, width // 4))
    for block in _blocks(table, [column.width for column in columns], width - first):
        line()
        _terminal_block(line, table, columns, block, first)
    notes = list(table.notes)
    if table.has_best and not styled:
        notes.insert(0, Note("best of its row and column group.", "*"))
    if notes:
        line()
    for note in notes:
        mark = f"[{note.mark}] " if note.mark.isalpha() else note.mark + " " * bool(note.mark)
        for i, part in enumerate(_fill(_clean(note.text), width - len(mark))):
            line(((" " * len(mark) if i else mark) + part, "dim"))
    return text


class _TerminalColumn:
    """The texts of one column, aligned at the decimal point."""

    def __init__(self, table: Table, index: int, *, star: bool) -> None:
        cells = [row.cells[index] for row in table.rows]
        total = _total(table)
        column = table.columns[index]
        numbers = ["" if cell.mean is None else _number(cell.mean, table) for cell in cells]
        before = max(map(len, numbers))
        self.cells: list[tuple[str, str, str]] = []  # the number, what follows it, and its style
        for cell, number in zip(cells, numbers, strict=True):
            marks = "".join(f"[{m}]" if m.isalpha() else m for m in _marks(cell, total))
            if number:
                best = cell.rank == 1
                deviation = _deviation(cell, table)
                tail = (f" ± {deviation}" if deviation else "") + "*" * (best and star) + marks
                self.cells.append((number.rjust(before), tail, "bold" if best else ""))
            else:
                self.cells.append(("", _NO_NUMBER[cell.status] + marks, "dim"))
        widest = max(len(number + tail) for number, tail, _ in self.cells)
        self.head = _wrap(_clean(column.head) + column.mark, max(widest, 9))
        self.width = max(widest, len(column.group), *(_length(part) for part in self.head))


def _blocks(table: Table, widths: Sequence[int], width: int) -> list[list[int]]:
    """The columns side by side as far as they fit: all of them, else group by group."""

    def taken(block: Sequence[int]) -> int:
        gaps = (
            _GROUP_GAP if n and table.columns[i].group != table.columns[block[n - 1]].group else _GAP
            for n, i in enumerate(block)
        )
        return sum(gaps) + sum(widths[i] for i in block)

    everything = list(range(len(widths)))
    if taken(everything) <= width:
        return [everything]
    blocks: list[list[int]] = []
    for i in everything:
        same = blocks and table.columns[blocks[-1][-1]].group == table.columns[i].group
        if same and taken([*blocks[-1], i]) <= width:
            blocks[-1].append(i)
        else:
            blocks.append([i])
    return blocks


def _terminal_block(
    line: Any, table: Table, columns: Sequence[_TerminalColumn], block: Sequence[int], first: int
) -> None:
    chosen = [table.columns[i] for i in block]
    gaps = [_GROUP_GAP if n and column.group != chosen[n - 1].group else _GAP for n, column in enumerate(chosen)]
    span = first + sum(gaps) + sum(columns[i].width for i in block)
    if any(column.group for column in chosen):
        titles, rules, n = [(" " * first, "")], [(" " * first, "")], 0
        for name, number in _runs(chosen):
            inner = sum(columns[i].width for i in block[n : n + number]) + sum(gaps[n + 1 : n + number])
            titles += [(" " * gaps[n], ""), (name.center(inner), "bold")]
            rules += [(" " * gaps[n], ""), ("─" * inner, "dim")]
            n += number
        line(*titles)
        line(*rules)
    height = max(len(columns[i].head) for i in block)
    for level in range(height):
        parts = [("Category".ljust(first) if level == height - 1 else " " * first, "bold")]
        for gap, i in zip(gaps, block, strict=True):
            head = columns[i].head
            word = head[level - height + len(head)] if level >= height - len(head) else ""
            parts += [(" " * gap + _pad(word, columns[i].width), "bold")]
        line(*parts)
    line(("─" * span, "dim"))
    position = 0
    for number, group in enumerate(table.groups):
        if group.title:
            line((_clean(group.title), "bold"))
        elif number:
            line(("─" * span, "dim"))
        for row in group.rows:
            if row.average and len(group.rows) > 1:
                line(("─" * span, "dim"))
            names = _wrap(_clean(row.head), first)
            for name in names[:-1]:
                line((name, ""))
            parts = [(_pad(names[-1], first), "bold" if row.average else "")]
            for gap, i in zip(gaps, block, strict=True):
                value, tail, style = columns[i].cells[position]
                rest = columns[i].width - len(value + tail)
                parts += [(" " * gap, ""), (value, style), (tail, "" if value else style), (" " * rest, "")]
            line(*parts)
            position += 1


def _length(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _length(text))


def _fit(texts: Iterable[str], limit: int) -> int:
    """The width of a column of ``texts`` whose lines are at most ``limit`` wide."""
    return max(_length(part) for text in texts for part in _wrap(text, limit))


def _wrap(text: str, width: int) -> list[str]:
    """``text`` in lines no wider than ``width``, broken at spaces, brackets and commas, or else anywhere."""
    lines = [""]
    for piece in re.findall(r"[^\s,\[(]*[,\[(]?\s*|[\[(]", text):
        if piece and lines[-1] and _length(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        for character in piece:
            if _length(lines[-1] + character) > width and not character.isspace():
                lines.append("")
            lines[-1] += character
    return [part.rstrip() for part in lines if part.strip()] or [""]


def _fill(text: str, width: int) -> list[str]:
    """A sentence in lines of at most ``width``."""
    import textwrap

    return textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False) or [""]


# ---------------------------------------------------------------- Markdown


def _markdown(table: Table) -> str:
    total = _total(table)
    heads = ["Category"]
    for column in table.columns:
        shots = f" ({_md(column.group)})" if column.group else ""
        heads.append(_md(column.head) + column.mark + shots)
    lines = [f"**{_md(table.heading)}**", "", _md_row(heads), _md_row([":--"] + ["--:"] * len(table.columns))]
    for group in table.groups:
        if group.title:
            lines.append(_md_row([f"**{_md(group.title)}**"] + [""] * len(table.columns)))
        for row in group.rows:
            head = f"**{_md(row.head)}**" if row.average else _md(row.head)
            lines.append(_md_row([head, *(_md_cell(cell, table, total) for cell in row.cells)]))
    if table.notes:
        lines.append("")
    for note in table.notes:
        mark = f"<sup>{note.mark}</sup> " if note.mark.isalpha() else note.mark + " " * bool(note.mark)
        lines.append(f"- {mark}{_md(note.text)}")
    return "\n".join(lines) + "\n"


def _md_cell(cell: Cell, table: Table, total: int) -> str:
    marks = "".join(f"<sup>{m}</sup>" if m.isalpha() else m for m in _marks(cell, total))
    if cell.mean is None:
        return _NO_NUMBER[cell.status] + marks
    number = _number(cell.mean, table)
    deviation = _deviation(cell, table)
    return (f"**{number}**" if cell.rank == 1 else number) + (f" ± {deviation}" if deviation else "") + marks


def _md_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _md(text: str) -> str:
    """Escaped for GitHub: what would be markup, a table border, HTML or math."""
    return re.sub(r"([\\`*_\[\]<>|~$&#])", r"\\\1", _clean(text))


# ---------------------------------------------------------------- CSV


def _csv(tables: Sequence[Table]) -> str:
    """One line per cell; numbers are always fractions in full, whatever the table prints."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for table in tables:
        total = _total(table)
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                writer.writerow(
                    [
                        table.dataset,
                        table.metric,
                        table.protocol,
                        row.head,
                        "" if column.shots is None else column.shots,
                        column.method,
                        "" if cell.mean is None else repr(cell.mean),
                        "" if cell.deviation is None else repr(cell.deviation),
                        "" if cell.structural else cell.seeds,
                        cell.status,
                        _csv_reason(cell, total),
                        table.metric_protocol,
                        table.eval_size,
                    ]
                )
    return stream.getvalue()


def _csv_reason(cell: Cell, total: int) -> str:
    reasons = [f"average of {cell.covered} of {total} categories"] if _is_incomplete(cell, total) else []
    if cell.note:
        reasons.append(cell.note)
    elif cell.status == "missing":
        reasons.append("no record")
    return "; ".join(reasons)


# ---------------------------------------------------------------- LaTeX

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",  # these three are other characters in TeX's own font encoding
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # behind \\ a bracket would be its argument, and a star its variant
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{EN DASH}": "--",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
}


def latex_escape(text: str) -> str:
    """``text`` for LaTeX: its special characters escaped, all other Unicode left as it is."""
    return "".join(_LATEX.get(c, c) for c in _clean(text))


def _latex(table: Table) -> str:
    total = _total(table)
    columns = table.columns
    wide = table.has_deviations and len(columns) > 3
    font, deviation = _latex_sizes(len(columns))
    environment = "table*" if wide else "table"
    align = "l" if table.has_deviations else "c"
    spec = "@{}l" + "@{\\hspace{10pt}}".join(align * number for _, number in _runs(columns)) + "@{}"
    lines = [
        f"% zsad-bench {_version()}; {len(table.keys)} records, SHA-256 of their keys {table.digest}",
        "% needs \\usepackage{booktabs}",
        f"\\begin{{{environment}}}[tbp]",
        "\\centering",
        f"\\caption{{{re.sub(r'(?<=[0-9]) (?=px|seed)', '~', latex_escape(table.heading))}.}}",
        f"\\label{{{_latex_label(table)}}}",
        "\\par\\smallskip",
        font,
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
    ]
    if any(column.group for column in columns):
        names, rules, position = [""], "", 2
        for name, number in _runs(columns):
            names.append(f"\\multicolumn{{{number}}}{{c}}{{{latex_escape(name)}}}")
            rules += f"\\cmidrule(lr){{{position}-{position + number - 1}}}"
            position += number
        lines += [_latex_row(names), rules]
    heads = ["Category", *(f"\\multicolumn{{1}}{{c}}{{{_latex_head(column)}}}" for column in columns)]
    lines += [_latex_row(heads), "\\midrule"]
    means = [cell.mean for row in table.rows for cell in row.cells if cell.mean is not None]
    digits = max((len(_number(mean, table)) for mean in means), default=0)
    for number, group in enumerate(table.groups):
        if number:
            lines.append("\\midrule")
        if group.title:
            title = latex_escape(group.title)
            lines.append(_latex_row([f"\\multicolumn{{{len(columns) + 1}}}{{@{{}}l}}{{{title}}}"]))
        for row in group.rows:
            if row.average and len(group.rows) > 1:
                lines.append("\\midrule")
            lines.append(_latex_row(_latex_cells(row, table, total, deviation, digits)))
    lines += ["\\bottomrule", "\\end{tabular}"]
    if table.notes:
        lines.append("\\par\\smallskip\\raggedright\\footnotesize")
        lines += [_latex_note(note) for note in table.notes]
        lines.append("\\par")
    lines.append(f"\\end{{{environment}}}")
    return "\n".join(lines) + "\n"


def _latex_sizes(columns: int) -> tuple[str, str]:
    """How the table is set, and how its deviations are: smaller and tighter the more columns there are.

    Six columns with deviations fit the text width of an article, ten that of a two-column page.
    """
    if columns <= 4:
        return "\\small", r"\,{\scriptsize$\pm$\,%s}"
    if columns <= 6:
        return "\\footnotesize\\setlength{\\tabcolsep}{3pt}", r"\,{\tiny$\pm$\,%s}"
    return "\\scriptsize\\setlength{\\tabcolsep}{2pt}", r"{\tiny$\pm$%s}"


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cells).lstrip(" ") + r" \\"


def _latex_head(column: Column) -> str:
    mark = f"\\textsuperscript{{{latex_escape(column.mark)}}}" if column.mark else ""
    parts = [latex_escape(part) for part in _wrap(_clean(column.head), 18)]
    parts[-1] += mark
    return parts[0] if len(parts) == 1 else "\\shortstack{" + r"\\".join(parts) + "}"


def _latex_cells(row: Row, table: Table, total: int, pattern: str, digits: int) -> Iterator[str]:
    yield latex_escape(row.head)
    for cell in row.cells:
        marks = "".join(_marks(cell, total))
        hanging = f"\\rlap{{\\textsuperscript{{{latex_escape(marks)}}}}}" if marks else ""
        if cell.mean is None:
            yield _NO_NUMBER[cell.status] + hanging
            continue
        number = _number(cell.mean, table)
        padding = f"\\phantom{{{'0' * (digits - len(number))}}}" if len(number) < digits else ""
        deviation = _deviation(cell, table)
        spread = pattern % latex_escape(deviation) if deviation else ""
        yield padding + (f"\\textbf{{{number}}}" if cell.rank == 1 else number) + spread + hanging


def _latex_note(note: Note) -> str:
    mark = f"\\textsuperscript{{{latex_escape(note.mark)}}}\\," if note.mark else ""
    return mark + latex_escape(note.text)


def _latex_label(table: Table) -> str:
    parts = [table.dataset, table.protocol, table.metric]
    parts += [] if table.metric_protocol == "exact" else [table.metric_protocol]
    slug = "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    return f"tab:{slug}"


@functools.cache
def _version() -> str:
    try:
        return importlib.metadata.version("zsad-bench")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
