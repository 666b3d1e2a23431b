"""Weights and inputs that any implementation can be given, drawn from NumPy's frozen generator.

Draws are uniform and only multiplied and added to, so that they are the same numbers on every machine. A tensor's
draws depend on its name alone: parameters may come in any order, and several implementations may share the names
of one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

CONTEXT_LENGTH, VOCABULARY = 24, 128  # of the small text towers


def uniform(shape: Sequence[int], seed: int | str) -> NDArray[np.float64]:
    """Draws from [-1, 1); a string stands for its CRC-32."""
    number = seed if isinstance(seed, int) else zlib.crc32(seed.encode())
    return np.random.RandomState(number).random_sample(tuple(shape)) * 2 - 1


def weights(name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    """A parameter's or statistic's values.

    Kernels and matrices have a variance of 2 / (what one output sums up); scales and variances lie around 1, all
    else of one dimension around 0.
    """
    draws = uniform(shape, name)
    if len(shape) > 1:
        draws *= (6 / np.prod(shape[1:])) ** 0.5
    elif name.endswith("running_var"):
        draws = 1.5 + 0.5 * draws
    elif name.endswith("weight"):
        draws = 1 + 0.3 * draws
    else:
        draws *= 0.2
    return draws.astype(np.float32)


def fill(module: torch.nn.Module, names: Mapping[str, str] | None = None) -> None:
    """Give a module the recipe's weights and statistics; single numbers and counters stay as they are.

    Args:
        names: beginnings of the module's own names -> what stands for them in the names that are drawn by; the
            longest that fits counts.
    """
    starts = sorted(names or {}, key=len, reverse=True)
    for name, value in module.state_dict().items():
        if not value.is_floating_point() or not value.ndim:
            continue
        start = next((start for start in starts if name.startswith(start)), "")
        known = (names or {}).get(start, "") + name[len(start) :]
        value.copy_(torch.from_numpy(weights(known, value.shape)))


def images(count: int, side: int, seed: int, block: int = 16) -> torch.Tensor:
    """``(count, 3, side, side)`` in [0, 1): squares of ``block`` pixels of one colour, and noise."""
    cells = -(-side // block)
    coarse = uniform((count, 3, cells, cells), seed).repeat(block, axis=2).repeat(block, axis=3)
    fine = uniform((count, 3, side, side), seed + 1)
    return torch.from_numpy((0.5 + 0.4 * coarse[:, :, :side, :side] + 0.1 * fine).astype(np.float32))


def pictures(count: int, side: int, seed: int, block: int = 8) -> list[NDArray[np.uint8]]:
    """The same as ``(side, side, 3)`` bytes."""
    return [
        (256 * image.permute(1, 2, 0).double().numpy()).astype(np.uint8)
        for image in images(count, side, seed, block)
    ]


def tokenize(sentences: Sequence[str]) -> torch.Tensor:
    """Start, a number for each word, end (the highest number), padding: ``(N, CONTEXT_LENGTH)``; no full stops."""
    rows = torch.zeros((len(sentences), CONTEXT_LENGTH), dtype=torch.long)
    for row, sentence in zip(rows, sentences, strict=True):
        words = sentence.replace(".", "").split()[: CONTEXT_LENGTH - 2]
        numbers = [1, *(2 + zlib.crc32(word.encode()) % (VOCABULARY - 3) for word in words), VOCABULARY - 1]
        row[: len(numbers)] = torch.tensor(numbers)
    return rows


def some(values: torch.Tensor | NDArray[np.floating], count: int = 12) -> NDArray[np.float64]:
    """``count`` entries spread evenly over a flattened array, its first and last among them."""
    flat = np.asarray(values.detach() if isinstance(values, torch.Tensor) else values, dtype=np.float64).ravel()
    return flat[np.linspace(0, len(flat) - 1, min(count, len(flat))).astype(int)]


WINCLIP: Mapping[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "patch_size": 16, "width": 32, "head_width": 16, "layers": 2},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": VOCABULARY,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
"""A CLIP of 4x4 patches of the size that re-implementations of WinCLIP expect."""


def winclip_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Three test images and two normal ones, ``(N, 3, 64, 64)``, normalised by a mean and deviation of a half."""
    pixels = torch.from_numpy(np.stack(pictures(5, 64, 7))).permute(0, 3, 1, 2).float() / 255
    return (pixels[:3] - 0.5) / 0.5, (pixels[3:] - 0.5) / 0.5


MASKCLIP: Mapping[str, Mapping[str, float]] = {
    "denoised": {"pd_thresh": 0.9},
    "smoothed": {"ks_thresh": 1.0},
    "denoised and smoothed": {"pd_thresh": 0.9, "ks_thresh": 0.9},
}
"""Refinements of MaskCLIP."""


def maskclip_texts() -> NDArray[np.float64]:
    """Two normalised text embeddings ``(2, 20)`` close to each other, so that not all is certain."""
    first, change = uniform((2, 20), "texts")
    texts = np.stack([first, first + 0.1 * change])
    return texts / np.linalg.norm(texts, axis=1, keepdims=True)


def near_identity(layer: torch.nn.Linear) -> None:
    """Make a filled last layer of RegAD's transformers, for an angle and two scales, one that warps a little."""
    with torch.no_grad():
        layer.weight *= 0.05
        layer.bias *= 0.05
        layer.bias += torch.tensor([0.0, 1.0, 1.0])
