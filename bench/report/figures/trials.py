"""The trials behind a figure: from a table's cells to records, scores and data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.errors import BenchError, unknown
from bench.report.tables.model import Cell, Table
from bench.store.record import Record
from bench.store.store import Store
from bench.tools.groups import group as grouped


@dataclass(frozen=True)
class FigureTrial:
    """One trial with a value.

    Attributes:
        head: the method as printed.
        category: the target category.
        seed: None for a method without seeds.
        value: the table's metric.
        record: the trial's record.
    """

    head: str
    category: str
    seed: int | None
    value: float
    record: Record

    @property
    def key(self) -> str:
        return self.record.key

    @property
    def name(self) -> str:
        """For messages."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.head} on {self.category}{seed}"


class Trials:
    """The trials of one column group of a table that have a value.

    Args:
        table: of :func:`bench.report.tables.table.build_tables`.
        store: holds the records.
        group: head of the column group, see :func:`bench.report.comparison.compare.groups`.
        categories: the rows, in that order; none for all.

    Attributes:
        heads: the methods with a value, as printed, in the table's order.
        categories: those chosen.
        cells: head and category -> the table's cell.

    Raises:
        BenchError: no such category; nothing has a value.
    """

    def __init__(self, table: Table, store: Store, group: str = "", categories: Sequence[str] = ()) -> None:
        self.table, self.store, self.group = table, store, group
        rows = {row.head: row for row in table.rows if not row.average}
        for category in categories:
            if category not in rows:
                raise unknown("category", category, rows, f"of {table.title}")
        self.categories = tuple(dict.fromkeys(categories or rows))
        columns = [(i, column.head) for i, column in enumerate(table.columns) if column.group == self.group]
        self.cells: dict[tuple[str, str], Cell] = {
            (head, category): rows[category].cells[place]
            for place, head in columns
            for category in self.categories
        }
        valued = {head for (head, _), cell in self.cells.items() if cell.mean is not None}
        self.heads = tuple(head for _, head in columns if head in valued)
        self._records = {
            key: record
            for cell in self.cells.values()
            for key in cell.keys
            if (record := store.record(key)) is not None
        }
        if not self.heads:
            raise BenchError(f"{self.title(table.metric_name)}: no trial has a value ({'; '.join(self.remarks)})")

    def only(self, categories: Sequence[str]) -> Trials:
        """Those of some categories."""
        return Trials(self.table, self.store, self.group, categories)

    def title(self, what: str, shown: Iterable[FigureTrial] = ()) -> str:
        """The title of a figure of ``what``, on one line; of single trials with their seeds."""
        seeds = sorted({trial.seed for trial in shown if trial.seed is not None})
        parts = [what, self.group]
        if seeds:
            word = "seed" if len(seeds) == 1 else "seeds"
            parts.append(f"{word} {', '.join(map(str, seeds))}")
        return f"{self.table.title}: {', '.join(part for part in parts if part)}"

    @property
    def remarks(self) -> list[str]:
        """The cells without a value with their reasons, and the notes of the others."""
        places = [place for place, cell in self.cells.items() if cell.mean is None or cell.note]
        # First the categories of each method and note, then the methods that have a note on the same categories.
        said = grouped(places, lambda place: (place[0], self.cells[place].note or self.cells[place].status))
        alike = grouped(said, lambda key: (key[1], tuple(category for _, category in said[key])))
        remarks = []
        for (note, categories), keys in alike.items():
            heads = ", ".join(head for head, _ in keys)
            everywhere = len(categories) == len(self.categories) > 1
            where = "all" if everywhere else ", ".join(categories)
            remarks.append(f"{heads} on {where}: {note}")
        return remarks

    @property
    def notes(self) -> list[str]:
        """The notes of every figure of these trials: the datasets' own, the encoders, and the remarks."""
        columns = [column for column in self.table.columns if column.group == self.group]
        foreign = ", ".join(column.head for column in columns if column.mark and column.head in self.heads)
        notes = [f"Not zero-shot, but given images of the target category: {foreign}"] if foreign else []
        return [*notes_of(self._records.values()), *notes, *self.remarks]

    @property
    def dataset_labels(self) -> tuple[str, ...]:
        """The datasets' labels as they were asked for."""
        return tuple(dict.fromkeys(record.dataset.label for record in self._records.values()))

    def of(self, head: str, category: str) -> dict[int | None, FigureTrial]:
        """Seed -> trial of one cell; empty if it has no value."""
        cell = self.cells[head, category]
        records = {record.seed: record for key in cell.keys if (record := self._records.get(key)) is not None}
        return {seed: FigureTrial(head, category, seed, value, records[seed]) for seed, value in cell.by_seed}

    def one(self, head: str, category: str, seed: int | None = None) -> FigureTrial:
        """The trial of one cell at one seed; by default the first. A method without seeds has but one.

        Raises:
            BenchError: it has no value.
        """
        found = self.of(head, category)
        if not found:
            cell = self.cells[head, category]
            raise BenchError(f"{head} on {category}: {cell.note or cell.status}; run the study again")
        if None in found:
            return found[None]
        if seed is not None and seed not in found:
            raise BenchError(
                f"{head} on {category}: there is no seed {seed}; there is {', '.join(map(str, found))}"
            )
        return found[min(k for k in found if k is not None) if seed is None else seed]


def notes_of(records: Iterable[Record]) -> list[str]:
    """The notes wherever the records' numbers are shown: the datasets' own, and the encoders."""
    notes, encoders = dict[str, None](), dict[str, None]()  # each once, in the order of the records
    for record in records:
        if record.dataset.note:
            notes[record.dataset.note] = None
        notes |= dict.fromkeys(record.subsets)
        encoders |= dict.fromkeys(encoder.name for encoder in record.encoders.values())
    return [*notes, f"Encoders: {', '.join(encoders)}"] if encoders else [*notes]
