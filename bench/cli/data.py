"""``bench data show`` and ``bench data check``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import home_option
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.contracts import Dataset, DatasetTraits, Finding


@click.group("data")
def command() -> None:
    """Look at a dataset's files."""


@command.command("show")
@click.argument("name")
def data_show(name: str) -> None:
    """Tell what is known of the dataset NAME: licence, citation, page, official numbers of images."""
    from bench.tools.registry import DATASETS
    from bench.tools.spec import parse_spec

    click.echo("\n".join(_traits(DATASETS.load(parse_spec(name).name).traits)))


def _traits(traits: DatasetTraits) -> list[str]:
    download = ", ".join(archive.url for archive in traits.archives)
    if not download and traits.page:
        download = "by hand, from the page"
    about = {
        "source": traits.source,
        "citation": traits.citation,
        "licence": traits.licence or "not known; see the page",
        "page": traits.page or "not known",
        "release": traits.released or "not known",
        "download": download or "none",
        "folders": ", ".join(traits.folders),
        "remark": traits.remark,
        "note": traits.note,
    }
    lines = [traits.title]
    for word, said in about.items():
        if said:
            lines += textwrap.wrap(f"{word:9} {said}", 98, initial_indent="  ", subsequent_indent=" " * 12)
    if traits.counts:
        lines.append("  official numbers of images:")
        width = max(map(len, traits.counts))
        for category, counts in traits.counts.items():
            train = f"{counts.train} train"
            if counts.train_anomalous:
                train += f" + {counts.train_anomalous} anomalous"
            types = {name: number for name, number in counts.types.items() if name}
            named = (
                f" ({', '.join(f'{name} {number}' for name, number in types.items())})" if len(types) > 1 else ""
            )
            lines.append(
                f"    {category:{width}}  {train}, {counts.normal} test normal, {counts.anomalous} test anomalous"
                f"{named}"
            )
        whole = [(c.train + c.train_anomalous, c.normal, c.anomalous) for c in traits.counts.values()]
        train_, normal, anomalous = (sum(column) for column in zip(*whole, strict=True))
        lines.append(f"    together: {train_:,} train, {normal:,} test normal, {anomalous:,} test anomalous")
    elif traits.files:
        numbers = ", ".join(f"{number:,} {kind}" for kind, number in traits.files.items())
        lines.append(f"  official numbers: {numbers}")
    else:
        lines.append("  official numbers of images: not known here")
    return lines


@command.command("check")
@click.argument("dataset")
@click.option("--data-root", type=click.Path(path_type=Path), help="Its folder.")
@home_option
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
        types = {name for s in catalogue.samples.values() if s.category == category for name in s.all_types}
        extra = f" + {counts['train', True]} anomalous" if counts["train", True] else ""
        click.echo(
            f"  {category}: {counts['train', False]} train{extra}, {counts['test', False]} test normal, "
            f"{counts['test', True]} test anomalous of {count(len(types), 'type')}"
        )
    click.echo(_completeness(catalogue.dataset))
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        click.echo(count(errors, "error"), err=True)
        raise click.exceptions.Exit(1)
    click.echo(f"no error; fingerprint {catalogue.fingerprint}")


def _completeness(dataset: Dataset) -> str:
    """A line that says whether all of a published dataset is there."""
    from bench.contracts import HasSubset

    if not isinstance(dataset, HasSubset):
        return "a dataset without official numbers"
    if subset := dataset.subset():
        return f"a subset: {subset}"
    known = dataset.traits.counts or dataset.traits.files
    return "complete: the official numbers of images" if known else "official numbers are not known here"


def _print(findings: Iterable[Finding]) -> None:
    for finding in findings:
        click.echo(f"{finding.level}: {finding.path}: {finding.message}")
