"""Maps and masks as a metric protocol wants them, one image at a time and when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.pixels import as_map, as_mask
from bench.metrics.protocols import MaskRule, MetricProtocol
from bench.metrics.resize import Size, as_size, resize_bilinear, resize_nearest

Mask = NDArray[np.bool_]


class Lazy(Sequence[NDArray[Any]]):
    """A sequence whose items are made anew each time, so that one at a time is in memory."""

    def __init__(self, make: Callable[[int], NDArray[Any]], number: int) -> None:
        self._make, self._number = make, number

    def __len__(self) -> int:
        return self._number

    @overload
    def __getitem__(self, index: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy: ...
    def __getitem__(self, index: int | slice) -> NDArray[Any] | Lazy:
        places = range(self._number)
        if isinstance(index, slice):
            chosen = places[index]
            return Lazy(lambda i: self._make(chosen[i]), len(chosen))
        return self._make(places[index])


def chosen(
    arrays: NDArray[Any] | Sequence[ArrayLike], places: Sequence[int]
) -> NDArray[Any] | Sequence[ArrayLike]:
    """The arrays at some places, in rising order; ``arrays`` itself where these are all."""
    if len(places) == len(arrays):
        return arrays
    return Lazy(lambda index: np.asarray(arrays[places[index]]), len(places))


class Kept(Lazy):
    """Masks that are read once and from then on kept as bits, as far as there is room.

    Args:
        read: reads the mask of an index.
        number: how many there are.
        room: bytes that may be kept; the rest is read each time. 256 MiB hold a thousand masks of two megapixels.

    Attributes:
        sizes: of the masks that were read so far.
    """

    def __init__(self, read: Callable[[int], Mask], number: int, room: int = 1 << 28) -> None:
        super().__init__(self._mask, number)
        self.sizes: set[Size] = set()
        self._read, self._room = read, room
        self._bits: dict[int, tuple[Size, NDArray[np.uint8]]] = {}

    def _mask(self, index: int) -> Mask:
        if index in self._bits:
            size, bits = self._bits[index]
            return np.unpackbits(bits, count=size[0] * size[1]).reshape(size).astype(np.bool_)
        mask = self._read(index)
        self.sizes.add(mask.shape)
        bits = np.packbits(mask)
        if bits.nbytes <= self._room:
            self._room -= bits.nbytes
            self._bits[index] = mask.shape, bits
        return mask


def prepare(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    protocol: MetricProtocol,
) -> tuple[Lazy, Lazy]:
    """Return ``(H, W)`` float32 maps and bool masks on the protocol's grid.

    Raises:
        ValueError: as many maps as masks are needed, each two-dimensional; those of an item come when it is
            asked for.
    """
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")

    def mask_at(index: int) -> Mask:
        mask = as_mask(masks[index], index)
        return resize_mask(mask, as_size(protocol.eval_size or mask.shape), protocol.mask_resize)

    def map_at(index: int) -> NDArray[np.float32]:
        with np.errstate(invalid="ignore", over="ignore"):
            # Published code, which the named protocols follow, works in float32.
            scores = as_map(maps[index], index).astype(np.float32, copy=False)
            scores = resize_bilinear(scores, protocol.eval_size or as_mask(masks[index], index).shape)
            if protocol.sigma:
                from scipy.ndimage import gaussian_filter

                scores = gaussian_filter(scores, sigma=protocol.sigma)
        return scores

    return Lazy(map_at, len(maps)), Lazy(mask_at, len(maps))


def resize_mask(mask: Mask, size: Size, rule: MaskRule) -> Mask:
    """Resize one ``(h, w)`` bool mask to ``size`` by one of the rules of ``MetricProtocol.mask_resize``.

    A mask that has the size already stays as it is.
    """
    if mask.shape == size:
        return mask
    if rule == "nearest":
        return resize_nearest(mask, size)
    if rule == "antialias":
        from PIL import Image

        grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
        resized = np.asarray(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR))
        # torchvision's ToTensor divides by 255, and what is above one half is anomalous.
        return np.asarray(resized > 127, dtype=np.bool_)
    if rule == "any":
        # OpenCV interpolates the grey values 0 and 255 and rounds them; 1 and more is anomalous.
        grey_values = resize_bilinear(mask.astype(np.float32), size)
        return np.asarray(grey_values >= np.float32(0.5 / 255), dtype=np.bool_)
    return _corner(_corner(mask, (1024, 1024)), size)


def _corner(mask: Mask, size: Size) -> Mask:
    """OpenCV's ``INTER_NEAREST``: the pixel in which the upper left corner of the target pixel falls."""
    rows, columns = (np.arange(new) * old // new for old, new in zip(mask.shape, size, strict=True))
    return np.asarray(mask[rows][:, columns], dtype=np.bool_)


def image_score(scores: NDArray[np.float32], pool: int) -> float:
    """Return the maximum of a map, or of its averages over windows of ``pool`` x ``pool`` pixels."""
    if not pool:
        return float(scores.max())
    height, width = (min(pool, side) for side in scores.shape)
    total = np.zeros((scores.shape[0] + 1, scores.shape[1] + 1))
    total[1:, 1:] = scores.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    below = total[height:] - total[:-height]
    windows = below[:, width:] - below[:, :-width]
    return float(windows.max() / (height * width))
