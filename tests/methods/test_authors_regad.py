"""RegAD against its authors' modules, training and test, on the same weights and images; see golden/README.md."""

from __future__ import annotations

import numpy as np
import pytest
import recipes
import tiny
import torch
from parity import Parity, golden

from bench.encoders import identify, load_backbone
from bench.methods.regad import RegAD
from bench.methods.regad import net as net

AUTHORS = "MediaBrain-SJTU/RegAD"
LIMIT = 1e-9  # both sides compute in double precision
THEIRS = golden("regad")
NAMES = {
    "stem.0.": "conv1.",
    "stem.1.": "bn1.",
    **{f"stages.{i}.": f"layer{i + 1}." for i in range(3)},
    **{f"transformers.{i}.localisation.": f"stn{i + 1}.conv." for i in range(3)},
    **{f"transformers.{i}.regression.1.": f"stn{i + 1}.fc.0." for i in range(3)},
    **{f"transformers.{i}.regression.3.": f"stn{i + 1}.fc.2." for i in range(3)},
    **{f"encoder.{3 * i}.": f"encoder.conv{i + 1}." for i in range(3)},
    **{f"encoder.{3 * i + 1}.": f"encoder.bn{i + 1}." for i in range(2)},
    **{f"predictor.{3 * i}.": f"predictor.conv{i + 1}." for i in range(2)},
    "predictor.1.": "predictor.bn1.",
}


def network(dtype: torch.dtype = torch.float64) -> net.RegistrationNet:
    backbone = load_backbone(identify("torchvision/resnet18[weights=random]"))
    found = net.RegistrationNet(backbone.module, 224, "rotation_scale").to(dtype)
    recipes.fill(found, NAMES)
    for transformer in found.transformers:
        recipes.near_identity(transformer.regression[3])
    return found


def test_features_warped_back(parity: Parity) -> None:
    pixels = torch.from_numpy(np.stack(recipes.pictures(3, 224, 11, 16))).permute(0, 3, 1, 2)
    with torch.no_grad():
        levels = network().eval().aligned(pixels.double() / 255)
    for level, theirs in zip(levels, THEIRS["aligned"], strict=True):
        parity.equal("RegAD: features warped back", AUTHORS, recipes.some(level, 24), theirs, LIMIT)


def test_two_steps_of_training(parity: Parity) -> None:
    registered, config = network().train(), RegAD.Config()
    before = {name: value.detach().clone() for name, value in registered.named_parameters()}
    optimiser = torch.optim.SGD(registered.parameters(), lr=config.lr, momentum=config.momentum)
    queries = recipes.images(2, 224, 13).double()
    supports = recipes.images(4, 224, 15).double().unflatten(0, (2, 2))
    for theirs in THEIRS["losses"]:
        loss = registered.loss(queries, supports)
        parity.equal("RegAD: loss", AUTHORS, loss, theirs, LIMIT)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    for name, value in registered.named_parameters():
        start = next(start for start in NAMES if name.startswith(start))
        known = NAMES[start] + name.removeprefix(start)
        if known in THEIRS["changes"]:
            change = recipes.some(value - before[name])
            parity.equal("RegAD: change of weights in two steps", AUTHORS, change, THEIRS["changes"][known], LIMIT)


@pytest.mark.slow
def test_scores_and_maps(parity: Parity) -> None:
    """All of a test, from bytes to smoothed maps, here in single precision but for the Gaussians."""
    method = RegAD(RegAD.Config())
    method._backbone = load_backbone(identify("torchvision/resnet18[weights=random,image_size=224]"))
    method._net = network(torch.float32).eval()
    support, tested = (tiny.image_set(recipes.pictures(count, 224, seed, 16)) for count, seed in ((2, 9), (3, 11)))
    scores = method.score(tested, tiny.context(support=support))
    assert scores.maps is not None
    parity.equal("RegAD: image scores", AUTHORS, scores.image, THEIRS["image_scores"], 1e-5)
    parity.equal("RegAD: maps", AUTHORS, recipes.some(scores.maps, 48), THEIRS["maps"], 1e-5)
