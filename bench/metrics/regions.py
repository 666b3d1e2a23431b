"""Defect regions (8-connected components of the masks) as weights of the anomalous pixels.

In the mean over all regions of the share of a region that is found, a pixel counts
``1 / (its region's size * number of regions)`` (MVTec's per-region overlap). So a weight per anomalous pixel
is all that the metric needs, and no image of labels is made: a mask is cut into runs (horizontal stretches of
anomalous pixels), runs that touch are joined, and pixels take the weight of their run. The work beyond
reading the masks grows with the number of runs, not of pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Runs:
    """The runs of one mask, in raster order.

    Attributes:
        lengths: ``(runs,)`` pixels in each run; in raster order the anomalous pixels are these runs end to
            end.
        touching: ``(2, pairs)`` runs of neighbouring rows that touch, also by a corner.
    """

    lengths: NDArray[np.int32]
    touching: NDArray[np.int32]


def find_runs(mask: NDArray[np.bool_]) -> Runs:
    """Cut a ``(H, W)`` bool mask into runs and find those that touch."""
    height, width = mask.shape
    # One empty column before each row, and one pixel after the last: then no run goes on into the next row,
    # and neighbours across the image border do not look like neighbours in memory.
    stride = width + 1
    flat = np.zeros(height * stride + 1, dtype=np.bool_)
    flat[:-1].reshape(height, stride)[:, 1:] = mask
    borders = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts, ends = borders[0::2], borders[1::2]
    # A run [start, end) touches those of the next row that end at start or later and start at end or earlier.
    first = np.searchsorted(ends, starts + stride, side="left")
    count = np.searchsorted(starts, ends + stride, side="right") - first
    upper = np.repeat(np.arange(len(starts)), count)
    lower = np.arange(len(upper)) + np.repeat(first - (np.cumsum(count) - count), count)
    return Runs((ends - starts).astype(np.int32), np.stack([upper, lower]).astype(np.int32))


def run_weights(lengths: NDArray[np.int32], touching: NDArray[np.int32]) -> tuple[NDArray[np.float64], int]:
    """Return the weight of a pixel of each run, and the number of regions.

    Args:
        lengths: ``(runs,)`` pixels in each run, of all images together.
        touching: ``(2, pairs)`` runs that touch.

    Returns:
        ``(runs,)`` weights, ``1 / (region's size * number of regions)``: over all pixels they sum to 1.
    """
    # Late, because it takes longer than importing NumPy and only pixel metrics need it.
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    total = len(lengths)
    graph = coo_array((np.ones(touching.shape[1], dtype=np.bool_), tuple(touching)), shape=(total, total))
    regions, region = connected_components(graph, directed=False)
    # Counts as float64 are exact below 2**53.
    sizes = np.bincount(region, weights=lengths, minlength=regions)
    return 1.0 / (sizes[region] * regions), int(regions)
