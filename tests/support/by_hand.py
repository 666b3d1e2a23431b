"""Plain NumPy, in double precision, to check methods that fine-tune a backbone: layers, loss, slopes, Adam."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tiny
import torch
from numpy.typing import NDArray

from bench.contracts import ImageSet

Array = NDArray[np.float64]
SIDE = 16


def parameters(module: torch.nn.Module) -> dict[str, Array]:
    """Copies of all parameters and statistics."""
    return {name: value.double().numpy().copy() for name, value in module.state_dict().items()}


def convolution(images: Array, weight: Array, bias: Array | float = 0.0, stride: int = 1) -> Array:
    """3x3 convolution with padding 1 of ``(B, C, H, W)``; ``weight`` as torch has it."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = images.shape[2:]
    terms = [
        np.einsum(
            "bchw,oc->bohw", padded[:, :, y : y + height : stride, x : x + width : stride], weight[:, :, y, x]
        )
        for y in range(3)
        for x in range(3)
    ]
    return np.sum(terms, axis=0) + np.reshape(bias, (1, -1, 1, 1))


def normalised(images: Array, mean: Array, variance: Array, scale: Array, shift: Array) -> Array:
    """BatchNorm and its like, with statistics of shape ``(C,)`` or ``(B, C)``."""
    mean, variance = (value[..., None, None] for value in (mean, variance))
    unit = (images - mean) / np.sqrt(variance + 1e-5)
    return unit * scale[:, None, None] + shift[:, None, None]


def deviation_loss(scores: Array, targets: Sequence[bool], references: Array, margin: float = 5.0) -> float:
    """Mean of ``|dev|`` for normals and ``max(0, margin - dev)`` for anomalies, one by one."""
    losses = []
    for score, target in zip(scores, targets, strict=True):
        deviation = (score - references.mean()) / references.std(ddof=1)
        losses.append(max(0.0, margin - deviation) if target else abs(deviation))
    return float(np.mean(losses))


def gradients(loss: Callable[[], float], values: Mapping[str, Array], step: float = 1e-6) -> dict[str, Array]:
    """Central differences of ``loss`` with respect to each number in ``values``, which it reads anew each time."""
    result = {}
    for name, array in values.items():
        slopes = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            kept = array[index]
            ends = []
            for moved in (kept + step, kept - step):
                array[index] = moved
                ends.append(loss())
            array[index] = kept
            slopes[index] = (ends[0] - ends[1]) / (2 * step)
        result[name] = slopes
    return result


class Adam:
    """Gradients clipped to a norm, L2 penalty added to them, Adam's two moments."""

    def __init__(self, values: Mapping[str, Array], weight_decay: float, clip: float) -> None:
        self.values, self.weight_decay, self.clip = values, weight_decay, clip
        self.first = {name: np.zeros_like(value) for name, value in values.items()}
        self.second = {name: np.zeros_like(value) for name, value in values.items()}
        self.steps = 0

    def step(self, slopes: Mapping[str, Array], lr: float) -> None:
        self.steps += 1
        norm = np.sqrt(sum((slope**2).sum() for slope in slopes.values()))
        assert norm > self.clip  # so that leaving the clipping out would show
        for name, slope in slopes.items():
            g = slope * self.clip / (norm + 1e-6) + self.weight_decay * self.values[name]
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
            m = self.first[name] / (1 - 0.9**self.steps)
            v = self.second[name] / (1 - 0.999**self.steps)
            self.values[name][...] -= lr * m / (np.sqrt(v) + 1e-8)


def rates(optimise: Callable[..., None], **recipe: object) -> list[float]:
    """The learning rate of each epoch: how far Adam moves one number under a constant slope."""
    number = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    places: list[float] = []

    def loss_of_step(step: int) -> torch.Tensor:
        places.append(number.item())
        return number.sum()

    optimise([number], loss_of_step, **{**recipe, "steps_per_epoch": 2, "weight_decay": 0.0})
    return [float(places[2 * i] - places[2 * i + 1]) for i in range(len(places) // 2)]


def blots(count: int, seed: int, categories: Sequence[str] | None = None) -> tuple[ImageSet, list[int]]:
    """Noise; every third image has a bright blot and the label 1."""
    generator = np.random.default_rng(seed)
    labels = [int(i % 3 == 0) for i in range(count)]
    images = []
    for label in labels:
        image = generator.integers(60, 120, (SIDE, SIDE, 3))
        if label:
            y, x = generator.integers(3, SIDE - 6, 2)
            image[y : y + 4, x : x + 4] += 110
        images.append(image.astype(np.uint8))
    return tiny.image_set(images, categories), labels
