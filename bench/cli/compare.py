"""``bench compare``: which methods of a study differ, from its records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import metric_protocol_option, read_metrics, store_option, study_option
from bench.errors import BenchError
from bench.metrics.registry import MEASURED
from bench.report.tables.study import chosen_study, load_tables
from bench.store.store import Store
from bench.study.build import read_roots

if TYPE_CHECKING:
    from bench.report.comparison.compare import Comparison


@click.command("compare")
@study_option
@click.option("--metric", default="image_auroc", show_default=True, help=f"One of {', '.join(MEASURED)}.")
@metric_protocol_option
@click.option("--methods", help="Only these, with commas: fewer methods, fewer tests.  [default: all]")
@click.option("--shots", type=click.IntRange(min=0), help="Only this column group.  [default: each]")
@click.option(
    "--interval",
    type=click.Choice(["seeds", "images"]),
    default="seeds",
    show_default=True,
    help="t interval over seeds, or resampled test images and seeds.",
)
@click.option("--data-root", "roots", multiple=True, help="With --interval images: the dataset's folder.")
@click.option("--figure", type=click.Path(dir_okay=False, path_type=Path), help="Diagram: FILE.pdf, .svg, .png.")
@click.option("--json", "as_json", is_flag=True, help="Every number, as JSON.")
@store_option
def command(
    study_name: str | None,
    metric: str,
    metric_protocol: str,
    methods: str | None,
    shots: int | None,
    interval: str,
    roots: tuple[str, ...],
    figure: Path | None,
    as_json: bool,
    store: Path,
) -> None:
    """Compare the methods of a study over its categories.

    Prints each method's mean, interval and mean rank, then which differences hold: every pair by Wilcoxon's
    signed-rank test with Holm's correction, and all at once by Friedman's and Nemenyi's tests. --figure draws
    the mean ranks as a critical-difference diagram.
    """
    from bench.report.comparison import text as comparison_text
    from bench.report.comparison.compare import as_dict

    if figure is not None:
        from bench.report.figures.critical import check_suffix

        check_suffix(figure)
    results = Store(store)
    study = chosen_study(results, study_name)
    comparisons, refused = _comparisons(results, study, metric, metric_protocol, methods, shots)
    if interval == "images":
        comparisons = _resampled(comparisons, results, roots)
    if figure is not None:
        _draw(comparisons, results, figure)
    if as_json:
        content = {"study": study, "comparisons": list(map(as_dict, comparisons)), "refused": refused}
        click.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        click.echo("\n\n".join(map(comparison_text.render, comparisons)), nl=False)
    for reason in refused:
        click.echo(f"not compared: {reason}", err=True)


def _comparisons(
    store: Store, study: str, metric: str, metric_protocol: str, methods: str | None, shots: int | None
) -> tuple[list[Comparison], list[str]]:
    """One comparison per table and column group, and the reasons why there is none for others.

    Raises:
        BenchError: not one could be made.
    """
    from bench.report.comparison.compare import compare, groups
    from bench.tools.spec import split_specs

    metrics = read_metrics(metric)
    if len(metrics) != 1:
        raise BenchError(f"--metric {metric}: one metric at a time")
    chosen = [str(spec) for spec in split_specs(methods)] if methods else None
    made, refused = [], []
    for table in load_tables(store, study, metrics, methods=chosen, metric_protocol=metric_protocol):
        for head in groups(table, shots):
            try:
                made.append(compare(table, head))
            except BenchError as error:
                refused.append(str(error))
    if not made:
        raise BenchError("; ".join(refused))
    return made, refused


def _resampled(comparisons: list[Comparison], store: Store, given: tuple[str, ...]) -> list[Comparison]:
    from bench.report.comparison.resample import with_image_intervals
    from bench.tools.spec import parse_spec

    records = [store.record(comparison.table.keys[0]) for comparison in comparisons]
    labels = [record.dataset.label for record in records if record is not None]
    roots = read_roots(given, tuple(map(parse_spec, labels)))
    return [with_image_intervals(comparison, store, roots) for comparison in comparisons]


def _draw(comparisons: list[Comparison], store: Store, path: Path) -> None:
    from bench.report.figures.critical import save_figure
    from bench.report.figures.study import diagram

    if len(comparisons) > 1:
        said = "; ".join(comparison.title for comparison in comparisons)
        raise BenchError(f"--figure draws one comparison; choose with --study and --shots among: {said}")
    save_figure(diagram(comparisons[0], store), path)
    click.echo(f"written: {path}", err=True)
