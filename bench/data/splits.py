"""Splits: the images that one trial learns from and is tested on, as a manifest; and the draws of protocols.

A protocol is a plugin (:class:`bench.contracts.SplitProtocol`); ours are in :mod:`bench.data.protocols`. The rules
are those of PromptAD (section 4.1) with the choices it leaves open as options. Draws are seeded per trial and seen
category, never by the target, so that all targets and methods share them; the ten labelled anomalies of a seed
contain its one.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.contracts import Draw, LearnedImages, Sample, SampleIndex, SplitProtocol, SplitRequest
from bench.data.catalogue import Catalogue
from bench.data.union import UnionCatalogue
from bench.errors import BenchError, unknown
from bench.tools.hashes import hash_json
from bench.tools.registry import PROTOCOLS
from bench.tools.spec import Spec, build_config, config_dict

PAIRED_SHOTS = 10  # draws of up to ten anomalies are prefixes of one draw of ten


@dataclass(frozen=True)
class ProtocolConfig:
    """Options of protocols that learn from seen categories.

    Attributes:
        seen: learn from ``all`` other categories (section 4.1), or from a ``single`` one (section 3.1).
        types: draw the labelled anomalies of a category from ``one`` randomly chosen type (PromptAD) or
            from ``all`` its types (the general setting of DRA).
        short: the treatment of types with fewer images than are drawn: ``drop`` chooses among the others,
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


@dataclass(frozen=True)
class Manifest:
    """One split: everything a trial sees, by sample id.

    Attributes:
        protocol: name of the protocol.
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

    @functools.cached_property
    def learned_hash(self) -> str:
        """SHA-256 of what is learned: the training images of the source, by their ids."""
        draws = {category: draw.ids for category, draw in self.anomalous.items()}
        return hash_json({"source": self.source, "normal": self.normal, "anomalous": draws})

    @property
    def train(self) -> tuple[str, ...]:
        """All training ids: normals, then anomalies by category."""
        return self.normal + tuple(id_ for draw in self.anomalous.values() for id_ in draw.ids)


def load_protocol(spec: Spec) -> SplitProtocol:
    """The protocol that a user typed.

    Raises:
        BenchError: unknown protocol or option.
    """
    cls = PROTOCOLS.load(spec.name)
    protocol: SplitProtocol = cls(build_config(cls.Config, spec, "protocol"))
    return protocol


def is_zero_shot(name: str, recorded: bool | None = None) -> bool:
    """Tell if a protocol is zero-shot.

    Args:
        name: of the protocol, without options.
        recorded: the answer in a trial's record; None for records of earlier versions, which do not give it.
    """
    if recorded is not None:
        return recorded
    return name in PROTOCOLS.names() and bool(PROTOCOLS.load(name).traits.zero_shot)


def split(
    protocol: SplitProtocol,
    *,
    target: Catalogue,
    source: Catalogue,
    category: str | None,
    shots: int | None,
    seed: int | None,
    normals: bool = False,
    anomalies: bool = True,
) -> Manifest:
    """The split of one trial; without a category, of a fit that is for no target in particular.

    Args:
        protocol: with its options.
        target: the dataset tested on.
        source: the dataset learned from; the same object unless the protocol needs a source.
        category: the target category; None for nothing to test on.
        shots: labelled anomalies per seen category, or None for a method that learns from none.
        seed: seed of the draws; may be None only if nothing is drawn.
        normals: give the seen categories' normal images even so, for a method that learns from those alone.
        anomalies: whether the method learns from labelled anomalies, under a protocol without shots.

    Raises:
        BenchError: unknown category, or nothing to learn from.
    """
    if category is not None and category not in target.categories:
        raise unknown("category", category, target.categories, f"of {target.label}")
    request = SplitRequest(target, source, category or "", shots, seed or 0, anomalies)
    learned = LearnedImages((), {})
    if normals or shots is not None:
        learned = protocol.learned(request)
    support = tuple(protocol.support(request)) if category is not None else ()
    return Manifest(
        protocol=protocol.name,
        options=config_dict(protocol.config),
        source=source.label,
        target=target.label,
        category=category or "",
        shots=shots,
        seed=seed,
        normal=tuple(learned.normal),
        anomalous=dict(learned.anomalous),
        support=support,
        test=tuple(protocol.tested(request, support)) if category is not None else (),
        notes=tuple(draw.note for draw in learned.anomalous.values() if draw.note),
    )


# ---------------------------------------------------------------- draws that protocols share


def drawn_training(request: SplitRequest, seen: Sequence[str], config: ProtocolConfig) -> LearnedImages:
    """All training normals of the seen categories of the source, and labelled anomalies of each.

    Args:
        request: the trial.
        seen: categories of the source; of several, ``config.seen`` may choose a single one.
        config: how anomalies are drawn.
    """
    if config.seen == "single":
        generator = _generator(request.seed, request.category, "single")
        seen = (str(generator.choice(np.array(seen))),)
    normal = [s.id for category in seen for s in request.source.select(category, "train", anomalous=False)]
    if request.shots is None:
        return LearnedImages(tuple(normal), {})
    anomalous = {
        category: draw(request.source, category, request.shots, request.seed, config) for category in seen
    }
    return LearnedImages(tuple(normal), anomalous)


def draw(index: SampleIndex, category: str, shots: int, seed: int, config: ProtocolConfig) -> Draw:
    """The ``shots`` labelled anomalies of a seen category for one seed.

    A type is chosen uniformly among those with enough images. Where none has, the type with the most is
    taken whole (among equals a random one), and the draw says so.
    """
    by_type: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in index.select(category, "test", anomalous=True):
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


def drawn_normals(request: SplitRequest, config: ProtocolConfig) -> tuple[str, ...]:
    """``config.k`` normal images of the target category, from the part that ``config.k_source`` names.

    Raises:
        BenchError: the part has fewer.
    """
    if not config.k:
        return ()
    part = "train" if config.k_source == "train_good" else "test"
    normals = request.target.select(request.category, part, anomalous=False)
    if not normals and not request.target.select(request.category, part):
        raise BenchError(
            f"{request.category}: {config.k} normal images are asked for, but the dataset has no {part} part; "
            "only k=0 is possible here"
        )
    if len(normals) < config.k:
        raise BenchError(
            f"{request.category}: {config.k} normal images are asked for, but {part} has {len(normals)}"
        )
    order = _generator(request.seed, request.category, "support").permutation(len(normals))
    return tuple(normals[i].id for i in order[: config.k])  # K = 2 is the beginning of K = 4


def whole_test_part(request: SplitRequest, support: Iterable[str] = ()) -> tuple[str, ...]:
    """The test part of the target category without the ``support`` images."""
    given = set(support)
    return tuple(s.id for s in request.target.select(request.category, "test") if s.id not in given)


def _generator(seed: int, *names: str) -> np.random.RandomState:
    """A generator that depends on the seed and names alone; RandomState's streams never change."""
    return np.random.RandomState(zlib.crc32("/".join((str(seed), *names)).encode()))


def _take(generator: np.random.RandomState, samples: Sequence[Sample], number: int) -> list[Sample]:
    order = generator.permutation(len(samples))[: max(number, 0)]
    return [samples[i] for i in order]


# ---------------------------------------------------------------- leakage


def check_source(protocol: str, source: Catalogue, target: Catalogue, categories: Iterable[str]) -> None:
    """Refuse a source that holds images of the target categories: training would know the target.

    Args:
        protocol: its name, for the message.
        source: the dataset to learn from.
        target: the dataset to be tested on.
        categories: those that will be tested.

    Raises:
        BenchError: an image of the source, of whichever part, has the content of one of a target category; the
            message names the categories and one pair.
    """
    known = {key: id_ for id_, key in source.keys.items()}
    shared: dict[str, str] = {}
    tested = set(categories)
    for sample in target.samples.values():
        twin = known.get(target.keys[sample.id])
        if twin is not None and sample.category in tested:
            shared.setdefault(sample.category, f"{sample.id} is {twin} there")
    if shared:
        category, pair = next(iter(shared.items()))
        others = f" (and of {len(shared) - 1} more categories)" if len(shared) > 1 else ""
        raise BenchError(
            f"leakage: {protocol} would learn from images of the category that it tests on: images of {category} "
            f"in {target.label}{others} are in {source.label}, too ({pair}); learn from another dataset, or leave "
            "the category out with --categories"
        )


def check_leakage(manifest: Manifest, *, target: Catalogue, source: Catalogue) -> None:
    """Refuse a split in which training knows what it must not.

    No test image may be known to training or support images; and no other image of the target category to
    training, under a zero-shot protocol. An image is known if it is there itself, as a byte-identical copy, or
    as another part of the same photograph.

    Raises:
        BenchError: one is known; the message names a pair.
    """
    trained = [(source, id_) for id_ in manifest.train]
    given = [(target, id_) for id_ in manifest.support]
    _refuse_known("the test image", manifest.test, target, [*trained, *given])
    if PROTOCOLS.load(manifest.protocol).traits.zero_shot:
        tested = set(manifest.test)
        rest = [s.id for s in target.samples.values() if s.category == manifest.category and s.id not in tested]
        _refuse_known("the target category's image", rest, target, trained)


def photograph(catalogue: Catalogue, id_: str) -> str:
    """The name of what was photographed, whatever the dataset's options; empty where no two images share it."""
    group = catalogue.samples[id_].group
    if not group or isinstance(catalogue, UnionCatalogue):  # whose groups bear their dataset's name
        return group
    return f"{catalogue.dataset.name}/{group}"


def _refuse_known(
    word: str, ids: Iterable[str], target: Catalogue, training: Sequence[tuple[Catalogue, str]]
) -> None:
    """Raise if one of the target's images ``ids`` is known to the images of ``training``."""
    content = {catalogue.keys[id_]: id_ for catalogue, id_ in training}
    photographs = {photograph(catalogue, id_): id_ for catalogue, id_ in training}
    photographs.pop("", None)
    for id_ in ids:
        twin = content.get(target.keys[id_]) or photographs.get(photograph(target, id_))
        if twin is not None:
            what = "it is the same image" if twin == id_ else f"{twin} is a copy or a part of the same photograph"
            raise BenchError(f"leakage: {word} {id_} is known to training: {what}")
