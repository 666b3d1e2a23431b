"""Trial records as the store keeps them, made up for tests of what is computed from records."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from bench.data.splits import ProtocolConfig
from bench.metrics.blocks import METRICS_VERSION
from bench.metrics.registry import METRICS
from bench.tools.spec import build_config, parse_spec

TITLES = {"clip": "CLIP", "devnet": "DevNet", "promptad": "PromptAD"}
DATASETS = {"aitex": "AITEX"}


def record(
    method: str = "promptad",
    category: str = "weave",
    shots: int | None = 1,
    seed: int | None = 0,
    value: float | None = 0.5,
    *,
    status: str = "ok",
    reason: str | None = None,
    name: str | None = None,
    title: str | None = None,
    version: str = "1",
    zero_shot: bool = True,
    adapted: str = "",
    dataset: str = "pocket",
    fingerprint: str = "f" * 64,
    note: str = "",
    encoder: str = "pocket/clip",
    sha256: str = "e" * 64,
    prompts: str | None = None,
    manifest: str | None = None,
    protocol: str = "loo",
    source: dict[str, Any] | None = None,
    eval_size: int = 64,
    reasons: dict[str, str] | None = None,
    problems: tuple[str, ...] = (),
    values: dict[str, float | None] | None = None,
) -> dict[str, Any]:
    """A trial record; every metric is ``value`` unless ``values`` says otherwise."""
    split = hashlib.sha256(f"{protocol}/{category}/{shots}/{seed}".encode()).hexdigest()
    rules = build_config(ProtocolConfig, parse_spec(protocol), "protocol")
    name = name or method.partition("[")[0]
    trial = {
        "method": {
            "name": name,
            "version": version,
            "label": method,
            "config": {},
            "title": title or TITLES.get(name, name),
            "zero_shot": zero_shot,
            "adapted": adapted,
        },
        "dataset": {
            "name": dataset.partition("[")[0],
            "label": dataset,
            "title": DATASETS.get(dataset.partition("[")[0], dataset.title()),
            "version": "1",
            "fingerprint": fingerprint,
            "note": note,
        },
        "protocol": {
            "name": protocol.partition("[")[0],
            "label": protocol,
            "config": dataclasses.asdict(rules),
            "source": source,
            "manifest": manifest or split,
        },
        "category": category,
        "shots": shots,
        "seed": seed,
        "prompts": prompts,
        "encoders": {"encoder": {"name": encoder, "sha256": sha256}},
    }
    metrics = {}
    if status == "ok":
        numbers = {**dict.fromkeys(METRICS, value), **(values or {})}
        metrics = {
            "exact": {
                "version": METRICS_VERSION,
                "eval_size": eval_size,
                "values": numbers,
                "reasons": reasons or {},
                "problems": [*problems],
            }
        }
    key = hashlib.sha256(json.dumps(trial, sort_keys=True).encode()).hexdigest()
    return {
        "format": 1,
        "key": key,
        "status": status,
        "reason": reason,
        "trial": trial,
        "metrics": metrics,
        "provenance": {},
    }
