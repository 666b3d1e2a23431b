"""Overlap curves through few thresholds, as published evaluation code draws them.

Each function returns the protocol's number or why there is none: a grid can leave fewer than two points below
the limit, where the published code divides by zero.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.packing import LOW_WORD, unpack
from bench.metrics.pixels import Pixels

# ADer's guard against division by zero (util/metric.py).
_EPSILON = 1e-8


@dataclass(frozen=True)
class Curves:
    """Sorted pixels, ready to be counted above any threshold.

    Attributes:
        negative: ``(normal pixels,)`` float32, ascending.
        positive: ``(anomalous pixels,)`` float32, ascending.
        found: ``(P,)`` float32, ascending: the pixels that count towards the overlap; most often ``positive``.
        upto: ``(P + 1,)`` float64: the overlap's share of the lowest 0, 1, ... of ``found``.
    """

    negative: NDArray[np.float32]
    positive: NDArray[np.float32]
    found: NDArray[np.float32]
    upto: NDArray[np.float64]

    @property
    def range(self) -> tuple[np.float32, np.float32]:
        """The lowest and the highest score."""
        low, high = min(self.negative[0], self.positive[0]), max(self.negative[-1], self.positive[-1])
        return np.float32(low), np.float32(high)

    def rates(self, thresholds: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the false positive rate and the overlap of the pixels above each threshold."""
        false = len(self.negative) - np.searchsorted(self.negative, thresholds, side="right")
        overlap = self.upto[-1] - self.upto[np.searchsorted(self.found, thresholds, side="right")]
        return false / len(self.negative), overlap


def curves(pixels: Pixels, filled: tuple[NDArray[np.float32], NDArray[np.float64]] | None = None) -> Curves:
    """Return the curves of ranked pixels (``gather`` with one thread, then ``rank``).

    Args:
        pixels: both classes there, sorted by ``rank``.
        filled: scores and weights that make up the overlap instead of the anomalous pixels'.
    """
    positive = unpack(pixels.positive)
    if filled is None:
        found, weights = positive, pixels.weights[(pixels.positive & LOW_WORD).astype(np.intp)]
    else:
        order = np.argsort(filled[0], kind="stable")
        found, weights = filled[0][order], filled[1][order]
    return Curves(pixels.negative, positive, found, np.concatenate([[0.0], np.cumsum(weights)]))


def filled_regions(
    maps: NDArray[Any] | Sequence[ArrayLike], masks: NDArray[Any] | Sequence[ArrayLike]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return scores and weights of all pixels in the regions and in their holes.

    A weight is one over the size of the region *without* its holes and over the number of regions, so that
    they may sum to more than 1 (caoyunkang/WinClip utils/metrics.py divides the overlap with
    ``filled_image`` by ``area``).
    """
    from scipy import ndimage

    square = np.ones((3, 3), dtype=np.bool_)
    scores, weights, regions = [], [], 0
    for i in range(len(masks)):
        mask = np.asarray(masks[i])
        if not mask.any():
            continue
        labels, number = ndimage.label(mask, structure=square)
        map_ = np.asarray(maps[i])
        for region, box in enumerate(ndimage.find_objects(labels), start=1):
            own = labels[box] == region
            inside = map_[box][ndimage.binary_fill_holes(own, structure=square)]
            scores.append(inside)
            weights.append(np.full(inside.size, 1 / np.count_nonzero(own)))
        regions += number
    return np.concatenate(scores), np.concatenate(weights) / regions


def steps(found: Curves, *, number: int, rising: bool, limit: float) -> tuple[float | None, str | None]:
    """Area under the overlap curve through equal steps of the score, its axis stretched to [0, 1].

    Rising thresholds start at the lowest score and keep false positive rates below the limit; falling ones
    start at the highest and keep those up to the limit. The arithmetic is float32, as in the published code,
    since the maps are.
    """
    low, high = found.range
    step = (high - low) / np.float32(number)
    if not step:
        return None, f"{number} steps cannot be told apart between {low:.6g} and {high:.6g}"
    if rising:
        # From the highest down, so that rates and overlaps ascend.
        thresholds = np.arange(low, high, step, dtype=np.float32)[::-1]
    else:
        thresholds = high - np.arange(number, dtype=np.float32) * step
    rate, overlap = found.rates(thresholds)
    kept = rate < limit if rising else rate <= limit
    rate, overlap = rate[kept], overlap[kept]
    if len(rate) == 0 or rate[0] == rate[-1]:
        sign = "<" if rising else "<="
        return None, f"the {number} thresholds give fewer than two false positive rates {sign} {limit:g}"
    return float(np.trapezoid(overlap, (rate - rate[0]) / (rate[-1] - rate[0]))), None


def ranks(found: Curves, *, number: int, limit: float) -> float:
    """Area under the overlap curve through the normal pixels at equally spaced ranks, up to the limit.

    The rate belongs to the rank, not to the score: where normal pixels are tied the two disagree, as in
    the published code.
    """
    count = len(found.negative)
    position = np.linspace(0, count - 1, num=number, dtype=int)
    _, overlap = found.rates(found.negative[position])
    rate = np.append(1.0, 1.0 - (position + 1) / count)[::-1]
    return area_upto(rate, np.append(1.0, overlap)[::-1], limit)


def area_upto(rate: NDArray[np.float64], overlap: NDArray[np.float64], limit: float) -> float:
    """Return the area under a curve up to ``limit``, interpolated there, divided by it.

    ``rate`` ascends to the limit or beyond.
    """
    inside = int(np.searchsorted(rate, limit, side="right"))
    area = float(np.trapezoid(overlap[:inside], rate[:inside]))
    if inside < len(rate) and rate[inside - 1] < limit:
        last, next_ = inside - 1, inside
        share = (limit - rate[last]) / (rate[next_] - rate[last])
        end = overlap[last] + share * (overlap[next_] - overlap[last])
        area += float((limit - rate[last]) * (overlap[last] + end) / 2)
    return area / limit


def bins(found: Curves, *, number: int, limit: float) -> tuple[dict[str, float], str | None]:
    """AUROC, AP and AUPRO by trapezoids through the borders of equal bins, and F1 at 21 thresholds.

    As in adeval, of which ADer asks 50 bins: curves begin at the highest border, not at 0, and pixels at the
    highest score are counted twice, once in the last bin, which includes its end, and once beyond.

    Returns:
        The metrics, and why ``aupro`` is not among them, or None.
    """
    low, high = (float(end) for end in found.range)

    def above(ordered: NDArray[np.float32], weight_upto: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weight at or above each border, from the highest border down."""
        begin = [
            bisect_left(ordered, float(k), key=lambda score: (float(score) - low) * number / (high - low))
            for k in range(number)
        ]
        at_end = weight_upto[-1] - weight_upto[np.searchsorted(ordered, np.float32(high))]
        inner = weight_upto[-1] - weight_upto[begin] + at_end
        return np.concatenate([[at_end], inner[::-1]])

    true = above(found.positive, np.arange(len(found.positive) + 1.0))
    false = above(found.negative, np.arange(len(found.negative) + 1.0))
    overlap = above(found.found, found.upto)
    rate, recall, share = false / false[-1], true / true[-1], overlap / overlap[-1]
    metrics = {
        "pixel_auroc": float(np.trapezoid(recall, rate)),
        "pixel_ap": float(np.trapezoid(true / (true + false), recall)),
        "pixel_f1max": _f1_at_steps(found, low, high),
    }
    if rate[0] > limit:
        return metrics, f"more than {limit:.0%} of the normal pixels have the highest score"
    return {**metrics, "aupro": area_upto(rate, share, limit)}, None


def _f1_at_steps(found: Curves, low: float, high: float) -> float:
    """The best F1 above 0, 0.05, ..., 1 of the scores stretched to [0, 1] (ADer's ``mF1_max_px``)."""
    best = 0.0
    for threshold in np.arange(0.0, 1.0 + 1e-3, 0.05):
        true, false = (
            len(ordered)
            - bisect_right(ordered, float(threshold), key=lambda score: (float(score) - low) / (high - low))
            for ordered in (found.positive, found.negative)
        )
        precision = true / (true + false + _EPSILON)
        recall = true / (len(found.positive) + _EPSILON)
        best = max(best, 2 * precision * recall / (precision + recall + _EPSILON))
    return best
