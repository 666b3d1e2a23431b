"""From a study to its tasks: everything is looked up and checked before anything is trained.

:mod:`bench.study.lookup` finds methods and weights, :mod:`bench.study.expansion` makes the tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.contracts import Finding, SplitProtocol
from bench.data.catalogue import Catalogue, check_content, open_catalogue
from bench.data.prompts import default_prompts, load_prompts
from bench.data.splits import Manifest, load_protocol
from bench.data.union import UnionCatalogue, parts_of
from bench.errors import BenchError, printable
from bench.store.store import Store
from bench.study.expansion import Expansion
from bench.study.lookup import check_used, choose_method, find_weights
from bench.study.sources import ANY
from bench.study.study import Study
from bench.study.task import Task
from bench.tools.hashes import HashBook, hash_json
from bench.tools.registry import PROTOCOLS
from bench.tools.spec import Spec
from bench.tools.text import count


@dataclass(frozen=True)
class Plan:
    """A study, looked up: its trials, and notes for the reader before they start."""

    study: Study
    tasks: tuple[Task, ...]
    manifests: Mapping[str, Manifest]
    notes: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """SHA-256 of the trials' keys: two studies with the same hash are the same."""
        return hash_json(sorted(task.key for task in self.tasks))


def prepare(study: Study, store: Store) -> Plan:
    """Look up methods, data, weights and prompts, check the data, and expand the trials.

    Raises:
        BenchError: anything the user must mend first; for data, every faulty file at once.
    """
    hash_file = store.root / "hashes.json"
    hashes = HashBook(hash_file)
    protocols = [load_protocol(spec) for spec in study.protocols]
    methods = [[choose_method(method, dataset, study) for method in study.methods] for dataset in study.datasets]
    targets = [open_catalogue(dataset, study.roots.get(dataset.name), hashes) for dataset in study.datasets]
    sources = _sources(study, protocols, hashes)

    notes: list[str] = []
    learned = {part.label: part for source in sources.values() for part in parts_of(source)}
    for catalogue in [*targets, *learned.values()]:
        notes += _checked(catalogue, store)
    every_method = [method for own in methods for method in own]
    check_used(study, every_method)
    if study.prompts is not None:
        for catalogue in targets:
            notes += _generic_prompts(study.prompts, catalogue)
    weights = find_weights(study, every_method)

    tasks: dict[str, Task] = {}  # by key: two specs may say the same
    manifests: dict[str, Manifest] = {}
    for protocol in protocols:
        for target, own in zip(targets, methods, strict=True):
            source = sources[target.dataset.name] if protocol.traits.needs_source else None
            expansion = Expansion(study, protocol, source, weights, hashes, hash_file)
            tasks |= {task.key: task for task in expansion.tasks(target, own)}
            manifests |= expansion.manifests
    return Plan(study, tuple(tasks.values()), manifests, tuple(notes))


def prepare_fit(study: Study, store: Store) -> Task:
    """The fit of a study's one method on the dataset to learn from, for no target in particular.

    Its key is that of the fits that trials of the same study would share, if the dataset tested on names the same
    encoders as the one learned from.

    Args:
        study: with one method, one protocol, one seed and one number of shots; it names the dataset to learn from.
        store: remembers hashes and checks of the dataset.

    Raises:
        BenchError: anything the user must mend first.
    """
    assert study.source is not None
    hash_file = store.root / "hashes.json"
    hashes = HashBook(hash_file)
    protocol = load_protocol(study.protocols[0])
    specs = study.source.of(ANY)
    source = open_sources(specs, study.roots, hashes)
    for part in parts_of(source):
        _checked(part, store)
    method = choose_method(study.methods[0], specs[0], study)
    check_used(study, [method])
    weights = find_weights(study, [method])
    own_source = source if protocol.traits.needs_source else None
    return Expansion(study, protocol, own_source, weights, hashes, hash_file).fit(source, method)


def _generic_prompts(file: Path, catalogue: Catalogue) -> list[str]:
    """A note that names the categories of which neither the prompt file nor the dataset has own prompts."""
    known = {**catalogue.dataset.prompts(), **load_prompts(file, catalogue.dataset.name)}
    without = [name for name in catalogue.categories if known.get(name) in (None, default_prompts(name))]
    if not without:
        return []
    names = printable(", ".join(without))
    return [f"{catalogue.label}: {file} has no prompts for {names}: generic ones are used"]


def _sources(study: Study, protocols: Sequence[SplitProtocol], hashes: HashBook) -> dict[str, Catalogue]:
    """Name of a target dataset -> the dataset to learn from, where a protocol needs one."""
    needing = [protocol.name for protocol in protocols if protocol.traits.needs_source]
    if not needing:
        if study.source is not None:
            names = [name for name in PROTOCOLS.names() if PROTOCOLS.load(name).traits.needs_source]
            raise BenchError(f"a dataset to learn from goes with --protocol {' or '.join(names)}")
        return {}
    if study.source is None:
        raise BenchError(
            f"{needing[0]} learns from another dataset; name it: --train-dataset mvtec --train-root DIR"
        )
    opened: dict[tuple[str, ...], Catalogue] = {}
    found = {}
    for target in study.datasets:
        specs = study.source.of(target.name)
        written = tuple(map(str, specs))
        if written not in opened:
            opened[written] = open_sources(specs, study.roots, hashes)
        found[target.name] = opened[written]
    return found


def open_sources(specs: Sequence[Spec], roots: Mapping[str, Path], hashes: HashBook) -> Catalogue:
    """The dataset to learn from; of several specs their union.

    Raises:
        BenchError: one cannot be opened, or two share an image.
    """
    parts = [open_catalogue(spec, roots.get(f"train:{spec.name}"), hashes) for spec in specs]
    return parts[0] if len(parts) == 1 else UnionCatalogue(parts, hashes)


def check_data(catalogue: Catalogue) -> list[Finding]:
    """Every finding about a dataset: layout first, then each image and mask decoded."""
    return catalogue.findings() + check_content(catalogue)


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
