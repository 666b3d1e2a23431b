"""WinCLIP against anomalib's own, on the same weights, and its parts against loops."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tiny
import torch
from agreement import assert_agree
from anomalib.models.image.winclip.prompting import create_prompt_ensemble
from anomalib.models.image.winclip.torch_model import WinClipModel
from numpy.typing import NDArray
from parity import Parity
from torch.nn import functional as F

from bench.contracts import ImageSet, Prompts, Scores
from bench.encoders import identify, load_text_image
from bench.encoders.features import CACHE, FeatureCache
from bench.encoders.towers import FrozenClip
from bench.errors import BenchError, NotApplicable
from bench.methods.anomalib.winclip import Mended
from bench.methods.clip import Clip, ClipConfig
from bench.methods.shared import vit
from bench.methods.shared.prompts import ensemble
from bench.methods.winclip import (
    TYPO_TEMPLATES,
    WinClip,
    WinClipConfig,
    encode_windows,
    harmonic_mean,
    spread,
    window_patches,
    zero_shot_maps,
)
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.spec import build_config, parse_spec
from bench.trial.trial import run_trial

LIMIT = 1e-5
PROMPTS = {
    "thing": Prompts("thing", "a flawless thing", "abnormality of thing is dent"),
    "metal_nut": Prompts("metal nut", "a flawless metal nut", "abnormality of metal nut is dent"),
}
AS_ANOMALIB = WinClipConfig(averaging="raw", templates="typo")
PLUS = WinClipConfig(few_shot=True)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No windows kept from another test, whose models have the same names; one thread, to be comparable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    CACHE.clear()
    yield
    CACHE.clear()
    torch.set_num_threads(threads)


def images_of(count: int, seed: int = 0, category: str = "thing") -> ImageSet:
    return tiny.image_set(tiny.noise(count, 70, seed), [category] * count, PROMPTS)


def score(config: WinClipConfig, encoder: FrozenClip, images: ImageSet, **context: Any) -> Scores:
    return WinClip(config).score(images, tiny.context(encoder, **context))


# ---------------------------------------------------------------- anomalib


class AsItComes(Mended):
    """anomalib's own windows."""

    _get_window_embeddings = WinClipModel._get_window_embeddings


def pixels_of(encoder: FrozenClip, images: ImageSet) -> torch.Tensor:
    return torch.stack([encoder.preprocess(image) for image in images])


def largest_differences(ours: Scores, theirs: Any) -> tuple[float, float]:
    """Of image scores, and of maps, ours scaled up as anomalib scales its own."""
    assert ours.maps is not None
    image = np.abs(ours.image - theirs.pred_score.numpy()).max()
    maps = F.interpolate(torch.from_numpy(ours.maps)[:, None], theirs.anomaly_map.shape[-2:], mode="bilinear")
    return float(image), float((maps[:, 0] - theirs.anomaly_map).abs().max())


def clip_of(vision: dict[str, Any], embed_dim: int, name: str) -> FrozenClip:
    """Random weights: an image tower of one's own, and a small text tower that reads whole sentences."""
    torch.manual_seed(0)
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1}
    model = open_clip.model.CLIP(embed_dim, vision, text)
    return FrozenClip(name, name, model, open_clip.tokenize, tiny.MEAN, tiny.STD, cache=FeatureCache())


def tiny_clip() -> FrozenClip:
    """4x4 patches, 3 blocks."""
    vision = {"image_size": 16, "patch_size": 4, "width": 24, "head_width": 12, "layers": 3}
    return clip_of(vision, 20, "tiny")


def plus_240() -> FrozenClip:
    """ViT-B-16-plus-240, but for its text tower, in which most of the time would be spent."""
    config = open_clip.get_model_config("ViT-B-16-plus-240")
    assert config["vision_cfg"]["layers"] == 12
    return clip_of(config["vision_cfg"], config["embed_dim"], "plus")


def pocket() -> FrozenClip:
    encoder = load_text_image(identify("pocket/clip"))
    assert isinstance(encoder, FrozenClip)
    return encoder


@pytest.mark.parametrize("name", ["tiny", "pocket"])
@pytest.mark.parametrize("shots", [0, 3])
def test_equals_anomalibs(name: str, shots: int, parity: Parity) -> None:
    encoder = tiny_clip() if name == "tiny" else pocket()
    images = images_of(4, category="metal_nut")
    support = images_of(shots, seed=1, category="metal_nut") if shots else None
    config = dataclasses.replace(AS_ANOMALIB, k=shots)
    theirs = Mended(encoder, "metal nut")
    if support is not None:
        theirs.setup(reference_images=pixels_of(encoder, support))
    expected = theirs(pixels_of(encoder, images))
    image, maps = largest_differences(score(config, encoder, images, support=support), expected)
    method = "WinCLIP+" if shots else "WinCLIP"
    parity.reached(f"{method}: image scores", "anomalib, mended", image, LIMIT)
    parity.reached(f"{method}: maps", "anomalib, mended", maps, LIMIT)
    # Another temperature, or the correct list of templates, would not have passed.
    for changed in ({"temperature": 0.06}, {"templates": "paper"}):
        other = dataclasses.replace(config, **changed)
        assert max(largest_differences(score(other, encoder, images, support=support), expected)) > 2 * LIMIT


@pytest.mark.slow
def test_equals_anomalibs_on_vit_b_16_plus_240(parity: Parity) -> None:
    encoder = plus_240()
    images = images_of(1)
    theirs = Mended(encoder, "thing")
    expected = theirs(pixels_of(encoder, images))
    ours = score(AS_ANOMALIB, encoder, images)
    assert ours.maps is not None
    assert ours.maps.shape == (1, 15, 15)
    assert np.ptp(ours.maps) > 1e-2
    image, maps = largest_differences(ours, expected)
    parity.reached("WinCLIP: image scores on ViT-B-16-plus-240", "anomalib, mended", image, LIMIT)
    parity.reached("WinCLIP: maps on ViT-B-16-plus-240", "anomalib, mended", maps, LIMIT)


def test_without_the_mend_anomalibs_map_is_constant() -> None:
    """The comparison above would then be with nothing. Should this fail, anomalib was mended; ours can go."""
    encoder, images = pocket(), images_of(2)
    ours = score(AS_ANOMALIB, encoder, images)
    broken = AsItComes(encoder, "thing")(pixels_of(encoder, images))
    mended = Mended(encoder, "thing")(pixels_of(encoder, images))
    flat, alive = (np.ptp(each.anomaly_map.numpy(), axis=(1, 2)).max() for each in (broken, mended))
    print(f"anomalib's maps range over {flat:.1e} as they come, over {alive:.1e} mended")
    assert flat < 1e-6 < 1e-3 < alive
    image, maps = largest_differences(ours, broken)
    assert image < LIMIT
    assert maps > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("shots", [0, 2])
def test_the_second_opinion_agrees_in_the_harness(shots: int, tmp_path: Path, parity: Parity) -> None:
    """On pocket with pocket/clip, as records keep the scores."""
    options = "averaging=raw,templates=typo" + f",k={shots}" * bool(shots)
    specs = [f"winclip[{options}]", "anomalib/winclip" + f"[k_shot={shots}]" * bool(shots)]
    study = Study(
        "s", tuple(map(parse_spec, specs)), (parse_spec("pocket"),), (parse_spec(f"loo[k={shots}]"),),
        categories=("wood",),
    )  # fmt: skip
    ours, theirs = (run_trial(task) for task in prepare(study, Store(tmp_path)).tasks)
    assert ours.record["trial"]["method"]["zero_shot"] == theirs.record["trial"]["method"]["zero_shot"]
    assert ours.record["trial"]["encoders"] == theirs.record["trial"]["encoders"]
    assert ours.ids == theirs.ids
    assert ours.scores is not None
    assert theirs.scores is not None, theirs.record["reason"]
    image = np.abs(ours.scores["image"] - theirs.scores["image"]).max()
    up = F.interpolate(torch.from_numpy(ours.scores["maps"])[:, None], 96, mode="bilinear")[:, 0].numpy()
    maps = np.abs(up - theirs.scores["maps"]).max()
    name = "WinCLIP+" if shots else "WinCLIP"
    parity.reached(f"{name}: image scores in the harness", "anomalib/winclip", image, LIMIT)
    parity.reached(f"{name}: maps in the harness", "anomalib/winclip", maps, LIMIT)
    assert np.ptp(theirs.scores["maps"]) > 100 * LIMIT


def test_sentences() -> None:
    normal, anomalous = ensemble("metal nut")
    assert (len(normal), len(set(normal)), len(anomalous), len(set(anomalous))) == (154, 154, 88, 88)
    assert "a cropped photo of a metal nut without flaw." in normal
    assert "a photo of the damaged metal nut for visual inspection." in anomalous
    assert ensemble("metal nut", TYPO_TEMPLATES) == create_prompt_ensemble("metal nut")


# ---------------------------------------------------------------- parts


def test_spread_is_the_harmonic_mean_over_covering_windows() -> None:
    generator = np.random.default_rng(0)
    for side, grid in ((1, (3, 3)), (2, (4, 4)), (3, (4, 5)), (4, (4, 6))):
        patches = window_patches(grid, side)
        scores = generator.uniform(0.1, 1, len(patches))
        found = spread(scores, side, grid)
        for row, column in itertools.product(range(grid[0]), range(grid[1])):
            covering = [s for s, p in zip(scores, patches, strict=True) if row * grid[1] + column in p]
            np.testing.assert_allclose(found[row, column], len(covering) / sum(1 / s for s in covering))
    assert spread(np.array([0.0, 1, 1, 1]), 2, (3, 3))[1, 1] == 0  # no warning, no NaN


def test_zero_shot_map_by_hand() -> None:
    generator = np.random.default_rng(0)
    grid, whole = (4, 4), 0.3
    windows = {side: generator.uniform(0.1, 0.9, len(window_patches(grid, side))) for side in (2, 3)}
    several = {side: np.stack([1 - scores, scores]) for side, scores in windows.items()}
    both = np.array([0.9, whole])
    _, harmonic = zero_shot_maps(several, both, grid, WinClipConfig())
    _, normality = zero_shot_maps(several, both, grid, WinClipConfig(aggregation="normality"))
    for row, column in itertools.product(range(4), range(4)):
        covering = [
            [s for s, p in zip(windows[side], window_patches(grid, side), strict=True) if row * 4 + column in p]
            for side in (2, 3)
        ]
        inverse = [np.mean([1 / s for s in each]) for each in covering]
        np.testing.assert_allclose(harmonic[row, column], 3 / (inverse[0] + inverse[1] + 1 / whole))
        inverse = [np.mean([1 / (1 - s) for s in each]) for each in covering]
        np.testing.assert_allclose(normality[row, column], 1 - 1 / np.mean(inverse))
    np.testing.assert_allclose(harmonic_mean([np.array([1.0, 0.5]), np.array([1.0, 0.25])]), [1, 1 / 3])


def test_a_window_is_the_image_without_its_other_patches() -> None:
    """The largest window is the whole image; and a window's embedding knows nothing of patches outside it."""
    encoder, images = tiny_clip(), images_of(2)
    found = encode_windows(images, encoder, (2, 4), (4, 4))
    whole = encoder.encode_images(images).embedding
    torch.testing.assert_close(found[4][:, 0], whole, rtol=1e-5, atol=1e-6)
    first = images[0].copy()
    first[40:, 40:] = 0  # far from the window of the first patches
    changed = encode_windows(tiny.image_set([first]), encoder, (2, 4), (4, 4))
    assert torch.equal(changed[2][0, 0], found[2][0, 0])
    assert not torch.equal(changed[2][0, -1], found[2][0, -1])


@pytest.mark.parametrize("tower", [{}, {"quick_gelu": True}, {"ls_init_value": 0.5}, {"mlp_ratio": 2.0}])
@pytest.mark.parametrize("onednn", [True, False])
def test_windows_pass_the_blocks_as_through_the_transformer(
    tower: dict[str, Any], onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one piece, in many, and the last of them smaller; with and without oneDNN."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    visual: Any = tiny.clip_model(**tower).visual
    for parameter in visual.parameters():  # biases and scales that are not all alike
        torch.nn.init.normal_(parameter, std=0.3)
    for count, length, piece in ((7, 5, 512), (7, 5, 15), (9, 10, 4), (200, 5, 512)):
        monkeypatch.setattr(vit, "_PIECE", piece)
        tokens = torch.randn(count, length, 24)
        with torch.no_grad():
            found = vit.embed_sequences(visual, tokens)
            expected = vit.pooled(visual, visual.transformer(tokens))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", ["after", "before"])
def test_few_shot_by_hand(place: Any) -> None:
    encoder, images, support = tiny_clip(), images_of(2), images_of(3, seed=1)
    config = WinClipConfig(patch_tokens=place, few_shot=True)
    zero, few = score(WinClipConfig(), encoder, images), score(config, encoder, images, support=support)
    assert zero.maps is not None
    assert few.maps is not None

    def cosines(query: torch.Tensor, bank: torch.Tensor) -> NDArray[np.float64]:
        query, bank = query.double(), bank.double().flatten(0, 1)
        closest = [[float(F.cosine_similarity(q, b, dim=0)) for b in bank] for q in query]
        return np.array([(1 - max(each)) / 2 for each in closest])

    sets = {}
    for which, each in (("test", images), ("normal", support)):
        tokens = encoder.encode_images(each, layers=(2,)).tokens[2][:, 1:]
        visual: Any = encoder.model.visual
        patches = visual.ln_post(tokens) if place == "after" else tokens
        sets[which] = (patches, encode_windows(each, encoder, (2, 3), (4, 4)))
    for i in range(2):
        maps = [cosines(sets["test"][0][i], sets["normal"][0]).reshape(4, 4)]
        for side in (2, 3):
            far = cosines(sets["test"][1][side][i], sets["normal"][1][side])
            maps.append(spread(far, side, (4, 4)))
        expected = np.mean(maps, axis=0)
        np.testing.assert_allclose(few.maps[i], (zero.maps[i] + expected) / 2, rtol=1e-5)
        np.testing.assert_allclose(few.image[i], (zero.image[i] + expected.max()) / 2, rtol=1e-5)


def test_an_image_among_the_normal_ones_is_at_distance_0() -> None:
    encoder, images = tiny_clip(), images_of(2)
    zero, few = score(WinClipConfig(), encoder, images), score(PLUS, encoder, images, support=images)
    assert zero.maps is not None
    np.testing.assert_allclose(few.image, zero.image / 2, atol=1e-6)
    np.testing.assert_allclose(few.maps, zero.maps / 2, atol=1e-6)


# ---------------------------------------------------------------- options and promises


def test_image_scores_are_clips_with_the_same_sentences() -> None:
    encoder, images = pocket(), images_of(3)
    clip = Clip(ClipConfig(prompts="winclip", temperature=0.07)).score(images, tiny.context(encoder)).image
    ours = score(WinClipConfig(), encoder, images)
    np.testing.assert_allclose(ours.image, 1 / (1 + np.exp(-clip)), rtol=1e-6)
    by_map = score(WinClipConfig(image_score="map"), encoder, images)
    assert ours.maps is not None
    np.testing.assert_array_equal(by_map.image, ours.maps.max(axis=(1, 2)))


def test_number_and_order_of_images_change_nothing_but_rounding() -> None:
    encoder, support = pocket(), images_of(2, seed=5)
    both = tiny.noise(3, 70)
    images = tiny.image_set(both, ["thing", "metal_nut", "thing"], PROMPTS)
    for config in (WinClipConfig(), PLUS):
        CACHE.clear()
        whole = score(config, encoder, images, support=support)
        for order in ([2, 0, 1], [1], [0, 2]):
            CACHE.clear()
            part = score(config, encoder, images.subset(order), support=support)
            assert_agree(part, whole, order)


def test_nothing_is_encoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, images = tiny_clip(), images_of(3)
    first = score(WinClipConfig(), encoder, images)
    passes = CACHE.passes
    monkeypatch.setattr(encoder.model, "encode_text", None)
    second = score(WinClipConfig(), encoder, images)
    score(WinClipConfig(temperature=0.01), encoder, images)
    assert CACHE.passes == passes
    np.testing.assert_array_equal(first.maps, second.maps)


def test_the_label_stands_in_the_sentences_or_the_raw_name(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, asked = tiny_clip(), set[str]()
    encode = encoder.encode_text
    monkeypatch.setattr(encoder, "encode_text", lambda sentences: asked.update(sentences) or encode(sentences))
    score(WinClipConfig(), encoder, images_of(1, category="metal_nut"))
    assert "a photo of a metal nut." in asked
    assert len(asked) == 154 + 88
    asked.clear()
    score(WinClipConfig(name="category", templates="typo"), encoder, images_of(1, category="metal_nut"))
    assert "a photo of a metal_nut." in asked
    assert len(asked) == (147 - 7) + (84 - 4)  # one template stands there twice


def test_how_many_normal_images_are_used() -> None:
    encoder, images, support = tiny_clip(), images_of(1), images_of(3, seed=1)

    def maps(config: WinClipConfig, given: ImageSet | None = support) -> Any:
        return score(config, encoder, images, support=given).maps

    np.testing.assert_array_equal(maps(WinClipConfig()), maps(WinClipConfig(), None))
    np.testing.assert_array_equal(maps(WinClipConfig(k=3)), maps(PLUS))
    np.testing.assert_array_equal(maps(WinClipConfig(k=2)), maps(PLUS, support.subset([0, 1])))
    for one, other in ((WinClipConfig(), PLUS), (WinClipConfig(k=2), PLUS)):
        assert not np.array_equal(maps(one), maps(other))
    for given, count in ((None, 0), (support, 3)):
        with pytest.raises(NotApplicable, match=f"needs 4 normal images of the target and has {count}"):
            maps(WinClipConfig(k=4), given)


def test_traits_say_whether_normal_images_are_used() -> None:
    for config, few in ((WinClipConfig(), False), (PLUS, True), (WinClipConfig(k=4), True)):
        traits = WinClip.traits(config)
        assert (traits.support, traits.seeded, not traits.zero_shot) == (few, few, few)
        assert not traits.trained


def test_options() -> None:
    spec = "winclip[k=4,temperature=0.01,averaging=raw,templates=typo,windows=2+3+4,patch_tokens=before]"
    config = build_config(WinClipConfig, parse_spec(spec))
    assert config == WinClipConfig(
        k=4, temperature=0.01, averaging="raw", templates="typo", windows=(2, 3, 4), patch_tokens="before"
    )
    for wrong in ("k=-1", "temperature=0", "windows=0", "windows=2+2"):
        with pytest.raises(BenchError):
            build_config(WinClipConfig, parse_spec(f"winclip[{wrong}]"))
    with pytest.raises(BenchError, match="windows of 5 patches do not fit"):
        score(WinClipConfig(windows=(2, 5)), tiny_clip(), images_of(1))
