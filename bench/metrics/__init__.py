"""Exact image and pixel metrics of anomaly detection.

Every threshold counts, ties are counted exactly, and a metric that the data do not define is None with a
reason. Importing this package imports NumPy only; SciPy is imported at the first call that looks for regions.

A change after which the same scores give other metrics raises ``METRICS_VERSION``: records say by which version
they were measured.

>>> from bench.metrics import binary_metrics
>>> binary_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])["auroc"]
0.75
"""

from __future__ import annotations

from bench.metrics.blocks import METRICS_VERSION
from bench.metrics.evaluate import Evaluation, evaluate
from bench.metrics.exact import binary_metrics, pixel_metrics
from bench.metrics.resize import resize_bilinear, resize_nearest

__all__ = [
    "METRICS_VERSION",
    "Evaluation",
    "binary_metrics",
    "evaluate",
    "pixel_metrics",
    "resize_bilinear",
    "resize_nearest",
]
