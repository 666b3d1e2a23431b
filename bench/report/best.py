"""What stands in bold: the largest number, or all that no test tells from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from bench.errors import unknown
from bench.report.model import Best, Cell, Row, Table
from bench.report.naming import group

_TESTED = (
    "not distinguishable from the best of its row and column group (two-sided, 5 %, Holm). Category rows: "
    "paired t test over seeds, one-sample against a method without seeds. Average: signed-rank test over "
    "categories (here {}). Without enough seeds or categories for a test: the largest number."
)
RULES: tuple[str, ...] = get_args(Best)


def mark_best(table: Table, rule: Best | None = None) -> Table:
    """The table with its best cells marked.

    A cell competes with those of its row and column group that have a rank.

    ``maximum``: the best is the largest number as printed; equal ones are all best.

    ``tested``: so is every number that no test tells from the largest one, two-sided at 5 %, with Holm's
    correction over the comparisons of the row and column group.

    * Category rows: a paired t test over the seeds that both have (``bench.statistics.seeds_p_value``). A
      method without seeds is a constant: the other's seeds are tested against it, and two constants are
      different if they differ in print.
    * Average row: Wilcoxon's signed-rank test over the categories, which have one number per method each.
    * Where there are too few seeds (fewer than two in common) or too few categories (so few that no outcome
      could be significant) there is no test, and only the largest number is best.

    Numbers that are equal as printed are never told apart.

    Args:
        table: with ranks.
        rule: by default ``tested`` if any number comes from two seeds or more, else ``maximum``.

    Raises:
        BenchError: an unknown rule.
    """
    if rule is None:
        rule = "tested" if table.has_deviations else "maximum"
    if rule not in RULES:
        raise unknown("rule for the best", rule, RULES)
    tested = rule == "tested"
    categories = [row.cells for row in table.rows if not row.average]
    columns = list(group(range(len(table.columns)), lambda i: table.columns[i].group).values())

    def marked(row: Row) -> Row:
        best: set[int] = set()
        for places in columns:
            ranked = {i: row.cells[i] for i in places if row.cells[i].rank is not None}
            best |= {i for i, cell in ranked.items() if cell.rank == 1}
            if tested and ranked:
                best |= _close(categories, ranked) if row.average else _alike(ranked)
        return replace(row, cells=tuple(replace(cell, best=i in best) for i, cell in enumerate(row.cells)))

    rows = tuple(marked(row) for row in table.rows)
    if not tested:
        return replace(table, rows=rows, best=rule)
    return replace(table, rows=rows, best=rule, best_note=_TESTED.format(len(categories)))


def _alike(cells: Mapping[int, Cell]) -> set[int]:
    """The cells of a category row that no test over seeds tells from the largest."""
    from bench.statistics.seeds import seeds_p_value

    largest, smaller = _split(cells)
    p_values = {i: seeds_p_value(dict(cells[largest].by_seed), dict(cells[i].by_seed)) for i in smaller}
    return _not_apart({i: p for i, p in p_values.items() if p is not None})


def _close(categories: Sequence[Sequence[Cell]], averages: Mapping[int, Cell]) -> set[int]:
    """The averages that no test over categories tells from the largest."""
    largest, smaller = _split(averages)
    if not smaller:
        return set()
    from bench.statistics.categories import needed_for_pairs, signed_rank

    if len(categories) < needed_for_pairs(len(smaller)):
        return set()
    # An average that competes covers all categories, so that none lacks its number here.
    means = {i: [mean for c in categories if (mean := c[i].mean) is not None] for i in [largest, *smaller]}
    best = means[largest]
    return _not_apart({i: signed_rank([a - b for a, b in zip(best, means[i], strict=True)]) for i in smaller})


def _split(cells: Mapping[int, Cell]) -> tuple[int, list[int]]:
    """The place of the largest number, and those that are smaller in print."""
    means = {i: cell.mean for i, cell in cells.items() if cell.mean is not None}
    return max(means, key=means.__getitem__), [i for i, cell in cells.items() if cell.rank != 1]


def _not_apart(p_values: Mapping[int, float]) -> set[int]:
    from bench.statistics.common import ALPHA, holm

    corrected = holm(list(p_values.values()))
    return {i for i, p in zip(p_values, corrected, strict=True) if p > ALPHA}
