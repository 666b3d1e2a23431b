"""MLEP on images: our adaptation of Liu et al., "Margin Learning Embedded Prediction", IJCAI 2019.

The original (``svip-lab/MLEP``, commit 22e9663) predicts video frames and keeps normal and abnormal clips apart by
a margin in feature space. No image version of it is public, though several papers compare with one; so what stands
here is ours, and its numbers can be held against no published ones.

``variant=embed`` keeps the margin and drops the prediction: DevNet's and DRA's backbone and recipe, with triplets
of two normal images and an anomalous one whose mean features the margin keeps apart, and a linear score trained by
the deviation loss, since distances alone do not say on which side an unseen category lies. ``variant=recon`` keeps
both: a decoder that reconstructs the image stands in for the prediction of the next frame, and an image's score is
the error of its reconstruction.

From the original: one hinge per batch on the mean squared distances, margin and weight 1; mean absolute error of
anchors' and positives' reconstructions in [-1, 1]; the decoder's layers. From DevNet's and DRA's code: backbone,
input, rotation, optimiser. Ours: the rest, above all that a triplet stays within one category.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from bench.contracts import Context, ImageSet, Scores, State, TrainingSet, Traits
from bench.errors import NotApplicable

if TYPE_CHECKING:
    import torch

    from bench.methods.mlep.net import EmbedNet, ReconNet
    from bench.methods.shared.finetune import Preparation

_SCORE_BATCH = 16  # images per pass when scoring


class MLEP:
    """Margin learning on images; see the module's head."""

    name: ClassVar[str] = "mlep"
    version: ClassVar[str] = "1"

    @dataclass(frozen=True)
    class Config:
        """Options.

        Attributes:
            variant: ``embed`` or ``recon``, see the module's head (both ours).
            backbone: trainable backbone (DevNet's and DRA's).
            img_size: side that images are scaled to; 0 for the backbone's own (448 for ImageNet ones, as there).
            epochs, steps_per_epoch: training length (DRA's).
            batch_size: images per step (DRA's), a third of them triplets' anchors.
            cross_class: draw a triplet's three images from all seen categories, as the original draws its clips;
                ``off`` for all three from one (ours).
            margin, margin_weight: of the margin loss (original).
            score: (``embed``) ``head`` for the linear score, ``center`` for the squared distance from the mean
                embedding of the seen categories' normals (both ours).
            score_weight: (``embed``) of the linear score's deviation loss; 0 for none (ours).
            deviation_margin, n_references: of the deviation loss (DevNet's).
            embed_dim: (``embed``) units of a linear layer before the margin; 0 for none (ours).
            decoder_width: (``recon``) channels after the decoder's first doubling, halved at each further one.
                The original's has 256 before its first one, and two.
            map_sigma: (``recon``) smoothing of the error map in pixels of a 448-pixel image (DevNet's, for maps).
            rotation: training images are rotated by up to this many degrees either way (DevNet's and DRA's).
            lr, weight_decay: of Adam (DevNet's and DRA's; the original has 2e-4 too, and no decay).
            lr_step, lr_gamma: every ``lr_step`` epochs the rate is multiplied by ``lr_gamma`` (DevNet's).
            clip: largest norm of the gradient (DevNet's and DRA's).
        """

        variant: Literal["embed", "recon"] = "embed"
        backbone: str = "torchvision/resnet18"
        img_size: int = 0
        epochs: int = 30
        steps_per_epoch: int = 20
        batch_size: int = 48
        cross_class: bool = False
        margin: float = 1.0
        margin_weight: float = 1.0
        score: Literal["head", "center"] = "head"
        score_weight: float = 1.0
        deviation_margin: float = 5.0
        n_references: int = 5000
        embed_dim: int = 0
        decoder_width: int = 256
        map_sigma: float = 4.0
        rotation: float = 180.0
        lr: float = 2e-4
        weight_decay: float = 1e-5
        lr_step: int = 10
        lr_gamma: float = 0.1
        clip: float = 1.0

        def __post_init__(self) -> None:
            for field in ("epochs", "steps_per_epoch", "decoder_width", "lr_step"):
                if getattr(self, field) < 1:
                    raise ValueError(f"{field} is at least 1")
            for field in ("margin_weight", "score_weight", "embed_dim", "map_sigma"):
                if getattr(self, field) < 0:
                    raise ValueError(f"{field} is at least 0")
            if self.batch_size < 3:
                raise ValueError("batch_size is at least 3: one triplet")
            if self.n_references < 2:
                raise ValueError("n_references is at least 2")
            if self.variant == "embed" and self.score == "head" and not self.score_weight:
                raise ValueError("a head that was not trained cannot score; score_weight=0 needs score=center")
            if self.variant == "recon" and (self.score != "head" or self.embed_dim):
                raise ValueError("score and embed_dim belong to variant=embed")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._network: EmbedNet | ReconNet | None = None
        self._prepare: Preparation | None = None
        self._size = 0

    @classmethod
    def traits(cls, config: Config) -> Traits:
        how = {
            "embed": "the margin on image features and a score trained by the deviation loss",
            "recon": "the margin on image features and reconstruction instead of prediction",
        }[config.variant]
        return Traits(
            title="MLEP",
            source="after Liu et al., IJCAI 2019; svip-lab/MLEP",
            backbone=True,
            adapted=f"our own image adaptation of a video method, no image version being public: {how}",
        )

    @classmethod
    def work(cls, config: Config, n_images: int) -> float:
        """Images over all steps, see :class:`bench.contracts.HasWork`."""
        return config.epochs * config.steps_per_epoch * config.batch_size

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Fine-tune the network on triplets.

        Raises:
            NotApplicable: no category with both normal and anomalous images, so no triplet.
        """
        import torch

        from bench.methods.mlep.net import EmbedNet
        from bench.methods.shared import finetune
        from bench.methods.shared.batches import in_batches
        from bench.methods.shared.pixels import load_pixels, rows

        config = self.config
        generator = torch.Generator().manual_seed(context.seed)
        triplets = Triplets(train, config.cross_class, generator)
        network, prepare = self._build(context, generator)
        pixels = load_pixels(train.images, self._size, context.device)

        def loss_of_step(step: int) -> torch.Tensor:
            chosen = triplets.take(config.batch_size // 3)
            degrees = finetune.angles(len(chosen), config.rotation, generator)
            return network.loss(prepare(rows(pixels, chosen), degrees), generator)

        network.train()
        finetune.optimise(
            network.parameters(),
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
        network.eval()
        if isinstance(network, EmbedNet) and config.score == "center":
            normals = torch.from_numpy(np.flatnonzero(train.labels == 0)).to(pixels.device)
            embedded = in_batches(
                lambda chosen: network.embeddings(prepare(pixels[chosen])), normals, _SCORE_BATCH
            )
            network.look_at(embedded["embedding"])
        self._network = network

    def _build(self, context: Context, generator: torch.Generator) -> tuple[EmbedNet | ReconNet, Preparation]:
        """The network before training, and the images' preparation; this method keeps the latter."""
        import torch

        from bench.methods.mlep.net import EmbedNet, ReconNet
        from bench.methods.shared import finetune

        config = self.config
        backbone = context.backbone(config.backbone)
        self._size = config.img_size or backbone.image_size
        self._prepare = prepare = finetune.Preparation(backbone, context.device)
        network: EmbedNet | ReconNet
        if config.variant == "embed":
            network = EmbedNet(config, backbone, generator)
        else:
            network = ReconNet(config, backbone, prepare, generator)
        network.to(context.device)
        network.to(memory_format=torch.channels_last)
        return network, prepare

    def state(self) -> State:
        """All weights of the fine-tuned network, and the centre where ``score=center`` has one."""
        from bench.methods.shared.learned import state_of

        if self._network is None:
            raise RuntimeError("state before fit")
        return state_of(self._network.state_dict())

    def restore(self, state: State, context: Context) -> None:
        """Take the weights of a fine-tuned network instead of training one."""
        import torch

        from bench.methods.shared.learned import restore_module

        network, _ = self._build(context, torch.Generator())
        restore_module(network, state)
        network.eval()
        self._network = network

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores, and maps on the backbone's grid (``embed``) or on a quarter of the pixels (``recon``)."""
        from bench.methods.shared.batches import in_batches
        from bench.methods.shared.pixels import load_pixels

        network, prepare = self._network, self._prepare
        if network is None or prepare is None:
            raise RuntimeError("score before fit")
        pixels = load_pixels(images, self._size, context.device)
        found = in_batches(lambda batch: network.score(prepare(batch)), pixels, _SCORE_BATCH)
        return Scores(found["image"].numpy(), found["maps"].numpy())


class Triplets:
    """Draws anchors, positives and negatives: two normal images and an anomalous one.

    Each anomalous image is drawn equally often, each with an anchor and a positive of its own category.

    Args:
        cross_class: all three from any category.

    Raises:
        NotApplicable: there is none to draw.
    """

    def __init__(self, train: TrainingSet, cross_class: bool, generator: torch.Generator) -> None:
        from bench.methods.shared import finetune

        categories = train.images.categories
        normals, anomalies = (np.flatnonzero(train.labels == label).tolist() for label in (0, 1))
        if cross_class:
            categories = ("",) * len(categories)
        self._categories = categories
        self._normals = finetune.by_category(normals, categories, generator)
        anomalies = [i for i in anomalies if categories[i] in self._normals]
        if not anomalies:
            raise NotApplicable("MLEP needs normal and anomalous training images of one category")
        self._anomalies = finetune.Endless(anomalies, generator)

    def take(self, count: int) -> torch.Tensor:
        """``(3 * count,)`` images: ``count`` anchors, their positives, their negatives."""
        import torch

        negatives = self._anomalies.take(count)
        pairs = torch.stack([self._normals[self._categories[i]].take(2) for i in negatives.tolist()])
        return torch.cat([pairs[:, 0], pairs[:, 1], negatives])
