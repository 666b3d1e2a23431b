"""RegAD's network and arithmetic: stages with spatial transformers, registration heads, augmentations, Gaussians.

What it implements and how it differs stands at the head of :mod:`bench.methods.regad`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from bench.methods.shared import finetune

LEVELS = 3  # the paper reads the first three stages of a ResNet
TRANSFORMS: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "affine": ("sx", "hx", "tx", "hy", "sy", "ty"),
    "translation": ("tx", "ty"),
    "rotation": ("angle",),
    "scale": ("sx", "sy"),
    "shear": ("hx", "hy"),
    "rotation_scale": ("angle", "sx", "sy"),
    "translation_scale": ("tx", "ty", "sx", "sy"),
    "rotation_translation": ("angle", "tx", "ty"),
    "rotation_translation_scale": ("angle", "tx", "ty", "sx", "sy"),
}
"""Mode -> the numbers that its transformer predicts: scales, shears, translations along x and y, an angle."""

_ANGLES = tuple(sign * step * np.pi / 16 for sign in (-1, 1) for step in (1, 2, 3, 4))
_SHIFTS = tuple((x * far, y * far) for far in (0.2, 0.1) for y in (1, -1) for x in (1, -1))
_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, what kornia uses
_FACTOR_ENTRIES = 2**23  # of the covariances that are held at once: 64 MiB


# ---------------------------------------------------------------- transforms


def warp(features: Tensor, theta: Tensor) -> Tensor:
    """Resample ``(B, C, h, w)`` at the affine transforms ``(B, 2, 3)``; mirrored outside."""
    grid = F.affine_grid(theta, list(features.shape), align_corners=False)
    return F.grid_sample(features, grid, padding_mode="reflection", align_corners=False)


def inverse(theta: Tensor) -> Tensor:
    """The transforms ``(B, 2, 3)`` that undo ``theta`` ``(B, 2, 3)``."""
    last = theta.new_tensor([0.0, 0.0, 1.0]).expand(len(theta), 1, 3)
    undone: Tensor = torch.linalg.inv(torch.cat([theta, last], dim=1))
    return undone[:, :2]


def affine(values: Tensor, mode: str) -> Tensor:
    """Predicted numbers ``(B, n)`` to transforms ``(B, 2, 3)``.

    ``[[cos a * sx, hx - sin a, tx], [hy + sin a, cos a * sy, ty]]``, with 0 for an angle, shear or translation
    and 1 for a scale that the mode does not have. Sines are not scaled, as in the official code.
    """
    given = dict(zip(TRANSFORMS[mode], values.unbind(dim=1), strict=True))
    zero, one = torch.zeros_like(values[:, 0]), torch.ones_like(values[:, 0])
    cos, sin = (torch.cos(given["angle"]), torch.sin(given["angle"])) if "angle" in given else (one, zero)
    rows = [
        cos * given.get("sx", one), given.get("hx", zero) - sin, given.get("tx", zero),
        given.get("hy", zero) + sin, cos * given.get("sy", one), given.get("ty", zero),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(-1, 2, 3)


class SpatialTransformer(nn.Module):
    """Predicts an affine transform from feature maps and resamples them with it; the identity at first.

    Args:
        channels: of the feature maps.
        size: their ``(h, w)``, on which the linear layers depend.
        mode: key of :data:`TRANSFORMS`.
    """

    def __init__(self, channels: int, size: tuple[int, int], mode: str) -> None:
        super().__init__()
        self.mode = mode
        names = TRANSFORMS[mode]
        if not names:
            return
        self.localisation = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Conv2d(64, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )  # fmt: skip
        height, width = (-(-side // 4) for side in size)  # either pooling halves, rounding up
        last = nn.Linear(1024, len(names))
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([float(name in ("sx", "sy")) for name in names]))
        self.regression = nn.Sequential(nn.Flatten(), nn.Linear(16 * height * width, 1024), nn.ReLU(), last)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(B, C, h, w)`` resampled, and the transforms ``(B, 2, 3)``; None where the mode has none."""
        if not TRANSFORMS[self.mode]:
            return features, None
        theta = affine(self.regression(self.localisation(features)), self.mode)
        return warp(features, theta), theta


# ---------------------------------------------------------------- network


def split_stages(backbone: nn.Module) -> tuple[nn.Module, list[nn.Module]]:
    """The layers before the first stage, and the stages, of which at most the first three are read.

    timm's ResNets and ``pocket/resnet`` call them ``layer1``, ``layer2``, ...; in a torchvision one, whose layers
    have no names here, they are known by their blocks. Any other network counts as one stage.
    """
    from torchvision.models.resnet import BasicBlock, Bottleneck

    network = backbone
    while len(children := list(network.named_children())) == 1:  # wrappers
        network = children[0][1]

    def is_stage(name: str, child: nn.Module) -> bool:
        named = name.startswith("layer") and name[5:].isdigit()
        return named or any(isinstance(block, BasicBlock | Bottleneck) for block in child.children())

    stages = [child for name, child in children if is_stage(name, child)]
    if not stages:
        return nn.Identity(), [backbone]
    first = next(number for number, (name, child) in enumerate(children) if is_stage(name, child))
    return nn.Sequential(*(child for _, child in children[:first])), stages[:LEVELS]


class RegistrationNet(nn.Module):
    """A backbone with a spatial transformer behind each stage, and SimSiam's two heads.

    Args:
        backbone: the trainable backbone's module.
        size: side of its input in pixels.
        mode: key of :data:`TRANSFORMS`.

    Attributes:
        stem, stages: the backbone's parts that are used.
        grid: ``(h, w)`` of the first stage's features.
    """

    def __init__(self, backbone: nn.Module, size: int, mode: str) -> None:
        super().__init__()
        self.stem, stages = split_stages(backbone)
        self.stages = nn.ModuleList(stages)
        self.transformers = nn.ModuleList()
        self.eval()
        with torch.no_grad():
            features = self.stem(torch.zeros(1, 3, size, size))
            for stage in self.stages:
                features = stage(features)
                height, width = (int(side) for side in features.shape[-2:])
                if not self.transformers:
                    self.grid = (height, width)
                self.transformers.append(SpatialTransformer(features.shape[1], (height, width), mode))
        channels = int(features.shape[1])
        self.encoder = nn.Sequential(*_block(channels), *_block(channels), _conv1x1(channels))
        self.predictor = nn.Sequential(*_block(channels), _conv1x1(channels))

    def _levels(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor | None]]:
        features = finetune.forward(self.stem, images)
        for stage, transformer in zip(self.stages, self.transformers, strict=True):
            features, theta = transformer(finetune.forward(stage, features))
            yield features, theta

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, S, S)`` -> the last stage's transformed features ``(B, C, h, w)``."""
        *_, (features, _) = self._levels(images)
        return features

    def aligned(self, images: Tensor) -> list[Tensor]:
        """Each stage's features ``(B, C, h, w)``, warped back by its own transform and then by the earlier ones.

        So every position shows again the part of the image that it showed before any transform.
        """
        result: list[Tensor] = []
        undo: list[Tensor] = []
        for features, theta in self._levels(images):
            if theta is not None:
                undo.insert(0, inverse(theta))
            for transform in undo:
                features = warp(features, transform)
            result.append(features)
        return result

    def loss(self, query: Tensor, support: Tensor) -> Tensor:
        """SimSiam's symmetric loss between queries and the mean features of their supports.

        Args:
            query: ``(B, 3, S, S)``.
            support: ``(B, K, 3, S, S)``.
        """
        one = self(query)
        other = self(support.flatten(0, 1)).unflatten(0, support.shape[:2]).mean(dim=1)
        z_one, z_other = self.encoder(one), self.encoder(other)
        p_one, p_other = self.predictor(z_one), self.predictor(z_other)
        return (negative_cosine(p_one, z_other) + negative_cosine(p_other, z_one)) / 2


def _conv1x1(channels: int) -> nn.Module:
    return nn.Conv2d(channels, channels, 1, bias=False)


def _block(channels: int) -> list[nn.Module]:
    return [_conv1x1(channels), nn.BatchNorm2d(channels), nn.ReLU()]


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Minus the mean cosine over the channels of ``(B, C, h, w)``, without a gradient into ``z``."""
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()


# ---------------------------------------------------------------- support images


def augment(images: Tensor, kinds: Sequence[str]) -> Tensor:
    """The images ``(K, 3, S, S)`` in [0, 1] and their variants: ``(22 * K, 3, S, S)`` if all kinds are given.

    ``rotation``: by 1, 2, 3, 4 sixteenths of pi either way; ``translation``: by 10 % and 5 % of the side along
    the diagonals; ``flip``: left to right; ``grey``; ``turn``: by one, two, three quarters.
    """
    variants = [images]
    if "rotation" in kinds:
        variants += [
            warp(images, _theta(np.cos(a), -np.sin(a), 0, np.sin(a), np.cos(a), 0, images)) for a in _ANGLES
        ]
    if "translation" in kinds:  # affine_grid's unit is half a side
        variants += [warp(images, _theta(1, 0, x, 0, 1, y, images)) for x, y in _SHIFTS]
    if "flip" in kinds:
        variants.append(images.flip(-1))
    if "grey" in kinds:
        weights = images.new_tensor(_GREY).view(1, 3, 1, 1)
        variants.append((images * weights).sum(dim=1, keepdim=True).expand_as(images))
    if "turn" in kinds:
        variants += [images.rot90(quarters, (-2, -1)) for quarters in (1, 2, 3)]
    return torch.cat(variants)


def _theta(a: float, b: float, x: float, c: float, d: float, y: float, like: Tensor) -> Tensor:
    return like.new_tensor([[a, b, x], [c, d, y]]).expand(len(like), 2, 3)


# ---------------------------------------------------------------- Gaussians and distances


def at_positions(levels: Sequence[Tensor], positions: Tensor) -> Tensor:
    """The levels' features at positions of the first level's grid, one behind the other.

    A coarser level gives the value of the cell in which a position lies (nearest).

    Args:
        levels: ``(N, C_i, h_i, w_i)`` each.
        positions: ``(P,)``, numbered row by row.

    Returns:
        ``(N, P, D)`` with D the sum of the C_i.
    """
    height, width = levels[0].shape[-2:]
    y, x = positions // width, positions % width
    parts = [level[:, :, y * level.shape[-2] // height, x * level.shape[-1] // width] for level in levels]
    return torch.cat(parts, dim=1).transpose(1, 2)


def gaussians(samples: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """A Gaussian per position: mean, and unbiased covariance plus ``shrinkage`` on its diagonal.

    Args:
        samples: ``(N, P, D)``, N > 1.

    Returns:
        The means ``(P, D)`` and the covariances' lower Cholesky factors ``(P, D, D)``.
    """
    mean = samples.mean(dim=0)
    centred = (samples - mean).transpose(0, 1)
    covariance = centred.mT @ centred / (len(samples) - 1)
    covariance.diagonal(dim1=-2, dim2=-1).add_(shrinkage)
    factor: Tensor = torch.linalg.cholesky(covariance)
    return mean, factor


def mahalanobis(features: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Distances ``(N, P)`` of ``(N, P, D)`` from the Gaussians of :func:`gaussians`."""
    difference = (features - mean).permute(1, 2, 0)
    whitened: Tensor = torch.linalg.solve_triangular(factor, difference, upper=False)
    return whitened.square().sum(dim=1).sqrt().T


def distance_maps(support: Sequence[Tensor], test: Sequence[Tensor], shrinkage: float) -> Tensor:
    """Mahalanobis distances of the test features from the support's, on the first level's grid.

    Args:
        support: levels ``(N, C_i, h_i, w_i)`` of the support images.
        test: levels ``(M, C_i, h_i, w_i)``.

    Returns:
        ``(M, h_0, w_0)`` float32 on the CPU.
    """
    height, width = test[0].shape[-2:]
    device = test[0].device
    if device.type == "mps":  # which knows no float64
        device = torch.device("cpu")
        support, test = [s.to(device) for s in support], [t.to(device) for t in test]
    depth = sum(level.shape[1] for level in test)
    parts = []
    # A few positions at a time: all covariances of 56x56 positions and 448 channels would take 5 GB.
    for positions in torch.arange(height * width, device=device).split(max(_FACTOR_ENTRIES // depth**2, 1)):
        mean, factor = gaussians(at_positions(support, positions).double(), shrinkage)
        parts.append(mahalanobis(at_positions(test, positions).double(), mean, factor).float())
    return torch.cat(parts, dim=1).view(-1, height, width).cpu()


def smooth(maps: Tensor, size: int, sigma: float) -> NDArray[np.float32]:
    """Maps ``(M, h, w)`` scaled bilinearly to ``(M, size, size)`` and smoothed with ``sigma`` pixels."""
    from scipy.ndimage import gaussian_filter

    full = F.interpolate(maps[:, None], size=(size, size), mode="bilinear", align_corners=False)[:, 0].numpy()
    smoothed: NDArray[np.float32] = gaussian_filter(full, sigma=(0, sigma, sigma))
    return smoothed
