"""``bench rescore``: metrics of stored scores anew, without training."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import store_option, study_option
from bench.errors import BenchError
from bench.store.store import Store
from bench.study.build import read_roots

if TYPE_CHECKING:
    from bench.store.rescore import Rescored


@click.command("rescore")
@study_option
@click.option("--all", "everything", is_flag=True, help="Every trial in the store instead of one study's.")
@click.option(
    "--metric-protocol",
    "--protocol",
    "protocols",
    help="Metric protocols to add, with commas: exact,grid200.  [default: those that a record has]",
)
@click.option("--aupimo", is_flag=True, help="Add AUPIMO, by anomalib (slow).")
@click.option("--data-root", "roots", multiple=True, help="The data's folder, if moved: DIR, or DATASET=DIR.")
@store_option
def command(
    study_name: str | None,
    everything: bool,
    protocols: str | None,
    aupimo: bool,
    roots: tuple[str, ...],
    store: Path,
) -> None:
    """Measure stored scores again; nothing is trained or scored.

    \b
    bench rescore                              # what another version of the metrics has measured
    bench rescore --metric-protocol grid200    # then: bench table --metric-protocol grid200
    bench rescore --aupimo                     # then: bench table --metrics aupimo

    A record that has the wanted metrics, from this version of the metrics code, stays as it is.
    """
    from bench.report.tables.study import chosen_study
    from bench.store.rescore import rescore
    from bench.store.scores import StoredScores
    from bench.tools.spec import Spec

    if everything and study_name is not None:
        raise BenchError("--all takes every trial of the store; leave out --study")
    kept = Store(store)
    names = _names(protocols)
    if everything:
        records = list(kept.records())
    else:
        study = kept.study_records(chosen_study(kept, study_name))
        records = [record for record in study if record.status != "missing"]
    if not records:
        raise BenchError(f"no trial has finished yet in {kept.root}; start with: bench run")
    datasets = dict.fromkeys(record.dataset.name for record in records)
    scores = StoredScores(kept, read_roots(roots, tuple(map(Spec, datasets))))
    # Trials of one category follow each other: they share their masks.
    records.sort(key=lambda record: (record.dataset.label, record.category))
    keys = [record.key for record in records]
    outcomes: Counter[Rescored] = Counter()
    said: set[str] = set()
    with click.progressbar(keys, label="measuring", file=sys.stderr, hidden=not sys.stderr.isatty()) as shown:
        for key in shown:
            outcome = rescore(kept, key, scores, names, aupimo)
            outcomes[outcome] += 1
            if outcome.undefined and outcome.undefined not in said:
                said.add(outcome.undefined)
                click.echo(f"note: no AUPIMO: {outcome.undefined}", err=True)
    _print(outcomes)


def _names(protocols: str | None) -> list[str]:
    """Metric protocols as records call them: ``exact`` alone goes with each dataset's own grid."""
    from bench.metrics.blocks import DEFAULT
    from bench.metrics.protocols import resolve
    from bench.tools.spec import split_specs

    chosen = [str(spec) for spec in split_specs(protocols)] if protocols is not None else []
    if protocols is not None and not chosen:
        raise BenchError("--metric-protocol names no metric protocol")
    return list(dict.fromkeys(text if text == DEFAULT else resolve(text).name for text in chosen))


def _print(outcomes: Counter[Rescored]) -> None:
    """Print the number of trials that were measured, and the others with their reasons.

    Raises:
        click.exceptions.Exit: some could not be measured.
    """
    from bench.tools.text import count

    by_kind: Counter[str] = Counter()
    for outcome, number in outcomes.items():
        by_kind[outcome.kind] += number
    click.echo(
        f"{count(outcomes.total(), 'trial')}: {by_kind['measured']} measured, {by_kind['current']} up to date, "
        f"{by_kind['without']} without scores, {by_kind['refused']} not measured"
    )
    for outcome, number in outcomes.items():
        if outcome.reason:
            word = "not measured" if outcome.kind == "refused" else "without scores"
            click.echo(f"{word}: {count(number, 'trial')}: {outcome.reason}", err=True)
    if by_kind["refused"]:
        raise click.exceptions.Exit(1)
