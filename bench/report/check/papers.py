"""Measured cells beside the numbers that papers report.

A paper gives a mean, rarely a deviation, and not all of what it was measured with. So the question is not
whether numbers are equal but whether they are **the same to within a margin**, cell by cell:

* two or more seeds: two one-sided tests of the mean over seeds against reported ± margin (TOST,
  :mod:`bench.report.statistics.equivalence`), with the paper's deviation and runs where it gives both, else
  against the bare number. ``reproduced`` if the data exclude a difference of the margin or more; else ``better``
  or ``worse`` if they show a difference at all; else ``undecided``, which fails: too few seeds show nothing;
* one seed, or a method that has none: ``reproduced`` if the difference is at most the margin, else ``better`` or
  ``worse``;
* ``missing``: the study asks for the cell and has no number for it;
* ``not comparable``, with the reason, if anything but the number differs: protocol, shots, options, encoder, an
  adapted method, a data set that is not whole, or the way in which the metric is taken.

Numbers are compared with those of the same dataset alone: what is measured on pocket meets no paper. Each cell is
tested on its own, at 5 %. An average that does not agree with its own rows (``bench audit``) is compared twice:
as printed, and as the mean of the printed rows.

The margin of 0.015 is just under half of the smallest gap between two methods that stand side by side in the
Average row of PromptAD's Table 1 (0.815 - 0.784 = 0.031), so that no number is the same as both.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.errors import BenchError
from bench.metrics.registry import TITLES, sign
from bench.report.check.comparable import method_differs, metric_protocol, part, protocol_differs, same_cell
from bench.report.check.verdicts import Result, Verdict, turned
from bench.report.statistics.equivalence import equivalence
from bench.report.tables.model import Cell
from bench.report.tables.table import build_tables
from bench.reported import DATASET_AVERAGE, Reported
from bench.reported.audit import averages
from bench.store.record import AnyRecord, Record, as_records
from bench.store.store import Store
from bench.tools.text import count

MARGIN = 0.015

_FAILING: tuple[Verdict, ...] = ("worse", "undecided", "missing")


@dataclass(frozen=True)
class _MeasuredColumn:
    """The measured cells of one metric for one method at one number of shots.

    Attributes:
        record: of one of its trials.
        shots: None for a method that learns from none.
        cells: by category, and the average.
    """

    record: Record
    shots: int | None
    cells: Mapping[str, Cell]


def compare(
    records: Iterable[AnyRecord],
    reported: Iterable[Reported],
    store: Store,
    *,
    papers: Container[str] | None = None,
    metrics: Container[str] = tuple(TITLES),
    margin: float = MARGIN,
) -> tuple[list[Result], list[str]]:
    """Set a study's cells beside reported numbers; see the module's head.

    Args:
        records: of the study's trials; planned ones that were not run have the status ``missing``.
        reported: all numbers that are known; the categories of a dataset are also taken from them.
        store: holds the splits that the records refer to.
        papers: compare with these alone.
        metrics: to be compared.
        margin: differences below it do not count.

    Returns:
        The results, in the order of the reported numbers, and notes on what was not looked at.

    Raises:
        BenchError: a margin that is not between 0 and 1; records that contradict each other.
    """
    if not 0 < margin < 1:
        raise BenchError(f"the margin is a fraction between 0 and 1, such as {MARGIN}, not {margin:g}")
    measured = list(as_records(records))
    datasets = sorted({record.dataset.name for record in measured})
    known = [row for row in reported if row.dataset in datasets]
    comparison = _Comparison(measured, known, store, margin)
    rows = [row for row in known if row.metric in metrics and (papers is None or row.paper in papers)]
    having = {row.dataset for row in rows}
    notes = [f"no paper reports such numbers on {name}" for name in datasets if name not in having]
    results: list[Result] = []
    outside = 0
    for row in [*rows, *_means_of_rows(rows)]:
        found = comparison.results(row)
        outside += found is None
        results += found or []
    if outside:
        notes.append(f"not in the study: methods, shots or categories of {count(outside, 'reported number')}")
    return results, notes


def _means_of_rows(rows: Sequence[Reported]) -> Iterator[Reported]:
    """For printed averages that are not the means of their rows: those means, as further references."""
    for each in averages(rows):
        if each.verdict == "off" and each.mean is not None:
            place = f"{each.printed.place}, mean of its {len(each.rows)} rows"
            yield dataclasses.replace(each.printed, value=each.mean, decimals=4, place=place)


class _Comparison:
    """A study's columns, looked up by what a paper reports."""

    def __init__(self, records: Sequence[Record], known: Sequence[Reported], store: Store, margin: float) -> None:
        self._records, self._margin = records, margin
        self._protocols = {name for record in records for name in record.blocks}
        self._categories: dict[str, set[str]] = {}  # of each dataset, as far as any paper names them
        for row in known:
            if not row.average:
                self._categories.setdefault(row.dataset, set()).add(row.category)
        self._columns = functools.cache(self._build)
        by_key = {record.key: record for record in records}
        self._part = functools.cache(lambda key: part(by_key[key], store))

    def results(self, row: Reported) -> list[Result] | None:
        """One result per measured column that the number may belong to; None if the study has no such cell."""
        protocol, reason = metric_protocol(row, self._protocols)
        columns = [
            column for column in self._columns(row.metric, protocol) if same_cell(row, column.record, column.shots)
        ]
        found = [column for column in columns if row.category in column.cells]
        return [self._result(row, column, protocol, reason) for column in found] or None

    def _build(self, metric: str, protocol: str) -> list[_MeasuredColumn]:
        records = {(r.dataset.label, r.protocol.label, r.method.label): r for r in self._records}
        columns = []
        for table in build_tables(self._records, metrics=[metric], protocol=protocol, best="maximum"):
            seen = set()
            for place, column in enumerate(table.columns):
                record = records[table.dataset, table.protocol, column.method]
                if record.shots is None and column.method in seen:
                    continue  # a method that does not learn is in every column group
                seen.add(column.method)
                cells = {DATASET_AVERAGE if line.average else line.head: line.cells[place] for line in table.rows}
                shots = None if record.shots is None else column.shots
                columns.append(_MeasuredColumn(record, shots, cells))
        return columns

    def _result(self, row: Reported, column: _MeasuredColumn, protocol: str, reason: str) -> Result:
        cell = column.cells[row.category]
        verdict: Verdict = "not comparable"
        reason = reason or method_differs(row, column.record) or protocol_differs(row, column.record)
        reason = reason or self._average_differs(row, column)
        if not reason and cell.status != "ok":
            verdict, reason = "missing", cell.note or "no record of such a trial"
        reason = reason or self._not_whole(cell)
        if not reason:
            verdict, reason = _judge(cell, row, self._margin)
        return Result(
            against=f"{row.paper}, {row.place}",
            dataset=column.record.dataset.label,
            method=column.record.method.label,
            category=row.category,
            shots=column.shots,
            seed=None,
            metric=row.metric,
            metric_protocol=protocol,
            verdict=verdict,
            fails=verdict in _FAILING,
            expected=row.value,
            measured=cell.mean,
            reason=reason,
        )

    def _average_differs(self, row: Reported, column: _MeasuredColumn) -> str:
        """The reason why two averages are not over the same categories; empty if they are."""
        whole, own = self._categories.get(row.dataset, set()), column.cells.keys() - {DATASET_AVERAGE}
        if not row.average or not whole or own == whole:
            return ""
        return f"an average over {count(len(own), 'category', 'categories')}; the dataset has {len(whole)}"

    def _not_whole(self, cell: Cell) -> str:
        """The reason why the cell's images are not the whole dataset's; empty if they are, or if unknown."""
        return next((reason for key in cell.keys if (reason := self._part(key))), "")


# ------------------------------------------------------------ the comparison


def _judge(cell: Cell, row: Reported, margin: float) -> tuple[Verdict, str]:
    """The verdict on a cell that has a number, and how it was reached."""
    values = [value for _, value in cell.by_seed]
    if len(values) < 2 or cell.structural:
        assert cell.mean is not None
        difference = cell.mean - row.value
        seeds = "no seeds" if cell.structural else "one seed"
        said = f"{seeds}, so no test: tolerance {margin:g}"
        if abs(difference) <= margin + 1e-12:
            return "reproduced", said
        return turned("better" if difference > 0 else "worse", sign(row.metric)), said
    found = equivalence(values, row.value, margin, deviation=row.deviation, runs=row.runs)
    spread = "no deviation" if row.deviation is None else f"deviation {row.deviation:g} there"
    said = (
        f"TOST within {margin:g}: p = {found.p:.2g}, {len(values)} seeds, {row.runs or '?'} runs there, {spread}"
    )
    return turned(found.outcome, sign(row.metric)), said
