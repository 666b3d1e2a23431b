"""Reading images and masks as arrays, from any picture format that is read at all."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Sample
from bench.errors import BenchError
from bench.tools.pictures import opened, orientation

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[int, int, int, int]


def read_image(sample: Sample) -> NDArray[np.uint8]:
    """``(H, W, 3)`` uint8 RGB of a sample, cropped to its box.

    Grey images get three equal channels, transparency is dropped, 16-bit images are scaled to 8 bits.

    Raises:
        BenchError: the file cannot be read as an image; the message names it.
    """
    pixels = _crop(_kept_rgb(sample.image) if sample.box else rgb(sample.image), sample.box)
    if pixels.size == 0:
        raise BenchError(f"{sample.image}: the box {sample.box} lies outside the image")
    return pixels


def read_mask(sample: Sample) -> NDArray[np.bool_]:
    """``(H, W)`` bool, True where anomalous: the union of the sample's masks, cropped to its box.

    All False for a good image.

    Raises:
        BenchError: the sample is anomalous and has no mask, a mask cannot be read, or masks differ in size.
    """
    if sample.lacks_mask:
        raise BenchError(f"{sample.image}: an anomalous image without a mask; its pixels cannot be measured")
    if not sample.masks:
        return np.zeros(read_image(sample).shape[:2], dtype=bool)
    return marked(read_grey_masks(sample), sample.mask_threshold)


def mask_or_blank(sample: Sample) -> NDArray[np.bool_]:
    """``(H, W)`` bool: the sample's mask; all False, of the image's size, for an anomalous image without one.

    It is for those who then leave that image's pixels out. Errors are those of :func:`read_mask`.
    """
    return np.zeros(read_image(sample).shape[:2], dtype=bool) if sample.lacks_mask else read_mask(sample)


def read_grey_masks(sample: Sample) -> list[NDArray[np.uint8]]:
    """The sample's masks as they are stored, one ``(H, W)`` uint8 per file, cropped to its box.

    Raises:
        BenchError: a mask cannot be read, or masks differ in size.
    """
    layers: list[NDArray[np.uint8]] = []
    for path in sample.masks:
        grey = _kept_grey(path, sample.mask_ids) if sample.box else brightest(path, indices=sample.mask_ids)
        layer = _crop(grey, sample.box)
        if layers and layer.shape != layers[0].shape:
            raise BenchError(f"{path}: its size differs from {sample.masks[0].name}")
        layers.append(layer)
    return layers


def marked(layers: Sequence[NDArray[np.uint8]], threshold: int) -> NDArray[np.bool_]:
    """``(H, W)`` bool: the pixels that are above ``threshold`` (0..255) in any of one or more masks."""
    union = layers[0] > threshold
    for layer in layers[1:]:
        union |= layer > threshold
    return union


def _crop(pixels: NDArray[np.uint8], box: Box | None) -> NDArray[np.uint8]:
    if box is None:
        return pixels
    left, upper, right, lower = box
    return pixels[upper:lower, left:right]


# Tiles of one strip are asked for one after the other: a few decoded files save most of the decoding.
@functools.lru_cache(maxsize=8)
def _kept_rgb(path: Path) -> NDArray[np.uint8]:
    pixels = rgb(path)
    pixels.setflags(write=False)
    return pixels


@functools.lru_cache(maxsize=8)
def _kept_grey(path: Path, indices: bool) -> NDArray[np.uint8]:
    return brightest(path, indices=indices)


def rgb(path: Path) -> NDArray[np.uint8]:
    """``(H, W, 3)`` RGB of a file, its pixels as stored: an EXIF orientation is ignored, see :func:`turned`.

    Raises:
        BenchError: see :func:`bench.tools.pictures.opened`; or the pixels have no range that says what is white.
    """
    with opened(path) as image:
        return np.asarray(_eight_bits(path, image).convert("RGB"), dtype=np.uint8).copy()


def brightest(path: Path, *, indices: bool = False) -> NDArray[np.uint8]:
    """``(H, W)`` of a mask's file: the largest of a pixel's channels, 0 for black alone.

    Args:
        path: of the file.
        indices: of a picture with a palette give the indices, not the colours that they stand for.

    Raises:
        BenchError: as :func:`rgb`.
    """
    with opened(path) as image:
        if indices and image.mode == "P":
            return np.asarray(image, dtype=np.uint8).copy()
        eight = _eight_bits(path, image, up=True)  # a 16-bit mask may mark with ones
        if eight.mode in ("1", "L", "LA", "La"):
            return np.asarray(eight.convert("L"), dtype=np.uint8).copy()
        return np.asarray(np.asarray(eight.convert("RGB"), dtype=np.uint8).max(axis=2))


def size_of(path: Path) -> tuple[int, int]:
    """``(width, height)`` of a file, which is not decoded.

    Raises:
        BenchError: see :func:`bench.tools.pictures.opened`.
    """
    with opened(path) as image:
        return image.size


def turned(path: Path) -> bool:
    """True if viewers turn the picture, by its EXIF orientation.

    The orientation is ignored here, as by ``Image.open(...).convert("RGB")`` in most code of the field, and by
    torchvision: masks are drawn on the pixels as they are stored.
    """
    with opened(path) as image:
        return orientation(image) != 1


def _eight_bits(path: Path, image: Image.Image, *, up: bool = False) -> Image.Image:
    """An 8-bit image: Pillow's own conversion of 16-bit ones clips instead of scaling.

    Rounded down, or ``up``, so that black alone is black.
    """
    from PIL import Image

    # Pillow's "I" has 16 bits if it comes from a PNG or PGM, 32 otherwise.
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PNG", "PPM")):
        raise BenchError(
            f"{path}: pixels of 32 bits, of which nothing says what is white; save it with 8 or 16 bits"
        )
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.uint32) + (256 if up else 0)
        return Image.fromarray((wide // 257).astype(np.uint8))
    if image.mode in ("LA", "La"):
        return image.convert("L") if image.mode == "LA" else image.convert("LA").convert("L")
    return image
