"""The metrics of a trial as its record keeps them: one block for each metric protocol.

A block names the version of the metrics code that made it. Numbers of two versions are never shown side by side:
to whoever reads records, those of another version are not there, until ``bench rescore`` has measured the stored
scores again. The trial itself is as good as ever, so that no version enters its key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.metrics import Evaluation
    from bench.metrics.protocols import MetricProtocol

# Raise it when bench.metrics gives other numbers, reasons or problems for the same scores.
METRICS_VERSION = "1"
DEFAULT = "exact"  # the metric protocol of every trial, whose guards decide on its status
AUPIMO = "aupimo"  # a metric that is measured only if it is asked for


def block(protocol: MetricProtocol, evaluation: Evaluation) -> dict[str, Any]:
    """The part of an evaluation that a record keeps.

    A class that the data do not have is no problem of the scores: it is the reason of the metrics without value.
    """
    from bench.metrics.guards import ONE_CLASS

    return {
        "version": METRICS_VERSION,
        "eval_size": protocol.eval_size,
        "values": dict(evaluation.metrics),
        "reasons": dict(evaluation.reasons),
        "problems": [problem for problem in evaluation.problems if not problem.startswith(ONE_CLASS)],
    }


def verdict(found: Mapping[str, Any]) -> tuple[str, str | None]:
    """A trial's status and the reason, by what the guards found in its scores: in the block of ``DEFAULT``."""
    if found["problems"]:
        return "failed", "; ".join(found["problems"])
    if all(value is None for value in found["values"].values()):
        return "skipped", "no metric is defined: " + "; ".join(dict.fromkeys(found["reasons"].values()))
    return "ok", None


def version(found: Mapping[str, Any]) -> str:
    """The version of the metrics code that made a block."""
    return str(found.get("version", "1"))  # the first version did not write it down


def is_current(found: Mapping[str, Any] | None, *, aupimo: bool = False) -> bool:
    """Whether a block is there and nothing in it needs measuring again, or AUPIMO for the first time."""
    if found is None or version(found) != METRICS_VERSION:
        return False
    return not aupimo or AUPIMO in found["values"]


def readable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A record's blocks, with a reason in place of numbers that another version of the metrics code made."""
    return {name: _readable(found) for name, found in metrics.items()}


def _readable(found: Mapping[str, Any]) -> Mapping[str, Any]:
    values, reasons = found.get("values", {}), found.get("reasons", {})
    if not is_current(found):
        reason = (
            f"measured by version {version(found)} of the metrics, which is now {METRICS_VERSION}; "
            "bench rescore measures the stored scores again"
        )
        return {**found, "values": dict.fromkeys(values), "reasons": dict.fromkeys(values, reason), "problems": []}
    if AUPIMO in values:
        return found
    return {**found, "reasons": {**reasons, AUPIMO: "not measured; bench rescore --aupimo adds it"}}
