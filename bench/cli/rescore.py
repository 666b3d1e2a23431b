"""``bench rescore``: metrics of stored scores anew, without training."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import read_roots, store_option
from bench.errors import BenchError
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.store.rescore import Outcome


@click.command("rescore")
@click.option("--study", "study_name", help="A study that was run here.  [default: the latest]")
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
    from bench.cli.table import chosen_study
    from bench.report.tables.records import checked
    from bench.store.rescore import rescore
    from bench.store.scores import StoredScores
    from bench.tools.spec import Spec

    if everything and study_name is not None:
        raise BenchError("--all takes every trial of the store; leave out --study")
    kept = Store(store)
    names = _names(protocols)
    if everything:
        records = checked(kept.records())
    else:
        content = kept.study(chosen_study(kept, study_name)) or {}
        found = (kept.record(key) for key in content.get("keys", []))
        records = checked(record for record in found if record is not None)
    if not records:
        raise BenchError(f"no trial has finished yet in {kept.root}; start with: bench run")
    datasets = dict.fromkeys(record["trial"]["dataset"]["name"] for record in records)
    scores = StoredScores(kept, read_roots(roots, tuple(map(Spec, datasets))))
    # Trials of one category stand together: they share their masks.
    records.sort(key=lambda record: (record["trial"]["dataset"]["label"], record["trial"]["category"]))
    keys = [record["key"] for record in records]
    outcomes: Counter[Outcome] = Counter()
    with click.progressbar(keys, label="measuring", file=sys.stderr, hidden=not sys.stderr.isatty()) as shown:
        for key in shown:
            outcomes[rescore(kept, key, scores, names, aupimo)] += 1
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


def _print(outcomes: Counter[Outcome]) -> None:
    """Say how many trials were measured, and which were not and why.

    Raises:
        click.exceptions.Exit: some could not be measured.
    """
    by_kind: Counter[str] = Counter()
    for outcome, number in outcomes.items():
        by_kind[outcome.kind] += number
    click.echo(
        f"{outcomes.total()} trials: {by_kind['measured']} measured, {by_kind['current']} up to date, "
        f"{by_kind['without']} without scores, {by_kind['refused']} not measured"
    )
    for outcome, number in outcomes.items():
        if outcome.reason:
            trials = f"{number} trial{'s' if number > 1 else ''}"
            word = "not measured" if outcome.kind == "refused" else "without scores"
            click.echo(f"{word}: {trials}: {outcome.reason}", err=True)
    if by_kind["refused"]:
        raise click.exceptions.Exit(1)
