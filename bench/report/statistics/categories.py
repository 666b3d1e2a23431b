"""Methods compared over categories: in pairs (Wilcoxon, Holm) and all at once (Friedman, Nemenyi).

The unit is the category: each gives one number per method, the mean over its seeds, and the question is
whether a method would also be ahead on other categories. Categories share training images in a
leave-one-out protocol, so they are not wholly independent; that is the custom in the field, and no test here
corrects for it.

Source: J. Demšar, Statistical comparisons of classifiers over multiple data sets, JMLR 7, 2006.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import BenchError
from bench.report.statistics.common import ALPHA, DECIMALS, holm

# Up to so many categories every assignment of signs is tried where ties or zeros make SciPy's table of the
# exact distribution wrong; SciPy draws the line at the same number.
_EXHAUSTIVE = 13


@dataclass(frozen=True)
class Pair:
    """Two methods over the same categories.

    Attributes:
        first, second: columns of the two methods.
        difference: mean over categories of first - second.
        better, worse: on how many categories the first is above and below the second; the rest are equal.
        p: two-sided p-value of the signed-rank test.
        corrected: the same after Holm's correction over all pairs.
        holds: True if ``corrected`` is at most 0.05.
    """

    first: int
    second: int
    difference: float
    better: int
    worse: int
    p: float
    corrected: float
    holds: bool


@dataclass(frozen=True)
class Friedman:
    """All methods over the same categories at once.

    Attributes:
        statistic: Friedman's χ², corrected for ties, and ``p``, its p-value.
        ranks: ``(k,)`` mean rank of each method over the categories; 1 is the best, ties share the mean rank.
        nemenyi: ``(k, k)`` p-values of Nemenyi's post-hoc test.
        critical: mean ranks that are farther apart than this differ by Nemenyi's test at 0.05.
        apart: ``(k, k)`` bool, whether two methods differ: both Friedman's and Nemenyi's p-value are at most
            0.05. Without the first the second has no standing.
    """

    statistic: float
    p: float
    ranks: NDArray[np.float64]
    nemenyi: NDArray[np.float64]
    critical: float
    apart: NDArray[np.bool_]

    @property
    def holds(self) -> bool:
        """True if the methods differ at all."""
        return self.p <= ALPHA


def signed_rank(differences: ArrayLike) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test.

    Exact for up to 50 differences without ties and zeros, and for up to 13 with them; beyond that the normal
    approximation, corrected for ties. Zeros are ranked and their ranks split evenly between both signs
    (Demšar's advice). The p-values are those of ``scipy.stats.wilcoxon(method="auto", zero_method="zsplit")``.

    Args:
        differences: ``(N,)``, one per category, N ≥ 1.
    """
    from scipy import stats

    values = np.asarray(differences, np.float64).round(DECIMALS)
    sizes = np.abs(values)
    if not sizes.any():
        return 1.0
    if len(np.unique(sizes)) == len(sizes) and sizes.all():
        method = "auto"
    elif len(values) <= _EXHAUSTIVE:
        # What `wilcoxon` does there, without its loop over permutations: 8,192 at once.
        signed = np.sign(values) * stats.rankdata(sizes)
        result = stats.permutation_test(
            (signed,), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        return float(result.pvalue)
    else:
        method = "asymptotic"
    return float(stats.wilcoxon(values, zero_method="zsplit", method=method).pvalue)


def compare_pairs(values: ArrayLike) -> list[Pair]:
    """Every pair of methods: Wilcoxon's signed-rank test over categories, Holm's correction over pairs.

    Args:
        values: ``(N, k)``: N categories, k methods; higher is better.

    Returns:
        The k (k - 1) / 2 pairs, in the order of the columns.

    Raises:
        BenchError: so few categories that no outcome could be significant, or fewer than two methods.
        ValueError: a value that is not finite.
    """
    table = _table(values)
    number, methods = table.shape
    if methods < 2:
        raise BenchError(f"a comparison in pairs needs at least 2 methods; there are {methods}")
    columns = list(itertools.combinations(range(methods), 2))
    needed = needed_for_pairs(len(columns))
    if number < needed:
        least = min(1.0, len(columns) * 2.0 ** (1 - number))
        times = f" (Holm over {len(columns)} pairs)" if len(columns) > 1 else ""
        raise BenchError(
            f"a signed-rank test over {number} categories cannot give a p-value below {least:.2g}{times}; "
            f"{methods} methods need at least {needed} categories"
        )
    differences = [(table[:, i] - table[:, j]).round(DECIMALS) for i, j in columns]
    p_values = [signed_rank(each) for each in differences]
    return [
        Pair(i, j, float(d.mean()), int((d > 0).sum()), int((d < 0).sum()), p, float(q), bool(q <= ALPHA))
        for (i, j), d, p, q in zip(columns, differences, p_values, holm(p_values), strict=True)
    ]


def needed_for_pairs(comparisons: int) -> int:
    """The fewest categories at which the clearest outcome is significant after Holm over ``comparisons``.

    The smallest two-sided p-value of N signs is 2^(1 - N), and Holm multiplies the smallest of m by m.
    """
    return _first(lambda number: comparisons * 2.0 ** (1 - number))


def friedman(values: ArrayLike) -> Friedman:
    """All methods at once: Friedman's test, and Nemenyi's for which of them differ.

    Friedman's p-value is that of the χ² distribution, which for few categories is on the safe side.

    Args:
        values: ``(N, k)``: N categories, k methods; higher is better.

    Raises:
        BenchError: fewer than three methods, or so few categories that no outcome could be significant.
        ValueError: a value that is not finite.

    Source:
        ``scipy.stats.friedmanchisquare``, ``scikit_posthocs.posthoc_nemenyi_friedman``; the critical difference
        is Demšar's (2006, §3.2.2), with the quantile of ``scipy.stats.studentized_range``.
    """
    table = _table(values)
    number, methods = table.shape
    if methods < 3:
        raise BenchError(f"Friedman's test needs at least 3 methods; there are {methods}")
    needed = needed_for_friedman(methods)
    if number < needed:
        raise BenchError(
            f"Friedman's test over {number} categories can never be significant; "
            f"{methods} methods need at least {needed} categories"
        )
    from scikit_posthocs import posthoc_nemenyi_friedman
    from scipy import stats

    ranks = stats.rankdata(-table, axis=1)
    if np.all(ranks == ranks[:, :1]):  # every category ties all methods; the statistic would be 0 / 0
        statistic, p = 0.0, 1.0
    else:
        statistic, p = (float(x) for x in stats.friedmanchisquare(*table.T))
    nemenyi = posthoc_nemenyi_friedman(table).to_numpy(np.float64)
    quantile = stats.studentized_range.ppf(1 - ALPHA, methods, np.inf) / np.sqrt(2)
    return Friedman(
        statistic=statistic,
        p=p,
        ranks=ranks.mean(axis=0),
        nemenyi=nemenyi,
        critical=float(quantile * np.sqrt(methods * (methods + 1) / (6 * number))),
        apart=(nemenyi <= ALPHA) & (p <= ALPHA),
    )


def needed_for_friedman(methods: int) -> int:
    """The fewest categories at which Friedman's test of ``methods`` can be significant.

    The largest statistic, N (k - 1), is reached when every category ranks the methods alike.
    """
    from scipy import stats

    return _first(lambda number: float(stats.chi2.sf(number * (methods - 1), methods - 1)))


def _first(smallest_p: Callable[[int], float]) -> int:
    return next(number for number in itertools.count(2) if smallest_p(number) <= ALPHA)


def _table(values: ArrayLike) -> NDArray[np.float64]:
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"expected (categories, methods), not an array of shape {table.shape}")
    if not np.all(np.isfinite(table)):
        raise ValueError("values must be finite; leave out the categories that a method has none for")
    # Equal in exact arithmetic is a tie, here as in the differences.
    return table.round(DECIMALS)
