"""``bench audit``: check reported numbers against each other."""

from __future__ import annotations

import json
from pathlib import Path

import click

from bench.errors import unknown


@click.command("audit")
@click.option(
    "--reported",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder of the form of results/reported.  [default: the one that comes with the package]",
)
@click.option("--paper", help="Only this paper's numbers.")
@click.option("--columns", is_flag=True, help="List every average, not only those that are off.")
@click.option("--json", "as_json", is_flag=True, help="Every finding, as JSON.")
def command(folder: Path | None, paper: str | None, columns: bool, as_json: bool) -> None:
    """Check numbers that papers report against each other; exit 1 if a check fails.

    Printed averages are set beside the means of their rows, with rounding told from truncation; rows that
    break the schema, values out of range, repetitions and contradictions are listed. That two papers report
    one quantity differently is listed too, and no error.

    \b
    bench audit
    bench audit --paper PromptAD-WACV2024 --columns
    bench audit --reported my/tables      # before you print them
    """
    from bench.reported import audit_text, read
    from bench.reported.audit import audit

    rows, faults = read(folder)
    if paper is not None:
        papers = {row.paper for row in rows}
        if paper not in papers:
            raise unknown("paper", paper, papers)
        rows = [row for row in rows if row.paper == paper]
    found = audit(rows, faults)
    if as_json:
        content = audit_text.as_dict(found)
        click.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    else:
        click.echo(audit_text.render(found, columns=columns), nl=False)
    if not found.sound:
        raise click.exceptions.Exit(1)
