"""Pixel metrics of more maps than fit into memory, with true bounds on the error.

Maps are added as they come and forgotten. What stays is a histogram over the bits of the float32 scores: a bin for
each distinct score, or, once there would be more than ``BINS`` bins, for all scores that share their leading bits,
as many of them as fit. So nothing is approximate up to a million distinct scores, the memory is bounded whatever
is added, and accumulators of several processes or machines can be merged.

**Bounds.** Counts are exact; only the order within a bin of several scores is unknown. Raising an anomalous pixel
above a normal one never lowers a metric, so each metric lies between its values with all anomalous pixels of every
bin below, and above, the normal ones of that bin. A bin that holds one score alone is counted as the tie that it
is. Scores of which millions share 16 leading bits give wide bounds, which are true all the same.

>>> import numpy as np
>>> streamed = PixelAccumulator()
>>> streamed.add(np.array([[[0.1, 0.4], [0.35, 0.8]]]), np.array([[[0, 0], [1, 1]]]))
>>> streamed.metrics().values["pixel_auroc"]
0.75
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.guards import Counts, Extent
from bench.metrics.packing import LOW_WORD, as_integers
from bench.metrics.pixels import gather

# Bins beyond which leading bits are shared.
BINS = 1 << 20
# Pixels that are brought to the evaluation grid and sorted at a time.
_CHUNK = 1 << 24
_COLUMNS = ("least", "most", "counts", "weights")
NAMES = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


@dataclass(frozen=True)
class Streamed:
    """Metrics, and how far off each may be.

    Attributes:
        values: of each of ``NAMES`` a fraction in [0, 1]; None where there is no anomalous or no normal pixel.
        bounds: the exact value differs by at most this (and the rounding of sums, below 1e-10); None likewise.
        counts: of the pixels; those at the top are those that surely are, for the guards.
    """

    values: dict[str, float | None]
    bounds: dict[str, float | None]
    counts: Counts


@dataclass(frozen=True)
class Histogram:
    """Pixels by score, in ascending bins; a score is an integer in the order of the float32 numbers.

    Attributes:
        shift: trailing bits of a score that do not matter for its bin.
        least, most: ``(B,)`` uint32, the lowest and the highest score in each bin.
        counts: ``(2, B)`` int64, normal and anomalous pixels.
        weights: ``(B,)`` float64, sum of one over the size of its region, over the anomalous pixels.
    """

    shift: int
    least: NDArray[np.uint32]
    most: NDArray[np.uint32]
    counts: NDArray[np.int64]
    weights: NDArray[np.float64]

    @classmethod
    def empty(cls) -> Histogram:
        """A histogram of no pixels."""
        none = np.empty(0, dtype=np.uint32)
        return cls(0, none, none, np.empty((2, 0), dtype=np.int64), np.empty(0))

    @classmethod
    def of(cls, ordered: NDArray[np.uint32], weights: NDArray[np.float64] | None, shift: int) -> Histogram:
        """At most ``BINS`` bins of ascending scores, of normal pixels or of anomalous ones, which have weights."""
        if not len(ordered):
            return cls.empty()
        shift = _fitting(ordered, shift, BINS)
        starts = _starts(ordered >> np.uint32(shift))
        ends = np.append(starts[1:], len(ordered))
        counts = np.zeros((2, len(starts)), dtype=np.int64)
        counts[int(weights is not None)] = ends - starts
        sums = np.zeros(len(starts)) if weights is None else np.add.reduceat(weights, starts)
        return cls(shift, ordered[starts], ordered[ends - 1], counts, sums)

    def plus(self, other: Histogram) -> Histogram:
        """Both together in at most ``BINS`` bins, as coarse as those of the two or coarser."""
        shift = max(self.shift, other.shift)
        if not (len(self.least) and len(other.least)):
            return (self if len(self.least) else other)._coarser(shift)
        least = np.concatenate([self.least, other.least])
        # A stable sort merges the two, which are in order, in linear time.
        order = np.argsort(least, kind="stable")
        most = np.concatenate([self.most, other.most])[order]
        counts = np.concatenate([self.counts, other.counts], axis=1)[:, order]
        weights = np.concatenate([self.weights, other.weights])[order]
        together = Histogram(shift, least[order], most, counts, weights)
        return together._coarser(_fitting(together.least, shift, BINS))

    def _coarser(self, shift: int) -> Histogram:
        """The same with ``shift`` trailing bits; neighbours that share a bin become one."""
        starts = _starts(self.least >> np.uint32(shift))
        if len(starts) == len(self.least):
            return replace(self, shift=shift)
        counts, weights = np.add.reduceat(self.counts, starts, axis=1), np.add.reduceat(self.weights, starts)
        return Histogram(shift, self.least[starts], np.maximum.reduceat(self.most, starts), counts, weights)


def _fitting(ordered: NDArray[np.uint32], shift: int, bins: int) -> int:
    """The fewest trailing bits, ``shift`` or more, without which ascending scores need at most so many bins."""
    ordered = ordered[_starts(ordered >> np.uint32(shift))]
    while len(ordered) > bins:
        shift += 1
        ordered = ordered[_starts(ordered >> np.uint32(shift))]
    return shift


def _starts(ordered: NDArray[np.uint32]) -> NDArray[np.intp]:
    """The places at which another value begins in an ascending array."""
    if not len(ordered):
        return np.empty(0, dtype=np.intp)
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])


class PixelAccumulator:
    """Pixel metrics of one category, map by map.

    Attributes:
        extent: how far the scores of the maps that were added reach, and how many maps those are.

    Args:
        eval_size: side of the evaluation grid, ``(H, W)``, or None for each mask's own size.
    """

    def __init__(self, eval_size: int | tuple[int, int] | None = None) -> None:
        self.eval_size = eval_size
        self.extent = Extent()
        self._histogram = Histogram.empty()
        # Whether scores were rounded to float32, so that equal numbers may stand for different ones.
        self._rounded = False

    def add(self, maps: NDArray[Any] | Sequence[ArrayLike], masks: NDArray[Any] | Sequence[ArrayLike]) -> None:
        """Add images; the arrays may be forgotten afterwards.

        Args:
            maps: as in ``pixel_metrics``; a sequence that reads each map when it is asked for will do. Scores of
                higher precision are rounded to float32, and the bounds take account of it.
            masks: as in ``pixel_metrics``.

        Raises:
            ValueError: shapes or numbers that do not fit, a score that is not finite in float32. Images before
                the faulty one may then be in: ``extent`` says how many.
        """
        if len(maps) != len(masks):
            raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many")
        start = 0
        while start < len(maps):
            # As if all masks of a chunk were as large as its first.
            mask = np.asarray(masks[start])
            size = mask.size if self.eval_size is None else int(np.prod(np.broadcast_to(self.eval_size, 2)))
            stop = min(len(maps), start + max(1, _CHUNK // max(size, 1)))
            self._add([maps[i] for i in range(start, stop)], [masks[i] for i in range(start, stop)], start)
            start = stop

    def _add(self, maps: Sequence[ArrayLike], masks: Sequence[ArrayLike], first: int) -> None:
        pixels = gather(maps, masks, eval_size=self.eval_size, first=first, in_float32=True)
        with np.errstate(over="ignore", invalid="ignore"):
            ends = np.stack([pixels.lowest, pixels.highest, pixels.highest - pixels.lowest])
            finite = np.isfinite(ends.astype(np.float32)).all(axis=0)
        if not np.all(finite):
            raise ValueError(f"map {first + int(np.argmin(finite))} holds scores that are not finite in float32")
        negative, positive = as_integers(pixels.negative), pixels.positive
        negative.sort()
        positive.sort()
        # A pixel's weight is one over its region's size; the number of regions is known only at the end.
        weights = pixels.weights[(positive & LOW_WORD).astype(np.intp)] * pixels.regions
        shift = self._histogram.shift
        anomalous = Histogram.of((positive >> np.uint64(32)).astype(np.uint32), weights, shift)
        self._histogram = self._histogram.plus(Histogram.of(negative, None, shift).plus(anomalous))
        self._rounded |= pixels.rounded
        self.extent = self.extent.plus(pixels.extent)

    def merge(self, other: PixelAccumulator) -> None:
        """Add the images of another accumulator, which stays as it is.

        Raises:
            ValueError: its evaluation grid is another one, or it is this very accumulator.
        """
        if other.eval_size != self.eval_size:
            raise ValueError(f"evaluation grids differ: {self.eval_size} and {other.eval_size}")
        if other is self:
            raise ValueError("an accumulator cannot be merged with itself")
        self._histogram = self._histogram.plus(other._histogram)
        self._rounded |= other._rounded
        self.extent = self.extent.plus(other.extent)

    def metrics(self, fpr_limit: float = 0.3) -> Streamed:
        """The metrics of all images added so far; more may be added afterwards.

        Args:
            fpr_limit: largest false positive rate of the AUPRO, in (0, 1].

        Raises:
            ValueError: ``fpr_limit`` is out of range.
        """
        if not 0.0 < fpr_limit <= 1.0:
            raise ValueError(f"the false positive rate's limit must lie in (0, 1], not {fpr_limit}")
        bins = _Bins.of(self._histogram, ties_known=not self._rounded)
        counts = bins.counts()
        if not (counts.positives and counts.negatives):
            return Streamed(dict.fromkeys(NAMES), dict.fromkeys(NAMES), counts)
        found = dict(zip(NAMES, (bins.auroc(), bins.ap(), bins.f1max(), bins.aupro(fpr_limit)), strict=True))
        return Streamed(
            {name: min((low + high) / 2, 1.0) for name, (low, high) in found.items()},
            {name: max((high - low) / 2, 0.0) for name, (low, high) in found.items()},
            counts,
        )

    def to_bytes(self) -> bytes:
        """All of it, for another process or machine; see :meth:`from_bytes`."""
        histogram, extent = self._histogram, self.extent
        stream = io.BytesIO()
        np.savez(
            stream,
            eval_size=np.array([] if self.eval_size is None else self.eval_size, dtype=np.int64),
            extent=np.array([extent.maps, extent.flat, extent.lowest, extent.highest]),
            state=np.array([histogram.shift, self._rounded]),
            **{name: getattr(histogram, name) for name in _COLUMNS},
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> PixelAccumulator:
        """The accumulator that :meth:`to_bytes` wrote.

        Raises:
            ValueError: the bytes are something else.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = dict(archive)
            size = arrays["eval_size"]
            # A side is kept as a number, a height and a width as two.
            result = cls(int(size) if size.ndim == 0 else (int(size[0]), int(size[1])) if len(size) else None)
            maps, flat, lowest, highest = arrays["extent"]
            result.extent = Extent(int(maps), int(flat), float(lowest), float(highest))
            shift, rounded = arrays["state"]
            result._histogram = Histogram(int(shift), *(arrays[name] for name in _COLUMNS))
            result._rounded = bool(rounded)
        except (KeyError, TypeError, ValueError, IndexError, OSError, EOFError, BadZipFile) as error:
            raise ValueError(f"these bytes are no accumulator: {error}") from None
        return result


@dataclass(frozen=True)
class _Bins:
    """The bins of a histogram from the highest to the lowest, counts as float64, which is exact below 2**53.

    Attributes:
        positive, negative: anomalous and normal pixels in each bin; ``_above``: in higher bins.
        weight: weights of the anomalous pixels in each bin.
        tied: whether a bin holds one score alone.
    """

    positive: NDArray[np.float64]
    negative: NDArray[np.float64]
    positive_above: NDArray[np.float64]
    negative_above: NDArray[np.float64]
    weight: NDArray[np.float64]
    tied: NDArray[np.bool_]

    @classmethod
    def of(cls, histogram: Histogram, *, ties_known: bool) -> _Bins:
        negative, positive = histogram.counts[:, ::-1].astype(np.float64)
        # A single pixel is a tie with itself, whatever was rounded.
        tied = (histogram.least == histogram.most)[::-1] & (ties_known | (negative + positive == 1))
        above = np.cumsum(positive) - positive, np.cumsum(negative) - negative
        return cls(positive, negative, *above, histogram.weights[::-1], tied)

    def counts(self) -> Counts:
        """The numbers of pixels, and of those that surely tie at the largest score."""
        at_top = 1 if len(self.tied) and self.tied[0] else 0
        parts = self.positive, self.negative, self.positive[:at_top], self.negative[:at_top]
        return Counts(*(int(part.sum()) for part in parts))

    def auroc(self) -> tuple[float, float]:
        """Share of pairs in the right order: within a bin none to all of them, or half of them if it is a tie."""
        negatives = self.negative.sum()
        right = self.positive * (negatives - self.negative_above - self.negative)
        within = self.positive * self.negative
        pairs = self.positive.sum() * negatives
        low = np.sum(right + np.where(self.tied, within / 2, 0)) / pairs
        return float(low), float(low + np.sum(np.where(self.tied, 0, within)) / pairs)

    def ap(self) -> tuple[float, float]:
        """Precision at each anomalous pixel, averaged.

        Of those in a bin, the ``j``-th finds at least ``j`` of the bin's anomalous pixels and at most all of its
        normal ones; at best it finds all of the anomalous and none of the normal ones. In a tie it finds all of
        both.
        """
        # Late, because it takes longer than importing NumPy.
        from scipy.special import digamma

        there = np.flatnonzero(self.positive)
        count, above, tied = self.positive[there], self.positive_above[there], self.tied[there]
        false, false_down = self.negative_above[there], self.negative_above[there] + self.negative[there]
        tie = count * (above + count) / (above + count + false_down)
        most = count * (above + count) / (above + count + false)
        # Each term, (above + j) / (above + j + false), is 1 less false / (above + j + false), and the sum of
        # 1 / (n + j) is a difference of digammas.
        begin = above + false_down + 1
        least = count - false_down * (digamma(begin + count) - digamma(begin))
        positives = self.positive.sum()
        low, high = (np.sum(np.where(tied, tie, end)) / positives for end in (least, most))
        return float(low), float(high)

    def f1max(self) -> tuple[float, float]:
        """Best of 2 TP / (TP + FP + positives): at the lower ends of bins, or above the normal pixels in them."""
        found, false = self.positive_above + self.positive, self.negative_above + self.negative
        positives = self.positive.sum()
        at_end = 2 * found / (found + false + positives)
        at_best = 2 * found / (found + self.negative_above + positives)
        return float(at_end.max()), float(np.where(self.tied, at_end, at_best).max())

    def aupro(self, fpr_limit: float) -> tuple[float, float]:
        """Area under the overlap: each weight counts from the false positives at which it enters up to the limit.

        In a tie it enters linearly while the false positives pass over the tied ones, as in ``exact``.
        """
        limit = fpr_limit * self.negative.sum()
        down = self.negative_above + self.negative
        covered = np.clip(limit - self.negative_above, 0, self.negative)
        ramp = covered**2 / (2 * np.maximum(self.negative, 1)) + np.maximum(limit - down, 0)
        # The weights' sum is the number of regions.
        whole = self.weight.sum() * limit
        low = np.sum(self.weight * np.where(self.tied, ramp, np.maximum(limit - down, 0))) / whole
        high = np.sum(self.weight * np.where(self.tied, ramp, np.maximum(limit - self.negative_above, 0))) / whole
        return float(min(low, 1.0)), float(min(high, 1.0))
