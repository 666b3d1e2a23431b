"""The table of the cross-dataset protocol: averages of each target by method, with what was learned from.

Papers on zero-shot detection print it so (AnomalyCLIP, ICLR 2024, Table 1): a dataset's categories are averaged,
and a number means little without the dataset that the method was trained on, which therefore stands in its row.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench.metrics.registry import TITLES
from bench.report.tables.best import Contest
from bench.report.tables.model import Column, Row, Table
from bench.report.tables.naming import Identity
from bench.report.tables.paper_cells import LayoutPart, LayoutRecords
from bench.report.tables.records import TableRecord
from bench.tools.groups import group

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")
NOTHING = "nothing"  # is what a method that is not trained has learned from


def learns_elsewhere(entry: TableRecord) -> bool:
    """True for a trial under a protocol that learns from another dataset."""
    return entry.record.protocol.source is not None


def cross_tables(sources: LayoutRecords) -> Iterator[Table]:
    """One table: sections of targets; in each a row for each method, training set and number of shots."""
    rows = [row for own in group(sources.all, lambda s: s.dataset).values() for row in _section(sources, own)]
    heads = [Column(TITLES[metric], "", "", None) for metric in METRICS]
    what = "image and pixel metrics, averaged over categories"
    of = "of its target and training set"
    stub = ("Method", "Learned from")
    yield sources.finished(sources.all, heads, rows, what, _same_training, stub=stub, of=of)


def _section(sources: LayoutRecords, parts: list[LayoutPart]) -> Iterator[Row]:
    """The rows of a target: methods that are not trained first."""
    found: dict[tuple[str, ...], Row] = {}
    for part in parts:
        for method in part.grid.of_method:
            for shots in part.grid.shots:
                source = _learned_from(part, method)
                if shots is not None and source != NOTHING:
                    source += f", {shots}-shot"
                measures = (sources.measure(part, metric) for metric in METRICS)
                cells = tuple(sources.cells(measure, method, shots)[-1] for measure in measures)
                stub = sources.head(method), source
                # Untrained methods have the same numbers whatever the source and the shots.
                found.setdefault(stub, Row(stub[0], cells, section=sources.target(part), stub=stub))
    yield from sorted(found.values(), key=lambda row: (row.stub[1] != NOTHING, row.stub[1]))


def _learned_from(part: LayoutPart, method: Identity) -> str:
    record = part.grid.of_method[method][0].record
    source, trained = record.protocol.source, record.method.trained
    if trained is None:  # not recorded: such a method has no seeds
        trained = not part.grid.seedless(method)
    return source.label if source is not None and trained else NOTHING


def _same_training(table: Table) -> list[Contest]:
    """The cells of each column that are of one target and one training set."""
    rows = group(range(len(table.rows)), lambda i: (table.rows[i].section, table.rows[i].stub[1])).values()
    return [[(row, column) for row in own] for own in rows for column in range(len(table.columns))]
