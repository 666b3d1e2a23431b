"""Bringing maps and masks to the evaluation grid, without torch.

Maps are interpolated as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` does. Masks
take the nearest pixel, by pixel centres: the same sampling points as the maps, and what Pillow's ``NEAREST``
and torch's ``"nearest-exact"`` do (torch's ``"nearest"`` is shifted by up to half a pixel against its own
bilinear).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

Size: TypeAlias = tuple[int, int]
Float = TypeVar("Float", np.float32, np.float64)


def as_size(size: int | tuple[int, int]) -> Size:
    """Return ``(height, width)``; an integer means a square.

    Raises:
        ValueError: a side is below 1.
    """
    height, width = (size, size) if isinstance(size, int | np.integer) else size
    if height < 1 or width < 1:
        raise ValueError(f"the evaluation grid must be at least 1 pixel each way, not {height} x {width}")
    return int(height), int(width)


@lru_cache(maxsize=64)
def _bilinear(source: int, target: int, dtype: np.dtype[Any]) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Return, for each of ``target`` points, its left neighbour among ``source`` points and the right one's
    weight.

    The positions are computed in float64 and the weights are of the map's type: torch computes them in float32 for
    float32 maps, which is the same interpolation with a rounding error in the weights that grows with ``source``.
    """
    position = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0.0)
    left = np.minimum(np.floor(position).astype(np.intp), source - 1)
    weight = (position - left).astype(dtype)
    # lru_cache hands the same arrays to every caller.
    left.setflags(write=False)
    weight.setflags(write=False)
    return left, weight


def resize_bilinear(image: NDArray[Float], size: int | tuple[int, int]) -> NDArray[Float]:
    """Interpolate one map bilinearly (pixel centres aligned, edges clamped, no antialiasing).

    Each axis is interpolated as ``a + weight * (b - a)``, not ``(1 - weight) * a + weight * b``: only the
    first gives back exactly ``a`` where ``a == b``, so a flat patch stays flat to the last bit and its ties
    remain ties.

    Args:
        image: ``(h, w)`` float32 or float64.
        size: target side, or ``(H, W)``.

    Returns:
        ``(H, W)``, of the same type; ``image`` itself where the size is already right.
    """
    height, width = as_size(size)
    if image.shape == (height, width):
        return image
    # Columns first: they are then gathered on the low map, and the large one is filled by whole rows.
    if image.shape[1] != width:
        left, weight = _bilinear(image.shape[1], width, image.dtype)
        step = np.diff(image, axis=1, append=image[:, -1:])
        image = image[:, left] + step[:, left] * weight
    if image.shape[0] != height:
        top, weight = _bilinear(image.shape[0], height, image.dtype)
        step = np.diff(image, axis=0, append=image[-1:])
        taller = np.take(step, top, axis=0)
        taller *= weight[:, None]
        taller += np.take(image, top, axis=0)
        image = taller
    return image


@lru_cache(maxsize=64)
def _nearest(source: int, target: int) -> NDArray[np.intp]:
    """Return, for each of ``target`` pixels, the ``source`` pixel that holds its centre.

    In integers: a float32 position can fall on the wrong side of a pixel border.
    """
    index = ((2 * np.arange(target, dtype=np.intp) + 1) * source) // (2 * target)
    index.setflags(write=False)
    return index


def resize_nearest(mask: NDArray[np.bool_], size: int | tuple[int, int]) -> NDArray[np.bool_]:
    """Resize one mask, taking for each pixel the source pixel that holds its centre.

    A region thinner than a pixel of the smaller grid can vanish; it is then no part of the pixel metrics.

    Args:
        mask: ``(h, w)`` bool.
        size: target side, or ``(H, W)``.

    Returns:
        ``(H, W)`` bool; ``mask`` itself where the size is already right.
    """
    height, width = as_size(size)
    if mask.shape == (height, width):
        return mask
    return mask[_nearest(mask.shape[0], height)][:, _nearest(mask.shape[1], width)]
