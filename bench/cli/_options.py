"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from bench.errors import BenchError, unknown
from bench.metrics import registry
from bench.metrics.blocks import DEFAULT
from bench.store.store import DEFAULT_ROOT


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--store",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_ROOT,
        show_default=True,
        envvar="BENCH_STORE",
        help="Where records and scores are kept.",
    )(command)


def metric_protocol_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--metric-protocol",
        default=DEFAULT,
        show_default=True,
        help="How metrics are taken: exact, or what bench rescore has added.",
    )(command)


def best_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--best",
        type=click.Choice(["tested", "maximum"]),
        help="Bold: not significantly different from the best, or the largest.  [default: tested from 2 seeds on]",
    )(command)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(
        [
            click.option("--dataset", "--datasets", "datasets", help="Dataset, or several with commas."),
            click.option("--data-root", "roots", multiple=True, help="Its folder: DIR, or DATASET=DIR."),
            click.option("--protocol", help="Protocol (bench list protocols) with options: loo[k=4]."),
            click.option("--train-dataset", help="The dataset to learn from, under protocols that need one."),
            click.option("--train-root", type=click.Path(path_type=Path), help="Its folder."),
        ]
    ):
        command = decorate(command)
    return command


def read_roots(given: tuple[str, ...], datasets: tuple[Any, ...]) -> dict[str, Path]:
    names = [spec.name for spec in datasets]
    roots: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (equals and name in names):
            if len(set(names)) > 1:
                raise BenchError(f"--data-root {text}: say of which dataset, {names[0]}=DIR")
            name, folder = names[0], text
        if name in roots:
            raise BenchError(f"--data-root {text}: the folder of {name} is given already, {roots[name]}")
        roots[name] = Path(folder).expanduser()
    return roots


def read_metrics(text: str | None) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in (text or "image_auroc,pixel_auroc").split(",") if part.strip())
    for name in chosen:
        if name not in registry.METRICS:
            raise unknown("metric", name, registry.METRICS)
    return chosen


def read_weights(given: tuple[str, ...]) -> dict[str, Path]:
    """Name of an encoder -> its file; under the name ``""`` a file that was given without one."""
    weights: dict[str, Path] = {}
    for text in given:
        # A file may have an equals sign in its name; one that exists as it is written is meant as it is written.
        name, equals, file = text.rpartition("=")
        if not equals or Path(text).exists():
            name, file = "", text
        if name in weights:
            which = f"those of {name} are given already" if name else "a file without a name is given already"
            raise BenchError(f"--weights {text}: {which}, {weights[name]}")
        weights[name] = Path(file).expanduser()
    return weights
