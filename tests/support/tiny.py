"""Small image sets, encoders and contexts that are made in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP

from bench.contracts import Backbone, Context, ImageSet, Network, Prompts, TextImageEncoder, TrainingSet
from bench.encoders.features import FeatureCache
from bench.encoders.towers import FrozenClip

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
CONTEXT_LENGTH, VOCABULARY = 12, 64


def key(image: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def image_set(
    images: Sequence[NDArray[np.uint8]],
    categories: Sequence[str] | None = None,
    prompts: Mapping[str, Prompts] | None = None,
) -> ImageSet:
    by_key = {key(image): image for image in images}
    names = ["thing"] * len(images) if categories is None else categories
    return ImageSet([key(image) for image in images], names, prompts or {}, by_key.__getitem__)


def noise(count: int, side: int = 20, seed: int = 0) -> list[NDArray[np.uint8]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (side, side + 4, 3), dtype=np.uint8) for _ in range(count)]


def training_set(images: ImageSet, labels: Sequence[int]) -> TrainingSet:
    types = ["dent" if label else "good" for label in labels]
    return TrainingSet(images, labels, types, lambda key: np.zeros((1, 1), dtype=bool), 1)


def tokenize(sentences: Sequence[str]) -> torch.Tensor:
    """Start, letters of the sentence, end (the highest number), padding."""
    rows = torch.zeros((len(sentences), CONTEXT_LENGTH), dtype=torch.long)
    for row, sentence in zip(rows, sentences, strict=True):
        numbers = [1, *(2 + ord(letter) % (VOCABULARY - 4) for letter in sentence[: CONTEXT_LENGTH - 2])]
        row[: len(numbers)] = torch.tensor(numbers)
        row[len(numbers)] = VOCABULARY - 1
    return rows


def clip_model(seed: int = 0, quick_gelu: bool = False, image_size: int = 16, **vision: Any) -> CLIP:
    torch.manual_seed(seed)
    tower = {"image_size": image_size, "patch_size": 4, "width": 24, "head_width": 12, "layers": 3, **vision}
    text = {"context_length": CONTEXT_LENGTH, "vocab_size": VOCABULARY, "width": 16, "heads": 2, "layers": 2}
    return CLIP(embed_dim=20, vision_cfg=tower, text_cfg=text, quick_gelu=quick_gelu).eval()


def frozen_clip(model: torch.nn.Module | None = None, **options: Any) -> FrozenClip:
    options = {"cache": FeatureCache(), **options}
    return FrozenClip("tiny/clip", "hash", model or clip_model(), tokenize, MEAN, STD, **options)


class Convolution(torch.nn.Module):
    """A backbone of one 3x3 convolution with stride 2 and, if wished, BatchNorm."""

    def __init__(self, channels: int = 3, norm: bool = False, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = torch.nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False)
        self.norm = torch.nn.BatchNorm2d(channels) if norm else torch.nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.norm(self.convolution(images))
        return features


def backbone(module: torch.nn.Module | None = None, channels: int = 3, **options: Any) -> Backbone:
    fields: dict[str, Any] = {"image_size": 16, "mean": MEAN, "std": STD, **options}
    module = module or Convolution(channels)
    return Backbone("tiny/convolution", "hash", module, channels, 2, **fields)


def context(
    encoder: TextImageEncoder | None = None,
    network: Backbone | None = None,
    seed: int = 1,
    network_of: Callable[[str], Network] | None = None,
    **options: Any,
) -> Context:
    def encoder_of(name: str) -> TextImageEncoder:
        assert encoder is not None
        return encoder

    def backbone_of(name: str) -> Backbone:
        assert network is not None
        return network

    if network_of is not None:
        options["network"] = network_of
    return Context("cpu", seed, "thing", encoder_of, backbone_of, **options)
