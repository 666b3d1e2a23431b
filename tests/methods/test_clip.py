"""CLIP zero-shot, few-shot and probe, against their formulas written out."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from agreement import assert_agree
from numpy.typing import NDArray
from parity import Parity
from sklearn.metrics import roc_auc_score

from bench.contracts import Context, ImageFeatures, ImageSet, Prompts, Scores
from bench.encoders.towers import FrozenClip
from bench.errors import BenchError, NotApplicable
from bench.methods.clip import Clip, ClipConfig, draw_steps, sentences
from bench.tools.spec import build_config, parse_spec

PROMPTS = {
    "thing": Prompts("thing", "a smooth thing", "abnormality of thing is dent"),
    "metal_nut": Prompts("metal nut", "a nut", "abnormality of metal nut is bent edge"),
}
IMAGES = tiny.noise(5)
TEST = tiny.image_set(IMAGES, ["thing", "metal_nut", "thing", "thing", "metal_nut"], PROMPTS)


def unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def run(
    context: Context, images: ImageSet = TEST, **options: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    scores = Clip(ClipConfig(**options)).score(images, context)
    assert scores.maps is not None
    return scores.image, scores.maps


def parts(encoder: FrozenClip, images: ImageSet) -> tuple[torch.Tensor, torch.Tensor]:
    features = encoder.encode_images(images, layers=(2,))
    patches = encoder.project(features.tokens[2][:, 1:])
    return unit(features.embedding), unit(patches)


def test_zero_shot_is_the_log_odds_of_the_softmax(parity: Parity) -> None:
    encoder = tiny.frozen_clip()
    image, maps = run(tiny.context(encoder), temperature=0.02)
    whole, patches = parts(encoder, TEST)
    for i, category in enumerate(TEST.categories):
        prompts = PROMPTS[category]
        texts = unit(encoder.encode_text([prompts.normality, prompts.abnormality]))
        probability = (whole[i] @ texts.T / 0.02).softmax(-1)[1].item()
        difference = abs(1 / (1 + np.exp(-image[i])) - probability)
        parity.reached("CLIP: image scores, as probabilities", "softmax by hand", difference, 1e-5)
        expected = (patches[i] @ texts.T / 0.02).softmax(-1)[:, 1].reshape(4, 4)
        ours = 1 / (1 + np.exp(-maps[i]))
        parity.equal("CLIP: maps, as probabilities", "softmax by hand", ours, expected, 1e-5)


def test_number_and_order_of_images_change_nothing_but_rounding() -> None:
    support = tiny.image_set(tiny.noise(3, seed=9))
    for options in ({}, {"few_shot": "both"}, {"few_shot": "support"}):
        image, maps = run(tiny.context(tiny.frozen_clip(), support=support), **options)
        for order in ([4, 3, 2, 1, 0], [2], [1, 4]):
            context = tiny.context(tiny.frozen_clip(), support=support)
            some, some_maps = run(context, TEST.subset(order), **options)
            assert_agree(Scores(some, some_maps), Scores(image, maps), order)


def test_sentences() -> None:
    assert sentences("thing", PROMPTS["thing"], "promptad") == (
        ["a smooth thing"],
        ["abnormality of thing is dent"],
    )
    normal, anomalous = sentences("metal_nut", PROMPTS["metal_nut"], "two")
    assert (normal, anomalous) == (["a photo of a normal metal nut."], ["a photo of an anomalous metal nut."])
    normal, anomalous = sentences("metal_nut", None, "winclip")
    assert (len(set(normal)), len(set(anomalous))) == (154, 88)
    assert "a cropped photo of the flawless metal nut." in normal
    assert "a photo of a metal nut without damage for anomaly detection." in normal
    assert "a jpeg corrupted photo of a damaged metal nut." in anomalous
    assert not set(normal) & set(anomalous)
    with pytest.raises(NotApplicable, match="there are no prompts for metal_nut"):
        sentences("metal_nut", None, "promptad")


def test_the_ensemble_is_normalised_averaged_and_normalised() -> None:
    encoder = tiny.frozen_clip()
    images = TEST.subset([1])
    image, _ = run(tiny.context(encoder), images, prompts="winclip", temperature=1.0)
    groups = sentences("metal_nut", PROMPTS["metal_nut"], "winclip")
    texts = torch.stack([unit(unit(encoder.encode_text(group)).mean(0)) for group in groups])
    whole, _ = parts(encoder, images)
    assert image[0] == pytest.approx(float(whole[0] @ (texts[1] - texts[0])), abs=1e-5)


def test_few_shot() -> None:
    encoder = tiny.frozen_clip()
    support = tiny.image_set([IMAGES[2], *tiny.noise(2, seed=9)])
    context = tiny.context(encoder, support=support)
    image, maps = run(context, few_shot="support")
    (whole, patches), (bank, patch_bank) = parts(encoder, TEST), parts(encoder, support)
    np.testing.assert_allclose(image, (1 - (whole @ bank.T).max(1).values) / 2, atol=1e-6)
    nearest = (patches @ patch_bank.flatten(0, 1).T).max(-1).values
    np.testing.assert_allclose(maps, ((1 - nearest) / 2).reshape(-1, 4, 4), atol=1e-6)
    assert image[2] == pytest.approx(0, abs=1e-6)  # it is one of the normals
    np.testing.assert_allclose(maps[2], 0, atol=1e-6)

    zero_shot, zero_maps = run(context)
    both, both_maps = run(context, few_shot="both")
    np.testing.assert_allclose(both, (image + 1 / (1 + np.exp(-zero_shot))) / 2, rtol=1e-5)
    np.testing.assert_allclose(both_maps, (maps + 1 / (1 + np.exp(-zero_maps))) / 2, rtol=1e-5)
    with pytest.raises(NotApplicable, match="needs K normal images"):
        run(tiny.context(encoder), few_shot="both")


def test_confident_scores_keep_their_order() -> None:
    image, _ = run(tiny.context(tiny.frozen_clip()), temperature=1e-5)
    assert np.abs(image).max() > 100  # a probability would be 0 or 1 to float32
    assert len(set(image.tolist())) == len(image)


class Colours:
    """An encoder whose embedding is the image's mean colour, slightly noisy, and a constant."""

    name, weights_hash, image_size, n_blocks, width, embed_dim = "fake/colours", "0", 8, 1, 4, 4
    model = torch.nn.Identity()

    def encode_images(
        self, images: ImageSet, *, layers: Sequence[int] = (), image_size: int | None = None
    ) -> ImageFeatures:
        means = np.stack([[*image.mean((0, 1)) / 255, 0.5] for image in images])
        embedding = torch.from_numpy(means).float()
        tokens = embedding[:, None].expand(-1, 5, -1).clone()
        return ImageFeatures(embedding, dict.fromkeys(layers, tokens), (2, 2))

    def encode_text(self, sentences: Sequence[str]) -> torch.Tensor:
        return torch.stack([torch.eye(4)[int("abnormality" in sentence)] for sentence in sentences])

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    def preprocess(self, image: NDArray[np.uint8], image_size: int | None = None) -> torch.Tensor:
        raise NotImplementedError


def colours(count: int, seed: int, bad: float = 0.3) -> tuple[ImageSet, list[int]]:
    """Noisy grey images; anomalous ones are a little redder. Two categories."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(count) < bad).astype(int).tolist()
    images = []
    for label in labels:
        image = generator.integers(90, 150, (8, 8, 3)) + generator.integers(-20, 20, 3)
        image[..., 0] += 60 * label
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return tiny.image_set(images, [("thing", "metal_nut")[i % 2] for i in range(count)], PROMPTS), labels


@pytest.mark.parametrize("options", [{}, {"loss": "bce"}, {"text_difference": True}])
def test_the_probe_learns_a_separable_set(options: dict[str, Any]) -> None:
    context = tiny.context(Colours())
    images, labels = colours(40, 0)
    probe = Clip(ClipConfig(variant="probe", lr=0.05, iterations=200, **options))
    probe.fit(tiny.training_set(images, labels), context)
    images, labels = colours(40, 1)
    scores = probe.score(images, context)
    assert roc_auc_score(labels, scores.image) > 0.98
    assert scores.maps is not None
    assert scores.maps.shape == (40, 2, 2)
    np.testing.assert_allclose(scores.maps[:, 0, 0], scores.image, rtol=1e-5)  # here every patch is the whole


def test_the_probe_is_repeatable_and_depends_on_its_seed() -> None:
    images, labels = colours(20, 0)

    def scores(seed: int) -> NDArray[np.float32]:
        context = tiny.context(Colours(), seed=seed)
        probe = Clip(ClipConfig(variant="probe", iterations=5))
        probe.fit(tiny.training_set(images, labels), context)
        return probe.score(images, context).image

    first = scores(1)
    torch.manual_seed(99)
    assert np.array_equal(scores(1), first)
    assert not np.array_equal(scores(2), first)


def test_the_probes_losses() -> None:
    scores, labels = torch.tensor([-7.0, 2.0, -1.0, 8.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
    deviation = Clip(ClipConfig(variant="probe"))._loss(scores, labels)
    assert deviation.item() == pytest.approx((0 + 7 + 6 + 0) / 4)
    bce = Clip(ClipConfig(variant="probe", loss="bce"))._loss(scores, labels)
    expected = np.mean([np.log1p(np.exp(-7)), np.log1p(np.exp(2)), np.log1p(np.exp(1)), np.log1p(np.exp(-8))])
    assert bce.item() == pytest.approx(expected, rel=1e-5)


def test_what_the_probe_draws() -> None:
    categories = ["thing"] * 30 + ["metal_nut"] * 10
    labels = np.zeros(40, dtype=np.int8)
    labels[[0, 30]] = 1
    config = ClipConfig(variant="probe", iterations=2000)
    steps = draw_steps(categories, labels, config, np.random.default_rng(0))
    assert steps.shape == (2000, 32)
    assert labels[steps].any(axis=1).all()
    episodes = steps.reshape(-1, 8)
    one_category = (episodes < 30).all(axis=1) | (episodes >= 30).all(axis=1)
    assert one_category.mean() > 0.99  # but where an anomaly was put into a step that had none
    shares = [labels[episodes[(episodes < 30).all(1)]].mean(), labels[episodes[(episodes >= 30).all(1)]].mean()]
    np.testing.assert_allclose(shares, [10 / 39, 10 / 19], atol=0.01)  # one anomaly, listed ten times

    rare = dataclasses.replace(config, upsampling=1, n_query=1, episodes_per_step=2, iterations=50)
    assert labels[draw_steps(categories, labels, rare, np.random.default_rng(0))].any(axis=1).all()


def test_the_probe_needs_both_kinds() -> None:
    images, _ = colours(4, 0)
    for labels in ([0] * 4, [1] * 4):
        with pytest.raises(NotApplicable, match="normal and anomalous"):
            Clip(ClipConfig(variant="probe")).fit(tiny.training_set(images, labels), tiny.context(Colours()))


def test_traits_say_what_a_variant_needs() -> None:
    plain = Clip.traits(ClipConfig())
    assert (plain.trained, plain.seeded, plain.zero_shot, plain.support, plain.text) == (
        False,
        False,
        True,
        False,
        True,
    )
    probe = Clip.traits(ClipConfig(variant="probe"))
    assert (probe.trained, probe.seeded, probe.zero_shot, probe.support) == (True, True, True, False)
    few = Clip.traits(ClipConfig(few_shot="both"))
    assert (few.trained, few.seeded, few.zero_shot, few.support) == (False, True, False, True)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("clip[variant=probe,few_shot=both]", "few_shot belongs to variant=zero_shot"),
        ("clip[temperature=0]", "temperature must be above 0"),
        ("clip[prompts=wincip]", "choose one of promptad, two, winclip"),
    ],
)
def test_options_that_are_refused(spec: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        build_config(ClipConfig, parse_spec(spec))


@pytest.mark.parametrize("name", ["clip", "devnet"])
def test_reading_traits_imports_no_torch(name: str) -> None:
    code = (
        "import sys; from bench.tools.registry import METHODS; "
        f"cls = METHODS.load({name!r}); cls.traits(cls.Config()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
