"""DevNet against its authors' modules, on the same weights and images; see golden/README.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import recipes
import tiny
import torch
from parity import Parity, golden

from bench.encoders import identify, load_backbone
from bench.methods.devnet import DevNet, DevNetNetwork
from bench.methods.shared import finetune

SIDE = 96
LIMIT = 1e-9  # both sides compute in double precision
AUTHORS = "mala-lab/deviation-network-image"
THEIRS = golden("devnet")
NAMES = {
    "head.": "conv.",
    "backbone.": "feature_extractor.net.",
    "backbone.0.": "feature_extractor.net.conv1.",
    "backbone.1.": "feature_extractor.net.bn1.",
    **{f"backbone.{3 + i}.": f"feature_extractor.net.layer{i}." for i in (1, 2, 3, 4)},
}


@pytest.fixture
def prior(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.Tensor]:
    """The draws from the prior that the authors' losses were given, one after another."""
    draws = iter(torch.from_numpy(recipes.uniform((3, 5000), 2)) * 3**0.5)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(draws))
    return draws


def network() -> DevNetNetwork:
    backbone = load_backbone(identify("torchvision/resnet18[weights=random]"))
    found = DevNetNetwork(DevNet.Config(topk=0.3), tiny.context(network=backbone), torch.Generator())
    found.modules.double()
    recipes.fill(found.modules, NAMES)
    return found


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return 3 * recipes.images(4, SIDE, 1).double() - 1.5, torch.tensor([0, 1, 0, 0])


def test_scores_and_gradient_map(parity: Parity) -> None:
    net = network()
    net.modules.eval()
    images = batch()[0].requires_grad_()
    scores, _ = net(images)
    parity.equal("DevNet: scores", AUTHORS, scores, THEIRS["scores"], LIMIT)
    found = finetune.gradient_maps(scores, images, 4.0)[0]
    parity.equal("DevNet: gradient map", AUTHORS, recipes.some(found, 16), THEIRS["map"], LIMIT)


def test_loss_and_its_gradient(parity: Parity, prior: Iterator[torch.Tensor]) -> None:
    net, (images, labels) = network(), batch()
    net.modules.train()
    scores, _ = net(images)
    parity.equal("DevNet: scores in training", AUTHORS, scores, THEIRS["training_scores"], LIMIT)
    loss = finetune.deviation_loss(scores, labels, torch.Generator())
    parity.equal("DevNet: loss", AUTHORS, loss, THEIRS["loss"], LIMIT)
    loss.backward()
    ours = {name: value.grad for name, value in net.modules.named_parameters()}
    for name, known in (
        ("backbone.0.weight", "feature_extractor.net.conv1.weight"),
        ("backbone.7.1.bn2.bias", "feature_extractor.net.layer4.1.bn2.bias"),
        ("head.weight", "conv.weight"),
        ("head.bias", "conv.bias"),
    ):
        gradient = ours[name]
        assert gradient is not None
        parity.equal("DevNet: gradients", AUTHORS, recipes.some(gradient), THEIRS["gradients"][known], LIMIT)


def test_two_steps_of_training(parity: Parity, prior: Iterator[torch.Tensor]) -> None:
    net, (images, labels), config = network(), batch(), DevNet.Config()
    next(prior)  # the loss above had the first draws

    def loss_of_step(step: int) -> torch.Tensor:
        return finetune.deviation_loss(net(images)[0], labels, torch.Generator())

    net.modules.train()
    finetune.optimise(
        net.modules.parameters(),
        loss_of_step,
        epochs=2,
        steps_per_epoch=1,
        lr=config.lr,
        weight_decay=config.weight_decay,
        lr_step=config.lr_step,
        lr_gamma=config.lr_gamma,
        clip=config.clip,
        track=lambda steps, _: steps,
    )
    net.modules.eval()
    with torch.no_grad():
        scores, _ = net(images)
    parity.equal("DevNet: scores after two steps", AUTHORS, scores, THEIRS["trained_scores"], LIMIT)
