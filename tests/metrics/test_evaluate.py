"""The evaluation of a category: which metrics exist, why others do not, and what the guards find."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from bench.metrics import Evaluation, binary_metrics, evaluate, pixel_metrics

IMAGE = {"image_auroc", "image_ap", "image_f1max", "image_fpr95"}
PIXEL = {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"}
NUMBER, SIDE = 12, 32


@pytest.fixture
def category() -> dict[str, Any]:
    """Return a sound category: six anomalous images with a defect each, six normal, low maps."""
    rng = np.random.default_rng(0)
    labels = np.arange(NUMBER) < NUMBER // 2
    masks = np.zeros((NUMBER, SIDE, SIDE), dtype=bool)
    masks[labels, 4:12, 8:20] = True
    maps = rng.random((NUMBER, 8, 8)) + 0.5 * masks[:, 2::4, 2::4]
    return {"labels": labels, "image_scores": rng.random(NUMBER) + labels * 0.4, "maps": maps, "masks": masks}


def check(found: Evaluation) -> Evaluation:
    """Check what must hold of every evaluation."""
    assert set(found.metrics) == IMAGE | PIXEL
    assert set(found.reasons) == {name for name, value in found.metrics.items() if value is None}
    assert all(value is None or 0 <= value <= 1 for value in found.metrics.values())
    assert all(found.reasons.values())
    json.dumps([found.metrics, found.reasons, found.problems], allow_nan=False)
    return found


def test_sound_scores(category: dict[str, Any]) -> None:
    found = check(evaluate(**category, eval_size=64))
    image = binary_metrics(category["image_scores"], category["labels"])
    pixel = pixel_metrics(category["maps"], category["masks"], eval_size=64)
    assert found.metrics == {f"image_{name}": value for name, value in image.items()} | pixel
    assert found.reasons == {}
    assert found.problems == []


def test_default_grid_is_the_masks_own_and_limit_is_used(category: dict[str, Any]) -> None:
    assert evaluate(**category) == evaluate(**category, eval_size=SIDE)
    assert evaluate(**category) != evaluate(**category, eval_size=16)
    narrow = pixel_metrics(category["maps"], category["masks"], eval_size=16, fpr_limit=0.05)
    assert evaluate(**category, eval_size=16, fpr_limit=0.05).metrics["aupro"] == narrow["aupro"]


@pytest.mark.parametrize(
    ("missing", "names", "reason"),
    [
        ("maps", PIXEL, "the method gives no maps"),
        ("masks", PIXEL, "the dataset gives no masks"),
        ("image_scores", IMAGE, "the method gives no image scores"),
    ],
)
def test_what_is_not_there_is_no_problem(
    category: dict[str, Any], missing: str, names: set[str], reason: str
) -> None:
    found = check(evaluate(**{**category, missing: None}, eval_size=None))
    assert found.reasons == dict.fromkeys(names, reason)
    assert found.problems == []


@pytest.mark.parametrize(("label", "lacking"), [(0, "anomalous"), (1, "normal")])
def test_one_class_only(category: dict[str, Any], label: int, lacking: str) -> None:
    category |= {"labels": np.full(NUMBER, label), "masks": np.full_like(category["masks"], bool(label))}
    found = check(evaluate(**category, eval_size=None))
    reasons = {"image": f"one class only: no {lacking} image", "pixel": f"one class only: no {lacking} pixel"}
    assert found.reasons == dict.fromkeys(IMAGE, reasons["image"]) | dict.fromkeys(PIXEL, reasons["pixel"])
    assert found.problems == list(reasons.values())


def test_all_images_anomalous_still_gives_pixel_metrics(category: dict[str, Any]) -> None:
    half = {name: values[: NUMBER // 2] for name, values in category.items()}
    found = check(evaluate(**half, eval_size=None))
    assert set(found.reasons) == IMAGE
    assert found.metrics["aupro"] is not None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_image_scores(category: dict[str, Any], bad: float) -> None:
    category["image_scores"][[4, 7]] = bad
    found = check(evaluate(**category, eval_size=None))
    assert found.problems == ["non-finite image scores: 2 of 12, the first at index 4"]
    assert found.reasons == dict.fromkeys(IMAGE, found.problems[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_non_finite_maps(category: dict[str, Any], bad: float) -> None:
    category["maps"][5, 0, 0] = bad
    # On a coarse grid the pixel is not even sampled.
    for size in (None, 2):
        found = check(evaluate(**category, eval_size=size))
        assert found.problems == ["non-finite maps: 1 of 12, the first at index 5"]
        assert found.reasons == dict.fromkeys(PIXEL, found.problems[0])


def test_spans_that_overflow_are_not_finite(category: dict[str, Any]) -> None:
    category["maps"][2, 0, :2] = [1.5e308, -1.5e308]
    assert check(evaluate(**category)).problems == ["non-finite maps: 1 of 12, the first at index 2"]
    category["maps"][2, 0, :2] = [3e38, -3e38]
    assert check(evaluate(**category)).problems == []
    category["maps"] = category["maps"].astype(np.float32)
    assert check(evaluate(**category)).problems == ["non-finite maps: 1 of 12, the first at index 2"]


def test_constant_image_scores(category: dict[str, Any]) -> None:
    found = check(evaluate(**{**category, "image_scores": np.full(NUMBER, 0.25)}, eval_size=None))
    assert found.problems == ["constant image scores: all 12 equal 0.25"]
    assert found.reasons == dict.fromkeys(IMAGE, found.problems[0])


def test_constant_maps(category: dict[str, Any]) -> None:
    # 0.3 is not exact in binary, and resizing must not make noise of it.
    found = check(evaluate(**{**category, "maps": np.full((NUMBER, 7, 7), 0.3)}))
    assert found.problems == ["constant maps: every pixel of all 12 maps equals 0.3"]
    assert found.reasons == dict.fromkeys(PIXEL, found.problems[0])


def test_maps_each_constant(category: dict[str, Any]) -> None:
    for values in (np.linspace(0, 1, NUMBER), category["labels"]):
        flat = np.broadcast_to(values[:, None, None], (NUMBER, 7, 7))
        found = check(evaluate(**{**category, "maps": flat}))
        assert found.problems == ["constant maps: each of the 12 maps is one value throughout"]
        assert found.reasons == {}


def test_some_flat_maps_are_legitimate(category: dict[str, Any]) -> None:
    category["maps"][: NUMBER - 1] = 0
    assert check(evaluate(**category)).problems == []


def test_zero_background_of_maps_is_legitimate(category: dict[str, Any]) -> None:
    category["maps"] = np.maximum(category["maps"] - 0.9, 0)
    assert (category["maps"] == 0).mean() > 0.7
    assert check(evaluate(**category)).problems == []


def test_saturated_maps(category: dict[str, Any]) -> None:
    category["maps"] = np.minimum(category["maps"], 0.8)
    (problem,) = check(evaluate(**category, eval_size=8)).problems
    at_top = category["maps"] == 0.8
    mask = category["masks"][:, 2::4, 2::4]
    assert problem == (
        f"saturated pixel scores: {(at_top & mask).sum()} of {mask.sum()} anomalous and "
        f"{(at_top & ~mask).sum()} of {(~mask).sum()} normal ones tie at the largest value"
    )


def test_a_pile_matters_where_the_metric_looks(category: dict[str, Any]) -> None:
    inside = category["masks"][:, 2::4, 2::4]
    flat = category["maps"].reshape(-1)
    flat[np.flatnonzero(inside)[::2]] = 2.0  # half of the anomalous pixels
    flat[np.flatnonzero(~inside)[::10]] = 2.0  # a tenth of the normal ones, a third of those up to the limit
    (problem,) = check(evaluate(**category, eval_size=8)).problems
    assert problem.startswith("saturated pixel scores: 18 of 36 anomalous and 74 of 732 normal")
    assert check(evaluate(**category, eval_size=8, fpr_limit=1.0)).problems == []


def test_maps_clipped_only_where_anomalous_are_sound(category: dict[str, Any]) -> None:
    inside = category["masks"][:, 2::4, 2::4]
    category["maps"] = np.where(inside, 2.0, category["maps"])
    assert check(evaluate(**category, eval_size=8)).problems == []


@pytest.mark.parametrize(
    ("anomalous_at_top", "normal_at_top", "problem"),
    [
        (6, 0, False),  # every anomaly is found and nothing else
        (1, 1, False),  # a lone tie: 1/36 of the pairs
        (4, 2, True),  # 8/36 of the pairs, half of all scores
        (5, 1, True),  # 5/36 of the pairs
        (0, 6, False),  # upside down, but nothing is lost
        (1, 6, True),  # 6/36 of the pairs
    ],
)
def test_image_scores_tied_at_the_top(
    category: dict[str, Any], anomalous_at_top: int, normal_at_top: int, problem: bool
) -> None:
    scores = np.linspace(0, 0.9, NUMBER)
    scores[:anomalous_at_top] = 1
    scores[NUMBER // 2 : NUMBER // 2 + normal_at_top] = 1
    found = check(evaluate(labels=category["labels"], image_scores=scores))
    expected = (
        f"saturated image scores: {anomalous_at_top} of 6 anomalous and {normal_at_top} of 6 normal ones "
        "tie at the largest value"
    )
    assert found.problems == ([expected] if problem else [])
    assert found.metrics["image_auroc"] is not None


@pytest.mark.parametrize(("anomalous_at_end", "normal_at_end", "problem"), [(1, 5, False), (2, 5, True)])
def test_image_scores_tied_at_the_bottom(
    category: dict[str, Any], anomalous_at_end: int, normal_at_end: int, problem: bool
) -> None:
    scores = np.linspace(0.1, 1, NUMBER)
    scores[:anomalous_at_end] = 0
    scores[NUMBER // 2 : NUMBER // 2 + normal_at_end] = 0
    found = check(evaluate(labels=category["labels"], image_scores=scores))
    assert [text.endswith("tie at the smallest value") for text in found.problems] == [True] * problem


def test_a_pile_of_one_class_is_no_problem() -> None:
    labels = np.arange(NUMBER) < 8
    found = check(evaluate(labels=labels, image_scores=np.where(labels, 1, np.linspace(0, 0.9, NUMBER))))
    assert found.problems == []
    found = check(evaluate(labels=~labels, image_scores=np.where(labels, 0, np.linspace(0.1, 1, NUMBER))))
    assert found.problems == []


def test_bad_input_is_refused(category: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="12 labels, 11 maps and 12 masks"):
        evaluate(**{**category, "maps": category["maps"][1:]})
    with pytest.raises(ValueError, match="expected 12 scores"):
        evaluate(**{**category, "image_scores": np.zeros(3)})
    with pytest.raises(ValueError, match="0 \\(normal\\) or 1"):
        evaluate(**{**category, "labels": np.full(NUMBER, -1)})
    category["masks"][8, 3, 3] = True
    with pytest.raises(ValueError, match="image 8 is labelled normal"):
        evaluate(**category, eval_size=None)
