"""Expansion of a study into tasks: methods × categories × shots × seeds under one protocol."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts import HasSubset, Prompts, SplitProtocol, Weights
from bench.data.catalogue import Catalogue
from bench.data.prompts import default_prompts, load_prompts, prompt_hash, read_prompt_file
from bench.data.splits import Manifest, check_source, split
from bench.data.union import UnionCatalogue, parts_of
from bench.errors import BenchError, unknown
from bench.study.lookup import ChosenMethod, leak, weights_file
from bench.study.study import DEFAULT_PROTOCOL, Study
from bench.study.task import Task
from bench.tools.hashes import HashBook, hash_json
from bench.tools.spec import config_dict, label, planned_files


@dataclass(frozen=True)
class Repetition:
    """One of the trials of a method on a category.

    Attributes:
        shots: labelled anomalies per seen category; None for a method that learns from none.
        seed: None for a method that neither learns nor draws.
    """

    shots: int | None
    seed: int | None


@dataclass(frozen=True)
class TaskPrompts:
    """The prompts of a task, as plain values.

    Attributes:
        hash: of all of them.
        target: category of the target -> fields of its :class:`bench.contracts.Prompts`.
        source: the same of the dataset learned from, where that is another.
    """

    hash: str
    target: dict[str, Any]
    source: dict[str, Any] | None = None


class Expansion:
    """Makes the tasks of one study under one protocol.

    Args:
        study: the study.
        protocol: one of its protocols.
        source: the dataset learned from, if the protocol needs one.
        weights: encoder name -> its weights.
        hashes: remembers file hashes; ``hash_file`` is where it keeps them, for the trials.

    Attributes:
        manifests: hash -> manifest of all splits so far.
    """

    def __init__(
        self,
        study: Study,
        protocol: SplitProtocol,
        source: Catalogue | None,
        weights: Mapping[str, Weights],
        hashes: HashBook,
        hash_file: Path,
    ) -> None:
        self.study = study
        self.protocol = protocol
        self.source = source
        self.weights = weights
        self.hashes = hashes
        self.hash_file = hash_file
        self.protocol_label = label(protocol.name, protocol.config)
        self.manifests: dict[str, Manifest] = {}
        self._splits: dict[tuple[Any, ...], Manifest] = {}  # methods share them, and there are many methods
        self._categories_seen: dict[str, list[str]] = {}  # by what is learned

    def tasks(self, target: Catalogue, methods: Iterable[ChosenMethod]) -> Iterator[Task]:
        """The tasks on one dataset.

        Raises:
            BenchError: an unknown category, wrong prompts, a source that holds images of the target, an option
                that names a file which is not there.
        """
        categories = self._categories(target)
        if self.source is not None:
            kept_apart = target.categories if self.protocol.traits.apart else categories
            check_source(self.protocol.name, self.source, target, kept_apart)
        # Once for all trials: reading and hashing prompts for each would take longer than the rest.
        prompts = self._prompts(target)
        for method, category in itertools.product(methods, categories):
            for repetition in self._repetitions(method):
                yield self._task(target, method, category, repetition, prompts)

    def fit(self, source: Catalogue, method: ChosenMethod) -> Task:
        """The task of a fit for no target: its category is empty, and it tests on nothing.

        Raises:
            BenchError: wrong prompts, nothing to learn from, an option that names a file which is not there.
        """
        (repetition,) = self._repetitions(method)
        return self._task(source, method, "", repetition, self._prompts(source))

    def _categories(self, target: Catalogue) -> Sequence[str]:
        for category in self.study.categories:
            if category not in target.categories:
                raise unknown("category", category, target.categories, f"of {target.label}")
        return self.study.categories or target.categories

    def _repetitions(self, method: ChosenMethod) -> list[Repetition]:
        if method.once:
            return [Repetition(None, None)]
        # Without labelled anomalies, or where all are learned from, the number of shots changes nothing.
        if not (method.traits.trained and method.traits.anomalies and self.protocol.traits.shots):
            return [Repetition(None, seed) for seed in self.study.seeds]
        return [Repetition(shots, seed) for shots in self.study.shots for seed in self.study.seeds]

    # ------------------------------------------------------------ prompts

    def _prompts(self, target: Catalogue) -> TaskPrompts:
        own = self._prompts_of(target, is_target=True)
        if self.source is None:
            return TaskPrompts(prompt_hash(own), _fields(own))
        learned = self._learned_prompts(self.source)
        # The method reads both: what it learned with and what it is asked about.
        both = hash_json([prompt_hash(own), prompt_hash(learned)])
        return TaskPrompts(both, _fields(own), _fields(learned))

    def _learned_prompts(self, source: Catalogue) -> dict[str, Prompts]:
        """The prompts of the dataset learned from; of several, by the names that the categories have together."""
        if not isinstance(source, UnionCatalogue):
            return self._prompts_of(source, is_target=False)
        found = {}
        for part in source.parts:
            for category, prompts in self._prompts_of(part, is_target=False).items():
                found[f"{part.dataset.name}/{category}"] = prompts
        return found

    def _prompts_of(self, catalogue: Catalogue, *, is_target: bool) -> dict[str, Prompts]:
        """The prompts of a dataset's categories; the one learned from may keep its own."""
        known = dict(catalogue.dataset.prompts())
        name = catalogue.dataset.name
        if self.study.prompts is not None and (is_target or name in read_prompt_file(self.study.prompts)):
            given = load_prompts(self.study.prompts, name)
            # A category may be in the file and not in this copy of the dataset, but not unknown to both.
            for category in given:
                if category not in {*known, *catalogue.categories}:
                    raise unknown("category", category, catalogue.categories, f"in {self.study.prompts}")
            known.update(given)
        return {category: known.get(category) or default_prompts(category) for category in catalogue.categories}

    # ------------------------------------------------------------ one task

    def _task(
        self, target: Catalogue, method: ChosenMethod, category: str, repetition: Repetition, prompts: TaskPrompts
    ) -> Task:
        reads_prompts = method.traits.text
        manifest = self._manifest(target, method, category, repetition)
        weights = {role: self.weights[method.weights_key(role)] for role in method.encoders}
        leaked = leak(weights.values(), target.dataset.name) if category else ""
        if leaked and not self.study.allow_leak:
            raise BenchError(
                f"leakage: {method.label}: {leaked}; test on another dataset, or add --allow-leak to run it even "
                "so, marked in every table"
            )
        options = self._plain(method.config)
        identity = {
            "method": {
                "name": method.cls.name,
                "version": method.cls.version,
                "config": options,
            },
            "dataset": self._dataset(target),
            "protocol": {
                "name": self.protocol.name,
                "config": self._plain(self.protocol.config),
                "source": None if self.source is None else self._dataset(self.source),
                "manifest": manifest.hash,
            },
            "category": category,
            "shots": repetition.shots,
            "seed": repetition.seed,
            "prompts": prompts.hash if reads_prompts else None,
            "encoders": {role: {"name": each.name, "sha256": each.sha256} for role, each in weights.items()},
        }
        fit_key = ""
        if method.traits.trained:
            fit_key = hash_json(self._fit_identity(identity, target, method, manifest, prompts))
        labels = {"method": method.label, "dataset": target.label, "protocol": self.protocol_label}
        if subset := _subset(target):
            labels["subset"] = subset
        if self.source is not None and (subset := _subset(self.source)):
            labels["source_subset"] = subset
        source_roots: tuple[str, ...] = ()
        if self.source is not None:
            labels["source"] = self.source.label
            source_roots = tuple(str(part.dataset.root) for part in parts_of(self.source))
        return Task(
            key=hash_json(identity),
            identity=identity,
            labels=labels,
            root=str(target.dataset.root),
            source_roots=source_roots,
            prompts=prompts.target if reads_prompts else {},
            source_prompts=prompts.source if reads_prompts else None,
            weights={method.weights_key(role): each for role, each in weights.items()},
            weights_by_role={role: method.weights_key(role) for role in weights},
            leak=leaked,
            files=planned_files(identity),
            device=self.study.device,
            precision=self.study.precision,
            hashes=str(self.hash_file),
            command=self._command(target, method, category, repetition),
            inputs=self._inputs(target, method, options),
            fit_key=fit_key,
        )

    def _fit_identity(
        self,
        identity: Mapping[str, Any],
        target: Catalogue,
        method: ChosenMethod,
        manifest: Manifest,
        prompts: TaskPrompts,
    ) -> dict[str, Any]:
        """Everything that a fit depends on; the target is not part of it, unless the method fits on its images."""
        source = self.source or target
        learned_with = None
        if method.traits.text:
            known = prompts.target if prompts.source is None else prompts.source
            seen = self._seen(manifest, source)
            learned_with = hash_json({category: known[category] for category in seen})
        support: Any = None
        if method.traits.fits_on_support:
            # Such a fit reads the target's prompts, too.
            support = {
                "dataset": identity["dataset"],
                "images": manifest.support,
                "prompts": identity["prompts"],
            }
        elif method.traits.support:
            support = len(manifest.support)
        precision = {} if self.study.precision == "highest" else {"precision": self.study.precision}
        return {
            "method": identity["method"],
            "encoders": identity["encoders"],
            **precision,  # a kept detector would serve trials that ask for another one
            "source": identity["protocol"]["source"] or identity["dataset"],
            "learned": manifest.learned_hash,
            "shots": identity["shots"],
            "seed": identity["seed"],
            "prompts": learned_with,
            "support": support,
        }

    def _seen(self, manifest: Manifest, source: Catalogue) -> list[str]:
        """The categories of the training images, sorted."""
        if manifest.learned_hash not in self._categories_seen:
            seen = sorted({source.samples[id_].category for id_ in manifest.train})
            self._categories_seen[manifest.learned_hash] = seen
        return self._categories_seen[manifest.learned_hash]

    def _manifest(
        self, target: Catalogue, method: ChosenMethod, category: str, repetition: Repetition
    ) -> Manifest:
        place = target.label, category, repetition, method.traits.trained, method.traits.anomalies
        if place not in self._splits:
            manifest = split(
                self.protocol,
                target=target,
                source=self.source or target,
                category=category or None,  # of a fit for no target
                shots=repetition.shots,
                seed=repetition.seed,
                normals=method.traits.trained,
                anomalies=method.traits.anomalies,
            )
            self._splits[place] = self.manifests.setdefault(manifest.hash, manifest)
        return self._splits[place]

    def _dataset(self, catalogue: Catalogue) -> dict[str, Any]:
        dataset = catalogue.dataset
        if isinstance(catalogue, UnionCatalogue):
            return {
                "name": dataset.name,
                "version": dataset.version,
                "config": {"parts": [self._dataset(part) for part in catalogue.parts]},
                "fingerprint": catalogue.fingerprint,
            }
        return {
            "name": dataset.name,
            "version": dataset.version,
            "config": self._plain(dataset.config),
            "fingerprint": catalogue.fingerprint,
        }

    def _plain(self, config: Any) -> dict[str, Any]:
        return config_dict(config, lambda file: self.hashes[file.absolute()])

    def _inputs(self, target: Catalogue, method: ChosenMethod, options: Mapping[str, Any]) -> dict[str, Any]:
        """The trial's inputs, for the record: with absolute paths, as no folder is current there."""
        files = {written: weights_file(each) for written, each in self._given_weights(method)}
        return {
            "roots": {
                "target": _given_root(target),
                "source": None if self.source is None else _given_roots(self.source),
            },
            "weights": {name: file and os.path.abspath(file) for name, file in files.items()},
            "prompts": self.study.prompts and os.path.abspath(self.study.prompts),
            "options": options,
        }

    def _given_weights(self, method: ChosenMethod) -> list[tuple[str, Weights]]:
        """The weights of a method, each with the word that stands for it behind ``--weights``."""
        given = []
        for role, name in method.encoders.items():
            checkpoint = method.traits.roles[role] == "checkpoint"
            given.append(
                (f"{method.cls.name}.{role}" if checkpoint else name, self.weights[method.weights_key(role)])
            )
        return given

    def _command(self, target: Catalogue, method: ChosenMethod, category: str, repetition: Repetition) -> str:
        """The words to type to run this trial again."""
        words = ["bench", "run", "--methods", method.label, "--dataset", target.label]
        if target.dataset.traits.needs_root:
            words += ["--data-root", str(target.dataset.root)]
        if self.source is not None and self.study.source is not None:
            words += ["--train-dataset", self.source.label]
            for part in parts_of(self.source):
                if part.dataset.traits.needs_root:
                    words += ["--train-root", f"{part.dataset.name}={part.dataset.root}"]
        if self.protocol_label != str(DEFAULT_PROTOCOL):
            words += ["--protocol", self.protocol_label]
        words += ["--categories", category]
        if repetition.shots is not None:
            words += ["--shots", str(repetition.shots)]
        if repetition.seed is not None:
            words += ["--seed", str(repetition.seed)]
        if self.study.prompts:
            words += ["--prompts", str(self.study.prompts)]
        for written, each in self._given_weights(method):
            file = weights_file(each)
            if file is not None:
                words += ["--weights", f"{written}={file}"]
        if self.study.allow_leak:
            words.append("--allow-leak")
        return shlex.join(words)


def _subset(catalogue: Catalogue) -> str:
    """The part of a published dataset that is there; of several, for those that are not whole."""
    said = []
    parts = parts_of(catalogue)
    for part in parts:
        subset = part.dataset.subset() if isinstance(part.dataset, HasSubset) else ""
        if subset:
            said.append(f"{part.dataset.traits.title} {subset}" if len(parts) > 1 else subset)
    return "; ".join(said)


def _fields(prompts: Mapping[str, Prompts]) -> dict[str, Any]:
    return {category: dataclasses.asdict(each) for category, each in prompts.items()}


def _given_roots(source: Catalogue) -> str | dict[str, str | None] | None:
    """The folder of the dataset learned from; of several, name -> folder."""
    if isinstance(source, UnionCatalogue):
        return {part.dataset.name: _given_root(part) for part in source.parts}
    return _given_root(source)


def _given_root(catalogue: Catalogue) -> str | None:
    """The dataset's folder; None if it ships with the package."""
    return os.path.abspath(catalogue.dataset.root) if catalogue.dataset.traits.needs_root else None
