"""Runs a plan: what is done is left alone, what is claimed elsewhere is waited for, the rest is run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Protocol

from bench.executors import Executor
from bench.plan import Plan
from bench.store import Store
from bench.study import Task

_WAIT = 1.0  # seconds between looks at trials that another process has claimed


class Listener(Protocol):
    """Is told how a run goes on."""

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
    """How a run ended.

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


def execute(plan: Plan, store: Store, executor: Executor, listener: Listener) -> Summary:
    """Run a plan's trials that are not done, and write each outcome as it comes.

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
            claims = _claims(pending, store, elsewhere, summary, listener)
            with closing(executor.run(claims, listener.report)) as outcomes:  # type: ignore[type-var]
                for task, outcome in outcomes:
                    store.write(outcome.record, outcome.scores, outcome.ids)
                    store.release(task.key)
                    _note(summary, listener, task, outcome.record)
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
    pending: list[Task], store: Store, elsewhere: list[Task], summary: Summary, listener: Listener
) -> Iterator[Task]:
    """Claim tasks one by one as the executor asks; those another process has go to ``elsewhere``."""
    for task in pending:
        if not store.claim(task.key):
            elsewhere.append(task)
        elif store.done(task.key):  # another process has finished it meanwhile
            store.release(task.key)
            record = store.record(task.key)
            if record is not None:
                _note(summary, listener, task, record)
        else:
            yield task


def _note(summary: Summary, listener: Listener, task: Task, record: dict[str, Any]) -> None:
    summary.ended[record["status"]] += 1
    if record["status"] == "failed":
        summary.failures.append((task, record["reason"]))
    listener.finished(task, record["status"], record["reason"])
