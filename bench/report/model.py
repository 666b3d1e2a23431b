"""The model of a table of results: plain data, whatever the output format.

Every cell knows the keys of the records behind it, and one that has no number says why; nothing that is
missing is ever counted as zero. ``build_tables`` in :mod:`bench.report.table` makes tables of records, and
:mod:`bench.report.formats` prints them.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import Literal

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO@0.3",
    "aupimo": "AUPIMO",
}
INCOMPLETE = "†"  # an average over some of the categories
NOT_ZERO_SHOT = "‡"
NO_SEEDS = "\N{EN DASH}"  # the deviation of a method that has no seeds

Status = Literal["ok", "partial", "failed", "undefined", "skipped", "missing"]
Best = Literal["tested", "maximum"]


@dataclass(frozen=True)
class Cell:
    """One number with what is behind it, or the reason why there is none.

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
        rank: 1 for the largest of its row and column group, 2 for the second; None if it does not compete.
        best: whether it stands in bold, see :func:`bench.report.best.mark_best`.
        note: what a reader must know of it; empty if nothing.
        mark: refers to the footnote that says it.
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
    rank: int | None = None
    best: bool = False
    note: str = ""
    mark: str = ""

    @property
    def incomplete(self) -> bool:
        """Whether it is an average over some of the categories."""
        return self.mean is not None and self.covered != self.categories

    @property
    def marks(self) -> list[str]:
        """The signs behind the number that footnotes explain."""
        return [INCOMPLETE] * self.incomplete + [self.mark] * bool(self.mark)


@dataclass(frozen=True)
class Column:
    """One method at one number of shots.

    Attributes:
        head: as printed; unique among the methods of the table.
        method: the method's label; unique like the head.
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
    """A category, or the average over the categories."""

    head: str
    cells: tuple[Cell, ...]
    average: bool = False


@dataclass(frozen=True)
class Note:
    """A footnote; ``mark`` is what refers to it, empty if it concerns the whole table."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """One metric of one dataset under one protocol.

    Attributes:
        dataset: the dataset's label, and ``title`` as printed.
        metric: e.g. ``image_auroc``.
        metric_protocol: how the metric was taken, e.g. ``exact``.
        eval_size: the grid of the pixel metrics in words, e.g. ``64 px``; empty if records disagree and
            the metric does not depend on it.
        protocol: label of the protocol, ``protocol_title`` as printed.
        seeds: the number of seeds in words.
        columns: from left to right; those of one group stand together.
        rows: from top to bottom, the average last; every row has one cell per column.
        notes: footnotes, in order.
        percent: print percentages instead of fractions.
        best: the rule by which cells are marked as the best, and ``best_note``, that rule for a footnote.
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

    @property
    def metric_name(self) -> str:
        """The metric as printed."""
        return METRICS.get(self.metric, self.metric)

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
        """Whether any cell shows a deviation; if none does, its structural absence needs no sign."""
        return any(cell.deviation is not None for row in self.rows for cell in row.cells)

    @property
    def has_best(self) -> bool:
        """Whether any cell is marked as the best."""
        return any(cell.best for row in self.rows for cell in row.cells)

    def footnotes(self, *, star: bool = False) -> tuple[Note, ...]:
        """The notes, after the one on what stands in bold, or with a ``star`` where there is no bold.

        That the largest number is bold goes without saying.
        """
        if not self.has_best or (self.best == "maximum" and not star):
            return self.notes
        best = Note(self.best_note, "*") if star else Note(f"Bold: {self.best_note}")
        return best, *self.notes

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of all records behind the table, sorted."""
        return tuple(sorted({key for row in self.rows for cell in row.cells for key in cell.keys}))

    @property
    def digest(self) -> str:
        """SHA-256 of the keys, one per line: the same for the same records."""
        return hashlib.sha256("\n".join(self.keys).encode()).hexdigest()
