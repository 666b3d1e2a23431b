"""Records of several datasets and protocols under one set of names, for the tables of a layout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from bench.report.tables.best import Contest, by_column
from bench.report.tables.cells import Measure
from bench.report.tables.model import AVERAGE, Cell, Column, Row, Table
from bench.report.tables.naming import Identity, unique_names
from bench.report.tables.records import Grid, TableRecord
from bench.report.tables.table import Style, column, finished, seeds_in_words, sizes
from bench.tools.groups import group

SHOTS = (1, 10)  # labelled anomalies per seen category in the paper's tables
CATEGORIES = {  # of a dataset as it is by default, in the order of Table 1; AITEX's fabrics are not in the paper
    "mvtec": (
        *("carpet", "grid", "leather", "tile", "wood", "bottle", "capsule", "pill", "transistor", "zipper"),
        *("cable", "hazelnut", "metal_nut", "screw", "toothbrush"),
    ),
    "aitex": ("00", "01", "02", "03", "04", "05", "06"),
}


class MissingMethod(NamedTuple):
    """A method of the paper that the records lack."""

    name: str
    title: str


@dataclass(frozen=True)
class LayoutPart:
    """One dataset under one protocol, and the records of it."""

    dataset: Identity
    protocol: Identity
    entries: Sequence[TableRecord]
    grid: Grid

    @property
    def name(self) -> str:
        """The dataset's name."""
        return self.dataset.spec.name


class LayoutRecords:
    """The records of a layout.

    Attributes:
        all: the parts, in the order of the records.
        shots: the layout's and the records' numbers of shots, sorted.
    """

    def __init__(
        self,
        layout: str,
        entries: Sequence[TableRecord],
        metric_protocol: str,
        style: Style,
        shots: Sequence[int] = SHOTS,
    ) -> None:
        self._layout, self._metric_protocol, self._style = layout, metric_protocol, style
        self._datasets = unique_names(e.dataset for e in entries)
        self._protocols = unique_names(e.protocol for e in entries)
        self.all = [
            LayoutPart(data, rules, own, Grid(own, CATEGORIES.get(data.label, ()), shots))
            for (data, rules), own in group(entries, lambda e: (e.dataset, e.protocol)).items()
        ]
        # One name for a method in all parts: a column must be of one method.
        self._names = unique_names(method for part in self.all for method in part.grid.of_method)
        for part in self.all:
            part.grid.names = self._names
        self.shots = sorted({shots for part in self.all for shots in part.grid.shots if shots is not None})

    def title(self, part: LayoutPart) -> str:
        """The dataset as printed, with the protocol where there are several."""
        title = self._datasets[part.dataset].head
        return f"{title} ({self._protocols[part.protocol].head})" if len(self._protocols) > 1 else title

    def target(self, part: LayoutPart) -> str:
        """The dataset as printed."""
        return self._datasets[part.dataset].head

    def methods(
        self, chosen: Iterable[LayoutPart], paper: Sequence[MissingMethod]
    ) -> list[Identity | MissingMethod]:
        """The methods of some parts: the paper's in its order, then others."""
        found = group(
            (method for part in chosen for method in part.grid.of_method),
            lambda method: method.spec.name,
        )
        methods: list[Identity | MissingMethod] = []
        for missing in paper:
            methods += found.pop(missing.name, [missing])
        return list(dict.fromkeys([*methods, *(method for own in found.values() for method in own)]))

    def head(self, method: Identity | MissingMethod) -> str:
        """The printed name of a method."""
        return method.title if isinstance(method, MissingMethod) else self._names[method].head

    def column(self, method: Identity | MissingMethod, shots: int, chosen: Iterable[LayoutPart]) -> Column:
        """A method's column."""
        if isinstance(method, MissingMethod):
            return Column(method.title, method.name, f"{shots}-shot", shots)
        return column(next(s.grid for s in chosen if method in s.grid.of_method), method, shots)

    def measure(self, part: LayoutPart, metric: str, size: str | None = None) -> Measure:
        """One metric of a part."""
        names = self._datasets[part.dataset], self._protocols[part.protocol]
        return Measure(*names, part.grid, metric, self._metric_protocol, size)

    def sizes(self, part: LayoutPart, metric: str) -> list[str | None]:
        """The grids of evaluation of a part's records."""
        return sizes(part.entries, metric, self._metric_protocol)

    def cells(self, measure: Measure, method: Identity | MissingMethod, shots: int | None) -> list[Cell]:
        """The cells of the part's categories, and then their average; missing if the method is not there."""
        if not isinstance(method, MissingMethod) and method in measure.grid.of_method:
            return measure.cells(method, shots)
        label = method.name if isinstance(method, MissingMethod) else self._names[method].label
        categories = measure.grid.categories
        cells = [Cell("missing") for _ in categories] + [Cell("missing", covered=0, categories=len(categories))]
        named = zip([*categories, AVERAGE], cells, strict=True)
        return [replace(cell, address=measure.address(label, category, shots)) for category, cell in named]

    def finished(
        self,
        chosen: Sequence[LayoutPart],
        columns: Sequence[Column],
        rows: Sequence[Row],
        what: str,
        contests: Callable[[Table], list[Contest]],
        *,
        stub: tuple[str, ...] = ("Category",),
        protocol: str = "",
        notes: Sequence[str] = (),
        of: str = "",
    ) -> Table:
        """A table of some parts.

        Args:
            chosen: the parts.
            columns, rows: with cells as they come from :meth:`cells`.
            what: the metric's name, or the table's in words.
            contests: the groups of competing cells.
            stub: heads of what is printed before the cells.
            protocol: as printed; by default those of the parts.
            notes: of this table alone.
            of: the field of a contest in words, for the footnote.
        """
        datasets = list(dict.fromkeys(self._datasets[part.dataset] for part in chosen))
        protocols = list(dict.fromkeys(self._protocols[part.protocol] for part in chosen))
        sizes = {cell.address.eval_size for row in rows for cell in row.cells if cell.address}
        seeds = group(chosen, lambda part: seeds_in_words(part.grid))
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
        grids = [part.grid for part in chosen]
        of = of or ("of its column" if contests is by_column else "of its row and column group")
        return finished(table, grids, contests(table), of, self._style, notes)
