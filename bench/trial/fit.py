"""One fit: a method built and trained on what it may learn from, or restored from a detector's file."""

from __future__ import annotations

import contextlib
import gc
import signal
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts import Context, FitsTogether, HasState, Method, TrainingSet
from bench.data.catalogue import Catalogue
from bench.data.splits import Manifest, check_leakage, split
from bench.errors import BenchError, NotApplicable
from bench.store.detectors import dump_detector, load_detector
from bench.study.task import Fit, Task
from bench.tools.provenance import environment
from bench.tools.registry import METHODS
from bench.tools.spec import check_files, config_from_dict
from bench.tools.stopwatch import Stopwatch
from bench.trial.isolation import isolated
from bench.trial.loading import (
    load_backbone,
    load_checkpoint,
    load_network,
    load_prompts,
    load_protocol,
    load_source,
    load_target,
    load_text_image,
)
from bench.trial.recording import encoder_passes
from bench.trial.scores import TEXT, explain, in_words, is_out_of_memory, notes, plain

Track = Callable[[Iterable[Any], str], Iterable[Any]]


@dataclass(frozen=True)
class FitOutcome:
    """The result of a fit.

    Attributes:
        status: ``ok``, ``skipped`` (the method cannot learn from these data) or ``failed``.
        reason: of a fit that is not ok; one line.
        trace: traceback of a fit that raised.
        detector: content of the detector's file (:mod:`bench.store.detectors`); None if the fit is not ok.
    """

    status: str
    reason: str = ""
    trace: str = ""
    detector: bytes | None = None


class Fitting:
    """The fit of one task in this process: :meth:`open` it, :meth:`fit` it, and take its :meth:`detector`.

    Between the first two, several may be fitted as one (:func:`fit_together`).

    Args:
        task: the trial as planned.
        track: shows the progress of training loops, see :class:`bench.contracts.Context`.

    Attributes:
        status: ``ok`` as long as nothing has gone wrong; then ``skipped`` or ``failed``, with ``reason``.
        fitted: whether the method has been fitted.
        fitted_with: number of fits carried out as one, this one among them.
        fit_seconds: that training took, here or, for a detector from a file, wherever it was trained.
        fitted_on: device of a detector from a file, as records name it, with the precision of its products.
        notes: sentences for the record; ``fit_notes`` are those of them that the method made while it was fitted.
    """

    # Made by open(), in this order.
    cls: type[Method]
    config: Any
    target: Catalogue
    source: Catalogue
    manifest: Manifest
    context: Context
    # Made by construct().
    method: Method

    def __init__(self, task: Task, track: Track | None = None) -> None:
        self.task, self.track = task, track
        self.watch = Stopwatch()
        self.status, self.reason, self.trace = "ok", "", ""
        self.notes: list[str] = []
        self.opened = self.fitted = False
        self.fitted_with = 1
        self.fit_seconds: float | None = None
        self.fit_notes: tuple[str, ...] = ()
        self.fitted_on = ""
        self.passes = 0  # images put through frozen encoders
        self._train: TrainingSet | None = None

    # ------------------------------------------------------------ the story

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

    def fit(self) -> None:
        """Construct and fit the method, or restore it, unless that was done together with others."""
        if self.fitted:
            return
        self.construct()
        if self.task.detector is not None:
            with self.watch("data"):
                self._restore(Path(self.task.detector))
        elif self.traits.trained:
            with self.watch("fit"):
                self.method.fit(self.train, self.context)
            self._fit_ended()
        self.fitted = True

    def detector(self) -> bytes:
        """The content of the file that keeps the fitted method."""
        assert isinstance(self.method, HasState)
        return dump_detector(self._description(), self.method.state())

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
            if is_the_users(error):
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
            self.prompts = load_prompts(self.task.prompts)
        self.context = self._context(choose_device(self.task.device), self.task.seed or 0)
        self._check_applicable()
        if self.task.detector is None and self.traits.trained:
            self._train = self._training_set()

    @property
    def train(self) -> TrainingSet:
        """The training set of a trained method."""
        assert self._train is not None
        return self._train

    def _split(self) -> Manifest:
        """The split, which must be the planned one and free of leakage."""
        manifest = split(
            load_protocol(self.task),
            target=self.target,
            source=self.source,
            category=self.task.category or None,  # a fit for no target has none
            shots=self.task.shots,
            seed=self.task.seed,
            normals=self.traits.trained,
            anomalies=self.traits.anomalies,
        )
        if manifest.hash != self.task.identity["protocol"]["manifest"]:
            raise RuntimeError("the split came out differently than planned")
        check_leakage(manifest, target=self.target, source=self.source)
        return manifest

    def _check_applicable(self) -> None:
        """See that the split has the images that the method needs.

        Raises:
            NotApplicable: no support images, or nothing to learn from.
        """
        title = self.traits.title
        if self.traits.support and self.task.category and not self.manifest.support:
            others = "" if self.traits.trained else ", or oneclass"
            raise NotApplicable(f"{title} needs K normal images of the target; use --protocol loo[k=4]{others}")
        if self.traits.trained and not self.manifest.train:
            raise NotApplicable(f"{title} learns from seen categories, and {self.task.protocol} has none")

    def _training_set(self) -> TrainingSet:
        """The training set, with the prompts of the seen categories alone."""
        prompts = self.prompts
        if self.task.source_prompts is not None:
            prompts = load_prompts(self.task.source_prompts)
        with self.watch("data"):
            ids = self.source.in_neutral_order(self.manifest.train)
            seen = {self.source.samples[id_].category for id_ in ids}
            known = {category: own for category, own in prompts.items() if category in seen}
            return self.source.training_set(ids, known, self.task.shots or 0)

    def _context(self, device: str, seed: int) -> Context:
        """The context of the fit, which knows no target; but for a method that fits on support images."""
        # The context must not hold on to this object, which holds it: until the collector of cycles found them,
        # the trained network would stay in memory.
        support, weights, by_role = self.manifest.support, self.task.weights, self.task.weights_by_role
        context = Context(
            device=device,
            seed=seed,
            category="",
            encoder=lambda name: load_text_image(weights[name], device),
            backbone=lambda name: load_backbone(weights[name]),
            support=self.support() if self.traits.fits_on_support else None,
            network=lambda name: load_network(weights[name]),
            checkpoint=lambda role: load_checkpoint(weights[by_role[role]]),
            n_support=len(support),
        )
        if self.track is not None:
            context.track = self.track
        return context

    def support(self) -> Any:
        """The support images of the target, or None."""
        support = self.manifest.support
        return self.target.image_set(support, self.prompts) if support else None

    # ------------------------------------------------------------ fitting

    def construct(self) -> Method:
        """Seed every generator and build the method."""
        self.seed()
        self.method = self.cls(self.config)  # type: ignore[call-arg]  # a protocol says nothing of building
        return self.method

    def seed(self) -> None:
        """Seed every generator."""
        from bench.tools.devices import seed_everything

        seed_everything(self.context.seed, self.task.precision)

    def _fit_ended(self) -> None:
        """Take down how long it took and what the method noted."""
        self.fit_seconds = sum(self.watch.seconds().get(part, 0.0) for part in ("fit", "encode"))
        self._take_notes(self.context.notes)
        self.context.notes.clear()

    def _take_notes(self, notes: Sequence[str]) -> None:
        self.fit_notes = tuple(notes)
        self.notes.extend(notes)

    def _restore(self, path: Path) -> None:
        """Take a fitted method's state from the detector's file that this fit has left before."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BenchError(
                f"the detector {path} cannot be read: {error.strerror}; run the study again"
            ) from None
        description, state = load_detector(data, str(path))
        if description["key"] != self.task.fit_key:
            raise BenchError(f"{path} is the detector of another fit; remove it and run the study again")
        assert isinstance(self.method, HasState)
        self.method.restore(state, self.context)
        self.fit_seconds, self.fitted_with = description["seconds"], description["fitted_with"]
        self.fitted_on = str(description["environment"]["device"])
        self._take_notes(description["notes"])

    def _description(self) -> dict[str, Any]:
        """The rest of the detector's file, beside the state: enough to use it without any study."""
        train = self.manifest.train
        identity = self.task.identity
        return {
            "key": self.task.fit_key,
            "method": {**identity["method"], "label": self.task.method},
            "weights": identity["encoders"],
            "trained_on": {
                "dataset": self.task.source or self.task.dataset,
                "protocol": self.task.protocol,
                "categories": sorted({self.source.samples[id_].category for id_ in train}),
                "images": sorted(self.source.keys[id_] for id_ in train),
            },
            "shots": self.task.shots,
            "seed": self.task.seed,
            "n_support": self.context.n_support,
            "seconds": self.fit_seconds,
            "fitted_with": self.fitted_with,
            "notes": notes(self.fit_notes),
            "environment": environment(self.task.device, self.task.precision),
        }

    def fit_outcome(self) -> FitOutcome:
        """The outcome of the fit alone; call it once, after everything else."""
        detector: list[bytes] = []

        def finish() -> None:
            self.fit()
            detector.append(self.detector())

        if self.status == "ok":
            self._contain(finish)
        if self.status != "ok":
            return FitOutcome(self.status, self.reason, plain(self.trace, TEXT))
        return FitOutcome("ok", detector=detector[0])


def run_fits(fits: Sequence[Fit], track: Track | None = None) -> list[FitOutcome]:
    """Carry out fits, as one where their method offers it; else one after another.

    Whatever goes wrong in one ends in its outcome, never in an exception; but for a Ctrl-C of this process.
    """
    fittings = [Fitting(fit.task, track) for fit in fits]
    if len(fittings) > 1:
        for fitting in fittings:
            fitting.open()
        fit_together([fitting for fitting in fittings if fitting.status == "ok"])
    outcomes = []
    while fittings:
        fitting = fittings.pop(0)  # its network is not needed while the others are fitted
        fitting.open()
        outcomes.append(fitting.fit_outcome())
    return outcomes


def fit_together(fittings: Sequence[Fitting]) -> None:
    """Fit several that are open as one; those that cannot be fitted so are left to be fitted alone."""
    fittings = [fitting for fitting in fittings if fitting.task.detector is None]
    if len(fittings) < 2 or not fittings[0].traits.trained or not isinstance(fittings[0].cls, FitsTogether):
        return
    passes, watch = encoder_passes(), Stopwatch()
    short_of_memory = False
    together = False
    try:
        with watch.running(), watch("fit"), isolated():
            methods = [fitting.construct() for fitting in fittings]
            fittings[0].cls.fit_together(methods, [f.train for f in fittings], [f.context for f in fittings])
        together = True
    except BaseException as error:
        if is_the_users(error):
            raise
        short_of_memory = is_out_of_memory(error)
        if not short_of_memory:
            for fitting in fittings:
                fitting.notes.append(f"fitted alone, since together with others it failed: {explain(error)}")
        for fitting in fittings:
            fitting.context.notes.clear()  # they will be noted again
    for fitting in fittings:
        fitting.watch.add_share(watch, len(fittings))
        if together:
            fitting.fitted, fitting.fitted_with = True, len(fittings)
            fitting._fit_ended()
    fittings[0].passes += encoder_passes() - passes
    if short_of_memory:  # outside the handler, whose traceback keeps hold of the memory
        gc.collect()  # a method may hold on to itself
        half = len(fittings) // 2
        fit_together(fittings[:half])
        fit_together(fittings[half:])


def is_the_users(error: BaseException) -> bool:
    """True if it is a Ctrl-C, and not a method that raises the same: workers ignore Ctrl-C."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
