"""Checks of reported numbers against each other, for ``bench audit``.

Everything follows from the numbers alone; claims in a paper's text are out of scope.

**Averages.** A column is what one table gives for one method, dataset, setting and metric. If it has a printed
average and the rows of at least two categories, the mean of the rows, in exact decimal arithmetic, is set beside
the average. It was ``rounded``, or ``truncated`` to the printed digits; or neither, but ``within`` what the
rows' own rounding can hide, half a unit of the rows' last digit beside half of the average's (as when the
average was taken before rounding); or it is ``off``: no digits behind the printed ones can explain it. For an
average that is off, other groupings of the table's numbers are tried, and those that give it are named.

**The same quantity twice.** Two values in one paper that differ by a unit of their last digit or more are a
contradiction. Two papers that differ were simply reported differently: re-runs, other weights, another metric
protocol; that is listed, and no error.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any, Literal

from bench.reported.loading import Fault, Reported
from bench.tools.groups import group

Verdict = Literal["rounded", "truncated", "within", "off", "no rows"]

# MVTec AD's five textures; the rest are objects (Bergmann et al., CVPR 2019).
_TEXTURES = {"carpet", "grid", "leather", "tile", "wood"}


@dataclass(frozen=True)
class Average:
    """A printed average and the rows that it stands for.

    Attributes:
        printed: the printed number.
        rows: the categories' numbers in the same column.
        mean: their mean, a fraction; None without rows.
        verdict: see the module's head.
        groupings: for one that is off, which other numbers have the printed mean, in words.
    """

    printed: Reported
    rows: tuple[Reported, ...]
    mean: float | None
    verdict: Verdict
    groupings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """Findings of an audit.

    Attributes:
        numbers: the sound rows.
        faults: rows that break the schema, such as values out of range.
        averages: every printed average.
        repeated: groups of rows that give one quantity of one table several times, alike.
        contradictions: groups in which one paper gives one quantity two values.
        different: groups in which several papers give one quantity different values.
    """

    numbers: tuple[Reported, ...]
    faults: tuple[Fault, ...]
    averages: tuple[Average, ...]
    repeated: tuple[tuple[Reported, ...], ...]
    contradictions: tuple[tuple[Reported, ...], ...]
    different: tuple[tuple[Reported, ...], ...]

    @property
    def off(self) -> tuple[Average, ...]:
        """The averages that are not the means of their rows."""
        return tuple(average for average in self.averages if average.verdict == "off")

    @property
    def sound(self) -> bool:
        """True without faults, contradictions, repetitions and averages that are off."""
        return not (self.faults or self.off or self.repeated or self.contradictions)


def audit(numbers: Iterable[Reported], faults: Iterable[Fault] = ()) -> Audit:
    """Check reported numbers against each other; see the module's head."""
    known = tuple(numbers)
    repeated = [same for same in group(known, lambda r: (r.table, quantity(r))).values() if len(same) > 1]
    contradictions, different = [], []
    for same in group(known, quantity).values():
        papers = group(same, lambda r: r.paper)
        contradictions += [tuple(own) for own in papers.values() if _differ(own)]
        if len(papers) > 1 and _differ(same):
            different.append(tuple(same))
    return Audit(
        numbers=known,
        faults=tuple(faults),
        averages=tuple(averages(known)),
        repeated=tuple(tuple(same) for same in repeated if not _differ(same)),
        contradictions=tuple(contradictions),
        different=tuple(different),
    )


def setting(row: Reported) -> tuple[Any, ...]:
    """Everything but the category and the metric that says which quantity a number is."""
    return row.method, row.dataset, row.shots, row.k, row.protocol, row.trained_on, row.encoder


def quantity(row: Reported) -> tuple[Any, ...]:
    """The quantity that a number measures, whoever reports it."""
    return *setting(row), row.category, row.metric


def _exact(row: Reported) -> Decimal:
    return Decimal(f"{row.value:.{row.decimals}f}")


def _unit(row: Reported) -> Decimal:
    """One unit of the last digit that is printed."""
    return Decimal(1).scaleb(-row.decimals)


def _differ(rows: Sequence[Reported]) -> bool:
    """True if two of the values are apart by a unit of the coarser one's last digit or more."""
    return any(abs(_exact(a) - _exact(b)) >= max(_unit(a), _unit(b)) for a, b in itertools.combinations(rows, 2))


def averages(numbers: Iterable[Reported]) -> Iterator[Average]:
    """Every printed average beside the mean of its rows."""
    for table in group(numbers, lambda r: r.table).values():
        columns = group(table, lambda r: (setting(r), r.metric))
        for column in columns.values():
            rows = tuple(row for row in column if not row.average)
            for printed in (row for row in column if row.average):
                verdict = _verdict(printed, rows)
                mean = float(_mean(rows)) if rows else None
                groupings = tuple(_groupings(printed, rows, table)) if verdict == "off" else ()
                yield Average(printed, rows, mean, verdict, groupings)


def _mean(rows: Sequence[Reported]) -> Decimal:
    return sum(map(_exact, rows), Decimal()) / len(rows)


def _verdict(printed: Reported, rows: Sequence[Reported]) -> Verdict:
    if len(rows) < 2:
        return "no rows"
    mean, value, unit = _mean(rows), _exact(printed), _unit(printed)
    if value in (mean.quantize(unit, ROUND_HALF_UP), mean.quantize(unit, ROUND_HALF_EVEN)):
        return "rounded"
    if value == mean.quantize(unit, ROUND_DOWN):
        return "truncated"
    return "within" if abs(mean - value) <= (max(map(_unit, rows)) + unit) / 2 else "off"


def _groupings(printed: Reported, rows: Sequence[Reported], table: Sequence[Reported]) -> Iterator[str]:
    """Other groups of the table's numbers whose mean is the printed one, in words."""
    for words, others in _candidates(printed, rows, table):
        if others and _verdict(printed, others) in ("rounded", "truncated"):
            yield f"{words} ({float(_mean(others)):.4f})"


def _candidates(
    printed: Reported, rows: Sequence[Reported], table: Sequence[Reported]
) -> Iterator[tuple[str, list[Reported]]]:
    for other in table:
        beside = (other.method, other.shots, other.k, other.metric) == (
            printed.method,
            printed.shots,
            printed.k,
            printed.metric,
        )
        if beside and other.average and other.dataset != printed.dataset:
            yield f"the mean of the rows and {other.dataset}", [*rows, other]
    for left_out in rows:
        yield f"the mean without {left_out.category}", [row for row in rows if row is not left_out]
    if printed.dataset == "mvtec":
        yield "the mean of the textures", [row for row in rows if row.category in _TEXTURES]
        yield "the mean of the objects", [row for row in rows if row.category not in _TEXTURES]
    own = (setting(printed), printed.metric)
    columns = group((row for row in table if not row.average), lambda r: (setting(r), r.metric))
    for (_, metric), column in columns.items():
        if (setting(column[0]), metric) != own and column[0].dataset == printed.dataset:
            yield f"the mean of the rows of {title(column[0])}", column


def title(row: Reported) -> str:
    """A number's description without its category: ``PromptAD on mvtec, 1-shot: image_auroc``."""
    parts = [f"{row.method} on {row.dataset}"]
    if row.trained_on:
        parts.append(f"trained on {row.trained_on}")
    if row.shots:
        parts.append(f"{row.shots}-shot")
    if row.k:
        parts.append(f"k={row.k}")
    return f"{', '.join(parts)}: {row.metric}"
