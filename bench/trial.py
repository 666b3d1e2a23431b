"""One trial: split, fit, score, measure; the outcome is a record and its scores, whatever happens."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.answers import REASON, TEXT, arrays, checked, explain, in_words, is_out_of_memory, notes, plain
from bench.catalogue import Catalogue
from bench.config import build_config, parse_spec
from bench.contracts import (
    Backbone,
    Context,
    FitsTogether,
    HasFeatures,
    Method,
    Network,
    Prompts,
    Scores,
    TextImageEncoder,
    TrainingSet,
    Traits,
    Weights,
)
from bench.errors import BenchError, NotApplicable
from bench.evaluation import measure
from bench.hashing import HashBook
from bench.isolation import isolated
from bench.measured import DEFAULT, block, verdict
from bench.metrics.protocols import resolve
from bench.plan import open_catalogue
from bench.protocols import Manifest, ProtocolConfig, check_leakage, split
from bench.provenance import environment
from bench.registry import METHODS
from bench.stopwatch import Stopwatch, timed
from bench.store import FORMAT
from bench.study import Batch, Task

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Outcome:
    """What a trial leaves.

    Attributes:
        record: the JSON record (see :mod:`bench.store`).
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
        attempt.trial = None  # its images and its network are not needed while the others are scored
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
        self.trial: _Trial | None = None
        self.fitted_with = 1

    def begin(self) -> None:
        """Everything before fitting."""
        with contextlib.suppress(Exception):  # comes again below; what a plugin sets when it is imported stays
            METHODS.load(parse_spec(self.task.method).name)
        with self._contained():
            self.trial = _Trial(self.task, self.watch, self.track, self.notes)
            self.ids = self.trial.test_ids
            self.trial.prepare()

    def finish(self) -> None:
        """Fit if that is still to be done, score, measure."""
        if self.trial is None:
            self.begin()
        with self._contained():
            if self.status != "ok" or self.trial is None:
                return
            self.trial.fit()
            answer = self.trial.score()
            self.scores = arrays(answer)
            with self.watch("metrics"):
                self.metrics = {DEFAULT: self.trial.measure(answer)}
            if self.task.features:
                self.scores["features"] = self.trial.features()
            status, reason = verdict(self.metrics[DEFAULT])
            self.status, self.reason = status, reason or ""

    @contextlib.contextmanager
    def _contained(self) -> Iterator[None]:
        passes = _encoder_passes()
        try:
            with self.watch.running(), isolated():
                yield
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
    trials = [attempt.trial for attempt in attempts if attempt.trial is not None]
    if len(trials) < 2 or not isinstance(trials[0].method, FitsTogether):
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
    else:
        for attempt, trial in zip(attempts, trials, strict=True):
            trial.fitted = True
            attempt.fitted_with = len(trials)
            attempt.watch.add_share(watch, len(trials))
        attempts[0].passes += _encoder_passes() - passes
    if short_of_memory:  # outside the handler, whose traceback keeps hold of the memory
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


class _Trial:
    """The steps of one trial, in order: build, :meth:`prepare`, :meth:`fit`, :meth:`score`, :meth:`measure`."""

    fitted = False

    def __init__(self, task: Task, watch: Stopwatch, track: Track | None, notes: list[str]) -> None:
        self.task, self.watch, self.track, self.notes = task, watch, track, notes
        spec = parse_spec(task.method)
        self.method = METHODS.load(spec.name)
        self.config = build_config(self.method.Config, spec)
        self.traits: Traits = self.method.traits(self.config)
        with watch("data"):
            wanted = task.identity["dataset"]["fingerprint"]
            self.target = self.source = _catalogue(task.dataset, task.root, task.hashes, wanted)
            if task.source is not None:
                wanted = task.identity["protocol"]["source"]["fingerprint"]
                self.source = _catalogue(task.source, task.source_root, task.hashes, wanted)
            self.manifest = self._split()
            self.test_ids = self.target.in_neutral_order(self.manifest.test)
            self.prompts = self.source_prompts = _prompts(task.prompts)
            if task.source_prompts is not None:
                self.source_prompts = _prompts(task.source_prompts)

    def _split(self) -> Manifest:
        protocol = parse_spec(self.task.protocol)
        manifest = split(
            protocol.name,
            build_config(ProtocolConfig, protocol, "protocol"),
            target=self.target,
            source=self.source,
            category=self.task.category,
            shots=self.task.shots,
            seed=self.task.seed,
            normals=self.traits.trained,
        )
        if manifest.hash != self.task.identity["protocol"]["manifest"]:
            raise RuntimeError("the split came out differently than planned")
        check_leakage(manifest, target=self.target, source=self.source)
        labels = self.target.labels(manifest.test)
        for value, word in ((0, "normal"), (1, "anomalous")):
            if value not in labels:
                raise NotApplicable(f"{self.task.category} has no {word} test image, so no metric is defined")
        self.notes.extend(manifest.notes)
        return manifest

    def prepare(self) -> None:
        """Get everything ready for fitting."""
        from bench.devices import choose_device

        title = self.traits.title
        self.context = self._context(choose_device(self.task.device), self.task.seed or 0)
        if self.traits.support and self.context.support is None:
            others = "" if self.traits.trained else ", or oneclass"
            raise NotApplicable(f"{title} needs K normal images of the target; use --protocol loo[k=4]{others}")
        if self.traits.trained:
            if not self.manifest.train:
                raise NotApplicable(f"{title} learns from seen categories, and {self.task.protocol} has none")
            self.train = self._training_set()

    def construct(self) -> Method:
        """Seed every generator and build the method."""
        from bench.devices import seed_everything

        seed_everything(self.context.seed, self.task.precision)
        method: Method = self.method(self.config)
        self.built = method
        return method

    def fit(self) -> None:
        """Construct and fit the method, unless that was done together with others."""
        if self.fitted:
            return
        method = self.construct()
        if self.traits.trained:
            with self.watch("fit"):
                method.fit(self.train, self.context)
        self.fitted = True

    def score(self) -> Scores:
        """The fitted method's scores, checked."""
        self.images = self.target.image_set(self.test_ids, self.prompts)
        with self.watch("score"):
            scores = checked(self.built.score(self.images, self.context), self.images)
        self.notes.extend(self.context.notes)
        return scores

    def features(self) -> NDArray[np.float32]:
        """The test images' features, after :meth:`score`, from a method that has them."""
        if not isinstance(self.built, HasFeatures):
            raise BenchError(f"{self.task.method} has no features")
        features = np.asarray(self.built.features(self.images, self.context), dtype=np.float32)
        if features.ndim != 2 or len(features) != len(self.images):
            raise BenchError(f"the method gave features of shape {features.shape} for {len(self.images)} images")
        return features

    def _training_set(self) -> TrainingSet:
        with self.watch("data"):
            ids = self.source.in_neutral_order(self.manifest.train)
            return self.source.training_set(ids, self.source_prompts, self.task.shots or 0)

    def _context(self, device: str, seed: int) -> Context:
        support = self.manifest.support
        context = Context(
            device=device,
            seed=seed,
            category=self.task.category,
            encoder=lambda name: _text_image(self.task.weights[name], device),
            backbone=lambda name: _backbone(self.task.weights[name]),
            support=self.target.image_set(support, self.prompts) if support else None,
            network=lambda name: _network(self.task.weights[name]),
        )
        if self.track is not None:
            context.track = self.track
        return context

    def measure(self, scores: Scores) -> dict[str, Any]:
        """Metrics under the ``exact`` protocol, as the record keeps them."""
        protocol = resolve(DEFAULT, self.target.dataset.traits.eval_size)
        evaluation = measure(
            protocol,
            labels=self.target.labels(self.test_ids),
            image_scores=scores.image,
            maps=scores.maps,
            masks=None if scores.maps is None else self.target.masks(self.test_ids),
        )
        return block(protocol, evaluation)


def _prompts(plain: Mapping[str, Any]) -> dict[str, Prompts]:
    return {category: Prompts(**fields) for category, fields in plain.items()}


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
        from bench.registry import DATASETS

        data_traits = DATASETS.load(dataset["name"]).traits
        dataset |= {"title": data_traits.title, "note": data_traits.note}
    protocol = {**identity["protocol"], "label": task.protocol}
    return {**identity, "method": method, "dataset": dataset, "protocol": protocol}


# ------------------------------------------------------------ what one process keeps between trials


@functools.lru_cache(maxsize=4)
def _catalogue(dataset: str, root: str, hashes: str, fingerprint: str) -> Catalogue:
    """The dataset as it was planned with; refused if its files are no longer the same."""
    catalogue = open_catalogue(parse_spec(dataset), Path(root), HashBook(Path(hashes)))
    if catalogue.fingerprint != fingerprint:
        raise BenchError(f"the files of {dataset} changed while the study ran; run it again")
    return catalogue


@functools.lru_cache(maxsize=2)
@timed("encode")
def _text_image(weights: Weights, device: str) -> TextImageEncoder:
    from bench.encoders import load_text_image

    return load_text_image(weights, device)


def _backbone(weights: Weights) -> Backbone:
    from bench.encoders import load_backbone

    return load_backbone(weights)


def _network(weights: Weights) -> Network:
    from bench.encoders import load_network

    return load_network(weights)


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
    features = sys.modules.get("bench.features")  # not imported before a method has used an encoder
    return 0 if features is None else int(features.CACHE.passes)
