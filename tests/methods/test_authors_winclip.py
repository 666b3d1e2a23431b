"""WinCLIP against two public re-implementations (no official code exists), on the same weights and images.

See golden/README.md. The third, anomalib's, runs in test_winclip.py itself.
"""

from __future__ import annotations

from typing import Any

import open_clip
import pytest
import recipes
import tiny
from parity import Parity, golden

from bench.contracts import ImageSet
from bench.encoders.features import FeatureCache
from bench.encoders.towers import FrozenClip
from bench.methods.winclip import WinClip, WinClipConfig

LIMIT = 1e-5  # both sides compute in single precision
HALVES = (0.5, 0.5, 0.5)
Z, C = "zqhang/Accurate-WinCLIP-pytorch", "caoyunkang/WinClip"


@pytest.fixture(scope="module")
def encoder() -> FrozenClip:
    model = open_clip.model.CLIP(**recipes.WINCLIP)
    recipes.fill(model)
    return FrozenClip("golden", "golden", model, recipes.tokenize, HALVES, HALVES, cache=FeatureCache())


def sets() -> tuple[ImageSet, ImageSet]:
    """Test images and normal ones."""
    pictures = recipes.pictures(5, 64, 7)
    return tiny.image_set(pictures[:3], ["carpet"] * 3), tiny.image_set(pictures[3:], ["carpet"] * 2)


@pytest.mark.parametrize("shots", [0, 2])
def test_equals_zqhangs(shots: int, encoder: FrozenClip, parity: Parity) -> None:
    options: dict[str, Any] = {
        "averaging": "raw",
        "templates": "typo",
        "name": "category",
        "patch_tokens": "before",
    }
    images, support = sets()
    theirs, name = golden("winclip_z"), "WinCLIP+" if shots else "WinCLIP"
    scores = WinClip(WinClipConfig(k=shots, **options)).score(images, tiny.context(encoder, support=support))
    assert scores.maps is not None
    parity.equal(f"{name}: image scores", Z, scores.image, theirs[f"image scores, {shots} normal images"], LIMIT)
    # With normal images, they add two maps of which ours is the mean.
    maps = (2 if shots else 1) * scores.maps
    parity.equal(f"{name}: maps", Z, maps, theirs[f"maps, {shots} normal images"], LIMIT)


def test_equals_caoyunkangs(encoder: FrozenClip, parity: Parity) -> None:
    config = WinClipConfig(averaging="raw", temperature=0.01, aggregation="normality")
    scores = WinClip(config).score(sets()[0], tiny.context(encoder))
    parity.equal("WinCLIP: maps", C, scores.maps, golden("winclip_c")["maps"], LIMIT)
