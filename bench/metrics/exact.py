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

Sources: AUROC, AP and F1 as in scikit-learn's ``roc_auc_score``, ``average_precision_score`` and
``precision_recall_curve``; AUPRO as in MVTec's evaluation code (Bergmann et al., IJCV 129, 2021): the mean
over all regions of the category, false positives over all its normal pixels, linear interpolation at the
limit, divided by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.guards import Counts
from bench.metrics.packing import LOW_WORD, pack, unpack
from bench.metrics.parallel import each
from bench.metrics.pixels import Pixels, gather
from bench.metrics.ranks import Groups, Ranking, SortedParts, Sums, group_starts, overlap_area, sums
from bench.metrics.registry import IMAGE_METRICS, METRICS, PIXEL_METRICS
from bench.tools.arrays import to_array

# Positives handled at a time: large enough to hide Python's cost, small enough that temporaries stay small.
_CHUNK = 1 << 16


def as_labels(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return ``(N,)`` bool labels, True for anomalous.

    Raises:
        ValueError: not one-dimensional, empty, or a value other than 0 and 1.
    """
    array = to_array(labels)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"labels must be one-dimensional and not empty, not of shape {array.shape}")
    result: NDArray[np.bool_] = array == 1
    if not np.all(result | (array == 0)):
        raise ValueError("labels must be 0 (normal) or 1 (anomalous)")
    return result


def as_scores(scores: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return ``(count,)`` float64 scores.

    Raises:
        ValueError: another shape, or no real numbers.
    """
    array = to_array(scores)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"scores must be real numbers, not {array.dtype}")
    array = array.astype(np.float64)
    if array.shape == (count, 1):
        array = array[:, 0]
    if array.shape != (count,):
        raise ValueError(f"expected {count} scores, one for each label, not an array of shape {array.shape}")
    return array


def binary_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float | None]:
    """Exact metrics of scores against binary labels: the registry's image metrics.

    Args:
        scores: ``(N,)`` finite scores of any real type (compared in float64); higher is more anomalous.
        labels: ``(N,)`` 0 (normal) or 1 (anomalous), or bool.

    Returns:
        ``auroc``, ``ap`` (step-wise, as scikit-learn's ``average_precision_score``), ``f1max`` (over all distinct
        thresholds) and ``fpr95`` (smallest false positive rate with at least 95 % recall), fractions in [0, 1];
        all None where one class is missing.

    Raises:
        ValueError: other shapes, a label that is not 0 or 1, a score that is not finite.
    """
    anomalous = as_labels(labels)
    values = as_scores(scores, len(anomalous))
    if not np.all(np.isfinite(values)):
        raise ValueError("scores must be finite")
    positive, negative = np.sort(values[anomalous]), np.sort(values[~anomalous])
    if not (len(positive) and len(negative)):
        return {name.removeprefix("image_"): None for name in IMAGE_METRICS}
    starts = group_starts(positive)
    distinct = positive[starts]
    groups = Groups(
        count=np.diff(starts, append=len(positive)),
        above=len(positive) - starts,
        below=np.searchsorted(negative, distinct, side="left"),
        upto=np.searchsorted(negative, distinct, side="right"),
    )
    ranking = Ranking(
        positives=len(positive),
        negatives=len(negative),
        sums=sums(groups, len(positive), len(negative)),
        score=positive.__getitem__,
        below=lambda score: int(np.searchsorted(negative, score, side="left")),
    )
    return {name.removeprefix("image_"): _value(name, ranking) for name in IMAGE_METRICS}


def _value(name: str, ranking: Ranking) -> float:
    function = METRICS[name].function
    assert function is not None
    return function(ranking)


def pixel_metrics(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    eval_size: int | tuple[int, int] | None,
    fpr_limit: float = 0.3,
) -> dict[str, float | None]:
    """Exact AUROC, AP, F1-max and AUPRO of the pixels of one category, pooled over its images.

    Beyond ``maps`` and ``masks`` it holds one float32 per normal pixel and eight bytes per anomalous pixel of
    the evaluation grid.

    Args:
        maps: ``(N, h, w)`` or N arrays ``(h, w)``: finite scores at any resolution, compared in their own
            precision; higher is more anomalous. Resized bilinearly (see ``resize``).
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0, empty for normal images. Resized
            to the nearest pixel.
        eval_size: evaluation grid: its side, ``(H, W)``, or None for each mask's own size. Sizes may differ
            between images, of maps and masks alike.
        fpr_limit: largest false positive rate of the AUPRO, in (0, 1].

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max`` and ``aupro``, fractions in [0, 1]; all None where
        there is no anomalous or no normal pixel. Regions are 8-connected.

    Raises:
        ValueError: shapes that do not fit, no image, a score that is not finite, a limit out of range.
    """
    pixels = gather(maps, masks, eval_size=eval_size)
    if not np.all(pixels.finite):
        raise ValueError(f"map {int(np.argmin(pixels.finite))} holds scores that are not finite")
    return rank(pixels, fpr_limit=fpr_limit)[0]


def rank(pixels: Pixels, *, fpr_limit: float = 0.3) -> tuple[dict[str, float | None], Counts]:
    """Rank gathered pixels, whose scores must be finite, and read the metrics off the ranks.

    May sort the arrays of ``pixels`` in place.

    Args:
        pixels: see ``gather``.
        fpr_limit: largest false positive rate of the AUPRO, in (0, 1].

    Returns:
        The metrics of ``pixel_metrics``, and how many pixels there are and tie at the largest score.

    Raises:
        ValueError: ``fpr_limit`` is not in (0, 1].
    """
    if not 0.0 < fpr_limit <= 1.0:
        raise ValueError(f"the false positive rate's limit must lie in (0, 1], not {fpr_limit}")
    positive, positives, negatives = pixels.positive, len(pixels.positive), len(pixels.negative)
    if not (positives and negatives):
        nothing: dict[str, float | None] = dict.fromkeys(PIXEL_METRICS)
        return nothing, Counts(positives, negatives)

    parts = [part for part in np.array_split(pixels.negative, pixels.threads) if len(part)]
    together: list[NDArray[Any]] = [positive, *parts]
    each(lambda array: array.sort(), together, pixels.threads)
    ordered = SortedParts(parts)
    area_limit = fpr_limit * negatives

    def chunk(start: int) -> tuple[Sums, float]:
        packed = positive[start : start + _CHUNK]
        starts = group_starts(packed >> np.uint64(32))
        values = unpack(packed[starts])
        first = starts + start
        # The scores tied with the chunk's first may begin in an earlier chunk.
        first[0] = np.searchsorted(positive, packed[0] & ~LOW_WORD)
        below, upto = ordered.count(values)
        groups = Groups(np.diff(starts, append=len(packed)), positives - first, below, upto)
        weight = np.add.reduceat(pixels.weights[(packed & LOW_WORD).astype(np.intp)], starts)
        area = overlap_area(groups, weight, negatives, area_limit)
        return sums(groups, positives, negatives), area

    stretches = each(chunk, range(0, positives, _CHUNK), pixels.threads)
    ranking = Ranking(
        positives=positives,
        negatives=negatives,
        sums=Sums.total([found for found, _ in stretches]),
        score=lambda place: unpack(positive[place : place + 1])[0],
        below=lambda score: int(ordered.count(np.full(1, score, dtype=np.float32))[0][0]),
        overlap=float(np.sum([area for _, area in stretches])) / area_limit,
    )
    metrics: dict[str, float | None] = {name: _value(name, ranking) for name in PIXEL_METRICS}
    top = max(unpack(positive[-1:])[0], ordered.largest)
    top_packed = pack(np.full(1, top), np.zeros(1, dtype=np.uint64))
    positives_at_top = positives - int(np.searchsorted(positive, top_packed[0]))
    negatives_at_top = negatives - ranking.below(top)
    return metrics, Counts(positives, negatives, positives_at_top, negatives_at_top)
