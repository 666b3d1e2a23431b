"""Named metric protocols against their definitions, written out threshold by threshold and region by region."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from bench.errors import BenchError
from bench.metrics import Evaluation, evaluate, resize_bilinear
from bench.metrics.measurement import evaluate_under
from bench.metrics.prepare import Kept, image_score, prepare, resize_mask
from bench.metrics.protocols import METRIC_PROTOCOLS, MetricProtocol, describe, resolve
from bench.metrics.registry import IMAGE_METRICS, PIXEL_METRICS

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
SQUARE = np.ones((3, 3))
NUMBER, SIDE = 10, 40
NAMES = [*IMAGE_METRICS, *PIXEL_METRICS]


def category(seed: int = 0, strength: float = 0.5) -> tuple[Maps, Masks]:
    """Return maps that find the defects in part, and masks with several regions, one with a hole."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((NUMBER, SIDE, SIDE)), (0, 3, 3))
    masks = smooth > np.quantile(smooth, 0.95)
    masks[:3] = False
    masks[3, 4:15, 5:17] = True
    masks[3, 7:12, 8:13] = False
    maps = ndimage.gaussian_filter(strength * masks + rng.random(masks.shape), (0, 1, 1))
    return maps.astype(np.float32), masks


def measured(protocol: str | MetricProtocol, maps: Any, masks: Any, **others: Any) -> Evaluation:
    chosen = resolve(protocol) if isinstance(protocol, str) else protocol
    labels = np.array([mask.any() for mask in masks])
    scores = None if maps is None else np.array([np.max(each) for each in maps])
    return evaluate_under(
        chosen, **{"labels": labels, "image_scores": scores, "maps": maps, "masks": masks, **others}
    )


def overlaps(maps: Maps, masks: Masks, threshold: float, *, fill: bool = False) -> float:
    """Mean over all regions of the share of each that is above the threshold."""
    shares = []
    for scores, mask in zip(maps, masks, strict=True):
        labels, number = ndimage.label(mask, structure=SQUARE)
        for region in range(1, number + 1):
            own = labels == region
            inside = ndimage.binary_fill_holes(own, structure=SQUARE) if fill else own
            shares.append((scores[inside] > threshold).sum() / own.sum())
    return float(np.mean(shares))


def false_rate(maps: Maps, masks: Masks, threshold: float) -> float:
    return float((maps[~masks] > threshold).mean())


# ------------------------------------------------------------ each definition by itself


@pytest.mark.parametrize("power", [1, 9])
def test_grid200(power: int) -> None:
    maps, masks = category()
    maps = maps**power
    low, high = maps.min(), maps.max()
    points = []
    for threshold in np.arange(low, high, (high - low) / 200):
        rate = false_rate(maps, masks, threshold)
        if rate < 0.3:
            points.append((rate, overlaps(maps, masks, threshold)))
    rates, pros = np.array(points).T
    expected = auc((rates - rates.min()) / (rates.max() - rates.min()), pros)
    found = measured("grid200[eval_size=own]", maps, masks).metrics
    assert found["aupro"] == pytest.approx(expected, abs=1e-12)
    # The other pixel metrics are exact ones.
    labels, scores = masks.ravel(), maps.ravel()
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_winclip_cy() -> None:
    maps, masks = category()
    low, high = maps.min(), maps.max()
    points = []
    for step in range(200):
        threshold = high - np.float32(step) * ((high - low) / np.float32(200))
        rate = false_rate(maps, masks, threshold)
        if rate <= 0.3:
            points.append((rate, overlaps(maps, masks, threshold, fill=True)))
    rates, pros = np.array(points).T
    expected = auc((rates - rates.min()) / (rates.max() - rates.min()), pros)
    found = measured("winclip-cy[eval_size=own]", maps, masks)
    assert found.metrics["aupro"] == pytest.approx(expected, abs=1e-12)
    precision, recall, _ = precision_recall_curve(masks.ravel(), maps.ravel())
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-30))
    assert found.metrics["pixel_f1max"] == pytest.approx(best, abs=1e-12)
    assert found.metrics["image_ap"] is None
    assert found.metrics["pixel_ap"] is None
    assert set(found.reasons.values()) == {"winclip-cy[eval_size=own] does not have it"}


def test_holes_can_take_winclip_cys_overlap_beyond_one() -> None:
    mask = np.zeros((1, 30, 30), dtype=bool)
    mask[0, 5:20, 5:20] = True
    mask[0, 6:19, 6:19] = False  # a frame of 56 pixels around a hole of 169
    maps = np.zeros(mask.shape)
    maps[0, 5:20, 5:20] = 1.0
    maps[0, 29] = np.linspace(0, 0.9, 30)
    maps[0, 6:10, 6:10] = 0.95
    found = measured("winclip-cy[eval_size=own]", maps, mask).metrics["aupro"]
    assert found is not None
    assert found > 1.5
    # Without a hole all of the region is found before anything else is.
    mask[0, 5:20, 5:20] = True
    assert measured("winclip-cy[eval_size=own]", maps, mask).metrics["aupro"] == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("levels", [None, 30])
def test_openiad(levels: int | None) -> None:
    maps, masks = category()
    if levels:
        maps = np.round(maps * levels).astype(np.float32)
    normal = np.sort(maps[~masks])
    points = [(1.0, 1.0)]
    for position in np.linspace(0, len(normal) - 1, num=100, dtype=int):
        points.append((1 - (position + 1) / len(normal), overlaps(maps, masks, normal[position])))
    rates, pros = np.array(points[::-1]).T
    # Densely interpolated, so that the end needs no care.
    grid = np.union1d(np.linspace(0, 0.3, 200_001), rates[rates < 0.3])
    expected = np.trapezoid(np.interp(grid, rates, pros), grid) / 0.3
    found = measured("openiad[eval_size=own,sigma=0]", maps, masks).metrics
    assert found["aupro"] == pytest.approx(expected, abs=1e-9)
    assert found["pixel_f1max"] is None
    assert found["image_f1max"] is None
    assert found["pixel_ap"] is not None


def test_ader50() -> None:
    maps, masks = category()
    low, high = float(maps.min()), float(maps.max())
    where = np.floor((maps.astype(np.float64) - low) * 50 / (high - low)).astype(int)
    where = np.minimum(where, 49)
    weights = np.zeros(masks.shape)
    for i, mask in enumerate(masks):
        labels, number = ndimage.label(mask, structure=SQUARE)
        for region in range(1, number + 1):
            weights[i][labels == region] = 1 / (labels == region).sum()

    def above(chosen: Masks, weight: Any = None) -> NDArray[np.float64]:
        """Counts at and above each border; the highest score counts in the last bin and once more."""
        weight = np.ones(maps.shape) if weight is None else weight
        top = weight[chosen & (maps == maps.max())].sum()
        inner = [weight[chosen & (where >= k)].sum() + top for k in range(50)]
        return np.array([*inner, top])[::-1]

    true, false, pro = above(masks), above(~masks), above(masks, weights)
    recall, rate, pro = true / true[-1], false / false[-1], pro / pro[-1]
    stretched = (maps.astype(np.float64) - low) / (high - low)
    f1 = []
    for threshold in np.arange(0, 1 + 1e-3, 0.05):
        hit, shown = (masks & (stretched > threshold)).sum(), (stretched > threshold).sum()
        f1.append(2 * hit / (shown + masks.sum()))
    grid = np.union1d(np.linspace(rate[0], 0.3, 200_001), rate[rate < 0.3])
    expected = {
        "pixel_auroc": np.trapezoid(recall, rate),
        "pixel_ap": np.trapezoid(true / (true + false), recall),
        "pixel_f1max": max(f1),
        "aupro": np.trapezoid(np.interp(grid, rate, pro), grid) / 0.3,
    }
    found = measured("ader50[eval_size=own,sigma=0]", maps, masks).metrics
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-7)


def test_ader50_takes_image_scores_and_labels_from_maps_and_masks() -> None:
    import torch

    maps, masks = category()
    masks[4] = False
    masks[4, 20, 20] = True  # vanishes where masks are averaged down to half
    protocol = resolve("ader50[eval_size=20,sigma=0]")
    ready, truth = prepare(maps, masks, protocol)
    pooled = torch.nn.functional.avg_pool2d(torch.from_numpy(np.stack(list(ready)))[:, None], 16, stride=1)
    scores = pooled.amax((1, 2, 3)).numpy()
    labels = np.array([mask.any() for mask in truth])
    assert labels.sum() == 6
    found = measured(protocol, maps, masks, image_scores=np.arange(NUMBER)).metrics
    assert found["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_devnet_perimage() -> None:
    maps, masks = category()
    maps += np.arange(NUMBER, dtype=np.float32)[:, None, None]  # must not matter: images are not compared
    expected = np.mean([roc_auc_score(m.ravel(), s.ravel()) for s, m in zip(maps[3:], masks[3:], strict=True)])
    found = measured("devnet-perimage[eval_size=own,sigma=0]", maps, masks)
    assert found.metrics["pixel_auroc"] == pytest.approx(expected, abs=1e-12)
    pooled = evaluate(labels=masks.any((1, 2)), image_scores=None, maps=maps, masks=masks, eval_size=None)
    assert abs(expected - (pooled.metrics["pixel_auroc"] or 0)) > 0.05
    assert [name for name in NAMES if found.metrics[name] is not None] == [
        "image_auroc",
        "image_ap",
        "pixel_auroc",
    ]
    masks[5] = True
    found = measured("devnet-perimage[eval_size=own]", maps, masks)
    assert found.reasons["pixel_auroc"] == "anomalous image 5 has no normal pixel"


def test_exact_is_the_engine() -> None:
    maps, masks = category()
    labels, scores = masks.any((1, 2)), maps.max((1, 2))
    engine = evaluate(labels=labels, image_scores=scores, maps=maps, masks=masks, eval_size=256)
    assert measured("exact", maps, masks) == engine
    assert measured("exact[eval_size=64]", maps, masks) == evaluate(
        labels=labels, image_scores=scores, maps=maps, masks=masks, eval_size=64
    )


# ------------------------------------------------------------ the finding that the protocols stand for


def test_only_exact_survives_a_rescaling_that_leaves_the_ranking_as_it_is() -> None:
    maps, masks = category(1, strength=0.2)
    wide = maps.astype(np.float64)
    centre = float(np.quantile(wide, 0.9))
    scaled = {
        "as they are": wide,
        "linear": 7 * wide + 3,
        "sigmoid": 1 / (1 + np.exp(-30 * (wide - centre))),
        "exponential": np.exp(20 * (wide - centre)),
    }
    names = {"exact": "exact", "grid200": "grid200", "ader50": "ader50[sigma=0]", "openiad": "openiad[sigma=0]"}
    aupro, auroc = {}, {}
    for name, spec in names.items():
        found = {
            how: measured(resolve(spec, "own"), scores.astype(np.float32), masks).metrics
            for how, scores in scaled.items()
        }
        aupro[name] = {how: metrics["aupro"] or 0.0 for how, metrics in found.items()}
        auroc[name] = {how: metrics["pixel_auroc"] or 0.0 for how, metrics in found.items()}
        row = "  ".join(f"{how} {aupro[name][how]:.4f} / {auroc[name][how]:.4f}" for how in scaled)
        print(f"AUPRO / pixel AUROC, {name}: {row}")

    def spread(values: dict[str, float]) -> float:
        return max(values.values()) - min(values.values())

    # Rounding to float32 ties a few scores.
    assert spread(aupro["exact"]) < 1e-4
    assert spread(auroc["exact"]) < 1e-4
    assert spread(aupro["openiad"]) < 1e-3  # its thresholds are ranks
    assert spread(aupro["grid200"]) > 0.1
    assert spread(aupro["ader50"]) > 0.1
    assert spread(auroc["ader50"]) > 0.1
    assert spread(auroc["grid200"]) < 1e-4
    assert abs(aupro["grid200"]["sigmoid"] - aupro["grid200"]["as they are"]) > 1e-3
    assert abs(auroc["ader50"]["sigmoid"] - auroc["ader50"]["as they are"]) > 1e-3
    # A linear map moves thresholds along with the scores.
    for name in names:
        assert aupro[name]["linear"] == pytest.approx(aupro[name]["as they are"], abs=2e-3)


def test_a_grid_that_misses_the_limit_gives_no_number() -> None:
    maps, masks = category()
    maps[0, 0, 0] = 1e6  # all thresholds but the first lie far above the other scores
    found = measured("grid200[eval_size=own]", maps, masks)
    assert found.metrics["aupro"] is None
    assert "fewer than two false positive rates" in found.reasons["aupro"]
    assert found.metrics["pixel_auroc"] is not None
    maps[0, 0, 0] = maps[1:].min()
    top = maps > np.quantile(maps, 0.5)
    found = measured("ader50[eval_size=own,sigma=0]", np.where(top, 1.0, maps), masks)
    assert "30% of the normal pixels have the highest score" in found.reasons["aupro"]


# ------------------------------------------------------------ masks, maps, smoothing


@pytest.mark.parametrize("shape", [(64, 64), (37, 91), (300, 200)])
@pytest.mark.parametrize("side", [32, 100])
def test_masks_are_resized_as_by_torchvision(shape: tuple[int, int], side: int) -> None:
    from PIL import Image
    from torchvision import transforms

    mask = np.random.default_rng(0).random(shape) < 0.4
    change = transforms.Compose([transforms.Resize((side, side)), transforms.ToTensor()])
    expected = change(Image.fromarray(mask.astype(np.uint8) * 255, mode="L"))[0].numpy() > 0.5
    found = resize_mask(mask, (side, side), "antialias")
    np.testing.assert_array_equal(found, expected)
    assert found.any()
    assert not found.all()


@pytest.mark.parametrize("shape", [(64, 64), (37, 91), (900, 1024), (1300, 700)])
def test_masks_are_resized_as_by_opencv(shape: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    mask = ndimage.binary_dilation(np.random.default_rng(0).random(shape) < 0.002, iterations=3)
    grey = mask.astype(np.uint8) * 255
    large = cv2.resize(grey, (1024, 1024), interpolation=cv2.INTER_NEAREST)
    expected = cv2.resize(large, (400, 400), interpolation=cv2.INTER_NEAREST) > 0
    np.testing.assert_array_equal(resize_mask(mask, (400, 400), "nearest-1024"), expected)
    found = resize_mask(mask, (448, 448), "any")
    # OpenCV computes with weights of 11 bits: where they round to none, a pixel may differ.
    assert (found != (cv2.resize(grey, (448, 448)) > 0)).mean() < 1e-3


def test_maps_are_enlarged_and_then_smoothed() -> None:
    maps, masks = category()
    low = maps[:, ::4, ::4]
    protocol = resolve("openiad[eval_size=48]")
    ready, _ = prepare(low, masks, protocol)
    expected = ndimage.gaussian_filter(resize_bilinear(low[2], 48), sigma=4)
    np.testing.assert_array_equal(ready[2], expected)
    found = measured(protocol, low, masks).metrics
    assert found != measured("openiad[eval_size=48,sigma=0]", low, masks).metrics


def test_masks_are_read_once_as_far_as_there_is_room() -> None:
    _, masks = category()
    reads: list[int] = []

    def read(index: int) -> Masks:
        reads.append(index)
        return masks[index][:, : SIDE - 3]

    kept = Kept(read, NUMBER, room=6 * -(-SIDE * (SIDE - 3) // 8))
    for _ in range(2):
        for index in range(NUMBER):
            np.testing.assert_array_equal(kept[index], masks[index][:, : SIDE - 3])
    assert reads == [*range(NUMBER), *range(6, NUMBER)]
    assert kept.sizes == {(SIDE, SIDE - 3)}


@pytest.mark.parametrize("pool", [0, 3, 16, 99])
def test_image_score(pool: int) -> None:
    scores = np.random.default_rng(0).normal(size=(20, 31)).astype(np.float32)
    height, width = min(pool, 20) or 1, min(pool, 31) or 1
    windows = np.lib.stride_tricks.sliding_window_view(scores, (height, width))
    assert image_score(scores, pool) == pytest.approx(windows.mean(axis=(2, 3), dtype=float).max(), abs=1e-7)


# ------------------------------------------------------------ what is refused, and how it is said


@pytest.mark.parametrize("name", METRIC_PROTOCOLS)
def test_guards(name: str) -> None:
    maps, masks = category()
    own = f"{name}[eval_size=own]"
    for broken, reason in (
        (np.where(np.arange(NUMBER)[:, None, None] == 4, np.nan, maps), "non-finite maps"),
        (np.ones_like(maps), "constant maps"),
    ):
        found = measured(own, broken, masks)
        assert found.metrics["pixel_auroc"] is None
        assert reason in found.reasons["pixel_auroc"]
        assert any(reason in problem for problem in found.problems)
    found = measured(own, maps, np.zeros_like(masks))
    assert found.metrics["pixel_auroc"] is None
    assert "one class only" in found.reasons["pixel_auroc"]
    found = measured(own, None, masks, image_scores=np.arange(NUMBER))
    assert found.reasons["pixel_auroc"] == "the method gives no maps"
    assert set(found.metrics) == set(NAMES)
    assert set(found.reasons) == {metric for metric, value in found.metrics.items() if value is None}
    with pytest.raises(ValueError, match="labelled normal"):
        measured(own, maps, masks, labels=np.arange(NUMBER) < 2)
    with pytest.raises(ValueError, match="numbers must agree"):
        measured(own, maps[:3], masks, image_scores=np.arange(NUMBER))


def test_every_protocol_names_its_source_and_what_differs() -> None:
    for protocol in METRIC_PROTOCOLS.values():
        assert protocol.sources
        assert len(describe(protocol)) > 40
        if protocol.name != "exact":
            # repository and path
            assert all(re.match(r"[\w.-]+/[\w.-]+ [\w/]+\.py", source) for source in protocol.sources)


def test_names_and_options() -> None:
    assert resolve("grid200") is METRIC_PROTOCOLS["grid200"]
    assert resolve("exact", 256) == METRIC_PROTOCOLS["exact"]
    changed = resolve("grid200[sigma=4]", 224)
    assert (changed.name, changed.sigma, changed.eval_size) == ("grid200[eval_size=224,sigma=4]", 4.0, 224)
    assert resolve("grid200[eval_size=own]", 224).eval_size is None
    for text, message in (
        ("grid2000", "Did you mean 'grid200'"),
        ("grid200[sigam=4]", "Did you mean 'sigma'"),
        ("grid200[sigma=-1]", "number of pixels"),
        ("grid200[eval_size=0]", "number of pixels or own"),
        ("grid200[mask_resize=cubic]", "choose one of"),
        ("exact[sigma=4]", "smooths nothing"),
    ):
        with pytest.raises(BenchError, match=re.escape(message)):
            resolve(text)


def test_aupimo_is_anomalibs() -> None:
    import torch
    from anomalib.metrics.pimo.pimo import _AUPIMO

    from bench.metrics.pimo import aupimo

    rng = np.random.default_rng(0)
    masks = np.zeros((6, 256, 256), dtype=bool)
    masks[4:, 50:90, 50:90] = True
    maps = (rng.normal(size=masks.shape) + 3.5 * masks).astype(np.float32)
    metric = _AUPIMO()
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64)))
    value, reason = aupimo(maps, masks, resolve("exact"))
    assert reason is None
    assert value == pytest.approx(float(metric.compute()), abs=1e-12)  # type: ignore[arg-type]
    assert 0.1 < value < 0.99
    # Too few normal pixels for rates of 1e-5: no number rather than a bad one.
    value, reason = aupimo(maps[:, :32, :32], masks[:, 40:72, 40:72], resolve("exact[eval_size=own]"))
    assert value is None
    assert reason == "the normal images' 4096 pixels are too few for false positive rates of 1e-05"
    # As many, but so many of them tied at the top that no threshold gives such a rate.
    value, reason = aupimo(np.minimum(maps, 1), masks, resolve("exact"))
    assert value is None
    assert reason is not None
    assert "anomalib" in reason
