from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.contracts import ImageSet, Scores
from bench.errors import BenchError
from bench.trial.scores import checked, notes, plain

IMAGES = ImageSet(["a", "b"], ["wood", "wood"], {}, lambda _: np.zeros((1, 1, 3), np.uint8))


def test_answers_are_kept_as_arrays_of_our_own() -> None:
    image, maps = np.arange(2.0), np.asfortranarray(np.arange(8, dtype=np.float32).reshape(2, 2, 2))
    kept = checked(Scores(image, maps, {"more": maps[:, ::-1]}), IMAGES)
    image[:], maps[:] = -1, -1  # as the method's next trial may do
    assert kept.image.tolist() == [0, 1] and kept.image.dtype == np.float32
    assert kept.maps is not None
    assert kept.maps.ravel().tolist() == list(range(8))
    assert kept.extra["more"][0].tolist() == [[2, 3], [0, 1]]


@pytest.mark.parametrize("value", [1j, "1.5", None, {"a": 1}, np.datetime64("2020")])
def test_only_real_numbers_are_scores(value: Any) -> None:
    with pytest.raises(BenchError, match="no real numbers"):
        checked(Scores(np.array([value, value])), IMAGES)


@pytest.mark.parametrize("name", ["image", "maps", "features", 7])
def test_extra_maps_take_no_name_of_the_store(name: Any) -> None:
    with pytest.raises(BenchError, match="taken"):
        checked(Scores(np.zeros(2, np.float32), None, {name: np.zeros((2, 1, 1), np.float32)}), IMAGES)


def test_texts_are_cut_and_hold_nothing_that_a_terminal_or_a_file_cannot_take() -> None:
    assert plain("Grün → 1\n\t2", 99) == "Grün → 1\n\t2"
    assert plain("\x1b[2J\x00\udc80\u202e", 99) == r"\x1b[2J\x00\udc80\u202e"
    assert plain("x" * 10, 3) == "xxx ... (10 characters)"
    assert len(notes("x" for _ in iter(int, 1))) == 1000  # a method that notes without end
