"""AUROC, AP, F1-max and FPR at 95 % recall of image scores against scikit-learn."""

from __future__ import annotations

import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from bench.metrics import binary_metrics


def by_sklearn(scores: NDArray[np.floating], labels: NDArray[np.bool_]) -> dict[str, float]:
    precision, recall, _ = precision_recall_curve(labels, scores)
    both = precision + recall
    false, true, _ = roc_curve(labels, scores, drop_intermediate=False)
    f1 = 2 * precision * recall / np.where(both > 0, both, 1)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        "f1max": float(f1.max()),
        "fpr95": float(false[true >= 0.95].min()),
    }


# Few distinct values: heavy ties are the rule.
cases = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60)


def unzip(case: list[tuple[int, bool]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    scores = np.array([score for score, _ in case], dtype=np.float64)
    labels = np.array([label for _, label in case])
    assume(labels.any() and not labels.all())
    return scores, labels


@given(cases)
@settings(deadline=None)
def test_agrees_with_sklearn_under_heavy_ties(case: list[tuple[int, bool]]) -> None:
    scores, labels = unzip(case)
    assert binary_metrics(scores, labels) == pytest.approx(by_sklearn(scores, labels), abs=1e-12)


@pytest.mark.parametrize("size", [50, 20_000])
def test_agrees_with_sklearn_on_continuous_scores(size: int) -> None:
    rng = np.random.default_rng(size)
    labels = rng.random(size) < 0.3
    scores = rng.normal(size=size) + labels
    assert binary_metrics(scores, labels) == pytest.approx(by_sklearn(scores, labels), abs=1e-12)


def test_hand_computed() -> None:
    # Ranked: 0.8 anomalous, 0.4 normal, 0.35 anomalous, 0.1 normal.
    found = binary_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    assert found == pytest.approx(
        {"auroc": 3 / 4, "ap": (1 + 2 / 3) / 2, "f1max": 4 / 5, "fpr95": 1 / 2}, abs=1e-15
    )


@given(cases)
@settings(deadline=None)
def test_fpr95_is_the_smallest_over_all_thresholds(case: list[tuple[int, bool]]) -> None:
    scores, labels = unzip(case)
    rates = []
    for threshold in {*scores, -np.inf}:
        above = scores >= threshold
        if 100 * (above & labels).sum() >= 95 * labels.sum():  # in integers, so without rounding
            rates.append((above & ~labels).sum() / (~labels).sum())
    assert binary_metrics(scores, labels)["fpr95"] == min(rates)


@pytest.mark.parametrize("number", [1, 19, 20, 21, 40, 100, 180, 380, 1000])
def test_fpr95_where_95_percent_is_a_whole_number(number: int) -> None:
    """One anomalous score in twenty may lie below the threshold, and not one more."""
    missed = number // 20
    scores = np.concatenate([np.arange(number), [missed - 0.5, missed + 0.5]])
    labels = np.arange(number + 2) < number
    assert binary_metrics(scores, labels)["fpr95"] == 0.5


@given(cases)
@settings(deadline=None)
def test_increasing_maps_of_the_scores_change_nothing(case: list[tuple[int, bool]]) -> None:
    scores, labels = unzip(case)
    expected = binary_metrics(scores, labels)
    for moved in (3 * scores - 7, np.exp(scores), scores**3, np.arctan(scores)):
        assert binary_metrics(moved, labels) == expected


@given(cases, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_order_of_images_does_not_matter(case: list[tuple[int, bool]], random: Random) -> None:
    scores, labels = unzip(case)
    order = list(range(len(scores)))
    random.shuffle(order)
    assert binary_metrics(scores[order], labels[order]) == binary_metrics(scores, labels)


@given(cases)
@settings(deadline=None)
def test_negated_scores_complement_auroc(case: list[tuple[int, bool]]) -> None:
    scores, labels = unzip(case)
    forward, backward = binary_metrics(scores, labels)["auroc"], binary_metrics(-scores, labels)["auroc"]
    assert forward is not None
    assert backward is not None
    assert forward + backward == pytest.approx(1, abs=1e-15)


def test_all_equal_scores_follow_the_definitions() -> None:
    found = binary_metrics(np.full(10, 0.3), np.arange(10) < 4)
    assert found == pytest.approx({"auroc": 0.5, "ap": 0.4, "f1max": 2 * 0.4 / 1.4, "fpr95": 1.0}, abs=1e-15)


def test_image_scores_keep_float64_precision() -> None:
    # These two differ in float64 and are equal in float32.
    assert binary_metrics(np.array([0.5, 0.5 + 1e-12]), [0, 1])["auroc"] == 1.0


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "bool"])
def test_other_types_of_scores(dtype: str) -> None:
    scores = np.array([0, 1, 1, 0, 1]).astype(dtype)
    labels = np.array([0, 1, 1, 1, 0], dtype=bool)
    expected = by_sklearn(scores.astype(float), labels)
    assert binary_metrics(scores, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_gives_none(label: int) -> None:
    assert binary_metrics([0.1, 0.2], [label, label]) == dict.fromkeys(["auroc", "ap", "f1max", "fpr95"])


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, np.nan], [0, 1], "finite"),
        ([0.1, np.inf], [0, 1], "finite"),
        ([0.1, 0.2, 0.3], [0, 1], "expected 2 scores"),
        ([0.1, 0.2], [0, 2], "0 \\(normal\\) or 1"),
        ([], [], "not empty"),
        ([[0.1], [0.2]], [[0], [1]], "one-dimensional"),
    ],
)
def test_bad_input_is_refused(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binary_metrics(scores, labels)


def test_importing_the_package_is_cheap() -> None:
    heavy = ("torch", "anomalib", "sklearn", "scipy", "pandas")
    code = f"import sys, bench.metrics; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
