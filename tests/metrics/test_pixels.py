"""Pixel metrics against scikit-learn, anomalib, and the definition of AUPRO, threshold by threshold."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from bench.metrics import exact, pixel_metrics, pixels, ranks, resize_bilinear, resize_nearest
from bench.metrics.pixels import gather

NAMES = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


def aupro_by_definition(maps: Any, masks: Any, limit: float = 0.3) -> float:
    """Follow the definition: one threshold after another, one region after another, in exact arithmetic."""
    regions = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [scores[labels == region] for region in range(1, number + 1)]
    normal = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    curve = [(Fraction(0), Fraction(0))]
    for threshold in np.unique(np.concatenate([scores.ravel() for scores in maps]))[::-1]:
        false = Fraction(int((normal >= threshold).sum()), normal.size)
        found = [Fraction(int((region >= threshold).sum()), region.size) for region in regions]
        curve.append((false, sum(found, Fraction(0)) / len(regions)))
    end, area = Fraction(limit), Fraction(0)
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x1 > end:
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return float(area / end)


def by_others(maps: Any, masks: Any) -> dict[str, float]:
    """Return the three threshold metrics by scikit-learn and AUPRO by definition."""
    labels = np.concatenate([mask.ravel() for mask in masks])
    scores = np.concatenate([scores.ravel() for scores in maps]).astype(np.float64)
    precision, recall, _ = precision_recall_curve(labels, scores)
    both = precision + recall
    return {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "pixel_ap": float(average_precision_score(labels, scores)),
        "pixel_f1max": float((2 * precision * recall / np.where(both > 0, both, 1)).max()),
        "aupro": aupro_by_definition(maps, masks),
    }


def aupro_by_anomalib(maps: NDArray[np.float32], masks: NDArray[np.bool_], limit: float) -> float:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    # Scores in [0, 1], so that no version's activation can touch them.
    assert maps.min() >= 0
    assert maps.max() <= 1
    metric = _AUPRO(fpr_limit=limit)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64)))
    return float(metric.compute())


def blobs(seed: int, number: int = 8, side: int = 48) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return smooth maps in [0, 1] that know something of their masks, which have several regions or none."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((number, side, side)), (0, 4, 4))
    masks = smooth > np.quantile(smooth, 0.96)
    masks[0] = False
    maps = ndimage.gaussian_filter(0.2 * masks + rng.random(masks.shape), (0, 1, 1))
    return np.clip(maps / maps.max(), 0, 1).astype(np.float32), masks


@st.composite
def categories(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Draw small maps with heavy ties and masks of any form: single pixels and touched borders abound."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7)))
    values = st.integers(-3, 3).map(lambda value: value / 4)
    maps = draw(hnp.arrays(np.float32, shape, elements=values))
    masks = draw(hnp.arrays(np.bool_, shape))
    assume(masks.any() and not masks.all())
    return maps, masks


@given(categories())
@settings(deadline=None)
def test_agrees_with_the_definitions_under_heavy_ties(
    case: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    maps, masks = case
    assert pixel_metrics(maps, masks, eval_size=None) == pytest.approx(by_others(maps, masks), abs=1e-12)


@given(categories(), st.floats(0.01, 1.0))
@settings(deadline=None)
def test_any_limit(case: tuple[NDArray[np.float32], NDArray[np.bool_]], limit: float) -> None:
    maps, masks = case
    found = pixel_metrics(maps, masks, eval_size=None, fpr_limit=limit)["aupro"]
    assert found == pytest.approx(aupro_by_definition(maps, masks, limit), abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 12])
def test_aupro_agrees_with_anomalib(limit: float, levels: int | None) -> None:
    maps, masks = blobs(3)
    if levels:
        maps = np.round(maps * levels) / np.float32(levels)
    found = pixel_metrics(maps, masks, eval_size=None, fpr_limit=limit)["aupro"]
    assert found == pytest.approx(aupro_by_anomalib(maps, masks, limit), abs=1e-6)
    # Neither nothing nor everything is found, and regions matter: agreement is no accident.
    auroc = pixel_metrics(maps, masks, eval_size=None)["pixel_auroc"]
    assert auroc is not None
    assert 0.6 < auroc < 0.95
    assert found != pytest.approx(auroc, abs=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_the_definitions_on_smooth_maps(seed: int) -> None:
    maps, masks = blobs(seed, number=5, side=32)
    assert pixel_metrics(maps, masks, eval_size=None) == pytest.approx(by_others(maps, masks), abs=1e-12)


@given(categories())
@settings(deadline=None)
def test_increasing_maps_of_the_scores_change_nothing(
    case: tuple[NDArray[np.float32], NDArray[np.bool_]],
) -> None:
    maps, masks = case
    expected = pixel_metrics(maps, masks, eval_size=None)
    for moved in (1000 * maps + 3, np.exp(9 * maps), 1 / (1 + np.exp(-maps)), maps**3 - 1e-3):
        assert pixel_metrics(moved, masks, eval_size=None) == expected


@given(categories(), st.data())
@settings(deadline=None)
def test_order_of_images_does_not_matter(
    case: tuple[NDArray[np.float32], NDArray[np.bool_]], data: st.DataObject
) -> None:
    maps, masks = case
    order = data.draw(st.permutations(range(len(maps))))
    found = pixel_metrics(maps[order], masks[order], eval_size=None)
    assert found == pytest.approx(pixel_metrics(maps, masks, eval_size=None), abs=1e-14)


@given(categories())
@settings(deadline=None)
def test_negated_scores_complement_auroc(case: tuple[NDArray[np.float32], NDArray[np.bool_]]) -> None:
    maps, masks = case
    forward = pixel_metrics(maps, masks, eval_size=None)["pixel_auroc"]
    backward = pixel_metrics(-maps, masks, eval_size=None)["pixel_auroc"]
    assert forward is not None
    assert backward is not None
    assert forward + backward == pytest.approx(1, abs=1e-15)


@given(categories())
@settings(deadline=None)
def test_inverting_the_masks_complements_auroc(case: tuple[NDArray[np.float32], NDArray[np.bool_]]) -> None:
    maps, masks = case
    forward = pixel_metrics(maps, masks, eval_size=None)["pixel_auroc"]
    backward = pixel_metrics(maps, ~masks, eval_size=None)["pixel_auroc"]
    assert forward is not None
    assert backward is not None
    assert forward + backward == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("threads", [2, 3])
def test_number_of_threads_and_chunks_does_not_matter(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = blobs(5)
    maps = np.round(maps * 200) / np.float32(200)
    whole = exact.rank(gather(maps, masks, eval_size=None, threads=1))
    monkeypatch.setattr(pixels, "_LARGE", 1)
    assert exact.rank(gather(maps, masks, eval_size=None, threads=threads)) == whole
    # Small stretches: groups of ties are cut, and lookups start within them.
    monkeypatch.setattr(exact, "_CHUNK", 37)
    monkeypatch.setattr(ranks, "_LOOKUP", 5)
    metrics, counts = exact.rank(gather(maps, masks, eval_size=None, threads=threads))
    assert metrics == pytest.approx(whole[0], abs=1e-13)
    assert counts == whole[1]


def test_more_threads_than_normal_pixels() -> None:
    maps, masks = np.array([[[0.1, 0.9]]]), np.array([[[False, True]]])
    metrics, _ = exact.rank(gather(maps, masks, eval_size=None, threads=4))
    assert metrics == dict.fromkeys(NAMES, 1.0)


def test_all_equal_scores_follow_the_definitions() -> None:
    masks = np.zeros((2, 10, 10), dtype=bool)
    masks[0, :2] = True
    found = pixel_metrics(np.full(masks.shape, 0.7), masks, eval_size=None)
    # The overlap curve is the diagonal, whose area up to the limit is limit / 2 after division by the limit.
    expected = {"pixel_auroc": 0.5, "pixel_ap": 0.1, "pixel_f1max": 2 * 0.1 / 1.1, "aupro": 0.15}
    assert found == pytest.approx(expected, abs=1e-14)


def test_zero_and_negative_zero_tie() -> None:
    masks = np.array([[[True, False]]])
    for scores in ([0.0, -0.0], [-0.0, 0.0]):
        assert pixel_metrics(np.array([[scores]]), masks, eval_size=None)["pixel_auroc"] == 0.5
    both = pixel_metrics(np.array([[[0.0, -0.0, 0.0]]]), np.array([[[True, True, False]]]), eval_size=None)
    assert both["pixel_ap"] == pytest.approx(2 / 3, abs=1e-15)


def test_float16_input() -> None:
    maps, masks = blobs(7, number=4, side=24)
    half = maps.astype(np.float16)
    expected = by_others(half.astype(np.float32), masks)
    assert pixel_metrics(half, masks, eval_size=None) == pytest.approx(expected, abs=1e-12)
    assert pixel_metrics(maps, masks, eval_size=None) != pytest.approx(expected, abs=1e-12)


def test_regions_weigh_the_same_whatever_their_size() -> None:
    mask = np.zeros((1, 20, 20), dtype=bool)
    mask[0, :10, :10] = True
    mask[0, 15, 15] = True
    scores = np.zeros(mask.shape)
    scores[0, 15, 15] = 1.0  # only the one-pixel region is found
    found = pixel_metrics(scores, mask, eval_size=None)
    # The other region comes with the ties at zero: a ramp from 0.5 to 1 over the whole of the FPR axis.
    assert found["aupro"] == pytest.approx(0.5 + 0.5 * 0.15, abs=1e-14)


def test_corners_join_regions() -> None:
    mask = np.zeros((1, 8, 8), dtype=bool)
    mask[0, 2, 2:5] = mask[0, 3, 5] = True
    scores = np.where(mask, 0.5, 0.0)
    scores[0, 3, 5] = 0.0
    # One region of four pixels, three of them found; as two regions it would be one found of two.
    found = pixel_metrics(scores, mask, eval_size=None)
    assert found["aupro"] == pytest.approx(0.75 + 0.25 * 0.15, abs=1e-14)


def test_images_of_different_sizes() -> None:
    rng = np.random.default_rng(11)
    sizes = [(12, 30), (25, 7), (16, 16)]
    masks = [rng.random(size) < 0.2 for size in sizes]
    masks[1][:] = False
    low = [rng.random((3, 5)), rng.random((25, 7)), rng.random((40, 9))]
    own = [resize_bilinear(scores.astype(np.float32), size) for scores, size in zip(low, sizes, strict=True)]
    assert pixel_metrics(low, masks, eval_size=None) == pytest.approx(by_others(own, masks), abs=1e-12)
    grid = (20, 14)
    onto = [resize_bilinear(scores.astype(np.float32), grid) for scores in low]
    small = [resize_nearest(mask, grid) for mask in masks]
    assert pixel_metrics(low, masks, eval_size=grid) == pytest.approx(by_others(onto, small), abs=1e-12)
    assert pixel_metrics(low, masks, eval_size=18) == pixel_metrics(low, masks, eval_size=(18, 18))


def test_grey_masks_are_anomalous_above_zero() -> None:
    maps, masks = blobs(2, number=3, side=16)
    grey = masks * np.uint8(255)
    grey[masks & (maps > np.median(maps[masks]))] = 3
    assert pixel_metrics(maps, grey, eval_size=None) == pixel_metrics(maps, masks, eval_size=None)


@pytest.mark.parametrize("value", [False, True])
def test_one_class_gives_none(value: bool) -> None:
    maps = np.random.default_rng(0).random((2, 4, 4))
    assert pixel_metrics(maps, np.full(maps.shape, value), eval_size=None) == dict.fromkeys(NAMES)


def test_bad_input_is_refused() -> None:
    maps, masks = blobs(0, number=2, side=16)
    with pytest.raises(ValueError, match="2 maps and 1 masks"):
        pixel_metrics(maps, masks[:1], eval_size=None)
    with pytest.raises(ValueError, match="at least one"):
        pixel_metrics([], [], eval_size=None)
    with pytest.raises(ValueError, match="map 0 must be two-dimensional"):
        pixel_metrics(np.stack([maps, maps], 1), masks, eval_size=None)
    with pytest.raises(ValueError, match="mask 0 must be two-dimensional"):
        pixel_metrics(maps, np.stack([masks, masks], 1), eval_size=None)
    with pytest.raises(ValueError, match="map 0 must hold real numbers, not complex64"):
        pixel_metrics(maps * 1j, masks, eval_size=None)
    with pytest.raises(ValueError, match="mask 0 must hold real numbers, not <U5"):
        pixel_metrics(maps, masks.astype("U5"), eval_size=None)
    for limit in (0.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="limit"):
            pixel_metrics(maps, masks, eval_size=None, fpr_limit=limit)
    for bad in (np.nan, np.inf, -np.inf):
        broken = maps.astype(np.float64)
        broken[1, 3, 3] = bad
        with pytest.raises(ValueError, match="map 1 holds scores that are not finite"):
            # A grid that the bad pixel does not fall on must not hide it.
            pixel_metrics(broken, masks, eval_size=2)


@pytest.mark.parametrize("side", [16, 256])
def test_peak_memory(side: int) -> None:
    rng = np.random.default_rng(0)
    masks = np.zeros((32, 256, 256), dtype=bool)
    masks[:16, 40:100, 60:120] = True
    maps = rng.random((32, side, side), dtype=np.float32)
    full = masks.size * 4
    # Imports and cached weights are not the engine's memory.
    pixel_metrics(maps[:2], masks[:2], eval_size=None)
    tracemalloc.start()
    pixel_metrics(maps, masks, eval_size=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Full-size maps, were they given as such, count too.
    assert peak + full <= 3 * full


def test_arrays_of_the_caller_are_left_alone() -> None:
    maps, masks = blobs(4, number=3, side=16)
    maps_before, masks_before = maps.copy(), masks.copy()
    pixel_metrics(maps, masks, eval_size=None)
    np.testing.assert_array_equal(maps, maps_before)
    np.testing.assert_array_equal(masks, masks_before)
