"""PromptAD's inputs from a frozen encoder: blocks that are read, embeddings of prompts and of support images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.contracts import ImageSet, Prompts, TextImageEncoder, TrainingSet
from bench.errors import BenchError, NotApplicable

if TYPE_CHECKING:
    import torch

    from bench.methods.promptad.config import PromptADConfig

Ints = NDArray[np.int64]

GENERIC = ("scratch", "tear", "crack", "cut", "defect")  # the paper's example words (section 4.1)
SHARED = Prompts("thing", "a flawless thing", f"abnormality of thing is {', '.join(GENERIC)}")


def resolve_layers(layers: Sequence[int], n_blocks: int) -> tuple[int, ...]:
    """The encoder's blocks that are read, deepest first; see ``clip_layers``."""
    from bench.encoders.towers import clipseg_blocks

    layers = layers or clipseg_blocks(n_blocks)
    if max(layers) >= n_blocks:
        raise BenchError(f"clip_layers={'+'.join(map(str, layers))}: this encoder has blocks 0 to {n_blocks - 1}")
    return tuple(sorted(layers, reverse=True))


class Texts:
    """The prompts' embeddings of the categories among ``images``.

    Attributes:
        categories: their names, sorted; row i of the embeddings belongs to the i-th.
        normality: ``(C, E)``.
        abnormality: ``(C + R, E)``; for ``sample_type``, R rows of single types follow.
    """

    def __init__(self, images: ImageSet, config: PromptADConfig, encoder: TextImageEncoder) -> None:
        import torch

        self.categories = sorted(set(images.categories))
        missing = [c for c in self.categories if c not in images.prompts]
        if missing:
            raise NotApplicable(f"PromptAD needs prompts; there are none for {', '.join(missing)}")
        norm = config.text_norm
        pairs = [sentences(images.prompts[c], config) for c in self.categories]
        self.normality = _normalised(encoder.encode_text([normality for normality, _ in pairs]), norm)

        # of each category the sentences of its types, and their mean as one row
        types, means = [], []
        for _, words in pairs:
            embedded = _normalised(encoder.encode_text(list(words.values())), norm)
            types.append(embedded)
            means.append(_normalised(embedded.mean(0), norm))
        pooled = torch.stack(means)

        # for sample_type the single types' rows follow behind the means
        self._type_rows: dict[str, dict[str, int]] = {c: {} for c in self.categories}
        if config.prompt_pool == "sample_type":
            first = len(pooled)
            for category, (_, words) in zip(self.categories, pairs, strict=True):
                self._type_rows[category] = {word: first + k for k, word in enumerate(words)}
                first += len(words)
            pooled = torch.cat([pooled, *types])
        self.abnormality = pooled

    def rows(self, train: TrainingSet, steps: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """For each image of each step, its row of ``normality`` and of ``abnormality``.

        Args:
            train: the images that the steps count.
            steps: ``(iters, B)`` indices of images.
            rng: draws types for images that have none of their own.
        """
        category = np.array([self.categories.index(c) for c in train.images.categories])
        normality = category[steps]
        abnormality = normality.copy()
        # the labelled anomalies' own types, -1 for all else
        own = np.full(len(train), -1)
        for i in np.flatnonzero(train.labels):
            own[i] = self._type_rows[train.images.categories[i]].get(train.types[i], -1)
        for c, name in enumerate(self.categories):
            described = list(self._type_rows[name].values())
            if not described:
                continue
            # others take a type that a labelled anomaly of the category has, lest the text tell the label
            labelled = sorted(set(own[(category == c) & (own >= 0)]))
            here = normality == c
            abnormality[here] = rng.choice(labelled or described, size=int(here.sum()))
        return normality, np.where(own[steps] >= 0, own[steps], abnormality)


def sentences(prompts: Prompts, config: PromptADConfig) -> tuple[str, Mapping[str, str]]:
    """A category's normality prompt, and its abnormality prompts by anomaly type ("" = all in one)."""
    if config.prompt_set == "shared":
        prompts = SHARED
    whole, descriptions = prompts.abnormality, prompts.descriptions
    if config.prompt_set != "dataset_types":
        descriptions = {word: word for word in GENERIC}
        whole = f"abnormality of {prompts.label} is {', '.join(GENERIC)}"
    if config.prompt_pool == "one_sentence" or not descriptions:
        return prompts.normality, {"": whole}
    return prompts.normality, {t: f"abnormality of {prompts.label} is {d}" for t, d in descriptions.items()}


@dataclass(frozen=True)
class Support:
    """Prototypes made of K normal images: a bank ``(M, E)``, and the images' mean embedding ``(E,)``."""

    bank: torch.Tensor
    mean: torch.Tensor

    @classmethod
    def of(cls, images: ImageSet, config: PromptADConfig, encoder: TextImageEncoder) -> Support:
        """The prototypes as ``few_shot_proto`` has them."""
        last = encoder.n_blocks - 1
        wanted = (last,) if config.few_shot_proto == "patches" else ()
        features = encoder.encode_images(images, layers=wanted, image_size=config.img_size)
        each = _normalised(features.embedding, config.text_norm)
        mean = _normalised(each.mean(0), config.text_norm)
        if config.few_shot_proto == "patches":
            patches = encoder.project(features.tokens[last][:, 1:]).flatten(0, 1)
            return cls(_normalised(patches, config.text_norm), mean)
        return cls(each if config.few_shot_proto == "nearest" else mean[None], mean)


def _normalised(x: torch.Tensor, norm: str) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True) if norm == "l2" else x


def views(
    normality: torch.Tensor, abnormality: torch.Tensor, config: PromptADConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per branch its own prompt and the other view's, ``(..., V, B, E)`` each of two ``(..., B, E)``.

    The abnormality branch comes first.
    """
    import torch

    own, other = [], []
    if config.abn:
        own.append(abnormality)
        other.append(normality)
    if config.nor:
        own.append(normality)
        other.append(abnormality)
    return torch.stack(own, -3), torch.stack(other, -3)
