"""The curves under which the exact metrics are the areas: ROC, precision-recall and per-region overlap.

A curve is a polyline with a vertex wherever the exact engine (:mod:`bench.metrics.exact`) takes a step, so that
its area is the metric, ties included: a run of tied scores is a slope of the ROC and PRO curves, and one step of
the precision-recall curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.exact import as_labels, as_scores
from bench.metrics.packing import LOW_WORD, unpack
from bench.metrics.pixels import gather
from bench.metrics.registry import METRICS

Floats = NDArray[np.float64]

# metric -> the curve that it is the area under
CURVES = {metric.name: metric.curve for metric in METRICS.values() if metric.curve}


class Curve(NamedTuple):
    """Vertices ``x`` and ``y``, ``(n,)`` fractions each, from left to right; vertical stretches repeat an ``x``.

    ROC: true over false positive rate. PR: precision over recall. PRO: mean per-region overlap over false
    positive rate.
    """

    x: Floats
    y: Floats

    def area(self) -> float:
        """The area under the curve over its own width, divided by it: for the PRO curve the AUPRO."""
        return float(np.trapezoid(self.y, self.x) / (self.x[-1] - self.x[0]))


def image_curve(metric: str, scores: ArrayLike, labels: ArrayLike) -> Curve:
    """The curve whose area is an image metric.

    Args:
        metric: ``image_auroc`` or ``image_ap``.
        scores: ``(N,)`` finite; higher is more anomalous.
        labels: ``(N,)`` 0 (normal) or 1 (anomalous), or bool.

    Raises:
        ValueError: shapes that do not fit, one class only.
    """
    anomalous = as_labels(labels)
    values = as_scores(scores, len(anomalous))
    positive = np.sort(values[anomalous])
    return _curve(CURVES[metric], positive, np.ones(len(positive)), np.sort(values[~anomalous]))


def pixel_curve(
    metric: str,
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    eval_size: int | tuple[int, int] | None,
    fpr_limit: float = 0.3,
) -> Curve:
    """The curve whose area is a pixel metric, of the pixels of one category pooled over its images.

    Args:
        metric: ``pixel_auroc``, ``pixel_ap``, or ``aupro``, whose curve ends at ``fpr_limit``.
        maps, masks, eval_size: as in :func:`bench.metrics.pixel_metrics`.
        fpr_limit: largest false positive rate of the AUPRO.

    Raises:
        ValueError: shapes that do not fit, no anomalous or no normal pixel.
    """
    pixels = gather(maps, masks, eval_size=eval_size)
    packed = np.sort(pixels.positive)
    kind = CURVES[metric]
    runs = (packed & LOW_WORD).astype(np.intp)
    weights = pixels.weights[runs] if kind == "PRO" else np.ones(len(packed))
    curve = _curve(kind, unpack(packed), weights, np.sort(pixels.negative))
    return _until(curve, fpr_limit) if kind == "PRO" else curve


def _curve(kind: str, positive: NDArray[Any], weights: Floats, negative: NDArray[Any]) -> Curve:
    """The curve from ascending scores of both classes, and what each positive adds to what is found."""
    if not (len(positive) and len(negative)):
        raise ValueError("a curve needs normal and anomalous scores")
    distinct, first = np.unique(positive, return_index=True)
    # From the highest threshold down: what is found, and what is falsely found, before and at each of them.
    found = np.cumsum(np.add.reduceat(weights, first)[::-1])
    before = np.concatenate([[0.0], found[:-1]])
    false_before = (len(negative) - np.searchsorted(negative, distinct, side="right"))[::-1]
    false = (len(negative) - np.searchsorted(negative, distinct, side="left"))[::-1]
    y = np.stack([before, found], axis=1).ravel() / found[-1]
    if kind == "PR":
        return Curve(y, np.repeat(found / (found + false), 2))
    x = np.stack([false_before, false], axis=1).ravel() / len(negative)
    return Curve(np.concatenate([[0.0], x, [1.0]]), np.concatenate([[0.0], y, [1.0]]))


def _until(curve: Curve, limit: float) -> Curve:
    """The part of a curve up to ``limit``, where it ends between two vertices."""
    inside = curve.x <= limit
    end = np.interp(limit, curve.x, curve.y)
    return Curve(np.append(curve.x[inside], limit), np.append(curve.y[inside], end))
