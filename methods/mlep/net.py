"""The networks of MLEP's image adaptation.

From the original (``svip-lab/MLEP``: ``train_scripts/train_temporal_annotation.py``, ``models/networks.py``): the
margin loss, the reconstruction loss and the decoder's layers; see :mod:`bench.methods.mlep`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from bench.contracts import Backbone
from bench.methods.shared import finetune

if TYPE_CHECKING:
    from bench.methods.mlep import MLEP

_NARROWEST = 32  # channels of the decoder's last stages, however deep it is


def margin_loss(features: torch.Tensor, margin: float) -> torch.Tensor:
    """``max(0, margin + intra - inter)``: one hinge for the whole batch, as in the original.

    ``intra`` is the mean squared difference of all anchors from their positives over the batch tensor, ``inter``
    that from their negatives; so an easy triplet makes up for a hard one.

    Args:
        features: ``(3 * T, ...)``, T anchors, then T positives, then T negatives.
    """
    anchors, positives, negatives = features.chunk(3)
    intra, inter = (anchors - positives).square().mean(), (anchors - negatives).square().mean()
    return (margin + intra - inter).clamp(min=0)


class EmbedNet(torch.nn.Module):
    """Variant ``embed``: an embedding on which the margin acts, and a linear score.

    Both are means over positions followed by linear maps, so applied to each position they give a map whose mean
    is the image's score.

    Attributes:
        centre: ``(E,)`` mean embedding of the seen normals, see :meth:`look_at`; only with ``score=center``.
    """

    centre: torch.Tensor

    def __init__(self, config: MLEP.Config, backbone: Backbone, generator: torch.Generator) -> None:
        super().__init__()
        self.config, self.frozen_norm = config, backbone.frozen_norm
        self.backbone = backbone.module
        width = config.embed_dim or backbone.channels
        self.project = (
            finetune.initialised(torch.nn.Linear(backbone.channels, width), generator)
            if config.embed_dim
            else torch.nn.Identity()
        )
        self.head = finetune.initialised(torch.nn.Linear(width, 1), generator)
        if config.score == "center":
            self.register_buffer("centre", torch.zeros(width))

    def train(self, mode: bool = True) -> EmbedNet:
        super().train(mode)
        if mode:
            finetune.training_mode(self.backbone, self.frozen_norm)
        return self

    def embed(self, features: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` features -> ``(B, E)``."""
        embedding: torch.Tensor = self.project(features.mean(dim=(2, 3)))
        return embedding

    def loss(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Margin loss and deviation loss of ``(3 * T, 3, S, S)`` anchors, positives, negatives."""
        config = self.config
        embedding = self.embed(finetune.forward(self.backbone, images))
        total = config.margin_weight * margin_loss(embedding, config.margin)
        if config.score_weight:
            scores = self.head(embedding)[:, 0]
            targets = torch.zeros_like(scores)
            targets[2 * len(targets) // 3 :] = 1
            loss = finetune.deviation_loss(
                scores, targets, generator, config.deviation_margin, config.n_references
            )
            total = total + config.score_weight * loss
        return total

    def look_at(self, embeddings: torch.Tensor) -> None:
        """Take the mean of ``(N, E)`` seen normals' embeddings as the centre."""
        self.centre.copy_(embeddings.mean(dim=0))

    def embeddings(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``(B, 3, S, S)`` -> ``embedding``: ``(B, E)`` on the CPU."""
        with torch.no_grad():
            return {"embedding": self.embed(finetune.forward(self.backbone, images)).cpu()}

    def score(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``(B, 3, S, S)`` -> ``image``: ``(B,)`` and ``maps``: ``(B, h, w)`` on the CPU."""
        with torch.no_grad():
            features = finetune.forward(self.backbone, images)
            embedding = self.embed(features)
            positions = self.project(features.permute(0, 2, 3, 1))
            if self.config.score == "center":
                image = (embedding - self.centre).square().sum(dim=-1)
                maps = (positions - self.centre).square().sum(dim=-1)
            else:
                image, maps = self.head(embedding)[:, 0], self.head(positions)[..., 0]
            return {"image": image.cpu(), "maps": maps.cpu()}


class ReconNet(torch.nn.Module):
    """Variant ``recon``: the features on which the margin acts, and a decoder that gives the image back.

    The decoder is the original's with as many doublings as the backbone has halvings: transposed convolutions with
    instance norm and ReLU, then a 7x7 convolution and tanh. It works in [-1, 1], as there.
    """

    def __init__(
        self, config: MLEP.Config, backbone: Backbone, prepare: finetune.Preparation, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config, self.frozen_norm, self.prepare = config, backbone.frozen_norm, prepare
        self.backbone = backbone.module
        layers: list[torch.nn.Module] = []
        before, after = backbone.channels, max(config.decoder_width, _NARROWEST)
        for _ in range(max(backbone.stride - 1, 0).bit_length()):
            up = torch.nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=1)
            layers += [up, torch.nn.InstanceNorm2d(after, affine=True), torch.nn.ReLU()]
            before, after = after, max(after // 2, _NARROWEST)
        layers += [torch.nn.Conv2d(before, 3, 7, padding=3, padding_mode="reflect"), torch.nn.Tanh()]
        self.decoder = torch.nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
                finetune.initialised(layer, generator)

    def train(self, mode: bool = True) -> ReconNet:
        super().train(mode)
        if mode:
            finetune.training_mode(self.backbone, self.frozen_norm)
        return self

    def targets(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, 3, S, S)`` normalised images -> in [-1, 1]."""
        return (images * self.prepare.std + self.prepare.mean) * 2 - 1

    def decode(self, features: torch.Tensor, size: int) -> torch.Tensor:
        """``(B, C, h, w)`` features -> ``(B, 3, size, size)`` in [-1, 1]."""
        images = finetune.forward(self.decoder, features)
        if images.shape[-1] != size:  # a side that the backbone's stride does not divide
            images = F.interpolate(images, size=size, mode="bilinear")
        return images

    def loss(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Reconstruction of anchors and positives, and margin loss, of ``(3 * T, 3, S, S)`` images."""
        config = self.config
        features = finetune.forward(self.backbone, images)
        normal = 2 * len(images) // 3  # negatives are not reconstructed
        wanted = self.targets(images[:normal])
        differences = (self.decode(features[:normal], images.shape[-1]) - wanted).abs()
        anchors, positives = differences.chunk(2)
        return anchors.mean() + positives.mean() + config.margin_weight * margin_loss(features, config.margin)

    def score(self, images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """``(B, 3, S, S)`` -> ``image``: ``(B,)`` and ``maps``: ``(B, S / 4, S / 4)`` on the CPU."""
        with torch.no_grad():
            decoded = self.decode(finetune.forward(self.backbone, images), images.shape[-1])
            # halved, as in the original's PSNR: errors of images in [0, 1]
            errors = ((decoded - self.targets(images)) / 2).square().mean(dim=1)
            maps = finetune.smooth_maps(errors, self.config.map_sigma)
            return {"image": errors.mean(dim=(1, 2)).cpu(), "maps": maps.cpu()}
