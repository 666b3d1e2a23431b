"""Runs a plan: what is done is left alone, what is claimed elsewhere is waited for, the rest is run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from bench.executors import Executor
from bench.store.record import Record
from bench.store.store import Store
from bench.study.plan import Plan
from bench.study.task import Batch, Task
from bench.tools.hashes import hash_json
from bench.tools.registry import METHODS

_WAIT = 1.0  # seconds between looks at trials that another process has claimed


class Listener(Protocol):
    """Receives the events of a run."""

    def report(self, task: Task, description: str, count: int, total: int) -> None:
        """A running trial has done ``count`` of ``total`` steps of what ``description`` says."""
        ...

    def finished(self, task: Task, status: str, reason: str | None) -> None:
        """A trial has ended, here or in another process."""
        ...

    def waiting(self, number: int) -> None:
        """Nothing is left to run here; ``number`` trials are still running in other processes."""
        ...


@dataclass
class Summary:
    """Outcome of a run.

    Attributes:
        before: trials that were done before.
        ended: status -> number of trials that ended during this run.
        failures: the tasks that failed, with their reasons.
    """

    before: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Task, str]] = field(default_factory=list)


class Interrupted(Exception):  # noqa: N818 - an event, not an error
    """The user stopped the run; ``summary`` says how far it came."""

    def __init__(self, summary: Summary) -> None:
        self.summary = summary


def execute(plan: Plan, store: Store, executor: Executor, listener: Listener, together: int = 1) -> Summary:
    """Run a plan's trials that are not done, and write each outcome as it comes.

    Args:
        together: how many trials are fitted as one, at most, where their method can.

    Raises:
        Interrupted: on Ctrl-C; what had ended by then is in the store.
        BenchError: the store cannot be written.
    """
    for hash_, manifest in plan.manifests.items():
        store.write_once("manifests", hash_, manifest.as_dict())
    summary = Summary()
    pending = [task for task in plan.tasks if not store.done(task.key)]
    summary.before = len(plan.tasks) - len(pending)
    try:
        while pending:
            elsewhere: list[Task] = []
            claims = _claims(batches(pending, together), store, elsewhere, summary, listener)
            with closing(executor.run(claims, listener.report)) as outcomes:  # type: ignore[type-var]
                for task, outcome in outcomes:
                    store.write(outcome.record, outcome.scores, outcome.ids)
                    store.release(task.key)
                    _note(summary, listener, task, Record.of(outcome.record))
            pending = elsewhere
            if pending:
                listener.waiting(len(pending))
                time.sleep(_WAIT)
    except KeyboardInterrupt:
        raise Interrupted(summary) from None
    finally:
        store.release_all()
    if summary.before + sum(summary.ended.values()) != len(plan.tasks):
        raise RuntimeError("the executor lost trials: it ended before all that it took had an outcome")
    return summary


def _claims(
    pending: list[Batch], store: Store, elsewhere: list[Task], summary: Summary, listener: Listener
) -> Iterator[Batch]:
    """Claim batches one by one as the executor asks; tasks that another process has go to ``elsewhere``."""
    for batch in pending:
        claimed = []
        for task in batch:
            if not store.claim(task.key):
                elsewhere.append(task)
            elif store.done(task.key):  # another process has finished it meanwhile
                store.release(task.key)
                record = store.record(task.key)
                if record is not None:
                    _note(summary, listener, task, record)
            else:
                claimed.append(task)
        if claimed:
            yield tuple(claimed)


def batches(tasks: Iterable[Task], together: int) -> list[Batch]:
    """The tasks in batches of at most ``together`` that their method can fit as one; the others alone."""
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(_kin(task) if together > 1 else task.key, []).append(task)
    return [batch for group in groups.values() for batch in _pieces(group, together)]


def _pieces(group: list[Task], size: int) -> list[Batch]:
    return [tuple(group[start : start + size]) for start in range(0, len(group), size)]


def _kin(task: Task) -> str:
    """The same for trials that differ in shots and seed alone and can be fitted as one; else the task's key."""
    if not hasattr(METHODS.load(task.identity["method"]["name"]), "fit_together"):
        return task.key
    protocol = {name: value for name, value in task.identity["protocol"].items() if name != "manifest"}
    return hash_json({**task.identity, "protocol": protocol, "shots": None, "seed": None})


def _note(summary: Summary, listener: Listener, task: Task, record: Record) -> None:
    summary.ended[record.status] += 1
    if record.status == "failed":
        summary.failures.append((task, record.reason))
    listener.finished(task, record.status, record.reason or None)
