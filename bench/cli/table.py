"""``bench table``: the tables of a study, from its records alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from bench.cli._options import best_option, metric_protocol_option, read_metrics, store_option
from bench.errors import BenchError, unknown
from bench.metrics.blocks import DEFAULT
from bench.metrics.registry import MEASURED
from bench.report.tables.model import FORMATS
from bench.report.tables.study import PLAIN, chosen_study, load_tables
from bench.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.report.tables.model import Best, Format
    from bench.report.tables.table import Style, Table


def _read_format(_context: click.Context, _option: click.Parameter, value: str) -> str:
    if value == "html":
        raise BenchError("bench table writes no HTML; for a page of the same tables: bench report --images 0")
    if value not in FORMATS:
        raise unknown("format", value, FORMATS)
    return value


@click.command("table")
@click.option(
    "--study", "study_names", multiple=True, help="A study that was run here, or several.  [default: the latest]"
)
@click.option(
    "--layout",
    help="Rows and columns: table1 to table4 of the paper, cross, or plain.  [default: the study's]",
)
@click.option("--metrics", help=f"One plain table each: {','.join(MEASURED)}.")
@metric_protocol_option
@click.option(
    "--format",
    "format_",
    metavar=f"[{'|'.join(FORMATS)}]",
    callback=_read_format,
    default="terminal",
    show_default=True,
)
@click.option("--percent", is_flag=True, help="Percent with one decimal instead of fractions.")
@click.option(
    "--deviation/--no-deviation", "deviations", default=True, help="Deviations over seeds.  [default: on]"
)
@best_option
@click.option("--second", is_flag=True, help="Mark the second, too.")
@click.option("--why", metavar="CELL", help="The trials behind a number, as in promptad/1-shot/wood.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to a file.")
@store_option
def command(
    study_names: tuple[str, ...],
    layout: str | None,
    metrics: str | None,
    metric_protocol: str,
    format_: Format,
    percent: bool,
    deviations: bool,
    best: Best | None,
    second: bool,
    why: str | None,
    output: Path | None,
    store: Path,
) -> None:
    """Print the tables of studies that were run, or the trials behind one of their numbers.

    Rows are categories or what the layout has, numbers are means over seeds with their deviations.
    """
    results = Store(store)
    studies = [chosen_study(results, name) for name in study_names or (None,)]
    chosen = read_metrics(metrics)
    if metrics and layout not in (None, PLAIN):
        raise BenchError(
            f"--layout {layout} has metrics of its own; leave out --metrics, or take --layout {PLAIN}"
        )
    layout = PLAIN if metrics else layout
    style: Style = {"percent": percent, "deviations": deviations, "best": best, "second": second}
    if why is None:
        print_tables(results, studies, chosen, format_, output, layout, metric_protocol, **style)
    else:
        explain(results, studies, why, chosen if metrics else None, layout, metric_protocol, **style)


def print_tables(
    store: Store,
    studies: str | Sequence[str],
    metrics: tuple[str, ...],
    format_: Format = "terminal",
    output: Path | None = None,
    layout: str | None = PLAIN,
    metric_protocol: str = DEFAULT,
    **style: Unpack[Style],
) -> None:
    from bench.report.tables.formats import print_table, render_all

    tables = load_tables(store, studies, metrics, layout=layout, metric_protocol=metric_protocol, **style)
    if output is not None:
        output.write_text(render_all(tables, format_), encoding="utf-8")
        click.echo(f"written: {output}", err=True)
    elif format_ == "terminal":
        for each in tables:
            print_table(each)
            click.echo()
    else:
        click.echo(render_all(tables, format_), nl=False)


def explain(
    store: Store,
    studies: Sequence[str],
    address: str,
    metrics: tuple[str, ...] | None = None,
    layout: str | None = PLAIN,
    metric_protocol: str = DEFAULT,
    **style: Unpack[Style],
) -> None:
    """Print the trials behind a number, of the tables as they are printed or else of any plain one.

    Raises:
        BenchError: there is no such number, or several.
    """
    from bench.report.tables.trace import find, render, trace

    def tables(metrics: tuple[str, ...], layout: str | None) -> list[Table]:
        return load_tables(store, studies, metrics, layout=layout, metric_protocol=metric_protocol, **style)

    try:
        found = find(tables(metrics or MEASURED, layout), address)
    except BenchError as error:
        try:
            found = find(tables(MEASURED, PLAIN), address)
        except BenchError:
            raise error from None
    click.echo(render(trace(found, store.record)), nl=False)
    click.echo(f"  records in {store.root / 'records'}")
