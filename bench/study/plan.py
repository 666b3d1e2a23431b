"""From a study to its trials: look everything up and check it, before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bench.contracts import Finding, Method, Prompts, Traits, Weights
from bench.data.catalogue import Catalogue, check_content, open_catalogue
from bench.data.prompts import default_prompts, load_prompts, prompt_hash, read_prompt_file
from bench.data.splits import PROTOCOLS, Manifest, ProtocolConfig, split
from bench.errors import BenchError, printable, unknown
from bench.store.store import Store
from bench.study.study import Study, Task
from bench.tools.hashes import HashBook, hash_json
from bench.tools.registry import DATASETS, METHODS
from bench.tools.spec import Spec, build_config, config_dict, label, parse_spec
from bench.tools.text import count

ENCODER_FIELDS = {"encoder": "text", "backbone": "backbone"}  # config field -> the trait that needs it


@dataclass(frozen=True)
class Plan:
    """A study, looked up: its trials, and what a reader should know before they start."""

    study: Study
    tasks: tuple[Task, ...]
    manifests: Mapping[str, Manifest]
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of the trials' keys: two studies with the same hash are the same."""
        return hash_json(sorted(task.key for task in self.tasks))


@dataclass(frozen=True)
class _Entry:
    """A method of a study on one dataset, with its encoders settled."""

    cls: type[Method]
    config: Any
    traits: Traits
    encoders: Mapping[str, str]

    @functools.cached_property
    def label(self) -> str:
        return label(self.cls.name, self.config)

    @property
    def once(self) -> bool:
        """Nothing is learned and nothing drawn: one trial per category stands for all shots and seeds."""
        return not (self.traits.trained or self.traits.seeded)


def check_data(catalogue: Catalogue) -> list[Finding]:
    """Every finding about a dataset: layout first, then each image and mask decoded."""
    return catalogue.findings() + check_content(catalogue)


def prepare(study: Study, store: Store) -> Plan:
    """Look up methods, data, weights and prompts, check the data, and expand the trials.

    Raises:
        BenchError: anything the user must mend first; for data, every faulty file at once.
    """
    hashes = HashBook(store.root / "hashes.json")
    for protocol in study.protocols:
        if protocol.name not in PROTOCOLS:
            raise unknown("protocol", protocol.name, PROTOCOLS)
    configs = [build_config(ProtocolConfig, protocol, "protocol") for protocol in study.protocols]
    entries = {str(spec): [_entry(method, spec, study) for method in study.methods] for spec in study.datasets}
    catalogues = [open_catalogue(spec, study.roots.get(spec.name), hashes) for spec in study.datasets]
    source = _source(study, hashes)
    notes: list[str] = []
    for catalogue in [*catalogues, *([source] if source else [])]:
        notes += _checked(catalogue, store)
    every_entry = list(itertools.chain.from_iterable(entries.values()))
    _check_used(study, every_entry)
    if study.prompts is not None:
        for catalogue in catalogues:
            notes += _generic_prompts(study.prompts, catalogue)
    weights = _weights(study, sorted({name for e in every_entry for name in e.encoders.values()}))
    tasks: list[Task] = []
    manifests: dict[str, Manifest] = {}
    for protocol, config in zip(study.protocols, configs, strict=True):
        elsewhere = source if protocol.name == "transfer" else None
        part = dataclasses.replace(study, protocols=(protocol,), source=study.source if elsewhere else None)
        expansion = _Expansion(part, config, weights, str(store.root / "hashes.json"))
        for spec, catalogue in zip(study.datasets, catalogues, strict=True):
            tasks += expansion.tasks(catalogue, elsewhere or catalogue, entries[str(spec)])
        manifests |= expansion.manifests
    unique = tuple({task.key: task for task in tasks}.values())
    return Plan(study, unique, manifests, tuple(notes))


def _entry(spec: Spec, dataset: Spec, study: Study) -> _Entry:
    cls = METHODS.load(spec.name)
    data_traits = DATASETS.load(dataset.name).traits
    fields = {f.name for f in dataclasses.fields(cls.Config)}
    for name in ENCODER_FIELDS:
        chosen = getattr(study, name) or getattr(data_traits, name)
        if chosen and name in fields:
            spec = spec.with_options(**{name: chosen})
    config = build_config(cls.Config, spec)
    traits = cls.traits(config)
    used = {name: getattr(config, name) for name, trait in ENCODER_FIELDS.items() if getattr(traits, trait)}
    return _Entry(cls, config, traits, used)


def _check_used(study: Study, entries: list[_Entry]) -> None:
    """Refuse what was chosen for all methods if none of them uses it."""
    for name in ENCODER_FIELDS:
        chosen = getattr(study, name)
        if chosen and not any(entry.encoders.get(name) == chosen for entry in entries):
            raise BenchError(f"none of the methods uses the {name} {chosen}; leave --{name} out")
    if study.prompts is not None and not any(entry.traits.text for entry in entries):
        raise BenchError(f"none of the methods uses prompts; leave --prompts {study.prompts} out")


def _generic_prompts(file: Path, catalogue: Catalogue) -> list[str]:
    """A note that names the categories of which neither the prompt file nor the dataset has own prompts."""
    known = {**catalogue.dataset.prompts(), **load_prompts(file, catalogue.dataset.name)}
    without = [name for name in catalogue.categories if known.get(name) in (None, default_prompts(name))]
    if not without:
        return []
    names = printable(", ".join(without))
    return [f"{catalogue.label}: {file} has no prompts for {names}: generic ones are used"]


def _source(study: Study, hashes: HashBook) -> Catalogue | None:
    if all(protocol.name != "transfer" for protocol in study.protocols):
        if study.source is not None:
            raise BenchError("a dataset to learn from goes with --protocol transfer")
        return None
    if study.source is None:
        raise BenchError("transfer learns from another dataset; name it: --train-dataset mvtec --train-root DIR")
    return open_catalogue(study.source, study.roots.get(f"train:{study.source.name}"), hashes)


def _checked(catalogue: Catalogue, store: Store) -> list[str]:
    """Check a dataset, once per content; raise on errors, return notes."""
    findings = catalogue.findings()
    faulty = any(finding.level == "error" for finding in findings)
    if faulty or not store.has("checks", catalogue.fingerprint):
        findings += check_content(catalogue)
    errors = [finding for finding in findings if finding.level == "error"]
    if not errors:
        store.write_once("checks", catalogue.fingerprint, {"images": len(catalogue.samples)})
    else:
        lines = "\n".join(f"  {finding.path}: {finding.message}" for finding in errors)
        raise BenchError(f"{catalogue.label} has {count(len(errors), 'faulty file')}; nothing was run:\n{lines}")
    return [f"{catalogue.label}: {finding.path}: {finding.message}" for finding in findings]


def _weights(study: Study, names: list[str]) -> dict[str, Weights]:
    from bench.encoders import identify

    files = dict(study.weights)
    only = files.pop("", None)
    if only is not None:
        loadable = [name for name in names if not name.startswith("pocket/")]
        if len(loadable) != 1:
            using = ", ".join(loadable) or "none that loads weights"
            raise BenchError(f"--weights {only}: say for which encoder, --weights NAME={only} (in use: {using})")
        files[loadable[0]] = only
    found, used = {}, set()
    for name in names:
        given = next((key for key in (name, parse_spec(name).name) if key in files), None)
        file = files[given] if given is not None else None
        used.add(given)
        if file is not None and not file.is_file():
            raise BenchError(f"weights of {name}: there is no file {file}")
        found[name] = identify(name, file)
    for key in files:
        if key not in used:  # one file may serve several variants of an encoder
            raise unknown("encoder", key, names, "given to --weights")
    return found


class _Text(NamedTuple):
    """The prompts of a task, as plain values, and their hash.

    Attributes:
        hash: None for a method that reads none.
        own: of the target's categories.
        learned: of those of another dataset, if that is learned from.
    """

    hash: str | None
    own: dict[str, Any]
    learned: dict[str, Any] | None = None


def _plain(prompts: Mapping[str, Prompts]) -> dict[str, Any]:
    return {category: dataclasses.asdict(each) for category, each in prompts.items()}


class _Expansion:
    """Expands methods × categories × shots × seeds of one study into tasks."""

    def __init__(
        self, study: Study, protocol: ProtocolConfig, weights: Mapping[str, Weights], hashes: str
    ) -> None:
        self.study = study
        self.protocol = protocol
        self.weights = weights
        self.hashes = hashes
        self.manifests: dict[str, Manifest] = {}
        self._splits: dict[tuple[Any, ...], Manifest] = {}  # methods share them, and there are many methods

    def tasks(self, target: Catalogue, source: Catalogue, entries: list[_Entry]) -> Iterator[Task]:
        text = self._text(target, source)
        for entry, category in itertools.product(entries, self._categories(target)):
            for shots, seed in self._repetitions(entry):
                yield self._task(target, source, entry, category, shots, seed, text)

    def _categories(self, target: Catalogue) -> Iterable[str]:
        for category in self.study.categories:
            if category not in target.categories:
                raise unknown("category", category, target.categories, f"of {target.label}")
        return self.study.categories or target.categories

    def _repetitions(self, entry: _Entry) -> Iterable[tuple[int | None, int | None]]:
        if entry.once:
            return [(None, None)]
        if not (entry.traits.trained and entry.traits.anomalies):
            return [(None, seed) for seed in self.study.seeds]
        return itertools.product(self.study.shots, self.study.seeds)

    def _text(self, target: Catalogue, source: Catalogue) -> _Text:
        own = self._prompts(target, is_target=True)
        if self.study.protocol.name != "transfer":
            return _Text(prompt_hash(own), _plain(own))
        learned = self._prompts(source, is_target=False)
        return _Text(hash_json([prompt_hash(own), prompt_hash(learned)]), _plain(own), _plain(learned))

    def _prompts(self, catalogue: Catalogue, *, is_target: bool) -> dict[str, Prompts]:
        """The prompts of a dataset's categories; the one learned from may keep its own."""
        known = dict(catalogue.dataset.prompts())
        name = catalogue.dataset.name
        if self.study.prompts is not None and (is_target or name in read_prompt_file(self.study.prompts)):
            given = load_prompts(self.study.prompts, name)
            for category in given:
                if category not in {*known, *catalogue.categories}:
                    raise unknown("category", category, catalogue.categories, f"in {self.study.prompts}")
            known.update(given)
        return {category: known.get(category) or default_prompts(category) for category in catalogue.categories}

    def _task(
        self,
        target: Catalogue,
        source: Catalogue,
        entry: _Entry,
        category: str,
        shots: int | None,
        seed: int | None,
        text: _Text,
    ) -> Task:
        manifest = self._manifest(target, source, entry, category, shots, seed)
        transfer = self.study.protocol.name == "transfer"
        if not entry.traits.text:
            text = _Text(None, {}, {} if transfer else None)
        identity = {
            "method": {
                "name": entry.cls.name,
                "version": entry.cls.version,
                "config": config_dict(entry.config),
            },
            "dataset": _identity(target),
            "protocol": {
                "name": self.study.protocol.name,
                "config": dataclasses.asdict(self.protocol),
                "source": _identity(source) if transfer else None,
                "manifest": manifest.hash,
            },
            "category": category,
            "shots": shots,
            "seed": seed,
            "prompts": text.hash,
            "encoders": {
                name: {"name": encoder, "sha256": self.weights[encoder].sha256}
                for name, encoder in entry.encoders.items()
            },
        }
        return Task(
            key=hash_json(identity),
            identity=identity,
            method=entry.label,
            dataset=target.label,
            root=str(target.dataset.root),
            source=source.label if transfer else None,
            source_root=str(source.dataset.root) if transfer else None,
            protocol=label(self.study.protocol.name, self.protocol),
            category=category,
            shots=shots,
            seed=seed,
            prompts=text.own,
            weights={name: self.weights[name] for name in entry.encoders.values()},
            device=self.study.device,
            precision=self.study.precision,
            hashes=self.hashes,
            command=self._command(target, entry, category, shots, seed),
            source_prompts=text.learned,
        )

    def _manifest(
        self,
        target: Catalogue,
        source: Catalogue,
        entry: _Entry,
        category: str,
        shots: int | None,
        seed: int | None,
    ) -> Manifest:
        place = target.label, category, shots, seed, entry.traits.trained
        if place not in self._splits:
            manifest = split(
                self.study.protocol.name,
                self.protocol,
                target=target,
                source=source,
                category=category,
                shots=shots,
                seed=seed,
                normals=entry.traits.trained,
            )
            self._splits[place] = self.manifests.setdefault(manifest.hash, manifest)
        return self._splits[place]

    def _command(
        self, target: Catalogue, entry: _Entry, category: str, shots: int | None, seed: int | None
    ) -> str:
        """What to type to run this trial again."""
        words = ["bench", "run", "--methods", entry.label, "--dataset", target.label]
        if target.dataset.traits.needs_root:
            words += ["--data-root", str(target.dataset.root)]
        if self.study.source is not None:
            words += ["--train-dataset", str(self.study.source)]
            words += ["--train-root", str(self.study.roots.get(f"train:{self.study.source.name}", "DIR"))]
        protocol = label(self.study.protocol.name, self.protocol)
        words += ["--protocol", protocol] if protocol != "loo" else []
        words += ["--categories", category]
        words += ["--shots", str(shots)] if shots is not None else []
        words += ["--seed", str(seed)] if seed is not None else []
        words += ["--prompts", str(self.study.prompts)] if self.study.prompts else []
        for name in entry.encoders.values():
            if self.weights[name].file is not None and not name.startswith("pocket/"):
                words += ["--weights", f"{name}={self.weights[name].file}"]
        return shlex.join(words)


def _identity(catalogue: Catalogue) -> dict[str, Any]:
    dataset = catalogue.dataset
    return {
        "name": dataset.name,
        "version": dataset.version,
        "config": config_dict(dataset.config),
        "fingerprint": catalogue.fingerprint,
    }
