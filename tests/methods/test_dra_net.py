"""DRA's network, loss and training against the same computation in plain NumPy."""

from __future__ import annotations

import by_hand
import numpy as np
import pytest
import tiny
import torch
from by_hand import SIDE, Array
from parity import Parity

from bench.methods.dra import DRA, DRAScorer
from bench.methods.dra import net as dra_net
from bench.methods.shared import finetune

N_REF = 3
# By the published rules: 0 normal, 1 anomaly, 2 pseudo-anomaly.
LABELS = [0, 2, 1, 0, 2, 1, 0]


def network(side: int = SIDE, residual: bool = True, hidden: int = 6) -> dra_net.DRANetwork:
    generator = torch.Generator().manual_seed(5)
    net = dra_net.DRANetwork(
        tiny.backbone(image_size=side), n_scales=2, topk=0.1, hidden=hidden, residual=residual, generator=generator
    )
    if net.residual is not None:  # as after some training
        norm = net.residual.conv[1]
        assert isinstance(norm, torch.nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        with torch.no_grad():
            for value in (norm.weight, norm.running_var):
                value.uniform_(0.5, 2, generator=generator)
            for value in (norm.bias, norm.running_mean):
                value.uniform_(-1, 1, generator=generator)
    return net


class ByHand:
    """The network by the paper's equations; ``training`` decides which statistics BatchNorm uses."""

    def __init__(self, net: dra_net.DRANetwork) -> None:
        self.p = by_hand.parameters(net)
        self.trained = {name: self.p[name] for name, _ in net.named_parameters()}
        self.training = True
        self.signs: dict[str, set[float]] = {}

    def head(self, name: str, features: Array) -> tuple[Array, Array, Array]:
        """Scores, absolute map and signed map of a head with positions."""
        weight, bias = self.p[f"{name}.scoring.weight"], self.p[f"{name}.scoring.bias"]
        signed = np.einsum("bchw,c->bhw", features, weight[0, :, 0, 0]) + bias
        absolute = np.abs(signed)
        rows = [sorted(row.ravel())[::-1] for row in absolute]
        k = max(int(0.1 * len(rows[0])), 1)
        return np.array([np.mean(row[:k]) for row in rows]), absolute, signed

    def residual(self, difference: Array) -> Array:
        p = {name.removeprefix("residual.conv."): value for name, value in self.p.items()}
        hidden = by_hand.convolution(difference, p["0.weight"], p["0.bias"])
        mean, variance = p["1.running_mean"], p["1.running_var"]
        if self.training:
            mean, variance = hidden.mean(axis=(0, 2, 3)), hidden.var(axis=(0, 2, 3))
        return np.maximum(by_hand.normalised(hidden, mean, variance, p["1.weight"], p["1.bias"]), 0)

    def forward(self, images: Array, groups: list[int] | None = None) -> tuple[dict[str, Array], list[Array]]:
        """Scores of all heads, ``(B,)`` each, and per scale the three heads' absolute scores, summed."""
        scores: dict[str, list[Array]] = {name: [] for name in ("holistic", "seen", "pseudo", "residual")}
        maps = []
        count = N_REF * (1 if groups is None else max(groups) + 1)
        for step in (1, 2):
            features = by_hand.convolution(
                images[:, :, ::step, ::step], self.p["backbone.convolution.weight"], stride=2
            )
            references, features = features[:count], features[count:]
            means = references.reshape(-1, N_REF, *references.shape[1:]).mean(axis=1)
            means = means[[0] * len(features) if groups is None else groups]
            pooled = features.mean(axis=(2, 3)) @ self.p["holistic.fc1.weight"].T + self.p["holistic.fc1.bias"]
            normality = np.maximum(pooled, 0) @ self.p["holistic.fc2.weight"].T + self.p["holistic.fc2.bias"]
            scores["holistic"].append(np.abs(normality[:, 0]))
            total = np.zeros(())
            inputs = {"seen": features, "pseudo": features, "residual": self.residual(means - features)}
            for name, given in inputs.items():
                score, absolute, signed = self.head(name, given)
                self.signs[name] = set(np.sign(signed).ravel())
                scores[name].append(score)
                total = total + absolute
            maps.append(total)
        return {name: np.mean(values, axis=0) for name, values in scores.items()}, maps


def loss_by_hand(scores: dict[str, Array], references: list[Array]) -> float:
    total = 0.0
    for (name, values), prior in zip(scores.items(), references, strict=True):
        chosen = [i for i, label in enumerate(LABELS) if label != {"seen": 2, "pseudo": 1}.get(name)]
        targets = [(LABELS[i] == 0) if name == "holistic" else (LABELS[i] != 0) for i in chosen]
        total += by_hand.deviation_loss(values[chosen], targets, prior)
    return total


def batch(seed: int, groups: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(groups * N_REF + len(LABELS), 3, SIDE, SIDE, generator=generator)


def double(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


# ------------------------------------------------------------ the network in NumPy


def test_every_heads_score_and_the_maps_equal_numpy(parity: Parity) -> None:
    net, images = network(), batch(0)
    answers = net.answers_to(images, N_REF)
    hand = ByHand(net)
    expected, maps = hand.forward(double(images))
    for signs in hand.signs.values():
        assert signs == {-1, 1}  # so that leaving out the absolute value would show
    assert list(answers.scores) == list(expected)
    for name, values in expected.items():
        assert answers.scores[name].shape == (len(LABELS),)
        parity.equal(f"DRA: {name} head's scores in training", "NumPy", answers.scores[name], values, 1e-6)
    for found, scale in zip(answers.maps, maps, strict=True):
        parity.equal("DRA: maps", "NumPy", found[:, 0], scale, 1e-6)
    total = expected["seen"] + expected["pseudo"] + expected["residual"] - expected["holistic"]
    np.testing.assert_allclose(double(answers.anomaly), total, rtol=2e-5, atol=1e-5)


def test_at_test_the_learnt_statistics_count(parity: Parity) -> None:
    net, images = network(), batch(1)
    hand = ByHand(net)
    hand.training = False
    net.eval()
    features = net.features(images)
    means = [feature[:N_REF].mean(dim=0, keepdim=True) for feature in features]
    answers = net.answers([feature[N_REF:] for feature in features], means)
    expected, _ = hand.forward(double(images))
    for name, values in expected.items():
        parity.equal(f"DRA: {name} head's scores", "NumPy", answers.scores[name], values, 1e-6)


def test_groups_have_references_of_their_own() -> None:
    net, images, groups = network(), batch(2, groups=2), [0, 1, 1, 0, 0, 1, 0]
    expected, _ = ByHand(net).forward(double(images), groups)
    scores = net.answers_to(images, N_REF, torch.tensor(groups)).scores
    np.testing.assert_allclose(double(scores["residual"]), expected["residual"], rtol=2e-5)


def test_each_head_learns_from_its_subset(parity: Parity) -> None:
    generator = np.random.default_rng(0)
    scores = {name: generator.uniform(1, 4, len(LABELS)) for name in ("holistic", "seen", "pseudo", "residual")}
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in scores.items()}
    loss = dra_net.loss(tensors, torch.tensor(LABELS), torch.Generator().manual_seed(2), n_references=50)
    prior = torch.Generator().manual_seed(2)
    expected = loss_by_hand(scores, [double(torch.randn(50, generator=prior)) for _ in range(4)])
    parity.equal("DRA: loss", "NumPy", loss, expected, 1e-6)
    loss.backward()
    slopes = {name: tensor.grad.tolist() for name, tensor in tensors.items() if tensor.grad is not None}
    for i, label in enumerate(LABELS):
        assert (slopes["seen"][i] == 0) == (label == 2)
        assert (slopes["pseudo"][i] == 0) == (label == 1)
        assert np.sign(slopes["holistic"][i]) == (-1 if label == 0 else 1)
        assert np.sign(slopes["residual"][i]) == (1 if label == 0 else -1)
    without = {name: tensor for name, tensor in tensors.items() if name != "residual"}
    assert dra_net.loss(without, torch.tensor(LABELS), torch.Generator().manual_seed(2)) < loss


def test_targets_of_another_shape_are_refused() -> None:
    """``(B, 1)`` scores and ``(B,)`` targets would silently make a B times B loss."""
    scores, targets = torch.tensor([0.0, 5.0]), torch.tensor([0.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    assert finetune.deviation_loss(scores, targets, generator).item() < 0.2
    for wrong in (scores[:, None], scores[None]):
        with pytest.raises(ValueError, match="targets of shape"):
            finetune.deviation_loss(wrong, targets, generator)


def test_two_steps_of_training_equal_numpy(parity: Parity) -> None:
    """All gradients, clipping, weight decay, Adam's moments, and a rate that falls before the second epoch."""
    net = network(hidden=3)
    hand = ByHand(net)
    prior = torch.Generator().manual_seed(3)

    def loss_of_step(step: int) -> torch.Tensor:
        return dra_net.loss(net.answers_to(batch(step), N_REF).scores, torch.tensor(LABELS), prior, 5.0, 100)

    net.train()
    finetune.optimise(
        net.parameters(),
        loss_of_step,
        epochs=2,
        steps_per_epoch=1,
        lr=0.02,
        weight_decay=0.1,
        lr_step=2,
        lr_gamma=0.5,
        lr_ahead=True,
        clip=0.05,
        track=lambda steps, _: steps,
    )
    prior.manual_seed(3)
    adam = by_hand.Adam(hand.trained, 0.1, 0.05)
    for step, lr in enumerate((0.02, 0.01)):
        images = double(batch(step))
        references = [double(torch.randn(100, generator=prior)) for _ in range(4)]
        slopes = by_hand.gradients(lambda: loss_by_hand(hand.forward(images)[0], references), hand.trained)  # noqa: B023
        adam.step(slopes, lr)
    for name, value in net.named_parameters():
        parity.equal("DRA: parameters after two steps", "NumPy", value, hand.trained[name], 1e-5)


def test_references_count_in_the_backbones_statistics() -> None:
    module = tiny.Convolution(3, norm=True)
    backbone = tiny.backbone(module)
    generator = torch.Generator().manual_seed(0)
    net = dra_net.DRANetwork(backbone, n_scales=1, topk=0.1, hidden=2, residual=True, generator=generator)
    images = batch(0)
    net.train()
    net.answers_to(images, N_REF)
    weight = double(module.convolution.weight)
    mean = by_hand.convolution(double(images), weight, stride=2).mean(axis=(0, 2, 3))
    assert isinstance(module.norm, torch.nn.BatchNorm2d)
    assert module.norm.running_mean is not None
    np.testing.assert_allclose(double(module.norm.running_mean), 0.1 * mean, atol=1e-6)


def test_gradient_maps_are_gradients_of_the_anomaly_score(parity: Parity) -> None:
    side = 8
    net = network(side).eval()
    prepare = finetune.Preparation(tiny.backbone(), "cpu")
    references = batch(0)[:N_REF, :, :side, :side]
    config = DRA.Config(pixel_map="grad", grad_sigma=0.0)
    scorer = DRAScorer(net, prepare, side, references, config)
    pixels = torch.randint(0, 256, (2, 3, side, side), generator=torch.Generator().manual_seed(0)).byte()
    found = scorer.with_gradients(pixels)["maps"].double().numpy()
    hand = ByHand(net)
    hand.training = False
    values = {"image": double(prepare(pixels))[[1]]}

    def score() -> float:
        scores, _ = hand.forward(np.concatenate([double(references), values["image"]]))
        return float(scores["seen"][0] + scores["pseudo"][0] + scores["residual"][0] - scores["holistic"][0])

    slopes = by_hand.gradients(score, values)["image"][0]
    expected = np.abs(slopes).sum(axis=0).reshape(2, 4, 2, 4).mean(axis=(1, 3))
    parity.equal("DRA: gradient map", "finite differences in NumPy", found[1], expected, 1e-6)
