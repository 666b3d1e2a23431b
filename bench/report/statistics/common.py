"""The level of significance, Holm's correction and the precision of equality, for all tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05  # a difference holds if its p-value is at most this
LEVEL = 0.95  # of intervals
# Scores are fractions in [0, 1]. Differences are rounded to this many decimals before they are ranked, so that
# those that are equal in exact arithmetic are tied, as SciPy's documentation of `wilcoxon` advises.
DECIMALS = 12


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """The p-values after Holm's step-down correction, in the same order.

    Args:
        p_values: ``(m,)`` of the m tests that belong together.

    Returns:
        ``(m,)``; the chance of one false difference or more among all those at or below α is at most α.

    Source:
        S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6,
        1979. The numbers are those of ``statsmodels.stats.multitest.multipletests``, which takes longer to
        import than all of a table's tests to compute, and collects the process's garbage at each call.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected
