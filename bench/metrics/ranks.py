"""Ranks of anomalous scores (positives) among normal ones (negatives), and the sums that metrics are made of.

``bench.metrics.definitions`` has the metric that follows from each sum. Counts are integers and sums are float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Positives looked up at a time: they then fall into a stretch of the negatives that fits the processor's
# cache, which halves the time of the search.
_LOOKUP = 1 << 12


@dataclass(frozen=True)
class SortedParts:
    """Normal pixels in parts, each of them sorted."""

    parts: Sequence[NDArray[np.float32]]

    @property
    def largest(self) -> np.float32:
        """The largest score."""
        return np.float32(max(part[-1] for part in self.parts))

    def count(self, values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many lie below, and how many at or below, each of the ascending ``values``."""
        below, upto = zip(*(_count(part, values) for part in self.parts), strict=True)
        return np.sum(below, axis=0), np.sum(upto, axis=0)


def _count(part: NDArray[np.float32], values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many of a sorted, non-empty part lie below, and at or below, each of the ascending ``values``."""
    begin = range(0, len(values), _LOOKUP)
    border = [*np.searchsorted(part, values[::_LOOKUP]).tolist(), len(part)]
    below = np.concatenate(
        [
            np.searchsorted(part[low:high], values[i : i + _LOOKUP]) + low
            for i, low, high in zip(begin, border[:-1], border[1:], strict=True)
        ]
    )
    # A value that is there is most often there once; only the others need a second search.
    upto, last = below.copy(), len(part) - 1
    tied = np.flatnonzero(part[np.minimum(below, last)] == values)
    upto[tied] += 1
    tied = tied[part[np.minimum(upto[tied], last)] == values[tied]]
    upto[tied] = np.searchsorted(part, values[tied], side="right")
    return below, upto


@dataclass(frozen=True)
class Groups:
    """Distinct positive scores, ascending (or a stretch of them).

    Attributes:
        count: positives with this score (within the stretch).
        above: positives at or above this score.
        below: negatives below this score.
        upto: negatives at or below this score.
    """

    count: NDArray[np.int64]
    above: NDArray[np.int64]
    below: NDArray[np.int64]
    upto: NDArray[np.int64]


def group_starts(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each distinct value of a sorted, non-empty array starts."""
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])


@dataclass(frozen=True)
class Sums:
    """Sums over a stretch of positives, or over all of them.

    Attributes:
        ranks: twice the number of pairs in the right order, ties counting once; for AUROC.
        precision: precision at each positive, summed; for AP.
        f1: largest F1 at any of the scores.
    """

    ranks: int
    precision: float
    f1: float

    @classmethod
    def total(cls, parts: Sequence[Sums]) -> Sums:
        """The sums over all stretches."""
        # Python integers cannot overflow.
        ranks = sum(part.ranks for part in parts)
        precision = float(np.sum([part.precision for part in parts]))
        return cls(ranks, precision, max(part.f1 for part in parts))


@dataclass(frozen=True)
class Ranking:
    """Ranked scores of both classes, neither of them empty: the argument of a metric's function.

    Attributes:
        positives, negatives: numbers of anomalous and of normal scores.
        sums: over all positives.
        score: the anomalous score at a place, ascending from 0.
        below: number of normal scores below a score.
        overlap: area under the per-region overlap curve up to the limit, divided by it; NaN for image scores.
    """

    positives: int
    negatives: int
    sums: Sums
    score: Callable[[int], Any]
    below: Callable[[Any], int]
    overlap: float = float("nan")

    def false_positives(self, percent: int) -> int:
        """Fewest normal scores at or above a threshold at or above which ``percent`` % of the positives lie.

        Ties are exact: the threshold is an anomalous score, and all that equal it are found with it.
        """
        # In integers, since 0.95 times a number of positives may round to the wrong side of a whole number.
        needed = -(-percent * self.positives // 100)
        return self.negatives - self.below(self.score(self.positives - needed))


def sums(groups: Groups, positives: int, negatives: int) -> Sums:
    """Sum over a stretch of all ``positives`` among all ``negatives``."""
    found = groups.above + (negatives - groups.below)
    # np.sum, not np.dot: the BLAS behind the latter starts threads of its own, which cost more than the sum.
    return Sums(
        ranks=int(np.sum(groups.count * (groups.below + groups.upto))),
        precision=float(np.sum(groups.count * groups.above / found)),
        # 2PR / (P + R) = 2 TP / (TP + FP + positives)
        f1=float(np.max(2 * groups.above / (found + positives))),
    )


def overlap_area(groups: Groups, weight: NDArray[np.float64], negatives: int, limit: float) -> float:
    """Return the area under the groups' share of the overlap curve, from 0 to ``limit`` false positives.

    A group adds its weight, linearly from the false positives above its score to those at or above it.
    """
    begin, end = negatives - groups.upto, negatives - groups.below
    # Without tied negatives the ramp is a step, and its area comes out 0.
    width = np.maximum(end - begin, 1)
    covered = np.clip(limit - begin, 0, end - begin)
    return float(np.sum(weight * (covered * covered / (2 * width) + np.maximum(limit - end, 0))))
