"""Curves: their areas are the exact metrics, and their points those of scikit-learn and of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import precision_recall_curve, roc_curve

from bench.metrics import binary_metrics, pixel_metrics
from bench.metrics.curves import CURVES, Curve, image_curve, pixel_curve

PIXEL = [metric for metric in CURVES if not metric.startswith("image_")]


def scene(levels: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Maps of so many different scores (few make ties), and masks with regions of several sizes."""
    rng = np.random.default_rng(seed)
    masks = rng.random((6, 24, 24)) < 0.02
    masks = np.stack([ndimage.binary_dilation(mask, iterations=i % 3 + 1) for i, mask in enumerate(masks)])
    masks[:2] = False
    scores = rng.integers(0, levels, masks.shape) + masks * rng.integers(0, levels // 2 + 1, masks.shape)
    return scores.astype(np.float32), masks


@pytest.mark.parametrize("levels", [2, 7, 100_000])
@pytest.mark.parametrize("metric", PIXEL)
def test_the_area_is_the_metric(metric: str, levels: int) -> None:
    maps, masks = scene(levels)
    curve = pixel_curve(metric, maps, masks, eval_size=None)
    expected = pixel_metrics(maps, masks, eval_size=None)[metric]
    assert curve.area() == pytest.approx(expected, abs=1e-12)
    assert np.all(np.diff(curve.x) >= 0)
    assert curve.x[-1] == (0.3 if metric == "aupro" else 1)


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_image_curves_are_those_of_scikit_learn(levels: int) -> None:
    rng = np.random.default_rng(levels)
    labels = rng.integers(0, 2, 60)
    scores = rng.integers(0, levels, 60) + labels * levels / 4
    metrics = binary_metrics(scores, labels)
    roc, pr = image_curve("image_auroc", scores, labels), image_curve("image_ap", scores, labels)
    assert roc.area() == pytest.approx(metrics["auroc"], abs=1e-12)
    assert pr.area() == pytest.approx(metrics["ap"], abs=1e-12)

    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    ours = points(roc)
    assert points(Curve(false, true)) >= ours  # theirs has the thresholds of normal scores too
    assert {(0.0, 0.0), (1.0, 1.0)} <= ours
    precision, recall, _ = precision_recall_curve(labels, scores)
    assert points(Curve(pr.x[1::2], pr.y[1::2])) <= points(Curve(recall, precision))
    assert np.array_equal(pr.y[::2], pr.y[1::2])  # steps: the precision holds from the recall before


def points(curve: Curve) -> set[tuple[Any, Any]]:
    return set(zip(curve.x.round(9), curve.y.round(9), strict=True))


def test_overlap_by_hand() -> None:
    # Two regions, one of two pixels and one of one; the large one is half found before anything false is.
    maps = np.array([[[9, 4, 1, 3, 2, 5, 0, 0]]], dtype=np.float32)
    masks = np.array([[[1, 1, 0, 0, 0, 1, 0, 0]]], dtype=bool)
    curve = pixel_curve("aupro", maps, masks, eval_size=None, fpr_limit=1.0)
    assert points(curve) == {(0, 0), (0, 0.25), (0, 0.75), (0, 1), (1, 1)}
    # A normal pixel that ties with the last of them makes a slope; the limit cuts it in the middle.
    maps[0, 0, 2] = 4
    half = pixel_curve("aupro", maps, masks, eval_size=None, fpr_limit=0.1)
    assert (half.x[-1], half.y[-1]) == pytest.approx((0.1, 0.75 + 0.25 * 0.1 / 0.2))


def test_one_class_has_no_curve() -> None:
    with pytest.raises(ValueError, match="normal and anomalous"):
        image_curve("image_auroc", [0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="normal and anomalous"):
        pixel_curve("aupro", np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), eval_size=None)
