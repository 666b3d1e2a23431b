"""Why a measured number and a reported one are not of the same thing.

Each function gives the reason in words, or nothing if there is none.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from bench.data.splits import ProtocolConfig
from bench.metrics.protocols import resolve
from bench.reported import Reported
from bench.store.store import Store
from bench.tools.registry import PROTOCOLS
from bench.tools.spec import parse_spec

# Rows of PromptAD's Table 4 -> the options that build them.
_VARIANTS = {
    "PromptAD[ABN]": "promptad[ccl=off,cmi=off,nor=off]",
    "PromptAD[NOR]": "promptad[abn=off,ccl=off,cmi=off]",
    "PromptAD[ABN+NOR]": "promptad[ccl=off,cmi=off]",
    "PromptAD[ABN+NOR+CCL]": "promptad[cmi=off]",
    "PromptAD[ABN+NOR+CCL+CMI]": "promptad",
}


def _plain(name: str) -> str:
    """A method's name without options, capitals and signs: ``Trans-MM`` and ``transmm`` are one."""
    return re.sub(r"[^a-z0-9+]", "", name.partition("[")[0].lower())


def same_cell(row: Reported, trial: Mapping[str, Any]) -> bool:
    """Whether the number may be this trial's: its method, dataset, and shots where both have some."""
    if trial["dataset"]["name"] != row.dataset or _plain(row.method) != _plain(trial["method"]["name"]):
        return False
    return None in (row.shots, trial["shots"]) or row.shots == trial["shots"]


def metric_protocol(row: Reported, measured: set[str]) -> tuple[str, str]:
    """Under which metric protocol to look, of those that were measured, and why it is not the paper's."""
    if not row.metric_protocol:
        if row.metric.startswith("image_"):
            return "exact", ""  # defined by the scores and the labels alone
        return "exact", "how its pixel metrics are taken is not stated there"
    protocol = resolve(row.metric_protocol)
    if row.metric.startswith("image_") and protocol.image_score == protocol.labels == "given":
        return "exact", ""
    if protocol.name in measured:
        return protocol.name, ""
    return "exact", f"taken as {protocol.name} there, as exact here (bench explain-gap shows both)"


def method_differs(row: Reported, trial: Mapping[str, Any]) -> str:
    """Another method: adapted, with other options, or on another encoder."""
    method = trial["method"]
    if method.get("adapted"):
        return f"adapted: {method['adapted']}"
    wanted, own = parse_spec(_VARIANTS.get(row.method, method["name"])), parse_spec(method["label"])
    few_shot = {"k", "few_shot"} if row.k else set()
    options = {name: value for name, value in own.options.items() if name not in few_shot}
    if options != wanted.options:
        return f"other options: {own}, not {wanted}"
    if row.encoder == "unstated":
        return "which encoder was used is not stated there"
    encoders = [encoder["name"] for encoder in (trial.get("encoders") or {}).values()]
    if row.encoder and row.encoder not in encoders:
        return f"another encoder: {row.encoder} there, {', '.join(encoders) or 'none'} here"
    return ""


def protocol_differs(row: Reported, trial: Mapping[str, Any]) -> str:
    """Another way of learning: protocol, shots, normal images of the target."""
    protocol, learned = trial["protocol"], trial["shots"] is not None
    config = {**dataclasses.asdict(ProtocolConfig()), **(protocol.get("config") or {})}
    k = config.pop("k")
    if row.protocol in ("unstated", "transductive"):
        return f"another protocol: {row.note or row.protocol}"
    if row.k != k:
        return f"another protocol: {row.k} normal images of the target there, {k} here"
    if row.protocol == "training_free":
        return "another protocol: trained here, not there" if learned else ""
    if not learned:
        return "another protocol: trained there, not here"
    source = (protocol.get("source") or {}).get("name", "")
    if (row.protocol, row.trained_on) != (protocol["name"], source):
        return f"another protocol: {row.protocol} {row.trained_on}".rstrip() + f" there, {protocol['label']} here"
    if any(value != getattr(ProtocolConfig(), name) for name, value in config.items()):
        return f"another protocol: {protocol['label']} has options of its own"
    return (
        "labelled anomalies per category are not stated there"
        if row.protocol == "loo" and row.shots is None
        else ""
    )


def part(trial: Mapping[str, Any], store: Store) -> str:
    """Images that are not all of MVTec AD's; of other datasets nobody here knows the counts."""
    if trial["dataset"]["name"] != "mvtec":
        return ""
    from bench.datasets.mvtec import OFFICIAL

    manifest = store.manifest(trial["protocol"]["manifest"])
    if manifest is None:
        return "the split is not in the store, so that nobody can see whether the dataset is whole"
    _, normal, types = OFFICIAL[trial["category"]]
    test = normal + sum(types.values())
    if len(manifest["test"]) != test:
        return f"part of the dataset: {len(manifest['test'])} of {test} test images of {trial['category']}"
    train = sum(count for category, (count, _, _) in OFFICIAL.items() if category != trial["category"])
    other = PROTOCOLS.load(trial["protocol"]["name"]).traits.needs_source
    if trial["shots"] is not None and not other and len(manifest["normal"]) != train:
        return f"part of the dataset: {len(manifest['normal'])} of {train} normal training images"
    return ""
