"""Tasks: trials to be carried out, as plain values that travel to any process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.tools.devices import Precision


@dataclass(frozen=True)
class Task:
    """One trial, as plain values.

    Attributes:
        key: SHA-256 of the identity.
        identity: everything that the trial's numbers depend on: ``method`` (name, version, config), ``dataset``
            (also its fingerprint), ``protocol`` (also the source and the manifest's hash), ``category``,
            ``shots``, ``seed``, ``prompts`` (their hash) and ``encoders``. Configs are in it as
            :func:`bench.tools.spec.config_dict` gives them.
        labels: ``method``, ``dataset``, ``protocol`` and ``source`` as people write them; never read back. Of
            a dataset that is not whole also what is there of it: ``subset``, and ``source_subset``.
        root: folder of the dataset on this machine.
        source_roots: folders of the datasets learned from, where those are others.
        prompts: category -> fields of its :class:`bench.contracts.Prompts`.
        source_prompts: those of the dataset learned from, where that is another.
        weights: key (the name of an encoder or backbone) -> :class:`bench.contracts.Weights`.
        weights_by_role: role -> key of its weights.
        leak: a sentence if weights have learned from the dataset tested on; else empty.
        files: SHA-256 -> path on this machine, of options that are files.
        device: torch device, or ``auto``.
        precision: of float32 matrix products.
        hashes: file that remembers the hashes of the dataset's files.
        command: shell command for people to repeat the trial.
        inputs: JSON for the record: ``roots``, ``weights``, ``prompts`` (files as the user gave them) and
            ``options`` of the method.
        features: whether the method's features come with the scores (:class:`bench.contracts.HasFeatures`).
        fit_key: SHA-256 of what is learned, and by which method: the same for trials that one fit serves. Empty
            for a method that is not trained.
        detector: file of the fit's detector, which is to be loaded in place of training; None to train.
    """

    key: str
    identity: Mapping[str, Any]
    labels: Mapping[str, str]
    root: str
    source_roots: tuple[str, ...]
    prompts: Mapping[str, Any]
    source_prompts: Mapping[str, Any] | None
    weights: Mapping[str, Any]
    device: str
    hashes: str
    command: str
    files: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    precision: Precision = "highest"
    features: bool = False
    weights_by_role: Mapping[str, str] = field(default_factory=dict)
    leak: str = ""
    fit_key: str = ""
    detector: str | None = None

    @property
    def method(self) -> str:
        """Label of the method."""
        return self.labels["method"]

    @property
    def dataset(self) -> str:
        """Label of the dataset tested on."""
        return self.labels["dataset"]

    @property
    def source(self) -> str | None:
        """Label of the dataset learned from, where that is another."""
        return self.labels.get("source")

    @property
    def protocol(self) -> str:
        """Label of the protocol."""
        return self.labels["protocol"]

    @property
    def category(self) -> str:
        """The target category."""
        category: str = self.identity["category"]
        return category

    @property
    def shots(self) -> int | None:
        """Labelled anomalies per seen category; None for a method that learns from none."""
        shots: int | None = self.identity["shots"]
        return shots

    @property
    def seed(self) -> int | None:
        """The seed; None for a method without any."""
        seed: int | None = self.identity["seed"]
        return seed

    @property
    def title(self) -> str:
        """A short name for progress lines and messages."""
        return title(f"{self.method} · {self.category}", self.shots, self.seed)


def title(what: str, shots: int | None, seed: int | None) -> str:
    """A short name of a trial or fit."""
    parts = [what]
    if shots is not None:
        parts.append(f"{shots}-shot")
    if seed is not None:
        parts.append(f"seed {seed}")
    return " · ".join(parts)


@dataclass(frozen=True)
class Fit:
    """One fit that serves several trials, as plain values.

    Attributes:
        task: one of its trials, whose target plays no part.
    """

    task: Task

    @property
    def key(self) -> str:
        """SHA-256 of what is learned."""
        return self.task.fit_key

    @property
    def title(self) -> str:
        """A short name for progress lines and messages."""
        return f"{title(self.task.method, self.task.shots, self.task.seed)} · fit"

    @property
    def device(self) -> str:
        """Torch device, or ``auto``."""
        return self.task.device


Job = Task | Fit

Batch = tuple[Job, ...]
"""Trials, or fits, that one process carries out together; mostly it is one of them.

See :func:`bench.trial.trial.run_together` and :func:`bench.trial.fit.run_fits`.
"""
