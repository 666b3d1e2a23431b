"""Tables as one HTML page that needs nothing but itself; every number leads to the trials behind it."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Sequence

from bench.report.tables import text, trace
from bench.report.tables.model import Cell, Table

STYLE = """
:root { color-scheme: light dark; --line: #8888; --soft: #8882; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0; }
h2 { font-size: 1.05rem; margin: 1.5rem 0 .5rem; }
th, td { padding: .2rem .7rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
th[scope=row], th.stub, th.section { text-align: left; }
th[scope=row] { font-weight: 400; }
th.group { text-align: center; border-bottom: 1px solid var(--line); }
th.section { font-style: italic; font-weight: 400; }
thead, .average { border-bottom: 1px solid var(--line); }
thead, tbody:last-child { border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
.average { border-top: 1px solid var(--line); }
.average th { font-weight: 600; }
.none, small { opacity: .7; }
td a { color: inherit; text-decoration: none; border-bottom: 1px dotted var(--line); }
td a:hover, td a:focus-visible { background: var(--soft); }
.best { font-weight: 700; }
.notes { font-size: .87rem; padding-left: 1.2rem; }
.why { display: none; border: 1px solid var(--line); border-radius: .4rem; padding: .5rem 1rem; margin: .5rem 0; }
.why:target { display: block; }
.why h3 { font-size: 1rem; margin: .3rem 0; }
.why table { font-size: .87rem; }
.why dl { display: grid; grid-template-columns: max-content auto; gap: .1rem 1rem; font-size: .87rem; }
.why dd { margin: 0; overflow-wrap: anywhere; }
.why code { font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def escape(name: str) -> str:
    """``name`` for HTML, in text and in attributes."""
    return html.escape(text.clean(name))


def render(tables: Sequence[Table], records: trace.Records | None = None) -> str:
    """One page with all the tables.

    Args:
        tables: what to show.
        records: looks up the record of a key; if given, every number leads to its trials below the table.
    """
    title = escape(tables[0].heading if tables else "no tables")
    numbers = itertools.count(1)
    body = "\n".join(line for table in tables for line in _table(table, records, numbers))
    head = '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    head += f"<title>{title}</title>\n<style>{STYLE}</style>"
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _table(table: Table, records: trace.Records | None, numbers: Iterator[int]) -> Iterator[str]:
    origins = []
    heading = escape(table.heading)
    yield f'<h2>{heading}</h2>\n<div class="wide">\n<table aria-label="{heading}">'
    yield "<thead>"
    yield from _heads(table)
    yield "</thead>\n<tbody>"
    section = ""
    for row in table.rows:
        if row.section not in ("", section):
            span = len(row.heads) + len(row.cells)
            yield f'<tr><th class="section" colspan="{span}" scope="rowgroup">{escape(row.section)}</th></tr>'
        section = row.section
        cells = []
        for column, cell in zip(table.columns, row.cells, strict=True):
            name = ""
            if records is not None and cell.keys and cell.place is not None:
                name = f"why-{next(numbers)}"
                found = trace.Found(table, row, column, cell, cell.place)
                origins.append((name, trace.origin([found], records)))
            cells.append(_cell(cell, table, name))
        heads = [f'<th scope="row">{escape(head)}</th>' for head in row.heads]
        average = ' class="average"' * row.average
        yield f"<tr{average}>{''.join([*heads, *cells])}</tr>"
    yield "</tbody>\n</table>\n</div>"
    yield '<ul class="notes">'
    yield from (f"<li>{_superscript(note.mark)} {escape(note.text)}</li>" for note in table.footnotes())
    yield "</ul>"
    for name, origin in origins:
        yield from _origin(name, origin)


def _heads(table: Table) -> Iterator[str]:
    groups = [(name, len(list(run))) for name, run in itertools.groupby(table.columns, lambda c: c.group)]
    stub = len(table.stub)
    if any(name for name, _ in groups):
        cells = (
            f'<th class="group" colspan="{span}" scope="colgroup">{escape(name)}</th>' for name, span in groups
        )
        yield f'<tr><td colspan="{stub}"></td>{"".join(cells)}</tr>'
    heads = [f'<th class="stub" scope="col">{escape(head)}</th>' for head in table.stub]
    heads += [f'<th scope="col">{escape(c.head)}{_superscript(c.mark)}</th>' for c in table.columns]
    yield f"<tr>{''.join(heads)}</tr>"


def _cell(cell: Cell, table: Table, name: str) -> str:
    number, deviation = escape(text.number(cell, table)), escape(text.deviation(cell, table))
    if table.is_second(cell):
        number = f"<u>{number}</u>"
    if name:
        number = f'<a href="#{name}">{number}</a>'
    kind = ' class="none"' if cell.mean is None else ' class="best"' if cell.best else ""
    spread = f" <small>± {deviation}</small>" if deviation else ""
    return f"<td{kind}>{number}{spread}{''.join(map(_superscript, cell.marks))}</td>"


def _superscript(mark: str) -> str:
    return f"<sup>{escape(mark)}</sup>" if mark else ""


def _origin(name: str, origin: trace.Origin) -> Iterator[str]:
    yield f'<section class="why" id="{name}">\n<h3>{escape(origin.title)}</h3>'
    yield f"<p>{'<br>'.join(map(escape, origin.numbers))}</p>"
    names = list(origin.trials[0]) if origin.trials else []
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in names)
    yield f'<div class="wide">\n<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>'
    for trial in origin.trials:
        yield f"<tr>{''.join(f'<td>{escape(trial[head])}</td>' for head in names)}</tr>"
    yield "</tbody>\n</table>\n</div>\n<dl>"
    yield from (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in origin.facts.items())
    yield "</dl>\n<p>To run them again, in another store:</p>"
    yield from (f"<p><code>{escape(command)}</code></p>" for command in origin.commands)
    yield "</section>"
