"""All metrics of one category from its labels, image scores, maps and masks, with the guards applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import guards
from bench.metrics.exact import PIXEL_METRICS, as_labels, as_scores, binary_metrics, rank
from bench.metrics.guards import Extent
from bench.metrics.pixels import Pixels, gather

IMAGE_METRICS = ("image_auroc", "image_ap", "image_f1max")


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one category.

    Attributes:
        metrics: the names of ``IMAGE_METRICS`` and ``PIXEL_METRICS``, always all of them; fractions in
            [0, 1], None where the data or the method do not define the metric.
        reasons: for each metric that is None, and no other, why.
        problems: what the guards found, each once; empty when the scores are sound.
    """

    metrics: dict[str, float | None]
    reasons: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def evaluate(
    *,
    labels: ArrayLike,
    image_scores: ArrayLike | None,
    maps: NDArray[Any] | Sequence[ArrayLike] | None = None,
    masks: NDArray[Any] | Sequence[ArrayLike] | None = None,
    eval_size: int | tuple[int, int] | None = 256,
    fpr_limit: float = 0.3,
    device: str | None = None,
) -> Evaluation:
    """Evaluate one category: image and pixel metrics, each a number or None with a reason.

    Scores that are not finite or all equal, and a missing class, give None: the metrics would be undefined,
    or 0.5 that nothing measured. Saturated scores, and maps that are each one value throughout, give their
    metrics and a problem: the numbers follow from the definitions, but should not be trusted.

    Args:
        labels: ``(N,)`` 0 (normal) or 1 (anomalous), or bool.
        image_scores: ``(N,)``, higher is more anomalous; None if the method gives none.
        maps: ``(N, h, w)`` or N arrays ``(h, w)`` at the method's own resolution; None if the method gives
            none.
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0, empty for normal images; None if
            the dataset has none.
        eval_size: grid of the pixel metrics: its side, ``(H, W)``, or None for each mask's own size.
        fpr_limit: largest false positive rate of the AUPRO, in (0, 1].
        device: torch device to sort the pixels on (``cuda``); None does it with NumPy.

    Raises:
        ValueError: shapes or numbers of images that do not fit, labels other than 0 and 1, a normal image
            with anomalous pixels in its mask, a limit out of range. Bad scores never raise.
    """
    anomalous = as_labels(labels)
    metrics: dict[str, float | None] = dict.fromkeys(IMAGE_METRICS + PIXEL_METRICS)
    reasons: dict[str, str] = {}
    problems: list[str] = []

    image_values, image_reason = image_metrics(anomalous, image_scores, problems)
    pixel_values, pixel_reason = _pixel(anomalous, maps, masks, eval_size, fpr_limit, device, problems)
    metrics.update(image_values)
    metrics.update(pixel_values)
    if image_reason is not None:
        reasons.update(dict.fromkeys(IMAGE_METRICS, image_reason))
    if pixel_reason is not None:
        reasons.update(dict.fromkeys(PIXEL_METRICS, pixel_reason))
    return Evaluation(metrics, reasons, problems)


def image_metrics(
    anomalous: NDArray[np.bool_], image_scores: ArrayLike | None, problems: list[str]
) -> tuple[dict[str, float | None], str | None]:
    """Return the metrics of ``(N,)`` image scores, or none and the reason; add to ``problems``."""
    single = guards.one_class(int(anomalous.sum()), int((~anomalous).sum()), "image")
    if image_scores is None:
        return {}, "the method gives no image scores"
    scores = as_scores(image_scores, len(anomalous))
    bad = guards.non_finite(np.isfinite(scores), "image scores")
    flat = None if bad else guards.constant_scores(scores)
    found = [problem for problem in (bad, flat, single) if problem is not None]
    if found:
        problems.extend(found)
        return {}, found[0]
    problems.extend(guards.saturated_scores(scores, anomalous))
    return {f"image_{name}": value for name, value in binary_metrics(scores, anomalous).items()}, None


def _pixel(
    anomalous: NDArray[np.bool_],
    maps: NDArray[Any] | Sequence[ArrayLike] | None,
    masks: NDArray[Any] | Sequence[ArrayLike] | None,
    eval_size: int | tuple[int, int] | None,
    fpr_limit: float,
    device: str | None,
    problems: list[str],
) -> tuple[dict[str, float | None], str | None]:
    """Return the pixel metrics, or none and the reason; add to ``problems``."""
    if maps is None:
        return {}, "the method gives no maps"
    if masks is None:
        return {}, "the dataset gives no masks"
    if len(maps) != len(anomalous) or len(masks) != len(anomalous):
        raise ValueError(
            f"{len(anomalous)} labels, {len(maps)} maps and {len(masks)} masks: the numbers must agree"
        )
    pixels = gather(maps, masks, eval_size=eval_size)
    contradiction = np.flatnonzero(pixels.anomalous & ~anomalous)
    if len(contradiction):
        raise ValueError(f"image {contradiction[0]} is labelled normal but its mask has anomalous pixels")
    return checked_rank(pixels, fpr_limit, device, problems)


def refused(bad: str | None, extent: Extent, positives: int, negatives: int, problems: list[str]) -> str | None:
    """Return why pixels give no metric, or None; add to ``problems``, also what is no refusal.

    Args:
        bad: what ``guards.non_finite`` says of the maps.
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
    pixels: Pixels, fpr_limit: float, device: str | None, problems: list[str]
) -> tuple[dict[str, float | None], str | None]:
    """Return the metrics of gathered pixels, or none and the reason; add to ``problems``."""
    bad = guards.non_finite(pixels.finite, "maps")
    reason = refused(bad, pixels.extent, len(pixels.positive), len(pixels.negative), problems)
    if reason is not None:
        return {}, reason
    metrics, counts = rank(pixels, fpr_limit=fpr_limit, device=device)
    if pixels.extent.flat < pixels.extent.maps:
        problems.extend(filter(None, [guards.saturated_pixels(counts, fpr_limit)]))
    return metrics, None
