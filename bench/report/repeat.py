"""Carrying out recorded trials again, for features that their records do not hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.errors import BenchError
from bench.store.record import Record
from bench.store.store import Store
from bench.tools.spec import Spec

if TYPE_CHECKING:
    from bench.executors.engine import Listener
    from bench.store.scores import RecordedData
    from bench.study.study import Study
    from bench.study.task import Task

Watch: TypeAlias = "Callable[[int], AbstractContextManager[Listener]]"
"""Says that so many trials are repeated, and gives a listener to them."""


def keep_features(
    records: Iterable[Record],
    store: Store,
    data: RecordedData,
    device: str | None,
    workers: int | None,
    watch: Watch,
) -> None:
    """Repeat those trials whose features are not in the store, and keep them there.

    Args:
        records: of trials of methods that have features.
        store: holds the records.
        data: that the trials were tested on.
        device: torch device; None for the best there is.
        workers: trials side by side; None for one per core, 0 for this process.
        watch: makes a listener to so many trials.

    Raises:
        BenchError: a trial cannot be repeated as it was, or fails.
    """
    from bench.executors.local import LocalConfig, LocalExecutor
    from bench.study.task import Task
    from bench.trial.trial import Outcome

    lacking = [record for record in records if not store.features_path(record.key).exists()]
    tasks = [task_of(record, store, data, device) for record in lacking]
    if not tasks:
        return
    executor = LocalExecutor(LocalConfig(), workers, store.root / "logs")
    with (
        watch(len(tasks)) as listener,
        closing(executor.run([(task,) for task in tasks], listener.report)) as outcomes,  # type: ignore[type-var]
    ):
        for task, outcome in outcomes:
            assert isinstance(task, Task) and isinstance(outcome, Outcome)  # no fit was asked for
            record = Record.of(outcome.record)
            listener.finished(task, record.status, record.reason)
            if outcome.scores is None or "features" not in outcome.scores:
                raise BenchError(f"{task.title} could not be repeated: {record.reason}")
            kept = {name: outcome.scores[name] for name in ("features", "image")}
            store.write_features(task.key, kept, outcome.ids)


def task_of(record: Record, store: Store, data: RecordedData, device: str | None) -> Task:
    """The task that a record came of, with features.

    Raises:
        BenchError: its inputs are not there, or are no longer those of the trial.
    """
    from bench.study.plan import prepare

    data.of(record)  # a folder that is gone, or other data in it, has a message of its own
    plan = prepare(_study_of(record, data.root(record), device), store)
    task = next((task for task in plan.tasks if task.key == record.key), None)
    if task is None:
        raise BenchError(
            f"{record.method.label} on {record.category}: what its record was made with has changed since "
            "(method, weights or prompts); run the study again"
        )
    return dataclasses.replace(task, features=True)


def _study_of(record: Record, target: Path | None, device: str | None) -> Study:
    """The study of one trial alone, from the record's own fields."""
    from bench.study.sources import ANY, Sources
    from bench.study.study import Study

    inputs = record.inputs
    roots: dict[str, Path] = {}
    if target is not None:
        roots[record.dataset.name] = target
    source = None
    if record.protocol.source is not None:
        learned = record.protocol.source
        parts = learned.config.get("parts") or [{"name": learned.name, "config": learned.config}]
        source = Sources({ANY: tuple(_spec(part["name"], part["config"]) for part in parts)})
        for part in parts:
            root = inputs.sources.get(part["name"]) or inputs.sources.get("")
            if root is not None:
                roots[f"train:{part['name']}"] = root
    return Study(
        name="repeat",
        methods=(_spec(record.method.name, record.method.config),),
        datasets=(_spec(record.dataset.name, record.dataset.config),),
        protocols=(_spec(record.protocol.name, record.protocol.config),),
        source=source,
        shots=(0 if record.shots is None else record.shots,),
        seeds=(0 if record.seed is None else record.seed,),
        categories=(record.category,),
        roots=roots,
        weights={name: file for name, file in inputs.weights.items() if file is not None},
        prompts=inputs.prompts,
        device=device or "auto",
    )


def _spec(name: str, config: Mapping[str, Any]) -> Spec:
    """The spec with all options of a config, also those at their defaults."""
    from bench.report.tables.naming import flat

    return Spec(name, {option: "none" if text is None else text for option, text in flat(config).items()})
