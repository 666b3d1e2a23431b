"""Decoded and scaled images, kept as bytes, for methods that train or use a backbone of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from bench.encoders.features import CACHE, FeatureKey, ahead
from bench.tools.devices import resident, sent

if TYPE_CHECKING:
    from bench.contracts import ImageSet


def load_pixels(
    images: ImageSet, size: int, device: str = "cpu", resampling: Literal["bilinear", "lanczos"] = "bilinear"
) -> torch.Tensor:
    """All images as ``(N, 3, size, size)`` uint8, scaled to a square by Pillow.

    Decoded in threads, and kept between trials in :data:`bench.encoders.features.CACHE`; they lie where
    :func:`bench.tools.devices.resident` puts them.
    """
    CACHE.begin()
    result = torch.empty((len(images), 3, size, size), dtype=torch.uint8)
    scaling = f"RGB, Pillow {resampling} to {size}x{size}"
    keys = [FeatureKey("pixels", scaling, "pixels", "uint8", image) for image in images.keys]
    missing = []
    for position, key in enumerate(keys):
        held = CACHE.get(key)
        if held is None:
            missing.append(position)
        else:
            result[position] = held
    decoded = ahead(lambda position: _scaled(images[position], size, resampling), missing, 64)
    for position, pixels in zip(missing, decoded, strict=True):
        result[position] = torch.from_numpy(pixels).permute(2, 0, 1)
        CACHE.put(keys[position], result[position])
    return resident(result, torch.device(device))


def _scaled(image: NDArray[np.uint8], size: int, resampling: str) -> NDArray[np.uint8]:
    from PIL import Image

    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling[resampling.upper()]))


def rows(pixels: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """A copy of the rows ``chosen``, numbers on the CPU, wherever ``pixels`` lie."""
    return pixels[sent(chosen, pixels.device)]
