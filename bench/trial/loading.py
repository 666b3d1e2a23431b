"""Data, prompts and encoders of a task; datasets and frozen encoders stay loaded in the process between trials."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts import Backbone, Network, Prompts, SplitProtocol, TextImageEncoder, Weights
from bench.data.catalogue import Catalogue, open_as_recorded
from bench.data.union import UnionCatalogue
from bench.study.task import Task
from bench.tools.hashes import HashBook, canonical_json
from bench.tools.registry import PROTOCOLS
from bench.tools.spec import config_from_dict
from bench.tools.stopwatch import timed

if TYPE_CHECKING:
    import torch


def load_target(task: Task) -> Catalogue:
    """The dataset that a task is tested on.

    Raises:
        BenchError: its folder is not there, or its files are not those that were planned with.
    """
    return _catalogue(canonical_json(task.identity["dataset"]), task.root, task.hashes, _files(task))


def load_source(task: Task) -> Catalogue:
    """The dataset that a task learns from, which may be the one that it is tested on; see :func:`load_target`."""
    source = task.identity["protocol"]["source"]
    if source is None:
        return load_target(task)
    parts = planned_parts(source)
    opened = []
    for part, root in zip(parts, task.source_roots, strict=True):
        opened.append(_catalogue(canonical_json(part), root, task.hashes, _files(task)))
    return opened[0] if len(parts) == 1 else _union(tuple(opened), task.hashes)


def planned_parts(source: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The identities of the datasets learned from, most often one."""
    parts: list[Mapping[str, Any]] | None = source["config"].get("parts")
    return [source] if parts is None else parts


@functools.lru_cache(maxsize=2)
def _union(parts: tuple[Catalogue, ...], hashes: str) -> Catalogue:
    return UnionCatalogue(parts, HashBook(Path(hashes)))


def load_protocol(task: Task) -> SplitProtocol:
    """The protocol of a task, built."""
    planned = task.identity["protocol"]
    cls = PROTOCOLS.load(planned["name"])
    protocol: SplitProtocol = cls(config_from_dict(cls.Config, planned["config"], task.files))
    return protocol


def load_prompts(fields: Mapping[str, Any]) -> dict[str, Prompts]:
    """Category -> its prompts, from their fields."""
    return {category: Prompts(**each) for category, each in fields.items()}


def _files(task: Task) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(task.files.items()))


@functools.lru_cache(maxsize=4)
def _catalogue(planned: str, root: str, hashes: str, files: tuple[tuple[str, str], ...]) -> Catalogue:
    """A dataset as it was planned with: JSON of its name, config and fingerprint, and its folder here."""
    identity = json.loads(planned)
    name, config, fingerprint = identity["name"], identity["config"], identity["fingerprint"]
    return open_as_recorded(name, config, Path(root), fingerprint, HashBook(Path(hashes)), dict(files))


@functools.lru_cache(maxsize=2)
@timed("encode")
def load_text_image(weights: Weights, device: str) -> TextImageEncoder:
    """The frozen text-image encoder of these weights, shared by the trials of this process."""
    from bench.encoders import load_text_image as load

    return load(weights, device)


def load_backbone(weights: Weights) -> Backbone:
    """A fresh backbone with these weights."""
    from bench.encoders import load_backbone as load

    return load(weights)


def load_checkpoint(weights: Weights) -> Mapping[str, torch.Tensor]:
    """The tensors of a checkpoint, on the CPU."""
    from bench.encoders.checkpoints import load_checkpoint as load

    return load(weights)


def load_network(weights: Weights) -> Network:
    """The network of these weights, to be built by a library."""
    from bench.encoders import load_network as load

    return load(weights)
