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


def one_study(context: click.Context, _option: click.Parameter, names: tuple[str, ...]) -> str | None:
    """The value of ``--study`` where it may be given once: click alone would take the last one without a word."""
    if len(names) > 1:
        given = " and ".join(f"--study {name}" for name in names)
        raise BenchError(f"{context.command_path} takes one study, not {given}; bench table takes several")
    return names[0] if names else None


def study_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--study",
        "study_name",
        multiple=True,
        callback=one_study,
        help="A study that was run here.  [default: the latest]",
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


def _enter_home(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    from bench.data.home import data_home

    context.with_resource(data_home(value))


def home_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--data-home",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_enter_home,
        help="A folder of datasets under their usual names.  [default: ZSAD_DATA]",
    )(command)


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options: list[Callable[..., Any]] = [
        click.option("--dataset", "--datasets", "datasets", help="Dataset, or several with commas."),
        click.option("--data-root", "roots", multiple=True, help="Its folder: DIR, or DATASET=DIR."),
        home_option,
        click.option("--protocol", help="Protocol (bench list protocols) with options: loo[k=4]."),
        click.option(
            "--train-dataset",
            help="Learn from it, where protocols do: visa, visa+clinicdb, or mvtec=visa,*=mvtec by target.",
        ),
        click.option("--train-root", "train_roots", multiple=True, help="Its folder: DIR, or DATASET=DIR."),
    ]
    for decorate in reversed(options):
        command = decorate(command)
    return command


def read_metrics(text: str | None) -> tuple[str, ...]:
    chosen = tuple(part.strip() for part in (text or "image_auroc,pixel_auroc").split(",") if part.strip())
    for name in chosen:
        if name not in registry.METRICS:
            raise unknown("metric", name, registry.METRICS)
    return chosen
