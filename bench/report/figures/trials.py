"""The trials behind a figure: from a table's cells to records, scores and data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError, unknown
from bench.report.tables.model import Cell, Table
from bench.store.store import Store
from bench.tools.groups import group as grouped


@dataclass(frozen=True)
class Trial:
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
    record: Mapping[str, Any]

    @property
    def key(self) -> str:
        return str(self.record["key"])

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
        categories: which rows, in that order; none for all.

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

    def title(self, what: str, shown: Iterable[Trial] = ()) -> str:
        """What is shown of what, on one line; of single trials with their seeds."""
        seeds = sorted({trial.seed for trial in shown if trial.seed is not None})
        parts = [what, self.group, f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""]
        return f"{self.table.title}: {', '.join(part for part in parts if part)}"

    @property
    def remarks(self) -> list[str]:
        """Which cells have no value, and why, and what else a reader of a number must know."""
        places = [place for place, cell in self.cells.items() if cell.mean is None or cell.note]
        said = grouped(places, lambda place: (place[0], self.cells[place].note or self.cells[place].status))
        alike = grouped(said, lambda key: (key[1], tuple(category for _, category in said[key])))
        whole = len(self.categories)
        return [
            f"{', '.join(head for head, _ in keys)} on {'all' if len(on) == whole > 1 else ', '.join(on)}: {note}"
            for (note, on), keys in alike.items()
        ]

    @property
    def notes(self) -> list[str]:
        """What every figure of these trials says: the datasets' own notes, what was used, and the remarks."""
        columns = [column for column in self.table.columns if column.group == self.group]
        foreign = ", ".join(column.head for column in columns if column.mark and column.head in self.heads)
        notes = [f"Not zero-shot, but given images of the target category: {foreign}"] if foreign else []
        return [*notes_of(self._records.values()), *notes, *self.remarks]

    @property
    def dataset_labels(self) -> tuple[str, ...]:
        """The datasets' labels as they were asked for."""
        return tuple({str(r["trial"]["dataset"]["label"]): None for r in self._records.values()})

    def of(self, head: str, category: str) -> dict[int | None, Trial]:
        """Seed -> trial of one cell; empty if it has no value."""
        cell = self.cells[head, category]
        records = {
            self._records[key]["trial"]["seed"]: self._records[key] for key in cell.keys if key in self._records
        }
        return {seed: Trial(head, category, seed, value, records[seed]) for seed, value in cell.by_seed}

    def one(self, head: str, category: str, seed: int | None = None) -> Trial:
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


def notes_of(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What must be said wherever the records' numbers are shown: the datasets' own notes, and the encoders."""
    trials = [record["trial"] for record in records]
    notes = dict.fromkeys(str(note) for trial in trials if (note := trial["dataset"].get("note")))
    used = (encoder for trial in trials for encoder in (trial.get("encoders") or {}).values())
    encoders = ", ".join(dict.fromkeys(str(encoder["name"]) for encoder in used if encoder))
    return [*notes, *([f"Encoders: {encoders}"] if encoders else [])]
