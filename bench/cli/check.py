"""``bench check``: a study's numbers beside pinned and reported ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import read_metrics, store_option, study_option
from bench.errors import BenchError, unknown
from bench.metrics.registry import MEASURED
from bench.report.tables.study import chosen_study
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.report.check.verdicts import Check, Result
    from bench.store.record import Record

DEFAULT_PINS = Path("results/pinned")


@click.command("check")
@study_option
@click.option(
    "--against",
    type=click.Choice(["pinned", "reported"]),
    help="Only these.  [default: pins if there are any for the study, and papers]",
)
@click.option(
    "--pins",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_PINS,
    show_default=True,
    help="Folder of pinned numbers, STUDY.json each.",
)
@click.option(
    "--reported",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of reported numbers.  [default: those that come with the package]",
)
@click.option("--papers", help="Only these papers, with commas, as `bench audit` names them.")
@click.option("--metrics", help=f"Only these: {','.join(MEASURED)}.  [default: all]")
@click.option("--margin", type=float, help="Differences from a paper below it do not count.  [default: 0.015]")
@click.option("--exact", is_flag=True, help="Pinned numbers must be the same to every digit: on one kind of CPU.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Write JUnit XML to a file.")
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Append a summary in Markdown to a file."
)
@click.option("--json", "as_json", is_flag=True, help="Every result, as JSON.")
@store_option
def command(
    study_name: str | None,
    against: str | None,
    pins: Path,
    folder: Path | None,
    papers: str | None,
    metrics: str | None,
    margin: float | None,
    exact: bool,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
    store: Path,
) -> None:
    """Compare a study's numbers with pinned ones and with those that papers report.

    Each number is reproduced, better, worse, undecided, missing or not comparable. Against pins, trial by
    trial, everything but "reproduced" fails; against papers, cell by cell, "worse", "undecided" and "missing"
    do.

    Exit code 0: as expected. 1: something failed. 2: a mistake in the call. 3: not one number could be compared.

    \b
    bench run --study quick && bench check
    bench check --junit check.xml --markdown "$GITHUB_STEP_SUMMARY"
    """
    from bench.report.check import junit as junit_xml
    from bench.report.check import output

    if margin is not None and not 0 <= margin < 1:
        raise BenchError(f"--margin {margin}: not a fraction such as 0.015")
    results = Store(store)
    study = chosen_study(results, study_name)
    chosen = read_metrics(metrics) if metrics else MEASURED
    check = _check(results, study, against, pins / f"{study}.json", folder, papers, chosen, margin, exact)
    if junit is not None:
        junit.write_bytes(junit_xml.render(check))
    if markdown is not None:
        with markdown.open("a", encoding="utf-8") as stream:
            stream.write(output.markdown(check))
    if as_json:
        click.echo(json.dumps(output.as_dict(check), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(output.render(check), nl=False)
    if check.exit_code:
        raise click.exceptions.Exit(check.exit_code)


def _check(
    store: Store,
    study: str,
    against: str | None,
    pins: Path,
    folder: Path | None,
    papers: str | None,
    metrics: tuple[str, ...],
    margin: float | None,
    exact: bool,
) -> Check:
    from bench.report.check import pinned
    from bench.report.check.pins import changes, measured, read
    from bench.report.check.verdicts import Check
    from bench.report.tables.naming import flat

    records = store.study_records(study)
    results: list[Result] = []
    notes: list[str] = []
    if against != "reported":
        if pins.is_file():
            expected, now = read(pins), measured(study, records)
            results += pinned.compare(expected, now, metrics, exact=exact)
            notes += pinned.never_pinned(expected, now)
            differ = changes(flat(expected.environment), flat(now.environment))
            if differ and any(result.fails for result in results):
                notes.append(f"measured elsewhere than the pins: {'; '.join(differ)}")
        elif against == "pinned":
            raise BenchError(f"there are no pinned numbers in {pins}; make them: bench pin --study {study}")
        else:
            notes.append(f"no pinned numbers in {pins} (bench pin makes them)")
    if against != "pinned":
        found, more = _against_papers(store, records, folder, papers, metrics, margin)
        results += found
        notes += more
    return Check(study, tuple(results), tuple(notes))


def _against_papers(
    store: Store,
    records: list[Record],
    folder: Path | None,
    papers: str | None,
    metrics: tuple[str, ...],
    margin: float | None,
) -> tuple[list[Result], list[str]]:
    from bench.report.check.papers import MARGIN, compare
    from bench.reported import load

    rows = load(folder)
    chosen = None
    if papers is not None:
        chosen = [name.strip() for name in papers.split(",")]
        known = {row.paper for row in rows}
        for name in chosen:
            if name not in known:
                raise unknown("paper", name, known)
    margin = MARGIN if margin is None else margin
    return compare(records, rows, store, papers=chosen, metrics=metrics, margin=margin)
