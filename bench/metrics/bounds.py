"""The smallest and the largest value that each metric may have, given a histogram.

Raising an anomalous pixel above a normal one never lowers a metric. So the least is what comes out with every
anomalous pixel as low as it may lie and every normal one as high, and the most with the reverse; the truth
lies between. Two scores that are known to be equal are no matter of doubt: a bucket that holds one number
alone is counted as the tie that it is.

Average precision needs care, since it gives tied anomalous pixels the precision at the end of their tie, from
which breaking the tie may take away. With ties broken it obeys the rule above, and what a tie adds is bounded
by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.metrics.buckets import HIGHEST, LOWEST, NEGATIVE, POSITIVE, Buckets


@dataclass(frozen=True)
class Interval:
    """Where a metric lies: ``low <= metric <= high``, most likely near ``value``."""

    low: float
    high: float
    value: float

    @property
    def bound(self) -> float:
        """The metric differs from ``value`` by at most this (and the rounding of the sums, below 1e-10)."""
        return max(self.high - self.value, self.value - self.low, 0.0)


def _interval(low: float, high: float) -> Interval:
    return Interval(low, high, (low + high) / 2)


@dataclass(frozen=True)
class _Side:
    """One of the two extremes, buckets from the highest to the lowest, all float64.

    Attributes:
        positive: anomalous pixels in each bucket.
        negative: normal pixels in each bucket.
        weight: weight of the anomalous pixels in each bucket.
        positive_above: anomalous pixels in higher buckets.
        negative_above: normal pixels in higher buckets.
    """

    positive: NDArray[np.float64]
    negative: NDArray[np.float64]
    weight: NDArray[np.float64]
    positive_above: NDArray[np.float64]
    negative_above: NDArray[np.float64]


def _side(buckets: Buckets, positive_end: int, negative_end: int) -> _Side:
    # Counts below 2**53 are exact as float64, their running sums too.
    positive = buckets.counts[POSITIVE, positive_end][::-1].astype(np.float64)
    negative = buckets.counts[NEGATIVE, negative_end][::-1].astype(np.float64)
    weight = buckets.weights[positive_end][::-1]
    return _Side(positive, negative, weight, np.cumsum(positive) - positive, np.cumsum(negative) - negative)


def intervals(buckets: Buckets, *, fpr_limit: float) -> dict[str, Interval]:
    """Return the range of ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max`` and ``aupro``.

    Both classes must be there. Without doubt about any pixel both ends are the same number.
    """
    low, high = _side(buckets, LOWEST, HIGHEST), _side(buckets, HIGHEST, LOWEST)
    tied = buckets.single[::-1]
    positives, negatives = float(low.positive.sum()), float(low.negative.sum())
    return {
        "pixel_auroc": _auroc(low, high, tied, positives * negatives),
        "pixel_ap": _ap(low, high, tied, positives),
        "pixel_f1max": _f1max(low, high, tied, positives),
        "aupro": _aupro(low, high, tied, fpr_limit * negatives),
    }


def _auroc(low: _Side, high: _Side, tied: NDArray[np.bool_], pairs: float) -> Interval:
    """Share of pairs in the right order; within a bucket none, all, or half of them where it is a tie."""

    def area(side: _Side, share: float) -> float:
        below = side.negative.sum() - side.negative_above - side.negative
        return float(np.sum(side.positive * (below + np.where(tied, 0.5, share) * side.negative))) / pairs

    return _interval(area(low, 0.0), area(high, 1.0))


def _f1max(low: _Side, high: _Side, tied: NDArray[np.bool_], positives: float) -> Interval:
    """At a threshold F1 is 2 TP / (TP + FP + positives): more with more of the first, less of the second."""
    found = low.positive_above + low.positive
    least = 2 * found / (found + low.negative_above + low.negative + positives)
    found = high.positive_above + high.positive
    # A threshold in a tie takes all of it; in any other bucket it may pass above the normal pixels.
    false = high.negative_above + np.where(tied, high.negative, 0.0)
    return _interval(float(least.max()), float((2 * found / (found + false + positives)).max()))


def _aupro(low: _Side, high: _Side, tied: NDArray[np.bool_], limit: float) -> Interval:
    """Area under the overlap: each weight counts from the false positives at which it enters up to the limit.

    In a tie it enters linearly while the false positives pass over the tied ones, as in ``exact``.
    """

    def area(side: _Side, first: NDArray[np.float64]) -> float:
        width = np.maximum(side.negative, 1)
        covered = np.clip(limit - side.negative_above, 0, side.negative)
        ramp = covered**2 / (2 * width) + np.maximum(limit - side.negative_above - side.negative, 0)
        step = np.maximum(limit - first, 0)
        # The weights' sum is the number of regions.
        return float(np.sum(side.weight * np.where(tied, ramp, step)) / (side.weight.sum() * limit))

    return _interval(area(low, low.negative_above + low.negative), min(area(high, high.negative_above), 1.0))


def _ap(low: _Side, high: _Side, tied: NDArray[np.bool_], positives: float) -> Interval:
    """Precision at each anomalous pixel: the sum with ties broken, and what the ties add to it.

    Below, ``down`` stands for all that is in a bucket or above it.
    """
    # Buckets in which no anomalous pixel can lie add nothing.
    there = np.flatnonzero(high.positive_above + high.positive > low.positive_above)
    low, high = _at(low, there), _at(high, there)
    positive_down = low.positive_above + low.positive, high.positive_above + high.positive
    # Of the normal ones the low side holds the most.
    negative_down = high.negative_above + high.negative, low.negative_above + low.negative

    # Normal pixels first, or last: nothing that breaks ties and keeps to the buckets gives less, or more.
    least = _broken(low.positive, low.positive_above, negative_down[1])
    most = _broken(high.positive, high.positive_above, high.negative_above)

    # How many of a bucket's anomalous pixels lie nowhere else, and how many more may lie there.
    sure = np.maximum(low.positive - (high.positive_above - low.positive_above), 0)
    more = positive_down[1] - low.positive_above - sure
    worst = positive_down[0] / np.maximum(positive_down[0] + negative_down[1], 1)
    best = positive_down[1] / (positive_down[1] + negative_down[0])
    gain_least = sure * worst - _broken(sure, high.positive_above, negative_down[0])
    gain_most = sure * best - _broken(sure, low.positive_above, low.negative_above)
    next_ = low.positive_above + sure + 1
    gain_most += more * np.maximum(best - next_ / (next_ + low.negative_above), 0)
    # Unless a bucket is one tie, its anomalous pixels may be tied with no normal one among them.
    among = sure + more
    gain_untied = np.minimum(among * (among - 1) / 2 / (low.positive_above + high.negative_above + 1), among)

    tied = tied[there]
    lower = float(np.sum(least + np.where(tied, np.maximum(gain_least, 0), 0))) / positives
    upper = float(np.sum(most + np.where(tied, gain_most, 0))) / positives
    # Ties that are too light to have been told apart are possible, not likely.
    highest = upper + float(np.sum(np.where(tied, 0, gain_untied))) / positives
    return Interval(lower, min(highest, 1.0), min((lower + upper) / 2, 1.0))


def _at(side: _Side, index: NDArray[np.intp]) -> _Side:
    return _Side(
        side.positive[index],
        side.negative[index],
        side.weight[index],
        side.positive_above[index],
        side.negative_above[index],
    )


def _broken(
    count: NDArray[np.float64], above: NDArray[np.float64], false: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sum of ``(above + j) / (above + j + false)`` for ``j`` from 1 to ``count``."""
    # Late, because it takes longer than importing NumPy.
    from scipy.special import digamma

    total = np.zeros_like(count)
    some = np.flatnonzero(count)
    count, above, false = count[some], above[some], false[some]
    # Each term is 1 - false / (above + false + j), and the sum of 1 / (n + j) is a difference of digammas.
    begin = above + false + 1
    total[some] = count - false * (digamma(begin + count) - digamma(begin))
    return total
