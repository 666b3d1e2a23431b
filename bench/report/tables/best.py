"""Numbers in bold: the best one, or all that are not significantly different from it.

The best is the largest, or the smallest where the registry of metrics says that less is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import get_args

from bench.errors import unknown
from bench.metrics.registry import sign
from bench.report.tables.model import Best, Cell, Table
from bench.report.tables.naming import K
from bench.tools.groups import group

_TESTED = "not significantly different from the best {of} (two-sided, 5 %, Holm). "
_CATEGORIES = (
    "Category rows: paired t test over seeds, one-sample against a method without seeds. "
    "Average: signed-rank test over categories (here {}). "
    "Without enough seeds or categories for a test: the {} number."
)
_AVERAGES = "Signed-rank test over categories (here {}); without enough categories for a test: the {} number."
RULES: tuple[str, ...] = get_args(Best)

Contest = Sequence[tuple[int, int]]  # the places, as row and column, of cells that compete with each other


def by_row(table: Table) -> list[Contest]:
    """In each row, the cells of each column group."""
    groups = group(range(len(table.columns)), lambda i: table.columns[i].group).values()
    return [[(row, column) for column in columns] for row in range(len(table.rows)) for columns in groups]


def by_column(table: Table) -> list[Contest]:
    """The cells of each column."""
    return [[(row, column) for row in range(len(table.rows))] for column in range(len(table.columns))]


def mark_best(table: Table, contests: Iterable[Contest], rule: Best | None, of: str) -> Table:
    """The table with ranks, and its best cells marked.

    A cell has a rank if it has a number, that number is not an incomplete average, and there is another number
    in its contest. Equal numbers, as printed, have one rank.

    ``maximum``: the best is the largest number as printed, or the smallest where the metric's registry entry says
    that less is better; equal ones are all best.

    ``tested``: so is every number that no test tells from the best one, two-sided at 5 %, with Holm's
    correction over the comparisons of the contest.

    * Categories: a paired t test over the seeds that both have (``bench.report.statistics.seeds_p_value``). A
      method without seeds is a constant: the other's seeds are tested against it, and two constants are
      different if they differ in print.
    * Averages: Wilcoxon's signed-rank test over the categories, which have one number per method each.
    * Where there are too few seeds (fewer than two in common) or too few categories (so few that no outcome
      could be significant) there is no test, and only the best number is marked.

    Numbers that are equal as printed do not differ.

    Args:
        table: without ranks.
        contests: groups of competing cells; a cell belongs to one contest at most.
        rule: by default ``tested`` if any number comes from two seeds or more, else ``maximum``.
        of: the field of the contest in words, for the footnote: ``of its column``.

    Raises:
        BenchError: an unknown rule.
    """
    cells = [list(row.cells) for row in table.rows]
    if rule is None:
        spread = any(cell.deviation is not None for row in cells for cell in row)
        rule = "tested" if spread else "maximum"
    if rule not in RULES:
        raise unknown("rule for the best", rule, RULES)
    for contest in contests:
        own = {(row, column): cells[row][column] for row, column in contest}
        direction = _direction(table, own.values())
        ranked = _ranked(own, direction)
        best = {place for place, cell in ranked.items() if cell.rank == 1}
        if rule == "tested" and ranked:
            averages = all(cell.average for cell in ranked.values())
            best |= _close(ranked, direction) if averages else _alike(ranked, direction)
        for (row, column), cell in ranked.items():
            cells[row][column] = replace(cell, best=(row, column) in best)
    rows = tuple(replace(row, cells=tuple(own)) for row, own in zip(table.rows, cells, strict=True))
    return replace(table, rows=rows, best=rule, best_note=_note(table, rule, of))


def _note(table: Table, rule: Best, of: str) -> str:
    if rule == "maximum":
        return f"best {of}."
    averages = [cell for row in table.rows for cell in row.cells if cell.average]
    numbers = sorted({cell.categories or 0 for cell in averages})
    only = len(averages) == sum(len(row.cells) for row in table.rows)
    extreme = "largest" if sign(table.metric) > 0 else "smallest"
    told = (_AVERAGES if only else _CATEGORIES).format(" and ".join(map(str, numbers)), extreme)
    return _TESTED.format(of=of) + told


def _direction(table: Table, cells: Iterable[Cell]) -> int:
    """1 where more of the cells' metric is better, else -1; a layout may have other metrics than its table's."""
    metrics = {cell.address.metric for cell in cells if cell.address is not None}
    return sign(metrics.pop() if len(metrics) == 1 else table.metric)


def _ranked(cells: Mapping[K, Cell], direction: int) -> dict[K, Cell]:
    """Those of the cells that compete, with their ranks; ``direction`` is 1 where more is better, else -1."""
    numbers = {
        place: round(cell.mean, 3)
        for place, cell in cells.items()
        if cell.mean is not None and not cell.incomplete
    }
    if sum(cell.mean is not None for cell in cells.values()) < 2:
        return {}
    order = sorted(set(numbers.values()), reverse=direction > 0)
    return {place: replace(cells[place], rank=order.index(number) + 1) for place, number in numbers.items()}


def _alike(cells: Mapping[K, Cell], direction: int) -> set[K]:
    """The cells of categories that are not significantly different from the best, by tests over seeds."""
    from bench.report.statistics.seeds import seeds_p_value

    first, others = _split(cells, direction)
    p_values = {i: seeds_p_value(dict(cells[first].by_seed), dict(cells[i].by_seed)) for i in others}
    return _not_apart({i: p for i, p in p_values.items() if p is not None})


def _close(averages: Mapping[K, Cell], direction: int) -> set[K]:
    """The averages that are not significantly different from the best, by tests over categories."""
    first, others = _split(averages, direction)
    if not others:
        return set()
    from bench.report.statistics.categories import needed_for_pairs, signed_rank

    # An average that competes covers all categories, so that none lacks its number here.
    means = {}
    for place in [first, *others]:
        means[place] = [mean for _, mean in averages[place].by_category]
    best = means[first]
    if len(best) < needed_for_pairs(len(others)):
        return set()
    p_values = {}
    for place in others:
        differences = [a - b for a, b in zip(best, means[place], strict=True)]
        p_values[place] = signed_rank(differences)
    return _not_apart(p_values)


def _split(cells: Mapping[K, Cell], direction: int) -> tuple[K, list[K]]:
    """The place of the best number, and those that are worse in print."""
    means = {place: cell.mean for place, cell in cells.items() if cell.mean is not None}
    others = [place for place, cell in cells.items() if cell.rank != 1]
    return max(means, key=lambda place: direction * means[place]), others


def _not_apart(p_values: Mapping[K, float]) -> set[K]:
    from bench.report.statistics.common import ALPHA, holm

    corrected = holm(list(p_values.values()))
    return {place for place, p in zip(p_values, corrected, strict=True) if p > ALPHA}
