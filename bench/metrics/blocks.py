"""The metrics of a trial as its record keeps them: one block for each metric protocol.

A block names the version of the metrics code that made it. Numbers of two versions are never shown side by side:
readers of records do not see those of another version until ``bench rescore`` has measured the stored scores
again. The trial itself is as good as ever, so that no version enters its key. A metric that was added to the
registry later invalidates nothing: the block lacks it, and ``bench rescore`` adds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.metrics.registry import METRICS

if TYPE_CHECKING:
    from bench.metrics import Evaluation
    from bench.metrics.protocols import MetricProtocol

# Raise it when bench.metrics gives other numbers, reasons or problems for the same scores.
METRICS_VERSION = "1"
DEFAULT = "exact"  # the metric protocol of every trial, whose guards decide on its status
_MASKS_MISSING = "masks are missing: "  # begins a reason that is not given any more
AUPIMO = "aupimo"  # a metric that is measured only if it is asked for


def block(protocol: MetricProtocol, evaluation: Evaluation) -> dict[str, Any]:
    """The part of an evaluation that a record keeps.

    A class that the data do not have is no problem of the scores: it is the reason of the metrics without value.
    """
    from bench.metrics.guards import ONE_CLASS

    found: dict[str, Any] = {
        "version": METRICS_VERSION,
        "eval_size": protocol.eval_size,
        "values": dict(evaluation.metrics),
        "reasons": dict(evaluation.reasons),
        "problems": [problem for problem in evaluation.problems if not problem.startswith(ONE_CLASS)],
    }
    if evaluation.pixel_images is not None:  # left out where all images were measured
        measured, of = evaluation.pixel_images
        found["pixel_images"] = {"measured": measured, "of": of}
    return found


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


def is_current(found: Mapping[str, Any] | None) -> bool:
    """True if a block is there, and from this version of the metrics code."""
    return found is not None and version(found) == METRICS_VERSION


def is_complete(protocol: str, found: Mapping[str, Any] | None, *, aupimo: bool = False) -> bool:
    """True if there is nothing to measure: a current block with every metric that its protocol has.

    Args:
        protocol: the block's name, with options if any.
        found: the block.
        aupimo: whether AUPIMO must be among the metrics.
    """
    if found is None or not is_current(found) or _is_outdated(found):
        return False
    return not [name for name in _lacking(protocol, found) if aupimo or not METRICS[name].on_request]


def _is_outdated(found: Mapping[str, Any]) -> bool:
    """True of a block from before images without a mask were left out: one of them took all pixel metrics away."""
    return any(str(reason).startswith(_MASKS_MISSING) for reason in (found.get("reasons") or {}).values())


def _lacking(protocol: str, found: Mapping[str, Any]) -> list[str]:
    """The metrics of a protocol that a block lacks, since they were added later or not asked for."""
    values = found.get("values", {})
    return [name for name, metric in METRICS.items() if name not in values and metric.is_defined_in(protocol)]


def readable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """A record's blocks, with a reason in place of numbers that another version of the metrics code made."""
    return {name: _readable(name, found) for name, found in metrics.items()}


def _readable(protocol: str, found: Mapping[str, Any]) -> Mapping[str, Any]:
    values, reasons = found.get("values", {}), found.get("reasons", {})
    if not is_current(found):
        reason = (
            f"measured by version {version(found)} of the metrics, which is now {METRICS_VERSION}; "
            "bench rescore measures the stored scores again"
        )
        return {**found, "values": dict.fromkeys(values), "reasons": dict.fromkeys(values, reason), "problems": []}
    added = dict(reasons)
    if _is_outdated(found):
        for name, reason in reasons.items():
            if str(reason).startswith(_MASKS_MISSING):
                added[name] = f"{reason}; bench rescore measures the others"
    for name in METRICS:
        if name not in values and not METRICS[name].is_defined_in(protocol):
            added.setdefault(name, f"{protocol} does not have it")
    for name in _lacking(protocol, found):
        option = f" --{name}" if METRICS[name].on_request else ""
        added.setdefault(name, f"not measured; bench rescore{option} adds it")
    return {**found, "reasons": added}
