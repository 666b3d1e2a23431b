"""The metrics of one category under a named protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics import grids
from bench.metrics.exact import PIXEL_METRICS, as_labels, pixel_metrics
from bench.metrics.measurement import IMAGE_METRICS, Evaluation, checked_rank, evaluate, image_metrics
from bench.metrics.pixels import gather
from bench.metrics.prepare import Lazy, image_score, prepare
from bench.metrics.protocols import MetricProtocol

NO_MAPS = "the method gives no maps"
NO_MASKS = "the dataset gives no masks"
NOT_THERE = "{} does not have it"


def evaluate_named(
    protocol: MetricProtocol,
    *,
    labels: ArrayLike,
    image_scores: ArrayLike | None,
    maps: NDArray[Any] | Sequence[ArrayLike] | None,
    masks: NDArray[Any] | Sequence[ArrayLike] | None,
    device: str | None = None,
) -> Evaluation:
    """Evaluate one category under ``protocol``; the guards are those of :func:`bench.metrics.measurement`.

    Args:
        protocol: see ``protocols``.
        labels: ``(N,)`` 0 (normal) or 1 (anomalous), or bool.
        image_scores: ``(N,)``, higher is more anomalous; None if the method gives none.
        maps: ``(N, h, w)`` or N arrays ``(h, w)``; None if the method gives none. Each is asked for once
            or twice, so a sequence that reads them from files will do.
        masks: ``(N, H, W)`` or N arrays ``(H, W)``, anomalous where above 0; None if there are none.
        device: torch device on which ``exact`` sorts the pixels; None does it with NumPy.

    Raises:
        ValueError: as in :func:`bench.metrics.measurement`.
    """
    if protocol.thresholds == "all":
        return evaluate(
            labels=labels,
            image_scores=image_scores,
            maps=maps,
            masks=masks,
            eval_size=protocol.eval_size,
            fpr_limit=protocol.fpr_limit,
            device=device,
        )
    anomalous = as_labels(labels)
    found = Evaluation(dict.fromkeys(IMAGE_METRICS + PIXEL_METRICS))
    if maps is None or masks is None:
        missing = NO_MAPS if maps is None else NO_MASKS
        _put(found, PIXEL_METRICS, {}, missing)
        if protocol.image_score == "map":
            image_scores, reason = None, missing
        else:
            reason = None
        _images(found, anomalous, image_scores, reason)
    else:
        if not len(maps) == len(masks) == len(anomalous):
            raise ValueError(
                f"{len(anomalous)} labels, {len(maps)} maps and {len(masks)} masks: the numbers must agree"
            )
        ready, truth = prepare(maps, masks, protocol)
        if protocol.image_score == "map":
            image_scores = np.array([image_score(each, protocol.pool) for each in ready])
        shown = anomalous
        if protocol.labels == "masks":
            shown = np.array([bool(mask.any()) for mask in truth])
        _images(found, shown, image_scores, None)
        _pixels(found, protocol, anomalous, ready, truth)
    for name in protocol.undefined:
        found.metrics[name] = None
        found.reasons[name] = NOT_THERE.format(protocol.name)
    return found


def _put(found: Evaluation, names: Sequence[str], values: dict[str, float | None], reason: str | None) -> None:
    """Write metrics, and the reason for those that there are not."""
    for name in names:
        found.metrics[name] = values.get(name)
        if values.get(name) is None:
            found.reasons[name] = reason or "undefined"


def _images(
    found: Evaluation,
    anomalous: NDArray[np.bool_],
    image_scores: ArrayLike | None,
    reason: str | None,
) -> None:
    values, why = image_metrics(anomalous, image_scores, found.problems)
    _put(found, IMAGE_METRICS, values, reason or why)


def _pixels(
    found: Evaluation,
    protocol: MetricProtocol,
    anomalous: NDArray[np.bool_],
    maps: Lazy,
    masks: Lazy,
) -> None:
    """Write the pixel metrics."""
    # One thread, so that the normal pixels end up as one sorted array.
    pixels = gather(maps, masks, eval_size=None, threads=1)
    contradiction = np.flatnonzero(pixels.anomalous & ~anomalous)
    if len(contradiction):
        raise ValueError(f"image {contradiction[0]} is labelled normal but its mask has anomalous pixels")
    values, reason = checked_rank(pixels, protocol.fpr_limit, None, found.problems)
    if reason is not None:
        _put(found, PIXEL_METRICS, {}, reason)
        return
    if protocol.per_image:
        value, reason = _mean_auroc(np.flatnonzero(anomalous), maps, masks)
        _put(found, PIXEL_METRICS, {"pixel_auroc": value}, reason)
        return
    filled = grids.filled_regions(maps, masks) if protocol.fill_holes else None
    curves = grids.curves(pixels, filled)
    number, limit = protocol.steps, protocol.fpr_limit
    if protocol.thresholds == "bins":
        binned, reason = grids.bins(curves, number=number, limit=limit)
        values = {name: binned.get(name) for name in PIXEL_METRICS}
    elif protocol.thresholds == "ranks":
        values["aupro"] = grids.ranks(curves, number=number, limit=limit)
    else:
        rising = protocol.thresholds == "rising"
        values["aupro"], reason = grids.steps(curves, number=number, rising=rising, limit=limit)
    _put(found, PIXEL_METRICS, values, reason)


def _mean_auroc(images: NDArray[np.intp], maps: Lazy, masks: Lazy) -> tuple[float | None, str | None]:
    """Return the mean of each image's own AUROC; each must have anomalous and normal pixels."""
    values = []
    for i in images:
        own = pixel_metrics([maps[int(i)]], [masks[int(i)]], eval_size=None)["pixel_auroc"]
        if own is None:
            lacking = "normal" if masks[int(i)].all() else "anomalous"
            return None, f"anomalous image {i} has no {lacking} pixel"
        values.append(own)
    return float(np.mean(values)), None
