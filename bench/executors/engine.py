"""Runs a plan: what is done is left alone, what is claimed elsewhere is waited for, the rest is run."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from bench.executors import NOT_YET, Executor
from bench.store.record import Record
from bench.store.store import Store
from bench.study.estimate import can_share
from bench.study.plan import Plan
from bench.study.task import Batch, Fit, Job, Task
from bench.tools.hashes import hash_json
from bench.tools.registry import METHODS
from bench.trial.batch import JobOutcome
from bench.trial.fit import FitOutcome
from bench.trial.trial import Outcome, without_fit

_WAIT = 1.0  # seconds between looks at trials that another process has claimed


class Listener(Protocol):
    """Receives the events of a run."""

    def report(self, job: Job, description: str, count: int, total: int) -> None:
        """A running trial or fit has done ``count`` of ``total`` steps of what ``description`` says."""
        ...

    def finished(self, task: Task, status: str, reason: str | None) -> None:
        """A trial has ended, here or in another process."""
        ...

    def fitted(self, fit: Fit, status: str, reason: str | None) -> None:
        """A fit that several trials wait for has ended, here."""
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


def execute(
    plan: Plan, store: Store, executor: Executor, listener: Listener, together: int = 1, keep: bool = False
) -> Summary:
    """Run a plan's trials that are not done, and write each outcome as it comes.

    A fit that several of them wait for is trained once: by this process, or by another one on the same store. Its
    detector stays in the store while a trial needs it, also after a kill.

    Args:
        together: how many trials or fits are carried out as one, at most, where their method can.
        keep: keep the detectors of all fits in the store.

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
            queue = _Queue(pending, store, summary, listener, together, keep)
            with closing(executor.run(queue.batches(), listener.report)) as outcomes:  # type: ignore[type-var]
                for job, outcome in outcomes:
                    queue.ended(job, outcome)
            pending = queue.elsewhere
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


class _Queue:
    """The jobs of a run: claims them one by one as the executor asks, and takes their outcomes.

    Args:
        pending: trials that are not done.
        keep: keep every detector.

    Attributes:
        elsewhere: trials that another process has, or that wait for its fits.
    """

    def __init__(
        self,
        pending: Sequence[Task],
        store: Store,
        summary: Summary,
        listener: Listener,
        together: int,
        keep: bool,
    ) -> None:
        self.store, self.summary, self.listener, self.keep = store, summary, listener, keep
        self.elsewhere: list[Task] = []
        self._waiting: dict[str, list[Task]] = {}  # key of a fit under way -> the trials that wait for it
        self._trials: dict[str, list[Task]] = {}  # key of a fit that is a job of its own -> its trials
        shared = _shared_fits(pending, store, keep)
        alone = []
        for task in pending:
            if task.fit_key in shared:
                self._trials.setdefault(task.fit_key, []).append(task)
            else:
                alone.append(task)
        self._left = {key: len(tasks) for key, tasks in self._trials.items()}  # that still need its detector
        # Fits first: what waits for them is most of the work, and it can begin when the first of them has ended.
        fits = [Fit(tasks[0]) for tasks in self._trials.values()]
        self._ready: deque[Batch] = deque([*batches(fits, together), *batches(alone, together)])

    # ------------------------------------------------------------ jobs to do

    def batches(self) -> Iterator[Batch | None]:
        """Batches to carry out, claimed; :data:`bench.executors.NOT_YET` while all that is left waits for fits."""
        while self._ready or self._waiting:
            if not self._ready:
                yield NOT_YET
                continue
            batch = self._ready.popleft()
            claimed = [job for job in batch if self._claim(job)]
            if claimed:
                yield tuple(claimed)

    def _claim(self, job: Job) -> bool:
        """Claim a job; False if it is not to be carried out here, or need not be."""
        if isinstance(job, Fit):
            return self._claim_fit(job)
        if not self.store.claim(job.key):
            self.elsewhere.append(job)
            return False
        if not self.store.done(job.key):
            return True
        # another process has finished it meanwhile
        self.store.release(job.key)
        record = self.store.record(job.key)
        if record is not None:
            self._note(job, record)
        return False

    def _claim_fit(self, fit: Fit) -> bool:
        self.store.need_detector(fit.key)
        if self.store.has_detector(fit.key):
            self._release_trials(fit.key)
            return False
        if not self.store.claim(fit.key):
            self.elsewhere += self._trials.pop(fit.key)
            return False
        if self.store.has_detector(fit.key):  # another process has ended it meanwhile
            self.store.release(fit.key)
            self._release_trials(fit.key)
            return False
        self._waiting[fit.key] = self._trials.pop(fit.key)
        return True

    def _release_trials(self, key: str) -> None:
        """Let the trials of a trained fit begin, before anything else: its detector goes when they have ended."""
        path = str(self.store.detector_path(key))
        tasks = self._waiting.pop(key, None) or self._trials.pop(key)
        ready = [(dataclasses.replace(task, detector=path),) for task in tasks]
        self._ready.extendleft(reversed(ready))

    # ------------------------------------------------------------ what became of them

    def ended(self, job: Job, outcome: JobOutcome) -> None:
        """Write an outcome down, and see what can be done now."""
        if isinstance(job, Fit):
            assert isinstance(outcome, FitOutcome)
            self._fit_ended(job, outcome)
            return
        assert isinstance(outcome, Outcome)
        self.store.write(outcome.record, outcome.scores, outcome.ids)
        self.store.release(job.key)
        self._note(job, Record.of(outcome.record))

    def _fit_ended(self, fit: Fit, outcome: FitOutcome) -> None:
        if outcome.detector is not None:
            self.store.write_detector(fit.key, outcome.detector)
        self.store.release(fit.key)
        self.listener.fitted(fit, outcome.status, outcome.reason or None)
        if outcome.detector is not None:
            self._release_trials(fit.key)
            return
        for task in self._waiting.pop(fit.key):
            if self._claim(task):
                self.ended(task, without_fit(task, outcome))

    def _note(self, task: Task, record: Record) -> None:
        self.summary.ended[record.status] += 1
        if record.status == "failed":
            self.summary.failures.append((task, record.reason))
        self.listener.finished(task, record.status, record.reason or None)
        if task.fit_key in self._left:
            self._left[task.fit_key] -= 1
            if not self._left[task.fit_key]:
                if self.keep:
                    self.store.keep_detector(task.fit_key)
                self.store.drop_detector(task.fit_key)


def drop_spent_detectors(plan: Plan, store: Store) -> None:
    """Remove detectors whose trials are all done: of a run that was killed before it could."""
    for path in store.detectors():
        tasks = [task for task in plan.tasks if task.fit_key == path.stem]
        if tasks and all(store.done(task.key) for task in tasks):
            store.drop_detector(path.stem)


def _shared_fits(pending: Iterable[Task], store: Store, keep: bool) -> set[str]:
    """Keys of the fits that are jobs of their own; any other is carried out within its only trial.

    They are those that several trials wait for, or that are to be kept, or that are there already or come from
    another process.
    """
    counts = Counter(task.fit_key for task in pending if can_share(task))
    return {
        key
        for key, number in counts.items()
        if number > 1 or keep or store.has_detector(key) or store.claimed_elsewhere(key)
    }


def batches(jobs: Iterable[Job], together: int) -> list[Batch]:
    """Trials or fits in batches of at most ``together`` that their method can fit as one; the others alone."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(_kin(job) if together > 1 else job.key, []).append(job)
    return [batch for group in groups.values() for batch in _pieces(group, together)]


def _pieces(group: list[Job], size: int) -> list[Batch]:
    return [tuple(group[start : start + size]) for start in range(0, len(group), size)]


def _kin(job: Job) -> str:
    """The same for those that differ in shots and seed alone and can be fitted as one; else the job's key."""
    task = job.task if isinstance(job, Fit) else job
    if not hasattr(METHODS.load(task.identity["method"]["name"]), "fit_together"):
        return job.key
    protocol = {name: value for name, value in task.identity["protocol"].items() if name != "manifest"}
    kin = hash_json({**task.identity, "protocol": protocol, "shots": None, "seed": None})
    return f"fit {kin}" if isinstance(job, Fit) else kin
