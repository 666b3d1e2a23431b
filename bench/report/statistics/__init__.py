"""Statistics of results, from SciPy and scikit-posthocs.

* :mod:`~bench.report.statistics.seeds`: mean, deviation and interval over seeds; two methods over the same seeds.
* :mod:`~bench.report.statistics.images`: intervals from resampled test images, and from seeds and images together.
* :mod:`~bench.report.statistics.categories`: methods over categories, in pairs and all at once.
* :mod:`~bench.report.statistics.equivalence`: whether a mean over seeds is the same as a reported one.

Importing this package imports NumPy only.
"""

from __future__ import annotations

from bench.report.statistics.categories import (
    Friedman,
    Pair,
    compare_pairs,
    friedman,
    needed_for_friedman,
    needed_for_pairs,
    signed_rank,
)
from bench.report.statistics.common import ALPHA, LEVEL, holm
from bench.report.statistics.equivalence import Equivalence, equivalence
from bench.report.statistics.images import ImageInterval, image_interval
from bench.report.statistics.seeds import SeedSummary, seeds_p_value, summarise

__all__ = [
    "ALPHA",
    "LEVEL",
    "Equivalence",
    "Friedman",
    "ImageInterval",
    "Pair",
    "SeedSummary",
    "compare_pairs",
    "equivalence",
    "friedman",
    "holm",
    "image_interval",
    "needed_for_friedman",
    "needed_for_pairs",
    "seeds_p_value",
    "signed_rank",
    "summarise",
]
