"""The JSON of a trial's record, as the store keeps it (see :mod:`bench.store.store`)."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from bench.store.planned import pack
from bench.store.store import FORMAT
from bench.study.plan import Plan
from bench.study.task import Task
from bench.tools.provenance import environment
from bench.tools.registry import DATASETS, METHODS, PROTOCOLS
from bench.tools.spec import config_from_dict
from bench.trial.scores import REASON, plain


def new_record(task: Task, status: str, reason: str | None) -> dict[str, Any]:
    """The record of a trial that has ended with ``status``, without metrics and notes."""
    return {
        "format": FORMAT,
        "key": task.key,
        "status": status,
        "reason": reason and plain(reason, REASON),
        "trial": describe(task),
        "metrics": {},
        "scores": None,
        "notes": [],
        "provenance": {
            **environment(task.device, task.precision),
            "command": task.command,
            "inputs": dict(task.inputs),
            "weights": _weights(task),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def describe(task: Task) -> dict[str, Any]:
    """The record's ``trial``: the identity, and labels and traits that tables print beside it."""
    identity = dict(task.identity)
    method = {**identity["method"], "label": task.method}
    dataset = {**identity["dataset"], "label": task.dataset}
    protocol = {**identity["protocol"], "label": task.protocol}
    if task.source is not None:
        protocol["source"] = {**protocol["source"], "label": task.source}
    if subset := task.labels.get("subset"):
        dataset["subset"] = subset
    if subset := task.labels.get("source_subset"):
        protocol["source"] = {**protocol["source"], "subset": subset}
    # Traits are left out where a plugin is at fault: this runs for trials that failed, too.
    with contextlib.suppress(Exception):
        cls = METHODS.load(method["name"])
        traits = cls.traits(config_from_dict(cls.Config, identity["method"]["config"], task.files))
        method |= {
            "title": traits.title,
            "trained": traits.trained,
            "zero_shot": traits.zero_shot,
            "adapted": traits.adapted,
        }
    with contextlib.suppress(Exception):
        data_traits = DATASETS.load(dataset["name"]).traits
        dataset |= {"title": data_traits.title, "note": data_traits.note}
    with contextlib.suppress(Exception):
        cls = PROTOCOLS.load(protocol["name"])
        protocol["zero_shot"] = cls.traits.zero_shot
        if not cls.traits.shots:
            built = cls(config_from_dict(cls.Config, protocol["config"], task.files))
            protocol["learned"] = getattr(built, "learned_in_words", "")
    leaked = {"leak": task.leak} if task.leak else {}
    return {**identity, "method": method, "dataset": dataset, "protocol": protocol, **leaked}


def _weights(task: Task) -> dict[str, Any]:
    """Role -> name, hash and training data of the weights that the trial has loaded."""
    found = {}
    for role, key in task.weights_by_role.items():
        weights = task.weights[key]
        found[role] = {"name": weights.name, "sha256": weights.sha256, "trained_on": list(weights.trained_on)}
    return found


def describe_study(plan: Plan) -> dict[str, Any]:
    """The content of a study's file: its trials, with what tables print of those that have not run."""
    fits = Counter(task.fit_key for task in plan.tasks if task.fit_key)
    return {
        "name": plan.study.name,
        "hash": plan.hash,
        "keys": [task.key for task in plan.tasks],
        "methods": list(dict.fromkeys(task.method for task in plan.tasks)),
        "layout": plan.study.layout,
        "planned": pack(map(describe, plan.tasks)),
        # Fits that several trials wait for: while one of them is trained, none of its trials is running.
        "fits": [key for key, number in fits.items() if number > 1],
    }


def peak_memory() -> int | None:
    """Peak resident memory of this process so far, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (2**20 if sys.platform == "darwin" else 2**10))


def encoder_passes() -> int:
    """Images that this process has put through a frozen encoder so far."""
    features = sys.modules.get("bench.encoders.features")  # not imported before a method has used an encoder
    return 0 if features is None else int(features.CACHE.passes)
