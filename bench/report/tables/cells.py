"""The cells of a table: numbers made from the values of trials, or the reason why there is none."""

from __future__ import annotations

import functools
import math
import re
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.report.tables.model import AVERAGE, Cell, CellKey, Status
from bench.report.tables.naming import Identity, Name
from bench.report.tables.records import Grid, TableRecord, one_line
from bench.store.record import MetricBlock
from bench.tools.groups import group

_WORDS: dict[Status, str] = {  # the worst first
    "failed": "failed",
    "undefined": "no value",
    "skipped": "skipped",
    "missing": "missing",
}


def size_in_words(block: MetricBlock) -> str:
    """The grid of evaluation of one metric protocol's block in a record."""
    size = block.eval_size
    if size is None:
        return "native size"
    sides = size if isinstance(size, tuple) else [size]
    return "\N{MULTIPLICATION SIGN}".join(map(str, sides)) + " px"


def depends_on_size(metric: str) -> bool:
    """True if the metric depends on the grid of evaluation."""
    return not metric.startswith("image_")


@dataclass(frozen=True)
class Measure:
    """One metric of the records of one dataset under one protocol.

    Attributes:
        dataset, protocol: names of the records' dataset and protocol.
        grid: the records.
        metric, metric_protocol: the values that are shown.
        size: the grid of evaluation, of which alone numbers are shown; None where the metric does not depend
            on it.
    """

    dataset: Name
    protocol: Name
    grid: Grid
    metric: str
    metric_protocol: str
    size: str | None

    @functools.cached_property
    def eval_size(self) -> str:
        """The grid of evaluation in words; empty if records disagree and the metric does not depend on it."""
        if self.size is not None:
            return self.size
        blocks = (entry.record.blocks.get(self.metric_protocol) for entry in self.grid.entries)
        sizes = {size_in_words(block) for block in blocks if block is not None}
        return sizes.pop() if len(sizes) == 1 else ""

    def address(self, method: str, category: str, shots: int | None) -> CellKey:
        """The address of the number of a method's label, a category and a number of shots."""
        return CellKey(
            self.dataset.label,
            self.protocol.label,
            method,
            category,
            shots,
            self.metric,
            self.metric_protocol,
            self.eval_size,
        )

    def cells(self, method: Identity, shots: int | None) -> list[Cell]:
        """The cells of the grid's categories, in their order, and then their average."""
        seedless = self.grid.seedless(method)
        expected = [None] if seedless else self.grid.seeds[shots]
        cells, values = [], []
        for category in self.grid.categories:
            entries = self.grid.find(method, category, shots)
            found = [self._trial_value(entries[s]) if s in entries else _TrialValue("missing") for s in expected]
            ran = (entry.record for entry in entries.values() if entry.record.status != "missing")
            keys = tuple(record.key for record in ran if record.key)
            own = {s: each.value for s, each in zip(expected, found, strict=True) if each.value is not None}
            cell = _category_cell(found, keys, tuple(own.items()), seedless)
            images = dict.fromkeys(each.pixel_images for each in found if each.pixel_images is not None)
            cells.append(replace(cell, pixel_images=tuple((category, *numbers) for numbers in images)))
            values.append(own)
        cells.append(_average_cell(self.grid.categories, cells, values, expected, seedless))
        label = self.grid.names[method].label
        return [
            replace(cell, address=self.address(label, category, shots))
            for category, cell in zip([*self.grid.categories, AVERAGE], cells, strict=True)
        ]

    def _trial_value(self, entry: TableRecord) -> _TrialValue:
        record = entry.record
        if record.status != "ok":
            return _TrialValue(record.status, reason=one_line(record.reason))
        block = record.blocks.get(self.metric_protocol)
        if block is None:
            return _TrialValue("missing", reason=f"not measured under the metric protocol {self.metric_protocol}")
        if self.size is not None and size_in_words(block) != self.size:
            return _TrialValue("missing", reason=f"measured at {size_in_words(block)}")
        value = block.values.get(self.metric)
        if value is None:
            reason = block.reasons.get(self.metric) or "the record gives no reason"
            return _TrialValue("undefined", reason=one_line(reason))
        if not math.isfinite(value):
            return _TrialValue("undefined", reason="the record holds no finite number")
        elsewhere = ("image score",) if depends_on_size(self.metric) else ("pixel", "maps")
        # without the counts behind the colon, which differ from trial to trial
        problems = dict.fromkeys(one_line(problem.partition(":")[0]) for problem in block.problems)
        here = tuple(problem for problem in problems if not any(word in problem for word in elsewhere))
        images = block.pixel_images if depends_on_size(self.metric) else None
        return _TrialValue("ok", float(value), problems=here, pixel_images=images)


@dataclass(frozen=True, slots=True)
class _TrialValue:
    """The value of one metric in one trial, or why there is none."""

    status: Status
    value: float | None = None
    reason: str = ""
    problems: tuple[str, ...] = ()
    pixel_images: tuple[int, int] | None = None


def _category_cell(
    outcomes: Sequence[_TrialValue],
    keys: tuple[str, ...],
    by_seed: tuple[tuple[int | None, float], ...],
    seedless: bool,
) -> Cell:
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
            if len({o.reason for o in alike}) > 1:
                reason += " (and alike)"
            said.append(_WORDS[status] + count(len(alike)) + reason)
    shown: Status = worst
    if values:
        shown = "partial" if lacking else "ok"
    problems = Counter(problem for o in outcomes for problem in o.problems)
    said += [problem + count(times) for problem, times in problems.items()]
    return Cell(
        status=shown,
        keys=keys,
        mean=statistics.fmean(values) if values else None,
        deviation=statistics.stdev(values) if len(values) > 1 else None,
        structural=seedless,
        seeds=0 if seedless else len(values),
        expected=0 if seedless else number,
        by_seed=by_seed,
        note="; ".join(said),
    )


def _average_cell(
    categories: Sequence[str],
    cells: Sequence[Cell],
    values: Sequence[Mapping[int | None, float]],
    expected: Sequence[int | None],
    seedless: bool,
) -> Cell:
    """The average of one column; see :func:`bench.report.tables.table.build_tables` for its two numbers."""
    by_category = {c: cell.mean for c, cell in zip(categories, cells, strict=True) if cell.mean is not None}
    covered = [by_seed for by_seed in values if by_seed]
    # The deviation is that of the seeds' averages, so that a seed counts only if all covered categories have it.
    whole = []
    per_seed = []
    for seed in expected if covered else ():
        if all(seed in by_seed for by_seed in covered):
            whole.append(seed)
            per_seed.append(statistics.fmean(by_seed[seed] for by_seed in covered))
    status: Status = "ok" if len(by_category) == len(cells) else "partial"
    note = ""
    if not by_category:
        alike = len({(cell.status, cell.note) for cell in cells}) == 1
        status, note = (cells[0].status, cells[0].note) if alike else ("missing", "no category has a value")
    elif len(whole) < len(expected):
        status = "partial"
        note = f"seeds with a value in every averaged category: {len(whole)} of {len(expected)}; "
        note += "the deviation is theirs" if len(whole) > 1 else "so there is no deviation"
    return Cell(
        status=status,
        keys=tuple(dict.fromkeys(key for cell in cells for key in cell.keys)),
        mean=statistics.fmean(by_category.values()) if by_category else None,
        deviation=statistics.stdev(per_seed) if len(per_seed) > 1 else None,
        structural=seedless,
        seeds=0 if seedless else len(whole),
        expected=0 if seedless else len(expected),
        covered=len(covered),
        categories=len(cells),
        by_seed=tuple(zip(whole, per_seed, strict=True)),
        by_category=tuple(by_category.items()),
        pixel_images=tuple(dict.fromkeys(images for cell in cells for images in cell.pixel_images)),
        lacking=tuple((c, cell.note) for c, cell in zip(categories, cells, strict=True) if cell.mean is None),
        note=note,
    )
