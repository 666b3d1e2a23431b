"""One trial: split, fit, score, measure; the outcome is a record and its scores, whatever happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import HasFeatures, ImageSet, Scores
from bench.data.splits import Manifest
from bench.errors import BenchError, NotApplicable
from bench.metrics import evaluation
from bench.metrics.blocks import DEFAULT, block, verdict
from bench.metrics.measurement import NO_MAPS
from bench.metrics.protocols import resolve
from bench.study.task import Task
from bench.trial.fit import FitOutcome, Fitting, Track, fit_together
from bench.trial.recording import new_record, peak_memory
from bench.trial.scores import TEXT, arrays, checked, notes, plain


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


def run_together(tasks: Sequence[Task], track: Track | None = None) -> list[Outcome]:
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


def without_fit(task: Task, fit: FitOutcome) -> Outcome:
    """The outcome of a trial whose fit did not end well: what is said of the fit is said of it."""
    record = new_record(task, fit.status, fit.reason or None)
    record["provenance"]["traceback"] = fit.trace or None
    return Outcome(record)


class Trial(Fitting):
    """One trial in this process: open it as a fit, :meth:`finish` it, and take its :meth:`outcome`.

    Args:
        task: the trial as planned.
        track: shows the progress of training loops, see :class:`bench.contracts.Context`.
    """

    # Made by score().
    images: ImageSet

    def __init__(self, task: Task, track: Track | None = None) -> None:
        super().__init__(task, track)
        self.ids: tuple[str, ...] = ()
        self.scores: dict[str, NDArray[Any]] | None = None
        self.metrics: dict[str, Any] = {}

    # ------------------------------------------------------------ the trial's story

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
        if self.task.detector is not None:
            record["provenance"]["fit"] = {
                "key": self.task.fit_key,
                "seconds": self.fit_seconds,
                "device": self.fitted_on,
            }
        return Outcome(record, self.scores, self.ids)

    def _split(self) -> Manifest:
        """The split, whose test images must define some metric."""
        manifest = super()._split()
        self._check_testable(manifest)
        self.notes.extend(manifest.notes)
        self.ids = self.target.in_neutral_order(manifest.test)
        return manifest

    def _check_testable(self, manifest: Manifest) -> None:
        """See that the test images define any metric.

        Without normal images there are still pixel metrics, if the method gives maps and an anomalous image has a
        mask.

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

    # ------------------------------------------------------------ scoring, measuring

    def _finish(self) -> None:
        self.fit()
        # The target is known from here on.
        support = self.support()
        self.context = dataclasses.replace(self.context, category=self.task.category, support=support)
        scores = self.score()
        self.scores = arrays(scores)
        with self.watch("metrics"):
            self.metrics = {DEFAULT: self.measure(scores)}
        if self.task.features:
            self.scores["features"] = self.features()
        status, reason = verdict(self.metrics[DEFAULT])
        self.status, self.reason = status, reason or ""

    def score(self) -> Scores:
        """The fitted method's scores of the test images, checked."""
        self.seed()  # training, here or elsewhere, has left the generators anywhere
        self.images = self.target.image_set(self.ids, self.prompts)
        with self.watch("score"):
            scores = checked(self.method.score(self.images, self.context), self.images)
        self.notes.extend(self.context.notes)
        return scores

    def measure(self, scores: Scores) -> dict[str, Any]:
        """Metrics under the ``exact`` protocol, as the record keeps them."""
        protocol = resolve(DEFAULT, self.target.dataset.traits.eval_size)
        evaluated = evaluation.measure(
            protocol,
            labels=self.target.labels(self.ids),
            image_scores=scores.image,
            maps=scores.maps,
            masks=None if scores.maps is None else self.target.masks(self.ids, blank=True),
            no_masks=self.target.without_masks(self.ids),
            unmasked=self.target.unmasked(self.ids),
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
