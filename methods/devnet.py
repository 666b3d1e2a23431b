"""DevNet, image version (Pang et al., "Explainable Deep Few-shot Anomaly Detection with Deviation Networks").

Implements ``mala-lab/deviation-network-image`` (arXiv 2108.00462; commit 7a13ee6): a trainable backbone, a 1x1
convolution that scores every position, the mean of the top 10 % of absolute scores over an image pyramid, and the
deviation loss.

Differences: the seen categories' normals and labelled anomalies are pooled, where the original trains within
one category; everything random is seeded (the original seeds after the head is initialised); anomaly maps
default to the head's own scores, since the official ones are gradients normalised per image; pixels are
prepared as :mod:`bench.methods.shared.finetune` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Context, ImageSet, Scores, State, TrainingSet, Traits
from bench.errors import NotApplicable

if TYPE_CHECKING:
    import torch

_SCORE_BATCH = 16  # images per pass when scoring


class DevNet:
    """Deviation network on images."""

    name: ClassVar[str] = "devnet"
    version: ClassVar[str] = "1"

    @dataclass(frozen=True)
    class Config:
        """Options; the defaults are those of the official code unless noted.

        Attributes:
            backbone: trainable backbone.
            img_size: side that images are scaled to; 0 for the backbone's own (448 for ImageNet ones).
            epochs, steps_per_epoch: training length.
            batch_size: images per step, half of them anomalous.
            n_scales: image pyramid: full size, half, ...
            topk: fraction of positions that makes an image's score.
            margin: deviations that anomalies should lie above the prior's mean.
            n_references: draws from the prior per loss.
            rotation: training images are rotated by up to this many degrees either way.
            lr, weight_decay: of Adam.
            lr_step, lr_gamma: every ``lr_step`` epochs the rate is multiplied by ``lr_gamma``.
            clip: largest norm of the gradient.
            pixel_map: ``head`` for the absolute scores of the 1x1 convolution, averaged over the scales (ours);
                ``grad`` for the gradient of the score with respect to the pixels, summed over channels and
                smoothed (official, without its normalisation per image).
            grad_sigma: smoothing of ``grad`` in pixels of a 448-pixel image.
        """

        backbone: str = "torchvision/resnet18"
        img_size: int = 0
        epochs: int = 50
        steps_per_epoch: int = 20
        batch_size: int = 48
        n_scales: int = 2
        topk: float = 0.1
        margin: float = 5.0
        n_references: int = 5000
        rotation: float = 180.0
        lr: float = 2e-4
        weight_decay: float = 1e-5
        lr_step: int = 10
        lr_gamma: float = 0.1
        clip: float = 1.0
        pixel_map: Literal["head", "grad"] = "head"
        grad_sigma: float = 4.0

        def __post_init__(self) -> None:
            for field in ("epochs", "steps_per_epoch", "n_scales", "lr_step"):
                if getattr(self, field) < 1:
                    raise ValueError(f"{field} is at least 1")
            if self.batch_size < 2:
                raise ValueError("batch_size is at least 2: a normal and an anomalous image")
            if self.n_references < 2:
                raise ValueError("n_references is at least 2")
            if not 0 < self.topk <= 1:
                raise ValueError("topk is a fraction: above 0, at most 1")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network: DevNetNetwork | None = None

    @classmethod
    def traits(cls, config: Config) -> Traits:
        return Traits(
            title="DevNet",
            source="Pang et al., arXiv 2108.00462; mala-lab/deviation-network-image",
            backbone=True,
            adapted="trained on the pooled images of all seen categories instead of within one",
        )

    @classmethod
    def work(cls, config: Config, n_images: int) -> float:
        """Images over all steps, see :class:`bench.contracts.HasWork`."""
        return config.epochs * config.steps_per_epoch * config.batch_size

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Fine-tune the backbone and the head on balanced batches.

        Raises:
            NotApplicable: no normal or no anomalous image to learn from.
        """
        import torch

        from bench.methods.shared import finetune
        from bench.methods.shared.pixels import load_pixels, rows

        normals, anomalies = np.flatnonzero(train.labels == 0), np.flatnonzero(train.labels == 1)
        if not len(normals) or not len(anomalies):
            raise NotApplicable("DevNet needs normal and anomalous training images")
        config = self.config
        generator = torch.Generator().manual_seed(context.seed)
        self._network = network = DevNetNetwork(config, context, generator)
        pixels = load_pixels(train.images, network.size, context.device)
        normal, anomalous = (finetune.Endless(items, generator) for items in (normals, anomalies))
        n_anomalous = config.batch_size // 2
        n_normal = config.batch_size - n_anomalous
        targets = torch.cat([torch.zeros(n_normal), torch.ones(n_anomalous)]).to(context.device)

        def loss_of_step(step: int) -> torch.Tensor:
            chosen = torch.cat([normal.take(n_normal), anomalous.take(n_anomalous)])
            degrees = finetune.angles(len(chosen), config.rotation, generator)
            images = network.prepare(rows(pixels, chosen), degrees)
            scores, _ = network(images)
            return finetune.deviation_loss(scores, targets, generator, config.margin, config.n_references)

        finetune.training_mode(network.modules, network.frozen_norm)
        finetune.optimise(
            network.modules.parameters(),
            loss_of_step,
            epochs=config.epochs,
            steps_per_epoch=config.steps_per_epoch,
            lr=config.lr,
            weight_decay=config.weight_decay,
            lr_step=config.lr_step,
            lr_gamma=config.lr_gamma,
            clip=config.clip,
            track=context.track,
        )
        network.modules.eval()

    def state(self) -> State:
        """All weights of the fine-tuned backbone, and the head's."""
        from bench.methods.shared.learned import state_of

        if self._network is None:
            raise RuntimeError("state before fit")
        return state_of(self._network.modules.state_dict())

    def restore(self, state: State, context: Context) -> None:
        """Take the weights of a fine-tuned network instead of training one."""
        import torch

        from bench.methods.shared.learned import restore_module

        network = DevNetNetwork(self.config, context, torch.Generator())
        restore_module(network.modules, state)
        network.modules.eval()
        self._network = network

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores, and maps on the backbone's grid (``head``) or on a quarter of the pixels (``grad``)."""
        from bench.methods.shared.batches import in_batches
        from bench.methods.shared.pixels import load_pixels

        network = self._network
        if network is None:
            raise RuntimeError("score before fit")
        pixels = load_pixels(images, network.size, context.device)
        function = network.score_with_gradients if self.config.pixel_map == "grad" else network.score
        found = in_batches(function, pixels, _SCORE_BATCH)
        return Scores(found["image"].numpy(), found["maps"].numpy())

    def features(self, images: ImageSet, context: Context) -> NDArray[np.float32]:
        """``(N, C)``: the fine-tuned backbone's features, averaged over positions and scales."""
        from bench.methods.shared import finetune
        from bench.methods.shared.pixels import load_pixels

        network = self._network
        if network is None:
            raise RuntimeError("features before fit")
        pixels = load_pixels(images, network.size, context.device)
        return finetune.mean_features(network.features, network.prepare, pixels, _SCORE_BATCH)


class DevNetNetwork:
    """Backbone, head and the images' preparation.

    Attributes:
        modules: what is trained.
        size: side of its input in pixels.
        frozen_norm: BatchNorm stays in eval mode.
    """

    def __init__(self, config: DevNet.Config, context: Context, generator: torch.Generator) -> None:
        import torch

        from bench.methods.shared import finetune

        backbone = context.backbone(config.backbone)
        self.config = config
        self.size = config.img_size or backbone.image_size
        self.frozen_norm = backbone.frozen_norm
        self.prepare = finetune.Preparation(backbone, context.device)
        self.modules = torch.nn.ModuleDict(
            {"backbone": backbone.module, "head": finetune.new_head(backbone.channels, generator)}
        ).to(context.device)
        self.modules.to(memory_format=torch.channels_last)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Normalised ``(B, 3, S, S)`` to scores ``(B,)``, and per scale absolute scores ``(B, 1, h, w)``."""
        import torch

        from bench.methods.shared import finetune

        maps = [self.modules["head"](feature).abs() for feature in self.features(images)]
        scores = [finetune.top_k_mean(scale.flatten(1), self.config.topk) for scale in maps]
        return torch.stack(scores).mean(dim=0), maps

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Per scale the backbone's ``(B, C, h, w)`` of normalised ``(B, 3, S, S)``."""
        from bench.methods.shared import finetune

        scales = finetune.pyramid(images, self.config.n_scales)
        return [finetune.forward(self.modules["backbone"], scaled) for scaled in scales]

    def score(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Scores and maps of one batch, on the CPU."""
        import torch

        from bench.methods.shared import finetune

        with torch.no_grad():
            scores, maps = self(self.prepare(pixels))
            return {"image": scores.cpu(), "maps": finetune.finest(maps).cpu()}

    def score_with_gradients(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Scores of one batch, and the smoothed gradients of each with respect to its image, on the CPU."""
        from bench.methods.shared import finetune

        images = self.prepare(pixels).requires_grad_()
        scores, _ = self(images)
        maps = finetune.gradient_maps(scores, images, self.config.grad_sigma)
        return {"image": scores.detach().cpu(), "maps": maps.cpu()}
