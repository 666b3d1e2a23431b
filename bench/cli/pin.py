"""``bench pin``: keep a study's numbers, to be checked against from now on."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli._options import read_metrics, store_option, study_option
from bench.cli.check import DEFAULT_PINS
from bench.metrics.registry import MEASURED
from bench.report.tables.study import chosen_study
from bench.store.store import Store


@click.command("pin")
@study_option
@click.option(
    "--pins",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_PINS,
    show_default=True,
    help="Folder of pinned numbers, STUDY.json each.",
)
@click.option("--metrics", help=f"Only these: {','.join(MEASURED)}.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
@store_option
def command(study_name: str | None, pins: Path, metrics: str | None, dry_run: bool, store: Path) -> None:
    """Pin a study's numbers for `bench check`, and show what changes in the pinned file.

    The file has every seed's own values and all that they were measured with; it is made to be committed.
    """
    from bench.report.check.pins import Pins, difference, measured, read, write
    from bench.tools.text import count

    results = Store(store)
    study = chosen_study(results, study_name)
    path = pins / f"{study}.json"
    chosen = read_metrics(metrics) if metrics else None
    new = measured(study, results.study_records(study), chosen)
    old = read(path) if path.is_file() else Pins(study, {})
    for line in difference(old, new):
        click.echo(line)
    if dry_run:
        click.echo(f"not written: {path}", err=True)
        return
    write(path, new)
    click.echo(f"pinned: {path} ({count(len(new.pins), 'trial')})", err=True)
