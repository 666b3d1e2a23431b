"""``bench data check``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.contracts import Finding


@click.group("data")
def command() -> None:
    """Look at a dataset's files."""


@command.command("check")
@click.argument("dataset")
@click.option("--data-root", type=click.Path(path_type=Path), help="Its folder.")
def data_check(dataset: str, data_root: Path | None) -> None:
    """Name every broken, missing, misplaced or mismatched file of DATASET; exit 1 if there is one."""
    from collections import Counter

    from bench.data.catalogue import open_catalogue
    from bench.study.plan import check_data
    from bench.tools.spec import parse_spec
    from bench.tools.text import count

    catalogue = open_catalogue(parse_spec(dataset), data_root)
    layout = catalogue.dataset.check()
    try:
        _ = catalogue.samples
    except BenchError:
        # Nothing can be decoded or counted. The finding of a root that is not the dataset is the error itself.
        _print(finding for finding in layout if finding.path != ".")
        raise
    findings = check_data(catalogue)
    _print(findings)
    click.echo(f"{catalogue.dataset.traits.title} ({catalogue.label})")
    for category in catalogue.categories:
        counts = Counter((s.split, s.anomalous) for s in catalogue.samples.values() if s.category == category)
        types = {s.type for s in catalogue.samples.values() if s.category == category and s.anomalous}
        click.echo(
            f"  {category}: {counts['train', False]} train, {counts['test', False]} test normal, "
            f"{counts['test', True]} test anomalous of {count(len(types), 'type')}"
        )
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        click.echo(count(errors, "error"), err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"no error; fingerprint {catalogue.fingerprint}")


def _print(findings: Iterable[Finding]) -> None:
    for finding in findings:
        click.echo(f"{finding.level}: {finding.path}: {finding.message}")
