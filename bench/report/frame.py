"""Records as a pandas DataFrame, for analyses that no table foresees."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, unknown
from bench.metrics.registry import TITLES
from bench.store.record import AnyRecord, as_records
from bench.store.store import DEFAULT_ROOT, Store

if TYPE_CHECKING:
    from pandas import DataFrame

_COLUMNS = (
    "key",
    "status",
    "reason",
    "dataset",
    "dataset_version",
    "fingerprint",
    "protocol",
    "manifest",
    "category",
    "method",
    "label",
    "method_version",
    "title",
    "zero_shot",
    "leak",
    "encoders",
    "prompts",
    "shots",
    "seed",
    "metric_protocol",
    "metrics_version",
    "eval_size",
    "pixel_images",
    "problems",
)


def results(study: str | None = None, *, store: str | Path | None = None) -> DataFrame:
    """The trials of a study, or all that were run, as :func:`frame` gives them.

        >>> frame = bench.results("quick")                                           # doctest: +SKIP
        >>> frame.groupby(["label", "shots"], dropna=False).image_auroc.mean()       # doctest: +SKIP

    ``shots`` and ``seed`` are missing where a method has none, as CLIP does; ``dropna=False`` keeps it.

    Args:
        study: the name under which it was run; None for every record in the store.
        store: folder of the records; by default the environment's BENCH_STORE, or ``results/runs``.

    Raises:
        BenchError: there is no such store or study.
    """
    root = Path(store or os.environ.get("BENCH_STORE") or DEFAULT_ROOT)
    if not root.is_dir():
        raise BenchError(f"there is no store in {root}; bench run makes one, or say where it is: store=...")
    kept = Store(root)
    if study is None:
        return frame(kept.records())
    if study not in kept.study_names():
        raise unknown("study", study, kept.study_names())
    return frame(kept.study_records(study))


def frame(records: Iterable[AnyRecord]) -> DataFrame:
    """One line per trial and metric protocol, one column per metric.

    A trial without metrics (failed, skipped) has one line in which they are missing, and so are metrics of another
    version of the metrics code. ``shots`` and ``seed`` are nullable
    integers; they are missing for methods that do not learn, so that grouping by them needs ``dropna=False``.
    ``pixel_images`` is, as in ``40 of 52``, the number of test images that pixel metrics were taken on, where
    anomalous ones without a mask were left out.

        >>> ok = frame(store.records()).query("status == 'ok'")              # doctest: +SKIP
        >>> ok.groupby(["label", "shots", "category"], dropna=False).image_auroc.mean()    # doctest: +SKIP
    """
    import pandas as pd

    rows = []
    names = dict.fromkeys(TITLES)
    for record in as_records(records):
        method, dataset, protocol = record.method, record.dataset, record.protocol
        row: dict[str, Any] = {
            "key": record.key,
            "status": record.status,
            "reason": record.reason or None,
            "dataset": dataset.label,
            "dataset_version": dataset.version,
            "fingerprint": dataset.fingerprint,
            "protocol": protocol.label,
            "manifest": protocol.manifest,
            "category": record.category,
            "method": method.name,
            "label": method.label,
            "method_version": method.version,
            "title": method.title,
            "zero_shot": method.zero_shot,
            "leak": record.leak,
            "encoders": ", ".join(encoder.name for encoder in record.encoders.values()),
            "prompts": record.prompts,
            "shots": record.shots,
            "seed": record.seed,
        }
        if not record.blocks:
            rows.append(
                {**row, "metric_protocol": None, "metrics_version": None, "eval_size": None, "problems": ""}
            )
        for name, block in record.blocks.items():
            names.update(dict.fromkeys(block.values))
            rows.append(
                {
                    **row,
                    "metric_protocol": name,
                    "metrics_version": block.version,
                    "eval_size": block.eval_size,
                    "pixel_images": block.pixel_images and "{} of {}".format(*block.pixel_images),
                    "problems": "; ".join(block.problems),
                    **block.values,
                }
            )
    result = pd.DataFrame(rows, columns=[*_COLUMNS, *names])
    return result.astype({"shots": "Int64", "seed": "Int64", **dict.fromkeys(names, "float64")})
