"""One trial: split, fit, score, measure; the outcome is a record and its scores, whatever happens."""

from __future__ import annotations

import contextlib
import gc
import signal
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Context, FitsTogether, HasFeatures, ImageSet, Method, Scores, TrainingSet
from bench.data.catalogue import Catalogue
from bench.data.splits import Manifest, check_leakage, split
from bench.errors import BenchError, NotApplicable
from bench.metrics import evaluation
from bench.metrics.blocks import DEFAULT, block, verdict
from bench.metrics.measurement import NO_MAPS
from bench.metrics.protocols import resolve
from bench.study.task import Batch, Task
from bench.tools.registry import METHODS
from bench.tools.spec import check_files, config_from_dict
from bench.tools.stopwatch import Stopwatch
from bench.trial.isolation import isolated
from bench.trial.loading import (
    load_backbone,
    load_network,
    load_prompts,
    load_protocol,
    load_source,
    load_target,
    load_text_image,
)
from bench.trial.recording import encoder_passes, new_record, peak_memory
from bench.trial.scores import TEXT, arrays, checked, explain, in_words, is_out_of_memory, notes, plain

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class Outcome:
    """The result of a trial.

    Attributes:
        record: the JSON record (see :mod:`bench.store.store`).
        scores: arrays for the store; None if the trial did not come that far. With ``features`` (N, F) if the
            task asked for them.
        ids: the test images, in the order of the scores.
    """

    record: dict[str, Any]
    scores: Mapping[str, NDArray[Any]] | None = None
    ids: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``ok``, ``skipped`` or ``failed``."""
        return str(self.record["status"])


def run_trial(task: Task, track: Track | None = None) -> Outcome:
    """Carry out one trial. Whatever goes wrong inside it ends in the record, never in an exception.

    ``KeyboardInterrupt`` alone passes through, in a process that Ctrl-C reaches.
    """
    return run_together((task,), track)[0]


def run_together(tasks: Batch, track: Track | None = None) -> list[Outcome]:
    """Carry out the trials of one batch, fitted as one where their method offers it; else one after another.

    As :func:`run_trial`, trial by trial: one that fails takes no other with it.
    """
    trials = [Trial(task, track) for task in tasks]
    if len(trials) > 1:
        for trial in trials:
            trial.open()
        fit_together([trial for trial in trials if trial.status == "ok"])
    outcomes = []
    while trials:
        # Taken off the list: its images and its network are not needed while the others are scored.
        trial = trials.pop(0)
        trial.open()
        trial.finish()
        outcomes.append(trial.outcome())
    return outcomes


def failed(task: Task, reason: str) -> Outcome:
    """The outcome of a trial that could not even say why it failed, because its process is gone."""
    return Outcome(new_record(task, "failed", reason))


class Trial:
    """One trial in this process: :meth:`open` it, :meth:`finish` it, and take its :meth:`outcome`.

    Between the first two, several trials may be fitted as one (:func:`fit_together`).

    Args:
        task: the trial as planned.
        track: shows the progress of training loops, see :class:`bench.contracts.Context`.

    Attributes:
        status: ``ok`` as long as nothing has gone wrong; then ``skipped`` or ``failed``, with ``reason``.
        fitted: whether the method has been fitted.
        fitted_with: number of trials fitted as one, this one among them.
        notes: sentences for the record.
    """

    # Made by open(), in this order.
    cls: type[Method]
    config: Any
    target: Catalogue
    source: Catalogue
    manifest: Manifest
    context: Context
    train: TrainingSet
    # Made by construct() and score().
    method: Method
    images: ImageSet

    def __init__(self, task: Task, track: Track | None = None) -> None:
        self.task, self.track = task, track
        self.watch = Stopwatch()
        self.status, self.reason, self.trace = "ok", "", ""
        self.notes: list[str] = []
        self.opened = self.fitted = False
        self.fitted_with = 1
        self.passes = 0  # images put through frozen encoders
        self.ids: tuple[str, ...] = ()
        self.scores: dict[str, NDArray[Any]] | None = None
        self.metrics: dict[str, Any] = {}

    # ------------------------------------------------------------ the trial's story

    def open(self) -> None:
        """Get everything ready for fitting, once: the method, the data, their split, encoders."""
        if self.opened:
            return
        self.opened = True
        # The settings that a plugin makes when it is imported stay: this import is not undone afterwards. An error
        # comes again, where it is recorded.
        with contextlib.suppress(Exception):
            METHODS.load(self.task.identity["method"]["name"])
        self._contain(self._open)

    def finish(self) -> None:
        """Fit if that is still to be done, score, measure."""
        if self.status == "ok":
            self._contain(self._finish)

    def outcome(self) -> Outcome:
        """The record and the scores, also of a trial that failed."""
        record = new_record(self.task, self.status, self.reason or None)
        record |= {"metrics": self.metrics, "notes": notes(self.notes)}
        record["provenance"] |= {
            "seconds": self.watch.seconds(),
            "peak_memory_mib": peak_memory(),
            "encoder_passes": self.passes,
            "fitted_with": self.fitted_with,
            "traceback": plain(self.trace, TEXT) or None,
        }
        return Outcome(record, self.scores, self.ids)

    def _contain(self, step: Callable[[], None]) -> None:
        """Carry out ``step``; whatever goes wrong in it, or in the setting up around it, is the trial's end."""
        passes = encoder_passes()
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
            self.passes += encoder_passes() - passes

    # ------------------------------------------------------------ before fitting

    def _open(self) -> None:
        from bench.tools.devices import choose_device

        planned = self.task.identity["method"]
        self.cls = METHODS.load(planned["name"])
        check_files(self.task.files)
        self.config = config_from_dict(self.cls.Config, planned["config"], self.task.files)
        self.traits = self.cls.traits(self.config)
        with self.watch("data"):
            self.target, self.source = load_target(self.task), load_source(self.task)
            self.manifest = self._split()
            self.ids = self.target.in_neutral_order(self.manifest.test)
            self.prompts = load_prompts(self.task.prompts)
        self.context = self._context(choose_device(self.task.device), self.task.seed or 0)
        self._check_applicable()
        if self.traits.trained:
            self.train = self._training_set()

    def _split(self) -> Manifest:
        """The split, which must be the planned one and free of leakage."""
        manifest = split(
            load_protocol(self.task),
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
        self._check_testable(manifest)
        self.notes.extend(manifest.notes)
        return manifest

    def _check_testable(self, manifest: Manifest) -> None:
        """See that the test images define any metric.

        Without normal images there are still pixel metrics, if the method gives maps and the dataset masks.

        Raises:
            NotApplicable: there is no test image, none is anomalous, or none is normal and there are no masks or
                maps.
        """
        category, labels = self.task.category, self.target.labels(manifest.test)
        if not len(labels):
            raise NotApplicable(f"{category} has no test image")
        if not labels.any():
            raise NotApplicable(f"{category} has no anomalous test image, so no metric is defined")
        if labels.all():
            lacking = self.target.without_masks(manifest.test) if self.traits.maps else NO_MAPS
            if lacking:
                raise NotApplicable(
                    f"{category} has no normal test image, so no image metric is defined, and no pixel metric "
                    f"either: {lacking}"
                )

    def _check_applicable(self) -> None:
        """See that the split has the images that the method needs.

        Raises:
            NotApplicable: no support images, or nothing to learn from.
        """
        title = self.traits.title
        if self.traits.support and self.context.support is None:
            others = "" if self.traits.trained else ", or oneclass"
            raise NotApplicable(f"{title} needs K normal images of the target; use --protocol loo[k=4]{others}")
        if self.traits.trained and not self.manifest.train:
            raise NotApplicable(f"{title} learns from seen categories, and {self.task.protocol} has none")

    def _training_set(self) -> TrainingSet:
        prompts = self.prompts
        if self.task.source_prompts is not None:
            prompts = load_prompts(self.task.source_prompts)
        with self.watch("data"):
            ids = self.source.in_neutral_order(self.manifest.train)
            return self.source.training_set(ids, prompts, self.task.shots or 0)

    def _context(self, device: str, seed: int) -> Context:
        # The context must not hold on to this trial, which holds it: until the collector of cycles found them, the
        # trained network would stay in memory.
        support, weights = self.manifest.support, self.task.weights
        context = Context(
            device=device,
            seed=seed,
            category=self.task.category,
            encoder=lambda name: load_text_image(weights[name], device),
            backbone=lambda name: load_backbone(weights[name]),
            support=self.target.image_set(support, self.prompts) if support else None,
            network=lambda name: load_network(weights[name]),
        )
        if self.track is not None:
            context.track = self.track
        return context

    # ------------------------------------------------------------ fitting, scoring, measuring

    def construct(self) -> Method:
        """Seed every generator and build the method."""
        self._seed()
        self.method = self.cls(self.config)  # type: ignore[call-arg]  # a protocol says nothing of building
        return self.method

    def _seed(self) -> None:
        from bench.tools.devices import seed_everything

        seed_everything(self.context.seed, self.task.precision)

    def _finish(self) -> None:
        self.fit()
        scores = self.score()
        self.scores = arrays(scores)
        with self.watch("metrics"):
            self.metrics = {DEFAULT: self.measure(scores)}
        if self.task.features:
            self.scores["features"] = self.features()
        status, reason = verdict(self.metrics[DEFAULT])
        self.status, self.reason = status, reason or ""

    def fit(self) -> None:
        """Construct and fit the method, unless that was done together with others."""
        if self.fitted:
            self._seed()  # the generators are as the last trial left them
            return
        self.construct()
        if self.traits.trained:
            with self.watch("fit"):
                self.method.fit(self.train, self.context)
        self.fitted = True

    def score(self) -> Scores:
        """The fitted method's scores of the test images, checked."""
        self.images = self.target.image_set(self.ids, self.prompts)
        with self.watch("score"):
            scores = checked(self.method.score(self.images, self.context), self.images)
        self.notes.extend(self.context.notes)
        return scores

    def measure(self, scores: Scores) -> dict[str, Any]:
        """Metrics under the ``exact`` protocol, as the record keeps them."""
        protocol = resolve(DEFAULT, self.target.dataset.traits.eval_size)
        without_masks = self.target.without_masks(self.ids)
        evaluated = evaluation.measure(
            protocol,
            labels=self.target.labels(self.ids),
            image_scores=scores.image,
            maps=scores.maps,
            masks=None if scores.maps is None or without_masks else self.target.masks(self.ids),
            no_masks=without_masks,
        )
        return block(protocol, evaluated)

    def features(self) -> NDArray[np.float32]:
        """``(N, F)``: the test images' features, after :meth:`score`.

        Raises:
            BenchError: the method has none, or gives something else.
        """
        if not isinstance(self.method, HasFeatures):
            raise BenchError(f"{self.task.method} has no features")
        features = np.asarray(self.method.features(self.images, self.context), dtype=np.float32)
        if features.ndim != 2 or len(features) != len(self.images):
            raise BenchError(f"the method gave features of shape {features.shape} for {len(self.images)} images")
        return features


def fit_together(trials: Sequence[Trial]) -> None:
    """Fit several opened trials as one; those that cannot be fitted so are left to be fitted alone."""
    if len(trials) < 2 or not trials[0].traits.trained or not isinstance(trials[0].cls, FitsTogether):
        return
    passes, watch = encoder_passes(), Stopwatch()
    short_of_memory = False
    try:
        with watch.running(), watch("fit"), isolated():
            methods = [trial.construct() for trial in trials]
            trials[0].cls.fit_together(methods, [t.train for t in trials], [t.context for t in trials])
    except BaseException as error:
        if _is_the_users(error):
            raise
        short_of_memory = is_out_of_memory(error)
        if not short_of_memory:
            for trial in trials:
                trial.notes.append(f"fitted alone, since together with others it failed: {explain(error)}")
        for trial in trials:
            trial.context.notes.clear()  # they will be noted again
    else:
        for trial in trials:
            trial.fitted, trial.fitted_with = True, len(trials)
    for trial in trials:
        trial.watch.add_share(watch, len(trials))
    trials[0].passes += encoder_passes() - passes
    if short_of_memory:  # outside the handler, whose traceback keeps hold of the memory
        gc.collect()  # a method may hold on to itself
        half = len(trials) // 2
        fit_together(trials[:half])
        fit_together(trials[half:])


def _is_the_users(error: BaseException) -> bool:
    """True if it is a Ctrl-C, and not a method that raises the same: workers ignore Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
