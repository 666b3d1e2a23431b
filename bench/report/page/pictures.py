"""Images, masks and anomaly maps as small pictures inside a page."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.metrics.resize import resize_bilinear

if TYPE_CHECKING:
    from PIL import Image

SIDE = 128  # pixels of the longer side: of a map, and of an image and a mask at most
COLOURS = "viridis"  # of matplotlib: even steps, and the same to colour-blind eyes
_OPACITY = 0.6  # of the map over the image
_QUALITY = 80  # of WebP


def fit(shape: tuple[int, ...], side: int = SIDE) -> tuple[int, int]:
    """``(height, width)`` of a picture of an image of that shape; smaller images keep their size."""
    height, width = shape[:2]
    shrink = min(1.0, side / max(height, width))
    return max(1, round(height * shrink)), max(1, round(width * shrink))


def photograph(image: NDArray[np.uint8]) -> str:
    """A data URI of ``(H, W, 3)`` RGB."""
    return _webp(_resized(image, fit(image.shape)))


def silhouette(mask: NDArray[np.bool_]) -> str:
    """A data URI of an ``(H, W)`` mask, white where anomalous."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(_region(mask, fit(mask.shape))).save(stream, "PNG", optimize=True)
    return data_uri("png", stream)


def overlay(
    image: NDArray[np.uint8], scores: NDArray[np.float32], mask: NDArray[np.bool_], low: float, high: float
) -> str:
    """A data URI of an anomaly map in colours over the grey image, with the mask's outline.

    Args:
        image: ``(H, W, 3)`` RGB.
        scores: ``(h, w)``, finite.
        mask: ``(H, W)``; its outline is white with a dark rim.
        low, high: the scores at the two ends of the colours; what lies beyond takes the end's colour.
    """
    height, width = image.shape[:2]
    size = max(1, SIDE * height // max(height, width)), max(1, SIDE * width // max(height, width))
    pixels = _mixed(image, scores, low, high, size)
    inside = _region(mask, size)
    rim = _grown(inside) & ~inside
    pixels[_grown(rim) & ~inside & ~rim] = 0
    pixels[rim] = 255
    from PIL import Image

    return _webp(Image.fromarray(pixels.round().astype(np.uint8)))


def colours_over(
    image: NDArray[np.uint8], scores: NDArray[np.float32], low: float, high: float, side: int
) -> Image.Image:
    """The picture of :func:`overlay` without a mask, whose longer side has at most ``side`` pixels."""
    from PIL import Image

    return Image.fromarray(_mixed(image, scores, low, high, fit(image.shape, side)).round().astype(np.uint8))


def plain(image: NDArray[np.uint8], side: int) -> Image.Image:
    """The picture of ``(H, W, 3)`` RGB, whose longer side has at most ``side`` pixels."""
    return _resized(image, fit(image.shape, side))


def _mixed(
    image: NDArray[np.uint8], scores: NDArray[np.float32], low: float, high: float, size: tuple[int, int]
) -> NDArray[np.float64]:
    """``(h, w, 3)`` from 0 to 255: scores in colours over the grey image, at another size."""
    import matplotlib

    grey = np.asarray(_resized(image, size).convert("L"), np.float64)[..., None]
    place = np.clip((resize_bilinear(scores, size) - low) / max(high - low, 1e-12), 0, 1)
    colours = 255 * matplotlib.colormaps[COLOURS](place)[..., :3]
    return np.asarray((1 - _OPACITY) * grey + _OPACITY * colours)


def scale(steps: int = 16) -> list[str]:
    """The colours of :func:`overlay` from low to high, as ``#rrggbb``."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(matplotlib.colormaps[COLOURS](i / (steps - 1))) for i in range(steps)]


def _region(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask at another size; a pixel that holds any anomalous one is anomalous, however thin the defect."""
    from PIL import Image

    grey = Image.fromarray(mask).convert("L").resize(size[::-1], Image.Resampling.BOX)
    return np.asarray(grey) > 0


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_dilation

    return np.asarray(binary_dilation(mask, np.ones((3, 3))), dtype=np.bool_)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    height, width = size
    return Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)


def _webp(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "WEBP", quality=_QUALITY, method=6)
    return data_uri("webp", stream)


def data_uri(kind: str, stream: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
