"""Is a number the same as a reported one: two one-sided tests (TOST) against a stated margin.

A test of difference cannot say that two numbers agree: with few seeds it finds nothing. So the burden is the
other way round: the numbers count as the same only if the data exclude, at 5 %, that they are apart by the
margin or more on either side.

Source: D. J. Schuirmann, A comparison of the two one-sided tests procedure and the power approach, Journal of
Pharmacokinetics and Biopharmaceutics 15, 1987.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.report.statistics.common import ALPHA, DECIMALS

Outcome = Literal["reproduced", "better", "worse", "undecided"]


@dataclass(frozen=True)
class Equivalence:
    """Values of several seeds beside a reference.

    Attributes:
        difference: mean of the values less the reference.
        p: of the two one-sided tests: the larger of "below by the margin or more" and "above by it".
        p_difference: of the one-sided test that the difference is not on the side on which it lies.
        outcome: ``reproduced`` if ``p`` is at most 0.05; else ``better`` or ``worse`` if ``p_difference`` is;
            else ``undecided``: so few or so scattered values can show neither.
    """

    difference: float
    p: float
    p_difference: float

    @property
    def outcome(self) -> Outcome:
        if self.p <= ALPHA:
            return "reproduced"
        if self.p_difference <= ALPHA:
            return "better" if self.difference > 0 else "worse"
        return "undecided"


def equivalence(
    values: Sequence[float],
    reference: float,
    margin: float,
    *,
    deviation: float | None = None,
    runs: int | None = None,
) -> Equivalence:
    """Two one-sided t tests of the values' mean against ``reference ± margin``.

    Args:
        values: two or more, one per seed.
        reference: the reported mean.
        margin: above 0; means that are closer than this count as the same.
        deviation, runs: sample standard deviation of the reported mean's ``runs`` values. With both, and two
            runs or more, the tests are Welch's; without, the reference is taken as an exact constant, which is
            the best that can be done with a paper that gives neither.

    Raises:
        ValueError: fewer than two values, one that is not finite, or a margin that is not above 0.

    Source:
        ``scipy.stats.ttest_1samp``, ``scipy.stats.ttest_ind_from_stats``.
    """
    array = np.asarray(values, np.float64).round(DECIMALS)
    if len(array) < 2 or not np.all(np.isfinite(array)):
        raise ValueError("equivalence needs two or more finite values")
    if margin <= 0:
        raise ValueError("the margin must be above 0")
    from scipy import stats

    known = deviation is not None and runs is not None and runs >= 2

    def p(bound: float, side: str) -> float:
        """The p-value of "the mean is on that side of the bound"."""
        bound = round(bound, DECIMALS)
        if not known:
            if not np.ptp(array):  # without any spread there is nothing to test: the mean is there or it is not
                return float(not (array[0] > bound if side == "greater" else array[0] < bound))
            return float(stats.ttest_1samp(array, bound, alternative=side).pvalue)
        own = (array.mean(), array.std(ddof=1), len(array))
        found = stats.ttest_ind_from_stats(*own, bound, deviation, runs, equal_var=False, alternative=side)
        return float(np.nan_to_num(found.pvalue, nan=1.0))  # neither has a spread, and they are equal

    difference = float(array.mean()) - reference
    return Equivalence(
        difference,
        max(p(reference - margin, "greater"), p(reference + margin, "less")),
        p(reference, "greater" if difference > 0 else "less"),
    )
