"""DRA's batches, references and pseudo-anomalies, and the method; its network is in test_dra_net.py."""

from __future__ import annotations

from typing import Any

import by_hand
import numpy as np
import pytest
import tiny
import torch
from agreement import assert_agree
from by_hand import SIDE, blots
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from bench.contracts import TrainingSet
from bench.errors import BenchError, NotApplicable
from bench.methods.dra import DRA
from bench.methods.dra import batches as dra_batches
from bench.methods.dra import net as dra_net
from bench.methods.dra.batches import Batches, Cut, cutmix, draw_cut
from bench.methods.shared import finetune
from bench.methods.shared.pixels import load_pixels
from bench.tools.spec import build_config, parse_spec

N_REF = 3


# ------------------------------------------------------------ pseudo-anomalies


def test_cuts_have_the_published_size_and_shape() -> None:
    generator = torch.Generator().manual_seed(0)
    cuts = [draw_cut(448, generator, (0.02, 0.15), 0.3) for _ in range(2000)]
    areas = np.array([cut.height * cut.width for cut in cuts]) / 448**2
    logs = np.log([cut.width / cut.height for cut in cuts]) / np.log(1 / 0.3)
    # Rounding moves a side by half a pixel; the shortest, sqrt(0.02 * 0.3) * 448, is 34.7 of them.
    assert areas.min() > 0.02 * (1 - 0.5 / 34) ** 2
    assert areas.max() < 0.15 * (1 + 0.5 / 34) ** 2
    assert abs(logs).max() < 1 + 0.02
    # both even over their range: quartiles within four standard errors
    for values, low, high in ((areas, 0.02, 0.15), (logs, -1.0, 1.0)):
        quartiles = (np.quantile(values, [0.25, 0.5, 0.75]) - low) / (high - low)
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=4 * 0.5 / np.sqrt(len(cuts)))
    places = np.array([(cut.source, cut.target) for cut in cuts])
    sides = np.array([(cut.height, cut.width) for cut in cuts])[:, None]
    assert places.min() == 0
    assert 440 < (places + sides).max() <= 448
    relative = (places / (448 - sides)).mean(axis=0)
    np.testing.assert_allclose(relative, 0.5, atol=4 * 0.29 / np.sqrt(len(cuts)))


def test_the_largest_cut_fits() -> None:
    for seed in range(20):
        cut = draw_cut(9, torch.Generator().manual_seed(seed), (1.0, 1.0), 0.01)
        assert 1 <= cut.height <= 9
        assert 1 <= cut.width <= 9
        assert cut.source[0] + cut.height <= 9


def test_only_the_pasted_rectangle_changes_and_comes_from_the_same_image() -> None:
    image = torch.arange(3 * 24 * 24).reshape(3, 24, 24).remainder(251).byte()
    before = image.clone()
    cut = Cut(height=5, width=8, source=(2, 3), target=(12, 10))
    generator = torch.Generator().manual_seed(0)
    pasted = cutmix(image, cut, 0.0, generator)
    assert torch.equal(image, before)
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[12:17, 10:18] = True
    changed = (pasted != image).any(dim=0)
    assert torch.equal(changed, inside)
    assert torch.equal(pasted[:, 12:17, 10:18], image[:, 2:7, 3:11])
    jittered = cutmix(image, cut, 0.1, generator)
    assert torch.equal(jittered[:, ~inside], image[:, ~inside])
    assert not torch.equal(jittered, pasted)
    assert not torch.equal(cutmix(image, cut, 0.1, generator), jittered)  # drawn anew each time


def test_colours_change_as_pillows_but_for_a_grey_level() -> None:
    from torchvision.transforms import functional

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    whole = Cut(16, 16, (0, 0), (0, 0))
    orders = []
    for seed in range(6):
        found = cutmix(image, whole, 0.1, torch.Generator().manual_seed(seed))
        generator = torch.Generator().manual_seed(seed)
        changes = ((torch.rand(4, generator=generator) * 2 - 1) * 0.1).tolist()
        order = torch.randperm(4, generator=generator).tolist()
        orders.append(order)
        expected = Image.fromarray(pixels)
        for change in order:
            expected = (
                functional.adjust_brightness(expected, 1 + changes[0]),
                functional.adjust_contrast(expected, 1 + changes[1]),
                functional.adjust_saturation(expected, 1 + changes[2]),
                functional.adjust_hue(expected, changes[3]),
            )[change]
        difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - np.asarray(expected).astype(int))
        assert difference.mean() < 2.5
    assert len({tuple(order) for order in orders}) > 1
    for adjust in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
        for factor in (0.9, 0.95, 1.1):
            ours = adjust(image, factor).permute(1, 2, 0).numpy().astype(int)
            pillows = np.asarray(adjust(Image.fromarray(pixels), factor)).astype(int)
            assert np.abs(ours - pillows).max() <= 1


# ------------------------------------------------------------ batches and references


def train(count: int = 24, seed: int = 0, categories: list[str] | None = None) -> TrainingSet:
    return tiny.training_set(*blots(count, seed, categories))


def batches(data: TrainingSet, n_ref: int = N_REF, **options: Any) -> Batches:
    config = DRA.Config(**{"batch_size": 9, "rotation": 0.0, **options})
    prepare = finetune.Preparation(tiny.backbone(), "cpu")
    pixels = load_pixels(data.images, SIDE)
    return Batches(config, data, pixels, prepare, n_ref, torch.Generator().manual_seed(4))


def test_batches_are_two_thirds_normal_or_pseudo_and_one_third_anomalous() -> None:
    data = train(30)
    source = batches(data)
    drawn = [source.draw() for _ in range(100)]
    for chosen, labels in drawn:
        assert labels.shape == (9,)
        assert labels[6:].tolist() == [1, 1, 1]
        assert set(labels[:6].tolist()) <= {0, 2}
        assert data.labels[chosen.numpy()].tolist() == [0] * 6 + [1] * 3
    share = torch.stack([labels[:6] == 2 for _, labels in drawn]).double().mean().item()
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(600))
    anomalies = torch.cat([chosen[6:] for chosen, _ in drawn])
    assert anomalies.bincount()[::3].tolist() == [30] * 10  # each equally often
    for probability, label in ((0.0, 0), (1.0, 2)):
        _, labels = batches(data, pseudo_probability=probability).draw()
        assert set(labels[:6].tolist()) == {label}


def test_pseudo_anomalies_are_their_own_images_with_a_rectangle_changed() -> None:
    data = train()
    source = batches(data, ref_source="none", ref_train="none")
    plain = source.prepare(source.pixels)
    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    draw = source.draw

    def watched() -> tuple[torch.Tensor, torch.Tensor]:
        drawn.append(draw())
        return drawn[-1]

    source.draw = watched  # type: ignore[method-assign]
    changed_some = False
    for _ in range(5):
        images, labels, groups = source.batch()
        assert groups is None
        for image, number, label in zip(images, drawn[-1][0], labels, strict=True):
            changed = (image != plain[number]).any(dim=0).nonzero()
            if label != 2:
                assert len(changed) == 0
            elif len(changed):
                changed_some = True
                sides = changed.max(dim=0).values - changed.min(dim=0).values + 1
                assert sides.prod() <= 0.15 * SIDE**2 * 1.4  # rounding: the sides are a few pixels long
    assert changed_some
    assert torch.equal(source.prepare(source.pixels), plain)


def test_references_are_clean_normals_unless_wished_otherwise() -> None:
    data = train(12)
    normals = np.flatnonzero(data.labels == 0)
    for clean in (True, False):
        source = batches(data, n_ref=len(normals), ref_clean=clean, rotation=180.0)
        plain = source.prepare(source.pixels[normals])
        found = source.from_pool()
        matches = [(row == plain).flatten(1).all(dim=1).nonzero()[:, 0].tolist() for row in found]
        assert (sorted(matches) == [[i] for i in range(len(normals))]) == clean
    assert torch.equal(source.prepare(source.pixels[normals]), plain)  # originals untouched


def test_unclean_references_are_half_pseudo_anomalies(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Cut] = []

    def watched(image: torch.Tensor, cut: Cut, *rest: Any) -> torch.Tensor:
        made.append(cut)
        return cutmix(image, cut, *rest)

    monkeypatch.setattr(dra_batches, "cutmix", watched)
    source = batches(train(), n_ref=400, ref_clean=False)
    source.from_pool()
    assert len(made) == pytest.approx(200, abs=4 * 10)


def test_references_of_the_same_category() -> None:
    names = ["red" if i % 2 else "blue" for i in range(24)]
    data = train(24, categories=names)
    source = batches(data, ref_train="seen_same_class")
    for _ in range(5):
        chosen, _ = source.draw()
        references, groups = source.of_same_category(chosen)
        assert len(references) == N_REF * (int(groups.max()) + 1)
        for number, group in zip(chosen.tolist(), groups.tolist(), strict=True):
            own = references[group * N_REF : (group + 1) * N_REF].tolist()
            assert {names[i] for i in own} == {names[number]}
            assert not data.labels[own].any()
    images, labels, groups_or_none = source.batch()
    assert groups_or_none is not None
    assert len(images) == N_REF * (int(groups_or_none.max()) + 1) + len(labels)


# ------------------------------------------------------------ the method


def fitted(seed: int = 1, support: Any = None, frozen_norm: bool = False, **options: Any) -> DRA:
    defaults = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 9, "hidden": 8}
    method = DRA(DRA.Config(**{**defaults, **options}))
    backbone = tiny.backbone(tiny.Convolution(4, norm=True), channels=4, frozen_norm=frozen_norm)
    method.fit(train(), tiny.context(network=backbone, seed=seed, support=support))
    return method


def test_it_learns_to_find_blots() -> None:
    method = fitted(epochs=15, steps_per_epoch=4, batch_size=12, lr=5e-3)
    images, labels = blots(30, 1)
    scores = method.score(images, tiny.context())
    assert roc_auc_score(labels, scores.image) > 0.9
    assert scores.maps is not None
    assert scores.maps.shape == (30, 8, 8)
    pixels = np.stack([image.mean(-1) > 150 for image in images])[:, ::2, ::2]
    assert roc_auc_score(pixels.ravel(), scores.maps.ravel()) > 0.8


@pytest.mark.parametrize("options", [{}, {"pixel_map": "grad"}, {"ref_clean": False}, {"ref_source": "none"}])
def test_number_and_order_of_images_change_nothing_but_rounding(options: dict[str, Any]) -> None:
    method = fitted(**options)
    images, _ = blots(20, 1)
    whole = method.score(images, tiny.context())
    assert whole.maps is not None
    assert whole.maps.shape == ((20, 4, 4) if "pixel_map" in options else (20, 8, 8))
    for order in ([*range(19, -1, -1)], [7], [3, 18, 4]):
        some = method.score(images.subset(order), tiny.context())
        assert_agree(some, whole, order)


@pytest.mark.parametrize("source", ["seen_pool", "target"])
def test_references_of_the_test_are_drawn_once(source: str) -> None:
    """With as many references as there are normals, their mean is that of all of them."""
    data, support = train(), blots(2, 9)[0].subset([1])
    normals = np.flatnonzero(data.labels == 0)
    method = fitted(ref_source=source, n_ref=len(normals), support=support)
    scorer = method._scorer
    assert scorer is not None and scorer.means is not None
    images = support if source == "target" else data.images.subset(normals)
    pixels = scorer.prepare(load_pixels(images, SIDE))
    with torch.no_grad():
        expected = [feature.mean(dim=0, keepdim=True) for feature in scorer.network.features(pixels)]
    for found, wanted in zip(scorer.means, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    kept = [mean.clone() for mean in scorer.means]
    method.score(blots(5, 1)[0], tiny.context())
    assert all(torch.equal(one, other) for one, other in zip(scorer.means, kept, strict=True))


def test_training_uses_as_many_references_as_the_target_has(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    original = dra_net.DRANetwork.answers_to

    def watched(self: dra_net.DRANetwork, images: torch.Tensor, n: int, groups: Any = None) -> Any:
        counts.append((len(images), n))
        return original(self, images, n, groups)

    monkeypatch.setattr(dra_net.DRANetwork, "answers_to", watched)
    fitted(ref_source="target", support=blots(2, 9)[0])
    fitted(ref_source="none", ref_train="none")
    assert counts == [(11, 2)] * 3 + [(9, 0)] * 3


def test_without_references_the_residual_head_is_left_out() -> None:
    images, _ = blots(4, 1)
    trained = fitted(ref_source="none")
    scorer = trained._scorer
    assert scorer is not None and scorer.means is None
    assert scorer.network.residual is not None  # trained all the same
    with torch.no_grad():
        features = scorer.network.features(scorer.prepare(load_pixels(images, SIDE)))
        scores = scorer.network.answers(features, None).scores
    assert list(scores) == ["holistic", "seen", "pseudo"]
    expected = scores["seen"] + scores["pseudo"] - scores["holistic"]
    np.testing.assert_allclose(trained.score(images, tiny.context()).image, expected, rtol=1e-5, atol=1e-6)
    never = fitted(ref_source="none", ref_train="none")._scorer
    assert never is not None and never.network.residual is None


def test_features_are_what_the_heads_with_positions_score() -> None:
    """Of averaged features a linear head gives the average of its signed scores, over positions and scales."""
    method = fitted()
    images, _ = blots(20, 1)
    features = method.features(images, tiny.context())
    assert method._scorer is not None
    net = method._scorer.network
    pixels = method._scorer.prepare(load_pixels(images, SIDE))
    with torch.no_grad():
        scales = [net.backbone(scaled) for scaled in (pixels, pixels[:, :, ::2, ::2])]
        signed = [net.seen.scoring(scale).mean((1, 2, 3)) for scale in scales]
        whole = net.seen.scoring(torch.from_numpy(features)[:, :, None, None])[:, 0, 0, 0]
    np.testing.assert_allclose(whole, torch.stack(signed).mean(0), rtol=1e-5, atol=1e-6)


def test_it_is_repeatable_and_depends_on_its_seed() -> None:
    images, _ = blots(5, 1)

    def scores(seed: int) -> NDArray[np.float32]:
        return fitted(seed, ref_clean=False).score(images, tiny.context()).image

    first = scores(1)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    assert np.array_equal(scores(1), first)
    assert not np.array_equal(scores(2), first)


def test_the_residual_heads_statistics_are_learnt_though_the_backbones_are_frozen() -> None:
    scorer = fitted(frozen_norm=True)._scorer
    assert scorer is not None and scorer.network.residual is not None
    backbone, norm = scorer.network.backbone, scorer.network.residual.conv[1]
    assert isinstance(backbone, tiny.Convolution)
    assert torch.equal(backbone.norm.running_mean, torch.zeros(4))  # type: ignore[arg-type]
    assert not torch.equal(norm.running_mean, torch.zeros(4))  # type: ignore[arg-type]


def test_the_rate_falls_in_epochs_9_19_and_29(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes: list[dict[str, Any]] = []
    original = finetune.optimise
    monkeypatch.setattr(finetune, "optimise", lambda parameters, loss, **recipe: recipes.append(recipe))
    for options in ({}, {"lr_ahead": False}):
        method = DRA(DRA.Config(**options))
        method.fit(train(), tiny.context(network=tiny.backbone()))
    official, usual = (by_hand.rates(original, **recipe) for recipe in recipes)
    expected = [2e-4] * 9 + [2e-5] * 10 + [2e-6] * 10 + [2e-7]
    np.testing.assert_allclose(official, expected, rtol=1e-3)
    np.testing.assert_allclose(usual, [2e-4] * 10 + [2e-5] * 10 + [2e-6] * 10, rtol=1e-3)


def test_what_it_needs() -> None:
    images, _ = blots(4, 0)
    for labels in ([0] * 4, [1] * 4):
        with pytest.raises(NotApplicable, match="normal and anomalous"):
            DRA(DRA.Config()).fit(tiny.training_set(images, labels), tiny.context())
    with pytest.raises(NotApplicable, match="normal images of the target"):
        DRA(DRA.Config(ref_source="target")).fit(train(), tiny.context())


def test_traits_say_where_references_come_from() -> None:
    pool, target = (DRA.traits(DRA.Config(ref_source=source)) for source in ("seen_pool", "target"))
    assert (pool.zero_shot, pool.support) == (True, False)
    assert (target.zero_shot, target.support) == (False, True)
    assert "target's normals" in target.adapted
    assert "gradients" in DRA.traits(DRA.Config(pixel_map="grad")).adapted


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("batch_size=1", "at least 2"),
        ("n_ref=0", "at least 1"),
        ("topk=0", "above 0"),
        ("cut_aspect=2", "at most 1"),
        ("cut_area=0.2+0.1", "the smaller first"),
        ("cut_area=0.2", "two parts"),
        ("cut_jitter=0.6", "colour circle"),
        ("pseudo_probability=2", "from 0 to 1"),
        ("ref_train=none", "needs ref_source=none"),
    ],
)
def test_options_that_are_refused(options: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        build_config(DRA.Config, parse_spec(f"dra[{options}]"))


def test_the_default_recipe_is_the_official_one() -> None:
    config = DRA.Config()
    recipe = (config.epochs, config.steps_per_epoch, config.batch_size, config.lr, config.weight_decay)
    assert recipe == (30, 20, 48, 2e-4, 1e-5)
    assert (config.margin, config.n_references, config.topk, config.n_scales, config.hidden) == (
        5,
        5000,
        0.1,
        2,
        256,
    )
    assert (config.lr_step, config.lr_gamma, config.lr_ahead, config.clip) == (10, 0.1, True, 1)
    assert (config.n_ref, config.pseudo_probability, config.rotation) == (5, 0.5, 180)
    assert (config.cut_area, config.cut_aspect, config.cut_jitter) == ((0.02, 0.15), 0.3, 0.1)
    assert config.ref_clean  # the one default that is not
