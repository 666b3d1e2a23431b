"""zsad-bench: a benchmark harness for zero-shot visual anomaly detection."""

from __future__ import annotations

__version__ = "0.1.0"
