"""Carrying out recorded trials again, for what their records do not hold."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from bench.errors import BenchError
from bench.store.store import Store

if TYPE_CHECKING:
    from bench.report.figures.trials import Trial
    from bench.study.task import Task


def keep_features(trials: Iterable[Trial], store: Store, device: str | None, workers: int | None) -> None:
    """Repeat those trials whose features are not in the store, and keep them there.

    Args:
        trials: of methods that have features.
        store: holds the records.
        device: torch device; None for the best there is.
        workers: trials side by side; None for one per core, 0 for this process.

    Raises:
        BenchError: a trial cannot be repeated as it was, or fails.
    """
    from rich.console import Console

    from bench.cli._progress import ProgressListener
    from bench.executors.local import LocalConfig, LocalExecutor

    tasks = [
        task_of(trial.record, store, device) for trial in trials if not store.features_path(trial.key).exists()
    ]
    if not tasks:
        return
    click.echo(f"{len(tasks)} trials are repeated for their features", err=True)
    executor = LocalExecutor(LocalConfig(), workers, store.root / "logs")
    console = Console(stderr=True, highlight=False)
    with (
        ProgressListener(console, len(tasks), 0) as listener,
        closing(executor.run([(task,) for task in tasks], listener.report)) as outcomes,  # type: ignore[type-var]
    ):
        for task, outcome in outcomes:
            listener.finished(task, outcome.record["status"], outcome.record["reason"])
            if outcome.scores is None or "features" not in outcome.scores:
                raise BenchError(f"{task.title} could not be repeated: {outcome.record['reason']}")
            kept = {name: outcome.scores[name] for name in ("features", "image")}
            store.write_features(task.key, kept, outcome.ids)


def task_of(record: Mapping[str, Any], store: Store, device: str | None) -> Task:
    """The task that a record came of, from the command that it holds; with features.

    Raises:
        BenchError: there is no command, or it would no longer make the same trial.
    """
    from bench.cli import run
    from bench.study.plan import prepare

    trial = record["trial"]
    where = f"{trial['method']['label']} on {trial['category']}"
    words = shlex.split(record["provenance"].get("command") or "")
    if words[:2] != ["bench", "run"]:
        raise BenchError(f"{where}: its record holds no command to repeat it; run the study again")
    options = run.command.make_context("bench run", words[2:]).params
    study = run.study_of(options.pop("study_name"), options.pop("methods"), options)
    plan = prepare(dataclasses.replace(study, device=device or "auto"), store)
    task = next((task for task in plan.tasks if task.key == record["key"]), None)
    if task is None:
        raise BenchError(
            f"{where}: what its record was made with has changed since (method, data, weights or prompts); "
            "run the study again"
        )
    return dataclasses.replace(task, features=True)
