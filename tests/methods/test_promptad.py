"""PromptAD as a method: options, sampling, prompts, repeatability, and that it learns."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import typing
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from waiting import no_waiting

from bench.contracts import Context, ImageFeatures, ImageSet, Prompts, Scores, TrainingSet
from bench.errors import BenchError, NotApplicable
from bench.methods import promptad
from bench.methods.promptad import PromptAD, PromptADConfig
from bench.methods.promptad import fit as _promptad_fit
from bench.methods.promptad.fit import draw_steps
from bench.methods.promptad.text import Texts, resolve_layers, sentences
from bench.tools.spec import build_config, parse_spec

SIDE, PATCH, W, E = 32, 8, 24, 16
TINY = PromptADConfig(D=8, nhead=2, ffn=16, iters=3, n_query=2, episodes_per_step=2)


class FakeEncoder:
    """Patches through fixed random layers; sentences to fixed random vectors."""

    name, weights_hash, image_size, n_blocks, width, embed_dim = "fake/clip", "0", SIDE, 6, W, E
    model = torch.nn.Identity()

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        self._patch = torch.randn(3 * PATCH * PATCH, W, generator=g) / PATCH
        self._layers = [torch.randn(W, W, generator=g) / W**0.5 for _ in range(self.n_blocks)]
        self._joint = torch.randn(W, E, generator=g) / W**0.5

    def encode_images(
        self, images: ImageSet, *, layers: Sequence[int] = (), image_size: int | None = None
    ) -> ImageFeatures:
        side = image_size or SIDE
        pixels = torch.stack([self.preprocess(image, side) for image in images])
        cells = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).permute(0, 2, 3, 1, 4, 5)
        x = cells.reshape(len(images), -1, 3 * PATCH * PATCH) @ self._patch
        x = torch.cat([x.mean(1, keepdim=True), x], 1)
        tokens = {}
        for block, layer in enumerate(self._layers):
            x = x + torch.tanh(x @ layer)
            tokens[block] = x
        embedding = self.project(x[:, 0])
        return ImageFeatures(embedding, {i: tokens[i] for i in layers}, (side // PATCH, side // PATCH))

    def encode_text(self, sentences: Sequence[str]) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(zlib.crc32(s.encode())) for s in sentences]
        return torch.stack([torch.randn(E, generator=g) for g in generators])

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens @ self._joint

    def preprocess(self, image: NDArray[np.uint8], image_size: int | None = None) -> torch.Tensor:
        x = torch.from_numpy(image / np.float32(127.5) - 1).permute(2, 0, 1)[None]
        side = image_size or SIDE
        return torch.nn.functional.interpolate(x, size=(side, side), mode="bilinear")[0]


class World:
    """Noisy images of a colour per category; an anomaly is a bright blot."""

    def __init__(self, seen: Sequence[str] = ("red", "green", "blue"), good: int = 12, bad: int = 4) -> None:
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self.prompts = {
            c: Prompts(
                c,
                f"a flawless {c} thing",
                f"abnormality of {c} is white blot, dent",
                {"blot": "white blot", "dent": "dent"},
            )
            for c in (*seen, "target")
        }
        labels = ([0] * good + [1] * bad) * len(seen)
        images = self._set([c for c in seen for _ in range(good + bad)], labels)
        types = ["blot" if y else "good" for y in labels]
        self.train = TrainingSet(images, labels, types, self._masks.__getitem__, bad)
        self.labels = [0, 1] * 15
        self.test = self._set(["target"] * 30, self.labels)
        self.support = self._set(["target"] * 3, [0] * 3)

    def _set(self, categories: Sequence[str], labels: Sequence[int]) -> ImageSet:
        keys = []
        for category, y in zip(categories, labels, strict=True):
            rng = np.random.default_rng(len(self._images))
            tint = np.random.default_rng(zlib.crc32(category.encode())).uniform(60, 140, 3)
            image = tint + rng.normal(0, 12, (SIDE, SIDE, 3))
            mask = np.zeros((SIDE, SIDE), dtype=bool)
            if y:
                top, left = rng.integers(0, SIDE - 9, 2)
                mask[top : top + 9, left : left + 9] = True
                image[mask] += 80
            key = f"{len(self._images):064x}"
            self._images[key], self._masks[key] = np.clip(image, 0, 255).astype(np.uint8), mask
            keys.append(key)
        return ImageSet(keys, categories, self.prompts, self._images.__getitem__)

    def masks(self, images: ImageSet) -> NDArray[np.bool_]:
        return np.stack([self._masks[key] for key in images.keys])


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def context(seed: int = 0, support: ImageSet | None = None) -> Context:
    def no_backbone(name: str) -> Any:
        raise AssertionError(name)

    return Context("cpu", seed, "target", lambda name: FakeEncoder(), no_backbone, support)


def run(
    config: PromptADConfig,
    world: World,
    seed: int = 0,
    test: ImageSet | None = None,
    support: ImageSet | None = None,
) -> Scores:
    method = PromptAD(config)
    method.fit(world.train, context(seed))
    return method.score(world.test if test is None else test, context(seed, support))


# ---------------------------------------------------------------- options


def choices() -> list[dict[str, Any]]:
    """Every value of every option that has a list of them, the few-shot ones apart."""
    hints = typing.get_type_hints(PromptADConfig)
    found: list[dict[str, Any]] = []
    for field in dataclasses.fields(PromptADConfig):
        if typing.get_origin(hints[field.name]) is typing.Literal:
            found += [{field.name: v} for v in typing.get_args(hints[field.name]) if v != field.default]
    others: dict[str, list[Any]] = {
        "img_size": [48],
        "clip_layers": [(0, 2, 5), (5,)],
        "dropout": [0.0],
        "norm_first": [True],
        "share_heads": [True],
        "share_protos": [True],
        "cmi": [False],
        "cmi_detach": [False],
        "deep_weights": [(0.0, 0.0, 1.0)],
        "loss_sum": [True],
        "ensure_anomaly": [False],
        "grad_clip": [0.0],
        "gauss_sigma": [4.0],
    }
    return [{}, *found, *({name: value} for name, values in others.items() for value in values)]


def name_of(options: dict[str, Any]) -> str:
    return ",".join(f"{k}={v}" for k, v in options.items()) or "default"


@pytest.mark.parametrize("options", choices(), ids=name_of)
def test_every_option_runs(options: dict[str, Any], world: World) -> None:
    config = replace(TINY, **options)
    if config.cmi_mask == "rescaled":  # removes what scores below sigma: all of it, at the start
        config = replace(config, sigma=-2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of torch.vmap, which falls back to loops where it knows an operation not
        scores = run(config, world, test=world.test.subset(range(3)))
    side = {"img_size": 6, "gauss_sigma": SIDE}.get(next(iter(options), ""), 4)
    assert scores.image.shape == (3,)
    assert scores.image.dtype == np.float32
    assert scores.maps is not None
    assert scores.maps.shape == (3, side, side)
    assert np.isfinite(scores.maps).all()
    assert len(np.unique(scores.maps)) > 3
    assert set(scores.extra) == {"map_abnormality", "map_normality"}
    np.testing.assert_allclose(sum(scores.extra.values()), scores.maps, atol=1e-5)


ROWS = {
    "promptad[nor=off,ccl=off,cmi=off]": {"map_abnormality"},
    "promptad[abn=off,ccl=off,cmi=off]": {"map_normality"},
    "promptad[ccl=off,cmi=off]": {"map_abnormality", "map_normality"},
    "promptad[cmi=off]": {"map_abnormality", "map_normality"},
    "promptad": {"map_abnormality", "map_normality"},
}


def test_the_rows_of_table_4_are_five_different_models(world: World) -> None:
    seen = set()
    for spec, branches in ROWS.items():
        config = build_config(PromptAD.Config, parse_spec(spec))
        tiny = {
            name: getattr(TINY, name) for name in ("D", "nhead", "ffn", "iters", "n_query", "episodes_per_step")
        }
        scores = run(replace(config, **tiny), world)
        assert set(scores.extra) == branches
        seen.add(tuple(scores.image.tolist()))
    assert len(seen) == len(ROWS)


@pytest.mark.parametrize(
    "options",
    [
        "abn=off,nor=off,ccl=off,cmi=off",
        "nor=off",
        "nor=off,ccl=off",
        "abn=off,cmi=off",
        "abn=off,ccl=off,cmi=off,loss_sum=on",
        "clip_layers=3+7",
        "clip_layers=3+3+9",
        "deep_weights=1+1",
        "D=10",
        "topk=0",
        "topk=1.5",
        "dropout=1",
        "iters=0",
        "cmi_where=somewhere",
    ],
)
def test_what_makes_no_sense_is_refused(options: str) -> None:
    with pytest.raises(BenchError):
        build_config(PromptAD.Config, parse_spec(f"promptad[{options}]"))


def test_the_defaults_that_the_paper_states() -> None:
    config = PromptADConfig()
    assert (config.sigma, config.alpha, config.topk) == (0.5, 5.0, 0.1)
    assert config.cross_sim == "dot"
    assert config.cmi_mask == "sigmoid_relu"
    assert config.supervision == "image"
    assert config.sampling == "x10"
    traits = PromptAD.traits(config)
    assert traits.text
    assert traits.maps
    assert traits.zero_shot
    assert not traits.adapted
    assert PromptAD.traits(replace(config, supervision="pixel")).adapted


def test_layers_at_the_depth_of_clipseg() -> None:
    assert resolve_layers((), 12) == (9, 7, 3)
    assert resolve_layers((), 24) == (19, 15, 7)
    assert resolve_layers((), 6) == (4, 3, 1)
    assert resolve_layers((5, 8, 11), 12) == (11, 8, 5)
    for n in range(5, 40):
        assert len(set(resolve_layers((), n))) == 3
    with pytest.raises(BenchError, match="0 to 5"):
        resolve_layers((3, 7, 9), 6)


def test_listing_needs_no_torch() -> None:
    code = "import sys, bench.methods.promptad as m; m.PromptAD.traits(m.PromptADConfig())"
    code += "; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


# ---------------------------------------------------------------- sampling


def pools(good: int, bad: Sequence[int]) -> tuple[list[str], NDArray[np.int8]]:
    categories = [f"c{i}" for i, n in enumerate(bad) for _ in range(good + n)]
    return categories, np.concatenate([[0] * good + [1] * n for n in bad]).astype(np.int8)


@pytest.mark.parametrize(("sampling", "expected"), [("x10", 20 / 60), ("balanced", 1 / 2), ("2:1", 1 / 3)])
def test_how_often_anomalies_are_drawn(sampling: Any, expected: float) -> None:
    categories, labels = pools(40, [2, 2, 2])
    config = PromptADConfig(iters=3000, sampling=sampling, ensure_anomaly=False)
    steps = draw_steps(categories, labels, config, np.random.default_rng(0))
    assert steps.shape == (3000, 32)
    drawn = np.bincount(steps.ravel(), minlength=len(labels))
    assert abs(drawn[labels == 1].sum() / drawn.sum() - expected) < 0.01
    if sampling == "x10":  # each anomaly ten times as often as a normal image
        assert abs(drawn[labels == 1].mean() / drawn[labels == 0].mean() - 10) < 0.4
    episodes = np.array(categories)[steps].reshape(-1, 8)
    assert (episodes == episodes[:, :1]).all()


def test_each_step_has_an_anomaly() -> None:
    categories, labels = pools(300, [1, 0, 0])
    config = PromptADConfig(iters=300, n_query=2, episodes_per_step=2)
    steps = draw_steps(categories, labels, config, np.random.default_rng(0))
    assert labels[steps].any(1).all()
    episodes = np.array(categories)[steps].reshape(-1, 2)
    assert (episodes == episodes[:, :1]).all()
    off = draw_steps(categories, labels, replace(config, ensure_anomaly=False), np.random.default_rng(0))
    assert not labels[off].any(1).all()


def test_a_single_base_category() -> None:
    categories, labels = pools(20, [0, 3, 3])
    config = PromptADConfig(iters=20, base="single")
    steps = draw_steps(categories, labels, config, np.random.default_rng(1))
    (used,) = set(np.array(categories)[steps].ravel())
    assert used in ("c1", "c2")


def test_nothing_to_learn_from(world: World) -> None:
    images = world.train.images
    for y, kind in ((0, "good"), (1, "blot")):
        train = TrainingSet(images, [y] * len(images), [kind] * len(images), lambda key: np.ones((2, 2), bool), 1)
        with pytest.raises(NotApplicable):
            PromptAD(TINY).fit(train, context())


# ---------------------------------------------------------------- prompts

CUP = Prompts("cup", "a vessel", "abnormality of cup is chip, dirt", {"chip": "chip", "dirt": "a bit of dirt"})


def test_sentences() -> None:
    def ask(**options: Any) -> Any:
        return sentences(CUP, replace(TINY, **options))

    assert ask() == ("a vessel", {"": "abnormality of cup is chip, dirt"})
    each = {"chip": "abnormality of cup is chip", "dirt": "abnormality of cup is a bit of dirt"}
    assert ask(prompt_pool="mean_of_types") == ("a vessel", each)
    words = "scratch, tear, crack, cut, defect"
    assert ask(prompt_set="generic") == ("a vessel", {"": f"abnormality of cup is {words}"})
    assert list(ask(prompt_set="generic", prompt_pool="sample_type")[1]) == words.split(", ")
    normality, abnormality = ask(prompt_set="shared")
    assert "cup" not in normality + abnormality[""]


def test_mean_of_types_and_norm(world: World) -> None:
    encoder = FakeEncoder()
    texts = Texts(world.test, replace(TINY, prompt_pool="mean_of_types", text_norm="l2"), encoder)
    each = encoder.encode_text(["abnormality of target is white blot", "abnormality of target is dent"])
    mean = (each / each.norm(dim=-1, keepdim=True)).mean(0)
    torch.testing.assert_close(texts.abnormality[0], mean / mean.norm())
    torch.testing.assert_close(texts.normality.norm(dim=-1), torch.ones(1))


def test_sample_type_does_not_tell_the_label(world: World) -> None:
    config = replace(TINY, prompt_pool="sample_type")
    texts = Texts(world.train.images, config, FakeEncoder())
    assert texts.abnormality.shape == (3 + 3 * 2, E)
    steps = draw_steps(world.train.images.categories, world.train.labels, config, np.random.default_rng(0))
    normality, abnormality = texts.rows(world.train, steps, np.random.default_rng(0))
    blots = 3 + 2 * normality  # the only labelled type, first of two
    np.testing.assert_array_equal(abnormality, blots)


def test_a_category_without_prompts(world: World) -> None:
    images = ImageSet(
        world.test.keys, ["unheard of"] * 30, world.prompts, lambda key: np.zeros((8, 8, 3), np.uint8)
    )
    with pytest.raises(NotApplicable, match="unheard of"):
        Texts(images, TINY, FakeEncoder())


# ---------------------------------------------------------------- repeatability


def same(one: Scores, other: Scores) -> bool:
    pairs = [(one.image, other.image), (one.maps, other.maps)]
    pairs += [(one.extra[name], other.extra[name]) for name in one.extra]
    return all(np.array_equal(a, b) for a, b in pairs)


def close(one: Scores, other: Scores, order: Sequence[int]) -> None:
    pairs = [(one.image, other.image), (one.maps, other.maps)]
    pairs += [(one.extra[name], other.extra[name]) for name in one.extra]
    for a, b in pairs:
        assert a is not None
        np.testing.assert_allclose(a[list(order)], b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("supervision", "ref_scores"), [("image", "constants"), ("both", "sampled")])
def test_no_training_step_asks_the_device_for_a_number(
    resident: bool, supervision: Any, ref_scores: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    adamw = torch.optim.AdamW  # which is not fused for meta tensors
    monkeypatch.setattr(_promptad_fit.optim, "AdamW", lambda of, fused, **options: adamw(of, **options))
    if not resident:
        monkeypatch.setattr(_promptad_fit, "resident", lambda tensor, device: tensor)
    config = replace(TINY, supervision=supervision, loss_sum=True, ref_scores=ref_scores)
    contexts = [replace(context(seed), device="meta", track=no_waiting) for seed in range(2)]
    decoders = _promptad_fit.fit(config, [world.train] * 2, contexts)
    assert {p.device.type for decoder in decoders for p in decoder.parameters()} == {"meta"}


def test_the_same_seed_gives_the_same_bits_whatever_else_draws(world: World) -> None:
    torch.manual_seed(1)
    first = run(TINY, world)
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002 - that is the point
    assert same(first, run(TINY, world))
    assert not same(first, run(TINY, world, seed=1))


def test_features_are_the_tokens_that_the_branches_score(world: World) -> None:
    """A linear head over averaged tokens is the average of its scores over the patches."""
    method = PromptAD(replace(TINY, ccl=False))
    method.fit(world.train, context())
    scores = method.score(world.test, context())
    features = method.features(world.test, context())
    assert features.shape == (len(world.test), 2 * TINY.D)
    assert method._decoder is not None
    for view, (name, sign) in enumerate((("map_abnormality", 1), ("map_normality", -1))):
        head: Any = method._decoder.branches[view].head[-1]  # type: ignore[union-attr, index]
        means = features.reshape(-1, 2, TINY.D)[:, view] @ head.weight[0].numpy() + head.bias[0].numpy()
        np.testing.assert_allclose(sign * means, scores.extra[name].mean((1, 2)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("few_shot_proto", ["none", "cls", "patches"])
def test_the_same_call_gives_the_same_bits_and_other_batches_the_same_but_for_rounding(
    few_shot_proto: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = few_shot_proto != "none"
    method = PromptAD(replace(TINY, few_shot_proto=few_shot_proto) if few else TINY)
    method.fit(world.train, context())

    def score(images: ImageSet) -> Scores:
        return method.score(images, context(support=world.support if few else None))

    every = score(world.test)
    assert same(every, score(world.test))
    for order in ([3], [7, 1, 4], list(range(29, -1, -1))):
        close(every, score(world.test.subset(order)), order)
    everyone = list(range(30))
    features = method.features(world.test, context())
    for size in (1, 7, 30):
        monkeypatch.setattr(promptad, "BATCH", size)
        close(every, score(world.test), everyone)
        np.testing.assert_allclose(method.features(world.test, context()), features, rtol=1e-5, atol=1e-5)


def test_images_are_scored_in_batches_with_their_own_categories_prompts(world: World) -> None:
    """A mixed batch gives each image the score that it has among images of its own category."""
    method = PromptAD(TINY)
    method.fit(world.train, context())
    images = world.train.images
    mixed = list(range(0, len(images), 5))
    together = method.score(images.subset(mixed), context())
    assert len({images.categories[i] for i in mixed}) == 3
    for category in set(images.categories):
        own = [i for i in mixed if images.categories[i] == category]
        places = [mixed.index(i) for i in own]
        close(together, method.score(images.subset(own), context()), places)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("supervision", ["image", "pixel"])
def test_it_learns_what_can_be_seen(world: World, supervision: Any) -> None:
    config = replace(TINY, D=16, ffn=32, n_query=4, episodes_per_step=4, iters=150, supervision=supervision)
    scores = run(config, world)
    assert scores.maps is not None
    assert roc_auc_score(world.labels, scores.image) >= 0.95
    if supervision == "pixel":
        covered = world.masks(world.test).reshape(30, 4, 8, 4, 8).mean((2, 4))
        clear = (covered == 0) | (covered > 0.3)
        assert roc_auc_score(covered[clear] > 0, scores.maps[clear]) >= 0.95


# ---------------------------------------------------------------- few shots


@pytest.mark.parametrize("proto", ["cls", "nearest", "patches"])
@pytest.mark.parametrize("film", ["text", "visual"])
@pytest.mark.parametrize("norm", ["raw", "l2"])
def test_support_images_take_the_normality_prompts_place(world: World, proto: Any, film: Any, norm: Any) -> None:
    config = replace(TINY, few_shot_proto=proto, few_shot_film=film, cmi=False, text_norm=norm)
    method = PromptAD(config)
    method.fit(world.train, context())
    zero, few = method.score(world.test, context()), method.score(world.test, context(support=world.support))
    assert not np.array_equal(zero.extra["map_abnormality"], few.extra["map_abnormality"])
    unmoved = np.allclose(zero.extra["map_normality"], few.extra["map_normality"], atol=1e-5)
    assert unmoved is (film == "text")
    turned = method.score(world.test, context(support=world.support.subset([2, 0, 1])))
    np.testing.assert_allclose(few.image, turned.image, rtol=1e-5, atol=1e-5)
    alike = method.score(world.test, context(support=world.support.subset([0])))
    if proto == "nearest":  # one of several is at least as near as the only one: abnormality can but fall
        assert (few.extra["map_abnormality"] <= alike.extra["map_abnormality"] + 1e-5).all()


def test_support_without_use_is_noted(world: World) -> None:
    method = PromptAD(replace(TINY, ccl=False))
    method.fit(world.train, context())
    used = context(support=world.support)
    method.score(world.test, used)
    assert any("ccl" in note for note in used.notes)
