"""Pixel metrics of more maps than fit into memory, with a bound on the error that holds for what was added.

Maps are added as they come and forgotten. What stays is a histogram whose buckets follow the data
(``buckets``) and, exactly, the highest scores of each class, where a single pixel can matter to average
precision. The memory is the same for a thousand maps as for a million, and accumulators of several processes
or machines can be merged.

**What is promised.** Every metric comes with a bound, and the exact value (that of ``exact``) lies within it,
whatever the scores: ties, a range of one millionth, or one of 70 powers of ten. As long as each class has no
more than ``KEPT`` pixels, nothing is approximate. Beyond, the bound aims to stay below ``precision``, in any order
of the maps: what is not known of a place is part of what its bucket may weigh (see ``refine`` in ``buckets``),
so that it does not add up where scores crowd into an ever narrower stretch. Whatever becomes of that aim, the
bound that is returned is true.

>>> import numpy as np
>>> streamed = PixelAccumulator(eval_size=None)
>>> streamed.add(np.array([[[0.1, 0.4], [0.35, 0.8]]]), np.array([[[0, 0], [1, 1]]]))
>>> streamed.metrics().values["pixel_auroc"]
0.75
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.bounds import intervals
from bench.metrics.buckets import LOWEST, NEGATIVE, POSITIVE, Buckets, Sorted, coarsen, refine
from bench.metrics.exact import PIXEL_METRICS
from bench.metrics.guards import Counts, Extent
from bench.metrics.packing import LOW_WORD, pack, unpack
from bench.metrics.parallel import each, threads_for
from bench.metrics.pixels import gather

# Scores of each class that are kept as they are, the highest.
KEPT = 1 << 18
# Pixels that are collected before they are sorted into buckets.
_BATCH = 1 << 24
# Pixels that are brought to the evaluation grid at a time.
_CHUNK = 1 << 22
# Buckets beyond which neighbours are joined.
_BUCKETS = 1 << 20


@dataclass(frozen=True)
class Streamed:
    """Metrics and how far off each may be.

    Attributes:
        values: ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max``, ``aupro``: fractions in [0, 1], None where
            there is no anomalous or no normal pixel.
        bounds: the exact value differs from ``values`` by at most this; None likewise.
        counts: of the pixels; those at the top are those that surely are, for the guards.
    """

    values: dict[str, float | None]
    bounds: dict[str, float | None]
    counts: Counts


class PixelAccumulator:
    """Pixel metrics of one category, map by map.

    Attributes:
        extent: how far the scores of the maps that are in reach, and how many maps those are.

    Args:
        eval_size: as in ``pixel_metrics``: side of the evaluation grid, ``(H, W)``, or None for each mask's
            own size.
        precision: aim for the error bound; half of it needs twice the buckets.
    """

    def __init__(self, eval_size: int | tuple[int, int] | None = 256, *, precision: float = 1e-4) -> None:
        if not 0 < precision < 1:
            raise ValueError(f"precision must lie in (0, 1), not {precision}")
        self.eval_size = eval_size
        self.precision = precision
        self.extent = Extent()
        self._batch: list[NDArray[np.float32]] = []
        self._batch_positive: list[NDArray[np.float32]] = []
        self._batch_weights: list[NDArray[np.float64]] = []
        self._waiting = 0
        self._top_negative = np.empty(0, dtype=np.float32)
        self._top_positive = np.empty(0, dtype=np.float32)
        self._top_weights = np.empty(0)
        self._buckets = Buckets.empty()

    # ------------------------------------------------------------ adding

    def add(self, maps: NDArray[Any] | Sequence[ArrayLike], masks: NDArray[Any] | Sequence[ArrayLike]) -> None:
        """Add images; the arrays may be forgotten afterwards.

        Args:
            maps: as in ``pixel_metrics``; a sequence that reads each map when it is asked for will do.
            masks: as in ``pixel_metrics``.

        Raises:
            ValueError: shapes or numbers that do not fit, a score that is not finite in float32. Some of the
                images before the faulty one are then in: ``extent`` says how many.
        """
        if len(maps) != len(masks):
            raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many")
        start = 0
        while start < len(maps):
            mask = np.asarray(masks[start])
            size = mask.size if self.eval_size is None else int(np.prod(np.broadcast_to(self.eval_size, 2)))
            stop = min(len(maps), start + max(1, _CHUNK // max(size, 1)))
            self._add([maps[i] for i in range(start, stop)], [masks[i] for i in range(start, stop)], start)
            start = stop

    def _add(self, maps: Sequence[ArrayLike], masks: Sequence[ArrayLike], first: int) -> None:
        pixels = gather(maps, masks, eval_size=self.eval_size, first=first)
        if not np.all(pixels.finite):
            bad = first + int(np.argmin(pixels.finite))
            raise ValueError(f"map {bad} holds scores that are not finite in float32")
        scores, runs = unpack(pixels.positive), (pixels.positive & LOW_WORD).astype(np.intp)
        self._batch.append(pixels.negative)
        self._batch_positive.append(scores)
        # A pixel's weight is one over its region's size; how many regions there will be is not yet known.
        self._batch_weights.append(pixels.weights[runs] * pixels.regions)
        self._waiting += len(pixels.negative) + len(scores)
        self.extent = self.extent.plus(pixels.extent)
        if self._waiting >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        """Sort what waits into the buckets."""
        if not self._waiting:
            return
        threads = threads_for(self._waiting)
        batch, self._batch = self._batch, []
        stretches = [batch[i::threads] for i in range(threads) if batch[i::threads]]
        negative = each(_sorted, stretches, threads)
        del batch, stretches
        positive = np.concatenate([self._top_positive, *self._batch_positive])
        weights = np.concatenate([self._top_weights, *self._batch_weights])
        self._batch_positive, self._batch_weights, self._waiting = [], [], 0

        # The highest stay as they are; what they displace goes into the buckets with the rest.
        highest = np.sort(np.concatenate([self._top_negative, *(part[-KEPT:] for part in negative)]))
        self._top_negative = highest[-KEPT:].copy()
        negative = [*(part[:-KEPT] for part in negative), highest[:-KEPT]]
        # As one bare integer a score and its place are sorted many times faster than by argsort.
        packed = pack(positive, np.arange(len(positive), dtype=np.uint64))
        packed.sort()
        positive, weights = unpack(packed), weights[(packed & LOW_WORD).astype(np.intp)]
        self._top_positive, self._top_weights = positive[-KEPT:].copy(), weights[-KEPT:].copy()
        if any(map(len, negative)) or len(positive) > KEPT:
            self._fill(Sorted(negative, positive[:-KEPT], weights[:-KEPT], threads))

    def _fill(self, pixels: Sorted) -> None:
        above = (len(self._top_negative), len(self._top_positive))
        parts = (self._top_weights, pixels.weights, self._buckets.weights[LOWEST])
        weight = float(sum(part.sum() for part in parts))
        buckets = refine(self._buckets, pixels, above=above, weight=weight, share=self.precision)
        self._buckets = buckets.with_pixels(pixels)
        if len(self._buckets) > _BUCKETS:
            self._buckets = coarsen(self._buckets, above=above, share=self.precision)

    # ------------------------------------------------------------ merging

    def merge(self, other: PixelAccumulator) -> None:
        """Take in what another accumulator holds, which itself stays as it is but for being sorted.

        Raises:
            ValueError: its evaluation grid is another one.
        """
        if other.eval_size != self.eval_size:
            raise ValueError(f"evaluation grids differ: {self.eval_size} and {other.eval_size}")
        if other is self:
            raise ValueError("an accumulator cannot be merged with itself")
        self._flush()
        other._flush()
        edges = np.union1d(self._buckets.edges, other._buckets.edges)
        self._buckets = self._buckets.on(edges).plus(other._buckets.on(edges))
        # As if they were just added: what is not among the highest of both goes into the buckets.
        self._batch, self._batch_positive = [other._top_negative], [other._top_positive]
        self._batch_weights = [other._top_weights]
        self._waiting = len(other._top_negative) + len(other._top_positive)
        self.extent = self.extent.plus(other.extent)
        self._flush()

    def to_bytes(self) -> bytes:
        """All of it, for another process or machine; see :meth:`from_bytes`."""
        self._flush()
        size = () if self.eval_size is None else np.broadcast_to(self.eval_size, 2)
        stream = io.BytesIO()
        np.savez(
            stream,
            eval_size=np.array(size, dtype=np.int64),
            square=isinstance(self.eval_size, int),
            precision=self.precision,
            extent=np.array([self.extent.maps, self.extent.flat, self.extent.lowest, self.extent.highest]),
            top_negative=self._top_negative,
            top_positive=self._top_positive,
            top_weights=self._top_weights,
            edges=self._buckets.edges,
            counts=self._buckets.counts,
            weights=self._buckets.weights,
            largest=self._buckets.largest,
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> PixelAccumulator:
        """What :meth:`to_bytes` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays: Mapping[str, NDArray[Any]] = dict(archive)
            height, width = arrays["eval_size"] if len(arrays["eval_size"]) else (0, 0)
            size = (int(height) if arrays["square"] else (int(height), int(width))) if height else None
            result = cls(size, precision=float(arrays["precision"]))
            number, flat, lowest, highest = arrays["extent"]
            result.extent = Extent(int(number), int(flat), float(lowest), float(highest))
            result._top_negative = arrays["top_negative"]
            result._top_positive, result._top_weights = arrays["top_positive"], arrays["top_weights"]
            result._buckets = Buckets(*(arrays[name] for name in ("edges", "counts", "weights", "largest")))
        except (KeyError, TypeError, ValueError, OSError, EOFError, BadZipFile) as error:
            raise ValueError(f"these bytes are no accumulator: {error}") from None
        return result

    # ------------------------------------------------------------ reading

    def metrics(self, fpr_limit: float = 0.3) -> Streamed:
        """The metrics of all images added so far; more may be added afterwards.

        Args:
            fpr_limit: largest false positive rate of the AUPRO, in (0, 1].

        Raises:
            ValueError: ``fpr_limit`` is out of range.
        """
        if not 0.0 < fpr_limit <= 1.0:
            raise ValueError(f"the false positive rate's limit must lie in (0, 1], not {fpr_limit}")
        self._flush()
        whole = self._whole()
        # Each of the highest scores has a bucket of its own.
        top = np.searchsorted(whole.edges, whole.largest.max(), side="right") - 1
        all_, at_top = whole.counts[:, LOWEST].sum(axis=1), whole.counts[:, LOWEST, top]
        counts = Counts(*(int(part[kind]) for part in (all_, at_top) for kind in (POSITIVE, NEGATIVE)))
        if not (counts.positives and counts.negatives):
            nothing: dict[str, float | None] = dict.fromkeys(PIXEL_METRICS)
            return Streamed(nothing, {**nothing}, counts)
        found = intervals(whole, fpr_limit=fpr_limit)
        return Streamed(
            {name: interval.value for name, interval in found.items()},
            {name: interval.bound for name, interval in found.items()},
            counts,
        )

    def _whole(self) -> Buckets:
        """The buckets with the highest scores in them, each in one of its own."""
        top = np.union1d(self._top_negative, self._top_positive)
        edges = np.unique(np.concatenate([self._buckets.edges, top, np.nextafter(top, np.float32(np.inf))]))
        return self._buckets.on(edges).with_pixels(
            Sorted([self._top_negative], self._top_positive, self._top_weights)
        )


def _sorted(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    whole = np.concatenate(parts)
    whole.sort()
    return whole
