"""Tables of results, made of trial records: rows, columns, cells and ranks.

:mod:`bench.report.tables.model` is what a table consists of, and :mod:`bench.report.tables.formats` prints it.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypedDict, Unpack

from bench.metrics.registry import TITLES
from bench.report.tables.best import Contest, by_row, mark_best
from bench.report.tables.cells import Measure, depends_on_size, size_in_words
from bench.report.tables.model import AVERAGE, NOT_ZERO_SHOT, Best, Cell, Column, Row, Table
from bench.report.tables.naming import Identity, unique_names
from bench.report.tables.notes import footnotes
from bench.report.tables.records import Grid, TableRecord, check_names, choose, read
from bench.store.record import AnyRecord
from bench.tools.groups import group
from bench.tools.text import count

__all__ = ["TITLES", "Cell", "Style", "Table", "build_tables"]


class Style(TypedDict, total=False):
    """The look of tables.

    percent: print percentages with one decimal instead of fractions with three.
    best: the rule for bold numbers, ``tested`` or ``maximum``. By default ``tested`` if any number comes from
        two seeds or more.
    deviations: print them (the default).
    second: mark the second of those that compete.
    study: the study that the records are of, for the comment line in LaTeX.
    """

    percent: bool
    best: Best | None
    deviations: bool
    second: bool
    study: str


def build_tables(
    records: Iterable[AnyRecord],
    *,
    metrics: Sequence[str] = ("image_auroc",),
    protocol: str = "exact",
    methods: Sequence[str] | None = None,
    **style: Unpack[Style],
) -> list[Table]:
    """Tables of trial records: one for each dataset, protocol and metric.

    Rows are the categories, sorted, and their average. Columns are grouped by shots; a method that does not
    learn is in every group. A cell is the mean over seeds with the sample standard deviation.

    **The Average row.** Its number is the mean of the column's category means, which with all trials there
    is the mean over seeds of the per-seed averages over categories. Its deviation is the sample standard
    deviation over seeds of these per-seed averages, so that it is the spread of the number beside it
    (not the mean of the categories' deviations, nor the spread between categories). Only seeds with a value
    in every covered category enter the deviation. An average that does not cover all categories is marked
    and does not compete for the best.

    **The best** of a row and column group are all numbers that are not significantly different from the largest
    one, or the largest alone; :func:`bench.report.tables.best.mark_best` says by which tests.

    **Separate columns and tables.** Records that differ in the method's version, config or encoders, or in the
    prompts, are different columns; in the data's fingerprint or version, or the protocol's options, different
    tables; for pixel metrics also in the grid of evaluation. A record that differs from another in anything
    else, such as the split, cannot share its cell: that is an error.

    Args:
        records: trial records, or their JSON documents; several with one key count once, the last ``ok`` one if
            there is any. A planned trial that has not run yet has the status ``missing``, so that its cell, seed
            or category is known to be missing.
        metrics: names as in the records, see :data:`TITLES`.
        protocol: one of the records' metric protocols.
        methods: labels, or names for all variants of a method: which ones, and their order. By default
            all, in the order of the records.
        style: see :class:`Style`.

    Raises:
        BenchError: an unknown metric, metric protocol or method; records that contradict each other.
    """
    entries = read(records)
    check_names(entries, metrics, protocol)
    if methods is not None:
        entries = choose(entries, methods)
    return [
        finished(table, [measure.grid], by_row(table), "of its row and column group", style)
        for measure in measures(entries, metrics, protocol)
        for table in [_table(measure)]
    ]


def measures(entries: Sequence[TableRecord], metrics: Sequence[str], protocol: str) -> Iterator[Measure]:
    """The content of one table each: every metric of every dataset and protocol, at every grid of evaluation."""
    datasets = unique_names(e.dataset for e in entries)
    protocols = unique_names(e.protocol for e in entries)
    for (data, rules), own in group(entries, lambda e: (e.dataset, e.protocol)).items():
        grid = Grid(own)
        for metric in metrics:
            for size in sizes(own, metric, protocol):
                yield Measure(datasets[data], protocols[rules], grid, metric, protocol, size)


def sizes(entries: Iterable[TableRecord], metric: str, protocol: str) -> list[str | None]:
    """The grids of evaluation that need a table each; None where the metric does not depend on it."""
    if not depends_on_size(metric):
        return [None]
    records = (entry.record for entry in entries)
    blocks = (r.blocks[protocol] for r in records if r.status == "ok" and protocol in r.blocks)
    return list(dict.fromkeys(map(size_in_words, blocks))) or [None]


def _table(measure: Measure) -> Table:
    grid = measure.grid
    # Column groups by shots, in each the methods in the order of the records.
    placed = [(shots, method) for shots in grid.shots for method in grid.of_method]
    # Cells come column by column, with the average last; a table needs them by row.
    lines = list(zip(*(measure.cells(method, shots) for shots, method in placed), strict=True))
    rows = [Row(category, line) for category, line in zip(grid.categories, lines[:-1], strict=True)]
    return Table(
        dataset=measure.dataset.label,
        title=measure.dataset.head,
        metric=measure.metric,
        metric_protocol=measure.metric_protocol,
        eval_size=measure.eval_size,
        protocol=measure.protocol.label,
        protocol_title=measure.protocol.head,
        seeds=seeds_in_words(grid),
        columns=tuple(column(grid, method, shots) for shots, method in placed),
        rows=(*rows, Row(AVERAGE, lines[-1], average=True)),
    )


def column(grid: Grid, method: Identity, shots: int | None) -> Column:
    """The column of a method at a number of shots."""
    label, head = grid.names[method]
    # All records of a method agree on this: it is part of what identifies it.
    foreign = grid.of_method[method][0].record.method.zero_shot is False
    group = "" if shots is None else f"{shots}-shot"
    return Column(head, label, group, shots, NOT_ZERO_SHOT if foreign else "")


def seeds_in_words(grid: Grid) -> str:
    """The number of seeds, at each number of shots if they differ."""
    said = {shots: count(len(seeds), "seed") if seeds else "no seeds" for shots, seeds in grid.seeds.items()}
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{number} at {shots}-shot" for shots, number in said.items())


def finished(
    table: Table,
    grids: Sequence[Grid],
    contests: Iterable[Contest],
    of: str,
    style: Style,
    notes: Sequence[str] = (),
) -> Table:
    """The table with ranks, the best marked, its style and its footnotes.

    Args:
        table: with cells that have none of that.
        grids: of the records behind it.
        contests, of: see :func:`bench.report.tables.best.mark_best`.
        style: its look.
        notes: of this table alone.
    """
    table = replace(
        table,
        percent=style.get("percent", False),
        deviations=style.get("deviations", True),
        second=style.get("second", False),
        study=style.get("study", ""),
    )
    # Notes get their marks after ranks and bold, so that marks stand in the order of reading.
    table = mark_best(table, contests, style.get("best"), of)
    marks = _marks(table)
    rows = []
    for row in table.rows:
        cells = tuple(replace(cell, mark=marks.get(cell.note, "")) for cell in row.cells)
        rows.append(replace(row, cells=cells))
    table = replace(table, rows=tuple(rows))
    return replace(table, notes=tuple(footnotes(table, grids, notes)))


def _marks(table: Table) -> dict[str, str]:
    """Note -> a, b, ..., z, aa, ...; equal notes share one."""
    notes = dict.fromkeys(cell.note for row in table.rows for cell in row.cells if cell.note)
    letters = (itertools.product(string.ascii_lowercase, repeat=n) for n in itertools.count(1))
    return dict(zip(notes, map("".join, itertools.chain.from_iterable(letters)), strict=False))
