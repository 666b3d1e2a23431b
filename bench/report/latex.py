"""Tables as LaTeX floats, with booktabs."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from bench.report import text
from bench.report.model import Column, Row, Table

_ESCAPES = {
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


def escape(name: str) -> str:
    """``name`` for LaTeX: its special characters escaped, all other Unicode left as it is."""
    return "".join(_ESCAPES.get(c, c) for c in text.clean(name))


def render(tables: Sequence[Table]) -> str:
    """One float per table; their labels differ also where only the grid of evaluation does."""
    labels = []
    for table in tables:
        exact = table.metric_protocol == "exact"
        labels.append(_slug(table.dataset, table.protocol, table.metric, "" if exact else table.metric_protocol))
    floats = []
    for table, label in zip(tables, labels, strict=True):
        floats.append(_float(table, _slug(label, table.eval_size) if labels.count(label) > 1 else label))
    return "\n".join(floats)


def _slug(*parts: str) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)


def _float(table: Table, label: str) -> str:
    columns = table.columns
    runs = [(name, len(list(run))) for name, run in itertools.groupby(columns, lambda column: column.group)]
    wide = table.has_deviations and len(columns) > 3
    font, spread = _sizes(len(columns))
    environment = "table*" if wide else "table"
    align = "l" if table.has_deviations else "c"
    spec = "@{}l" + "@{\\hspace{10pt}}".join(align * number for _, number in runs) + "@{}"
    lines = [
        f"% zsad-bench {_version()}; {len(table.keys)} records, SHA-256 of their keys {table.digest}",
        "% needs \\usepackage{booktabs}",
        f"\\begin{{{environment}}}[tbp]",
        "\\centering",
        f"\\caption{{{re.sub(r'(?<=[0-9]) (?=px|seed)', '~', escape(table.heading))}.}}",
        f"\\label{{tab:{label}}}",
        "\\par\\smallskip",
        font,
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
    ]
    if any(name for name, _ in runs):
        names, rules, position = [""], "", 2
        for name, number in runs:
            names.append(f"\\multicolumn{{{number}}}{{c}}{{{escape(name)}}}")
            rules += f"\\cmidrule(lr){{{position}-{position + number - 1}}}"
            position += number
        lines += [_row(names), rules]
    lines += [_row(["Category", *map(_head, columns)]), "\\midrule"]
    numbers = [text.number(cell, table) for row in table.rows for cell in row.cells if cell.mean is not None]
    digits = max(map(len, numbers), default=0)
    for row in table.rows:
        if row.average:
            lines.append("\\midrule")
        lines.append(_row([escape(row.head), *_cells(row, table, spread, digits)]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    notes = table.footnotes()
    if notes:
        lines.append("\\par\\smallskip\\raggedright\\footnotesize")
        lines += [_superscript(note.mark, "\\,") + escape(note.text) for note in notes]
        lines.append("\\par")
    lines.append(f"\\end{{{environment}}}")
    return "\n".join(lines) + "\n"


def _sizes(columns: int) -> tuple[str, str]:
    """How the table is set, and how its deviations are: smaller and tighter the more columns there are.

    Six columns with deviations fit the text width of an article, ten that of a two-column page.
    """
    if columns <= 4:
        return "\\small", r"\,{\scriptsize$\pm$\,%s}"
    if columns <= 6:
        return "\\footnotesize\\setlength{\\tabcolsep}{3pt}", r"\,{\tiny$\pm$\,%s}"
    return "\\scriptsize\\setlength{\\tabcolsep}{2pt}", r"{\tiny$\pm$%s}"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells).lstrip(" ") + r" \\"


def _head(column: Column) -> str:
    parts = [escape(part) for part in text.wrap(column.head, 18)]
    parts[-1] += _superscript(column.mark)
    stack = parts[0] if len(parts) == 1 else "\\shortstack{" + r"\\".join(parts) + "}"
    return f"\\multicolumn{{1}}{{c}}{{{stack}}}"


def _cells(row: Row, table: Table, spread: str, digits: int) -> Iterator[str]:
    for cell in row.cells:
        number, deviation = text.number(cell, table), text.deviation(cell, table)
        printed = f"\\textbf{{{number}}}" if cell.best else number
        if cell.mean is not None and len(number) < digits:
            printed = f"\\phantom{{{'0' * (digits - len(number))}}}{printed}"
        if deviation:
            printed += spread % escape(deviation)
        if cell.marks:
            printed += f"\\rlap{{{_superscript(''.join(cell.marks))}}}"
        yield printed


def _superscript(mark: str, behind: str = "") -> str:
    return f"\\textsuperscript{{{escape(mark)}}}{behind}" if mark else ""


def _version() -> str:
    try:
        return importlib.metadata.version("zsad-bench")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
