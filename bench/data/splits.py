"""Protocols: which images a trial learns from and which it is tested on, as a manifest.

The rules are those of PromptAD (section 4.1) with the choices it leaves open as options:

* leave one category out (``loo``): learn from every other category of the same dataset;
* transfer (``transfer``): learn from all categories of another dataset;
* one class (``oneclass``): the ordinary unsupervised setting, with which the field began and which is not
  zero-shot: all training normals of the target category are support images, and there is nothing else.

Draws are seeded per trial and seen category, never by the target, so that all targets and methods share
them; the ten labelled anomalies of a seed contain its one.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.contracts import Sample
from bench.data.catalogue import Catalogue
from bench.errors import BenchError, unknown
from bench.tools.hashes import hash_json

PAIRED_SHOTS = 10  # draws of up to ten anomalies are prefixes of one draw of ten


@dataclass(frozen=True)
class ProtocolConfig:
    """Options of a protocol.

    Attributes:
        seen: learn from ``all`` other categories (section 4.1), or from a ``single`` one (section 3.1).
        types: draw the labelled anomalies of a category from ``one`` randomly chosen type (PromptAD) or
            from ``all`` its types (the general setting of DRA).
        short: what happens to types with fewer images than are drawn: ``drop`` chooses among the others,
            ``pad`` takes all of the type and fills up from other types.
        k: normal images of the target category given for few-shot methods; 0 is zero-shot.
        k_source: take them from the target's training part (RegAD, test set whole) or from its test part,
            from which they are then removed (the words of PromptAD section 4.2).
    """

    seen: Literal["all", "single"] = "all"
    types: Literal["one", "all"] = "one"
    short: Literal["drop", "pad"] = "drop"
    k: int = 0
    k_source: Literal["train_good", "test_good"] = "train_good"

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError("k must not be negative")


PROTOCOLS = ("loo", "transfer", "oneclass")


@dataclass(frozen=True)
class Draw:
    """The labelled anomalies of one seen category: their types, ids, and a note if they fall short."""

    types: tuple[str, ...]
    ids: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Manifest:
    """One split: everything a trial sees, by sample id.

    Attributes:
        protocol: its name, one of :data:`PROTOCOLS`.
        options: the protocol's options.
        source: dataset learned from; ``target``: dataset tested on.
        category: the target category.
        shots: labelled anomalies per seen category; None for methods that do not learn from any.
        seed: seed of the draws; None where nothing is drawn.
        normal: training normals of the seen categories.
        anomalous: seen category -> its drawn anomalies.
        support: normal images of the target category (few-shot and one-class protocols).
        test: the images to score.
        notes: departures from the rules that the data forced.
    """

    protocol: str
    options: dict[str, Any]
    source: str
    target: str
    category: str
    shots: int | None
    seed: int | None
    normal: tuple[str, ...]
    anomalous: dict[str, Draw]
    support: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        # `dataclasses.asdict` would copy each of the thousands of ids, which takes longer than the split itself.
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return fields | {"anomalous": {name: dataclasses.asdict(draw) for name, draw in self.anomalous.items()}}

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON."""
        return hash_json(self.as_dict())

    @property
    def train(self) -> tuple[str, ...]:
        """All training ids: normals, then anomalies by category."""
        return self.normal + tuple(id_ for draw in self.anomalous.values() for id_ in draw.ids)


def split(
    protocol: str,
    config: ProtocolConfig,
    *,
    target: Catalogue,
    source: Catalogue,
    category: str,
    shots: int | None,
    seed: int | None,
    normals: bool = False,
) -> Manifest:
    """The split of one trial.

    Args:
        protocol: one of :data:`PROTOCOLS`.
        config: its options.
        target: the dataset tested on.
        source: the dataset learned from; the same object but for ``transfer``.
        category: the target category.
        shots: labelled anomalies per seen category, or None for a method that learns from none.
        seed: seed of the draws; may be None only if nothing is drawn.
        normals: give the seen categories' normal images even so, for a method that learns from those alone.

    Raises:
        BenchError: unknown protocol or category, options that the protocol does not have, or nothing to learn
            from.
    """
    if protocol not in PROTOCOLS:
        raise unknown("protocol", protocol, PROTOCOLS)
    if category not in target.categories:
        raise unknown("category", category, target.categories, f"of {target.label}")
    if protocol == "oneclass" and config != ProtocolConfig():
        raise BenchError("oneclass has no options: it gives every training normal of the target and nothing else")
    notes: list[str] = []
    learned = normals or shots is not None
    seen = _seen(protocol, config, target, source, category, seed) if learned else ()
    normal = [s.id for c in seen for s in source.select(c, "train", anomalous=False)]
    draws = {} if shots is None else {c: draw(source, c, shots, seed or 0, config) for c in seen}
    notes += [d.note for d in draws.values() if d.note]
    test = [s.id for s in target.select(category, "test")]
    support = _support(protocol, config, target, category, seed or 0)
    if config.k_source == "test_good":
        test = [id_ for id_ in test if id_ not in support]
    return Manifest(
        protocol,
        dataclasses.asdict(config),
        source.label,
        target.label,
        category,
        shots,
        seed,
        tuple(normal),
        draws,
        support,
        tuple(test),
        tuple(notes),
    )


def _seen(
    protocol: str,
    config: ProtocolConfig,
    target: Catalogue,
    source: Catalogue,
    category: str,
    seed: int | None,
) -> tuple[str, ...]:
    if protocol == "oneclass":
        return ()
    seen = tuple(c for c in source.categories if protocol == "transfer" or c != category)
    if not seen:
        raise BenchError(
            f"{target.label} has no category but {category!r}, so there is nothing to learn from; "
            "leave-one-category-out needs two or more"
        )
    if config.seen == "single":
        return (str(_generator(seed or 0, category, "single").choice(np.array(seen))),)
    return seen


def _generator(seed: int, *names: str) -> np.random.RandomState:
    """A generator that depends on the seed and names alone; RandomState's streams never change."""
    return np.random.RandomState(zlib.crc32("/".join((str(seed), *names)).encode()))


def draw(catalogue: Catalogue, category: str, shots: int, seed: int, config: ProtocolConfig) -> Draw:
    """The ``shots`` labelled anomalies of a seen category for one seed.

    A type is chosen uniformly among those with enough images. Where none has, the type with the most is
    taken whole (among equals a random one), and the draw says so.
    """
    by_type: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in catalogue.select(category, "test", anomalous=True):
        by_type[sample.type].append(sample)
    if not by_type:
        return Draw((), (), f"{category}: no anomalous image, so none is labelled")
    wanted = max(PAIRED_SHOTS, shots)
    generator = _generator(seed, category)
    if config.types == "all":
        pool = [sample for name in sorted(by_type) for sample in by_type[name]]
        chosen = _take(generator, pool, wanted)
    elif config.short == "pad":
        first = by_type[sorted(by_type)[generator.randint(len(by_type))]]
        rest = [sample for name in sorted(by_type) for sample in by_type[name] if sample.type != first[0].type]
        chosen = _take(generator, first, wanted)
        chosen += _take(generator, rest, wanted - len(chosen))
    else:
        largest = max(len(samples) for samples in by_type.values())
        enough = sorted(name for name, samples in by_type.items() if len(samples) >= min(wanted, largest))
        chosen = _take(generator, by_type[enough[generator.randint(len(enough))]], wanted)
    chosen = chosen[:shots]
    note = ""
    if len(chosen) < shots:
        note = f"{category}: {len(chosen)} labelled anomalies instead of {shots}, which is all that a type has"
        if config.types == "all" or config.short == "pad":
            note = f"{category}: {len(chosen)} labelled anomalies instead of {shots}, which is all there are"
    return Draw(tuple(sorted({s.type for s in chosen})), tuple(s.id for s in chosen), note)


def _take(generator: np.random.RandomState, samples: Sequence[Sample], number: int) -> list[Sample]:
    order = generator.permutation(len(samples))[: max(number, 0)]
    return [samples[i] for i in order]


def _support(
    protocol: str, config: ProtocolConfig, target: Catalogue, category: str, seed: int
) -> tuple[str, ...]:
    if protocol == "oneclass":
        return tuple(s.id for s in target.select(category, "train", anomalous=False))
    if not config.k:
        return ()
    part = "train" if config.k_source == "train_good" else "test"
    normals = target.select(category, part, anomalous=False)
    if len(normals) < config.k:
        raise BenchError(f"{category}: {config.k} normal images are asked for, but {part} has {len(normals)}")
    order = _generator(seed, category, "support").permutation(len(normals))
    return tuple(normals[i].id for i in order[: config.k])  # K = 2 is the beginning of K = 4


def check_leakage(manifest: Manifest, *, target: Catalogue, source: Catalogue) -> None:
    """Refuse a split in which training knows a test image.

    Raises:
        BenchError: a test image itself, a tile of the same photograph, or a byte-identical copy stands among
            the training or support images; the message names one pair.
    """
    training = [(source, id_) for id_ in manifest.train] + [(target, id_) for id_ in manifest.support]
    content = {catalogue.keys[id_]: id_ for catalogue, id_ in training}
    group = {
        (catalogue.label, catalogue.samples[id_].group): id_
        for catalogue, id_ in training
        if catalogue.samples[id_].group
    }
    for id_ in manifest.test:
        twin = content.get(target.keys[id_]) or group.get((target.label, target.samples[id_].group))
        if twin is not None:
            what = "it is the same image" if twin == id_ else f"{twin} is a copy or a part of the same photograph"
            raise BenchError(f"leakage: the test image {id_} is known to training: {what}")
