"""DRA's network and loss (``Choubo/DRA``: ``modeling/net.py``, ``train.py``).

Differences from that code: every head scores all images and the loss picks its subset, where the original picks
before the head (the same numbers, since no head but the residual one looks across images, and that one takes all);
each image of a batch may have references of its own; the references of a test are averaged once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from bench.contracts import Backbone
from bench.methods.shared import finetune
from bench.methods.shared.pixels import rows
from bench.tools.devices import sent

NORMAL, ANOMALY, PSEUDO = 0, 1, 2  # labels of a training batch


# ---------------------------------------------------------------- network


class HolisticHead(torch.nn.Module):
    """Head for an image as a whole: mean over positions, two layers, absolute value."""

    def __init__(self, channels: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.fc1 = finetune.initialised(torch.nn.Linear(channels, hidden), generator)
        self.fc2 = finetune.initialised(torch.nn.Linear(hidden, 1), generator)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` -> ``(B,)``."""
        scores: torch.Tensor = self.fc2(F.relu(self.fc1(features.mean(dim=(2, 3)))))
        return scores[:, 0].abs()


class PlainHead(torch.nn.Module):
    """Head for each position: a 1x1 convolution, absolute value."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        self.scoring = finetune.new_head(channels, generator)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` -> ``(B, 1, h, w)``."""
        scores: torch.Tensor = self.scoring(features)
        return scores.abs()


class ResidualHead(PlainHead):
    """Head for each position's difference from normal references."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__(channels, generator)
        convolution = torch.nn.Conv2d(channels, channels, 3, padding=1)
        self.conv = torch.nn.Sequential(
            finetune.initialised(convolution, generator), torch.nn.BatchNorm2d(channels), torch.nn.ReLU()
        )

    def forward(self, residual: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` reference minus image -> ``(B, 1, h, w)``."""
        return super().forward(self.conv(residual))


class Answers(NamedTuple):
    """Scores of the heads for B images.

    Attributes:
        scores: head -> ``(B,)``, at least 0, averaged over the scales: ``holistic`` is high for normal images,
            ``seen``, ``pseudo`` and (unless left out) ``residual`` for anomalous ones.
        maps: per scale ``(B, 1, h, w)``, the sum of the last three heads' scores of each position.
    """

    scores: Mapping[str, torch.Tensor]
    maps: Sequence[torch.Tensor]

    @property
    def anomaly(self) -> torch.Tensor:
        """``(B,)`` the three anomaly scores minus the holistic one (``train.py``: eval)."""
        others = [score for head, score in self.scores.items() if head != "holistic"]
        return torch.stack(others).sum(dim=0) - self.scores["holistic"]


class DRANetwork(torch.nn.Module):
    """Backbone, pyramid and four heads, shared by all scales.

    Args:
        backbone: loaded for this trial; it is trained.
        n_scales: full size, half, ...
        topk: fraction of positions that makes a score.
        hidden: units of the holistic head.
        residual: whether there is a residual head.
        generator: for the heads' weights.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        n_scales: int,
        topk: float,
        hidden: int,
        residual: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_scales, self.topk, self.frozen_norm = n_scales, topk, backbone.frozen_norm
        self.backbone = backbone.module
        self.holistic = HolisticHead(backbone.channels, hidden, generator)
        self.seen = PlainHead(backbone.channels, generator)
        self.pseudo = PlainHead(backbone.channels, generator)
        self.residual = ResidualHead(backbone.channels, generator) if residual else None

    def train(self, mode: bool = True) -> DRANetwork:
        super().train(mode)
        if mode:  # the residual head's own BatchNorm learns its statistics in any case
            finetune.training_mode(self.backbone, self.frozen_norm)
        return self

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Per scale the backbone's ``(B, C, h, w)`` for ``(B, 3, S, S)`` normalised images."""
        return [finetune.forward(self.backbone, scaled) for scaled in finetune.pyramid(images, self.n_scales)]

    def answers(self, features: Sequence[torch.Tensor], means: Sequence[torch.Tensor] | None) -> Answers:
        """Scores of the heads.

        Args:
            features: per scale ``(B, C, h, w)``.
            means: per scale the references' mean, ``(1, C, h, w)`` for all images or ``(B, C, h, w)`` for each;
                None to leave the residual head out.
        """
        scores: dict[str, list[torch.Tensor]] = {}
        maps = []
        for scale, feature in enumerate(features):
            positions = {"seen": self.seen(feature), "pseudo": self.pseudo(feature)}
            if means is not None:
                assert self.residual is not None
                positions["residual"] = self.residual(means[scale] - feature)
            scores.setdefault("holistic", []).append(self.holistic(feature))
            for head, values in positions.items():
                scores.setdefault(head, []).append(finetune.top_k_mean(values.flatten(1), self.topk))
            maps.append(torch.stack(list(positions.values())).sum(dim=0))
        return Answers({head: torch.stack(values).mean(dim=0) for head, values in scores.items()}, maps)

    def answers_to(self, images: torch.Tensor, n_references: int, groups: torch.Tensor | None = None) -> Answers:
        """Scores of the heads for a training batch whose first rows are references.

        They pass the backbone together with the images, and so count in its BatchNorm's statistics.

        Args:
            images: ``(G * n_references + B, 3, S, S)``.
            n_references: references per group; 0 to leave the residual head out.
            groups: ``(B,)`` the group of references with which each image is compared; None if there is one.
        """
        features = self.features(images)
        if not n_references:
            return self.answers(features, None)
        count = n_references * (1 if groups is None else int(groups.max()) + 1)
        means = [f[:count].unflatten(0, (-1, n_references)).mean(dim=1) for f in features]
        if groups is not None:
            means = [rows(mean, groups) for mean in means]
        return self.answers([f[count:] for f in features], means)


def loss(
    scores: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    generator: torch.Generator,
    margin: float = 5.0,
    n_references: int = 5000,
) -> torch.Tensor:
    """Sum of the heads' deviation losses, each the mean over its own subset of the batch.

    The holistic head learns from all images that *normal* ones score high; the seen head from normals and real
    anomalies; the pseudo head from normals and pseudo-anomalies; the residual head from all.

    Args:
        scores: head -> ``(B,)``.
        labels: ``(B,)`` of 0 normal, 1 anomaly, 2 pseudo-anomaly; on the CPU, so that what each head learns from
            is known without asking a GPU.
    """
    anywhere = torch.ones_like(labels, dtype=torch.bool)
    lessons = {
        "holistic": (anywhere, labels == NORMAL),
        "seen": (labels != PSEUDO, labels == ANOMALY),
        "pseudo": (labels != ANOMALY, labels == PSEUDO),
        "residual": (anywhere, labels != NORMAL),
    }
    losses = []
    for head, (subset, positive) in lessons.items():
        if head in scores:
            chosen = rows(scores[head], subset.nonzero()[:, 0])
            targets = sent(positive[subset].float(), chosen.device)
            losses.append(finetune.deviation_loss(chosen, targets, generator, margin, n_references))
    return torch.stack(losses).sum()
