"""zsad-bench: a benchmark harness for zero-shot visual anomaly detection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.evaluation import evaluate

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate"]


def __getattr__(name: str) -> Any:
    """Import ``bench.evaluate`` when it is first asked for: importing bench stays free of NumPy."""
    if name == "evaluate":
        from bench.evaluation import evaluate

        return evaluate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
