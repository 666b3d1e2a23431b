"""``bench explain-gap``: how much of a difference between papers is the metric's."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bench.cli._options import store_option, study_option
from bench.cli._side_by_side import (
    evaluate_files,
    file_options,
    print_reasons,
    read_files,
    read_protocols,
    spread,
    table,
)
from bench.errors import BenchError, unknown
from bench.report.tables.study import chosen_study

if TYPE_CHECKING:
    from bench.metrics import Evaluation
    from bench.metrics.protocols import MetricProtocol
    from bench.store.record import Record
    from bench.store.store import Store

EVERY = "exact,grid200,ader50,openiad,devnet-perimage,winclip-cy"
Rows = dict[str, dict[str, float | None]]


@click.command("explain-gap")
@file_options
@study_option
@click.option("--data-root", "roots", multiple=True, help="The data's folder, if moved: DIR, or DATASET=DIR.")
@click.option("--method", help="Only trials of this method: as tables call it, or its name.")
@click.option("--category", help="Only trials of this category.")
@click.option(
    "--protocol",
    "--metric-protocol",
    "protocols",
    default=EVERY,
    help="Metric protocols, with commas.  [default: all]",
)
@store_option
def command(
    maps: Path | None,
    masks: Path | None,
    scores: Path | None,
    eval_size: str | None,
    aupimo: bool,
    as_json: bool,
    study_name: str | None,
    roots: tuple[str, ...],
    method: str | None,
    category: str | None,
    protocols: str,
    store: Path,
) -> None:
    """One set of scores under all metric protocols, side by side, and what sets them apart.

    \b
    bench explain-gap --study quick
    bench explain-gap --maps out/bottle --masks mvtec/bottle

    Nothing is trained or scored again: the differences are the metrics' alone.
    """
    if (maps is None) != (masks is None):
        raise BenchError("--maps and --masks go together")
    if maps is not None and study_name is not None:
        raise BenchError("give --study, or --maps and --masks, not both")
    from bench.tools.text import count

    chosen = read_protocols(protocols, eval_size)
    if maps is not None and masks is not None:
        images = read_files(maps, masks, scores)
        found = evaluate_files(images, chosen, aupimo)
        title = f"{maps}: {count(len(images.names), 'image')}, {int(images.labels.sum())} anomalous"
        results = {title: {name: each.metrics for name, each in found.items()}}
        _print(results, chosen, as_json)
        print_reasons(found)
        return
    if scores is not None:
        raise BenchError("--scores goes with --maps and --masks")
    _explain_study(store, study_name, roots, method, category, protocols, eval_size, aupimo, as_json)


def _explain_study(
    store: Path,
    study_name: str | None,
    roots: tuple[str, ...],
    method: str | None,
    category: str | None,
    protocols: str,
    eval_size: str | None,
    aupimo: bool,
    as_json: bool,
) -> None:
    from bench.store.scores import StoredScores
    from bench.store.store import Store
    from bench.tools.spec import split_specs
    from bench.tools.text import count

    kept = Store(store)
    records = _records(kept, study_name, method, category)
    names = [record.dataset.name for record in records]
    again = StoredScores(kept, _roots(roots, names))
    texts = [str(spec) for spec in split_specs(protocols)]
    trials: dict[TrialGroup, dict[str, list[tuple[str, dict[str, float | None]]]]] = {}
    chosen: dict[str, MetricProtocol] = {}
    reasons: dict[str, Evaluation] = {}
    with click.progressbar(records, file=sys.stderr, hidden=not sys.stderr.isatty()) as shown:
        for record in shown:
            scored = again.open(record)
            for protocol in (protocol_of(record, text, eval_size) for text in texts):
                evaluation = scored.measure(protocol, aupimo)
                chosen.setdefault(protocol.name, protocol)
                rows = trials.setdefault(group_of(record), {}).setdefault(protocol.name, [])
                rows.append((record.category, evaluation.metrics))
                if evaluation.problems or protocol.name not in reasons:
                    reasons[protocol.name] = evaluation
    results: dict[str, Rows] = {}
    for group, by_protocol in trials.items():
        number = len(next(iter(by_protocol.values())))
        title = f"{group.title}: mean of {count(number, 'trial')}"
        results[title] = {name: average(rows) for name, rows in by_protocol.items()}
    _print(results, list(chosen.values()), as_json)
    print_reasons(reasons)


def _records(store: Store, study_name: str | None, method: str | None, category: str | None) -> list[Record]:
    """The finished trials of a study that were asked for."""
    if study_name is None and not store.study_names():
        raise BenchError(f"no study was run in {store.root} yet; give --maps and --masks, or: bench run")
    name = chosen_study(store, study_name)
    done = [record for record in store.study_records(name) if record.status == "ok"]
    if not done:
        raise BenchError(f"study {name} has no finished trial yet; how far it is: bench status --study {name}")
    labels = _labels(done, method, name)
    categories = {record.category for record in done}
    if category is not None and category not in categories:
        raise unknown("category", category, categories, f"of study {name}")
    chosen = [r for r in done if r.method.label in labels and category in (None, r.category)]
    if not chosen:
        raise BenchError(f"study {name} has no finished trial of {method} on {category}")
    return chosen


def _labels(records: list[Record], method: str | None, study: str) -> set[str]:
    """The labels of the methods that are meant: by label, by a table's head, or by name, which may mean variants.

    Raises:
        BenchError: no method of the study is called so.
    """
    from bench.report.tables.naming import unique_names
    from bench.report.tables.records import read

    labels = {record.method.label for record in records}
    if method is None or method in labels:
        return labels if method is None else {method}
    meant: dict[str, set[str]] = {}
    for record in records:
        meant.setdefault(record.method.name, set()).add(record.method.label)
    for identity, name in unique_names(entry.method for entry in read(records)).items():
        meant.setdefault(name.head, set()).add(identity.label)
    if method not in meant:
        raise unknown("method", method, {*labels, *meant}, f"of study {study}")
    return meant[method]


def _roots(given: tuple[str, ...], names: list[str]) -> dict[str, Path]:
    from bench.study.build import read_roots
    from bench.tools.spec import Spec

    return read_roots(given, tuple(Spec(name) for name in dict.fromkeys(names)))


def _print(results: Mapping[str, Rows], chosen: list[MetricProtocol], as_json: bool) -> None:
    from bench.metrics.protocols import describe

    if as_json:
        content = {
            "results": results,
            "protocols": {
                each.name: {"differs": describe(each), "sources": list(each.sources)} for each in chosen
            },
        }
        click.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return
    for title, rows in results.items():
        click.echo(title)
        for line in table({**rows, "spread": spread(rows)} if len(rows) > 1 else rows):
            click.echo(line)
        click.echo()
    for each in chosen:
        click.echo(f"{each.name}: {describe(each)}")


# ------------------------------------------------------------ averages over stored trials


@dataclass(frozen=True)
class TrialGroup:
    """Trials with a common average: one method on one dataset with one number of shots."""

    dataset: str
    method: str
    shots: int | None

    @property
    def title(self) -> str:
        shots = "" if self.shots is None else f", {self.shots}-shot"
        return f"{self.method} on {self.dataset}{shots}"


def group_of(record: Record) -> TrialGroup:
    """The group of a stored trial."""
    return TrialGroup(record.dataset.label, record.method.label, record.shots)


def protocol_of(record: Record, text: str, eval_size: str | None) -> MetricProtocol:
    """The metric protocol that ``text`` names, with ``exact`` on the grid on which the trial was measured.

    Args:
        record: of the trial.
        text: a metric protocol with options.
        eval_size: the grid of all protocols; None for each one's own.

    Raises:
        BenchError: no such protocol.
    """
    from bench.metrics.blocks import DEFAULT
    from bench.metrics.protocols import resolve
    from bench.tools.spec import parse_spec

    own: int | None = None
    if parse_spec(text).name == DEFAULT and DEFAULT in record.stored_blocks:
        measured = record.stored_blocks[DEFAULT].eval_size
        if isinstance(measured, int) and measured != resolve(DEFAULT).eval_size:
            own = measured
    return resolve(text, eval_size or own)


def average(trials: Iterable[tuple[str, Mapping[str, float | None]]]) -> dict[str, float | None]:
    """Mean over categories of the mean over a category's trials (seeds).

    Args:
        trials: each trial's category and metrics.

    Returns:
        A metric is None if one of the trials does not have it: a mean over the rest would be another one.
    """
    import numpy as np

    by_category: dict[str, list[Mapping[str, float | None]]] = {}
    for category, metrics in trials:
        by_category.setdefault(category, []).append(metrics)
    names = dict.fromkeys(name for rows in by_category.values() for row in rows for name in row)
    result: dict[str, float | None] = {}
    for name in names:
        # First over the seeds of a category, then over categories, as tables average.
        columns = [[row.get(name) for row in rows] for rows in by_category.values()]
        whole = all(value is not None for column in columns for value in column)
        result[name] = float(np.mean([np.mean(np.array(column, float)) for column in columns])) if whole else None
    return result
