"""``bench table``: the tables of a study, from its records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.commands.options import METRICS, best_option, metric_protocol_option, read_metrics, store_option
from bench.errors import BenchError, unknown
from bench.measured import DEFAULT
from bench.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.formats import Format
    from bench.report.model import Best
    from bench.report.table import Table


@click.command("table")
@click.option("--study", "study_name", help="A study that was run here.  [default: the latest]")
@click.option("--metrics", help=f"One table each: {','.join(METRICS)}.")
@metric_protocol_option
@click.option(
    "--format",
    "format_",
    type=click.Choice(["terminal", "markdown", "csv", "latex"]),
    default="terminal",
    show_default=True,
)
@click.option("--percent", is_flag=True, help="Percent with one decimal instead of fractions.")
@best_option
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file.")
@store_option
def command(
    study_name: str | None,
    metrics: str | None,
    metric_protocol: str,
    format_: Format,
    percent: bool,
    best: Best | None,
    output: Path | None,
    store: Path,
) -> None:
    """Print the tables of a study that was run: rows per category, mean and deviation over seeds."""
    results = Store(store)
    study = chosen_study(results, study_name)
    print_tables(results, study, read_metrics(metrics), format_, percent, output, best, metric_protocol)


def chosen_study(store: Store, name: str | None) -> str:
    """The name of a study that was run here, by default the latest's.

    Raises:
        BenchError: there is none, or none of that name.
    """
    names = store.study_names()
    if not names:
        raise BenchError(f"no study was run in {store.root} yet; start with: bench run")
    if name is not None and name not in names:
        raise unknown("study", name, names)
    return name or names[0]


def load_tables(
    store: Store,
    study: str,
    metrics: tuple[str, ...],
    *,
    methods: Sequence[str] | None = None,
    percent: bool = False,
    best: Best | None = None,
    metric_protocol: str = DEFAULT,
) -> list[Table]:
    """The tables of a study from its records; see :func:`bench.report.table.build_tables`.

    Raises:
        BenchError: none of its trials has finished; a method that is not in it.
    """
    from bench.report.table import build_tables

    content = store.study(study) or {}
    found = {key: store.record(key) for key in content.get("keys", [])}
    missing = [record for record in content.get("missing", []) if found.get(record["key"]) is None]
    records = [record for record in found.values() if record is not None]
    if not records:
        raise BenchError(f"study {study} has no finished trial yet; run it first")
    return build_tables(
        [*records, *missing],
        metrics=metrics,
        protocol=metric_protocol,
        methods=methods or content.get("methods"),
        percent=percent,
        best=best,
    )


def print_tables(
    store: Store,
    study: str,
    metrics: tuple[str, ...],
    format_: Format = "terminal",
    percent: bool = False,
    output: Path | None = None,
    best: Best | None = None,
    metric_protocol: str = DEFAULT,
) -> None:
    from bench.report.formats import print_table, render_all

    tables = load_tables(store, study, metrics, percent=percent, best=best, metric_protocol=metric_protocol)
    if output is not None:
        output.write_text(render_all(tables, format_), encoding="utf-8")
        click.echo(f"written: {output}", err=True)
    elif format_ == "terminal":
        for each in tables:
            print_table(each)
            click.echo()
    else:
        click.echo(render_all(tables, format_), nl=False)
