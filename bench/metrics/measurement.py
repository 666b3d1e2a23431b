"""All metrics of one category under a metric protocol, from its labels, image scores, maps and masks.

Each metric comes out as a number, or as None with the reason; the guards (``bench.metrics.guards``) say what else
is wrong with the scores.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import grids, guards
from bench.metrics.exact import as_labels, as_scores, binary_metrics, pixel_metrics, rank
from bench.metrics.guards import Extent
from bench.metrics.pixels import Pixels, as_map, as_mask, gather
from bench.metrics.prepare import Lazy, chosen, image_score, prepare
from bench.metrics.protocols import METRIC_PROTOCOLS, MetricProtocol
from bench.metrics.registry import IMAGE_METRICS, PIXEL_METRICS, undefined_in

NO_MAPS = "the method gives no maps"
NO_MASKS = "the dataset gives no masks"
NO_SCORES = "the method gives no image scores"
NOT_DEFINED = "{} does not have it"

Maps: TypeAlias = NDArray[Any] | Sequence[ArrayLike]
Masks: TypeAlias = NDArray[Any] | Sequence[ArrayLike | None]
Values: TypeAlias = Mapping[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one category.

    Attributes:
        metrics: the registry's, always all that are not on request; fractions in [0, 1], None where the data, the
            method or the metric protocol do not define the metric.
        reasons: for each metric that is None, and no other, why.
        problems: what the guards found, each once; empty when the scores are sound.
        pixel_images: number of images that pixel metrics were taken on, and of all, where these are more.
    """

    metrics: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    pixel_images: tuple[int, int] | None = None

    def put(self, names: Sequence[str], values: Values, reason: str | None) -> None:
        """Write metrics, and the reason for those without a value."""
        for name in names:
            value = values.get(name)
            self.metrics[name] = value
            self.reasons.pop(name, None)
            if value is None:
                self.reasons[name] = reason or "undefined"


def evaluate(
    *,
    labels: ArrayLike,
    image_scores: ArrayLike | None,
    maps: Maps | None = None,
    masks: Masks | None = None,
    eval_size: int | tuple[int, int] | None = None,
    fpr_limit: float = 0.3,
) -> Evaluation:
    """Evaluate one category exactly: image and pixel metrics, each a number or None with a reason.

    Scores that are not finite or all equal, and a missing class, give None: the metrics would be undefined,
    or 0.5 that nothing measured. Saturated scores, and maps that are each one value throughout, give their
    metrics and a problem: the numbers follow from the definitions, but should not be trusted.

    Args:
        labels: ``(N,)`` 0 (normal) or 1 (anomalous), or bool.
        image_scores: ``(N,)``, higher is more anomalous; None if the method gives none.
        maps: ``(N, h, w)`` or N arrays ``(h, w)`` at the method's own resolution; None if the method gives
            none.
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0; empty or None for normal images. None
            if the dataset has none.
        eval_size: grid of the pixel metrics: its side, ``(H, W)``, or None for each mask's own size.
        fpr_limit: largest false positive rate of the AUPRO, in (0, 1].

    Raises:
        ValueError: shapes or numbers of images that do not fit, labels other than 0 and 1, a normal image
            with anomalous pixels in its mask, a limit out of range. Bad scores never raise.
    """
    protocol = replace(METRIC_PROTOCOLS["exact"], eval_size=None, fpr_limit=fpr_limit)
    return evaluate_under(
        protocol, labels=labels, image_scores=image_scores, maps=maps, masks=masks, eval_size=eval_size
    )


def evaluate_under(
    protocol: MetricProtocol,
    *,
    labels: ArrayLike,
    image_scores: ArrayLike | None,
    maps: Maps | None,
    masks: Masks | None,
    no_masks: str = NO_MASKS,
    unmasked: Collection[int] = (),
    eval_size: int | tuple[int, int] | None = None,
) -> Evaluation:
    """Evaluate one category under a metric protocol; arguments and errors as in :func:`evaluate`.

    Images whose anomalous pixels are not known (``unmasked``) are left out of pixel metrics: they would be
    neither normal nor anomalous there. Image metrics are taken on all images.

    Args:
        protocol: see ``protocols``.
        labels, image_scores: see above.
        maps: each is asked for once or twice, so a sequence that reads them from files will do.
        masks: likewise.
        no_masks: the reason where ``masks`` is None, or no anomalous image has one.
        unmasked: indices of anomalous images without a mask, whose items in ``masks`` are arrays of the images'
            size that say nothing.
        eval_size: of ``exact``, in place of the protocol's; ``(H, W)`` will do.
    """
    anomalous = as_labels(labels)
    unknown = frozenset(unmasked)
    known = [index for index in range(len(anomalous)) if index not in unknown]
    partly = None
    if unknown and maps is not None and anomalous[known].any():
        partly = len(known), len(anomalous)
    found = Evaluation(dict.fromkeys(IMAGE_METRICS + PIXEL_METRICS), pixel_images=partly)
    whole: Maps | None = None
    if masks is not None:
        whole, incomplete = complete_masks(masks, anomalous, maps)
        no_masks = incomplete or no_masks
    if maps is not None and masks is not None and not len(maps) == len(masks) == len(anomalous):
        raise ValueError(
            f"{len(anomalous)} labels, {len(maps)} maps and {len(masks)} masks: the numbers must agree"
        )
    if protocol.thresholds == "all":
        found.put(IMAGE_METRICS, *image_metrics(anomalous, image_scores, found.problems))
        if maps is None or whole is None or (unknown and partly is None):
            found.put(PIXEL_METRICS, {}, NO_MAPS if maps is None else no_masks)
        else:
            grid = protocol.eval_size if eval_size is None else eval_size
            pixels = gather(chosen(maps, known), chosen(whole, known), eval_size=grid)
            _check_normal(pixels, anomalous, known)
            found.put(PIXEL_METRICS, *checked_rank(pixels, protocol.fpr_limit, found.problems))
    else:
        _evaluate_published(found, protocol, anomalous, image_scores, maps, whole, no_masks, known)
    for name in undefined_in(protocol.name):
        found.put([name], {}, NOT_DEFINED.format(protocol.name))
    return found


def complete_masks(masks: Masks, anomalous: NDArray[np.bool_], maps: Maps | None) -> tuple[Maps | None, str]:
    """Return the masks with empty ones in place of None, or None and the reason if an anomalous image has none.

    An empty mask has the size of the others, or of its image's map if these differ.
    """
    # Only lists are looked through: other sequences may read a file for each item.
    absent = [index for index, mask in enumerate(masks) if mask is None] if isinstance(masks, list | tuple) else []
    if not absent:
        return cast(Maps, masks), ""
    unknown = [index for index in absent if index < len(anomalous) and anomalous[index]]
    if unknown:
        number = f"{len(unknown)} anomalous image{'s have' if len(unknown) > 1 else ' has'}"
        return None, f"{number} no mask, the first at index {unknown[0]}"
    sizes = {as_mask(mask, index).shape for index, mask in enumerate(masks) if mask is not None}
    result: list[Any] = list(masks)
    for index in absent:
        if len(sizes) == 1:
            size = next(iter(sizes))
        elif maps is not None and index < len(maps):
            size = as_map(maps[index], index).shape
        else:
            return None, NO_MASKS
        result[index] = np.zeros(size, dtype=np.bool_)
    return result, ""


def _check_normal(pixels: Pixels, anomalous: NDArray[np.bool_], known: Sequence[int]) -> None:
    """Refuse a normal image with anomalous pixels; ``pixels`` are of the images ``known``."""
    contradiction = np.flatnonzero(pixels.anomalous & ~anomalous[known])
    if len(contradiction):
        raise ValueError(f"image {known[contradiction[0]]} is labelled normal but its mask has anomalous pixels")


def image_metrics(
    anomalous: NDArray[np.bool_], image_scores: ArrayLike | None, problems: list[str]
) -> tuple[dict[str, float | None], str | None]:
    """Return the metrics of ``(N,)`` image scores, or none and the reason; add to ``problems``."""
    single = guards.one_class(int(anomalous.sum()), int((~anomalous).sum()), "image")
    if image_scores is None:
        return {}, NO_SCORES
    scores = as_scores(image_scores, len(anomalous))
    bad = guards.non_finite(np.isfinite(scores), "image scores")
    flat = None if bad else guards.constant_scores(scores)
    found = [problem for problem in (bad, flat, single) if problem is not None]
    if found:
        problems.extend(found)
        return {}, found[0]
    problems.extend(guards.saturated_scores(scores, anomalous))
    return {f"image_{name}": value for name, value in binary_metrics(scores, anomalous).items()}, None


def refused(bad: str | None, extent: Extent, positives: int, negatives: int, problems: list[str]) -> str | None:
    """Return why pixels give no metric, or None; add to ``problems``, also what is no refusal.

    Args:
        bad: the finding of ``guards.non_finite`` on the maps.
        extent: how far their scores reach, if they are finite.
        positives: anomalous pixels.
        negatives: normal pixels.
        problems: is added to.
    """
    flat = None if bad else guards.constant_maps(extent)
    single = guards.one_class(positives, negatives, "pixel")
    problems.extend(problem for problem in (bad, flat, single) if problem is not None)
    return bad or (flat if extent.one_value else None) or single


def checked_rank(
    pixels: Pixels, fpr_limit: float, problems: list[str]
) -> tuple[dict[str, float | None], str | None]:
    """Return the metrics of gathered pixels, or none and the reason; add to ``problems``."""
    bad = guards.non_finite(pixels.finite, "maps")
    reason = refused(bad, pixels.extent, len(pixels.positive), len(pixels.negative), problems)
    if reason is not None:
        return {}, reason
    metrics, counts = rank(pixels, fpr_limit=fpr_limit)
    if pixels.extent.flat < pixels.extent.maps:
        problems.extend(filter(None, [guards.saturated_pixels(counts, fpr_limit)]))
    return metrics, None


# ------------------------------------------------------------ protocols of published code


def _evaluate_published(
    found: Evaluation,
    protocol: MetricProtocol,
    anomalous: NDArray[np.bool_],
    image_scores: ArrayLike | None,
    maps: Maps | None,
    masks: NDArray[Any] | Sequence[ArrayLike] | None,
    no_masks: str,
    known: Sequence[int],
) -> None:
    """Write the metrics of a protocol other than ``exact``; pixel metrics of the images ``known``."""
    if maps is None or masks is None:
        missing = NO_MAPS if maps is None else no_masks
        found.put(PIXEL_METRICS, {}, missing)
        # Image scores or labels that come from maps and masks are missing with them.
        reason = None
        if protocol.image_score == "map":
            image_scores, reason = None, missing
        values, why = image_metrics(anomalous, image_scores, found.problems)
        found.put(IMAGE_METRICS, values, reason or why)
        return
    ready, truth = prepare(maps, masks, protocol)
    if protocol.image_score == "map":
        image_scores = np.array([image_score(each, protocol.pool) for each in ready])
    shown = anomalous
    if protocol.labels == "masks":
        shown = anomalous.copy()  # of an image without a mask its label is all that is known
        shown[known] = [bool(truth[index].any()) for index in known]
    found.put(IMAGE_METRICS, *image_metrics(shown, image_scores, found.problems))
    if len(known) < len(anomalous) and found.pixel_images is None:
        found.put(PIXEL_METRICS, {}, no_masks)
        return
    found.put(PIXEL_METRICS, *_published_pixels(protocol, anomalous, ready, truth, found.problems, known))


def _published_pixels(
    protocol: MetricProtocol,
    anomalous: NDArray[np.bool_],
    maps: Lazy,
    masks: Lazy,
    problems: list[str],
    known: Sequence[int],
) -> tuple[dict[str, float | None], str | None]:
    """Return the pixel metrics of the images ``known``, and the reason for those that are not there."""
    maps_known, masks_known = chosen(maps, known), chosen(masks, known)
    # One thread, so that the normal pixels end up as one sorted array.
    pixels = gather(maps_known, masks_known, eval_size=None, threads=1)
    _check_normal(pixels, anomalous, known)
    values, reason = checked_rank(pixels, protocol.fpr_limit, problems)
    if reason is not None:
        return {}, reason
    if protocol.per_image:
        value, reason = _mean_auroc([index for index in known if anomalous[index]], maps, masks)
        return {"pixel_auroc": value}, reason
    filled = grids.filled_regions(maps_known, masks_known) if protocol.fill_holes else None
    curves = grids.curves(pixels, filled)
    number, limit = protocol.steps, protocol.fpr_limit
    if protocol.thresholds == "bins":
        binned, reason = grids.bins(curves, number=number, limit=limit)
        return dict(binned), reason
    if protocol.thresholds == "ranks":
        values["aupro"] = grids.ranks(curves, number=number, limit=limit)
    else:
        rising = protocol.thresholds == "rising"
        values["aupro"], reason = grids.steps(curves, number=number, rising=rising, limit=limit)
    return values, reason


def _mean_auroc(images: Sequence[int], maps: Lazy, masks: Lazy) -> tuple[float | None, str | None]:
    """Return the mean of each image's own AUROC; each must have anomalous and normal pixels."""
    values = []
    for i in images:
        own = pixel_metrics([maps[i]], [masks[i]], eval_size=None)["pixel_auroc"]
        if own is None:
            lacking = "normal" if masks[i].all() else "anomalous"
            return None, f"anomalous image {i} has no {lacking} pixel"
        values.append(own)
    return float(np.mean(values)), None
