"""Metrics of anybody's maps, masks and scores: ``bench.evaluate``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import Evaluation, guards
from bench.metrics.exact import PIXEL_METRICS
from bench.metrics.measurement import IMAGE_METRICS, image_metrics, refused
from bench.metrics.named import NO_MASKS, evaluate_named
from bench.metrics.protocols import MetricProtocol, resolve


def evaluate(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    *,
    image_scores: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    protocol: str = "exact",
    eval_size: int | str | None = None,
    device: str | None = None,
    aupimo: bool = False,
) -> dict[str, float]:
    """Image and pixel metrics of one category's test images.

    >>> import bench
    >>> bench.evaluate([[[0.1, 0.2]], [[0.9, 0.3]]], [[[0, 0]], [[1, 0]]])["image_auroc"]
    1.0

    Args:
        maps: ``(N, h, w)`` or N arrays ``(h, w)``, at any resolution; higher is more anomalous.
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0, empty for normal images. Sizes
            may differ between images, and from the maps.
        image_scores: ``(N,)``; by default the maximum of each map as it is given.
        labels: ``(N,)`` 0 (normal) or 1 (anomalous); by default whether the mask has an anomalous pixel.
        protocol: ``exact``, ``grid200``, ``ader50``, ``openiad``, ``devnet-perimage`` or ``winclip-cy``, and
            options: ``grid200[sigma=4]`` (see ``bench.metrics.protocols``).
        eval_size: side of the evaluation grid, or ``own`` for each mask's own size; by default the
            protocol's.
        device: torch device on which ``exact`` sorts the pixels (``cuda``); by default NumPy does it.
        aupimo: whether to add ``aupimo``, by anomalib (slow).

    Returns:
        ``image_auroc``, ``image_ap``, ``image_f1max``, ``pixel_auroc``, ``pixel_ap``, ``pixel_f1max`` and
        ``aupro``, fractions in [0, 1]. One that the data or the protocol do not define is left out, never
        made up. What else is wrong with the scores (all equal, saturated, not finite) is a warning.

    Raises:
        ValueError: shapes or numbers of images that do not fit, a normal image with anomalous pixels.
        bench.errors.BenchError: no such protocol or option.
    """
    chosen = resolve(protocol, eval_size)
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")
    if labels is None:
        labels = np.array([bool(np.any(np.asarray(mask) > 0)) for mask in masks])
    if image_scores is None:
        image_scores = maxima(maps)
    found = measure(
        chosen,
        labels=labels,
        image_scores=image_scores,
        maps=maps,
        masks=masks,
        device=device,
        aupimo=aupimo,
    )
    for problem in found.problems:
        warnings.warn(problem, stacklevel=2)
    return {name: value for name, value in found.metrics.items() if value is not None}


def measure(
    protocol: MetricProtocol,
    *,
    labels: ArrayLike,
    image_scores: ArrayLike | None,
    maps: NDArray[Any] | Sequence[ArrayLike] | None,
    masks: NDArray[Any] | Sequence[ArrayLike] | None,
    device: str | None = None,
    aupimo: bool = False,
    without_masks: str = "",
) -> Evaluation:
    """The metrics of one category under a protocol, with what is wrong; see ``evaluate_named``.

    A metric that comes out as no finite number is None, and the reason says so. ``without_masks`` says why
    ``masks`` is None, in place of the general reason.
    """
    found = evaluate_named(
        protocol, labels=labels, image_scores=image_scores, maps=maps, masks=masks, device=device
    )
    if without_masks:
        reasons = {name: without_masks if why == NO_MASKS else why for name, why in found.reasons.items()}
        found = replace(found, reasons=reasons)
    if aupimo:
        value, reason = None, found.reasons.get("pixel_auroc")
        if maps is not None and masks is not None and reason is None:
            from bench.metrics.pimo import aupimo as measure_aupimo

            value, reason = measure_aupimo(maps, masks, protocol)
        reasons = found.reasons if reason is None else {**found.reasons, "aupimo": reason}
        found = replace(found, metrics={**found.metrics, "aupimo": value}, reasons=reasons)
    return _finite(found)


def _finite(found: Evaluation) -> Evaluation:
    bad = {name: value for name, value in found.metrics.items() if value is not None and not np.isfinite(value)}
    reasons = {name: f"the metric came out as {value:g}" for name, value in bad.items()}
    metrics = {**found.metrics, **dict.fromkeys(bad)}
    return replace(found, metrics=metrics, reasons={**found.reasons, **reasons})


def measure_streaming(
    protocol: MetricProtocol,
    *,
    labels: ArrayLike,
    image_scores: ArrayLike,
    maps: Sequence[ArrayLike],
    masks: Sequence[ArrayLike],
) -> tuple[Evaluation, dict[str, float]]:
    """The ``exact`` metrics in bounded memory, and by how much each pixel metric may be off.

    Raises:
        ValueError: another protocol, or scores that are not finite.
    """
    from bench.metrics.streaming import PixelAccumulator

    if protocol.thresholds != "all":
        raise ValueError(f"streaming approximates the exact protocol, not {protocol.name}")
    problems: list[str] = []
    image, image_reason = image_metrics(np.asarray(labels, dtype=np.bool_), image_scores, problems)
    streamed = PixelAccumulator(protocol.eval_size)
    streamed.add(maps, masks)
    result = streamed.metrics(protocol.fpr_limit)
    reason = refused(None, streamed.extent, result.counts.positives, result.counts.negatives, problems)
    if reason is None and streamed.extent.flat < streamed.extent.maps:
        problems.extend(filter(None, [guards.saturated_pixels(result.counts, protocol.fpr_limit)]))
    metrics: dict[str, float | None] = dict.fromkeys(IMAGE_METRICS + PIXEL_METRICS)
    metrics |= image
    reasons = {} if image_reason is None else dict.fromkeys(IMAGE_METRICS, image_reason)
    if reason is not None:
        return Evaluation(metrics, {**reasons, **dict.fromkeys(PIXEL_METRICS, reason)}, problems), {}
    bounds = {name: bound for name, bound in result.bounds.items() if bound is not None}
    return _finite(Evaluation({**metrics, **result.values}, reasons, problems)), bounds


def maxima(maps: NDArray[Any] | Sequence[ArrayLike]) -> NDArray[np.float64]:
    """``(N,)`` image scores for a method that gives none: the maximum of each map as it is given."""
    return np.array([np.max(np.asarray(each)) for each in maps], dtype=np.float64)
