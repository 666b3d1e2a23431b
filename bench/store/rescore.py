"""Measuring the stored scores of single trials again, for ``bench rescore``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import bench
from bench.errors import BenchError
from bench.metrics.blocks import AUPIMO, DEFAULT, block, is_complete, verdict
from bench.metrics.protocols import MetricProtocol, resolve
from bench.store.record import Record
from bench.store.scores import LabelledScores, StoredScores
from bench.store.store import Store
from bench.tools.provenance import revision


@dataclass(frozen=True)
class Rescored:
    """The outcome of measuring one trial again.

    Attributes:
        kind: ``measured``: its record was rewritten; ``current``: there was nothing to do; ``without``: it has
            no scores, since it was skipped or failed; ``refused``: it could not be measured.
        reason: why, in the last two cases.
        undefined: why there is no AUPIMO, if it was asked for and its block was measured.
    """

    kind: Literal["measured", "current", "without", "refused"]
    reason: str = ""
    undefined: str = ""


def rescore(store: Store, key: str, scores: StoredScores, protocols: Sequence[str], aupimo: bool) -> Rescored:
    """Measure a trial's stored scores where its record lacks a metric or has it from another metrics version.

    The record is rewritten whole, and only while no other process runs the trial. Its status follows the guards of
    the ``exact`` protocol, when that is measured.

    Args:
        store: holds the record.
        key: the trial's.
        scores: opens scores of the same store.
        protocols: metric protocols, with options; those that the record has, if there are none.
        aupimo: True adds AUPIMO, by anomalib; where it is already, it is kept up to date all the same.

    Raises:
        BenchError: no such protocol; the store cannot be written.
    """
    if not store.claim(key):
        return Rescored("refused", "another process is running it")
    try:
        return _rescore(store, key, scores, protocols, aupimo)
    finally:
        store.release(key)


def _rescore(store: Store, key: str, scores: StoredScores, protocols: Sequence[str], aupimo: bool) -> Rescored:
    document = store.document(key)
    if document is None:
        return Rescored("without", "not run yet")
    record = Record.of(document)
    if record.status != "ok" and not store.has_scores(key):
        return Rescored("without", f"{record.status}: {record.reason}")
    # A copy: nothing is changed before everything was measured.
    metrics = dict(document["metrics"])
    wanted = {}
    for name in protocols or metrics:
        wanted[name] = aupimo or AUPIMO in metrics.get(name, {}).get("values", ())
    wanted = wanted or {DEFAULT: aupimo}
    todo = {name: too for name, too in wanted.items() if not is_complete(name, metrics.get(name), aupimo=too)}
    if not todo:
        return Rescored("current")
    try:
        scored = scores.open(record)
        for name, too in todo.items():
            protocol = resolve(name, scored.eval_size if name == DEFAULT else None)
            if is_complete(name, metrics.get(name)):  # but for AUPIMO
                metrics[name] = _with_aupimo(metrics[name], scored, protocol)
            else:
                metrics[name] = block(protocol, scored.measure(protocol, too))
    except (BenchError, ValueError, MemoryError) as error:
        return Rescored("refused", f"{error}" or type(error).__name__)
    status, reason = document["status"], document["reason"]
    if DEFAULT in todo:
        status, reason = verdict(metrics[DEFAULT])
    rescored = {
        "bench": bench.__version__,
        "revision": revision(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "protocols": sorted(todo),
    }
    provenance = {**document["provenance"], "rescored": rescored}
    changed = {"status": status, "reason": reason, "metrics": metrics, "provenance": provenance}
    store.write({**document, **changed}, None)
    reasons = [metrics[name]["reasons"].get(AUPIMO, "") for name, too in todo.items() if too]
    return Rescored("measured", undefined=next(filter(None, reasons), ""))


def _with_aupimo(found: Mapping[str, Any], scored: LabelledScores, protocol: MetricProtocol) -> dict[str, Any]:
    """A block with AUPIMO besides; nothing is measured if the other pixel metrics are not defined either."""
    reasons = dict(found.get("reasons") or {})
    value, reason = None, reasons.get("pixel_auroc")
    if reason is None:
        value, reason = scored.measure_aupimo(protocol)
    if value is None and reason is not None:
        reasons[AUPIMO] = reason
    return {**found, "values": {**found["values"], AUPIMO: value}, "reasons": reasons}
