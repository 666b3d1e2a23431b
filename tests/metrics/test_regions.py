"""Regions against SciPy's labelling of the same masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from bench.metrics.regions import find_runs, run_weights


def weights(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    """Return the weight of each anomalous pixel, in raster order, and the number of regions."""
    runs = find_runs(mask)
    weight, regions = run_weights(runs.lengths, runs.touching)
    return np.repeat(weight, runs.lengths), regions


def weights_by_scipy(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], int]:
    labels, regions = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel())
    return 1 / (sizes[labels[mask]] * regions), regions


def agree(mask: NDArray[np.bool_]) -> None:
    found, expected = weights(mask), weights_by_scipy(mask)
    assert found[1] == expected[1]
    np.testing.assert_array_equal(found[0], expected[0])


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=300, deadline=None)
def test_agrees_with_scipy(mask: NDArray[np.bool_]) -> None:
    if mask.any():
        agree(mask)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.8])
def test_agrees_with_scipy_on_large_noise(share: float) -> None:
    agree(np.random.default_rng(0).random((150, 211)) < share)


def test_forms_that_meet_late_are_one_region() -> None:
    mask = np.zeros((7, 9), dtype=bool)
    mask[1:6, 1] = mask[1:6, 7] = mask[5, 1:8] = True  # a U: two branches that meet in the last row
    assert weights(mask)[1] == 1


def test_opposite_borders_do_not_touch() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[:, 0] = mask[:, -1] = True  # in memory the end of a row is beside the start of the next
    assert weights(mask)[1] == 2


def test_weights_sum_to_one() -> None:
    mask = np.random.default_rng(1).random((64, 64)) < 0.2
    assert weights(mask)[0].sum() == pytest.approx(1, abs=1e-12)
