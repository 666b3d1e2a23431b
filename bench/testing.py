"""The conformance suite: what every method and dataset plugin must hold, ours and third parties' alike.

In a plugin's own tests::

    from bench.testing import check_dataset, check_method

    def test_method_conforms():
        check_method("mymethod[epochs=1]")

    def test_dataset_conforms(tmp_path):
        check_dataset("mydata", root)

Both raise ``AssertionError`` naming the promise that was broken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import (
    Context,
    Dataset,
    DatasetTraits,
    HasFeatures,
    HasState,
    HasWork,
    ImageSet,
    Method,
    Prompts,
    Scores,
    State,
    TrainingSet,
    Traits,
    Weights,
)
from bench.errors import BenchError
from bench.store.detectors import dump_detector, load_detector
from bench.tools.registry import DATASETS, METHODS
from bench.tools.spec import Spec, build_config, label, parse_spec

_SIDE = 64
ROUNDING = 1e-5  # of the scores' range: how far an image's score may move when it is scored in other company
_OTHER_SUMS = 1e-3  # of the range, where training itself sums otherwise: on another device, or joined with others


def check_method(
    spec: str,
    *,
    encoder: str = "pocket/clip",
    backbone: str = "pocket/resnet",
    device: str = "cpu",
    checkpoints: Mapping[str, Path] | None = None,
) -> None:
    """Run a method on a small made-up data set and check what it promises.

    On a CPU the same call must give the same bits. Another order or a part of the test images may change a score
    by rounding alone: by at most :data:`ROUNDING` times the range of all scores (maps: of all their pixels), or by
    four steps of single precision where that is more. The same holds of features. While it is fitted, no method is
    told a target. Saved and loaded, a method with :class:`bench.contracts.HasState` gives the same bits; its state
    is a copy that scoring does not change, and a state of other tensors is refused.

    Args:
        spec: the method with options that make it quick, e.g. ``devnet[epochs=1]``.
        encoder: text-image encoder for methods that have a config field of that name.
        backbone: likewise for a trainable one.
        checkpoints: role -> file of a checkpoint that the method's options name.
        device: with another one than the CPU, check that it scores there as on the CPU but for rounding; give
            options with which it draws nothing on the device (``promptad[dropout=0]``) and nothing jumps when a
            number is rounded otherwise, as the nearest pixel does (``devnet[rotation=0]``).

    Raises:
        AssertionError: a promise is broken.
    """
    parsed = parse_spec(spec)
    cls = METHODS.load(parsed.name)
    assert cls.name == parsed.name, f"{spec}: its class calls itself {cls.name!r}"
    assert isinstance(cls.version, str) and cls.version, f"{spec}: version must be a non-empty string"
    _check_config_class(cls.Config, spec)
    names = {f.name for f in dataclasses.fields(cls.Config)}
    defaults = {"encoder": encoder, "backbone": backbone}
    config = build_config(cls.Config, parsed.with_options(**{k: v for k, v in defaults.items() if k in names}))
    traits = cls.traits(config)
    assert isinstance(traits, Traits), f"{spec}: traits(config) must return bench.contracts.Traits"
    assert traits.title and traits.source, f"{spec}: title and source must be said"
    for role, kind in traits.roles.items():
        assert role in names, f"{spec}: the {kind} {role!r} needs a config field of that name"
    again = build_config(cls.Config, parse_spec(label(cls.name, config)))
    assert again == config, f"{spec}: its label does not give its config back"

    world = _World(checkpoints or {})
    first = _run(cls, config, traits, world, world.test)
    if device != "cpu":
        there = _run(cls, config, traits, world, world.test, device=device)
        assert _agree(first, there, _OTHER_SUMS), f"{spec}: it scores otherwise on {device} than on the CPU"
        return
    _check_scores(spec, traits, first, len(world.test))
    second = _run(cls, config, traits, world, world.test)
    assert _same(first, second), f"{spec}: the same seed gave different scores"
    for what, order in (("order", [4, 1, 5, 0, 2, 3]), ("number", [1, 4]), ("number", [5])):
        other = _run(cls, config, traits, world, world.test.subset(order))
        assert _agree(first, other, ROUNDING, order), f"{spec}: the {what} of the test images changed a score"
    if traits.trained and hasattr(cls, "state"):
        restored = _run(cls, config, traits, world, world.test, restored=True)
        assert _same(first, restored), f"{spec}: saved and loaded, it scores otherwise"
    if hasattr(cls, "fit_together"):
        joint = _run(cls, config, traits, world, world.test, beside=(8, 9))
        assert _agree(first, joint, _OTHER_SUMS), f"{spec}: fitted together with others it scores unlike alone"


def _check_config_class(config: type[Any], spec: str) -> None:
    assert dataclasses.is_dataclass(config), f"{spec}: Config must be a dataclass"
    assert config.__dataclass_params__.frozen, f"{spec}: Config must be frozen"  # type: ignore[attr-defined]
    config()  # every option must have a default


def _check_scores(spec: str, traits: Traits, scores: Scores, count: int) -> None:
    assert isinstance(scores, Scores), f"{spec}: score() must return bench.contracts.Scores"
    assert np.shape(scores.image) == (count,), f"{spec}: image scores of shape {np.shape(scores.image)}"
    assert np.isfinite(scores.image).all(), f"{spec}: an image score is not finite"
    assert (scores.maps is not None) == traits.maps, f"{spec}: its traits say maps={traits.maps}"
    for name, maps in {"maps": scores.maps, **scores.extra}.items():
        if maps is not None:
            assert maps.ndim == 3 and len(maps) == count, f"{spec}: {name} of shape {maps.shape}"
            assert np.isfinite(maps).all(), f"{spec}: {name} are not finite"


def _run(
    cls: Any,
    config: Any,
    traits: Traits,
    world: _World,
    test: ImageSet,
    beside: Sequence[int] = (),
    device: str = "cpu",
    restored: bool = False,
) -> Scores:
    """The scores with seed 3, fitted alone, or as one with trials of the seeds ``beside``.

    With ``restored`` it is another method that scores, which took the learned state of the fitted one from a file.
    """
    from bench.encoders import identify, load_backbone, load_network, load_text_image
    from bench.encoders.checkpoints import identify_checkpoint, load_checkpoint
    from bench.study.lookup import used_weights
    from bench.tools.devices import limit_threads, seed_everything

    limit_threads()
    seed_everything(3)
    weights: dict[str, Weights] = {}
    checkpoints: dict[str, Weights] = {}
    for role, name in used_weights(config, traits).items():
        if traits.roles[role] == "checkpoint":
            declared = getattr(cls, "checkpoints", {})
            checkpoints[role] = identify_checkpoint(role, name, declared, world.files.get(role))
        else:
            weights[name] = identify(name)
    support = world.support if traits.support else None
    contexts = [
        Context(
            device=device,
            seed=seed,
            category="",
            encoder=lambda name: load_text_image(weights[name], device),
            backbone=lambda name: load_backbone(weights[name]),
            support=support if traits.fits_on_support else None,
            network=lambda name: load_network(weights[name]),
            checkpoint=lambda role: load_checkpoint(checkpoints[role]),
            n_support=len(support or ()),
        )
        for seed in (3, *beside)
    ]
    methods: list[Method] = [cls(config) for _ in contexts]
    method, context = methods[0], contexts[0]
    if beside:
        others = [world.part(number) for number in range(len(beside))]
        cls.fit_together(methods, [world.train, *others], contexts)
    elif traits.trained:
        method.fit(world.train, context)
    if isinstance(cls, HasWork):
        assert 0 < cls.work(config, 10) < np.inf, f"{method.name}: its work is no positive number"
    if restored:
        assert isinstance(method, HasState)
        saved = dump_detector({}, method.state())
        _check_state(method, cls(config), context)
        _, state = load_detector(saved, "its state")
        method = cls(config)
        method.restore(state, context)
        _overwrite(state)  # a state serves many methods: none may work on its tensors themselves
    seed_everything(3)  # scores may not hang on where training left the generators: another process may score
    context = dataclasses.replace(context, category="target", support=support)
    scores = method.score(test, context)
    if restored:
        assert isinstance(method, HasState)
        after = dump_detector({}, method.state())
        assert after == saved, f"{cls.name}: restoring it or scoring with it changed its state"
    if isinstance(method, HasFeatures):
        _check_features(method, test, context)
    return scores


def _check_state(method: HasState, other: HasState, context: Context) -> None:
    """Check that ``method``, fitted, gives its state as a copy, and that ``other`` refuses other states."""
    import torch

    name = type(method).__name__
    state = method.state()
    content = dump_detector({}, state)
    places = [tensor.untyped_storage().data_ptr() for tensor in state.tensors.values() if tensor.numel()]
    assert len(set(places)) == len(places), f"{name}: tensors of its state share memory"
    attached = [each for each, tensor in state.tensors.items() if tensor.requires_grad]
    assert not attached, f"{name}: {attached} of its state carry gradients"
    _overwrite(state)
    again = method.state()
    assert dump_detector({}, again) == content, f"{name}: its state is not the same twice, or no copy"

    if not again.tensors:
        return
    first, *others = again.tensors
    tensor = again.tensors[first]
    refused = {
        "without one of its tensors": {each: again.tensors[each] for each in others},
        "with a tensor too many": {**again.tensors, "one too many": torch.zeros(2)},
        "with a tensor of another shape": {**again.tensors, first: torch.stack([tensor, tensor])},
    }
    for what, tensors in refused.items():
        try:
            other.restore(State(tensors, again.values), context)
        except BenchError:
            continue
        raise AssertionError(f"{name}: a state {what} must be refused with a BenchError")


def _overwrite(state: State) -> None:
    for tensor in state.tensors.values():
        tensor.zero_()


def _check_features(method: HasFeatures, test: ImageSet, context: Context) -> None:
    found = method.features(test, context)
    name = type(method).__name__
    assert found.ndim == 2 and len(found) == len(test), f"{name}: features of shape {found.shape}"
    assert np.isfinite(found).all(), f"{name}: features are not finite"
    order = list(reversed(range(len(test))))[:2]
    close = _near(found, method.features(test.subset(order), context), ROUNDING, order)
    assert close, f"{name}: the other test images changed an image's features"


def _same(one: Scores, other: Scores) -> bool:
    """True if they are equal to the last bit."""
    mine, theirs = _stacks(one), _stacks(other)
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def _agree(whole: Scores, part: Scores, share: float, order: Sequence[int] | None = None) -> bool:
    """True if ``part``, of the images ``order`` (all by default), differ from ``whole`` by rounding alone."""
    mine, theirs = _stacks(whole), _stacks(part)
    return mine.keys() == theirs.keys() and all(_near(mine[name], theirs[name], share, order) for name in mine)


def _near(
    whole: NDArray[np.float32], part: NDArray[np.float32], share: float, order: Sequence[int] | None = None
) -> bool:
    """True if no value differs by more than ``share`` of the range, or by more than four steps of float32."""
    expected = whole if order is None else whole[order]
    if part.shape != expected.shape:
        return False
    step = np.spacing(np.abs(whole).max().astype(np.float32))
    return bool(np.abs(part - expected).max() <= max(share * np.ptp(whole), 4 * step))


def _stacks(scores: Scores) -> dict[str, NDArray[np.float32]]:
    maps = {} if scores.maps is None else {"maps": scores.maps}
    return {"image": scores.image, **maps, **scores.extra}


class _World:
    """Two seen categories and a target, of striped images with bright blots as anomalies."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._masks: dict[str, NDArray[np.bool_]] = {}
        prompts = {
            name: Prompts(name, f"a flawless {name}", f"abnormality of {name} is blot", {"blot": "blot"})
            for name in ("red", "blue", "target")
        }
        labels = [0, 0, 0, 0, 1, 1]
        seen = [(c, y) for c in ("red", "blue") for y in labels]
        keys = [self._make(i, y) for i, (_, y) in enumerate(seen)]
        images = ImageSet(keys, [c for c, _ in seen], prompts, self._images.__getitem__)
        types = ["blot" if y else "good" for _, y in seen]
        self.train = TrainingSet(images, [y for _, y in seen], types, self._masks.__getitem__, 2)
        self._seen = images, [y for _, y in seen], types
        self.test = self._target(100, labels, prompts)
        self.support = self._target(200, [0, 0], prompts)

    def part(self, number: int) -> TrainingSet:
        """Another training set of the seen categories: one anomaly less, in another order."""
        images, labels, types = self._seen
        order = [i for i in reversed(range(len(images))) if i != np.flatnonzero(labels)[number]]
        return TrainingSet(
            images.subset(order),
            [labels[i] for i in order],
            [types[i] for i in order],
            self._masks.__getitem__,
            2,
        )

    def _target(self, start: int, labels: Sequence[int], prompts: Mapping[str, Prompts]) -> ImageSet:
        keys = [self._make(start + i, y) for i, y in enumerate(labels)]
        return ImageSet(keys, ["target"] * len(keys), prompts, self._images.__getitem__)

    def _make(self, number: int, anomalous: int) -> str:
        generator = np.random.default_rng(number)
        rows, columns = np.mgrid[:_SIDE, :_SIDE]
        stripes = 90 + 40 * np.sin(columns / (2 + number % 5) + number)
        image = stripes[..., None] + generator.normal(0, 8, (_SIDE, _SIDE, 3))
        mask = np.zeros((_SIDE, _SIDE), dtype=bool)
        if anomalous:
            y, x = generator.integers(12, _SIDE - 12, 2)
            mask = (rows - y) ** 2 + (columns - x) ** 2 < 60
            image[mask] += 90
        key = f"{number:064x}"
        self._images[key] = np.clip(image, 0, 255).astype(np.uint8)
        self._masks[key] = mask
        return key


def check_dataset(spec: str | Spec, root: Path | None = None) -> None:
    """Check the promises of a dataset plugin, on real files at ``root``.

    Anomalous images without a mask are refused, unless its traits say ``all_masked=False``.

    Raises:
        AssertionError: a promise is broken.
    """
    from bench.data.catalogue import open_catalogue
    from bench.study.plan import check_data

    parsed = parse_spec(spec) if isinstance(spec, str) else spec
    cls = DATASETS.load(parsed.name)
    assert cls.name == parsed.name, f"{spec}: its class calls itself {cls.name!r}"
    assert isinstance(cls.version, str) and cls.version, f"{spec}: version must be a non-empty string"
    assert isinstance(cls.traits, DatasetTraits), f"{spec}: traits must be bench.contracts.DatasetTraits"
    _check_config_class(cls.Config, str(spec))
    catalogue = open_catalogue(parsed, root)
    dataset: Dataset = catalogue.dataset
    samples = dataset.samples()
    assert samples, f"{spec}: no sample"
    ids = [sample.id for sample in samples]
    assert ids == sorted(set(ids)), f"{spec}: ids must be unique and sorted"
    for sample in samples:
        assert sample.split in ("train", "test"), f"{sample.id}: split {sample.split!r}"
        assert not sample.types or sample.anomalous, f"{sample.id}: a good image with anomaly types"
        assert sample.anomalous or not sample.masks, f"{sample.id}: a good image with a mask"
        masked = not (cls.traits.all_masked and sample.lacks_mask)
        assert masked, f"{sample.id}: an anomaly without a mask, and the traits do not say all_masked=False"
        assert str(dataset.root) not in sample.id, f"{sample.id}: an id must not hold the data root"
    prompts = dataset.prompts()
    missing = set(catalogue.categories) - set(prompts) if prompts else set()
    assert not missing, f"{spec}: prompts lack {sorted(missing)}"
    assert dataset.samples() == samples, f"{spec}: samples() must give the same answer twice"
    errors = [finding for finding in check_data(catalogue) if finding.level == "error"]
    assert not errors, f"{spec}: {errors[0].path}: {errors[0].message}"
    assert catalogue.fingerprint == open_catalogue(parsed, root).fingerprint, f"{spec}: unstable fingerprint"
