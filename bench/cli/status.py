"""``bench status``: how far a study is, while it runs and after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import store_option, study_option
from bench.report.tables.study import chosen_study
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.report.status import StudyStatus

_MOST_FAILURES = 10


@click.command("status")
@study_option
@click.option("--json", "as_json", is_flag=True, help="The numbers, as JSON.")
@store_option
def command(study_name: str | None, as_json: bool, store: Path) -> None:
    """Tell how far a study is: trials done, running now, failed and missing, and the time left.

    It may be asked while the study runs, in another terminal, and after the run was killed. The time left comes
    from finished trials of the same methods, where there are any.
    """
    from bench.report.status import study_status

    kept = Store(store)
    status = study_status(kept, chosen_study(kept, study_name))
    if as_json:
        _print_json(status)
    else:
        _print(status, kept)


def _print(status: StudyStatus, store: Store) -> None:
    from bench.report.status import STATES, in_words
    from bench.study.task import title
    from bench.tools.text import count, one_line

    click.echo(f"study {status.study}: {in_words(status.counts)}")
    # Nothing is ever skipped in most studies.
    states = [state for state in STATES if state != "skipped" or status.counts[state]]
    # The method comes last, since its options may be long.
    click.echo("".join(f"{state:>9}" for state in states) + "  method")
    for label, counts in status.methods.items():
        click.echo("".join(f"{counts[state]:>9}" for state in states) + f"  {label}")
    for record in status.failures[:_MOST_FAILURES]:
        name = title(f"{record.method.label} · {record.category}", record.shots, record.seed)
        click.echo(f"failed: {name}: {one_line(record.reason)}")
    if len(status.failures) > _MOST_FAILURES:
        click.echo(f"failed: {len(status.failures) - _MOST_FAILURES} more; bench report shows all")
    if status.fits:
        click.echo(f"{count(status.fits, 'fit')} being trained, which missing trials wait for")
    if status.left:
        for line in status.estimate(store).lines(max(1, status.counts["running"])):
            click.echo(f"left: {line}")
    if not status.running and (status.left or status.failures):
        click.echo("no process runs it now; the command that started it runs the rest")


def _print_json(status: StudyStatus) -> None:
    import json

    from bench.report.status import STATES

    content = {
        "study": status.study,
        "methods": {label: {s: counts[s] for s in STATES} for label, counts in status.methods.items()},
        "fits": status.fits,
        "failures": [{"key": record.key, "reason": record.reason} for record in status.failures],
    }
    click.echo(json.dumps(content, indent=1, ensure_ascii=False))
