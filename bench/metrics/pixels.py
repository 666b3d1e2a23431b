"""The pooled pixels of one category: maps and masks brought to the evaluation grid, the two classes parted.

Scores are compared in the maps' own precision. float32 scores (and narrower ones, which float32 holds) are ranked
as they are. Of wider ones (float64, 32- and 64-bit integers) every score is replaced by a float32 number in the
same order, equal scores by equal numbers: metrics that rank see no difference, and the engine is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.guards import Extent
from bench.metrics.packing import pack
from bench.metrics.parallel import each, threads_for
from bench.metrics.regions import Runs, find_runs, run_weights
from bench.metrics.resize import Size, as_size, resize_bilinear, resize_nearest
from bench.tools.arrays import plane, to_array

# Images of fewer pixels keep the interpreter busier than the processor: threads would wait for each other.
_LARGE = 1 << 19


# The smallest normal float32 number: numbers below it may count as zero where denormals are flushed.
_FIRST = 0x00800000


def as_map(scores: ArrayLike, number: int) -> NDArray[Any]:
    """Return a map as ``(h, w)`` float32, or float64 where float32 would not hold every score.

    Args:
        scores: ``(h, w)``, or with axes of length one besides: an array, nested lists or a torch tensor.
        number: the image's, for the message.

    Raises:
        ValueError: another shape, empty, or no real numbers.
    """
    array = plane(to_array(scores))
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"map {number} must be two-dimensional and not empty, not {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"map {number} must hold real numbers, not {array.dtype}")
    narrow = array.dtype.itemsize <= (4 if array.dtype.kind == "f" else 2)
    return np.asarray(array, dtype=np.float32 if narrow else np.float64)


def as_mask(mask: ArrayLike, number: int) -> NDArray[np.bool_]:
    """Return a mask as ``(H, W)`` bool, True where above 0.

    Args:
        mask: as a map.
        number: the image's, for the message.

    Raises:
        ValueError: another shape, empty, or no real numbers.
    """
    array = plane(to_array(mask))
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"mask {number} must be two-dimensional and not empty, not {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ValueError(f"mask {number} must hold real numbers, not {array.dtype}")
    return array if array.dtype == np.bool_ else array > 0


@dataclass(frozen=True)
class Pixels:
    """The pooled pixels of one category, ready to be ranked (see ``gather``).

    Attributes:
        negative: ``(normal pixels,)`` float32 scores (see the module's head), in no order.
        positive: ``(anomalous pixels,)`` uint64, the score's bits, made to order as the scores do, in the
            high word and the pixel's run in the low one. As one bare integer they stay together when sorted,
            at the speed of sorting integers.
        weights: ``(runs,)`` region weight of a pixel of each run (see ``regions``).
        regions: number of regions.
        lowest: ``(N,)`` each map's smallest score, before it was resized.
        highest: ``(N,)`` each map's largest score, likewise.
        anomalous: ``(N,)`` bool, whether an image has an anomalous pixel.
        threads: how many threads to use.
        rounded: whether any score was rounded to float32, so that different scores may have become equal.
    """

    negative: NDArray[np.float32]
    positive: NDArray[np.uint64]
    weights: NDArray[np.float64]
    regions: int
    lowest: NDArray[Any]
    highest: NDArray[Any]
    anomalous: NDArray[np.bool_]
    threads: int
    rounded: bool = False

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Mask of the maps that can be evaluated: ``(N,)`` bool.

        The span must be finite too, or interpolating within the map could overflow.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            result: NDArray[np.bool_] = np.isfinite(self.highest - self.lowest)
        return result

    @property
    def extent(self) -> Extent:
        """Range of the maps' scores, if they are finite."""
        flat = int(np.count_nonzero(self.lowest == self.highest))
        return Extent(len(self.lowest), flat, float(self.lowest.min()), float(self.highest.max()))


class _WiderMapError(Exception):
    """A map needs float64 after others that did not."""


def gather(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    eval_size: int | tuple[int, int] | None,
    threads: int | None = None,
    first: int = 0,
    in_float32: bool = False,
) -> Pixels:
    """Bring maps and masks to the evaluation grid and part anomalous from normal pixels, one image at a time.

    Args:
        maps: as in ``pixel_metrics``; scores need not be finite.
        masks: as in ``pixel_metrics``.
        eval_size: as in ``pixel_metrics``.
        threads: how many to use here and in ``rank``; None lets the amount of work decide.
        first: number of the first image, for messages.
        in_float32: round wider scores to float32 instead of ranking them.

    Raises:
        ValueError: shapes that do not fit, or no image.
    """
    if len(maps) != len(masks) or len(maps) == 0:
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")
    wide = not in_float32 and as_map(maps[0], first).dtype == np.float64
    try:
        return _gather(maps, masks, eval_size, threads, first, wide=wide, in_float32=in_float32)
    except _WiderMapError:
        return _gather(maps, masks, eval_size, threads, first, wide=True, in_float32=False)


def _gather(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    eval_size: int | tuple[int, int] | None,
    threads: int | None,
    first: int,
    *,
    wide: bool,
    in_float32: bool,
) -> Pixels:
    number = len(maps)
    grid = None if eval_size is None else as_size(eval_size)
    # As if all were as large as the first.
    height, width = grid or as_mask(masks[0], first).shape
    threads = threads_for(number * height * width) if threads is None else threads
    readers = threads if height * width >= _LARGE else 1

    def look(i: int) -> tuple[int, Runs | None]:
        """The pixels of one image, and the runs of its mask if there are any."""
        mask = _mask(masks[i], first + i, grid)
        return mask.size, find_runs(mask) if mask.any() else None

    # Masks are resized twice, here to measure and below to use: cheaper than to keep them all at full size.
    looks = each(look, range(number), readers)
    found = [runs for _, runs in looks]
    size = np.array([pixels for pixels, _ in looks], dtype=np.int64)
    positives = np.array([0 if runs is None else runs.lengths.sum() for runs in found], dtype=np.int64)
    run_end = np.cumsum([0 if runs is None else len(runs.lengths) for runs in found])
    negative_end, positive_end = np.cumsum(size - positives), np.cumsum(positives)
    dtype = np.float64 if wide else np.float32
    negative: NDArray[Any] = np.empty(int(negative_end[-1]), dtype=dtype)
    # Narrow scores are packed with their runs at once; wide ones wait for the numbers that replace them.
    positive: NDArray[Any] = np.empty(int(positive_end[-1]), dtype=dtype if wide else np.uint64)
    ends = np.float64 if in_float32 else dtype
    lowest, highest = np.empty(number, dtype=ends), np.empty(number, dtype=ends)
    rounded = np.zeros(number, dtype=np.bool_)

    def run_numbers(i: int) -> NDArray[np.uint64]:
        """The numbers, among the runs of all images, of one image's runs."""
        runs = found[i]
        assert runs is not None
        return np.arange(run_end[i] - len(runs.lengths), run_end[i], dtype=np.uint64)

    def fill(i: int) -> None:
        """Write one image's pixels to their places."""
        mask, runs = _mask(masks[i], first + i, grid), found[i]
        scores = as_map(maps[i], first + i)
        if scores.dtype == np.float64 and not (wide or in_float32):
            raise _WiderMapError
        with np.errstate(invalid="ignore", over="ignore"):
            lowest[i], highest[i] = scores.min(), scores.max()
            exact = resize_bilinear(scores, mask.shape)
            scores = np.asarray(exact, dtype=dtype)
            rounded[i] = exact.dtype.itemsize > scores.dtype.itemsize and bool(np.any(exact != scores))
        ours = slice(negative_end[i] - (size[i] - positives[i]), negative_end[i])
        if runs is None:
            negative[ours] = scores.ravel()
            return
        theirs = slice(positive_end[i] - positives[i], positive_end[i])
        positive[theirs] = scores[mask] if wide else pack(scores[mask], np.repeat(run_numbers(i), runs.lengths))
        negative[ours] = scores[~mask]

    each(fill, range(number), readers)
    if wide:
        negative, anomalous_scores = _in_order(negative, positive)
        repeated = [np.repeat(run_numbers(i), runs.lengths) for i, runs in enumerate(found) if runs is not None]
        positive = pack(anomalous_scores, np.concatenate([np.empty(0, dtype=np.uint64), *repeated]))
    weights, regions = np.empty(0), 0
    there = [(runs, end - len(runs.lengths)) for runs, end in zip(found, run_end, strict=True) if runs is not None]
    if there:
        touching = np.concatenate([runs.touching + np.int32(start) for runs, start in there], axis=1)
        weights, regions = run_weights(np.concatenate([runs.lengths for runs, _ in there]), touching)
    return Pixels(
        negative, positive, weights, regions, lowest, highest, positives > 0, threads, bool(np.any(rounded))
    )


def _in_order(
    negative: NDArray[np.float64], positive: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return float32 numbers in the order of the scores, equal for equal scores.

    The scores' places among the distinct ones, as the bits of positive float32 numbers, of which there are 2
    billion.
    """
    _, places = np.unique(np.concatenate([negative, positive]), return_inverse=True)
    numbers = (places + _FIRST).astype(np.uint32).view(np.float32)
    return numbers[: len(negative)], numbers[len(negative) :]


def _mask(mask: ArrayLike, number: int, grid: Size | None) -> NDArray[np.bool_]:
    anomalous = as_mask(mask, number)
    return anomalous if grid is None else resize_nearest(anomalous, grid)
