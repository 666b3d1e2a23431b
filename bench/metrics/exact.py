"""The exact engine: AUROC, AP, F1-max and AUPRO from one pass over the scores.

All four follow from where the anomalous scores (positives) stand among the normal ones (negatives), and from
the positives' region weights:

* AUROC is the share of (positive, negative) pairs in the right order, a tie counting half.
* AP and F1-max take, at each distinct positive score, the positives and the negatives at or above it.
  Thresholds at which no positive enters can only lower precision, so they matter to neither.
* AUPRO: as the threshold falls past a positive's score, the overlap rises by the positive's weight while the
  false positive rate passes over the negatives tied with it: a ramp, and the area under the curve is the sum
  of the ramps'.

So the negatives are sorted alone, as bare float32, which NumPy does with SIMD instructions, and the positives
(few) are sorted with their weights and looked up. No array of all pixels is ever sorted together with a
payload. The negatives need not even be sorted as one: ranks add up over parts, so each thread sorts a part of
its own, and the answer is the same to the last bit for any number of parts.

Counts are integers and sums are float64.

Sources: AUROC, AP and F1 as in scikit-learn's ``roc_auc_score``, ``average_precision_score`` and
``precision_recall_curve``; AUPRO as in MVTec's evaluation code (Bergmann et al., IJCV 129, 2021): the mean
over all regions of the category, false positives over all its normal pixels, linear interpolation at the
limit, divided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.packing import LOW_WORD, pack, unpack
from bench.metrics.parallel import each, threads_for
from bench.metrics.regions import count_runs, find_runs, run_weights
from bench.metrics.resize import Size, as_size, resize_bilinear, resize_nearest

# Positives handled at a time: large enough to hide Python's cost, small enough that temporaries stay small.
_CHUNK = 1 << 16
# Positives looked up at a time: they then fall into a stretch of the negatives that fits the processor's
# cache, which halves the time of the search.
_LOOKUP = 1 << 12


# ------------------------------------------------------------------------------------- what both levels share


@dataclass(frozen=True)
class _Groups:
    """Distinct positive scores, ascending (or a stretch of them).

    Attributes:
        count: positives with this score (within the stretch).
        above: positives at or above this score.
        below: negatives below this score.
        upto: negatives at or below this score.
    """

    count: NDArray[np.int64]
    above: NDArray[np.int64]
    below: NDArray[np.int64]
    upto: NDArray[np.int64]


@dataclass(frozen=True)
class _Sums:
    """What a stretch of positives adds to the metrics."""

    ranks: int
    precision: float
    f1: float
    area: float = 0.0


def _sums(groups: _Groups, positives: int, negatives: int) -> _Sums:
    found = groups.above + (negatives - groups.below)
    # np.sum, not np.dot: the BLAS behind the latter starts threads of its own, which cost more than the sum.
    return _Sums(
        ranks=int(np.sum(groups.count * (groups.below + groups.upto))),
        precision=float(np.sum(groups.count * groups.above / found)),
        # 2PR / (P + R) = 2 TP / (TP + FP + positives)
        f1=float(np.max(2 * groups.above / (found + positives))),
    )


def _threshold_metrics(parts: Sequence[_Sums], positives: int, negatives: int) -> tuple[float, float, float]:
    # Python integers: no overflow, and one rounding, in the division.
    ranks = sum(part.ranks for part in parts)
    precision = float(np.sum([part.precision for part in parts]))
    return ranks / (2 * positives * negatives), precision / positives, max(part.f1 for part in parts)


def as_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return ``(N,)`` bool labels, True for anomalous.

    Raises:
        ValueError: not one-dimensional, empty, or a value other than 0 and 1.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"labels must be one-dimensional and not empty, not of shape {array.shape}")
    result: NDArray[np.bool_] = array == 1
    if not np.all(result | (array == 0)):
        raise ValueError("labels must be 0 (normal) or 1 (anomalous)")
    return result


def as_scores(scores: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return ``(count,)`` float64 scores.

    Raises:
        ValueError: another shape.
    """
    array = np.asarray(scores, dtype=np.float64)
    if array.shape != (count,):
        raise ValueError(f"expected {count} scores, one for each label, not an array of shape {array.shape}")
    return array


def binary_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float | None]:
    """Exact AUROC, AP and F1-max of scores against binary labels.

    Args:
        scores: ``(N,)`` finite scores of any real type (compared in float64); higher is more anomalous.
        labels: ``(N,)`` 0 (normal) or 1 (anomalous), or bool.

    Returns:
        ``auroc``, ``ap`` (step-wise, as scikit-learn's ``average_precision_score``) and ``f1max`` (over all
        distinct thresholds), fractions in [0, 1]; all None where one class is missing.

    Raises:
        ValueError: other shapes, a label that is not 0 or 1, a score that is not finite.
    """
    anomalous = as_labels(labels)
    values = as_scores(scores, len(anomalous))
    if not np.all(np.isfinite(values)):
        raise ValueError("scores must be finite")
    positive, negative = np.sort(values[anomalous]), np.sort(values[~anomalous])
    if not (len(positive) and len(negative)):
        return {"auroc": None, "ap": None, "f1max": None}
    starts = _group_starts(positive)
    distinct = positive[starts]
    groups = _Groups(
        count=np.diff(starts, append=len(positive)),
        above=len(positive) - starts,
        below=np.searchsorted(negative, distinct, side="left"),
        upto=np.searchsorted(negative, distinct, side="right"),
    )
    sums = _sums(groups, len(positive), len(negative))
    auroc, ap, f1max = _threshold_metrics([sums], len(positive), len(negative))
    return {"auroc": auroc, "ap": ap, "f1max": f1max}


def _group_starts(ordered: NDArray[Any]) -> NDArray[np.int64]:
    """Return where each distinct value of a sorted, non-empty array starts."""
    return np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])


# ---------------------------------------------------------------------------------------------- pooled pixels


@dataclass(frozen=True)
class Pixels:
    """The pooled pixels of one category at the evaluation grid, ready to be ranked (see ``gather``).

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


@dataclass(frozen=True)
class PixelTally:
    """The metrics of ranked pixels, and how many of them tie at the largest score.

    Attributes:
        metrics: ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max``, ``aupro``.
        positives: anomalous pixels.
        negatives: normal pixels.
        positives_at_top: anomalous pixels whose score is the largest of all.
        negatives_at_top: normal pixels, likewise.
    """

    metrics: dict[str, float | None]
    positives: int
    negatives: int
    positives_at_top: int
    negatives_at_top: int


def pixel_metrics(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    eval_size: int | tuple[int, int] | None,
    fpr_limit: float = 0.3,
    device: str | None = None,
) -> dict[str, float | None]:
    """Exact AUROC, AP, F1-max and AUPRO of the pixels of one category, pooled over its images.

    Beyond ``maps`` and ``masks`` it holds one float32 per normal pixel and eight bytes per anomalous pixel of
    the evaluation grid.

    Args:
        maps: ``(N, h, w)`` or N arrays ``(h, w)``: finite scores at any resolution, compared in float32;
            higher is more anomalous. Resized bilinearly (see ``resize``).
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0, empty for normal images. Resized
            to the nearest pixel.
        eval_size: evaluation grid: its side, ``(H, W)``, or None for each mask's own size. Sizes may differ
            between images, of maps and masks alike.
        fpr_limit: largest false positive rate of the AUPRO, in (0, 1].
        device: as in ``rank``.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max`` and ``aupro``, fractions in [0, 1]; all None where
        there is no anomalous or no normal pixel. Regions are 8-connected.

    Raises:
        ValueError: shapes that do not fit, no image, a score that is not finite in float32, a limit out of
            range.
    """
    pixels = gather(maps, masks, eval_size=eval_size)
    if not np.all(pixels.finite):
        raise ValueError(f"map {int(np.argmin(pixels.finite))} holds scores that are not finite in float32")
    return rank(pixels, fpr_limit=fpr_limit, device=device).metrics


def gather(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    eval_size: int | tuple[int, int] | None,
    threads: int | None = None,
) -> Pixels:
    """Bring maps and masks to the evaluation grid and part anomalous from normal pixels, one image at a time.

    Args:
        maps: as in ``pixel_metrics``; scores need not be finite.
        masks: as in ``pixel_metrics``.
        eval_size: as in ``pixel_metrics``.
        threads: how many to use; None lets the amount of work decide.

    Raises:
        ValueError: shapes that do not fit, or no image.
    """
    if len(maps) != len(masks) or len(maps) == 0:
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")
    number = len(maps)
    grid = None if eval_size is None else as_size(eval_size)
    # Masks are resized twice, here to count and below to use: cheaper than to keep them all at full size.
    counts = np.array([_count(_mask(masks[i], i, grid)) for i in range(number)], dtype=np.int64)
    size, positives, runs = counts.T
    threads = threads_for(int(size.sum())) if threads is None else threads

    negative_end, positive_end, run_end = (np.cumsum(part) for part in (size - positives, positives, runs))
    negative = np.empty(int(negative_end[-1]), dtype=np.float32)
    positive = np.empty(int(positive_end[-1]), dtype=np.uint64)
    lengths = np.empty(int(run_end[-1]), dtype=np.int32)
    lowest, highest = np.empty(number, dtype=np.float32), np.empty(number, dtype=np.float32)

    def fill(i: int) -> NDArray[np.int32] | None:
        """Write one image's pixels to their places; return its touching runs."""
        mask = _mask(masks[i], i, grid)
        # A score beyond float32 becomes infinite, and is reported as such.
        with np.errstate(invalid="ignore", over="ignore"):
            scores = np.asarray(maps[i], dtype=np.float32)
            if scores.ndim != 2 or scores.size == 0:
                raise ValueError(f"map {i} must be two-dimensional and not empty, not {scores.shape}")
            lowest[i], highest[i] = scores.min(), scores.max()
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


def rank(pixels: Pixels, *, fpr_limit: float = 0.3, device: str | None = None) -> PixelTally:
    """Rank gathered pixels, whose scores must be finite, and read the metrics off the ranks.

    May sort the arrays of ``pixels`` in place.

    Args:
        pixels: see ``gather``.
        fpr_limit: largest false positive rate of the AUPRO, in (0, 1].
        device: torch device to sort and search on (``cuda``); None does it with NumPy. The answer is the
            same to the last bit.

    Raises:
        ValueError: ``fpr_limit`` is not in (0, 1].
    """
    if not 0.0 < fpr_limit <= 1.0:
        raise ValueError(f"the false positive rate's limit must lie in (0, 1], not {fpr_limit}")
    positive, positives, negatives = pixels.positive, len(pixels.positive), len(pixels.negative)
    if not (positives and negatives):
        nothing = dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"))
        return PixelTally({**nothing}, positives, negatives, 0, 0)

    ordered: Negatives
    if device is None:
        parts = [part for part in np.array_split(pixels.negative, pixels.threads) if len(part)]
        together: list[NDArray[Any]] = [positive, *parts]
        each(lambda array: array.sort(), together, pixels.threads)
        ordered = _Sorted(parts)
    else:
        from bench.metrics.torch_rank import sort_on

        positive, ordered = sort_on(device, positive, pixels.negative)
    area_limit = fpr_limit * negatives

    def chunk(start: int) -> _Sums:
        packed = positive[start : start + _CHUNK]
        starts = _group_starts(packed >> np.uint64(32))
        values = unpack(packed[starts])
        first = starts + start
        # The scores tied with the chunk's first may begin in an earlier chunk.
        first[0] = np.searchsorted(positive, packed[0] & ~LOW_WORD)
        below, upto = ordered.count(values)
        groups = _Groups(np.diff(starts, append=len(packed)), positives - first, below, upto)
        weight = np.add.reduceat(pixels.weights[(packed & LOW_WORD).astype(np.intp)], starts)
        sums = _sums(groups, positives, negatives)
        return _Sums(sums.ranks, sums.precision, sums.f1, _area(groups, weight, negatives, area_limit))

    sums = each(chunk, range(0, positives, _CHUNK), pixels.threads if device is None else 1)
    auroc, ap, f1max = _threshold_metrics(sums, positives, negatives)
    aupro = float(np.sum([part.area for part in sums])) / area_limit
    metrics: dict[str, float | None] = {
        "pixel_auroc": auroc,
        "pixel_ap": ap,
        "pixel_f1max": f1max,
        # The weights' sum may exceed 1 by their rounding.
        "aupro": min(aupro, 1.0),
    }
    top = max(unpack(positive[-1:])[0], ordered.largest)
    top_packed = pack(np.full(1, top), np.zeros(1, dtype=np.uint64))
    return PixelTally(
        metrics,
        positives,
        negatives,
        positives_at_top=positives - int(np.searchsorted(positive, top_packed[0])),
        negatives_at_top=negatives - int(ordered.count(np.full(1, top))[0][0]),
    )


class Negatives(Protocol):
    """The normal pixels, sorted wherever they are."""

    @property
    def largest(self) -> np.float32:
        """The largest score."""
        ...

    def count(self, values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return how many lie below, and how many at or below, each of the ascending ``values``."""
        ...


@dataclass(frozen=True)
class _Sorted:
    """Normal pixels in parts, each of them sorted."""

    parts: Sequence[NDArray[np.float32]]

    @property
    def largest(self) -> np.float32:
        return np.float32(max(part[-1] for part in self.parts))

    def count(self, values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _count_negatives(self.parts, values)


def _area(groups: _Groups, weight: NDArray[np.float64], negatives: int, limit: float) -> float:
    """Return the area under the groups' share of the overlap curve, from 0 to ``limit`` false positives.

    A group adds its weight, linearly from the false positives above its score to those at or above it.
    """
    begin, end = negatives - groups.upto, negatives - groups.below
    # Without tied negatives the ramp is a step, and its area comes out 0.
    width = np.maximum(end - begin, 1)
    covered = np.clip(limit - begin, 0, end - begin)
    return float(np.sum(weight * (covered * covered / (2 * width) + np.maximum(limit - end, 0))))


def _count_negatives(
    parts: Sequence[NDArray[np.float32]], values: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return how many negatives lie below, and how many at or below, each of the ascending values."""
    below, upto = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    for part in parts:
        for start in range(0, len(values), _LOOKUP):
            ours = slice(start, start + _LOOKUP)
            wanted = values[ours]
            base = int(np.searchsorted(part, wanted[0], side="left"))
            stretch = part[base : int(np.searchsorted(part, wanted[-1], side="right"))]
            left = np.searchsorted(stretch, wanted, side="left")
            below[ours] += left + base
            # A value that is there is most often there once; only the others need a second search.
            last = len(stretch) - 1
            if last >= 0:
                tied = np.flatnonzero(stretch[np.minimum(left, last)] == wanted)
                left[tied] += 1
                tied = tied[stretch[np.minimum(left[tied], last)] == wanted[tied]]
                left[tied] = np.searchsorted(stretch, wanted[tied], side="right")
            upto[ours] += left + base
    return below, upto


def _mask(mask: ArrayLike, i: int, grid: Size | None) -> NDArray[np.bool_]:
    array = np.asarray(mask)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(f"mask {i} must be two-dimensional and not empty, not {array.shape}")
    anomalous: NDArray[np.bool_] = array if array.dtype == np.bool_ else array > 0
    return anomalous if grid is None else resize_nearest(anomalous, grid)


def _count(mask: NDArray[np.bool_]) -> tuple[int, int, int]:
    positives = int(np.count_nonzero(mask))
    return mask.size, positives, count_runs(mask) if positives else 0
