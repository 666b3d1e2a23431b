"""Scores of the same images in other company: equal but for rounding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.contracts import Scores
from bench.testing import ROUNDING


def assert_agree(part: Scores, whole: Scores, order: Sequence[int]) -> None:
    """Assert that ``part`` are ``whole``'s scores of the images ``order``, to 1e-5 of the range."""
    assert part.maps is not None
    assert whole.maps is not None
    for some, every in ((part.image, whole.image), (part.maps, whole.maps)):
        np.testing.assert_allclose(some, every[order], rtol=0, atol=ROUNDING * np.ptp(every))
