"""Intervals of image metrics from resampled test images, and from resampled seeds and images together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.errors import BenchError, unknown
from bench.metrics import binary_metrics, registry
from bench.report.statistics.common import LEVEL

RESAMPLED = tuple(metric.name for metric in registry.METRICS.values() if metric.resampled)
RESAMPLES = 2000
_BATCH = 2_000_000  # scores that are resampled at a time


@dataclass(frozen=True)
class ImageInterval:
    """An estimate with its interval.

    Attributes:
        value: the metric of the data themselves; the mean over seeds and parts.
        low, high: ends of the interval.
    """

    value: float
    low: float
    high: float


def image_interval(
    parts: Sequence[tuple[ArrayLike, ArrayLike]],
    metric: str = "image_auroc",
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ImageInterval:
    """The percentile bootstrap interval of an image metric: what other test images, and seeds, would give.

    Images are drawn with replacement within each label, so that every draw has as many normal and anomalous
    images as the data. With several seeds these are drawn, too (hierarchical bootstrap): one draw is a set of
    seeds and, for all of them, the same set of images. Images are not drawn anew for each seed, because
    all seeds were tested on the same ones: a hard image is hard for all of them, and averaging over seeds
    does not make the test set larger (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1, 2007).

    Args:
        parts: the metric is averaged over these, one per category: image scores ``(N,)``, or ``(S, N)``
            for S seeds, and labels ``(N,)``, 0 normal and 1 anomalous. All parts have the same seeds in the
            same order.
        metric: ``image_auroc`` or ``image_ap``.
        level: of the interval.
        resamples: number of draws.
        seed: of the random generator; the same seed, the same interval.

    Raises:
        BenchError: an unknown metric; a part with fewer than two normal or two anomalous images.
        ValueError: shapes that do not fit; a score that is not finite; no part.

    Source:
        ``scipy.stats.bootstrap`` (``method="percentile"``) with one sample per stratum; AUROC of the draws by
        ``scipy.stats.mannwhitneyu``, AP by :func:`bench.metrics.binary_metrics`.
    """
    if metric not in RESAMPLED:
        raise unknown("metric for resampling images", metric, RESAMPLED)
    strata = [_strata(scores, labels, number) for number, (scores, labels) in enumerate(parts)]
    seeds = {scores.shape[0] for stratum in strata for scores in stratum}
    if len(seeds) != 1:
        raise ValueError(f"expected parts of the same seeds, not of {sorted(seeds)}")
    (count,) = seeds
    measure = _auroc if metric == "image_auroc" else _ap

    def statistic(*drawn: NDArray[Any], axis: int = -1) -> NDArray[np.float64]:
        """Mean over parts and seeds; each of ``drawn`` holds the places of one sample, draws × size."""
        places = [np.moveaxis(np.asarray(each, np.intp), axis, -1) for each in drawn]
        rows, places = (places[0], places[1:]) if count > 1 else (np.zeros(1, np.intp), places)
        total: Any = 0.0
        for (normal, anomalous), one, other in zip(strata, places[::2], places[1::2], strict=True):
            chosen = rows[..., :, None]
            total = total + measure(normal[chosen, one[..., None, :]], anomalous[chosen, other[..., None, :]])
        return np.asarray(total / len(strata), np.float64)

    from scipy import stats

    samples = [np.arange(count)] if count > 1 else []
    samples += [np.arange(scores.shape[1]) for stratum in strata for scores in stratum]
    largest = count * max(normal.shape[1] + anomalous.shape[1] for normal, anomalous in strata)
    result = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, _BATCH // largest),
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return ImageInterval(float(statistic(*samples)), float(low), float(high))


def _strata(scores: ArrayLike, labels: ArrayLike, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The scores of the normal and of the anomalous images, ``(S, n)`` each."""
    rows = np.atleast_2d(np.asarray(scores, np.float64))
    marks = np.asarray(labels)
    if rows.ndim != 2 or marks.shape != rows.shape[1:] or not np.all((marks == 0) | (marks == 1)):
        raise ValueError(f"part {number}: expected scores (S, N) and N labels of 0 and 1")
    if not np.all(np.isfinite(rows)):
        raise ValueError(f"part {number}: scores must be finite")
    normal, anomalous = rows[:, marks == 0], rows[:, marks == 1]
    if min(normal.shape[1], anomalous.shape[1]) < 2:
        raise BenchError(
            "resampling images needs at least two normal and two anomalous test images in every category; "
            f"there are {normal.shape[1]} and {anomalous.shape[1]}"
        )
    return normal, anomalous


def _auroc(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUROC along the last axis, averaged over the one before, the seeds'."""
    from scipy import stats

    wins = stats.mannwhitneyu(anomalous, normal, axis=-1, method="asymptotic").statistic
    areas = wins / (normal.shape[-1] * anomalous.shape[-1])
    return np.asarray(areas.mean(axis=-1), np.float64)


def _ap(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> NDArray[np.float64]:
    """AP along the last axis, averaged over the one before, the seeds'."""
    labels = np.repeat([0, 1], [normal.shape[-1], anomalous.shape[-1]])
    both = np.concatenate([normal, anomalous], axis=-1)
    values = np.apply_along_axis(lambda scores: np.float64(binary_metrics(scores, labels)["ap"]), -1, both)
    return np.asarray(values.mean(axis=-1), np.float64)
