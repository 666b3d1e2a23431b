"""Metrics of anybody's maps, masks and scores: ``bench.evaluate``."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import Evaluation, guards
from bench.metrics.exact import as_labels
from bench.metrics.measurement import (
    NO_MASKS,
    Maps,
    Masks,
    complete_masks,
    evaluate_under,
    image_metrics,
    refused,
)
from bench.metrics.pixels import as_map, as_mask
from bench.metrics.prepare import chosen
from bench.metrics.protocols import MetricProtocol, resolve_own
from bench.metrics.registry import IMAGE_METRICS, PIXEL_METRICS


def evaluate(
    maps: Maps,
    masks: Masks,
    *,
    image_scores: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    protocol: str = "exact",
    eval_size: int | str | None = None,
    aupimo: bool = False,
) -> dict[str, float]:
    """Image and pixel metrics of one category's test images.

    >>> import bench
    >>> bench.evaluate([[[0.1, 0.2]], [[0.9, 0.3]]], [[[0, 0]], [[1, 0]]])["image_auroc"]
    1.0

    Arrays may be NumPy's, nested lists or torch tensors of any type and device, and may have axes of length one
    besides: ``(N, 1, h, w)``. Scores are compared in their own precision.

    Args:
        maps: ``(N, h, w)`` or N arrays ``(h, w)``, at any resolution; higher is more anomalous.
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0, empty or None for normal images.
            Sizes may differ between images, and from the maps.
        image_scores: ``(N,)``; by default the maximum of each map as it is given.
        labels: ``(N,)`` 0 (normal) or 1 (anomalous); by default whether the mask has an anomalous pixel. An
            anomalous image whose mask is None leaves the pixel metrics undefined.
        protocol: ``exact``, ``grid200``, ``ader50``, ``openiad``, ``devnet-perimage`` or ``winclip-cy``, and
            options: ``grid200[sigma=4]`` (see ``bench.metrics.protocols``).
        eval_size: side of the evaluation grid, or ``own`` for each mask's own size. By default ``exact`` takes
            each mask's own size, and the others the grid that is part of them. Maps of another size are
            interpolated.
        aupimo: whether to add ``aupimo``, by anomalib (slow).

    Returns:
        ``image_auroc``, ``image_ap``, ``image_f1max``, ``image_fpr95``, ``pixel_auroc``, ``pixel_ap``,
        ``pixel_f1max`` and ``aupro`` (those of ``bench.metrics.registry``), fractions in [0, 1]. One that the data
        or the protocol do not define is left out, never made up. What else is wrong with the scores (all equal,
        saturated, not finite) is a warning.

    Raises:
        ValueError: shapes or numbers of images that do not fit, a normal image with anomalous pixels.
        bench.errors.BenchError: no such protocol or option.
    """
    chosen = resolve_own(protocol, eval_size)
    if len(maps) != len(masks) or not len(maps):
        raise ValueError(f"{len(maps)} maps and {len(masks)} masks: there must be as many, and at least one")
    if labels is None:
        shown = []
        for index, mask in enumerate(masks):
            shown.append(mask is not None and bool(as_mask(mask, index).any()))
        labels = np.array(shown)
    if image_scores is None:
        image_scores = maxima(maps)
    found = measure(
        chosen,
        labels=labels,
        image_scores=image_scores,
        maps=maps,
        masks=masks,
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
    maps: Maps | None,
    masks: Masks | None,
    no_masks: str = "",
    unmasked: Collection[int] = (),
    aupimo: bool = False,
) -> Evaluation:
    """The metrics of one category under a protocol, with what is wrong.

    A metric that comes out as no finite number is None, and the reason says so. Arguments and errors are those of
    :func:`bench.metrics.measurement.evaluate_under`; ``aupimo`` adds AUPIMO.
    """
    found = evaluate_under(
        protocol,
        labels=labels,
        image_scores=image_scores,
        maps=maps,
        masks=masks,
        no_masks=no_masks or NO_MASKS,
        unmasked=unmasked,
    )
    if aupimo:
        value, reason = None, found.reasons.get("pixel_auroc")
        if maps is not None and masks is not None and reason is None:
            value, reason = measure_aupimo(protocol, labels=labels, maps=maps, masks=masks, unmasked=unmasked)
        found.put(["aupimo"], {"aupimo": value}, reason)
    return _finite(found)


def measure_aupimo(
    protocol: MetricProtocol,
    *,
    labels: ArrayLike,
    maps: Maps,
    masks: Masks,
    unmasked: Collection[int] = (),
) -> tuple[float | None, str | None]:
    """AUPIMO of maps for which the other pixel metrics are defined; or None, and why.

    Anomalous images without a mask (``unmasked``) are left out.
    """
    from bench.metrics.pimo import aupimo

    whole, reason = complete_masks(masks, as_labels(labels), maps)
    if whole is None:
        return None, reason
    unknown = frozenset(unmasked)
    known = [index for index in range(len(whole)) if index not in unknown]
    return aupimo(chosen(maps, known), chosen(whole, known), protocol)


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
    masks: Sequence[ArrayLike] | None,
    no_masks: str = NO_MASKS,
) -> tuple[Evaluation, dict[str, float]]:
    """The ``exact`` metrics in bounded memory, and by how much each pixel metric may be off.

    Raises:
        ValueError: another protocol, or scores that are not finite.
    """
    from bench.metrics.streaming import PixelAccumulator

    if protocol.thresholds != "all":
        raise ValueError(f"streaming approximates the exact protocol, not {protocol.name}")
    found = Evaluation({})
    found.put(IMAGE_METRICS, *image_metrics(as_labels(labels), image_scores, found.problems))
    if masks is None:
        found.put(PIXEL_METRICS, {}, no_masks)
        return found, {}
    streamed = PixelAccumulator(protocol.eval_size)
    streamed.add(maps, masks)
    result = streamed.metrics(protocol.fpr_limit)
    reason = refused(None, streamed.extent, result.counts.positives, result.counts.negatives, found.problems)
    if reason is not None:
        found.put(PIXEL_METRICS, {}, reason)
        return found, {}
    if streamed.extent.flat < streamed.extent.maps:
        found.problems.extend(filter(None, [guards.saturated_pixels(result.counts, protocol.fpr_limit)]))
    found.put(PIXEL_METRICS, result.values, "not measured by streaming")
    bounds = {name: bound for name, bound in result.bounds.items() if bound is not None}
    return _finite(found), bounds


def maxima(maps: NDArray[Any] | Sequence[ArrayLike]) -> NDArray[np.float64]:
    """``(N,)`` image scores for a method that gives none: the maximum of each map as it is given."""
    return np.array([as_map(each, index).max() for index, each in enumerate(maps)], dtype=np.float64)
