"""A histogram whose buckets follow the data, and which knows how far off it may be.

Buckets are half-open stretches of the float32 numbers, in their order. Where their borders lie is settled by
the scores seen so far, by rank and never by value: so the range of the scores does not matter, nor does any
increasing function that is applied to them. Only whether a bucket holds a single float32 number, and so
nothing but ties, is asked of the numbers themselves.

A bucket that grows too heavy is split. What it held before can then lie in any of its parts, so every count
is kept twice: once in the lowest bucket in which it may lie and once in the highest. The two are equal as
long as nothing has been split or joined, and their difference is what is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.metrics.parallel import each

NEGATIVE, POSITIVE = 0, 1
LOWEST, HIGHEST = 0, 1

# A bucket is cut into at most so many parts at once: how fine they must be is known better after the cut.
_PARTS = 16
# New pixels may take this share of a bucket's limit, however little of it is left.
_LEAST = 1 / 64


@dataclass(frozen=True)
class Buckets:
    """Counts and weights by bucket.

    Attributes:
        edges: ``(B + 1,)`` float32, ascending, from -inf to inf; bucket ``i`` holds ``edges[i] <= score <
            edges[i + 1]``.
        counts: ``(2, 2, B)`` int64: normal and anomalous pixels, each by lowest and by highest bucket.
        weights: ``(2, B)`` float64: weights of the anomalous pixels, by lowest and by highest bucket.
        largest: ``(2,)`` float32: the largest score of a normal and of an anomalous pixel; -inf without any.
            The topmost bucket has no upper end of its own.
    """

    edges: NDArray[np.float32]
    counts: NDArray[np.int64]
    weights: NDArray[np.float64]
    largest: NDArray[np.float32]

    @classmethod
    def empty(cls) -> Buckets:
        """One bucket for everything, with nothing in it."""
        edges = np.array([-np.inf, np.inf], dtype=np.float32)
        largest = np.full(2, -np.inf, dtype=np.float32)
        return cls(edges, np.zeros((2, 2, 1), dtype=np.int64), np.zeros((2, 1)), largest)

    def __len__(self) -> int:
        return len(self.edges) - 1

    @property
    def single(self) -> NDArray[np.bool_]:
        """``(B,)`` whether a bucket holds one float32 number alone, so that all in it are tied."""
        result: NDArray[np.bool_] = _next(self.edges[:-1]) == self.edges[1:]
        return result

    def on(self, edges: NDArray[np.float32]) -> Buckets:
        """The same on other ``edges``, finer or coarser: what is known of each count stays true."""
        low = np.searchsorted(edges, self.edges[:-1], side="right") - 1
        high = np.searchsorted(edges, self.edges[1:], side="left") - 1
        last = np.searchsorted(edges, self.largest, side="right") - 1
        size = len(edges) - 1
        counts = np.empty((2, 2, size), dtype=np.int64)
        weights = np.empty((2, size))
        for kind in (NEGATIVE, POSITIVE):
            for end, place in ((LOWEST, low), (HIGHEST, np.minimum(high, np.maximum(last[kind], low)))):
                # Counts as float64 are exact below 2**53.
                counts[kind, end] = np.bincount(place, self.counts[kind, end], size)
                if kind == POSITIVE:
                    weights[end] = np.bincount(place, self.weights[end], size)
        return Buckets(edges, counts, weights, self.largest)

    def plus(self, other: Buckets) -> Buckets:
        """Both together; they must have the same edges."""
        largest = np.maximum(self.largest, other.largest)
        return Buckets(self.edges, self.counts + other.counts, self.weights + other.weights, largest)

    def with_pixels(self, pixels: Sorted) -> Buckets:
        """With more pixels in it."""
        counts, weight, largest = self.counts.copy(), self.weights.copy(), self.largest.copy()
        for kind, parts in ((NEGATIVE, pixels.negative), (POSITIVE, [pixels.positive])):
            largest[kind] = max([largest[kind], *(part[-1] for part in parts if len(part))])
        *negative, positive = pixels.starts(self.edges)
        for start in negative:
            counts[NEGATIVE] += np.diff(start)
        size = np.diff(positive)
        counts[POSITIVE] += size
        # One addition per pixel into its bucket: differences of running sums would lose small weights.
        weight += np.bincount(np.repeat(np.arange(len(self)), size), pixels.weights, len(self))
        return Buckets(self.edges, counts, weight, largest)


class Sorted:
    """Sorted pixels on their way into buckets.

    Args:
        negative: stretches of normal pixels, each ascending.
        positive: anomalous pixels, ascending.
        weights: of the anomalous pixels.
        threads: how many may be used to look edges up.
    """

    def __init__(
        self,
        negative: Sequence[NDArray[np.float32]],
        positive: NDArray[np.float32],
        weights: NDArray[np.float64],
        threads: int = 1,
    ) -> None:
        self.negative, self.positive, self.weights = negative, positive, weights
        self._threads = threads
        self._edges: NDArray[np.float32] | None = None
        self._found: list[NDArray[np.intp]] = []

    def starts(self, edges: NDArray[np.float32]) -> list[NDArray[np.intp]]:
        """Where each bucket begins in each stretch of normal pixels and in the anomalous ones, and the ends.

        What was found for the last ``edges`` is kept, since filling follows on refining.
        """
        if edges is not self._edges:
            parts = [*self.negative, self.positive]
            self._found = each(lambda part: _starts(part, edges), parts, self._threads)
            self._edges = edges
        return self._found


def _starts(ordered: NDArray[np.float32], edges: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return where each bucket begins in a sorted array, and where the last one ends."""
    inner = np.searchsorted(ordered, edges[1:-1], side="left")
    return np.concatenate([[0], inner, [len(ordered)]])


def _next(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the next float32 number above each."""
    result: NDArray[np.float32] = np.nextafter(values, np.float32(np.inf))
    return result


def _above(counts: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Return how many lie above each bucket, ``first`` of them above all buckets."""
    return first + np.cumsum(counts[::-1])[::-1] - counts


def refine(buckets: Buckets, pixels: Sorted, *, above: tuple[int, int], weight: float, share: float) -> Buckets:
    """Split buckets so that, with the pixels that are about to be added, none is too heavy.

    A bucket is too heavy when the normal pixels that may lie in it are more than ``share`` of those above it, or
    the anomalous ones more than ``share`` of those above it. All count that may lie in it: where a bucket was
    split, what it held may be in any part, so that each part starts with that much of its limit taken, and is
    cut the finer. So what is not known of a place does not add up however often scores crowd into it (as in
    Greenwald and Khanna, SIGMOD 2001). A bucket that holds ties alone cannot be split.

    A score with an anomalous pixel of more than ``share`` of all weight, one of a small region among few, gets a
    bucket of its own: however many normal pixels come to lie around it, where it stands among them is known.

    Args:
        buckets: what is there already.
        pixels: what is about to be added.
        above: normal and anomalous pixels that lie above all buckets; from 1.
        weight: of all anomalous pixels, those above and those about to be added too.
        share: see above.
    """
    own = pixels.positive[pixels.weights > share * weight]
    if len(own):
        buckets = buckets.on(np.unique(np.concatenate([buckets.edges, own, _next(own)])))
    while True:
        cuts: list[NDArray[np.float32]] = []
        open_ = ~buckets.single
        *of_negative, of_positive = pixels.starts(buckets.edges)
        for kind, parts, starts in (
            (NEGATIVE, pixels.negative, of_negative),
            (POSITIVE, [pixels.positive], [of_positive]),
        ):
            sizes = np.stack([np.diff(start) for start in starts])
            new, (low, high) = sizes.sum(axis=0), buckets.counts[kind]
            # By lowest bucket: what lies above a bucket is then, if anything, underrated.
            limit = share * np.maximum(_above(low + new, above[kind]), 1)
            # Lowest here or in a bucket below, highest here or in one above.
            possible = np.cumsum(low) - (np.cumsum(high) - high)
            too_heavy = (possible + new > np.maximum(limit, 1)) & (new > _LEAST * limit)
            heavy = np.flatnonzero(open_ & too_heavy)
            if not len(heavy):
                continue
            # Parts of half the weight that is left: so they need not be split again soon.
            left = np.maximum(limit - possible, _LEAST * limit)[heavy]
            pieces = np.clip(np.ceil(2 * new[heavy] / left), 2, _PARTS).astype(np.intp)
            # The stretch with most of the bucket's pixels says where to cut.
            chosen = sizes[:, heavy].argmax(axis=0)
            for index, (part, start) in enumerate(zip(parts, starts, strict=True)):
                ours = chosen == index
                if np.any(ours):
                    cuts.append(_cuts(part, start, heavy[ours], pieces[ours], buckets.edges))
        if not cuts:
            return buckets
        edges = np.unique(np.concatenate([buckets.edges, *cuts]))
        if len(edges) == len(buckets.edges):
            return buckets
        buckets = buckets.on(edges)


def _cuts(
    part: NDArray[np.float32],
    starts: NDArray[np.intp],
    heavy: NDArray[np.intp],
    pieces: NDArray[np.intp],
    edges: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return edges that cut each of the ``heavy`` buckets into ``pieces`` of as many pixels each."""
    begin, size = starts[heavy], starts[heavy + 1] - starts[heavy]
    inner = pieces - 1
    bucket = np.repeat(np.arange(len(heavy)), inner)
    step = np.arange(len(bucket)) - np.repeat(np.cumsum(inner) - inner, inner) + 1
    values = part[begin[bucket] + size[bucket] * step // pieces[bucket]]
    # A number on which two cuts fall, or that is its bucket's lowest, is tied often: it gets its own bucket.
    tied = values == edges[heavy][bucket]
    tied[1:] |= values[1:] == values[:-1]
    return np.concatenate([values, _next(values[tied])])


def coarsen(buckets: Buckets, *, above: tuple[int, int], share: float) -> Buckets:
    """Join neighbours that are together no heavier than ``refine`` would make them."""
    keep = np.zeros(len(buckets) + 1, dtype=np.bool_)
    keep[[0, -1]] = True
    weights = buckets.weights[LOWEST]
    for kind in (NEGATIVE, POSITIVE):
        counts = buckets.counts[kind, LOWEST]
        top = np.maximum(_above(counts, above[kind]), 1)
        # Borders stay where the number above them passes from one power of (1 + share / 2) to the next.
        power = np.floor(np.log(top) / np.log1p(share / 2))
        keep[1:-1] |= power[1:] != power[:-1]
        alone = buckets.single & ((counts > share / 2 * top) | (weights > share * weights.sum()))
        keep[:-1] |= alone
        keep[1:] |= alone
    return buckets.on(buckets.edges[keep])
