"""The exact engine on a torch device gives the answer of the NumPy path, to the last bit.

Only the device "cpu" is used: comparisons, of which the device's part consists, have one answer anywhere.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from bench.metrics import evaluate, exact, pixel_metrics, torch_rank
from bench.metrics.pixels import gather


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
        elements=st.sampled_from([-3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 0.25, 0.5, 3e38])
        | st.floats(-1, 1, width=32),
    ),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.05, 0.3, 1.0]),
)
@settings(deadline=None)
def test_same_to_the_last_bit(maps: NDArray[np.float32], seed: int, limit: float) -> None:
    masks = np.random.default_rng(seed).random(maps.shape) < 0.3
    assume(masks.any() and not masks.all())
    here, there = (gather(maps, masks, eval_size=None) for _ in range(2))
    assert exact.rank(here, fpr_limit=limit) == exact.rank(there, fpr_limit=limit, device="cpu")


@pytest.mark.parametrize("levels", [None, 50])
def test_same_over_many_chunks(levels: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 64, 64)).astype(np.float32)
    maps = np.round(maps * levels) / np.float32(levels) if levels else maps
    masks = rng.random(maps.shape) < 0.2
    monkeypatch.setattr(exact, "_CHUNK", 101)
    tally = exact.rank(gather(maps, masks, eval_size=None, threads=2))
    assert exact.rank(gather(maps, masks, eval_size=None), device="cpu") == tally
    assert tally[0]["pixel_auroc"] not in (None, 0.5)


def test_it_is_used_when_asked_for_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(0).random((4, 16, 16))
    masks = np.zeros(maps.shape, dtype=bool)
    masks[:2, 3:8, 3:8] = True
    labels, scores = [1, 1, 0, 0], maps.max((1, 2))
    asked: list[str] = []
    sort_on = torch_rank.sort_on

    def spy(device: str, *arrays: NDArray[np.generic]) -> object:
        asked.append(device)
        return sort_on(device, *arrays)  # type: ignore[arg-type]

    monkeypatch.setattr(torch_rank, "sort_on", spy)
    plain = pixel_metrics(maps, masks, eval_size=32)
    whole = evaluate(labels=labels, image_scores=scores, maps=maps, masks=masks, eval_size=32)
    assert asked == []
    assert pixel_metrics(maps, masks, eval_size=32, device="cpu") == plain
    assert (
        evaluate(labels=labels, image_scores=scores, maps=maps, masks=masks, eval_size=32, device="cpu") == whole
    )
    assert asked == ["cpu", "cpu"]


def test_one_class_needs_no_device() -> None:
    maps = np.random.default_rng(0).random((2, 4, 4))
    found = pixel_metrics(maps, np.zeros(maps.shape, dtype=bool), eval_size=None, device="cpu")
    assert found == dict.fromkeys(found)
