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
from bench.metrics.regions import count_runs, find_runs, run_weights
from bench.metrics.resize import Size, as_size, resize_bilinear, resize_nearest


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
        threads: how many to use; None lets the amount of work decide.
        first: number of the first image, for messages.

    Raises:
        ValueError: shapes that do not fit, or no image.
    """
    if len(maps) != len(masks) or len(maps) == 0:
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")
    number = len(maps)
    grid = None if eval_size is None else as_size(eval_size)
    # Masks are resized twice, here to count and below to use: cheaper than to keep them all at full size.
    counts = np.array([_count(_mask(masks[i], first + i, grid)) for i in range(number)], dtype=np.int64)
    size, positives, runs = counts.T
    threads = threads_for(int(size.sum())) if threads is None else threads

    negative_end, positive_end, run_end = (np.cumsum(part) for part in (size - positives, positives, runs))
    negative = np.empty(int(negative_end[-1]), dtype=np.float32)
    positive = np.empty(int(positive_end[-1]), dtype=np.uint64)
    lengths = np.empty(int(run_end[-1]), dtype=np.int32)
    lowest, highest = np.empty(number, dtype=np.float32), np.empty(number, dtype=np.float32)

    def fill(i: int) -> NDArray[np.int32] | None:
        """Write one image's pixels to their places; return its touching runs."""
        mask = _mask(masks[i], first + i, grid)
        scores = as_map(maps[i], first + i)
        lowest[i], highest[i] = scores.min(), scores.max()
        with np.errstate(invalid="ignore", over="ignore"):
            scores = resize_bilinear(scores, mask.shape)
        ours = slice(negative_end[i] - (size[i] - positives[i]), negative_end[i])
        if not positives[i]:
            negative[ours] = scores.ravel()
            return None
        found = find_runs(mask)
        start = int(run_end[i] - runs[i])
        lengths[start : run_end[i]] = found.lengths
        run = np.repeat(np.arange(start, run_end[i], dtype=np.uint64), found.lengths)
        positive[positive_end[i] - positives[i] : positive_end[i]] = pack(scores[mask], run)
        negative[ours] = scores[~mask]
        return found.touching + np.int32(start)

    touching = [pairs for pairs in each(fill, range(number), threads) if pairs is not None]
    weights, regions = np.empty(0), 0
    if touching:
        weights, regions = run_weights(lengths, np.concatenate(touching, axis=1))
    return Pixels(negative, positive, weights, regions, lowest, highest, positives > 0, threads)


def _mask(mask: ArrayLike, number: int, grid: Size | None) -> NDArray[np.bool_]:
    anomalous = as_mask(mask, number)
    return anomalous if grid is None else resize_nearest(anomalous, grid)


def _count(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    positives = int(np.count_nonzero(mask))
    return mask.size, positives, count_runs(mask) if positives else 0
