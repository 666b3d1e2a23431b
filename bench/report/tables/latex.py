"""Tables as LaTeX floats, with booktabs and siunitx (its version 3)."""

from __future__ import annotations

import importlib.metadata
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from bench.report.tables import text
from bench.report.tables.model import CHECK, Cell, Column, Table
from bench.tools.text import count

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
    "✓": r"\checkmark{}",
}


_ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
_LETTERS = "ßÆæŒœØøÅåŁłı¡¿§¶©—…°\u201c\u201d\u2018\u2019"  # in every font encoding, as they are


def escape(name: str) -> str:
    """``name`` for LaTeX: special characters escaped, and so that every engine and font encoding can set it.

    Letters with common accents stay as they are. Any other character is set by engines for Unicode alone;
    elsewhere its code point replaces it, ``[U+6A21]``.
    """
    return "".join(_ESCAPES.get(c) or (c if _is_common(c) else _rare(c)) for c in text.clean(name))


def _is_common(character: str) -> bool:
    parts = unicodedata.normalize("NFD", character)
    return character in _LETTERS or (parts[0].isascii() and set(parts[1:]) <= set(_ACCENTS))


def _rare(character: str) -> str:
    return f"\\ifdefined\\Umathchar {character}\\else{{[}}U+{ord(character):04X}{{]}}\\fi{{}}"


def render(tables: Sequence[Table]) -> str:
    """One float per table; their labels differ also where only the protocol or the grid of evaluation does."""
    labels = list(map(_label, tables))
    floats = []
    for table, label in zip(tables, labels, strict=True):
        protocol = table.protocol if table.layout else ""  # elsewhere it is in the label already
        more = (protocol, table.eval_size) if labels.count(label) > 1 else ()
        floats.append(_float(table, _slug(label, *more)))
    return "\n".join(floats)


def _label(table: Table) -> str:
    if table.layout:
        return _slug(table.layout, table.dataset)
    exact = table.metric_protocol == "exact"
    return _slug(table.dataset, table.protocol, table.metric, "" if exact else table.metric_protocol)


def _slug(*parts: str) -> str:
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)


def _float(table: Table, label: str) -> str:
    numbers = len(table.columns)
    widest = 3 if table.has_deviations else 6  # columns that fit into one column of a two-column page
    environment = "table*" if numbers > widest else "table"
    font, spread = _sizes(numbers)
    study = f"; {text.clean(table.study)}" if table.study else ""
    packages = "booktabs,graphicx,siunitx"
    if any(CHECK in row.heads for row in table.rows):
        packages = f"amssymb,{packages}"
    lines = [
        f"% zsad-bench {_version()}{study}",
        f"% {count(len(table.keys), 'record')}, SHA-256 of their keys {table.digest}",
        f"% needs \\usepackage{{{packages}}}, siunitx 3 or later",
        f"\\begin{{{environment}}}[tbp]",
        "\\centering",
        f"\\caption{{{re.sub(r'(?<=[0-9]) (?=px|seed)', '~', escape(table.heading))}.}}",
        f"\\label{{tab:{label}}}",
        "\\par\\smallskip",
        "\\sisetup{mode=text,reset-text-series=false,table-align-text-after=false}",
        font,
        f"\\sbox0{{\\begin{{tabular}}{{{_columns(table, spread)}}}",
        "\\toprule",
        *_heads(table),
        "\\midrule",
        *_body(table, spread),
        "\\bottomrule",
        "\\end{tabular}}%",
        "\\ifdim\\wd0>\\linewidth\\resizebox{\\linewidth}{!}{\\usebox0}\\else\\usebox0\\fi",
    ]
    notes = table.footnotes()
    if notes:
        lines.append("\\par\\smallskip\\raggedright\\footnotesize")
        lines += [_superscript(note.mark, "\\,") + escape(note.text) for note in notes]
        lines.append("\\par")
    lines.append(f"\\end{{{environment}}}")
    return "\n".join(lines) + "\n"


def _sizes(columns: int) -> tuple[str, str]:
    """The sizes of the table and of its deviations: smaller and tighter the more columns there are.

    Six columns with deviations fit the text width of an article, ten that of a two-column page; what is wider
    all the same is scaled down.
    """
    if columns <= 4:
        return "\\small", r"\,{\scriptsize$\pm$\,%s}"
    if columns <= 6:
        return "\\footnotesize\\setlength{\\tabcolsep}{2.5pt}", r"\,{\tiny$\pm$\,%s}"
    return "\\scriptsize\\setlength{\\tabcolsep}{2pt}", r"{\tiny$\pm$%s}"


def _columns(table: Table, spread: str) -> str:
    """The columns' types: numbers aligned at the decimal point, with room for deviations and marks behind them."""
    # The most digits before and after the point, of all numbers, so that all columns are alike.
    before, after = 1, 1
    cells = [cell for row in table.rows for cell in row.cells]
    parts = [text.number(cell, table).partition(".") for cell in cells if cell.mean is not None]
    if parts:
        before = max(len(digits) for digits, _, _ in parts)
        after = max(len(digits) for _, _, digits in parts)
    # Columns of check marks are centred, names stand to the left.
    stub = []
    for position in range(len(table.stub)):
        heads = {row.heads[position] for row in table.rows}
        stub.append("c" if heads <= {"", CHECK} else "l")
    numbers = []
    for column in zip(*(row.cells for row in table.rows), strict=True):
        deviation = max((text.deviation(cell, table) for cell in column), key=len)
        marks = max(("".join(cell.marks) for cell in column if cell.mean is not None), key=len, default="")
        behind = (spread % escape(deviation) if deviation else "") + _superscript(marks)
        behind = f"{{{behind}}}" if behind else ""
        numbers.append(f"S[table-format={before}.{after}{behind}]")
    groups = []
    for _, group in itertools.groupby(zip(table.columns, numbers, strict=True), lambda pair: pair[0].group):
        runs = itertools.groupby(number for _, number in group)
        groups.append("".join(f"*{{{len(list(run))}}}{{{number}}}" for number, run in runs))
    return "".join(["@{}", *stub, "@{\\hspace{10pt}}".join(groups), "@{}"])


def _heads(table: Table) -> Iterator[str]:
    names, rules, position = [""] * len(table.stub), "", len(table.stub) + 1
    for name, run in itertools.groupby(table.columns, lambda column: column.group):
        number = len(list(run))
        names.append(f"\\multicolumn{{{number}}}{{c}}{{{escape(name)}}}")
        rules += f"\\cmidrule(lr){{{position}-{position + number - 1}}}"
        position += number
    if any(column.group for column in table.columns):
        yield _row(names)
        yield rules
    width = 18 if len(table.columns) <= 4 else 10
    yield _row([*map(escape, table.stub), *(_head(column, width) for column in table.columns)])


def _head(column: Column, width: int) -> str:
    parts = [escape(part) for part in text.wrap(column.head, width)]
    parts[-1] += _superscript(column.mark)
    stack = parts[0] if len(parts) == 1 else "\\shortstack{" + r"\\".join(parts) + "}"
    return f"\\multicolumn{{1}}{{c}}{{{stack}}}"


def _body(table: Table, spread: str) -> Iterator[str]:
    section = ""
    for position, row in enumerate(table.rows):
        if row.section not in ("", section):
            yield from ["\\midrule"] * (position > 0)
            width = len(row.heads) + len(row.cells)
            yield f"\\multicolumn{{{width}}}{{@{{}}l}}{{\\textit{{{escape(row.section)}}}}} \\\\"
        section = row.section
        if row.average:
            yield "\\midrule"
        yield _row([*map(escape, row.heads), *(_cell(cell, table, spread) for cell in row.cells)])


def _cell(cell: Cell, table: Table, spread: str) -> str:
    number, deviation = text.number(cell, table), text.deviation(cell, table)
    marks = _superscript("".join(cell.marks))
    if cell.mean is None:  # words in braces, lest they are read as a number
        return f"{{{number}{marks}}}"
    printed = f"\\bfseries {number}" if cell.best else number
    behind = f"\\mdseries{spread % escape(deviation)}" if deviation else ""
    if table.is_second(cell):  # a line of no width, drawn back below the number, which stays aligned
        behind = f"\\llap{{\\underline{{\\phantom{{{number}}}}}}}{behind}"
    return f"{printed}{{{behind}{marks}}}" if behind or marks else printed


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells).lstrip(" ") + r" \\"


def _superscript(mark: str, behind: str = "") -> str:
    return f"\\textsuperscript{{{escape(mark)}}}{behind}" if mark else ""


def _version() -> str:
    try:
        return importlib.metadata.version("zsad-bench")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"
