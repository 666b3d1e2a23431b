"""Parts of baselines that fine-tune a backbone: rotation, sampling, the deviation loss, training.

From the image version of DevNet (``mala-lab/deviation-network-image``: ``dataloaders/utlis.py``, ``train.py``,
``modeling/layers/deviation_loss.py``), whose recipe DRA and the image version of MLEP share.

Differences from that code: images are decoded and scaled once and kept in memory as bytes, see
:mod:`bench.methods.shared.pixels`, where it decodes them for every batch; a batch is rotated at once, by
:func:`rotate`, where it rotates image by image with Pillow (the same mapping; a few pixels in ten thousand, on the
border between two source pixels, go the other way); all randomness comes from one seeded generator.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from bench.methods.shared.batches import in_batches
from bench.tools.devices import mixed_precision, sent

if TYPE_CHECKING:
    from bench.contracts import Backbone

LARGE = 2**22  # values of a batch, 7 images of 448x448: with more, training on a CPU saves memory
_COARSE = 4  # side of the squares of pixels over which smoothed maps are averaged


# ---------------------------------------------------------------- what a backbone takes


class Preparation:
    """From bytes to what a backbone takes: values in [0, 1], rotated if asked for, normalised.

    Args:
        backbone: whose mean and std are used.
        device: where the result is to lie.
    """

    def __init__(self, backbone: Backbone, device: str) -> None:
        self.device = device
        self.mean = torch.tensor(backbone.mean, device=device).view(1, 3, 1, 1)
        self.std = torch.tensor(backbone.std, device=device).view(1, 3, 1, 1)

    def __call__(self, pixels: torch.Tensor, degrees: torch.Tensor | None = None) -> torch.Tensor:
        """``(B, 3, S, S)`` uint8 -> float32; rotation comes before normalisation, so that corners are black."""
        images = sent(pixels, self.device).float() / 255
        if degrees is not None:
            images = rotate(images, sent(degrees, self.device))
        # channels last: somewhat faster on CPUs, and what GPUs want
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def angles(count: int, limit: float, generator: torch.Generator) -> torch.Tensor | None:
    """``(count,)`` random degrees up to ``limit`` either way; None, for :class:`Preparation`, if that is 0."""
    degrees = (torch.rand(count, generator=generator) * 2 - 1) * limit
    return degrees if limit else None


def rotate(images: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """Rotate each image about its centre, counter-clockwise; nearest pixel, 0 outside.

    Args:
        images: ``(B, C, H, W)``.
        degrees: ``(B,)``.
    """
    radians = torch.deg2rad(degrees)
    cos, sin = torch.cos(radians), torch.sin(radians)
    height, width = images.shape[-2:]
    zero = torch.zeros_like(cos)
    # affine_grid counts both axes from -1 to 1, so sines carry the ratio of the sides
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def mean_features(
    features: Callable[[torch.Tensor], list[torch.Tensor]], prepare: Preparation, pixels: torch.Tensor, size: int
) -> NDArray[np.float32]:
    """``(N, C)``: features averaged over positions and scales.

    Args:
        features: normalised ``(B, 3, S, S)`` -> per scale ``(B, C, h, w)``, in eval mode.
        prepare: normalises.
        pixels: ``(N, 3, S, S)`` uint8.
        size: images per pass.
    """

    def pooled(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            scales = features(prepare(batch))
            return {"features": torch.stack([f.mean(dim=(2, 3)) for f in scales]).mean(dim=0).cpu()}

    found: NDArray[np.float32] = in_batches(pooled, pixels, size)["features"].numpy()
    return found


# ---------------------------------------------------------------- sampling


class Endless:
    """Endless passes over ``items``, each in a new random order."""

    def __init__(self, items: Sequence[int] | NDArray[Any], generator: torch.Generator) -> None:
        self.items = torch.as_tensor(np.asarray(items, dtype=np.int64))
        if not len(self.items):
            raise ValueError("nothing to draw from")
        self.generator = generator
        self._rest = self.items[:0]

    def take(self, count: int) -> torch.Tensor:
        """The next ``count`` items; across the end of a pass if need be."""
        while len(self._rest) < count:
            order = torch.randperm(len(self.items), generator=self.generator)
            self._rest = torch.cat([self._rest, self.items[order]])
        taken, self._rest = self._rest[:count], self._rest[count:]
        return taken


def by_category(items: Iterable[int], categories: Sequence[str], generator: torch.Generator) -> dict[str, Endless]:
    """For each category an :class:`Endless` of the ``items`` whose ``categories[item]`` it is, sorted by name."""
    groups: dict[str, list[int]] = {}
    for item in items:
        groups.setdefault(categories[item], []).append(int(item))
    return {category: Endless(groups[category], generator) for category in sorted(groups)}


# ---------------------------------------------------------------- scores and losses


def top_k_mean(values: torch.Tensor, fraction: float) -> torch.Tensor:
    """Mean of the ``max(int(fraction * N), 1)`` largest of ``(B, N)`` values, per row."""
    k = max(int(fraction * values.shape[1]), 1)
    return values.topk(k, dim=1).values.mean(dim=1)


def pyramid(images: torch.Tensor, n_scales: int) -> list[torch.Tensor]:
    """``images`` at full, half, quarter, ... size (nearest pixel, the default of ``F.interpolate``)."""
    side = images.shape[-1]
    return [images, *(F.interpolate(images, size=side // 2**scale) for scale in range(1, n_scales))]


def deviation_loss(
    scores: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
    margin: float = 5.0,
    n_references: int = 5000,
) -> torch.Tensor:
    """DevNet's loss: normals at the mean of a Gaussian prior, anomalies ``margin`` deviations above it.

    ``dev = (score - mean(ref)) / std(ref)`` for fresh ``ref`` from N(0, 1); the loss is the batch mean of
    ``|dev|`` where the target is 0 and of ``max(0, margin - dev)`` where it is 1.

    Args:
        scores: ``(B,)``.
        targets: ``(B,)``, 0 or 1.

    Raises:
        ValueError: the shapes differ. ``(B, 1)`` scores would be spread to ``(B, B)`` losses, each score against
            every other's target, and the mean would hide it.
    """
    if scores.shape != targets.shape:
        raise ValueError(f"scores of shape {tuple(scores.shape)} but targets of shape {tuple(targets.shape)}")
    references = torch.randn(n_references, generator=generator)
    deviations = (scores - references.mean().item()) / references.std().item()
    return torch.where(targets > 0, (margin - deviations).clamp(min=0), deviations.abs()).mean()


def finest(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Average maps ``(B, 1, h, w)`` of several scales on the grid of the first: ``(B, h, w)``."""
    size = maps[0].shape[-2:]
    scaled = [m if m.shape[-2:] == size else F.interpolate(m, size=size, mode="bilinear") for m in maps]
    return torch.stack(scaled).mean(dim=0)[:, 0]


def gradient_maps(scores: torch.Tensor, images: torch.Tensor, sigma: float) -> torch.Tensor:
    """DevNet's localisation: how much each pixel moves its image's score, without its scaling per image.

    Args:
        scores: ``(B,)``, computed from ``images`` in eval mode, so that each depends on its own image alone.
        images: ``(B, 3, S, S)``, which require gradients.
        sigma: smoothing in pixels of a 448-pixel image.

    Returns:
        ``(B, h, w)`` sums over the channels of absolute gradients, see :func:`smooth_maps`.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    return smooth_maps(gradient.abs().sum(dim=1), sigma)


def smooth_maps(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """``(B, S, S)`` maps smoothed by ``sigma`` pixels of a 448-pixel image, averaged over 4x4 pixels.

    They are smooth then, and 16 times smaller so.
    """
    size = maps.shape[-1]
    return F.avg_pool2d(smooth(maps[:, None], sigma * size / 448), min(_COARSE, size))[:, 0]


def smooth(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian filter of ``(B, 1, H, W)`` maps, cut off at four deviations, mirrored at the border."""
    radius = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    if radius < 1:
        return maps
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = F.pad(maps, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))


# ---------------------------------------------------------------- training

Layer = TypeVar("Layer", bound=torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear)


def initialised(layer: Layer, generator: torch.Generator) -> Layer:
    """``layer`` with the weights that torch gives it by default, but drawn from ``generator``."""
    bound = layer.weight[0].numel() ** -0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        if layer.bias is not None:
            layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def new_head(channels: int, generator: torch.Generator) -> torch.nn.Conv2d:
    """A 1x1 convolution to one channel, initialised as ``nn.Conv2d`` is, from ``generator``."""
    return initialised(torch.nn.Conv2d(channels, 1, kernel_size=1), generator)


def forward(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """``module(images)``, of the images' type; in training by :func:`bench.tools.devices.mixed_precision`.

    On a CPU a large batch is trained on in little memory: between the module's blocks alone activations are kept,
    and those within a block are computed again for its gradients. The numbers are the same bits.
    """
    with contextlib.ExitStack() as stack:
        if module.training:
            stack.enter_context(mixed_precision(images.device))
            if images.device.type == "cpu" and images.numel() > LARGE and torch.is_grad_enabled():
                stack.enter_context(_recomputing(module))
        answer: torch.Tensor = module(images)
    return answer.to(images.dtype)


@contextlib.contextmanager
def _recomputing(module: torch.nn.Module) -> Iterator[None]:
    """Meanwhile the module's blocks keep no activations, and compute them again when they are needed."""
    with contextlib.ExitStack() as stack:
        for block in blocks(module):
            stack.callback(block.__dict__.pop, "forward")
            block.forward = functools.partial(  # type: ignore[method-assign]
                checkpoint, block.forward, use_reentrant=False, context_fn=functools.partial(_contexts, block)
            )
        yield


def blocks(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that have parts, stand in a sequence, and hold no such modules: residual blocks, say."""
    found = []
    for sequence in module.modules():
        if isinstance(sequence, torch.nn.Sequential):
            found += [part for part in sequence if any(True for _ in part.children())]
    innermost = []
    for part in found:
        inside = set(part.modules()) - {part}
        if inside.isdisjoint(found):
            innermost.append(part)
    return innermost


def _contexts(block: torch.nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _statistics_untouched(block)


@contextlib.contextmanager
def _statistics_untouched(block: torch.nn.Module) -> Iterator[None]:
    """Let a second pass over the same batch leave BatchNorm's running statistics as the first has left them."""
    norms = [layer for layer in block.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
    before = []
    for layer in norms:
        counted = layer.num_batches_tracked
        before.append((layer.momentum, None if counted is None else counted.clone()))
        layer.momentum = 0.0
    try:
        yield
    finally:
        for layer, (momentum, counted) in zip(norms, before, strict=True):
            layer.momentum = momentum
            if counted is not None and layer.num_batches_tracked is not None:
                layer.num_batches_tracked.copy_(counted)


def training_mode(module: torch.nn.Module, frozen_norm: bool) -> None:
    """Put ``module`` into train mode; its BatchNorm layers into eval mode if ``frozen_norm``."""
    module.train()
    if frozen_norm:
        for layer in module.modules():
            if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
                layer.eval()


def optimise(
    parameters: Iterable[torch.nn.Parameter],
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    epochs: int,
    steps_per_epoch: int,
    lr: float,
    weight_decay: float,
    lr_step: int,
    lr_gamma: float,
    clip: float,
    track: Callable[[Iterable[int], str], Iterable[int]],
    lr_ahead: bool = False,
) -> None:
    """Adam with gradients clipped to norm ``clip``; the rate falls by ``lr_gamma`` after every ``lr_step`` epochs.

    Args:
        loss_of_step: the loss of one step's batch.
        track: shows the progress of an iterable.
        lr_ahead: the rate falls one epoch earlier, as in code that steps its schedule before each epoch.
    """
    chosen = [parameter for parameter in parameters if parameter.requires_grad]
    optimiser = torch.optim.Adam(chosen, lr=lr, weight_decay=weight_decay, foreach=True)
    falls = list(range(lr_step - lr_ahead, epochs, lr_step))
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, falls, gamma=lr_gamma)
    for step in track(range(epochs * steps_per_epoch), "train"):
        loss = loss_of_step(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(chosen, clip)
        optimiser.step()
        if (step + 1) % steps_per_epoch == 0:
            schedule.step()
