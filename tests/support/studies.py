"""Made-up studies in a store, for tests of commands that read one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bench.datasets.mvtec import OFFICIAL
from bench.store.store import Store
from bench.tools.hashes import hash_json


def keep(store: Store, records: Iterable[dict[str, Any]], name: str = "mine") -> Store:
    """Keep records as a study; those with status ``missing`` are planned only."""
    every = list(records)
    for each in every:
        if each["status"] != "missing":
            store.write(each, None)
    store.write_study(
        name,
        {
            "name": name,
            "keys": [each["key"] for each in every],
            "methods": list(dict.fromkeys(each["trial"]["method"]["label"] for each in every)),
            "missing": [each for each in every if each["status"] == "missing"],
        },
    )
    return store


def write_splits(store: Store, records: Sequence[dict[str, Any]], test: int = 0, normal: int = 0) -> None:
    """Splits of the records' trials with as many images as MVTec AD has, and some more or less."""
    for each in records:
        trial = each["trial"]
        _, good, types, _ = OFFICIAL[trial["category"]]
        seen = sum(counts.train for category, counts in OFFICIAL.items() if category != trial["category"])
        content = {
            "test": ["x"] * (good + sum(types.values()) + test),
            "normal": ["x"] * (seen + normal) if trial["shots"] is not None else [],
        }
        trial["protocol"]["manifest"] = hash_json(content)  # as it is named, or the store takes it for damaged
        store.write_once("manifests", trial["protocol"]["manifest"], content)
        if each["status"] != "missing":
            store.write(each, None)
