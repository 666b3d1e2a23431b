"""``bench report``: a study as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import best_option, read_metrics, store_option, study_option
from bench.metrics.registry import MEASURED
from bench.report.tables.study import chosen_study
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.report.tables.model import Best


@click.command("report")
@study_option
@click.option("--metrics", help=f"Some of {','.join(MEASURED)}.  [default: all]")
@click.option(
    "--images",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Worst and best images per method, category and shots; 0 for none.",
)
@click.option("--data-root", "roots", multiple=True, help="For the images: the dataset's folder.")
@click.option("--percent", is_flag=True, help="Percent with one decimal instead of fractions.")
@best_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page.  [default: reports/STUDY.html in the store]",
)
@store_option
def command(
    study_name: str | None,
    metrics: str | None,
    images: int,
    roots: tuple[str, ...],
    percent: bool,
    best: Best | None,
    output: Path | None,
    store: Path,
) -> None:
    """Write a study as one HTML page that needs no server, no network and no other file.

    It has the tables to sort and filter, and behind every number its trials: seeds, splits, versions, the
    command that repeats them, and the images that the method ranks worst and best, with its maps.
    """
    from bench.report.page.study import write_page

    results = Store(store)
    study = chosen_study(results, study_name)
    path = output or results.root / "reports" / f"{study}.html"
    chosen = read_metrics(metrics or ",".join(MEASURED))
    refused = write_page(results, study, path, chosen, images=images, roots=roots, percent=percent, best=best)
    for reason in refused:
        click.echo(f"note: {reason}", err=True)
    click.echo(f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)", err=True)
