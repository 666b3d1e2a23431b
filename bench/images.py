"""Reading images and masks as arrays, whatever PNG, JPEG or TIFF they came as."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Sample
from bench.errors import BenchError

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]


def read_image(sample: Sample) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 RGB of a sample, cropped to its box.

    Grey images get three equal channels, transparency is dropped, 16-bit images are scaled to 8 bits.

    Raises:
        BenchError: the file cannot be read as an image; the message names it.
    """
    pixels = _crop(_rgb(sample.image), sample.box)
    if pixels.size == 0:
        raise BenchError(f"{sample.image}: the box {sample.box} lies outside the image")
    return pixels


def read_mask(sample: Sample) -> NDArray[np.bool_]:
    """``(H, W)`` bool, True where anomalous: the union of the sample's masks, cropped to its box.

    Raises:
        BenchError: a mask cannot be read, or masks differ in size.
    """
    if not sample.masks:
        return np.zeros(read_image(sample).shape[:2], dtype=bool)
    union: NDArray[np.bool_] | None = None
    for path in sample.masks:
        mask = _crop(_grey(path), sample.box) > sample.mask_threshold
        if union is not None and union.shape != mask.shape:
            raise BenchError(f"{path}: its size differs from {sample.masks[0].name}")
        union = mask if union is None else union | mask
    assert union is not None
    return union


def _crop(pixels: NDArray[np.uint8], box: Box | None) -> NDArray[np.uint8]:
    if box is None:
        return pixels
    left, upper, right, lower = box
    return pixels[upper:lower, left:right]


# Tiles of one strip are asked for one after the other: a few decoded files save most of the decoding.
@functools.lru_cache(maxsize=8)
def _rgb(path: Path) -> NDArray[np.uint8]:
    grey_or_colour = _open(path, "RGB")
    grey_or_colour.setflags(write=False)
    return grey_or_colour


@functools.lru_cache(maxsize=8)
def _grey(path: Path) -> NDArray[np.uint8]:
    return _open(path, "L")


def _open(path: Path, mode: str) -> NDArray[np.uint8]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(_eight_bits(image).convert(mode), dtype=np.uint8).copy()
    except FileNotFoundError:
        raise BenchError(f"{path}: no such file") from None
    except Exception as error:  # Pillow raises many kinds for broken files
        raise BenchError(f"{path}: cannot be read as an image ({error})") from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """An 8-bit image: Pillow's own conversion of 16-bit ones clips instead of scaling."""
    from PIL import Image

    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        return Image.fromarray((np.clip(wide, 0, 65535) // 257).astype(np.uint8))
    if image.mode in ("LA", "La"):
        return image.convert("L") if image.mode == "LA" else image.convert("LA").convert("L")
    return image
