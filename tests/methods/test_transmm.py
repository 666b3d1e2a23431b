"""Trans-MM: gradients against finite differences of a NumPy model, and explicit against fused attention."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from agreement import assert_agree
from numpy.typing import NDArray
from parity import Parity
from scipy.special import erf

from bench.contracts import ImageSet, Prompts, Scores
from bench.encoders import identify, load_text_image
from bench.encoders.towers import FrozenClip
from bench.errors import BenchError
from bench.methods.clip import Clip, ClipConfig
from bench.methods.shared import vit
from bench.methods.transmm import TransMM, TransMMConfig, explicit_logits, propagate, target_of
from bench.tools.spec import build_config, parse_spec

Floats = NDArray[np.float64]
LIMIT = 1e-5
PROMPTS = {
    "thing": Prompts("thing", "whole, sound thing", "bent thing"),
    "gear": Prompts("gear", "a flawless gear", "abnormality of gear is a crack"),
}


def images_of(count: int, category: str = "thing") -> ImageSet:
    return tiny.image_set(tiny.noise(count, 30), [category] * count, PROMPTS)


def encoder_of(name: str, **vision: Any) -> FrozenClip:
    if name == "pocket":
        encoder = load_text_image(identify("pocket/clip"))
        assert isinstance(encoder, FrozenClip)
        return encoder
    return tiny.frozen_clip(tiny.clip_model(quick_gelu=name == "quick", **vision))


def score(config: TransMMConfig, encoder: FrozenClip, images: ImageSet) -> tuple[Scores, NDArray[np.float32]]:
    scores = TransMM(config).score(images, tiny.context(encoder))
    assert scores.maps is not None
    return scores, scores.maps


def texts_of(encoder: FrozenClip, category: str) -> torch.Tensor:
    prompts = PROMPTS[category]
    return torch.nn.functional.normalize(encoder.encode_text([prompts.normality, prompts.abnormality]), dim=1)


# ---------------------------------------------------------------- explicit and fused attention


@pytest.mark.parametrize("start", [0, -1])
@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("name", ["plain", "quick", "pocket"])
def test_explicit_attention_gives_the_fused_logits(
    name: str, size: int | None, start: int, parity: Parity
) -> None:
    encoder, images = encoder_of(name), images_of(3, "gear")
    model: Any = encoder.model
    texts, scale = texts_of(encoder, "gear"), float(model.logit_scale.exp())
    features = encoder.encode_images(images, layers=(encoder.n_blocks - 2,), image_size=size)
    fused = scale * torch.nn.functional.normalize(features.embedding, dim=1) @ texts.T
    if start == 0:
        pixels = torch.stack([encoder.preprocess(image, size) for image in images])
        tokens = model.visual.ln_pre(vit.embed(model.visual, pixels))
    else:
        tokens = features.tokens[encoder.n_blocks - 2]
    explicit, probabilities = explicit_logits(model.visual, tokens, texts, scale, start % encoder.n_blocks)
    assert len(probabilities) == (encoder.n_blocks if start == 0 else 1)
    for each in probabilities:
        torch.testing.assert_close(each.sum(-1), torch.ones_like(each[..., 0]))
    difference = float((explicit.detach() - fused).abs().max() / scale)
    parity.reached("Trans-MM: cosines with explicit attention", "fused attention", difference, LIMIT)
    assert float(fused.std() / scale) > 100 * LIMIT


# ---------------------------------------------------------------- relevance


class ByHand:
    """The tower's blocks in NumPy, double precision, with attention probabilities that can be displaced."""

    def __init__(self, encoder: FrozenClip, quick: bool) -> None:
        self.w = {n: t.double().numpy() for n, t in encoder.model.visual.state_dict().items()}  # type: ignore[operator]
        visual: Any = encoder.model.visual
        self.heads, self.blocks, self.quick = (
            visual.transformer.resblocks[0].attn.num_heads,
            encoder.n_blocks,
            quick,
        )

    def norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def logits(
        self, x: Floats, texts: Floats, scale: float, moved: tuple[int, Floats] | None = None
    ) -> tuple[Floats, list[Floats]]:
        """(2,) logits of tokens (T, W) that enter the first block; ``moved`` is added to one block's attention."""
        attentions = []
        for i in range(self.blocks):
            w = {n.removeprefix(f"transformer.resblocks.{i}."): t for n, t in self.w.items()}
            y = self.norm(x, f"transformer.resblocks.{i}.ln_1")
            projected = np.split(y @ w["attn.in_proj_weight"].T + w["attn.in_proj_bias"], 3, axis=-1)
            q, k, v = (t.reshape(len(x), self.heads, -1).swapaxes(0, 1) for t in projected)
            attention = np.exp(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5)
            attention /= attention.sum(-1, keepdims=True)
            if moved is not None and moved[0] == i:
                attention = attention + moved[1]
            attentions.append(attention)
            mixed = (attention @ v).swapaxes(0, 1).reshape(x.shape)
            x = x + mixed @ w["attn.out_proj.weight"].T + w["attn.out_proj.bias"]
            hidden = self.norm(x, f"transformer.resblocks.{i}.ln_2") @ w["mlp.c_fc.weight"].T + w["mlp.c_fc.bias"]
            hidden = (
                hidden / (1 + np.exp(-1.702 * hidden)) if self.quick else hidden * (1 + erf(hidden / 2**0.5)) / 2
            )
            x = x + hidden @ w["mlp.c_proj.weight"].T + w["mlp.c_proj.bias"]
        embedding = self.norm(x[0], "ln_post") @ self.w["proj"]
        return scale * texts @ (embedding / np.linalg.norm(embedding)), attentions

    def relevance(self, x: Floats, texts: Floats, scale: float, target: str, start: int) -> Floats:
        """The relevance of the patches for the CLS token; gradients by central differences."""

        def explained(moved: tuple[int, Floats]) -> float:
            normal, abnormal = self.logits(x, texts, scale, moved)[0]
            if target == "prob":
                return float(np.exp(abnormal) / (np.exp(normal) + np.exp(abnormal)))
            return float(abnormal - normal if target == "diff" else abnormal)

        relevance = np.eye(len(x))
        for block in range(start, self.blocks):
            attention = self.logits(x, texts, scale)[1][block]
            gradient = np.zeros_like(attention)
            for place in np.ndindex(attention.shape):
                step = np.zeros_like(attention)
                step[place] = 1e-5
                gradient[place] = (explained((block, step)) - explained((block, -step))) / 2e-5
            used = np.maximum(gradient * attention, 0).mean(axis=0)
            relevance = relevance + used @ relevance
        return relevance[0, 1:]


@pytest.mark.parametrize("target", ["abnormal", "diff", "prob"])
@pytest.mark.parametrize("start", [-1, 1, 0])
@pytest.mark.parametrize("name", ["plain", "quick"])
def test_maps_equal_finite_differences_in_numpy(name: str, start: int, target: Any, parity: Parity) -> None:
    encoder, images = encoder_of(name, image_size=8), images_of(2)
    model: Any = encoder.model
    by_hand, texts, scale = (
        ByHand(encoder, name == "quick"),
        texts_of(encoder, "thing"),
        float(model.logit_scale.exp()),
    )
    _, maps = score(TransMMConfig(start_layer=start, target=target), encoder, images)
    assert maps.shape == (2, 2, 2)
    assert maps.min() >= 0
    assert maps.max() > 0
    for i, image in enumerate(images):
        tokens = model.visual.ln_pre(vit.embed(model.visual, encoder.preprocess(image)[None]))[0].double().numpy()
        expected = by_hand.relevance(tokens, texts.double().numpy(), scale, target, start % 3)
        # Finite differences themselves are no better than 1e-6.
        parity.equal("Trans-MM: maps", "finite differences in NumPy", maps[i].flatten(), expected, 1e-5)


def test_the_last_block_alone_is_its_clamped_gradient_times_attention(parity: Parity) -> None:
    """The specification's unit test, on a model with 8x8 patches and 6 blocks."""
    encoder, images = encoder_of("pocket"), images_of(2, "gear")
    model: Any = encoder.model
    _, maps = score(TransMMConfig(), encoder, images)
    tokens = encoder.encode_images(images, layers=(-2,)).tokens[-2]
    logits, (attention,) = explicit_logits(
        model.visual, tokens, texts_of(encoder, "gear"), float(model.logit_scale.exp()), encoder.n_blocks - 1
    )
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), attention)
    product = (gradient * attention).detach()
    expected = product.clamp(min=0).mean(1)[:, 0, 1:]
    ours = torch.from_numpy(maps).flatten(1)
    parity.equal("Trans-MM: map of the last block", "its clamped gradient times attention", ours, expected, LIMIT)
    # The clamp could not be left out, nor come after the mean.
    for wrong in (product.mean(1), product.mean(1).clamp(min=0), product.abs().mean(1)):
        assert (wrong[:, 0, 1:] - expected).abs().max() > 0.01 * expected.max()


def test_propagation_multiplies_from_the_left(parity: Parity) -> None:
    generator = np.random.default_rng(0)
    attentions, gradients = generator.uniform(0, 1, (3, 2, 4, 4)), generator.normal(size=(3, 2, 4, 4))
    expected = np.eye(4)
    for a, g in zip(attentions, gradients, strict=True):
        expected = (np.eye(4) + np.maximum(a * g, 0).mean(0)) @ expected
    found = propagate([torch.from_numpy(a) for a in attentions], [torch.from_numpy(g) for g in gradients])
    parity.equal("Trans-MM: propagation", "NumPy", found, expected, 1e-12)


def test_targets() -> None:
    logits = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert target_of(logits, "abnormal").tolist() == [3, 2]
    assert target_of(logits, "diff").tolist() == [2, 0]
    torch.testing.assert_close(target_of(logits, "prob"), torch.sigmoid(torch.tensor([2.0, 0.0])))


# ---------------------------------------------------------------- options and promises


def test_image_scores_are_zero_shot_clips() -> None:
    encoder, images = encoder_of("pocket"), images_of(3, "gear")
    model: Any = encoder.model
    temperature = float(1 / model.logit_scale.exp())
    clip = Clip(ClipConfig(temperature=temperature)).score(images, tiny.context(encoder))
    ours, _ = score(TransMMConfig(), encoder, images)
    np.testing.assert_allclose(ours.image, clip.image, rtol=1e-5)


@pytest.mark.parametrize("start", [-1, 0])
def test_number_and_order_of_images_change_nothing_but_rounding(start: int) -> None:
    encoder = encoder_of("pocket")
    images = tiny.image_set(tiny.noise(18, 70), ["gear", "thing", "gear"] * 6, PROMPTS)  # more than a batch
    config = TransMMConfig(start_layer=start)
    whole, maps = score(config, encoder, images)
    np.testing.assert_array_equal(score(config, encoder, images)[1], maps)
    for order in ([*range(17, -1, -1)], [1], [0, 17]):
        assert_agree(score(config, encoder, images.subset(order))[0], whole, order)


def test_the_model_stays_frozen_and_needs_no_grad_mode() -> None:
    encoder, images = encoder_of("plain"), images_of(1)
    _, maps = score(TransMMConfig(), encoder, images)
    with torch.no_grad():
        _, again = score(TransMMConfig(), encoder, images)
    np.testing.assert_array_equal(maps, again)
    for parameter in encoder.model.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


def test_minmax_per_image() -> None:
    encoder, images = encoder_of("plain"), images_of(2)
    _, maps = score(TransMMConfig(img_size=24), encoder, images)
    assert maps.shape == (2, 6, 6)
    _, scaled = score(TransMMConfig(img_size=24, per_image_minmax=True), encoder, images)
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    np.testing.assert_allclose(scaled, (maps - low) / (high - low), rtol=1e-5)


def test_start_layer_counts_from_either_end() -> None:
    encoder, images = encoder_of("plain"), images_of(1)
    maps = {start: score(TransMMConfig(start_layer=start), encoder, images)[1] for start in (-3, -1, 0, 2)}
    np.testing.assert_array_equal(maps[-3], maps[0])
    np.testing.assert_array_equal(maps[-1], maps[2])
    assert not np.allclose(maps[0], maps[2])
    for wrong in (3, -4):
        with pytest.raises(BenchError, match="has 3 blocks"):
            score(TransMMConfig(start_layer=wrong), encoder, images)


def test_options() -> None:
    config = build_config(TransMMConfig, parse_spec("transmm[start_layer=0,target=diff,prompts=damaged]"))
    assert config == TransMMConfig(start_layer=0, target="diff", prompts="damaged")
    traits = TransMM.traits(dataclasses.replace(config, target="prob"))
    assert not (traits.trained or traits.seeded or traits.support) and traits.zero_shot and traits.maps
