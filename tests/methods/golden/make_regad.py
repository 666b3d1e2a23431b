"""regad.json, from MediaBrain-SJTU/RegAD; see README.md. Takes some minutes."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import _run

folder = _run.checkout()
_run.on_the_cpu()
_run.bare_package(folder, "utils")

import numpy as np
import recipes
import torch

# Everything in double precision, also what the modules ask to be single.
torch.set_default_dtype(torch.float64)
torch.float32, torch.FloatTensor = torch.float64, torch.DoubleTensor  # type: ignore[misc]

import train as script
from models.siamese import Encoder, Predictor
from models.stn import stn_net
from torch.nn import functional as F

loss_of, concat = script.CosLoss, script.embedding_concat
losses: list[torch.Tensor] = []
script.CosLoss = lambda *given, **options: losses.append(loss_of(*given, **options)) or losses[-1]
script.embedding_concat = lambda one, other, _: concat(one, other, False)  # on the CPU

models = [stn_net(SimpleNamespace(stn_mode="rotation_scale"), pretrained=False), Encoder(), Predictor()]
STARTS = ("", "encoder.", "predictor.")


def fill() -> None:
    for model, start in zip(models, STARTS, strict=True):
        recipes.fill(model, {"": start})
    for transformer in (models[0].stn1, models[0].stn2, models[0].stn3):
        recipes.near_identity(transformer.fc[2])


def parameters() -> dict[str, torch.Tensor]:
    return {
        start + name: value.detach().clone()
        for model, start in zip(models, STARTS, strict=True)
        for name, value in model.named_parameters()
    }


CHOSEN = ("conv1.weight", "stn1.fc.2.weight", "stn3.fc.2.bias", "layer3.1.conv2.weight")
CHOSEN += ("encoder.conv2.weight", "encoder.bn2.bias", "predictor.conv2.weight")
support, tested = (
    torch.from_numpy(np.stack(recipes.pictures(count, 224, seed, 16))).permute(0, 3, 1, 2) / 255
    for count, seed in ((2, 9), (3, 11))
)
found: dict[str, Any] = {}

fill()
models[0].eval()
with torch.no_grad():
    models[0](tested)
levels = (models[0].stn1_output, models[0].stn2_output, models[0].stn3_output)
found["aligned"] = [recipes.some(level, 24) for level in levels]

# Two epochs of one step: two queries with two supports each.
optimizers = [torch.optim.SGD(model.parameters(), lr=0.0001, momentum=0.9) for model in models]
queries, supports = recipes.images(2, 224, 13).double(), recipes.images(4, 224, 15).double()
loader = [(queries[None], supports.view(1, 2, 2, 3, 224, 224), None)]
before = parameters()
for epoch in (1, 2):
    script.train(models, epoch, loader, optimizers, io.StringIO())
found["losses"] = [(losses[0] + losses[1]) / 2, (losses[2] + losses[3]) / 2]
after = parameters()
found["changes"] = {name: recipes.some(after[name] - before[name]) for name in CHOSEN}

# The whole of a test.
fill()
loader = [(image[None], None, torch.zeros(1, 1, 224, 224), torch.zeros(1)) for image in tested]
scores, *_ = script.test(models, 0, [support], loader)
found["image_scores"] = scores.reshape(3, -1).max(axis=1)
found["maps"] = recipes.some(F.adaptive_avg_pool2d(torch.from_numpy(scores), 56), 48)
_run.save("regad", found)
