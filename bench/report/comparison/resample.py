"""Intervals from resampled test images, for methods whose scores are in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.comparison.compare import Comparison, Standing
from bench.report.statistics.images import RESAMPLED, image_interval
from bench.store.record import Record
from bench.store.scores import RecordedData
from bench.store.store import Store


def with_image_intervals(comparison: Comparison, store: Store, roots: Mapping[str, Path]) -> Comparison:
    """The comparison with an interval per method from resampled images, and seeds where there are several.

    See :func:`bench.report.statistics.images.image_interval` for what is resampled. Only seeds with scores in
    every compared category take part.

    Args:
        comparison: of an image metric.
        store: holds the scores of the records behind it.
        roots: name of the dataset -> its folder; for the labels, which no store holds.

    Raises:
        BenchError: not an image metric; scores or data that are not there, or other data than were scored;
            seeds that were tested on different images; too few images.
    """
    metric = comparison.table.metric
    if metric not in RESAMPLED:
        raise BenchError(f"images can be resampled for {' and '.join(RESAMPLED)}, not for {metric}")
    data = RecordedData(store, roots)
    methods = tuple(_with_interval(method, comparison, store, data) for method in comparison.methods)
    return replace(comparison, methods=methods)


def _scored(store: Store, key: str) -> tuple[Record, tuple[str, ...], NDArray[np.float32]] | None:
    """The record of a trial, its images and their scores; None for a trial without."""
    record = store.record(key)
    if record is None or record.status != "ok":
        return None
    return record, store.score_ids(key), store.scores(key)["image"]


def _with_interval(method: Standing, comparison: Comparison, store: Store, data: RecordedData) -> Standing:
    table = comparison.table
    places = {(column.method, column.group): place for place, column in enumerate(table.columns)}
    place = places[method.method, comparison.group]
    cells = [row.cells[place] for row in table.rows if row.head in comparison.categories and not row.average]
    found = []
    for cell in cells:
        of_seed = {}
        for key in cell.keys:
            scored = _scored(store, key)
            if scored is not None:
                of_seed[scored[0].seed] = scored
        found.append(of_seed)
    seeds = [seed for seed in found[0] if all(seed in of_seed for of_seed in found)]
    if not seeds:
        raise BenchError(f"{method.head}: no seed has scores in every category; run the study again")
    parts = []
    for of_seed in found:
        record, ids, _ = of_seed[seeds[0]]
        if any(of_seed[seed][1] != ids for seed in seeds):
            raise BenchError(
                f"{method.head} on {record.category}: the seeds were tested on different images, "
                "so that images cannot be resampled for all of them at once"
            )
        parts.append((np.stack([of_seed[seed][2] for seed in seeds]), data.of(record).labels(ids)))
    return replace(method, over_images=image_interval(parts, table.metric))
