"""The small encoders that ship with the package: how they are built, and how their text is tokenised.

`pocket/clip` is a plain `open_clip.CLIP` with a vocabulary of whole words; `pocket/resnet` is a narrow
convolutional network. Their weights are made by `datasets/pocket/make/pretrain.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<start>", "<end>"

BACKBONE_MEAN, BACKBONE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation of `pocket/resnet`'s images (that of `pocket/clip` is in `clip.json`)."""

_WORD = re.compile(r"[a-z]+(?:-[a-z]+)*|[0-9]+")


def words(text: str) -> list[str]:
    """The lower-cased words of a text; punctuation is dropped, hyphens inside a word are kept."""
    return _WORD.findall(text.lower())


class WordTokenizer:
    """Turns texts into rows of word numbers: start, the words, end, padding.

    The vocabulary lists all tokens in the order of their numbers, padding first and the end token last: the
    text tower reads its result where the number is highest.
    """

    def __init__(self, vocabulary: Sequence[str], context_length: int = 48) -> None:
        if len(vocabulary) < 4 or vocabulary[0] != PAD or vocabulary[-1] != END:
            raise ValueError(f"a vocabulary starts with {PAD} and ends with {END}")
        self.vocabulary = tuple(vocabulary)
        self.context_length = context_length
        self._numbers = {token: number for number, token in enumerate(self.vocabulary)}
        if len(self._numbers) != len(self.vocabulary):
            raise ValueError("a vocabulary has each token once")

    @classmethod
    def read(cls, path: Path, context_length: int = 48) -> WordTokenizer:
        """The tokenizer of a vocabulary file, one token per line."""
        return cls(path.read_text(encoding="utf-8").split(), context_length)

    @property
    def vocab_size(self) -> int:
        """The number of tokens."""
        return len(self.vocabulary)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text with its start and end, cut to the context length, not padded."""
        unknown = self._numbers[UNKNOWN]
        inner = [self._numbers.get(word, unknown) for word in words(text)][: self.context_length - 2]
        return [self._numbers[START], *inner, self._numbers[END]]

    def __call__(self, texts: str | Sequence[str], context_length: int | None = None) -> torch.Tensor:
        """The numbers of the texts as a tensor (N, context_length) of int64."""
        import torch

        length = self.context_length if context_length is None else context_length
        rows = [texts] if isinstance(texts, str) else list(texts)
        result = torch.zeros((len(rows), length), dtype=torch.long)
        for row, text in enumerate(rows):
            numbers = self.encode(text)
            if len(numbers) > length:
                numbers = [*numbers[: length - 1], numbers[-1]]
            result[row, : len(numbers)] = torch.tensor(numbers)
        return result


def build_clip(config: dict[str, Any]) -> nn.Module:
    """The `open_clip.CLIP` of a configuration (`embed_dim`, `vision_cfg`, `text_cfg`), with random weights."""
    from open_clip.model import CLIP

    model: nn.Module = CLIP(
        embed_dim=config["embed_dim"],
        vision_cfg=dict(config["vision_cfg"]),
        text_cfg=dict(config["text_cfg"]),
        quick_gelu=bool(config.get("quick_gelu", False)),
    )
    return model


def build_backbone() -> nn.Module:
    """The network of `pocket/resnet` with random weights: images (B, 3, 96, 96) to features (B, C, 12, 12).

    The number of channels C is its attribute `num_features`.
    """
    from timm.models.resnet import BasicBlock, ResNet
    from torch import nn

    class Backbone(nn.Module):
        """The residual network up to its last feature map."""

        def __init__(self) -> None:
            super().__init__()
            trunk: Any = ResNet  # its own annotations do not admit the block's class
            self.trunk = trunk(
                BasicBlock, layers=(1, 1, 1, 1), channels=(24, 48, 96, 128), num_classes=0, global_pool="",
                stem_width=16, output_stride=8,
            )  # fmt: skip
            self.num_features: int = int(self.trunk.num_features)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.trunk.forward_features(images)
            return features

    return Backbone()
