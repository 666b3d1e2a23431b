"""The registry of metrics: the one place where their names, titles and directions are found.

A module in ``bench/metrics/definitions`` defines one metric, or a small family, in a constant ``METRICS``; nothing
else names it. Importing the registry imports no NumPy.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.metrics import definitions

if TYPE_CHECKING:
    from bench.metrics.ranks import Ranking


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as in records and options: ``image_auroc``.
        level: scores of which it is a metric.
        title: as tables print it.
        short: as narrow tables print it.
        function: computes it from ranked scores of both classes, neither of them empty; a fraction in [0, 1]. None
            for a metric that is computed elsewhere.
        position: place among the metrics of its level.
        higher_is_better: direction.
        protocols: names of the metric protocols that define it; empty if all do.
        curve: the curve that it is the area under (``ROC``, ``PR``, ``PRO``), and ``curve_title``; empty if none.
        resampled: whether intervals from resampled images are offered for it.
        on_request: measured only where it is asked for.
    """

    name: str
    level: Literal["image", "pixel"]
    title: str
    short: str
    function: Callable[[Ranking], float] | None
    position: int
    higher_is_better: bool = True
    protocols: tuple[str, ...] = ()
    curve: str = ""
    curve_title: str = ""
    resampled: bool = False
    on_request: bool = False

    def is_defined_in(self, protocol: str) -> bool:
        """True if a metric protocol, given by name and perhaps with options, defines the metric."""
        return not self.protocols or protocol.partition("[")[0] in self.protocols


def _defined() -> Iterator[Metric]:
    for module in pkgutil.iter_modules(definitions.__path__):
        yield from importlib.import_module(f"{definitions.__name__}.{module.name}").METRICS


def _in_order(metrics: list[Metric]) -> dict[str, Metric]:
    """The metrics by name: those of images first, those on request last.

    Raises:
        ValueError: two metrics share a name.
    """
    metrics.sort(key=lambda metric: (metric.on_request, metric.level, metric.position, metric.name))
    by_name = {metric.name: metric for metric in metrics}
    if len(by_name) < len(metrics):
        raise ValueError("two metrics share a name")
    return by_name


METRICS = _in_order(list(_defined()))
TITLES = {metric.name: metric.title for metric in METRICS.values()}
# Metrics that every evaluation has, by level.
MEASURED = tuple(metric.name for metric in METRICS.values() if not metric.on_request)
IMAGE_METRICS = tuple(name for name in MEASURED if METRICS[name].level == "image")
PIXEL_METRICS = tuple(name for name in MEASURED if METRICS[name].level == "pixel")


def undefined_in(protocol: str) -> list[str]:
    """The measured metrics that a metric protocol does not define."""
    return [name for name in MEASURED if not METRICS[name].is_defined_in(protocol)]


def sign(name: str) -> int:
    """1 where more of a metric is better, -1 where less is; 1 for a name that is not in the registry."""
    metric = METRICS.get(name)
    return 1 if metric is None or metric.higher_is_better else -1
