"""AUPIMO, which anomalib computes (``bench.metrics.pimo``): slow, so that it is measured only on request."""

from __future__ import annotations

from bench.metrics.registry import Metric

METRICS = (
    Metric(
        name="aupimo", level="pixel", title="AUPIMO", short="AUPIMO", function=None, position=9, on_request=True
    ),
)
