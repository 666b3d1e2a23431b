"""What the tables of a layout are made of: records of several datasets and protocols under one set of names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench.report.tables.best import Contest, by_column
from bench.report.tables.cells import Measure
from bench.report.tables.model import AVERAGE, Cell, Column, Row, Table
from bench.report.tables.naming import Thing, unique_names
from bench.report.tables.records import Entry, Grid
from bench.report.tables.table import Style, column, finished, seeds_in_words, sizes
from bench.tools.groups import group
from bench.tools.spec import parse_spec

SHOTS = (1, 10)  # labelled anomalies per seen category in the paper's tables
CATEGORIES = {  # of a dataset as it is by default, in the order of Table 1; AITEX's fabrics are not in the paper
    "mvtec": (
        *("carpet", "grid", "leather", "tile", "wood", "bottle", "capsule", "pill", "transistor", "zipper"),
        *("cable", "hazelnut", "metal_nut", "screw", "toothbrush"),
    ),
    "aitex": ("00", "01", "02", "03", "04", "05", "06"),
}


class Absent(NamedTuple):
    """A method of the paper that the records lack."""

    name: str
    title: str


@dataclass(frozen=True)
class Source:
    """One dataset under one protocol, and the records of it."""

    dataset: Thing
    protocol: Thing
    entries: Sequence[Entry]
    grid: Grid

    @property
    def name(self) -> str:
        """The dataset's name."""
        return parse_spec(self.dataset.label).name


class Sources:
    """The records of a layout.

    Attributes:
        all: the sources, in the order of the records.
        shots: the paper's and the records' numbers of shots, sorted.
    """

    def __init__(self, layout: str, entries: Sequence[Entry], metric_protocol: str, style: Style) -> None:
        self._layout, self._metric_protocol, self._style = layout, metric_protocol, style
        self._datasets = unique_names(e.dataset for e in entries)
        self._protocols = unique_names(e.protocol for e in entries)
        self.all = [
            Source(data, rules, own, Grid(own, CATEGORIES.get(data.label, ()), SHOTS))
            for (data, rules), own in group(entries, lambda e: (e.dataset, e.protocol)).items()
        ]
        # One name for a method in all sources: what stands in one column must be one thing.
        self._names = unique_names(method for source in self.all for method in source.grid.of_method)
        for source in self.all:
            source.grid.names = self._names
        self.shots = sorted({shots for source in self.all for shots in source.grid.shots if shots is not None})

    def title(self, source: Source) -> str:
        """The dataset as printed, with the protocol where there are several."""
        title = self._datasets[source.dataset].head
        return f"{title} ({self._protocols[source.protocol].head})" if len(self._protocols) > 1 else title

    def methods(self, chosen: Iterable[Source], paper: Sequence[Absent]) -> list[Thing | Absent]:
        """The methods of some sources: the paper's in its order, then others."""
        found = group(
            (method for source in chosen for method in source.grid.of_method),
            lambda method: parse_spec(method.label).name,
        )
        methods: list[Thing | Absent] = []
        for absent in paper:
            methods += found.pop(absent.name, [absent])
        return list(dict.fromkeys([*methods, *(method for own in found.values() for method in own)]))

    def head(self, method: Thing | Absent) -> str:
        """What a method is called."""
        return method.title if isinstance(method, Absent) else self._names[method].head

    def column(self, method: Thing | Absent, shots: int, chosen: Iterable[Source]) -> Column:
        """A method's column."""
        if isinstance(method, Absent):
            return Column(method.title, method.name, f"{shots}-shot", shots)
        return column(next(s.grid for s in chosen if method in s.grid.of_method), method, shots)

    def measure(self, source: Source, metric: str, size: str | None = None) -> Measure:
        """One metric of a source."""
        names = self._datasets[source.dataset], self._protocols[source.protocol]
        return Measure(*names, source.grid, metric, self._metric_protocol, size)

    def sizes(self, source: Source, metric: str) -> list[str | None]:
        """The grids of evaluation of a source's records."""
        return sizes(source.entries, metric, self._metric_protocol)

    def cells(self, measure: Measure, method: Thing | Absent, shots: int) -> list[Cell]:
        """The cells of the source's categories, and then their average; missing if the method is not there."""
        if not isinstance(method, Absent) and method in measure.grid.of_method:
            return measure.cells(method, shots)
        label = method.name if isinstance(method, Absent) else self._names[method].label
        categories = measure.grid.categories
        cells = [Cell("missing") for _ in categories] + [Cell("missing", covered=0, categories=len(categories))]
        named = zip([*categories, AVERAGE], cells, strict=True)
        return [replace(cell, place=measure.place(label, category, shots)) for category, cell in named]

    def finished(
        self,
        chosen: Sequence[Source],
        columns: Sequence[Column],
        rows: Sequence[Row],
        what: str,
        contests: Callable[[Table], list[Contest]],
        *,
        stub: tuple[str, ...] = ("Category",),
        protocol: str = "",
        notes: Sequence[str] = (),
    ) -> Table:
        """A table of some sources.

        Args:
            chosen: the sources.
            columns, rows: with cells as they come from :meth:`cells`.
            what: the metric's name, or the table's in words.
            contests: which cells compete.
            stub: heads of what is printed before the cells.
            protocol: as printed; by default those of the sources.
            notes: of this table alone.
        """
        datasets = list(dict.fromkeys(self._datasets[source.dataset] for source in chosen))
        protocols = list(dict.fromkeys(self._protocols[source.protocol] for source in chosen))
        sizes = {cell.place.eval_size for row in rows for cell in row.cells if cell.place}
        seeds = group(chosen, lambda source: seeds_in_words(source.grid))
        said = [f"{text} ({', '.join(map(self.title, own))})" for text, own in seeds.items()]
        table = Table(
            dataset="+".join(name.label for name in datasets),
            title=" and ".join(name.head for name in datasets),
            metric=what,
            metric_protocol=self._metric_protocol,
            eval_size=sizes.pop() if len(sizes) == 1 else "",
            protocol="+".join(name.label for name in protocols),
            protocol_title=protocol or " and ".join(name.head for name in protocols),
            seeds=", ".join(said) if len(said) > 1 else next(iter(seeds)),
            columns=tuple(columns),
            rows=tuple(rows),
            stub=stub,
            layout=self._layout,
        )
        grids = [source.grid for source in chosen]
        of = "of its column" if contests is by_column else "of its row and column group"
        return finished(table, grids, contests(table), of, self._style, notes)
