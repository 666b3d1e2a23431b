"""Reasons why a measured number and a reported one cannot be compared.

Each function gives the reason in words, or an empty text if there is none.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from bench.data.splits import ProtocolConfig, is_zero_shot
from bench.errors import BenchError
from bench.metrics.protocols import resolve
from bench.reported import Reported
from bench.store.record import Record
from bench.store.store import Store
from bench.tools.registry import DATASETS, PROTOCOLS
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


def same_cell(row: Reported, record: Record, shots: int | None) -> bool:
    """True if the number may be of a trial at ``shots``: same method, dataset, and shots if both have some."""
    if record.dataset.name != row.dataset or _plain(row.method) != _plain(record.method.name):
        return False
    return None in (row.shots, shots) or row.shots == shots


def metric_protocol(row: Reported, measured: set[str]) -> tuple[str, str]:
    """The metric protocol to compare under, of those that were measured, and why it is not the paper's."""
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


def method_differs(row: Reported, record: Record) -> str:
    """Another method: adapted, with other options, or on another encoder."""
    method = record.method
    if method.adapted:
        return f"adapted: {method.adapted}"
    wanted, own = parse_spec(_VARIANTS.get(row.method, method.name)), parse_spec(method.label)
    few_shot = {"k", "few_shot"} if row.k else set()
    options = {name: value for name, value in own.options.items() if name not in few_shot}
    if options != wanted.options:
        return f"other options: {own}, not {wanted}"
    if row.encoder == "unstated":
        return "which encoder was used is not stated there"
    encoders = [encoder.name for encoder in record.encoders.values()]
    if row.encoder and row.encoder not in encoders:
        return f"another encoder: {row.encoder} there, {', '.join(encoders) or 'none'} here"
    return ""


def _defaults(protocol: str) -> Any:
    """The options of a protocol at their defaults."""
    try:
        return PROTOCOLS.load(protocol).Config()
    except BenchError:  # a plugin that is not installed any more
        return ProtocolConfig()


def protocol_differs(row: Reported, record: Record) -> str:
    """Another way of learning: protocol, shots, normal images of the target."""
    protocol = record.protocol
    learned = record.shots is not None if record.method.trained is None else record.method.trained
    defaults = dataclasses.asdict(_defaults(protocol.name))
    config = {**defaults, **protocol.config}
    k = config.pop("k")
    if row.kind == "second_hand":
        return "known at second hand only"
    if row.protocol in ("unstated", "transductive"):
        return f"another protocol: {row.note or row.protocol}"
    if row.k != k:
        return f"another protocol: {row.k} normal images of the target there, {k} here"
    if row.protocol == "training_free":
        return "another protocol: trained here, not there" if learned else ""
    if not learned:
        return "another protocol: trained there, not here"
    source = "" if protocol.source is None else protocol.source.name
    # The field learns from another dataset's whole test part, and states no number of anomalies per category.
    rules = "auxiliary" if row.protocol == "transfer" and row.shots is None else row.protocol
    if rules != protocol.name:
        return f"another protocol: {rules} {row.trained_on}".rstrip() + f" there, {protocol.label} here"
    if row.trained_on != source:
        return f"learned from {row.trained_on or 'other categories'} there, from {source} here"
    if any(value != defaults.get(name, value) for name, value in config.items()):
        return f"another protocol: {protocol.label} has non-default options"
    return (
        "labelled anomalies per category are not stated there"
        if row.protocol == "loo" and row.shots is None
        else ""
    )


def part(record: Record, store: Store) -> str:
    """A dataset that is not whole, where it has official counts to tell by."""
    try:
        counts = DATASETS.load(record.dataset.name).traits.counts
    except BenchError:  # a plugin that is not installed any more
        counts = {}
    if record.category not in counts:
        return ""
    manifest = store.manifest(record.protocol.manifest or "")
    if manifest is None:
        return "the split is not in the store, so it is not known whether the dataset is whole"
    official = counts[record.category]
    test = official.normal + official.anomalous
    if len(manifest["test"]) != test:
        return f"part of the dataset: {len(manifest['test'])} of {test} test images of {record.category}"
    train = sum(other.train for category, other in counts.items() if category != record.category)
    protocol = record.protocol
    others = protocol.source is None and is_zero_shot(protocol.name, protocol.zero_shot)  # it learns from these
    if record.shots is not None and others and len(manifest["normal"]) != train:
        return f"part of the dataset: {len(manifest['normal'])} of {train} normal training images"
    return ""
