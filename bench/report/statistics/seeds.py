"""One number per seed: its mean with an interval, and whether two methods differ over seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.report.statistics.common import DECIMALS, LEVEL

BySeed = Mapping[int | None, float]  # seed -> value; {None: value} is a method without seeds, a constant


@dataclass(frozen=True)
class SeedSummary:
    """Values of several seeds in short.

    Attributes:
        count: number of values.
        mean: their mean; None without values.
        deviation: sample standard deviation (with N - 1); None for fewer than two.
        low, high: ends of the t interval of the mean; None for fewer than two. Nothing keeps them inside
            [0, 1]: an interval that leaves it says that there are too few seeds for so wide a spread.
    """

    count: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


def summarise(values: Sequence[float], level: float = LEVEL) -> SeedSummary:
    """Mean, sample standard deviation and Student's t interval of the mean.

    Args:
        values: one per seed, finite; in [0, 1] for our metrics.
        level: of the interval.

    Raises:
        ValueError: a value that is not finite.

    Source:
        ``scipy.stats.ttest_1samp(...).confidence_interval``.
    """
    array = np.asarray(values, np.float64)
    if not np.all(np.isfinite(array)):
        raise ValueError("values must be finite")
    if len(array) < 2:
        return SeedSummary(len(array), *(float(value) for value in array))
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal values: their interval is a point, and right
        interval = stats.ttest_1samp(array, 0.0).confidence_interval(level)
    return SeedSummary(
        len(array),
        float(array.mean()),
        float(array.std(ddof=1)),
        float(interval.low),
        float(interval.high),
    )


def seeds_p_value(one: BySeed, other: BySeed) -> float | None:
    """The two-sided p-value for "both methods have the same mean over seeds".

    Args:
        one, other: seed -> value. Two methods that have seeds are paired by seed, because one seed stands for
            one split: a paired t test over the seeds that both have. A method without seeds, ``{None:
            value}``, is a constant: a one-sample t test of the other's values against it. Two constants are
            either equal (1) or not (0).

    Returns:
        The p-value; None if it takes more values than there are: fewer than two seeds in common, or one seed
        against a constant.

    Source:
        ``scipy.stats.ttest_1samp``, of the differences where there are pairs; written out, because a table has a
        thousand of them and SciPy's function prepares for much more than one list of numbers.
    """
    if None in one and None in other:
        return float(round(one[None] - other[None], DECIMALS) == 0)
    if None in one or None in other:
        constant, values = (one[None], other) if None in one else (other[None], one)
        differences = np.array([value - constant for value in values.values()])
    else:
        differences = np.array([one[seed] - other[seed] for seed in one if seed in other])
    if len(differences) < 2:
        return None
    differences = differences.round(DECIMALS)
    if not differences.any():
        return 1.0
    from scipy.special import stdtr

    with np.errstate(divide="ignore"):
        # Differences that are all equal have no spread: t is infinite and p is 0, as for two constants.
        t = differences.mean() / (differences.std(ddof=1) / math.sqrt(len(differences)))
    return float(2 * stdtr(len(differences) - 1, -abs(t)))
