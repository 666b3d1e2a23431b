"""devnet.json, from mala-lab/deviation-network-image; see README.md."""

from __future__ import annotations

from types import SimpleNamespace

import _run

_run.checkout()
_run.on_the_cpu()
_run.untrained()

import recipes
import torch
from modeling.layers.deviation_loss import DeviationLoss
from modeling.net import SemiADNet
from scipy.ndimage import gaussian_filter
from train import Trainer

SIDE = 96
images, labels = 3 * recipes.images(4, SIDE, 1).double() - 1.5, torch.tensor([0, 1, 0, 0])
references = iter(torch.from_numpy(recipes.uniform((3, 5000), 2)) * 3**0.5)
torch.normal = lambda **_: next(references)

args = SimpleNamespace(backbone="resnet18", topk=0.3, n_scales=2, img_size=SIDE, cuda=False)
network = SemiADNet(args).double()
recipes.fill(network)
found = {}

network.eval()
pixels = images.clone().requires_grad_()
found["scores"] = network(pixels)[:, 0]
found["scores"].sum().backward()
slopes = pixels.grad.abs().sum(dim=1).numpy()
smooth = gaussian_filter(slopes[0], sigma=4 * SIDE / 448, mode="mirror")
found["map"] = recipes.some(smooth.reshape(SIDE // 4, 4, SIDE // 4, 4).mean(axis=(1, 3)), 16)

network.train()
network.zero_grad()
criterion = DeviationLoss()
answers = network(images)
loss = criterion(answers, labels[:, None].double())
loss.backward()
found["training_scores"], found["loss"] = answers[:, 0], loss
found["gradients"] = {
    name: recipes.some(dict(network.named_parameters())[name].grad)
    for name in (
        "feature_extractor.net.conv1.weight",
        "feature_extractor.net.layer4.1.bn2.bias",
        "conv.weight",
        "conv.bias",
    )
}

# Two epochs of one step, by the authors' own loop.
recipes.fill(network)
optimizer = torch.optim.Adam(network.parameters(), lr=0.0002, weight_decay=1e-5)
trainer = SimpleNamespace(
    args=args,
    model=network,
    criterion=criterion,
    optimizer=optimizer,
    scheduler=torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1),
    train_loader=[{"image": images, "label": labels}],
)
for epoch in range(2):
    Trainer.train(trainer, epoch)
network.eval()
with torch.no_grad():
    found["trained_scores"] = network(images)[:, 0]
_run.save("devnet", found)
