"""DRA against its authors' modules, on the same weights and images; see golden/README.md."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import recipes
import torch
from parity import Parity, golden

from bench.encoders import identify, load_backbone
from bench.methods.dra import DRA
from bench.methods.dra import net as dra_net
from bench.methods.dra.batches import draw_cut
from bench.methods.shared import finetune

SIDE, N_REF, HEADS = 96, 3, ("holistic", "seen", "pseudo", "residual")
LABELS = torch.tensor([0, 2, 1, 0, 2, 1])
AUTHORS = "Choubo/DRA"
LIMIT = 1e-9  # both sides compute in double precision
THEIRS = golden("dra")
NAMES = {
    "holistic.": "holistic_head.",
    "seen.": "seen_head.",
    "pseudo.": "pseudo_head.",
    "residual.": "composite_head.",
    "backbone.0.": "feature_extractor.net.conv1.",
    "backbone.1.": "feature_extractor.net.bn1.",
    **{f"backbone.{3 + i}.": f"feature_extractor.net.layer{i}." for i in (1, 2, 3, 4)},
}


@pytest.fixture
def prior(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.Tensor]:
    """The draws from the prior that the authors' losses were given, one after another."""
    draws = iter(torch.from_numpy(recipes.uniform((4 + 8, 5000), 4)) * 3**0.5)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: next(draws))
    return draws


def network() -> dra_net.DRANetwork:
    found = dra_net.DRANetwork(
        load_backbone(identify("torchvision/resnet18[weights=random]")),
        n_scales=2,
        topk=0.3,
        hidden=256,
        residual=True,
        generator=torch.Generator(),
    ).double()
    recipes.fill(found, NAMES)
    return found


def batch() -> torch.Tensor:
    """The references, then an image for each label."""
    return 3 * recipes.images(N_REF + len(LABELS), SIDE, 3).double() - 1.5


def scores_of(net: dra_net.DRANetwork) -> torch.Tensor:
    """``(4, B)`` at test."""
    net.eval()
    with torch.no_grad():
        features = net.features(batch())
        means = [feature[:N_REF].mean(dim=0, keepdim=True) for feature in features]
        scores = net.answers([feature[N_REF:] for feature in features], means).scores
    return torch.stack([scores[head] for head in HEADS])


def test_each_heads_score(parity: Parity) -> None:
    for head, ours, theirs in zip(HEADS, scores_of(network()), THEIRS["scores"], strict=True):
        parity.equal(f"DRA: {head} head's scores", AUTHORS, ours, theirs, LIMIT)


def test_losses_and_their_gradient(parity: Parity, prior: Iterator[torch.Tensor]) -> None:
    net = network().train()
    scores = net.answers_to(batch(), N_REF).scores
    subsets = {"seen": LABELS != 2, "pseudo": LABELS != 1}
    for head, theirs in zip(HEADS, THEIRS["training_scores"], strict=True):
        ours = scores[head][subsets.get(head, LABELS >= 0)]
        parity.equal(f"DRA: {head} head's scores in training", AUTHORS, ours, theirs, LIMIT)
    loss = dra_net.loss(scores, LABELS, torch.Generator())
    parity.equal("DRA: loss", AUTHORS, loss, np.sum(THEIRS["losses"]), LIMIT)
    loss.backward()
    gradients = {name: value.grad for name, value in net.named_parameters()}
    for known, theirs in THEIRS["gradients"].items():
        start = next(start for start in sorted(NAMES, reverse=True) if known.startswith(NAMES[start]))
        gradient = gradients[start + known.removeprefix(NAMES[start])]
        assert gradient is not None
        parity.equal("DRA: gradients", AUTHORS, recipes.some(gradient), theirs, LIMIT)


def test_two_steps_of_training(parity: Parity, prior: Iterator[torch.Tensor]) -> None:
    """Of two epochs, the second at a tenth of the rate, as the authors step their schedule ahead of an epoch."""
    for _ in range(4):
        next(prior)  # the losses above had the first draws
    net, config = network().train(), DRA.Config()

    def loss_of_step(step: int) -> torch.Tensor:
        return dra_net.loss(net.answers_to(batch(), N_REF).scores, LABELS, torch.Generator())

    finetune.optimise(
        net.parameters(),
        loss_of_step,
        epochs=2,
        steps_per_epoch=1,
        lr=config.lr,
        weight_decay=config.weight_decay,
        lr_step=2,
        lr_gamma=config.lr_gamma,
        lr_ahead=config.lr_ahead,
        clip=config.clip,
        track=lambda steps, _: steps,
    )
    parity.equal("DRA: scores after two steps", AUTHORS, scores_of(net), THEIRS["trained_scores"], LIMIT)


def test_rectangles_of_pseudo_anomalies(parity: Parity, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for draws in (recipes.uniform((20, 6), 5) + 1) / 2:
        monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.from_numpy(draws))  # noqa: B023
        cut = draw_cut(48, torch.Generator(), DRA.Config.cut_area, DRA.Config.cut_aspect)
        found.append([[x, y, x + cut.width, y + cut.height] for y, x in (cut.source, cut.target)])
    parity.equal("DRA: rectangles cut and pasted", AUTHORS, found, THEIRS["cuts"], 0)
