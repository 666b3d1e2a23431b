"""dra.json, from Choubo/DRA; see README.md."""

from __future__ import annotations

from types import SimpleNamespace

import _run

_run.checkout()
_run.on_the_cpu()
_run.untrained()

import random

import recipes
import torch
from datasets.cutmix import CutMix
from modeling.layers.deviation_loss import DeviationLoss
from modeling.net import DRA
from PIL import Image
from train import Trainer

SIDE, N_REF = 96, 3
images = 3 * recipes.images(N_REF + 6, SIDE, 3).double() - 1.5
labels = torch.tensor([0, 2, 1, 0, 2, 1])
references = iter(torch.from_numpy(recipes.uniform((4 + 8, 5000), 4)) * 3**0.5)
torch.normal = lambda **_: next(references)

args = SimpleNamespace(
    topk=0.3, n_scales=2, total_heads=4, img_size=SIDE, nRef=N_REF, cuda=False, criterion="deviation"
)
network = DRA(args).double()
recipes.fill(network)
found = {}

network.eval()
with torch.no_grad():
    found["scores"] = torch.stack(network(images, labels))

network.train()
answers = network(images, labels)
found["training_scores"] = [list(scores) for scores in answers]
targets = Trainer.generate_target(None, labels)
criterion = DeviationLoss()
losses = [criterion(scores, target.double()) for scores, target in zip(answers, targets, strict=True)]
found["losses"] = torch.stack(losses)
sum(losses).backward()
parameters = dict(network.named_parameters())
found["gradients"] = {
    name: recipes.some(parameters[name].grad)
    for name in (
        "feature_extractor.net.conv1.weight",
        "holistic_head.fc1.weight",
        "holistic_head.fc2.bias",
        "seen_head.scoring.weight",
        "pseudo_head.scoring.weight",
        "composite_head.conv.0.weight",
        "composite_head.conv.1.bias",
        "composite_head.scoring.weight",
    )
}

# Two epochs of one step, by the authors' own loop; it steps its schedule before each epoch.
recipes.fill(network)
optimizer = torch.optim.Adam(network.parameters(), lr=0.0002, weight_decay=1e-5)
trainer = SimpleNamespace(
    args=args,
    model=network,
    criterion=criterion,
    optimizer=optimizer,
    scheduler=torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1),
    train_loader=[{"image": images[N_REF:], "label": labels}],
    ref_loader=[{"image": images[:N_REF]}],
    generate_target=lambda target: Trainer.generate_target(None, target),
)
trainer.ref = iter(trainer.ref_loader)
for epoch in range(2):
    Trainer.training(trainer, epoch)
network.eval()
with torch.no_grad():
    found["trained_scores"] = torch.stack(network(images, labels))

# What is cut out and where it is pasted, for given draws.
boxes = []
crop, paste = Image.Image.crop, Image.Image.paste
Image.Image.crop = lambda self, box: boxes.append(box) or crop(self, box)
Image.Image.paste = lambda self, patch, box: boxes.append(box) or paste(self, patch, box)
for draws in (recipes.uniform((20, 6), 5) + 1) / 2:
    area, aspect, from_y, to_y, from_x, to_x = draws.tolist()
    given = iter([area, from_y, from_x, to_y, to_x])
    random.uniform = lambda low, high: low + next(given) * (high - low)  # noqa: B023
    torch.Tensor.uniform_ = lambda self, low, high: self.fill_(low + aspect * (high - low))  # noqa: B023
    CutMix(colorJitter=None)(Image.new("RGB", (48, 48)))
found["cuts"] = list(zip(boxes[::2], boxes[1::2], strict=True))
_run.save("dra", found)
