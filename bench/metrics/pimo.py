"""AUPIMO, the mean over anomalous images of the area under their own overlap curves, by anomalib."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.metrics.prepare import prepare
from bench.metrics.protocols import MetricProtocol

LOWEST_RATE = 1e-5


def aupimo(
    maps: NDArray[Any] | Sequence[ArrayLike],
    masks: NDArray[Any] | Sequence[ArrayLike],
    protocol: MetricProtocol,
) -> tuple[float | None, str | None]:
    """Return AUPIMO (Bertoldo et al., BMVC 2024) with anomalib's defaults, or None and why.

    The false positive rate is that of the normal images alone, between 1e-5 and 1e-4 on a logarithmic axis,
    through 300,000 thresholds at equal steps of the score.

    Args:
        maps: as in ``pixel_metrics``.
        masks: as in ``pixel_metrics``.
        protocol: brings both to its grid, which must be the same for all images.
    """
    ready, truth = prepare(maps, masks, protocol)
    try:
        regions = np.stack(list(truth))
    except ValueError:
        return None, "AUPIMO needs maps of one size"
    # The masks alone tell if it is defined at all; the maps take longer.
    normal = regions[~regions.any(axis=(1, 2))].size
    if normal * LOWEST_RATE < 1:
        return None, f"the normal images' {normal} pixels are too few for false positive rates of {LOWEST_RATE:g}"

    scores = np.stack(list(ready))
    import torch
    from anomalib.metrics.pimo.pimo import _AUPIMO

    # It warns at every single use that it keeps all maps.
    logging.getLogger(_AUPIMO.__module__).setLevel(logging.ERROR)
    try:
        metric = _AUPIMO(return_average=True)
        metric.update(torch.from_numpy(scores), torch.from_numpy(regions.astype(np.int64)))
        # It returns the average alone, which its annotation does not say.
        value = float(cast(Any, metric.compute()))
    except (RuntimeError, ValueError) as error:
        return None, f"anomalib: {' '.join(str(error).split())}"
    return (value, None) if np.isfinite(value) else (None, "anomalib gives no number")
