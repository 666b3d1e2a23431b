"""The pooled pixels of one category: maps and masks brought to the evaluation grid, the two classes parted."""

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

# Images of fewer pixels keep the interpreter busier than the processor: threads would wait for each other.
_LARGE = 1 << 19


def as_map(scores: ArrayLike, number: int) -> NDArray[np.float32]:
    """Return a map as ``(h, w)`` float32; ``number`` is its image's, for the message.

    A score beyond float32 becomes infinite, and is reported as such by whoever looks.

    Raises:
        ValueError: another shape, or empty.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        array = np.asarray(scores, dtype=np.float32)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"map {number} must be two-dimensional and not empty, not {array.shape}")
    return array


def as_mask(mask: ArrayLike, number: int) -> NDArray[np.bool_]:
    """Return a mask as ``(H, W)`` bool, True where above 0; ``number`` is its image's, for the message.

    Raises:
        ValueError: another shape, or empty.
    """
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"mask {number} must be two-dimensional and not empty, not {array.shape}")
    return array if array.dtype == np.bool_ else array > 0


@dataclass(frozen=True)
class Pixels:
    """The pooled pixels of one category, ready to be ranked (see ``gather``).

    Attributes:
        negative: ``(normal pixels,)`` float32 scores, in no order.
        positive: ``(anomalous pixels,)`` uint64, the score's bits, made to order as the scores do, in the
            high word and the pixel's run in the low one. As one bare integer they stay together when sorted,
            at the speed of sorting integers.
        weights: ``(runs,)`` region weight of a pixel of each run (see ``regions``).
        regions: number of regions.
        lowest: ``(N,)`` float32, each map's smallest score, before it was resized.
        highest: ``(N,)`` float32, each map's largest score, likewise.
        anomalous: ``(N,)`` bool, whether an image has an anomalous pixel.
        threads: how many threads to use.
    """

    negative: NDArray[np.float32]
    positive: NDArray[np.uint64]
    weights: NDArray[np.float64]
    regions: int
    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]
    anomalous: NDArray[np.bool_]
    threads: int

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Whether each map can be evaluated: ``(N,)`` bool.

        The span must be finite too, or interpolating within the map could overflow.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            result: NDArray[np.bool_] = np.isfinite(self.highest - self.lowest)
        return result

    @property
    def extent(self) -> Extent:
        """How far the maps' scores reach, if they are finite."""
        flat = int(np.count_nonzero(self.lowest == self.highest))
        return Extent(len(self.lowest), flat, float(self.lowest.min()), float(self.highest.max()))


def gather(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    eval_size: int | tuple[int, int] | None,
    threads: int | None = None,
    first: int = 0,
) -> Pixels:
    """Bring maps and masks to the evaluation grid and part anomalous from normal pixels, one image at a time.

    Args:
        maps: as in ``pixel_metrics``; scores need not be finite.
        masks: as in ``pixel_metrics``.
        eval_size: as in ``pixel_metrics``.
        threads: how many to use here and in ``rank``; None lets the amount of work decide.
        first: number of the first image, for messages.

    Raises:
        ValueError: shapes that do not fit, or no image.
    """
    if len(maps) != len(masks) or len(maps) == 0:
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")
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
    negative = np.empty(int(negative_end[-1]), dtype=np.float32)
    positive = np.empty(int(positive_end[-1]), dtype=np.uint64)
    lowest, highest = np.empty(number, dtype=np.float32), np.empty(number, dtype=np.float32)

    def fill(i: int) -> None:
        """Write one image's pixels to their places."""
        mask, runs = _mask(masks[i], first + i, grid), found[i]
        scores = as_map(maps[i], first + i)
        lowest[i], highest[i] = scores.min(), scores.max()
        with np.errstate(invalid="ignore", over="ignore"):
            scores = resize_bilinear(scores, mask.shape)
        ours = slice(negative_end[i] - (size[i] - positives[i]), negative_end[i])
        if runs is None:
            negative[ours] = scores.ravel()
            return
        run = np.arange(run_end[i] - len(runs.lengths), run_end[i], dtype=np.uint64)
        packed = pack(scores[mask], np.repeat(run, runs.lengths))
        positive[positive_end[i] - positives[i] : positive_end[i]] = packed
        negative[ours] = scores[~mask]

    each(fill, range(number), readers)
    weights, regions = np.empty(0), 0
    there = [(runs, end - len(runs.lengths)) for runs, end in zip(found, run_end, strict=True) if runs is not None]
    if there:
        touching = np.concatenate([runs.touching + np.int32(start) for runs, start in there], axis=1)
        weights, regions = run_weights(np.concatenate([runs.lengths for runs, _ in there]), touching)
    return Pixels(negative, positive, weights, regions, lowest, highest, positives > 0, threads)


def _mask(mask: ArrayLike, number: int, grid: Size | None) -> NDArray[np.bool_]:
    anomalous = as_mask(mask, number)
    return anomalous if grid is None else resize_nearest(anomalous, grid)
