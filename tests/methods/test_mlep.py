"""MLEP's image adaptation against the same computation in plain NumPy, and its triplets."""

from __future__ import annotations

from typing import Any

import by_hand
import numpy as np
import pytest
import tiny
import torch
from agreement import assert_agree
from by_hand import SIDE, Array, blots
from numpy.typing import NDArray
from parity import Parity
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from bench.contracts import TrainingSet
from bench.errors import BenchError, NotApplicable
from bench.methods.mlep import MLEP, Triplets
from bench.methods.mlep.net import EmbedNet, ReconNet, margin_loss
from bench.methods.shared import finetune
from bench.methods.shared.pixels import load_pixels
from bench.tools.spec import build_config, parse_spec

T = 3  # triplets per batch


def batch(seed: int, count: int = 3 * T) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def double(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def embed_net(**options: Any) -> EmbedNet:
    config = MLEP.Config(**{"n_references": 100, **options})
    return EmbedNet(config, tiny.backbone(), torch.Generator().manual_seed(5))


def recon_net(**options: Any) -> ReconNet:
    config = MLEP.Config(**{"variant": "recon", "decoder_width": 32, **options})
    backbone = tiny.backbone()
    prepare = finetune.Preparation(backbone, "cpu")
    return ReconNet(config, backbone, prepare, torch.Generator().manual_seed(5))


# ------------------------------------------------------------ the margin


def margin_by_hand(features: Array, margin: float) -> float:
    triplets = features.reshape(3, -1, *features.shape[1:])
    intra = np.mean([(a - p) ** 2 for a, p in zip(triplets[0], triplets[1], strict=True)])
    inter = np.mean([(a - n) ** 2 for a, n in zip(triplets[0], triplets[2], strict=True)])
    return float(max(0.0, margin + intra - inter))


def test_the_margin_acts_on_the_means_of_the_batch() -> None:
    """An easy triplet makes up for a hard one, as in the original; a hinge per triplet would give 0.5."""
    anchors, positives = np.zeros((2, 4)), np.zeros((2, 4))
    negatives = np.array([[1.5] * 4, [0.0] * 4])
    features = np.concatenate([anchors, positives, negatives])
    assert margin_loss(torch.from_numpy(features), 1.0).item() == 0.0
    assert margin_loss(torch.from_numpy(features), 2.0).item() == pytest.approx(2 - 2.25 / 2)
    single = np.mean([margin_by_hand(features[i::2], 1.0) for i in range(2)])
    assert single == 0.5


@pytest.mark.parametrize("shape", [(3 * T, 5), (3 * T, 4, 2, 2)])
def test_the_margin_equals_numpy(shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(1).normal(0, 0.3, shape)
    found = margin_loss(torch.from_numpy(features), 1.0).item()
    assert found == pytest.approx(margin_by_hand(features, 1.0), rel=1e-12)
    assert found > 0


# ------------------------------------------------------------ variant embed


class ByHand:
    """Convolution, mean over positions, optional linear layer, linear score."""

    def __init__(self, net: EmbedNet) -> None:
        self.p = by_hand.parameters(net)
        self.trained = {name: self.p[name] for name, _ in net.named_parameters()}

    def embed(self, images: Array) -> Array:
        """``(B, E)``."""
        features = by_hand.convolution(images, self.p["backbone.convolution.weight"], stride=2)
        return self.project(features.mean(axis=(2, 3)))

    def project(self, features: Array) -> Array:
        if "project.weight" in self.p:
            return features @ self.p["project.weight"].T + self.p["project.bias"]
        return features

    def score(self, embedding: Array) -> Array:
        return embedding @ self.p["head.weight"][0] + self.p["head.bias"][0]

    def loss(self, images: Array, references: Array, weights: tuple[float, float]) -> float:
        embedding = self.embed(images)
        targets = [False] * (2 * T) + [True] * T
        deviation = by_hand.deviation_loss(self.score(embedding), targets, references)
        return weights[0] * margin_by_hand(embedding, 1.0) + weights[1] * deviation


@pytest.mark.parametrize("options", [{}, {"embed_dim": 2}, {"margin_weight": 0.3, "score_weight": 2.5}])
def test_loss_equals_numpy(options: dict[str, Any], parity: Parity) -> None:
    net, images = embed_net(**options), batch(0)
    references = double(torch.randn(100, generator=torch.Generator().manual_seed(2)))
    weights = (options.get("margin_weight", 1.0), options.get("score_weight", 1.0))
    expected = ByHand(net).loss(double(images), references, weights)
    found = net.loss(images, torch.Generator().manual_seed(2))
    parity.equal("MLEP: loss", "NumPy", found, expected, 1e-6)


def test_without_score_the_margin_alone_is_learnt() -> None:
    net, images = embed_net(score_weight=0.0, score="center"), batch(0)
    hand = ByHand(net)
    found = net.loss(images, torch.Generator()).item()
    assert found == pytest.approx(margin_by_hand(hand.embed(double(images)), 1.0), rel=1e-5)


@pytest.mark.parametrize("embed_dim", [0, 2])
def test_two_steps_of_training_equal_numpy(embed_dim: int, parity: Parity) -> None:
    net = embed_net(embed_dim=embed_dim)
    hand = ByHand(net)
    generator = torch.Generator().manual_seed(3)
    finetune.optimise(
        net.parameters(),
        lambda step: net.loss(batch(step), generator),
        epochs=2,
        steps_per_epoch=1,
        lr=0.02,
        weight_decay=0.1,
        lr_step=1,
        lr_gamma=0.5,
        clip=0.05,
        track=lambda steps, _: steps,
    )
    generator.manual_seed(3)
    adam = by_hand.Adam(hand.trained, 0.1, 0.05)
    for step, lr in enumerate((0.02, 0.01)):
        images = double(batch(step))
        references = double(torch.randn(100, generator=generator))
        slopes = by_hand.gradients(lambda: hand.loss(images, references, (1, 1)), hand.trained)  # noqa: B023
        adam.step(slopes, lr)
    for name, value in net.named_parameters():
        parity.equal("MLEP: parameters after two steps", "NumPy", value, hand.trained[name], 1e-5)


@pytest.mark.parametrize("embed_dim", [0, 2])
@pytest.mark.parametrize("score", ["head", "center"])
def test_scores_and_maps_equal_numpy(score: str, embed_dim: int, parity: Parity) -> None:
    net, images, seen = embed_net(embed_dim=embed_dim, score=score).eval(), batch(0, 5), batch(1, 4)
    if score == "center":
        net.look_at(net.embeddings(seen)["embedding"])
    hand = ByHand(net)
    found = net.score(images)
    embedding, centre = hand.embed(double(images)), hand.embed(double(seen)).mean(axis=0)
    features = by_hand.convolution(double(images), hand.p["backbone.convolution.weight"], stride=2)
    positions = hand.project(features.transpose(0, 2, 3, 1))
    if score == "head":
        expected, maps = hand.score(embedding), hand.score(positions)
        np.testing.assert_allclose(double(found["maps"]).mean(axis=(1, 2)), found["image"], rtol=1e-4, atol=1e-6)
    else:
        expected, maps = (np.sum((value - centre) ** 2, axis=-1) for value in (embedding, positions))
    parity.equal("MLEP: scores", "NumPy", found["image"], expected, 1e-5)
    parity.equal("MLEP: maps", "NumPy", found["maps"], maps, 1e-5)


def test_the_centre_is_the_mean_of_the_seen_normals() -> None:
    data = train()
    method = fitted(score="center", score_weight=0.0)
    net = method._network
    assert isinstance(net, EmbedNet) and method._prepare is not None
    normals = data.images.subset(np.flatnonzero(data.labels == 0))
    images = method._prepare(load_pixels(normals, SIDE))
    with torch.no_grad():
        expected = net.embed(net.backbone(images)).mean(dim=0)
    torch.testing.assert_close(net.centre, expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------ variant recon


def decode_by_hand(net: ReconNet, features: Array) -> Array:
    """A doubling by transposed convolution, instance norm and ReLU; a 7x7 convolution and tanh."""
    p = by_hand.parameters(net.decoder)
    count, _, height, width = features.shape
    weight = p["0.weight"]
    # Each input pixel adds its kernel around twice its place; padding 1 cuts the first row and column off.
    wide = np.zeros((count, weight.shape[1], 2 * height + 2, 2 * width + 2))
    for y in range(height):
        for x in range(width):
            patch = np.einsum("bc,cokl->bokl", features[:, :, y, x], weight)
            wide[:, :, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3] += patch
    hidden = wide[:, :, 1 : 2 * height + 1, 1 : 2 * width + 1] + p["0.bias"][:, None, None]
    mean, variance = hidden.mean(axis=(2, 3)), hidden.var(axis=(2, 3))
    hidden = np.maximum(by_hand.normalised(hidden, mean, variance, p["1.weight"], p["1.bias"]), 0)
    padded = np.pad(hidden, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (7, 7), axis=(2, 3))
    found: Array = np.tanh(np.einsum("bchwkl,ockl->bohw", windows, p["3.weight"]) + p["3.bias"][:, None, None])
    return found


def in_unit_range(images: torch.Tensor) -> Array:
    """Normalised images -> the values in [0, 1] that they were made of."""
    return double(images) * np.reshape(tiny.STD, (3, 1, 1)) + np.reshape(tiny.MEAN, (3, 1, 1))


def test_reconstruction_and_loss_equal_numpy(parity: Parity) -> None:
    net, images = recon_net(margin_weight=0.7), batch(0)
    weight = double(net.backbone.convolution.weight)  # type: ignore[union-attr, arg-type]
    features = by_hand.convolution(double(images), weight, stride=2)
    decoded = decode_by_hand(net, features)
    found = net.decode(torch.from_numpy(features).float(), SIDE)
    parity.equal("MLEP: reconstructions", "NumPy", found, decoded, 1e-5)
    wanted = 2 * in_unit_range(images) - 1
    errors = np.abs(decoded - wanted)
    expected = errors[:T].mean() + errors[T : 2 * T].mean() + 0.7 * margin_by_hand(features, 1.0)
    parity.equal("MLEP: loss of reconstruction", "NumPy", net.loss(images, torch.Generator()), expected, 1e-6)


def test_negatives_are_not_reconstructed() -> None:
    net, images = recon_net(margin_weight=0.0), batch(0)
    before = net.loss(images, torch.Generator()).item()
    images[2 * T :] += 1
    assert net.loss(images, torch.Generator()).item() == before
    images[: 2 * T] += 1
    assert net.loss(images, torch.Generator()).item() != before


def test_reconstruction_scores_equal_numpy(parity: Parity) -> None:
    net, images = recon_net(map_sigma=28.0).eval(), batch(0, 4)
    found = net.score(images)
    features = net.backbone(images)
    decoded = (decode_by_hand(net, double(features)) + 1) / 2  # in [0, 1], as the original's PSNR
    errors = ((decoded - in_unit_range(images)) ** 2).mean(axis=1)
    parity.equal("MLEP: scores of reconstruction", "NumPy", found["image"], errors.mean(axis=(1, 2)), 1e-5)
    smooth = np.stack([gaussian_filter(error, 28 * SIDE / 448, mode="mirror") for error in errors])
    expected = smooth.reshape(4, SIDE // 4, 4, SIDE // 4, 4).mean(axis=(2, 4))
    parity.equal("MLEP: maps of reconstruction", "NumPy", found["maps"], expected, 1e-5)


@pytest.mark.parametrize(("stride", "side", "widths"), [(1, 8, []), (8, 24, [64, 32, 32]), (2, 15, [64])])
def test_the_decoder_doubles_as_often_as_the_backbone_halves(stride: int, side: int, widths: list[int]) -> None:
    backbone = tiny.backbone(torch.nn.AvgPool2d(stride, ceil_mode=True))
    backbone = type(backbone)(**{**vars(backbone), "stride": stride})
    prepare = finetune.Preparation(backbone, "cpu")
    config = MLEP.Config(variant="recon", decoder_width=64)
    net = ReconNet(config, backbone, prepare, torch.Generator().manual_seed(0))
    ups = [layer for layer in net.decoder if isinstance(layer, torch.nn.ConvTranspose2d)]
    assert [up.out_channels for up in ups] == widths
    images = torch.rand(2, 3, side, side)
    decoded = net.decode(net.backbone(images), side)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1


# ------------------------------------------------------------ triplets


def train(count: int = 24, seed: int = 0, categories: list[str] | None = None) -> TrainingSet:
    return tiny.training_set(*blots(count, seed, categories))


def test_triplets_stay_within_a_seen_category_unless_crossed() -> None:
    names = [("red", "green", "blue")[i % 7 % 3] for i in range(42)]
    data = train(42, categories=names)
    for cross in (False, True):
        triplets = Triplets(data, cross, torch.Generator().manual_seed(0))
        mixed = 0
        negatives: list[int] = []
        for _ in range(20):
            drawn = triplets.take(7).reshape(3, 7).T.tolist()
            for anchor, positive, negative in drawn:
                assert [data.labels[i] for i in (anchor, positive, negative)] == [0, 0, 1]
                mixed += len({names[anchor], names[positive], names[negative]}) > 1
            negatives += [negative for *_, negative in drawn]
        assert (mixed > 0) == cross
        assert np.bincount(negatives)[::3].tolist() == [10] * 14  # each anomaly equally often


def test_anchor_and_positive_are_two_images() -> None:
    # 5 normals and one anomaly: pairs out of passes of 5 meet across their ends
    data = tiny.training_set(blots(6, 0)[0], [1, 0, 0, 0, 0, 0])
    drawn = Triplets(data, False, torch.Generator().manual_seed(0)).take(50).reshape(3, 50)
    assert (drawn[0] == drawn[1]).float().mean() < 0.1
    assert set(drawn[:2].flatten().tolist()) == {1, 2, 3, 4, 5}


def test_a_category_without_normals_gives_no_triplet() -> None:
    images, _ = blots(6, 0, ["red"] * 3 + ["blue"] * 3)
    triplets = Triplets(tiny.training_set(images, [1, 0, 0, 1, 1, 1]), False, torch.Generator())
    assert set(triplets.take(5)[10:].tolist()) == {0}
    apart = tiny.training_set(images, [0, 0, 0, 1, 1, 1])
    assert len(Triplets(apart, True, torch.Generator()).take(4)) == 12
    with pytest.raises(NotApplicable, match="of one category"):
        Triplets(apart, False, torch.Generator())


# ------------------------------------------------------------ the method


def fitted(seed: int = 1, frozen_norm: bool = False, **options: Any) -> MLEP:
    defaults = {"epochs": 1, "steps_per_epoch": 3, "batch_size": 9, "decoder_width": 32}
    method = MLEP(MLEP.Config(**{**defaults, **options}))
    backbone = tiny.backbone(tiny.Convolution(4, norm=True), channels=4, frozen_norm=frozen_norm)
    method.fit(train(), tiny.context(network=backbone, seed=seed))
    return method


def test_it_learns_to_find_blots() -> None:
    method = fitted(epochs=20, steps_per_epoch=4, batch_size=12, lr=1e-2, lr_step=15)
    images, labels = blots(30, 1)
    scores = method.score(images, tiny.context())
    assert roc_auc_score(labels, scores.image) > 0.9
    assert scores.maps is not None
    assert scores.maps.shape == (30, 8, 8)


VARIANTS: list[dict[str, Any]] = [{}, {"score": "center"}, {"variant": "recon"}]


@pytest.mark.parametrize("options", VARIANTS)
def test_number_and_order_of_images_change_nothing_but_rounding(options: dict[str, Any]) -> None:
    method = fitted(**options)
    images, _ = blots(20, 1)
    whole = method.score(images, tiny.context())
    assert whole.maps is not None
    assert whole.maps.shape == ((20, 4, 4) if "variant" in options else (20, 8, 8))
    for order in ([*range(19, -1, -1)], [7], [3, 18, 4]):
        some = method.score(images.subset(order), tiny.context())
        assert_agree(some, whole, order)


@pytest.mark.parametrize("options", VARIANTS)
def test_it_is_repeatable_and_depends_on_its_seed(options: dict[str, Any]) -> None:
    images, _ = blots(5, 1)

    def scores(seed: int) -> NDArray[np.float32]:
        return fitted(seed, **options).score(images, tiny.context()).image

    first = scores(1)
    torch.manual_seed(99)
    assert np.array_equal(scores(1), first)
    assert not np.array_equal(scores(2), first)


@pytest.mark.parametrize("variant", ["embed", "recon"])
def test_frozen_statistics_stay(variant: str) -> None:
    for frozen in (False, True):
        network = fitted(variant=variant, frozen_norm=frozen)._network
        assert network is not None and isinstance(network.backbone, tiny.Convolution)
        assert torch.equal(network.backbone.norm.running_mean, torch.zeros(4)) == frozen  # type: ignore[arg-type]


def test_the_rate_falls_after_every_ten_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    recipes: list[dict[str, Any]] = []
    original = finetune.optimise
    monkeypatch.setattr(finetune, "optimise", lambda parameters, loss, **recipe: recipes.append(recipe))
    MLEP(MLEP.Config()).fit(train(), tiny.context(network=tiny.backbone()))
    found = by_hand.rates(original, **recipes[0])
    np.testing.assert_allclose(found, [2e-4] * 10 + [2e-5] * 10 + [2e-6] * 10, rtol=1e-3)


def test_its_traits_say_that_the_adaptation_is_ours() -> None:
    for variant, word in (("embed", "deviation loss"), ("recon", "reconstruction")):
        traits = MLEP.traits(build_config(MLEP.Config, parse_spec(f"mlep[variant={variant}]")))
        assert "our own image adaptation" in traits.adapted
        assert word in traits.adapted
        assert traits.zero_shot and not traits.support


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("batch_size=2", "one triplet"),
        ("epochs=0", "at least 1"),
        ("score_weight=-1", "at least 0"),
        ("score_weight=0", "needs score=center"),
        ("variant=recon,score=center", "belong to variant=embed"),
        ("variant=recon,embed_dim=8", "belong to variant=embed"),
    ],
)
def test_options_that_are_refused(options: str, reason: str) -> None:
    with pytest.raises(BenchError, match=reason):
        build_config(MLEP.Config, parse_spec(f"mlep[{options}]"))


def test_the_default_recipe() -> None:
    config = MLEP.Config()
    recipe = (config.epochs, config.steps_per_epoch, config.batch_size, config.lr, config.weight_decay)
    assert recipe == (30, 20, 48, 2e-4, 1e-5)
    assert (config.variant, config.score, config.margin, config.margin_weight) == ("embed", "head", 1, 1)
    assert (config.lr_step, config.lr_gamma, config.clip, config.rotation) == (10, 0.1, 1, 180)
    assert not config.cross_class
