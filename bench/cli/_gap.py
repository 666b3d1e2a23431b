"""Which stored trials ``bench explain-gap`` averages, and under which metric protocols."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.metrics.blocks import DEFAULT
from bench.metrics.protocols import MetricProtocol, resolve
from bench.tools.spec import parse_spec


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


def protocol_of(record: Mapping[str, Any], text: str, eval_size: str | None) -> MetricProtocol:
    """The metric protocol that ``text`` names, with ``exact`` on the grid on which the trial was measured.

    Args:
        record: of the trial.
        text: a metric protocol with options.
        eval_size: the grid of all protocols; None for each one's own.

    Raises:
        BenchError: no such protocol.
    """
    measured = record["metrics"].get(DEFAULT, {}).get("eval_size")
    own = measured if parse_spec(text).name == DEFAULT and measured != resolve(DEFAULT).eval_size else None
    return resolve(text, eval_size or own)


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
