"""Exact image and pixel metrics of anomaly detection.

Every threshold counts, ties are counted exactly, and a metric that the data do not define is None with a
reason. Importing this package imports nothing: NumPy comes with the first function that is asked
for, SciPy with the first call that looks for regions.

A change after which the same scores give other metrics raises ``METRICS_VERSION``: records say by which version
they were measured.

>>> from bench.metrics import binary_metrics
>>> binary_metrics([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])["auroc"]
0.75
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.metrics.blocks import METRICS_VERSION
    from bench.metrics.exact import binary_metrics, pixel_metrics
    from bench.metrics.measurement import Evaluation, evaluate
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

_MODULES = {
    "METRICS_VERSION": "blocks",
    "Evaluation": "measurement",
    "evaluate": "measurement",
    "binary_metrics": "exact",
    "pixel_metrics": "exact",
    "resize_bilinear": "resize",
    "resize_nearest": "resize",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: tables need no NumPy."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"bench.metrics.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
