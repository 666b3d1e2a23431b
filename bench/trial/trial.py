"""One trial: split, fit, score, measure; the outcome is a record and its scores, whatever happens."""

from __future__ import annotations

import contextlib
import functools
import gc
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from bench.contracts import (
    FitsTogether,
)
from bench.errors import BenchError, NotApplicable
from bench.metrics.blocks import DEFAULT, verdict
from bench.store.store import FORMAT
from bench.study.study import Batch, Task
from bench.tools.provenance import environment
from bench.tools.registry import METHODS
from bench.tools.spec import build_config, parse_spec
from bench.tools.stopwatch import Stopwatch
from bench.trial.isolation import isolated
from bench.trial.scores import REASON, TEXT, arrays, explain, in_words, is_out_of_memory, notes, plain
from bench.trial.steps import Steps, Track


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves.

    Attributes:
        record: the JSON record (see :mod:`bench.store.store`).
        scores: arrays for the store; None if the trial did not come that far. With ``features`` (N, F) if the
            task asked for them.
        ids: the test images, in the order of the scores.
    """

    record: dict[str, Any]
    scores: Mapping[str, NDArray[Any]] | None = None
    ids: tuple[str, ...] = ()


def run_trial(task: Task, track: Track | None = None) -> Outcome:
    """Carry out one trial. Whatever goes wrong inside it ends in the record, never in an exception.

    ``KeyboardInterrupt`` alone passes through, in a process that Ctrl-C reaches.
    """
    return run_together((task,), track)[0]


def run_together(tasks: Batch, track: Track | None = None) -> list[Outcome]:
    """Carry out the trials of one batch, fitted as one where their method offers it; else one after another.

    As :func:`run_trial`, trial by trial: one that fails takes no other with it.
    """
    attempts = [_Attempt(task, track) for task in tasks]
    if len(attempts) > 1:
        for attempt in attempts:
            attempt.begin()
        _fit_together([attempt for attempt in attempts if attempt.status == "ok"])
    outcomes = []
    for attempt in attempts:
        attempt.finish()
        outcomes.append(attempt.outcome())
        attempt.steps = None  # its images and its network are not needed while the others are scored
    return outcomes


class _Attempt:
    """A trial, and what has become of it so far."""

    def __init__(self, task: Task, track: Track | None) -> None:
        self.task, self.track = task, track
        self.watch = Stopwatch()
        self.notes: list[str] = []
        self.status, self.reason, self.trace = "ok", "", ""
        self.scores: dict[str, NDArray[Any]] | None = None
        self.metrics: dict[str, Any] = {}
        self.ids: tuple[str, ...] = ()
        self.passes = 0
        self.steps: Steps | None = None
        self.fitted_with = 1

    def begin(self) -> None:
        """Everything before fitting."""
        with contextlib.suppress(Exception):  # comes again below; what a plugin sets when it is imported stays
            METHODS.load(parse_spec(self.task.method).name)
        self._contain(self._begin)

    def _begin(self) -> None:
        self.steps = Steps(self.task, self.watch, self.track, self.notes)
        self.ids = self.steps.test_ids
        self.steps.prepare()

    def finish(self) -> None:
        """Fit if that is still to be done, score, measure."""
        if self.steps is None and self.status == "ok":
            self.begin()
        if self.steps is not None and self.status == "ok":
            self._contain(functools.partial(self._finish, self.steps))

    def _finish(self, steps: Steps) -> None:
        steps.fit()
        answer = steps.score()
        self.scores = arrays(answer)
        with self.watch("metrics"):
            self.metrics = {DEFAULT: steps.measure(answer)}
        if self.task.features:
            self.scores["features"] = steps.features()
        status, reason = verdict(self.metrics[DEFAULT])
        self.status, self.reason = status, reason or ""

    def _contain(self, step: Callable[[], None]) -> None:
        """Whatever goes wrong in ``step``, or in what is set up around it, is the trial's end."""
        passes = _encoder_passes()
        try:
            with self.watch.running(), isolated():
                step()
        except NotApplicable as error:
            self.status, self.reason = "skipped", in_words(error)
        except BenchError as error:
            self.status, self.reason = "failed", in_words(error)
        except BaseException as error:
            if _is_the_users(error):
                raise
            self.status, self.reason, self.trace = "failed", explain(error), traceback.format_exc()
        finally:
            self.passes += _encoder_passes() - passes

    def outcome(self) -> Outcome:
        record = _record(self.task, self.status, self.reason or None)
        record |= {"metrics": self.metrics, "notes": notes(self.notes)}
        record["provenance"] |= {
            "seconds": self.watch.seconds(),
            "peak_memory_mib": _peak_memory(),
            "encoder_passes": self.passes,
            "fitted_with": self.fitted_with,
            "traceback": plain(self.trace, TEXT) or None,
        }
        return Outcome(record, self.scores, self.ids)


def _fit_together(attempts: list[_Attempt]) -> None:
    """Fit several trials as one; those that cannot be fitted so are left to be fitted alone, which tells why."""
    trials = [attempt.steps for attempt in attempts if attempt.steps is not None]
    if len(trials) < 2 or not trials[0].traits.trained or not isinstance(trials[0].method, FitsTogether):
        return
    passes, watch = _encoder_passes(), Stopwatch()
    short_of_memory = False
    try:
        with watch.running(), watch("fit"), isolated():
            methods = [trial.construct() for trial in trials]
            trials[0].method.fit_together(methods, [t.train for t in trials], [t.context for t in trials])
    except BaseException as error:
        if _is_the_users(error):
            raise
        short_of_memory = is_out_of_memory(error)
        if not short_of_memory:
            for attempt in attempts:
                attempt.notes.append(f"fitted alone, since together with others it failed: {explain(error)}")
        for trial in trials:
            trial.context.notes.clear()  # they will be noted again
    else:
        for attempt, trial in zip(attempts, trials, strict=True):
            trial.fitted = True
            attempt.fitted_with = len(trials)
    for attempt in attempts:
        attempt.watch.add_share(watch, len(attempts))
    attempts[0].passes += _encoder_passes() - passes
    if short_of_memory:  # outside the handler, whose traceback keeps hold of the memory
        gc.collect()  # a method may hold on to itself
        half = len(attempts) // 2
        _fit_together(attempts[:half])
        _fit_together(attempts[half:])


def _is_the_users(error: BaseException) -> bool:
    """Whether it is a Ctrl-C, and not a method that raises the same: workers do not hear Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


def failed(task: Task, reason: str) -> Outcome:
    """The outcome of a trial that could not even say why it failed, because its process is gone."""
    return Outcome(_record(task, "failed", reason))


def _record(task: Task, status: str, reason: str | None) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "key": task.key,
        "status": status,
        "reason": reason and plain(reason, REASON),
        "trial": describe(task),
        "metrics": {},
        "scores": None,
        "notes": [],
        "provenance": {
            **environment(task.device, task.precision),
            "command": task.command,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def describe(task: Task) -> dict[str, Any]:
    """The record's ``trial``: the identity, and what a table prints beside it."""
    spec = parse_spec(task.method)
    identity = dict(task.identity)
    method, dataset = dict(identity["method"]), dict(identity["dataset"])
    method["label"] = task.method
    dataset["label"] = task.dataset
    with contextlib.suppress(Exception):  # this runs for trials that failed, too
        cls = METHODS.load(spec.name)
        traits = cls.traits(build_config(cls.Config, spec))
        method |= {
            "title": traits.title,
            "trained": traits.trained,
            "zero_shot": traits.zero_shot,
            "adapted": traits.adapted,
        }
    with contextlib.suppress(BenchError):
        from bench.tools.registry import DATASETS

        data_traits = DATASETS.load(dataset["name"]).traits
        dataset |= {"title": data_traits.title, "note": data_traits.note}
    protocol = {**identity["protocol"], "label": task.protocol}
    return {**identity, "method": method, "dataset": dataset, "protocol": protocol}


# ------------------------------------------------------------ provenance of one trial


def _peak_memory() -> int | None:
    """Peak resident memory of this process so far, in MiB; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (2**20 if sys.platform == "darwin" else 2**10))


def _encoder_passes() -> int:
    """Images that this process has put through a frozen encoder so far."""
    features = sys.modules.get("bench.encoders.features")  # not imported before a method has used an encoder
    return 0 if features is None else int(features.CACHE.passes)
