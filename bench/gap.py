"""Stored scores under any metric protocol: what ``bench explain-gap`` computes for a study."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.catalogue import Catalogue
from bench.config import parse_spec
from bench.errors import BenchError
from bench.evaluation import measure
from bench.hashing import HashBook
from bench.images import read_mask
from bench.metrics import Evaluation
from bench.metrics.prepare import Lazy
from bench.metrics.protocols import MetricProtocol, resolve
from bench.plan import open_catalogue
from bench.store import Store


@dataclass(frozen=True)
class Group:
    """Trials whose metrics are averaged: one method on one dataset with one number of shots."""

    dataset: str
    method: str
    shots: int | None

    @property
    def title(self) -> str:
        shots = "" if self.shots is None else f", {self.shots}-shot"
        return f"{self.method} on {self.dataset}{shots}"


def group_of(record: Mapping[str, Any]) -> Group:
    """The group of a stored trial."""
    trial = record["trial"]
    return Group(trial["dataset"]["label"], trial["method"]["label"], trial["shots"])


class StoredScores:
    """Re-evaluates the trials of a store.

    Args:
        store: holds records and scores.
        roots: dataset name -> its folder, where it is not the one that the trial was run on.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self.store = store
        self.roots = roots
        self._hashes = HashBook(store.root / "hashes.json")
        self._catalogue = functools.lru_cache(maxsize=4)(self._open)

    def evaluate(
        self, record: Mapping[str, Any], protocols: Sequence[str], eval_size: str | None, aupimo: bool
    ) -> dict[str, tuple[MetricProtocol, Evaluation]]:
        """A trial's metrics under each protocol, as it is written in ``protocols``.

        ``exact`` is taken on the grid on which the trial was measured, unless ``eval_size`` says otherwise.

        Raises:
            BenchError: its dataset is not there or has changed, or its scores cannot be read.
        """
        trial, key = record["trial"], record["key"]
        arrays, ids = self.store.scores(key), self.store.score_ids(key)
        catalogue = self._catalogue(trial["dataset"]["label"], self._root(record))
        if catalogue.fingerprint != trial["dataset"]["fingerprint"]:
            raise BenchError(
                f"{catalogue.label} at {catalogue.dataset.root} is not what trial {key[:12]} was run on; "
                "give the folder it saw with --data-root, or run the study again"
            )
        samples = [catalogue.samples[id_] for id_ in ids]
        maps = arrays.get("maps")
        masks = Lazy(lambda index: read_mask(samples[index]), len(samples))
        measured = record["metrics"].get("exact", {}).get("eval_size")
        found = {}
        for text in protocols:
            exact = parse_spec(text).name == "exact"
            protocol = resolve(text, eval_size or (measured if exact and measured != 256 else None))
            found[text] = (
                protocol,
                measure(
                    protocol,
                    labels=catalogue.labels(ids),
                    image_scores=arrays["image"],
                    maps=maps,
                    masks=None if maps is None else masks,
                    aupimo=aupimo,
                ),
            )
        return found

    def _root(self, record: Mapping[str, Any]) -> Path | None:
        """The dataset's folder: the one given, or the one in the command that ran the trial."""
        name = record["trial"]["dataset"]["name"]
        if name in self.roots:
            return self.roots[name]
        words = shlex.split(record["provenance"].get("command") or "")
        if "--data-root" not in words[:-1]:
            return None
        return Path(words[words.index("--data-root") + 1]).expanduser()

    def _open(self, label: str, root: Path | None) -> Catalogue:
        return open_catalogue(parse_spec(label), root, self._hashes)


def average(trials: Iterable[tuple[str, Mapping[str, float | None]]]) -> dict[str, float | None]:
    """Mean over categories of the mean over a category's trials (seeds).

    Args:
        trials: each trial's category and metrics.

    Returns:
        A metric is None if one of the trials does not have it: a mean over the rest would be another one.
    """
    by_category: dict[str, list[Mapping[str, float | None]]] = {}
    for category, metrics in trials:
        by_category.setdefault(category, []).append(metrics)
    names = dict.fromkeys(name for rows in by_category.values() for row in rows for name in row)
    result: dict[str, float | None] = {}
    for name in names:
        columns = [[row.get(name) for row in rows] for rows in by_category.values()]
        whole = all(value is not None for column in columns for value in column)
        result[name] = float(np.mean([np.mean(np.array(column, float)) for column in columns])) if whole else None
    return result
