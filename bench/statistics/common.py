"""What the tests share: the level of significance, Holm's correction, and how equal is equal."""

from __future__ import annotations

import gc
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
        1979; ``statsmodels.stats.multitest.multipletests``.
    """
    if not len(p_values):
        return np.empty(0)
    from statsmodels.stats.multitest import multipletests

    # It collects garbage each time, over all objects of the process: a table's many corrections would take
    # seconds. Frozen objects are passed over.
    gc.freeze()
    try:
        corrected: NDArray[np.float64] = multipletests(np.asarray(p_values, np.float64), method="holm")[1]
    finally:
        gc.unfreeze()
    return corrected
