"""The steps of one trial: data, split, method, scores, metrics; and what a process keeps between trials."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import (
    Backbone,
    Context,
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
from bench.data.catalogue import Catalogue, open_as_recorded
from bench.data.splits import Manifest, ProtocolConfig, check_leakage, split
from bench.errors import BenchError, NotApplicable
from bench.metrics.blocks import DEFAULT, block
from bench.metrics.evaluation import measure
from bench.metrics.measurement import NO_MAPS
from bench.metrics.protocols import resolve
from bench.study.study import Task
from bench.tools.hashes import HashBook
from bench.tools.registry import METHODS
from bench.tools.spec import build_config, parse_spec
from bench.tools.stopwatch import Stopwatch, timed
from bench.trial.scores import checked

Track = Callable[[Iterable[Any], str], Iterable[Any]]


class Steps:
    """One trial, step by step: build, :meth:`prepare`, :meth:`fit`, :meth:`score`, :meth:`measure`."""

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
        self._refuse_what_defines_nothing(manifest.test)
        self.notes.extend(manifest.notes)
        return manifest

    def _refuse_what_defines_nothing(self, test: Sequence[str]) -> None:
        """Skip a trial of which it is known beforehand that it leaves no metric at all.

        Without normal images there are still pixel metrics, if the method gives maps and the dataset masks.
        """
        category, labels = self.task.category, self.target.labels(test)
        if not len(labels):
            raise NotApplicable(f"{category} has no test image")
        if not labels.any():
            raise NotApplicable(f"{category} has no anomalous test image, so no metric is defined")
        if labels.all():
            lacking = self.target.without_masks(test) if self.traits.maps else NO_MAPS
            if lacking:
                raise NotApplicable(
                    f"{category} has no normal test image, so no image metric is defined, and no pixel metric "
                    f"either: {lacking}"
                )

    def prepare(self) -> None:
        """Get everything ready for fitting."""
        from bench.tools.devices import choose_device

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
        self._seed()
        method: Method = self.method(self.config)
        self.built = method
        return method

    def _seed(self) -> None:
        from bench.tools.devices import seed_everything

        seed_everything(self.context.seed, self.task.precision)

    def fit(self) -> None:
        """Construct and fit the method, unless that was done together with others."""
        if self.fitted:
            self._seed()  # that trial's settings are not these any more
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
        # The context must not hold on to this trial, which holds it: until the collector of cycles found them, the
        # trained network would stay in memory.
        support, weights = self.manifest.support, self.task.weights
        context = Context(
            device=device,
            seed=seed,
            category=self.task.category,
            encoder=lambda name: _text_image(weights[name], device),
            backbone=lambda name: _backbone(weights[name]),
            support=self.target.image_set(support, self.prompts) if support else None,
            network=lambda name: _network(weights[name]),
        )
        if self.track is not None:
            context.track = self.track
        return context

    def measure(self, scores: Scores) -> dict[str, Any]:
        """Metrics under the ``exact`` protocol, as the record keeps them."""
        without_masks = self.target.without_masks(self.test_ids)
        protocol = resolve(DEFAULT, self.target.dataset.traits.eval_size)
        evaluation = measure(
            protocol,
            labels=self.target.labels(self.test_ids),
            image_scores=scores.image,
            maps=scores.maps,
            masks=None if scores.maps is None or without_masks else self.target.masks(self.test_ids),
            no_masks=without_masks,
        )
        return block(protocol, evaluation)


def _prompts(plain: Mapping[str, Any]) -> dict[str, Prompts]:
    return {category: Prompts(**fields) for category, fields in plain.items()}


# ------------------------------------------------------------ what one process keeps between trials


@functools.lru_cache(maxsize=4)
def _catalogue(dataset: str, root: str, hashes: str, fingerprint: str) -> Catalogue:
    """The dataset as it was planned with; refused if its files are no longer the same."""
    return open_as_recorded(parse_spec(dataset), Path(root), fingerprint, HashBook(Path(hashes)))


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
