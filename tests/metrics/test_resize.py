"""Resizing against torch and Pillow."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.metrics import resize_bilinear, resize_nearest

SIZES = [
    ((14, 14), (256, 256)),
    ((37, 37), (518, 518)),
    ((15, 20), (240, 317)),
    ((1, 1), (8, 9)),
    ((1, 6), (31, 6)),
    ((224, 224), (256, 256)),
    ((300, 100), (64, 50)),
    ((64, 64), (64, 64)),
]
# A centre on the border of two pixels has no nearest one; here the others' rounding errors choose.
TIED = [((15, 20), (240, 317)), ((700, 840), (518, 518))]


def by_torch(image: NDArray[np.floating], size: tuple[int, int], mode: str) -> NDArray[np.floating]:
    from torch import from_numpy
    from torch.nn.functional import interpolate

    corners = False if mode == "bilinear" else None
    resized = interpolate(from_numpy(image)[None, None], size=size, mode=mode, align_corners=corners)
    result: NDArray[np.floating] = resized[0, 0].numpy()
    return result


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_bilinear_agrees_with_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(source, dtype=np.float32)
    # In float64, where torch's interpolation positions are precise.
    expected = by_torch(image.astype(np.float64), target, "bilinear")
    found = resize_bilinear(image, target)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), SIZES[:5])
def test_bilinear_agrees_with_torch_in_float32(source: tuple[int, int], target: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random(source, dtype=np.float32)
    expected = by_torch(image, target, "bilinear")
    # torch's own distance from its float64 answer, where the ratio of the sizes is not exact in float32.
    np.testing.assert_allclose(resize_bilinear(image, target), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", [(131, 9), (9, 131), (131, 131)])
def test_flat_patches_stay_flat(target: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for value in rng.random(50, dtype=np.float32):
        image = rng.random((9, 9), dtype=np.float32)
        image[2:8, 1:8] = value
        # Where both neighbours of a point lie in the patch.
        rows, columns = ((np.arange(side) + 0.5) * 9 / side - 0.5 for side in target)
        inside = np.ix_((rows >= 2) & (rows <= 7), (columns >= 1) & (columns <= 7))
        patch = resize_bilinear(image, target)[inside]
        assert patch.size > 400
        assert np.all(patch == value)


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((1024, 1024), (256, 256)), TIED[1]])
def test_nearest_agrees_with_torch_and_pillow(source: tuple[int, int], target: tuple[int, int]) -> None:
    from PIL import Image

    mask = np.random.default_rng(0).random(source) < 0.4
    found = resize_nearest(mask, target)
    assert found.dtype == np.bool_
    clear = [np.ones(side, dtype=bool) for side in target]
    if (source, target) in TIED:
        clear = [(2 * np.arange(to) + 1) * of % (2 * to) != 0 for of, to in zip(source, target, strict=True)]
        assert all(lines.mean() > 0.9 for lines in clear)
    where = np.ix_(*clear)
    torch_mask = by_torch(mask.astype(np.float32), target, "nearest-exact") > 0
    np.testing.assert_array_equal(found[where], torch_mask[where])
    grey = Image.fromarray(mask * np.uint8(255)).resize((target[1], target[0]), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(found[where], np.asarray(grey)[where] > 0)


@pytest.mark.parametrize("size", [0, (4, 0), -1])
def test_empty_grids_are_refused(size: int | tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resize_bilinear(np.zeros((2, 2), dtype=np.float32), size)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        resize_nearest(np.zeros((2, 2), dtype=np.bool_), size)
