"""Content of a study's page: its tables, and behind each number its trials and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.errors import BenchError
from bench.report.comparison.compare import Comparison, compare, groups
from bench.report.page.gallery import Exhibition, Gallery
from bench.report.page.speed import Speed, speeds
from bench.report.page.trials import Environment, PageTrial, read_trials
from bench.report.tables.model import Cell, Table
from bench.store.record import Record
from bench.tools.groups import group

_UNFINISHED = ("failed", "skipped", "missing")  # the worst first


@dataclass(frozen=True)
class Run:
    """The trials of one method on one category at one number of shots.

    Attributes:
        title: e.g. ``1-shot``; empty for a method that does not learn.
        cells: the numbers made of them, one per table of the part.
        trials: by seed; those that have a record.
        exhibition: pictures of the first that finished; None if none did, or no pictures are wanted.
    """

    title: str
    cells: tuple[Cell, ...]
    trials: tuple[PageTrial, ...]
    exhibition: Exhibition | None

    @property
    def missing(self) -> int:
        """The number of its trials that have not run."""
        return (self.cells[0].expected or 1) - len(self.trials)

    @property
    def notes(self) -> list[str]:
        """The remarks that a reader of the numbers needs, each once."""
        return [note for note in dict.fromkeys(cell.note for cell in self.cells) if note]


@dataclass(frozen=True)
class MethodResults:
    """One method on one category; ``anchor`` is the id of its place on the page."""

    anchor: str
    head: str
    method: str
    runs: tuple[Run, ...]

    @property
    def counts(self) -> Counter[str]:
        """Status -> number of trials."""
        counts = Counter(trial.record.status for run in self.runs for trial in run.trials)
        return counts + Counter(missing=sum(run.missing for run in self.runs))


@dataclass(frozen=True)
class CategoryResults:
    """One category with the results of all methods."""

    anchor: str
    name: str
    blocks: tuple[MethodResults, ...]

    @property
    def anchors(self) -> dict[str, str]:
        """Method -> the place of its block."""
        return {block.method: block.anchor for block in self.blocks}

    @property
    def counts(self) -> Counter[str]:
        """Status -> number of trials."""
        return sum((block.counts for block in self.blocks), Counter())


@dataclass(frozen=True)
class Panel:
    """One table, and the comparisons of its methods, or why there is none."""

    anchor: str
    table: Table
    comparisons: tuple[Comparison, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class MethodSummary:
    """One method of a part.

    Attributes:
        head: as printed, and ``label``, its spec; no other method of the part has either.
        trial: its first trial that has a record; None if it has none.
        speeds: of all its trials in the part.
    """

    head: str
    label: str
    trial: PageTrial | None
    speeds: tuple[Speed, ...]


@dataclass(frozen=True)
class Part:
    """One dataset under one protocol: a panel per metric, then the categories."""

    title: str
    panels: tuple[Panel, ...]
    categories: tuple[CategoryResults, ...]
    methods: tuple[MethodSummary, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(panel.table for panel in self.panels)


@dataclass(frozen=True)
class Page:
    """Everything on the page of a study.

    Attributes:
        study: its name, and ``hash``, the SHA-256 of its trials' keys.
        counts: status -> number of trials.
        unfinished: the trials that gave no scores: failed, skipped or not run.
        images: number of worst and of best images that were wanted.
    """

    study: str
    hash: str
    counts: Mapping[str, int]
    parts: tuple[Part, ...]
    unfinished: tuple[PageTrial, ...]
    environments: tuple[Environment, ...]
    images: int


def make_page(
    name: str,
    study: Mapping[str, Any],
    records: Sequence[Record],
    tables: Sequence[Table],
    gallery: Gallery,
) -> Page:
    """The page of a study.

    Args:
        name: the study's.
        study: its content in the store.
        records: of its trials; those that have not run yet have the status ``missing``.
        tables: made of them, any number of metrics.
        gallery: makes the pictures.

    Raises:
        BenchError: as :meth:`bench.report.page.gallery.Gallery.show` does.
    """
    trials, environments = read_trials(records)
    parts = group(tables, lambda table: (table.dataset, table.protocol)).values()
    return Page(
        study=name,
        hash=str(study.get("hash") or ""),
        counts=Counter(trial.record.status for trial in trials.values()),
        parts=tuple(_Builder(f"p{i}", own, trials, gallery).part() for i, own in enumerate(parts, 1)),
        unfinished=tuple(
            trial for status in _UNFINISHED for trial in trials.values() if trial.record.status == status
        ),
        environments=tuple(environments),
        images=gallery.count,
    )


class _Builder:
    """Makes one part; its tables have the same rows and columns."""

    def __init__(
        self, anchor: str, tables: Sequence[Table], trials: Mapping[str, PageTrial], gallery: Gallery
    ) -> None:
        self.anchor, self.tables, self.trials, self.gallery = anchor, tables, trials, gallery
        columns = tables[0].columns
        self.columns = group(range(len(columns)), lambda place: columns[place].method)
        self.rows = [row for row in tables[0].rows if not row.average]

    def part(self) -> Part:
        first = self.tables[0]
        return Part(
            title=f"{first.title} · protocol {first.protocol_title}",
            panels=tuple(_panel(f"{self.anchor}-m{i}", table) for i, table in enumerate(self.tables, 1)),
            categories=tuple(self._category(i) for i in range(len(self.rows))),
            methods=tuple(map(self._method, self.columns)),
        )

    def _method(self, label: str) -> MethodSummary:
        places = self.columns[label]
        keys = dict.fromkeys(key for row in self.rows for place in places for key in row.cells[place].keys)
        trials = [self.trials[key] for key in keys]
        head = self.tables[0].columns[places[0]].head
        return MethodSummary(head, label, trials[0] if trials else None, tuple(speeds(trials)))

    def _category(self, row: int) -> CategoryResults:
        anchor = f"{self.anchor}-c{row + 1}"
        blocks = (self._block(f"{anchor}-{i}", row, label) for i, label in enumerate(self.columns, 1))
        return CategoryResults(anchor, self.rows[row].head, tuple(blocks))

    def _block(self, anchor: str, row: int, label: str) -> MethodResults:
        head = self.tables[0].columns[self.columns[label][0]].head
        return MethodResults(anchor, head, label, tuple(self._runs(row, self.columns[label])))

    def _runs(self, row: int, places: Sequence[int]) -> Iterator[Run]:
        for place in places:
            cells = tuple(table.rows[row].cells[place] for table in self.tables)
            trials = [self.trials[key] for key in cells[0].keys]
            trials.sort(key=lambda trial: -1 if trial.record.seed is None else trial.record.seed)
            has_shots = not trials or any(trial.record.shots is not None for trial in trials)
            learns = not cells[0].structural and has_shots
            title = self.tables[0].columns[place].group if learns else ""
            yield Run(title, cells, tuple(trials), self._exhibition(trials))
            if not learns:  # the other column groups repeat it
                return

    def _exhibition(self, trials: Sequence[PageTrial]) -> Exhibition | None:
        finished = next((trial for trial in trials if trial.record.status == "ok"), None)
        return self.gallery.show(finished.record) if finished and self.gallery.count else None


def _panel(anchor: str, table: Table) -> Panel:
    comparisons, refused = [], []
    for head in groups(table):
        try:
            comparisons.append(compare(table, head))
        except BenchError as error:
            refused.append(str(error))
    return Panel(anchor, table, tuple(comparisons), tuple(refused))
