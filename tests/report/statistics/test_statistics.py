"""Statistics against numbers worked out by hand, published ones, and SciPy's own."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from bench.errors import BenchError
from bench.metrics import binary_metrics
from bench.report.statistics import (
    compare_pairs,
    friedman,
    holm,
    image_interval,
    needed_for_friedman,
    needed_for_pairs,
    seeds_p_value,
    signed_rank,
    summarise,
)

# AUC of C4.5 and its variants on 14 UCI data sets: J. Demšar, JMLR 7, 2006, table 6. Columns: C4.5, with m, with
# cf, with both.
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


# ---------------------------------------------------------------- over seeds


def test_summary_by_hand() -> None:
    found = summarise([0.7, 0.8, 0.9])
    half = 4.302652729911275 * 0.1 / math.sqrt(3)  # t(0.975, 2 degrees of freedom) from a table
    assert (found.count, found.mean, found.deviation) == (3, pytest.approx(0.8), pytest.approx(0.1))
    assert (found.low, found.high) == (pytest.approx(0.8 - half), pytest.approx(0.8 + half))
    narrow = summarise([0.7, 0.8, 0.9], level=0.5)
    assert narrow.low is not None and found.low is not None and narrow.low > found.low


def test_summary_of_few_or_equal_values() -> None:
    assert summarise([]).mean is None
    one = summarise([0.7])
    assert (one.count, one.mean, one.deviation, one.low, one.high) == (1, 0.7, None, None, None)
    same = summarise([0.7, 0.7, 0.7])
    assert (same.deviation, same.low, same.high) == (pytest.approx(0), pytest.approx(0.7), pytest.approx(0.7))
    with pytest.raises(ValueError, match="finite"):
        summarise([0.7, math.nan])


def test_methods_with_seeds_are_paired_by_seed() -> None:
    one = {0: 0.71, 1: 0.84, 2: 0.69, 5: 0.5}
    other = {2: 0.66, 0: 0.70, 1: 0.80, 9: 0.9}
    expected = stats.ttest_rel([0.71, 0.84, 0.69], [0.70, 0.80, 0.66]).pvalue
    assert seeds_p_value(one, other) == pytest.approx(expected)
    assert seeds_p_value(other, one) == pytest.approx(expected)
    assert expected < stats.ttest_ind([0.71, 0.84, 0.69], [0.70, 0.80, 0.66]).pvalue


def test_a_method_without_seeds_is_a_constant() -> None:
    values = {0: 0.71, 1: 0.84, 2: 0.69}
    expected = stats.ttest_1samp(list(values.values()), 0.6).pvalue
    assert seeds_p_value(values, {None: 0.6}) == pytest.approx(expected)
    assert seeds_p_value({None: 0.6}, values) == pytest.approx(expected)
    assert seeds_p_value({None: 0.6}, {None: 0.6}) == 1
    assert seeds_p_value({None: 0.6}, {None: 0.7}) == 0


def test_seeds_that_allow_no_test_or_need_none() -> None:
    assert seeds_p_value({0: 0.7}, {0: 0.8}) is None
    assert seeds_p_value({0: 0.7, 1: 0.8}, {2: 0.7, 3: 0.8}) is None
    assert seeds_p_value({0: 0.7}, {None: 0.8}) is None
    assert seeds_p_value({0: 0.7, 1: 0.8}, {0: 0.7, 1: 0.8}) == 1
    # 0.1 more with every seed: no spread, so no chance
    assert seeds_p_value({0: 0.8, 1: 0.9, 2: 0.4}, {0: 0.7, 1: 0.8, 2: 0.3}) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 10])
def test_tests_over_seeds_are_scipys(count: int) -> None:
    rng = np.random.default_rng(count)
    for shift in (0.0, 0.01, 0.3):
        differences = rng.normal(shift, 0.02, count).round(6)
        found = seeds_p_value({None: 0.5}, dict(enumerate(0.5 + differences)))
        assert found == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=1e-8)


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_holm_is_that_of_statsmodels(count: int) -> None:
    p_values = np.random.default_rng(count).random(count).round(1)  # some are equal
    assert holm(list(p_values)) == pytest.approx(multipletests(p_values, method="holm")[1], rel=1e-12)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert len(holm([])) == 0


# ---------------------------------------------------------------- over images


def overlapping(seeds: int = 1, shift: float = 1.0, rng: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores of 30 normal and 20 anomalous images."""
    labels = np.repeat([0, 1], [30, 20])
    scores = np.random.default_rng(rng).normal(size=(seeds, 50)) + shift * labels
    return scores, labels


@pytest.mark.parametrize("metric", ["image_auroc", "image_ap"])
def test_interval_holds_the_metric_and_has_its_value(metric: str) -> None:
    scores, labels = overlapping()
    found = image_interval([(scores, labels)], metric, resamples=500)
    expected = binary_metrics(scores[0], labels)[metric.removeprefix("image_")]
    assert found.value == pytest.approx(expected)
    assert 0 < found.low < found.value < found.high < 1
    assert image_interval([(scores[0], labels)], metric, resamples=500) == found


def test_interval_of_auroc_is_as_wide_as_its_known_deviation() -> None:
    # Hanley and McNeil, Radiology 143, 1982: the variance of AUROC from the two shares of pairs of pairs
    scores, labels = overlapping()
    normal, anomalous = scores[0][labels == 0], scores[0][labels == 1]
    wins = (anomalous[:, None] > normal).astype(float)
    area, a, n = wins.mean(), len(anomalous), len(normal)
    q1 = np.mean([row[i] * row[j] for row in wins for i, j in itertools.permutations(range(n), 2)])
    q2 = np.mean([row[i] * row[j] for row in wins.T for i, j in itertools.permutations(range(a), 2)])
    variance = area * (1 - area) + (a - 1) * (q2 - area**2) + (n - 1) * (q1 - area**2)
    deviation = math.sqrt(variance / (a * n))
    found = image_interval([(scores, labels)], resamples=4000)
    assert (found.high - found.low) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.1)


def test_resampling_is_stratified() -> None:
    # Were images drawn regardless of their label, some draws of so few would have one label only.
    labels = np.array([0, 0, 1, 1])
    found = image_interval([(np.array([0.1, 0.3, 0.2, 0.4]), labels)], resamples=300)
    assert (found.low, found.high) == (0.0, 1.0)
    separated = image_interval([(np.array([0.1, 0.2, 0.3, 0.4]), labels)], resamples=300)
    assert (separated.value, separated.low, separated.high) == (1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    parts = [overlapping(3)]
    first = image_interval(parts, resamples=200)
    assert image_interval(parts, resamples=200) == first
    assert image_interval(parts, resamples=200, seed=1) != first
    wide, narrow = (image_interval(parts, resamples=200, level=level) for level in (0.99, 0.5))
    assert wide.high - wide.low > first.high - first.low > narrow.high - narrow.low


def test_seeds_do_not_make_the_test_set_larger() -> None:
    scores, labels = overlapping()
    once = image_interval([(scores, labels)], resamples=1000)
    # Ten seeds with the same scores say no more of the images than one.
    tenfold = image_interval([(np.repeat(scores, 10, axis=0), labels)], resamples=1000)
    assert tenfold.high - tenfold.low == pytest.approx(once.high - once.low, rel=0.1)


def test_seeds_that_differ_make_the_interval_wider() -> None:
    labels = np.repeat([0, 1], [200, 200])
    rng = np.random.default_rng(0)
    images = rng.normal(size=400)
    steady = np.stack([images + 2.0 * labels] * 4)
    uneven = np.stack([images + shift * labels for shift in (0.0, 1.0, 3.0, 4.0)])
    narrow, wide = (image_interval([(scores, labels)], resamples=300) for scores in (steady, uneven))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    areas = [binary_metrics(row, labels)["auroc"] for row in uneven]
    assert wide.value == pytest.approx(np.mean([area for area in areas if area is not None]))


def test_an_average_over_categories_is_surer_than_one() -> None:
    parts = [overlapping(rng=i) for i in range(9)]
    each = [image_interval([part], resamples=1000) for part in parts]
    whole = image_interval(parts, resamples=1000)
    assert whole.value == pytest.approx(np.mean([one.value for one in each]))
    # Categories are resampled independently, so that the squares of their widths add up.
    expected = math.sqrt(sum((one.high - one.low) ** 2 for one in each)) / 9
    assert whole.high - whole.low == pytest.approx(expected, rel=0.1)


def test_images_that_cannot_be_resampled() -> None:
    scores, labels = overlapping()
    with pytest.raises(BenchError, match="at least two normal and two anomalous"):
        image_interval([(scores[0, :31], labels[:31])])
    with pytest.raises(BenchError, match=r"unknown metric.*'aupro'"):
        image_interval([(scores, labels)], "aupro")
    with pytest.raises(ValueError, match="N labels"):
        image_interval([(scores, labels[1:])])
    with pytest.raises(ValueError, match="finite"):
        image_interval([(scores * np.nan, labels)])
    with pytest.raises(ValueError, match=r"same seeds"):
        image_interval([overlapping(1), overlapping(2)])
    with pytest.raises(ValueError, match=r"same seeds"):
        image_interval([])


# ---------------------------------------------------------------- over categories


def test_signed_rank_by_hand() -> None:
    # All of one sign: only two of the 2^n assignments are as extreme.
    assert signed_rank([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 64)
    # The smallest one the other way: rank sum 1, which two assignments per side reach.
    assert signed_rank([-0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(4 / 64)
    assert signed_rank([0.0, 0.0, 0.0]) == 1
    # Equal in exact arithmetic, not in floating point: two ties, so four assignments of signs are as extreme.
    assert signed_rank([0.8 - 0.7, 0.3 - 0.2, -(0.2 - 0.1), 0.4]) == signed_rank([1, 1, -1, 4])


@pytest.mark.parametrize(
    "differences",
    [
        [0.0, 0.1, 0.2, -0.3, 0.4],  # a zero
        [0.1, 0.1, -0.1, 0.3, 0.4, 0.0, 0.0],  # ties and zeros
        [*np.linspace(-0.2, 0.7, 20), 0.0, 0.0],  # too many to try all
        [*np.linspace(-0.11, 0.7, 17)],  # neither
    ],
)
def test_signed_rank_is_scipys(differences: list[float]) -> None:
    expected = stats.wilcoxon(np.round(differences, 12), zero_method="zsplit").pvalue
    assert signed_rank(differences) == pytest.approx(expected, rel=1e-12)


def test_pairs() -> None:
    steps = np.arange(1, 9) / 100
    values = np.stack([0.9 + 0 * steps, 0.9 - steps, 0.85 + steps * (-1.0) ** np.arange(8)], axis=1)
    first, second, third = pairs = compare_pairs(values)
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    assert (first.better, first.worse, first.p) == (8, 0, pytest.approx(2 / 256))
    assert first.difference == pytest.approx(0.045)
    assert first.corrected == pytest.approx(6 / 256)
    assert first.holds
    expected = [
        stats.wilcoxon((values[:, i] - values[:, j]).round(12)).pvalue for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert [pair.p for pair in pairs] == pytest.approx(expected)
    assert [pair.corrected for pair in pairs] == pytest.approx(holm(expected))
    assert not third.holds and third.corrected >= third.p
    assert (second.better, second.worse) == (6, 1)  # 0.85 + 0.05 is 0.9: neither


def test_equal_methods_do_not_differ() -> None:
    (pair,) = compare_pairs(np.full((8, 2), 0.7))
    assert (pair.p, pair.holds, pair.better, pair.worse, pair.difference) == (1, False, 0, 0, 0)
    found = friedman(np.full((8, 3), 0.7))
    assert (found.statistic, found.p, found.holds) == (0, 1, False)
    assert found.ranks.tolist() == [2, 2, 2]
    assert not found.apart.any()


@pytest.mark.parametrize(("methods", "needed"), [(2, 6), (3, 7), (4, 8), (5, 9), (17, 13)])
def test_pairs_need_enough_categories(methods: int, needed: int) -> None:
    comparisons = methods * (methods - 1) // 2
    assert needed_for_pairs(comparisons) == needed
    clear = np.arange(1, needed + 1)[:, None] / 1000 * np.arange(methods)  # every category says the same
    assert min(pair.corrected for pair in compare_pairs(clear)) <= 0.05
    with pytest.raises(BenchError, match=f"{methods} methods need at least {needed} categories"):
        compare_pairs(clear[:-1])
    lowest = comparisons * min(signed_rank(row) for row in [clear[:-1, 1] - clear[:-1, 0]])
    assert lowest > 0.05


def test_one_method_is_no_comparison() -> None:
    with pytest.raises(BenchError, match="at least 2 methods; there are 1"):
        compare_pairs(np.ones((9, 1)))
    with pytest.raises(BenchError, match="at least 3 methods; there are 2"):
        friedman(np.ones((9, 2)))
    with pytest.raises(ValueError, match="finite"):
        compare_pairs([[0.5, math.nan]] * 9)
    with pytest.raises(ValueError, match="shape"):
        friedman(np.ones(9))


def test_friedman_and_nemenyi_as_published() -> None:
    # Demšar's table 6 and section 3.2.2: mean ranks, χ² (he gives 9.28, without the correction for ties), and
    # the critical difference at 0.05 of 1.25.
    found = friedman(DEMSAR)
    assert found.ranks == pytest.approx([3.143, 2.000, 2.893, 1.964], abs=5e-4)
    n, k = DEMSAR.shape
    uncorrected = 12 * n / (k * (k + 1)) * (np.sum(found.ranks**2) - k * (k + 1) ** 2 / 4)
    assert uncorrected == pytest.approx(9.28, abs=0.01)
    assert found.statistic >= uncorrected
    assert found.critical == pytest.approx(1.25, abs=0.005)
    assert found.p == pytest.approx(stats.friedmanchisquare(*DEMSAR.T).pvalue)
    assert found.holds
    # "the difference between the best and the worst is below the critical one": no pair differs
    assert not found.apart.any()


def test_nemenyi_and_the_critical_difference_agree() -> None:
    values = 0.5 + np.arange(5) / 10 + np.random.default_rng(2).normal(0, 0.1, (15, 5))
    found = friedman(values)
    gaps = np.abs(found.ranks[:, None] - found.ranks)
    assert found.apart.any() and not found.apart.all()
    assert np.array_equal(found.apart, gaps > found.critical)


# Found by search: the first and the last of the ranks are far apart, the rest too close for Friedman.
AT_ODDS = np.array([[1, 3, 4, 0, 2], [2, 0, 4, 1, 3], [1, 3, 4, 0, 2]])


def test_nemenyi_has_no_standing_without_friedman() -> None:
    found = friedman(AT_ODDS)
    assert found.nemenyi.min() < 0.05 < found.p
    assert not found.holds
    assert not found.apart.any()


@pytest.mark.parametrize(("methods", "needed"), [(3, 3), (4, 3), (6, 3), (17, 2)])
def test_friedman_needs_enough_categories(methods: int, needed: int) -> None:
    assert needed_for_friedman(methods) == needed
    clear = np.arange(methods) + np.zeros((needed, 1))
    assert friedman(clear).holds
    if needed > 2:
        assert stats.friedmanchisquare(*clear[:-1].T).pvalue > 0.05
    with pytest.raises(BenchError, match=f"{methods} methods need at least {needed} categories"):
        friedman(clear[:-1])


def test_importing_is_quick() -> None:
    code = (
        "import sys, bench.report.statistics; "
        "print([m for m in ('scipy', 'pandas', 'matplotlib', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
