"""Two one-sided tests against a margin, held against statsmodels and the t distribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from bench.report.statistics import Equivalence, equivalence

SEEDS = [0.905, 0.912, 0.899, 0.921, 0.908]


@pytest.mark.parametrize("reference", [0.85, 0.89, 0.90, 0.909, 0.93])
@pytest.mark.parametrize("margin", [0.005, 0.015, 0.05])
def test_one_sample_is_statsmodels_tost(reference: float, margin: float) -> None:
    expected = DescrStatsW(SEEDS).ttost_mean(reference - margin, reference + margin)[0]
    assert equivalence(SEEDS, reference, margin).p == pytest.approx(expected, rel=1e-9)


def test_with_a_reported_deviation_the_test_is_welchs() -> None:
    """By Welch's formulas, written out."""
    found = equivalence(SEEDS, 0.90, 0.015, deviation=0.012, runs=10)
    mean, own, theirs = np.mean(SEEDS), np.var(SEEDS, ddof=1) / 5, 0.012**2 / 10
    error = np.sqrt(own + theirs)
    freedom = (own + theirs) ** 2 / (own**2 / 4 + theirs**2 / 9)
    below = stats.t.sf((mean - 0.885) / error, freedom)
    above = stats.t.cdf((mean - 0.915) / error, freedom)
    assert found.p == pytest.approx(max(below, above), rel=1e-9)
    assert found.p > equivalence(SEEDS, 0.90, 0.015).p  # a reference that scatters is less of a proof


def test_a_deviation_without_runs_is_none() -> None:
    assert equivalence(SEEDS, 0.9, 0.015, deviation=0.012) == equivalence(SEEDS, 0.9, 0.015)
    assert equivalence(SEEDS, 0.9, 0.015, deviation=0.012, runs=1) == equivalence(SEEDS, 0.9, 0.015)


@pytest.mark.parametrize(
    ("values", "reference", "outcome"),
    [
        (SEEDS, 0.909, "reproduced"),
        (SEEDS, 0.87, "better"),
        (SEEDS, 0.95, "worse"),
        ([0.80, 0.99], 0.90, "undecided"),  # nobody knows: a test of difference would have found nothing
        ([0.905, 0.906, 0.904, 0.905], 0.90, "reproduced"),  # different, but by less than the margin
        ([0.9, 0.9, 0.9], 0.9, "reproduced"),
        ([0.9, 0.9], 0.92, "worse"),
        ([0.9, 0.9], 0.88, "better"),
        ([0.915] * 7, 0.90, "better"),  # exactly the margin is not within it
        ([0.885] * 3, 0.90, "worse"),
    ],
)
def test_outcomes(values: list[float], reference: float, outcome: str) -> None:
    assert equivalence(values, reference, 0.015).outcome == outcome


def test_equivalence_has_the_last_word() -> None:
    assert Equivalence(0.001, p=0.05, p_difference=0.001).outcome == "reproduced"
    assert Equivalence(0.001, p=0.06, p_difference=0.05).outcome == "better"
    assert Equivalence(-0.001, p=0.06, p_difference=0.06).outcome == "undecided"


def test_false_equivalence_is_rare_at_the_margin() -> None:
    """Means that are apart by exactly the margin are called the same in at most one of twenty cases."""
    generator = np.random.default_rng(0)
    draws = 0.915 + generator.normal(0, 0.01, (500, 8))
    share = np.mean([equivalence(values, 0.90, 0.015).outcome == "reproduced" for values in draws])
    assert 0.02 < share < 0.08


def test_two_means_without_any_spread() -> None:
    assert equivalence([0.9, 0.9], 0.9, 0.015, deviation=0.0, runs=3).outcome == "reproduced"
    assert equivalence([0.9, 0.9], 0.8, 0.015, deviation=0.0, runs=3).outcome == "better"


def test_bad_arguments() -> None:
    with pytest.raises(ValueError):
        equivalence([0.9], 0.9, 0.015)
    with pytest.raises(ValueError):
        equivalence([0.9, np.nan], 0.9, 0.015)
    with pytest.raises(ValueError):
        equivalence(SEEDS, 0.9, 0.0)
