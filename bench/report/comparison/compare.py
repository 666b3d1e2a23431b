"""Methods of a table compared over its categories: means with intervals, ranks and tests."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import BenchError
from bench.metrics.registry import sign
from bench.report.statistics.categories import Friedman, Pair, compare_pairs, friedman
from bench.report.statistics.common import ALPHA, DECIMALS, LEVEL
from bench.report.statistics.images import ImageInterval
from bench.report.statistics.seeds import SeedSummary, summarise
from bench.report.tables.model import Cell, Column, Table


@dataclass(frozen=True)
class Standing:
    """One method in a comparison.

    Attributes:
        head: as printed, and ``method``, its label.
        mean: over the compared categories of the mean over seeds.
        over_seeds: summary of the per-seed averages over the same categories; without values for a method
            that has no seeds.
        rank: mean rank over the categories, 1 is the best; ties share the mean rank.
        over_images: the interval from resampled images; None if none was asked for.
    """

    head: str
    method: str
    mean: float
    over_seeds: SeedSummary
    rank: float
    over_images: ImageInterval | None = None


@dataclass(frozen=True)
class Comparison:
    """The methods of one column group of one table.

    Attributes:
        table: source of the numbers, and ``group``, the column group's head (``1-shot``), or empty.
        categories: the unit of the tests: those where every compared method has a value.
        methods: in the order of their mean ranks, then means.
        pairs: every pair of ``methods``, the better-ranked first; None without a test.
        overall: Friedman's and Nemenyi's tests, in the order of ``methods``; None without a test.
        refused: the reason for each test that there is not.
        left_out: categories and methods that are not compared, and why.
    """

    table: Table
    group: str
    categories: tuple[str, ...]
    methods: tuple[Standing, ...]
    pairs: tuple[Pair, ...] | None
    overall: Friedman | None
    refused: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def title(self) -> str:
        """The table and column group that are compared, on one line."""
        return _title(self.table, self.group)


def groups(table: Table, shots: int | None = None) -> list[str]:
    """The heads of the column groups that can be compared, all or the one of that many shots.

    Raises:
        BenchError: there is no group of that many shots.
    """
    heads = {column.group: column.shots for column in table.columns}
    chosen = [head for head, number in heads.items() if shots is None or number == shots]
    if not chosen:
        known = ", ".join(str(number) for number in heads.values() if number is not None)
        raise BenchError(f"there is nothing at {shots} shots; there is: {known or 'no method that has shots'}")
    return chosen


def compare(table: Table, head: str = "") -> Comparison:
    """Compare the methods of one column group of a table.

    A method without any value, and a category where a method lacks its value, are left out, so that all
    numbers are over the same categories.

    Args:
        table: of :func:`bench.report.tables.table.build_tables`.
        head: the column group's, see :func:`groups`.

    Raises:
        BenchError: fewer than two methods with values, or fewer than two categories where all of them have
            one.
    """
    left_out = []
    methods: dict[Column, dict[str, Cell]] = {}
    for place, column in enumerate(table.columns):
        if column.group == head:
            cells = {row.head: row.cells[place] for row in table.rows if not row.average}
            if any(cell.mean is not None for cell in cells.values()):
                methods[column] = cells
            else:
                left_out.append(f"{column.head}: it has no value")
    where = _title(table, head)
    if len(methods) < 2:
        found = " ".join(column.head for column in methods) or "none"
        raise BenchError(f"{where}: a comparison needs at least 2 methods with values; there is {found}")
    categories = []
    for name in next(iter(methods.values())):
        lacking = [column.head for column, own in methods.items() if own[name].mean is None]
        if lacking:
            left_out.append(f"{name}: no value for {', '.join(lacking)}")
        else:
            categories.append(name)
    if len(categories) < 2:
        said = f" (left out: {'; '.join(left_out)})" if left_out else ""
        raise BenchError(
            f"{where}: a comparison needs at least 2 categories where all methods have a value; "
            f"there is {len(categories)}{said}"
        )
    chosen = {column: [own[category] for category in categories] for column, own in methods.items()}
    return _tested(table, head, categories, chosen, left_out)


def _title(table: Table, head: str) -> str:
    title = f"{table.title}: {table.metric_name}"
    return f"{title}, {head}" if head else title


def _tested(
    table: Table,
    head: str,
    categories: Sequence[str],
    cells: Mapping[Column, Sequence[Cell]],
    left_out: Sequence[str],
) -> Comparison:
    from scipy.stats import rankdata

    numbers = {}
    for column, own in cells.items():
        numbers[column] = [cell.mean for cell in own if cell.mean is not None]
    # Ranks, and the counts of better and worse categories, are those of numbers of which more is better.
    direction = sign(table.metric)
    by_category = []
    for means in zip(*numbers.values(), strict=True):
        by_category.append([direction * mean for mean in means])
    as_printed = []
    for row in by_category:
        as_printed.append([-round(value, DECIMALS) for value in row])
    ranks = rankdata(as_printed, axis=1).mean(axis=0)
    standings = []
    for (column, own_means), rank in zip(numbers.items(), ranks, strict=True):
        over_seeds = _over_seeds(cells[column])
        standings.append(
            Standing(column.head, column.method, statistics.fmean(own_means), over_seeds, float(rank))
        )
    # The best method comes first, in the standings and in the tests.
    order = sorted(range(len(standings)), key=lambda i: (standings[i].rank, -direction * standings[i].mean))
    values = []
    for row in by_category:
        values.append([row[i] for i in order])
    pairs, overall, refused = None, None, []
    try:
        pairs = tuple(replace(pair, difference=direction * pair.difference) for pair in compare_pairs(values))
    except BenchError as error:
        refused.append(f"no test in pairs: {error}")
    try:
        overall = friedman(values)
    except BenchError as error:
        refused.append(f"no test of all at once: {error}")
    return Comparison(
        table=table,
        group=head,
        categories=tuple(categories),
        methods=tuple(standings[i] for i in order),
        pairs=pairs,
        overall=overall,
        refused=tuple(refused),
        left_out=tuple(left_out),
    )


def _over_seeds(cells: Sequence[Cell]) -> SeedSummary:
    """The per-seed averages over categories, of the seeds that have a value in every category."""
    values = [dict(cell.by_seed) for cell in cells]
    seeds = [seed for seed in values[0] if seed is not None and all(seed in own for own in values)]
    return summarise([statistics.fmean(own[seed] for own in values) for seed in seeds])


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Plain JSON values; a test that was refused is null, and ``refused`` says why."""
    table = comparison.table
    return {
        "dataset": table.dataset,
        "protocol": table.protocol,
        "metric": table.metric,
        "metric_protocol": table.metric_protocol,
        "eval_size": table.eval_size,
        "group": comparison.group,
        "unit": "category",
        "categories": list(comparison.categories),
        "alpha": ALPHA,
        "level": LEVEL,
        "methods": [_standing(method) for method in comparison.methods],
        "pairs": None if comparison.pairs is None else [_pair(pair, comparison) for pair in comparison.pairs],
        "friedman": None if comparison.overall is None else _overall(comparison.overall, comparison),
        "refused": list(comparison.refused),
        "left_out": list(comparison.left_out),
    }


def _standing(method: Standing) -> dict[str, Any]:
    over, images = method.over_seeds, method.over_images
    return {
        "method": method.method,
        "mean": method.mean,
        "deviation": over.deviation,
        "seeds": over.count,
        "interval": None if over.low is None else [over.low, over.high],
        "image_interval": None if images is None else [images.low, images.high],
        "rank": method.rank,
    }


def _pair(pair: Pair, comparison: Comparison) -> dict[str, Any]:
    return {
        "methods": [comparison.methods[i].method for i in (pair.first, pair.second)],
        "difference": pair.difference,
        "better": pair.better,
        "worse": pair.worse,
        "p": pair.p,
        "p_holm": pair.corrected,
        "holds": pair.holds,
    }


def _overall(found: Friedman, comparison: Comparison) -> dict[str, Any]:
    labels = [method.method for method in comparison.methods]
    return {
        "statistic": found.statistic,
        "p": found.p,
        "holds": found.holds,
        "critical_difference": found.critical,
        "nemenyi": {
            label: dict(zip(labels, row.tolist(), strict=True))
            for label, row in zip(labels, found.nemenyi, strict=True)
        },
    }
