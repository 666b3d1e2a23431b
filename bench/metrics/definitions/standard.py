"""AUROC, average precision and best F1 of images and of pixels, and the per-region overlap.

Sources: ``roc_auc_score``, ``average_precision_score`` and ``precision_recall_curve`` of scikit-learn; AUPRO as in
MVTec's evaluation code (Bergmann et al., IJCV 129, 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.metrics.registry import Metric

if TYPE_CHECKING:
    from bench.metrics.ranks import Ranking


def auroc(ranking: Ranking) -> float:
    """Share of (anomalous, normal) pairs in the right order, a tie counting half."""
    return ranking.sums.ranks / (2 * ranking.positives * ranking.negatives)


def average_precision(ranking: Ranking) -> float:
    """Mean over the anomalous scores of the precision at each (the step-wise area)."""
    return ranking.sums.precision / ranking.positives


def best_f1(ranking: Ranking) -> float:
    """Largest F1 over all thresholds."""
    return ranking.sums.f1


def overlap(ranking: Ranking) -> float:
    """Area under the per-region overlap curve up to the limit of the false positive rate, divided by it."""
    # The regions' weights may sum to a little more than 1 by rounding.
    return min(ranking.overlap, 1.0)


_WITH_F1 = ("exact", "grid200", "ader50", "winclip-cy")
_WITH_AP = ("exact", "grid200", "ader50", "openiad")

METRICS = (
    Metric(
        name="image_auroc",
        level="image",
        title="image AUROC",
        short="image AUROC",
        function=auroc,
        position=1,
        curve="ROC",
        curve_title="image ROC",
        resampled=True,
    ),
    Metric(
        name="image_ap",
        level="image",
        title="image AP",
        short="image AP",
        function=average_precision,
        position=2,
        protocols=(*_WITH_AP, "devnet-perimage"),
        curve="PR",
        curve_title="image precision-recall",
        resampled=True,
    ),
    Metric(
        name="image_f1max",
        level="image",
        title="image F1-max",
        short="image F1",
        function=best_f1,
        position=3,
        protocols=_WITH_F1,
    ),
    Metric(
        name="pixel_auroc",
        level="pixel",
        title="pixel AUROC",
        short="pixel AUROC",
        function=auroc,
        position=1,
        curve="ROC",
        curve_title="pixel ROC",
    ),
    Metric(
        name="pixel_ap",
        level="pixel",
        title="pixel AP",
        short="pixel AP",
        function=average_precision,
        position=2,
        protocols=_WITH_AP,
        curve="PR",
        curve_title="pixel precision-recall",
    ),
    Metric(
        name="pixel_f1max",
        level="pixel",
        title="pixel F1-max",
        short="pixel F1",
        function=best_f1,
        position=3,
        protocols=_WITH_F1,
    ),
    Metric(
        name="aupro",
        level="pixel",
        title="AUPRO@0.3",
        short="AUPRO",
        function=overlap,
        position=4,
        protocols=("exact", "grid200", "ader50", "openiad", "winclip-cy"),
        curve="PRO",
        curve_title="per-region overlap",
    ),
)
