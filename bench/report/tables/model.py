"""The model of a table of results: plain data, whatever the output format.

Every cell knows the keys of the records behind it, and one that has no number says why; nothing that is
missing is ever counted as zero. ``build_tables`` in :mod:`bench.report.tables.table` makes tables of records, and
:mod:`bench.report.tables.formats` prints them.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field
from typing import Literal, get_args

from bench.metrics.registry import TITLES

INCOMPLETE = "†"  # an average over some of the categories
NOT_ZERO_SHOT = "‡"
LEAKED = "(leak)"  # behind the name of a method whose weights have learned from the data tested on
SECOND = "+"  # in plain text
NO_SEEDS = "\N{EN DASH}"  # the deviation of a method that has no seeds

Status = Literal["ok", "partial", "failed", "undefined", "skipped", "missing"]
Best = Literal["tested", "maximum"]
Format = Literal["terminal", "markdown", "csv", "latex"]
FORMATS: tuple[str, ...] = get_args(Format)
AVERAGE = "Average"
CHECK = "✓"  # a component that is on


@dataclass(frozen=True, slots=True)
class CellKey:
    """The address of a number, whatever table shows it.

    Attributes:
        dataset, protocol, method: their labels.
        category: its name, or ``Average``.
        shots: labelled anomalies per seen category; None if shots mean nothing here.
        metric, metric_protocol: of the number.
        eval_size: the grid of evaluation in words; empty if the metric does not depend on it and records
            disagree.
    """

    dataset: str
    protocol: str
    method: str
    category: str
    shots: int | None
    metric: str
    metric_protocol: str
    eval_size: str = ""


@dataclass(frozen=True)
class Cell:
    """One number and the records that it was made from, or the reason why there is none.

    Attributes:
        status: ``ok``; ``partial``: a number from some of the seeds or categories only; or why there is no
            number: a trial ``failed``, the metric is ``undefined`` for it, it was ``skipped`` as not
            applicable, or it is ``missing``.
        keys: the records it was made from, whether they gave a value or not.
        mean: the number, a fraction; None if there is none.
        deviation: sample standard deviation over seeds; None with fewer than two, or without seeds.
        structural: the method has no seeds, so that there can be no deviation.
        seeds: number of seeds with a value; in the Average row, with a value in every covered category.
        expected: number of seeds in the same column group.
        covered: in the Average row, the number of categories that it covers.
        categories: in the Average row, the number of categories that there are.
        by_seed: the values behind the number, one per seed, as pairs (seed, value); the seed is None for a
            method without seeds. In the Average row, the per-seed averages over the covered categories.
        by_category: in the Average row, the covered categories' numbers, as pairs (category, number).
        lacking: in the Average row, the categories that it does not cover, as pairs (category, why); why is
            empty if there is no record.
        rank: 1 for the best of those that it competes with, 2 for the second; None if it does not compete.
        best: printed in bold, see :func:`bench.report.tables.best.mark_best`.
        pixel_images: of a pixel metric that anomalous images without a mask are left out of: category, number of
            test images that it was taken on, number of all.
        note: a remark that a reader of the number needs; empty if there is none.
        mark: the sign of the note's footnote.
        address: of the number.
    """

    status: Status
    keys: tuple[str, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    structural: bool = False
    seeds: int = 0
    expected: int = 0
    covered: int | None = None
    categories: int | None = None
    by_seed: tuple[tuple[int | None, float], ...] = ()
    by_category: tuple[tuple[str, float], ...] = ()
    lacking: tuple[tuple[str, str], ...] = ()
    rank: int | None = None
    best: bool = False
    pixel_images: tuple[tuple[str, int, int], ...] = ()
    note: str = ""
    mark: str = ""
    address: CellKey | None = field(default=None, compare=False, repr=False)

    @property
    def average(self) -> bool:
        """True of an average over categories."""
        return self.covered is not None

    @property
    def incomplete(self) -> bool:
        """True of an average over some of the categories only."""
        return self.mean is not None and self.covered != self.categories

    @property
    def marks(self) -> list[str]:
        """The signs behind the number that footnotes explain."""
        marks = [INCOMPLETE] if self.incomplete else []
        return [*marks, self.mark] if self.mark else marks


@dataclass(frozen=True)
class Column:
    """One method at one number of shots; in a layout it may be something else, such as a metric.

    Attributes:
        head: as printed; unique in its group.
        method: the method's label, unique like the head; empty if the column is not a method.
        group: the head of the column group, e.g. ``1-shot``; empty if shots mean nothing here.
        shots: labelled anomalies per seen category.
        mark: a sign at the head that a footnote explains.
    """

    head: str
    method: str
    group: str = ""
    shots: int | None = None
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A category, or the average over the categories; in a layout it may be something else.

    Attributes:
        head: as printed.
        cells: one per column.
        average: True for the average of the rows above it.
        section: name of the rows' section; they follow each other.
        stub: texts printed before the cells, one per head in ``Table.stub``; empty for ``head``.
    """

    head: str
    cells: tuple[Cell, ...]
    average: bool = False
    section: str = ""
    stub: tuple[str, ...] = ()

    @property
    def heads(self) -> tuple[str, ...]:
        """The texts printed before the cells."""
        return self.stub or (self.head,)


@dataclass(frozen=True)
class Note:
    """A footnote; ``mark`` is what refers to it, empty if it concerns the whole table."""

    text: str
    mark: str = ""


@dataclass(frozen=True, repr=False)
class Table:
    """One metric of one dataset under one protocol.

    Attributes:
        dataset: the dataset's label, and ``title`` as printed.
        metric: e.g. ``image_auroc``.
        metric_protocol: of the metric, e.g. ``exact``.
        eval_size: the grid of the pixel metrics in words, e.g. ``64 px``; empty if records disagree and
            the metric does not depend on it.
        protocol: label of the protocol, ``protocol_title`` as printed.
        seeds: the number of seeds in words.
        columns: from left to right; those of one group follow each other.
        rows: from top to bottom, the average last; every row has one cell per column.
        notes: footnotes, in order.
        percent: print percentages instead of fractions.
        best: the rule by which cells are marked as the best, and ``best_note``, that rule for a footnote.
        stub: heads of what is printed before the cells.
        layout: the layout whose rows and columns these are; empty for categories and methods.
        deviations: print deviations where there are any.
        second: mark the second of those that compete.
        study: the study that it was made from, with its hash; empty if unknown.
    """

    dataset: str
    title: str
    metric: str
    metric_protocol: str
    eval_size: str
    protocol: str
    protocol_title: str
    seeds: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()
    percent: bool = False
    best: Best = "maximum"
    best_note: str = "best of its row and column group."
    stub: tuple[str, ...] = ("Category",)
    layout: str = ""
    deviations: bool = True
    second: bool = False
    study: str = ""

    def __str__(self) -> str:
        """The table as ``bench table`` prints it."""
        from bench.report.tables.formats import render

        return render(self, "terminal").rstrip("\n")

    __repr__ = __str__  # what an interactive Python shows

    def _repr_html_(self) -> str:
        """The table as a notebook shows it."""
        from bench.report.tables.html import render

        return render(self)

    @property
    def metric_name(self) -> str:
        """The metric as printed."""
        return TITLES.get(self.metric, self.metric)

    @property
    def heading(self) -> str:
        """One line that says what the numbers are."""
        size = f" at {self.eval_size}" if self.eval_size else ""
        unit = " in %" if self.percent else ""
        return (
            f"{self.title}: {self.metric_name}{unit} (protocol {self.protocol_title}, "
            f"metric protocol {self.metric_protocol}{size}, {self.seeds})"
        )

    @functools.cached_property
    def has_deviations(self) -> bool:
        """True if any cell shows a deviation; if none does, its structural absence needs no sign."""
        return self.deviations and any(cell.deviation is not None for row in self.rows for cell in row.cells)

    @property
    def has_best(self) -> bool:
        """True if any cell is marked as the best."""
        return any(cell.best for row in self.rows for cell in row.cells)

    def footnotes(self, *, star: bool = False) -> tuple[Note, ...]:
        """The notes, after the one on bold numbers, or on those with a ``star`` where there is no bold.

        That the best number is bold goes without saying.
        """
        notes = []
        if self.has_best and (star or self.best == "tested"):
            notes.append(Note(self.best_note, "*") if star else Note(f"Bold: {self.best_note}"))
        if any(self.is_second(cell) for row in self.rows for cell in row.cells):
            notes.append(Note("second.", SECOND) if star else Note("Underlined: second."))
        return *notes, *self.notes

    def is_second(self, cell: Cell) -> bool:
        """True if the cell is to be marked as the second."""
        return self.second and cell.rank == 2 and not cell.best

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of all records behind the table, sorted."""
        return tuple(sorted({key for row in self.rows for cell in row.cells for key in cell.keys}))

    @property
    def digest(self) -> str:
        """SHA-256 of the keys, one per line: the same for the same records."""
        return hashlib.sha256("\n".join(self.keys).encode()).hexdigest()
