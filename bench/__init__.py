"""zsad-bench: a benchmark harness for zero-shot visual anomaly detection."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.api.results import Results
    from bench.api.run import run
    from bench.metrics.evaluation import evaluate
    from bench.predict.detector import Detector, fit, load
    from bench.report.frame import results

__version__ = "0.1.0"
__all__ = ["Detector", "Results", "__version__", "evaluate", "fit", "load", "results", "run"]

_LAZY = {
    "Detector": "bench.predict.detector",
    "Results": "bench.api.results",
    "evaluate": "bench.metrics.evaluation",
    "fit": "bench.predict.detector",
    "load": "bench.predict.detector",
    "results": "bench.report.frame",
    "run": "bench.api.run",
}


def __dir__() -> list[str]:
    """The public names, for completion."""
    return __all__


def __getattr__(name: str) -> Any:
    """Import a function when it is first asked for: importing bench stays free of NumPy."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
