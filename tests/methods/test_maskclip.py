"""MaskCLIP's value path and scores against a vision transformer written out in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from agreement import assert_agree
from numpy.typing import NDArray
from parity import Parity
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.special import erf

from bench.contracts import ImageSet, Prompts, Scores
from bench.encoders import identify, load_text_image
from bench.encoders.features import CACHE
from bench.encoders.towers import FrozenClip
from bench.errors import BenchError
from bench.methods.maskclip import MaskClip, MaskClipConfig, patch_scores, values
from bench.methods.shared.prompts import sentences
from bench.tools.spec import build_config, parse_spec

Floats = NDArray[np.float64]
LIMIT = 1e-5
PROBABILITY = MaskClipConfig(map="probability")
PROMPTS = {
    "thing": Prompts("thing", "whole, sound thing", "bent thing"),
    "gear": Prompts("gear", "a flawless gear", "abnormality of gear is a crack"),
}


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    CACHE.clear()
    yield
    CACHE.clear()


def images_of(count: int, category: str = "thing") -> ImageSet:
    return tiny.image_set(tiny.noise(count, 30), [category] * count, PROMPTS)


def encoder_of(name: str) -> FrozenClip:
    if name == "pocket":
        encoder = load_text_image(identify("pocket/clip"))
        assert isinstance(encoder, FrozenClip)
        return encoder
    return tiny.frozen_clip(tiny.clip_model(quick_gelu=name == "quick"))


def score(config: MaskClipConfig, encoder: FrozenClip, images: ImageSet) -> tuple[Scores, NDArray[np.float32]]:
    scores = MaskClip(config).score(images, tiny.context(encoder))
    assert scores.maps is not None
    return scores, scores.maps


class ByHand:
    """A CLIP's image tower in NumPy, double precision, from its state dict."""

    def __init__(self, encoder: FrozenClip, *, quick: bool, eps: float = 1e-5) -> None:
        visual: Any = encoder.model.visual
        self.w = {name: tensor.double().numpy() for name, tensor in visual.state_dict().items()}
        self.heads = visual.transformer.resblocks[0].attn.num_heads
        self.patch = encoder.patch_size
        self.blocks, self.quick, self.eps = encoder.n_blocks, quick, eps

    def norm(self, x: Floats, name: str) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.eps)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x: Floats, name: str) -> Floats:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def parts(self, x: Floats, block: str) -> list[Floats]:
        y = self.norm(x, f"{block}.ln_1")
        projected = y @ self.w[f"{block}.attn.in_proj_weight"].T + self.w[f"{block}.attn.in_proj_bias"]
        return np.split(projected, 3, axis=-1)

    def ffn(self, x: Floats, block: str) -> Floats:
        hidden = self.linear(self.norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        hidden = hidden / (1 + np.exp(-1.702 * hidden)) if self.quick else hidden * (1 + erf(hidden / 2**0.5)) / 2
        return x + self.linear(hidden, f"{block}.mlp.c_proj")

    def before_last(self, pixels: Floats) -> Floats:
        """(3, S, S) -> (1 + P, W)."""
        p, grid = self.patch, pixels.shape[-1] // self.patch
        cells = pixels.reshape(3, grid, p, grid, p).transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)
        kernel = self.w["conv1.weight"]
        x = np.concatenate([self.w["class_embedding"][None], cells @ kernel.reshape(len(kernel), -1).T])
        x = self.norm(x + self.w["positional_embedding"], "ln_pre")
        for i in range(self.blocks - 1):
            block = f"transformer.resblocks.{i}"
            q, k, v = (t.reshape(len(x), self.heads, -1).swapaxes(0, 1) for t in self.parts(x, block))
            attention = np.exp(q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5)
            attention /= attention.sum(-1, keepdims=True)
            x = x + self.linear((attention @ v).swapaxes(0, 1).reshape(x.shape), f"{block}.attn.out_proj")
            x = self.ffn(x, block)
        return x

    def values(self, pixels: Floats, resid_ffn: bool) -> tuple[Floats, Floats]:
        x = self.before_last(pixels)
        block = f"transformer.resblocks.{self.blocks - 1}"
        _, key, value = self.parts(x, block)
        v = self.linear(value, f"{block}.attn.out_proj")
        if resid_ffn:
            v = self.ffn(v + x, block)
        features = self.norm(v, "ln_post") @ self.w["proj"]
        return features[1:], self.linear(key, f"{block}.attn.out_proj")[1:]


def anomalous_probability(features: Floats, texts: Floats) -> Floats:
    cosines = features @ texts.T / np.linalg.norm(features, axis=1)[:, None]
    powers = np.exp(100 * cosines)
    return powers[:, 1] / powers.sum(axis=1)


def texts_of(encoder: FrozenClip, category: str, kind: Any = "promptad") -> Floats:
    rows = []
    for group in sentences(category, PROMPTS[category], kind):
        each = encoder.encode_text(group).double().numpy()
        mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
        rows.append(mean / np.linalg.norm(mean))
    return np.stack(rows)


@pytest.mark.parametrize("resid_ffn", [True, False])
@pytest.mark.parametrize("name", ["plain", "quick", "pocket"])
def test_the_value_path_equals_numpy(name: str, resid_ffn: bool, parity: Parity) -> None:
    encoder, images = encoder_of(name), images_of(2, "gear")
    by_hand = ByHand(encoder, quick=name == "quick")
    texts = texts_of(encoder, "gear")
    scores, maps = score(MaskClipConfig(resid_ffn=resid_ffn), encoder, images)
    tokens = encoder.encode_images(images, layers=(-2,)).tokens[-2]
    for i, image in enumerate(images):
        features, keys = by_hand.values(encoder.preprocess(image).double().numpy(), resid_ffn)
        ours = values(encoder.model.visual, tokens[i], resid_ffn=resid_ffn)
        parity.equal("MaskCLIP: features of the value path", "NumPy", ours[0], features, LIMIT)
        parity.equal("MaskCLIP: keys", "NumPy", ours[1], keys, LIMIT)
        cosines = features @ texts.T / np.linalg.norm(features, axis=1)[:, None]
        expected = cosines[:, 1] - cosines[:, 0]
        difference = np.abs(maps[i].flatten() / 100 - expected).max()
        parity.reached("MaskCLIP: maps, as differences of cosines", "NumPy", difference, LIMIT)
        assert np.ptp(expected) > 1e-3
        assert scores.image[i] == maps[i].max()


def test_each_part_of_the_value_path_matters() -> None:
    """What the test above would not notice if it were compared to itself: it is not CLIP's own last block."""
    encoder, images = encoder_of("plain"), images_of(1)
    tokens = encoder.encode_images(images, layers=(-2, -1)).tokens
    own = encoder.project(tokens[-1][0, 1:])
    code, _ = values(encoder.model.visual, tokens[-2][0], resid_ffn=True)
    paper, _ = values(encoder.model.visual, tokens[-2][0], resid_ffn=False)
    for one, other in ((own, code), (own, paper), (code, paper)):
        assert (one - other).abs().max() > 0.01
    # A patch's features are its own token's: no other patch mixes in.
    changed = tokens[-2][0].clone()
    changed[5] = changed[5].flip(0)
    moved, _ = values(encoder.model.visual, changed, resid_ffn=True)
    others = torch.arange(16) != 4
    torch.testing.assert_close(moved[others], code[others])
    assert (moved[4] - code[4]).abs().max() > 0.01


@pytest.mark.parametrize("name", ["plain", "quick"])
def test_mmseg_quirks(name: str, parity: Parity) -> None:
    encoder, images = encoder_of(name), images_of(2)
    by_hand = ByHand(encoder, quick=False, eps=1e-6)
    texts = texts_of(encoder, "thing")
    _, maps = score(replace(PROBABILITY, mmseg_quirks=True), encoder, images)
    _, plain = score(PROBABILITY, encoder, images)
    for i, image in enumerate(images):
        scaled = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BICUBIC)) / 255
        pixels = ((scaled - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).transpose(2, 0, 1)
        features, _ = by_hand.values(pixels, resid_ffn=True)
        difference = np.abs(maps[i].flatten() - anomalous_probability(features, texts)).max()
        parity.reached("MaskCLIP: probabilities with mmseg's quirks", "NumPy", difference, LIMIT)
    assert np.abs(maps - plain).max() > 1e-3
    visual: Any = encoder.model.visual
    assert visual.ln_post.eps == 1e-5  # the encoder itself is as it was
    _, again = score(PROBABILITY, encoder, images)
    np.testing.assert_array_equal(again, plain)


@pytest.mark.parametrize(("pd", "ks"), [(0.5, 0.0), (0.0, 1.0), (0.0, 0.9), (0.8, 0.9)])
def test_refinements_by_hand(pd: float, ks: float, parity: Parity) -> None:
    """Prompt denoising and key smoothing, patch by patch, in the order of the code."""
    generator = np.random.default_rng(0)
    keys = generator.normal(size=(12, 5))
    config = MaskClipConfig(pd_thresh=pd, ks_thresh=ks)
    for shift in (-0.03, 0.0, 0.03):
        cosines = generator.normal(0, 0.01, (12, 2)) + np.array([0, shift])
        logits = cosines.copy()
        powers = np.exp(100 * cosines)
        probabilities = powers / powers.sum(1, keepdims=True)
        for c in range(2):
            if probabilities[:, c].max() < pd:
                logits[:, c] = -100
        expected = []
        with np.errstate(under="ignore"):
            powers = np.exp(100 * (logits - logits.max(1, keepdims=True)))
        probabilities = powers / powers.sum(1, keepdims=True)
        normal_keys = np.stack([keys[:, d] / np.sqrt((keys[:, d] ** 2).sum()) for d in range(5)], axis=1)
        for p in range(12):
            own = probabilities[p]
            if own.max() < ks:
                own = sum(float(normal_keys[p] @ normal_keys[o]) * probabilities[o] for o in range(12))
            expected.append(own[1])
        ours = patch_scores(cosines, keys, config)
        parity.reached("MaskCLIP: refined scores", "NumPy", np.abs(ours - expected).max(), 1e-12)


def test_refinements_reach_the_map() -> None:
    encoder, images = encoder_of("plain"), images_of(2)
    _, plain = score(PROBABILITY, encoder, images)
    _, smooth = score(MaskClipConfig(ks_thresh=1.0), encoder, images)
    assert not np.allclose(plain, smooth)
    _, absent = score(MaskClipConfig(pd_thresh=1.0), encoder, images)  # no class is certain anywhere
    np.testing.assert_array_equal(absent, 0.5)


def test_log_odds_are_those_of_the_probability() -> None:
    encoder, images = encoder_of("pocket"), images_of(2, "gear")
    scores, log_odds = score(MaskClipConfig(), encoder, images)
    _, probability = score(PROBABILITY, encoder, images)
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-log_odds.astype(float))), rtol=1e-4)
    np.testing.assert_array_equal(scores.image, log_odds.max(axis=(1, 2)))


@pytest.mark.parametrize("kind", ["winclip", "imagenet"])
def test_other_sentences(kind: Any) -> None:
    encoder, images = encoder_of("pocket"), images_of(1, "gear")
    normal, anomalous = sentences("gear", PROMPTS["gear"], kind)
    assert len(normal) == len(set(normal)) == {"winclip": 154, "imagenet": 85}[kind]
    assert len(anomalous) == len(set(anomalous)) == {"winclip": 88, "imagenet": 85}[kind]
    if kind == "imagenet":
        assert "a photo of a damaged gear." in anomalous
        assert "this is one gear in the scene." in normal
    _, maps = score(replace(PROBABILITY, prompts=kind), encoder, images)
    features, _ = ByHand(encoder, quick=False).values(encoder.preprocess(images[0]).double().numpy(), True)
    np.testing.assert_allclose(
        maps[0].flatten(), anomalous_probability(features, texts_of(encoder, "gear", kind)), atol=LIMIT
    )


@pytest.mark.parametrize("quirks", [False, True])
def test_other_sizes_and_smoothing(quirks: bool) -> None:
    encoder, images = encoder_of("plain"), images_of(2)
    _, maps = score(MaskClipConfig(img_size=24, mmseg_quirks=quirks), encoder, images)
    assert maps.shape == (2, 6, 6)
    _, smooth = score(MaskClipConfig(img_size=24, mmseg_quirks=quirks, gauss_sigma=2.0), encoder, images)
    large = torch.nn.functional.interpolate(torch.from_numpy(maps)[:, None], size=(24, 24), mode="bilinear")[:, 0]
    np.testing.assert_allclose(smooth, gaussian_filter(large.numpy(), 2.0, axes=(1, 2)), atol=1e-6)
    with pytest.raises(BenchError, match="multiple of the patch size"):
        score(MaskClipConfig(img_size=18, mmseg_quirks=quirks), encoder, images)


@pytest.mark.parametrize("quirks", [False, True])
def test_number_and_order_of_images_change_nothing_but_rounding(quirks: bool) -> None:
    encoder = encoder_of("pocket")
    images = tiny.image_set(tiny.noise(18, 70), ["gear", "thing", "gear"] * 6, PROMPTS)  # more than a batch
    config = MaskClipConfig(mmseg_quirks=quirks, ks_thresh=0.9 * quirks)
    whole, maps = score(config, encoder, images)
    np.testing.assert_array_equal(score(config, encoder, images)[1], maps)
    for order in ([*range(17, -1, -1)], [1], [0, 17]):
        CACHE.clear()
        assert_agree(score(config, encoder, images.subset(order))[0], whole, order)


def test_options() -> None:
    config = build_config(MaskClipConfig, parse_spec("maskclip[resid_ffn=off,ks_thresh=1.0,img_size=448]"))
    assert config == MaskClipConfig(resid_ffn=False, ks_thresh=1.0, img_size=448)
    for wrong in ("pd_thresh=-1", "ks_thresh=-1", "prompts=none"):
        with pytest.raises(BenchError):
            build_config(MaskClipConfig, parse_spec(f"maskclip[{wrong}]"))
    traits = MaskClip.traits(MaskClipConfig())
    assert not (traits.trained or traits.seeded or traits.support) and traits.zero_shot and traits.maps
