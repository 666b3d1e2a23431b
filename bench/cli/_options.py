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
from bench.study.sources import Sources


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
            click.option(
                "--train-dataset",
                help="Learn from it, where protocols do: visa, visa+clinicdb, or mvtec=visa,*=mvtec by target.",
            ),
            click.option("--train-root", "train_roots", multiple=True, help="Its folder: DIR, or DATASET=DIR."),
        ]
    ):
        command = decorate(command)
    return command


def read_roots(given: tuple[str, ...], datasets: tuple[Any, ...], option: str = "--data-root") -> dict[str, Path]:
    """Name of a dataset -> its folder, of ``DIR`` or ``DATASET=DIR`` as a user wrote them.

    Raises:
        BenchError: it is not said of which dataset, or one has two folders.
    """
    names = [spec.name for spec in datasets]
    roots: dict[str, Path] = {}
    for text in given:
        name, equals, folder = text.partition("=")
        if not (equals and name in names):
            if len(set(names)) > 1:
                raise BenchError(f"{option} {text}: say of which dataset, {names[0]}=DIR")
            name, folder = names[0], text
        if name in roots:
            raise BenchError(f"{option} {text}: the folder of {name} is given already, {roots[name]}")
        roots[name] = Path(folder).expanduser()
    return roots


def read_train_roots(given: tuple[str, ...], sources: Sources | None) -> dict[str, Path]:
    """The folders of the datasets to learn from, as a study has them.

    Raises:
        BenchError: there is no such dataset, or as :func:`read_roots`.
    """
    if not given:
        return {}
    if sources is None:
        raise BenchError("--train-root goes with --train-dataset")
    found = read_roots(given, sources.all, "--train-root")
    return {f"train:{name}": root for name, root in found.items()}


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
