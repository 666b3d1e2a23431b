"""Counts of a study's trials while it runs, and after: done, running, failed, missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.store.record import Record
from bench.store.store import Store
from bench.study.task import Task
from bench.tools.text import count

if TYPE_CHECKING:
    from bench.study.estimate import Estimate

STATES = ("done", "running", "failed", "skipped", "missing")


@dataclass(frozen=True)
class StudyStatus:
    """The state of a study's trials at one moment.

    Attributes:
        study: its name.
        methods: label of a method -> state, one of :data:`STATES` -> number of trials. A failed trial that is run
            again is running.
        fits: number of fits that are being trained and that several trials wait for.
        failures: the records of failed trials that nobody runs again.
        left: the records of trials that are running or missing.
    """

    study: str
    methods: Mapping[str, Counter[str]]
    fits: int
    failures: tuple[Record, ...]
    left: tuple[Record, ...]

    @property
    def counts(self) -> Counter[str]:
        """State -> number of trials of all methods."""
        return sum(self.methods.values(), Counter())

    @property
    def running(self) -> bool:
        """True if a process is at work on a trial of the study."""
        return bool(self.counts["running"] or self.fits)

    def estimate(self, store: Store) -> Estimate:
        """The time that is left, from finished trials like those that are left."""
        from bench.study.estimate import estimate, sizes_of_splits

        tasks = [_as_task(record) for record in self.left]
        return estimate(tasks, store.records(), sizes=sizes_of_splits(store, {}))


def study_status(store: Store, name: str) -> StudyStatus:
    """The state of a study's trials now.

    Raises:
        BenchError: its file or a record cannot be read.
    """
    content = store.study(name) or {}
    claimed = store.claimed()
    methods: dict[str, Counter[str]] = {label: Counter() for label in content.get("methods", ())}
    failures, left = [], []
    for record in store.study_records(name):
        state = {"ok": "done"}.get(record.status, record.status)
        if record.status in ("failed", "missing") and record.key in claimed:
            state = "running"
        methods.setdefault(record.method.label, Counter())[state] += 1
        if state == "failed":
            failures.append(record)
        elif state in ("running", "missing"):
            left.append(record)
    fits = sum(key in claimed for key in content.get("fits", ()))
    return StudyStatus(name, methods, fits, tuple(failures), tuple(left))


def all_runs(store: Store) -> Iterator[tuple[str, Counter[str]]]:
    """The studies that were run in a store, the latest first, with the numbers of their trials by state.

    A study whose file cannot be read has no numbers.
    """
    known: dict[str, str] = {}  # key -> state; studies share trials
    claimed = store.claimed()
    for name in store.study_names():
        try:
            keys = (store.study(name) or {}).get("keys", [])
        except BenchError:
            yield name, Counter()
            continue
        for key in keys:
            if key not in known:
                document = store.document(key)
                state = "missing" if document is None else str(document["status"])
                known[key] = "running" if state in ("missing", "failed") and key in claimed else state
        counts = Counter(known[key] for key in keys)
        counts["done"] = counts.pop("ok", 0)
        yield name, +counts


def in_words(counts: Mapping[str, int]) -> str:
    """``54 trials: 50 done, 1 failed, 3 missing``."""
    parts = [f"{counts[state]} {state}" for state in STATES if counts.get(state)]
    return f"{count(sum(counts.values()), 'trial')}: {', '.join(parts) or 'none'}"


def _as_task(record: Record) -> Task:
    """A task with as much as an estimate of its duration needs."""
    labels = {
        "method": record.method.label,
        "dataset": record.dataset.label,
        "protocol": record.protocol.label,
    }
    identity: Mapping[str, Any] = record.description
    return Task(
        key=record.key,
        identity=identity,
        labels=labels,
        root="",
        source_roots=(),
        prompts={},
        source_prompts=None,
        weights={},
        device="auto",
        hashes="",
        command="",
    )
