"""A comparison of methods in print: plain text for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from bench.report.comparison.compare import Comparison, Standing
from bench.report.statistics.common import ALPHA, LEVEL
from bench.report.tables import text
from bench.report.tables.model import NO_SEEDS
from bench.tools.text import count

_FEW = 30  # up to so many categories only large and steady differences are found
_WIDTH = 100  # of sentences; tables are as wide as their names


def render(comparison: Comparison) -> str:
    """The comparison as lines, with a line break at the end."""
    return "\n".join(line.rstrip() for line in _lines(comparison)) + "\n"


def _lines(comparison: Comparison) -> Iterator[str]:
    table, number = comparison.table, len(comparison.categories)
    size = f" at {table.eval_size}" if table.eval_size else ""
    protocols = f"protocol {table.protocol_title}, metric protocol {table.metric_protocol}{size}"
    yield from _sentence(f"{comparison.title} ({protocols})")
    yield from _sentence(f"The unit of the tests is the category: {number}, with one number per method each.")
    for reason in comparison.left_out:
        yield from _sentence(f"left out: {reason}")
    yield ""
    yield from _standings(comparison.methods)
    yield ""
    yield from _pairs(comparison)
    yield from _overall(comparison)
    for reason in comparison.refused:
        yield from _sentence(reason)
    yield ""
    power = f": {number} categories give little power" if number <= _FEW else ""
    yield from _sentence(f"Differences hold at p ≤ {ALPHA:g}; others may exist all the same{power}.")


def _standings(methods: Sequence[Standing]) -> Iterator[str]:
    resampled = any(method.over_images is not None for method in methods)
    rows = [["Method", "mean", "deviation", f"{LEVEL:.0%} interval", "seeds", "mean rank"]]
    for method in methods:
        over = method.over_seeds
        ends = method.over_images or over
        interval = NO_SEEDS if ends.low is None else f"{_number(ends.low)} to {_number(ends.high)}"
        cells = [method.head, _number(method.mean), _number(over.deviation), interval]
        rows.append([*cells, str(over.count or NO_SEEDS), f"{method.rank:.2f}"])
    yield from _aligned(rows)
    yield "The deviation is that of the per-seed averages over the categories."
    if resampled:
        yield "The interval is from resampled test images, normal and anomalous apart, and resampled seeds."
    elif any(method.over_seeds.count > 1 for method in methods):
        yield "The interval is the t interval of their mean; it says nothing of other test images."
    else:
        yield "A t interval takes two seeds or more; --interval images takes one."


def _pairs(comparison: Comparison) -> Iterator[str]:
    if comparison.pairs is None:
        return
    number = len(comparison.pairs)
    yield f"In pairs: signed-rank test, two-sided, Holm over {count(number, 'pair')}"
    rows = [["", "difference", "better", "worse", "p", "p (Holm)", ""]]
    for pair in comparison.pairs:
        heads = [comparison.methods[i].head for i in (pair.first, pair.second)]
        said = "holds" if pair.holds else "does not hold"
        numbers = [f"{pair.difference:+.3f}", str(pair.better), str(pair.worse)]
        rows.append([" vs ".join(heads), *numbers, _p(pair.p), _p(pair.corrected), said])
    yield from _aligned(rows)
    yield ""


def _overall(comparison: Comparison) -> Iterator[str]:
    found = comparison.overall
    if found is None:
        return
    said = "the methods differ" if found.holds else "no difference holds"
    yield f"All at once: Friedman χ² {found.statistic:.2f}, p {_p(found.p)}: {said}"
    if found.holds:
        heads = [method.head for method in comparison.methods]
        apart = [
            f"{heads[i]} vs {heads[j]} (p {_p(float(found.nemenyi[i, j]))})"
            for i in range(len(heads))
            for j in range(i + 1, len(heads))
            if found.apart[i, j]
        ]
        said = ", ".join(apart) or "none"
        yield from _sentence(f"Nemenyi, mean ranks more than {found.critical:.2f} apart: {said}")


def _sentence(words: str) -> Iterator[str]:
    yield from textwrap.wrap(text.clean(words), _WIDTH, subsequent_indent="    ", break_on_hyphens=False)


def _number(value: float | None) -> str:
    return NO_SEEDS if value is None else f"{value:.3f}"


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns two spaces apart: names to the left, numbers to the right."""
    cells = [[text.clean(cell) for cell in row] for row in rows]
    widths = [max(map(text.width, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        spaces = [" " * (size - text.width(cell)) for cell, size in zip(row, widths, strict=True)]
        numbers = [space + cell for space, cell in zip(spaces[1:], row[1:], strict=True)]
        yield "  ".join([row[0] + spaces[0], *numbers])
