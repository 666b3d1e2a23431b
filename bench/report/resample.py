"""Intervals from resampled test images, for methods whose scores are in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.catalogue import Catalogue
from bench.errors import BenchError
from bench.report.comparison import Comparison, Standing
from bench.statistics.images import METRICS, image_interval
from bench.store import Store


def with_image_intervals(comparison: Comparison, store: Store, roots: Mapping[str, Path]) -> Comparison:
    """The comparison with an interval per method from resampled images, and seeds where there are several.

    See :func:`bench.statistics.images.image_interval` for what is resampled. Only seeds with scores in every
    compared category take part.

    Args:
        comparison: of an image metric.
        store: holds the scores of the records behind it.
        roots: name of the dataset -> its folder; for the labels, which no store holds.

    Raises:
        BenchError: not an image metric; scores or data that are not there, or other data than were scored;
            seeds that were tested on different images; too few images.
    """
    metric = comparison.table.metric
    if metric not in METRICS:
        raise BenchError(f"images can be resampled for {' and '.join(METRICS)}, not for {metric}")
    data = _Data(store, roots)
    return replace(comparison, methods=tuple(_with_interval(m, comparison, data) for m in comparison.methods))


class _Data:
    """Scores and labels of records, read once."""

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self.store, self.roots = store, roots
        self._catalogues: dict[str, Catalogue] = {}

    def scores(self, key: str) -> tuple[Mapping[str, Any], tuple[str, ...], NDArray[np.float32]] | None:
        """The trial, its images and their scores; None for a record without."""
        record = self.store.record(key)
        if record is None or record["status"] != "ok":
            return None
        return record["trial"], self.store.score_ids(key), self.store.scores(key)["image"]

    def labels(self, dataset: Mapping[str, Any], ids: tuple[str, ...]) -> NDArray[np.int8]:
        from bench.config import parse_spec
        from bench.hashing import HashBook
        from bench.plan import open_catalogue

        label = str(dataset["label"])
        if label not in self._catalogues:
            spec = parse_spec(label)
            book = HashBook(self.store.root / "hashes.json")
            catalogue = open_catalogue(spec, self.roots.get(spec.name), book)
            if catalogue.fingerprint != dataset["fingerprint"]:
                raise BenchError(f"{label} is not the data that were scored; give their folder with --data-root")
            self._catalogues[label] = catalogue
        return self._catalogues[label].labels(ids)


def _with_interval(method: Standing, comparison: Comparison, data: _Data) -> Standing:
    table = comparison.table
    places = {(column.method, column.group): place for place, column in enumerate(table.columns)}
    place = places[method.method, comparison.group]
    cells = [row.cells[place] for row in table.rows if row.head in comparison.categories and not row.average]
    found = []
    for cell in cells:
        of_seed = {}
        for key in cell.keys:
            scored = data.scores(key)
            if scored is not None:
                of_seed[scored[0]["seed"]] = scored
        found.append(of_seed)
    seeds = [seed for seed in found[0] if all(seed in of_seed for of_seed in found)]
    if not seeds:
        raise BenchError(f"{method.head}: no seed has scores in every category; run the study again")
    parts = []
    for of_seed in found:
        trial, ids, _ = of_seed[seeds[0]]
        if any(of_seed[seed][1] != ids for seed in seeds):
            raise BenchError(
                f"{method.head} on {trial['category']}: the seeds were tested on different images, "
                "so that images cannot be resampled for all of them at once"
            )
        parts.append((np.stack([of_seed[seed][2] for seed in seeds]), data.labels(trial["dataset"], ids)))
    return replace(method, over_images=image_interval(parts, table.metric))
