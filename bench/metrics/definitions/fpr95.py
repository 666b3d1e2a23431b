"""False positive rate at 95 % recall: the share of normal images that are flagged where 95 % of defects are found.

Source: the usual measure of out-of-distribution detection (Hendrycks and Gimpel, ICLR 2017, and its followers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.registry import Metric

if TYPE_CHECKING:
    from bench.metrics.ranks import Ranking


def fpr95(ranking: Ranking) -> float:
    """Smallest false positive rate over all thresholds with a true positive rate of at least 0.95."""
    return ranking.false_positives(95) / ranking.negatives


METRICS = (
    Metric(
        name="image_fpr95",
        level="image",
        title="image FPR@95TPR",
        short="image FPR95",
        function=fpr95,
        position=4,
        higher_is_better=False,
        protocols=("exact",),
    ),
)
