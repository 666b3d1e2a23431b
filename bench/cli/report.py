"""``bench report``: a study as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import best_option, read_metrics, read_roots, store_option
from bench.cli.table import chosen_study, load_tables, uncollected
from bench.metrics.registry import MEASURED
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.report.tables.model import Best


@click.command("report")
@click.option("--study", "study_name", help="A study that was run here.  [default: the latest]")
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
@uncollected()
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
    from bench.report.page.content import make_page
    from bench.report.page.gallery import Gallery
    from bench.report.page.page import render
    from bench.tools.files import write_atomically
    from bench.tools.spec import parse_spec

    results = Store(store)
    study = chosen_study(results, study_name)
    tables = load_tables(results, study, read_metrics(metrics or ",".join(MEASURED)), percent=percent, best=best)
    content, records = results.study(study) or {}, results.study_records(study)
    labels = dict.fromkeys(record.dataset.label for record in records)
    gallery = Gallery(results, read_roots(roots, tuple(map(parse_spec, labels))), images)
    page = render(make_page(study, content, records, tables, gallery)).encode()
    path = output or results.root / "reports" / f"{study}.html"
    write_atomically(path, page)
    for reason in gallery.refused:
        click.echo(f"note: {reason}", err=True)
    click.echo(f"written: {path} ({len(page) / 1e6:.1f} MB)", err=True)
