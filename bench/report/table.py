"""Tables of results, made of trial records: rows, columns, cells and ranks.

:mod:`bench.report.model` is what a table consists of, and :mod:`bench.report.formats` prints it.
"""

from __future__ import annotations

import itertools
import math
import re
import statistics
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.report.best import mark_best
from bench.report.model import METRICS, NOT_ZERO_SHOT, Best, Cell, Column, Row, Status, Table
from bench.report.naming import Name, Thing, group, unique_names
from bench.report.notes import footnotes
from bench.report.records import Entry, Grid, check_names, choose, one_line, read

__all__ = ["METRICS", "Cell", "Table", "build_tables"]

_WORDS: dict[Status, str] = {  # the worst first
    "failed": "failed",
    "undefined": "no value",
    "skipped": "skipped",
    "missing": "missing",
}


def build_tables(
    records: Iterable[Mapping[str, Any]],
    *,
    metrics: Sequence[str] = ("image_auroc",),
    protocol: str = "exact",
    methods: Sequence[str] | None = None,
    percent: bool = False,
    best: Best | None = None,
) -> list[Table]:
    """Tables of trial records: one for each dataset, protocol and metric.

    Rows are the categories, sorted, and their average. Columns are grouped by shots; a method that does not
    learn stands in every group. A cell is the mean over seeds with the sample standard deviation.

    **The Average row.** Its number is the mean of the column's category means, which with all trials there
    is the mean over seeds of the per-seed averages over categories. Its deviation is the sample standard
    deviation over seeds of these per-seed averages, so that it is the spread of the number it stands beside
    (not the mean of the categories' deviations, nor the spread between categories). Only seeds with a value
    in every covered category enter the deviation. An average that does not cover all categories is marked
    and does not compete for the best.

    **The best** of a row and column group are all numbers that no test tells from the largest one, or the
    largest alone; :func:`bench.report.best.mark_best` says by which tests.

    **What is kept apart.** Records that differ in the method's version, config or encoders, or in the
    prompts, are different columns; in the data's fingerprint or version, or the protocol's options, different
    tables; for pixel metrics also in the grid of evaluation. A record that differs from another in anything
    else, such as the split, cannot share its cell: that is an error.

    Args:
        records: trial records; several with one key count once, the last ``ok`` one if there is any. A
            planned trial that has not run yet may stand as ``{"status": "missing", "trial": ...}``, so
            that its cell, seed or category is known to be missing.
        metrics: names as in the records, see :data:`METRICS`.
        protocol: which of the records' metric protocols.
        methods: labels, or names for all variants of a method: which ones, and their order. By default
            all, in the order of the records.
        percent: print percentages with one decimal instead of fractions with three.
        best: ``tested`` or ``maximum``: what stands in bold. By default ``tested`` if any number comes from
            two seeds or more.

    Raises:
        BenchError: an unknown metric, metric protocol or method; records that contradict each other.
    """
    entries = read(records)
    check_names(entries, metrics, protocol)
    if methods is not None:
        entries = choose(entries, methods)
    datasets = unique_names(e.dataset for e in entries)
    protocols = unique_names(e.protocol for e in entries)
    tables = []
    for (data, rules), own in group(entries, lambda e: (e.dataset, e.protocol)).items():
        grid = Grid(own)
        for metric in metrics:
            for size in _sizes(own, metric, protocol):
                builder = _Builder(grid, metric, protocol, size)
                tables.append(mark_best(builder.table(datasets[data], protocols[rules], percent), best))
    return tables


def _size(block: Mapping[str, Any]) -> str:
    size = block.get("eval_size")
    if size is None:
        return "native size"
    sides = size if isinstance(size, list | tuple) else [size]
    return "\N{MULTIPLICATION SIGN}".join(map(str, sides)) + " px"


def _depends_on_size(metric: str) -> bool:
    return not metric.startswith("image_")


def _sizes(entries: Iterable[Entry], metric: str, protocol: str) -> list[str | None]:
    """The grids of evaluation that need a table each; None where the metric does not depend on it."""
    if not _depends_on_size(metric):
        return [None]
    found = {_size(e.metrics[protocol]): None for e in entries if e.status == "ok" and protocol in e.metrics}
    return list(found) or [None]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one trial gave for one metric."""

    status: Status
    value: float | None = None
    reason: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Builder:
    """Makes the table of one metric from a grid of records."""

    grid: Grid
    metric: str
    protocol: str
    size: str | None

    def table(self, dataset: Name, protocol: Name, percent: bool) -> Table:
        placed = [(shots, method) for shots in self.grid.shots for method in self.grid.of_method]
        columns = tuple(self._column(shots, method) for shots, method in placed)
        lines = list(zip(*(self._cells(shots, method) for shots, method in placed), strict=True))
        marks = _marks(lines)
        lines = [tuple(replace(c, mark=marks.get(c.note, "")) for c in _ranked(columns, line)) for line in lines]
        rows = [Row(category, line) for category, line in zip(self.grid.categories, lines[:-1], strict=True)]
        table = Table(
            dataset=dataset.label,
            title=dataset.head,
            metric=self.metric,
            metric_protocol=self.protocol,
            eval_size=self._eval_size(),
            protocol=protocol.label,
            protocol_title=protocol.head,
            seeds=self._seeds(),
            columns=columns,
            rows=(*rows, Row("Average", lines[-1], average=True)),
            percent=percent,
        )
        return replace(table, notes=tuple(footnotes(table, self.grid)))

    def _column(self, shots: int | None, method: Thing) -> Column:
        label, head = self.grid.names[method]
        zero_shot = self.grid.of_method[method][0].trial["method"].get("zero_shot", True)
        return Column(
            head, label, "" if shots is None else f"{shots}-shot", shots, NOT_ZERO_SHOT * (not zero_shot)
        )

    def _eval_size(self) -> str:
        if self.size is not None:
            return self.size
        blocks = (e.metrics.get(self.protocol) for e in self.grid.entries)
        sizes = {_size(block) for block in blocks if block}
        return sizes.pop() if len(sizes) == 1 else ""

    def _seeds(self) -> str:
        said = {
            shots: f"{len(seeds) or 'no'} seed{'s' * (len(seeds) != 1)}"
            for shots, seeds in self.grid.seeds.items()
        }
        if len(set(said.values())) == 1:
            return next(iter(said.values()))
        return ", ".join(f"{number} at {shots}-shot" for shots, number in said.items())

    def _outcome(self, entry: Entry) -> _Outcome:
        if entry.status != "ok":
            return _Outcome(entry.status, reason=entry.reason)
        block = entry.metrics.get(self.protocol)
        if block is None:
            return _Outcome("missing", reason=f"not measured under the metric protocol {self.protocol}")
        if self.size is not None and _size(block) != self.size:
            return _Outcome("missing", reason=f"measured at {_size(block)}")
        value = block.get("values", {}).get(self.metric)
        if value is None:
            reason = block.get("reasons", {}).get(self.metric) or "the record gives no reason"
            return _Outcome("undefined", reason=one_line(reason))
        if not math.isfinite(value):
            return _Outcome("undefined", reason="the record holds no finite number")
        elsewhere = ("image score",) if _depends_on_size(self.metric) else ("pixel", "maps")
        # without the counts behind the colon, which differ from trial to trial
        problems = dict.fromkeys(one_line(problem.partition(":")[0]) for problem in block.get("problems", ()))
        here = tuple(problem for problem in problems if not any(word in problem for word in elsewhere))
        return _Outcome("ok", float(value), problems=here)

    def _cells(self, shots: int | None, method: Thing) -> list[Cell]:
        """The cells of one column: the categories', then their average."""
        seedless = self.grid.seedless(method)
        expected = [None] if seedless else self.grid.seeds[shots]
        cells, values = [], []
        for category in self.grid.categories:
            entries = self.grid.find(method, category, shots)
            outcomes = [self._outcome(entries[s]) if s in entries else _Outcome("missing") for s in expected]
            keys = tuple(e.key for e in entries.values() if e.status != "missing" and e.key)
            own = {s: o.value for s, o in zip(expected, outcomes, strict=True) if o.value is not None}
            cells.append(replace(_category_cell(outcomes, keys, seedless), by_seed=tuple(own.items())))
            values.append(own)
        return [*cells, _average_cell(cells, values, expected, seedless)]


def _category_cell(outcomes: Sequence[_Outcome], keys: tuple[str, ...], seedless: bool) -> Cell:
    values = [o.value for o in outcomes if o.value is not None]
    number = len(outcomes)
    # reasons are alike if they differ in numbers alone, as they do from seed to seed
    lacking = group(
        (o for o in outcomes if o.value is None),
        lambda o: (o.status, re.sub(r"[0-9]+([.][0-9]+)?", "#", o.reason)),
    )
    statuses = {status for status, _ in lacking}
    worst: Status = next((status for status in _WORDS if status in statuses), "missing")

    def count(times: int) -> str:
        if number == 1:
            return ""
        return f" (all {number} seeds)" if times == number else f" ({times} of {number} seeds)"

    said = [f"mean of {len(values)} of {number} seeds"] if values and lacking else []
    if values or lacking.keys() != {("missing", "")}:  # else nothing was run, and the word alone says it
        for (status, _), alike in lacking.items():
            reason = f": {alike[0].reason}" if alike[0].reason else ""
            reason += " (and alike)" * (len({o.reason for o in alike}) > 1)
            said.append(_WORDS[status] + count(len(alike)) + reason)
    problems = Counter(problem for o in outcomes for problem in o.problems)
    said += [problem + count(times) for problem, times in problems.items()]
    return Cell(
        status=("partial" if lacking else "ok") if values else worst,
        keys=keys,
        mean=statistics.fmean(values) if values else None,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        structural=seedless,
        seeds=0 if seedless else len(values),
        expected=0 if seedless else number,
        note="; ".join(said),
    )


def _average_cell(
    cells: Sequence[Cell],
    values: Sequence[Mapping[int | None, float]],
    expected: Sequence[int | None],
    seedless: bool,
) -> Cell:
    """The average of one column; see :func:`build_tables` for what its two numbers are."""
    means = [cell.mean for cell in cells if cell.mean is not None]
    covered = [by_seed for by_seed in values if by_seed]
    whole = [seed for seed in expected if all(seed in by_seed for by_seed in covered)] if covered else []
    per_seed = [statistics.fmean(by_seed[seed] for by_seed in covered) for seed in whole]
    status: Status = "ok" if len(means) == len(cells) else "partial"
    note = ""
    if not means:
        alike = len({(cell.status, cell.note) for cell in cells}) == 1
        status, note = (cells[0].status, cells[0].note) if alike else ("missing", "no category has a value")
    elif len(whole) < len(expected):
        status = "partial"
        note = f"seeds with a value in every averaged category: {len(whole)} of {len(expected)}; "
        note += "the deviation is theirs" if len(whole) > 1 else "so there is no deviation"
    return Cell(
        status=status,
        keys=tuple(dict.fromkeys(key for cell in cells for key in cell.keys)),
        mean=statistics.fmean(means) if means else None,
        deviation=statistics.stdev(per_seed) if len(per_seed) > 1 else None,
        structural=seedless,
        seeds=0 if seedless else len(whole),
        expected=0 if seedless else len(expected),
        covered=len(covered),
        categories=len(cells),
        by_seed=tuple(zip(whole, per_seed, strict=True)),
        note=note,
    )


def _ranked(columns: Sequence[Column], cells: Sequence[Cell]) -> list[Cell]:
    """The cells with their ranks; a number is only compared with others of its group."""
    ranks: dict[int, int] = {}
    for places in group(range(len(columns)), lambda i: columns[i].group).values():
        means = {i: cells[i].mean for i in places if not cells[i].incomplete}
        numbers = {i: round(mean, 3) for i, mean in means.items() if mean is not None}
        order = sorted(set(numbers.values()), reverse=True)
        if len(places) > 1:
            ranks |= {i: order.index(number) + 1 for i, number in numbers.items()}
    return [replace(cell, rank=ranks.get(i)) for i, cell in enumerate(cells)]


def _marks(lines: Iterable[Iterable[Cell]]) -> dict[str, str]:
    """Note -> a, b, ..., z, aa, ...; equal notes share one."""
    notes = dict.fromkeys(cell.note for line in lines for cell in line if cell.note)
    letters = (itertools.product(string.ascii_lowercase, repeat=n) for n in itertools.count(1))
    return dict(zip(notes, map("".join, itertools.chain.from_iterable(letters)), strict=False))
