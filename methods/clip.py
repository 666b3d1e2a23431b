"""CLIP as it comes, and a linear probe on it.

PromptAD (Li et al., WACV 2024) lists CLIP in Tables 1 and 3 without a description, and its numbers change with
the number of labelled anomalies. So there are three readings, to be reported as what they are:

- ``clip``: zero-shot scoring as everyone does it (Radford et al. 2021; in anomaly detection e.g.
  ``ByChelsea/VAND-APRIL-GAN``, test.py): cosine similarity to the texts of "normal" and "anomalous", and for maps
  the same with patch tokens, taken through the final layer norm and the projection.
- ``clip[few_shot=...]``: with K normal images of the target; the similarity to the closest one, as in WinCLIP+
  (Jeong et al., CVPR 2023) on whole-image embeddings. Its map (patch against patch) is ours.
- ``clip[variant=probe]``: one linear layer on frozen image embeddings, trained on the seen categories; our reading
  of a CLIP baseline that depends on labelled anomalies.

Differences: zero-shot scores are log-odds, where most code takes the softmax's probability. The order is the same,
but a probability in float32 becomes exactly 1 for confident scores, and then the order is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Context, ImageSet, Scores, State, TextImageEncoder, TrainingSet, Traits
from bench.errors import NotApplicable
from bench.methods.shared.cosines import Floats, along, distance, probability, unit
from bench.methods.shared.prompts import mean_text, sentences

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClipConfig:
    """Options.

    Attributes:
        variant: ``zero_shot``, or ``probe``: a linear layer on image embeddings, trained on the seen categories.
        encoder: text-image encoder; ViT-B/16 with OpenAI's weights is PromptAD's.
        img_size: side that images are scaled to; ``none`` = the encoder's own.
        prompts: ``promptad``: the category's normality and abnormality sentences; ``two``: "a photo of a normal
            ..." and "a photo of an anomalous ..."; ``winclip``: WinCLIP's 154 and 88 sentences, each set
            normalised, averaged and normalised again.
        temperature: of the zero-shot softmax; CLIP's own is 0.01, WinCLIP's re-implementations use 0.07. It
            changes the order of scores only where ``few_shot=both`` averages probabilities.
        few_shot: use of K normal images of the target (``zero_shot`` only): ``off``; ``support``: half the cosine
            distance to the closest of them; ``both``: the mean of that and the zero-shot probability, as WinCLIP+.
        loss: of the probe: ``deviation``, PromptAD's symmetric one (Eq. 5) with margin ``alpha``, or ``bce``.
        alpha: margin of the deviation loss.
        text_difference: give the probe the difference of the category's two texts beside the embedding.
        lr, weight_decay, iterations: of the probe's Adam.
        n_query, episodes_per_step: a step has ``episodes_per_step`` episodes of ``n_query`` images of one random
            seen category, as PromptAD is trained.
        upsampling: how often each labelled anomaly is listed in its category's pool (PromptAD: 10 times).
    """

    variant: Literal["zero_shot", "probe"] = "zero_shot"
    encoder: str = "openai/ViT-B-16"
    img_size: int | None = None
    prompts: Literal["promptad", "two", "winclip"] = "promptad"
    temperature: float = 0.01
    few_shot: Literal["off", "support", "both"] = "off"
    loss: Literal["deviation", "bce"] = "deviation"
    alpha: float = 5.0
    text_difference: bool = False
    lr: float = 1e-3
    weight_decay: float = 1e-4
    iterations: int = 500
    n_query: int = 8
    episodes_per_step: int = 4
    upsampling: int = 10

    def __post_init__(self) -> None:
        whole = ("temperature", "lr", "iterations", "n_query", "episodes_per_step", "upsampling")
        if low := [name for name in whole if getattr(self, name) <= 0]:
            raise ValueError(f"{', '.join(low)} must be above 0")
        if self.variant == "probe" and self.few_shot != "off":
            raise ValueError("few_shot belongs to variant=zero_shot")


class Clip:
    """Frozen CLIP: zero-shot, few-shot or linear probe; see the module's head and :class:`ClipConfig`."""

    name: ClassVar[str] = "clip"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[Any]] = ClipConfig

    def __init__(self, config: ClipConfig) -> None:
        self.config = config
        self._probe: torch.nn.Linear | None = None

    @classmethod
    def traits(cls, config: ClipConfig) -> Traits:
        probe, few = config.variant == "probe", config.few_shot != "off"
        title, adapted = "CLIP", ""
        if probe:
            title = "CLIP linear probe"
            adapted = "a linear probe, our reading of a baseline that its source does not describe"
        elif few:
            title = "CLIP few-shot"
            adapted = "whole-image embeddings as in WinCLIP+, without its windows"
        return Traits(
            title=title,
            source="Radford et al., ICML 2021; a baseline of PromptAD, Tables 1 and 3",
            trained=probe,
            seeded=probe or few,  # the K images are drawn anew for each seed
            zero_shot=not few,
            text=True,
            support=few,
            adapted=adapted,
        )

    @classmethod
    def work(cls, config: ClipConfig, n_images: int) -> float:
        """Images over all steps of the probe, see :class:`bench.contracts.HasWork`."""
        return config.iterations * config.episodes_per_step * config.n_query

    # ---------------------------------------------------------------- the probe

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Train the linear layer.

        Raises:
            NotApplicable: no normal or no anomalous image to learn from.
        """
        import torch

        config = self.config
        if not train.labels.any() or train.labels.all():
            raise NotApplicable("the probe needs normal and anomalous training images")
        encoder = context.encoder(config.encoder)
        embedding = encoder.encode_images(train.images, image_size=config.img_size).embedding
        inputs = torch.nn.functional.normalize(embedding, dim=1)
        if config.text_difference:
            difference = torch.from_numpy(self._directions(train.images, encoder)).float()
            inputs = torch.cat([inputs, difference], dim=1)
        labels = torch.as_tensor(train.labels, dtype=torch.float32)
        steps = draw_steps(train.images.categories, train.labels, config, np.random.default_rng(context.seed))

        generator = torch.Generator().manual_seed(context.seed)
        layer = self._layer(encoder)
        bound = inputs.shape[1] ** -0.5  # nn.Linear's own range, drawn from this trial's generator
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
        optimiser = torch.optim.Adam(layer.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        for step in context.track(range(config.iterations), "train"):
            chosen = torch.from_numpy(steps[step])
            loss = self._loss(layer(inputs[chosen])[:, 0], labels[chosen])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        self._probe = layer

    def _loss(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        from torch.nn import functional as F

        if self.config.loss == "bce":
            return F.binary_cross_entropy_with_logits(scores, labels)
        return F.relu(self.config.alpha + (1 - 2 * labels) * scores).mean()

    def _layer(self, encoder: TextImageEncoder) -> torch.nn.Linear:
        import torch

        return torch.nn.Linear(encoder.embed_dim * (1 + self.config.text_difference), 1)

    def state(self) -> State:
        """The probe's weights. Without a probe nothing is learned."""
        from bench.methods.shared.learned import state_of

        if self._probe is None:
            raise RuntimeError("fit the probe before asking for its state")
        return state_of(self._probe.state_dict())

    def restore(self, state: State, context: Context) -> None:
        """Take the probe's weights instead of training it."""
        from bench.methods.shared.learned import restore_module

        layer = self._layer(context.encoder(self.config.encoder))
        restore_module(layer, state)
        self._probe = layer

    # ---------------------------------------------------------------- scoring

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores from embeddings, maps from patch tokens by the same rule, on the encoder's grid."""
        encoder = context.encoder(self.config.encoder)
        whole, patches, grid = self._views(images, encoder)
        if self.config.variant == "probe":
            image, maps = self._probe_scores(whole, patches, self._directions(images, encoder))
        else:
            directions = self._directions(images, encoder) / self.config.temperature
            image, maps = along(whole, directions), along(patches, directions[:, None])
            if self.config.few_shot != "off":
                image, maps = self._with_support(image, maps, whole, patches, encoder, context)
        return Scores(image.astype(np.float32), maps.reshape(len(images), *grid).astype(np.float32))

    def features(self, images: ImageSet, context: Context) -> NDArray[np.float32]:
        """``(N, E)`` normalised image embeddings."""
        encoder = context.encoder(self.config.encoder)
        embedding = encoder.encode_images(images, image_size=self.config.img_size).embedding
        normalised: NDArray[np.float32] = unit(embedding.numpy())
        return normalised

    def _views(self, images: ImageSet, encoder: TextImageEncoder) -> tuple[Floats, Floats, tuple[int, int]]:
        """Normalised embeddings ``(N, E)`` and projected patch tokens ``(N, h * w, E)``, and the grid."""
        last = encoder.n_blocks - 1
        features = encoder.encode_images(images, layers=(last,), image_size=self.config.img_size)
        patches = encoder.project(features.tokens[last][:, 1:])
        return unit(features.embedding.numpy()), unit(patches.numpy()), features.grid

    def _directions(self, images: ImageSet, encoder: TextImageEncoder) -> Floats:
        """``(N, E)``: the anomalous text's embedding less the normal one's, per image's category."""
        by_category = {}
        for category in dict.fromkeys(images.categories):
            normal, anomalous = sentences(category, images.prompts.get(category), self.config.prompts)
            by_category[category] = mean_text(anomalous, encoder) - mean_text(normal, encoder)
        return np.stack([by_category[category] for category in images.categories])

    def _probe_scores(self, whole: Floats, patches: Floats, directions: Floats) -> tuple[Floats, Floats]:
        if self._probe is None:
            raise RuntimeError("fit the probe before scoring")
        weight = self._probe.weight.detach()[0].double().numpy()
        bias = float(self._probe.bias.detach())
        size = whole.shape[1]
        offsets = np.full(len(whole), bias)
        if self.config.text_difference:
            offsets = offsets + directions @ weight[size:]
        return along(whole, weight[:size]) + offsets, along(patches, weight[:size]) + offsets[:, None]

    def _with_support(
        self,
        image: Floats,
        maps: Floats,
        whole: Floats,
        patches: Floats,
        encoder: TextImageEncoder,
        context: Context,
    ) -> tuple[Floats, Floats]:
        """Distances to the K normal images, alone or averaged with the zero-shot probabilities."""
        if not context.support:
            raise NotApplicable("few_shot needs K normal images of the target category")
        normal, normal_patches, _ = self._views(context.support, encoder)
        far = distance(whole, normal[:, None])
        far_patches = distance(patches, normal_patches)
        if self.config.few_shot == "support":
            return far, far_patches
        return (far + probability(image)) / 2, (far_patches + probability(maps)) / 2


def draw_steps(
    categories: Sequence[str], labels: NDArray[np.int8], config: ClipConfig, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Image indices of each training step, ``(iterations, episodes_per_step * n_query)``.

    An episode's images come from one category's pool, in which each anomaly is listed ``upsampling`` times. A
    step without any anomaly gets one in a random place.
    """
    of, anomalous = np.asarray(categories), np.asarray(labels) == 1
    weights = np.where(anomalous, config.upsampling, 1)
    members = [np.flatnonzero(of == category) for category in sorted(set(categories))]
    pools = [np.repeat(each, weights[each]) for each in members]
    steps = np.empty((config.iterations, config.episodes_per_step * config.n_query), dtype=np.int64)
    for step in steps:
        # `step` and `episode` are views: what is drawn is written into `steps`.
        for episode in step.reshape(config.episodes_per_step, config.n_query):
            episode[:] = rng.choice(pools[rng.integers(len(pools))], config.n_query)
        if not anomalous[step].any():
            step[rng.integers(len(step))] = rng.choice(np.flatnonzero(anomalous))
    return steps
