"""DRA (Ding et al., "Catching Both Gray and Black Swans", CVPR 2022).

Implements ``Choubo/DRA`` (commit 3fb0e9c): on a trainable backbone and an image pyramid, four heads that learn
kinds of abnormality apart, with deviation losses: a holistic one that scores normality, one for seen anomalies,
one for pseudo-anomalies (CutMix within one image), and one for latent residuals against normal references. The
score is the sum of the last three minus the first.

Differences: the seen categories' normals and labelled anomalies are pooled, where the original trains within one
category, and so are its references (``ref_train``, ``ref_source``); references are clean images by default, where
the official loader rotates them and replaces about half by pseudo-anomalies (``ref_clean=off``); at test they are
drawn once, where the official code draws new ones for each batch, so that its scores depend on the images' order;
``outlier_root`` (external images as pseudo-anomalies) and losses other than the deviation loss are left out; the
original has no anomaly maps (``pixel_map``); everything random is seeded; pixels are prepared as
:mod:`bench.methods.shared.finetune` says, see also :mod:`bench.methods.dra.net`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.contracts import Context, ImageSet, Scores, State, TrainingSet, Traits
from bench.errors import NotApplicable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from bench.methods.dra.net import DRANetwork
    from bench.methods.shared.finetune import Preparation

_SCORE_BATCH = 16  # images per pass when scoring


class DRA:
    """Disentangled representations of abnormalities; see the module's head."""

    name: ClassVar[str] = "dra"
    version: ClassVar[str] = "1"

    @dataclass(frozen=True)
    class Config:
        """Options; the defaults are those of the official code unless noted.

        Attributes:
            backbone: trainable backbone.
            img_size: side that images are scaled to; 0 for the backbone's own (448 for ImageNet ones).
            epochs, steps_per_epoch: training length.
            batch_size: images per step beside the references, two thirds of them normal or pseudo-anomalous, one
                third real anomalies.
            n_scales: image pyramid: full size, half, ...
            topk: fraction of positions that makes a score.
            hidden: units of the holistic head.
            margin: deviations that targets should lie above the prior's mean.
            n_references: draws from the prior per loss.
            n_ref: normal references per image. With ``ref_source=target`` as many as the target has (ours).
            ref_source: where references come from at test; PromptAD does not say it of an unseen category.
                ``seen_pool``: drawn once per trial from the seen categories' pooled normals (the official loader
                on a pool declared to be one category); ``target``: the K normals of the target category, which is
                not zero-shot (our reading of PromptAD's Table 3); ``none``: without the residual head.
            ref_train: where they come from in training, at each step. ``seen_pool``: the pooled normals, for the
                whole batch; ``seen_same_class``: normals of each image's own category (ours); ``none``: without a
                residual head, which needs ``ref_source=none``.
            ref_clean: references are normal images as they are (ours). ``off`` as in the official loader, which
                rotates them and replaces them by pseudo-anomalies as it does training images, at test too.
            pseudo_probability: that a normal image gives way to a pseudo-anomaly, made of another normal.
            cut_area: smallest and largest part of the image that is pasted.
            cut_aspect: smallest ratio of the pasted rectangle's sides.
            cut_jitter: change of its brightness, contrast, saturation and hue.
            rotation: training images are rotated by up to this many degrees either way.
            lr, weight_decay: of Adam.
            lr_step, lr_gamma: every ``lr_step`` epochs the rate is multiplied by ``lr_gamma``.
            lr_ahead: the official code steps this schedule before each epoch, not after it, so that the rate falls
                in epochs 9, 19 and 29, counted from 0; ``off`` for epochs 10 and 20.
            clip: largest norm of the gradient.
            pixel_map: ``heads`` for the absolute scores of the three heads with positions, summed, and averaged
                over the scales; ``grad`` for DevNet's gradient of the score with respect to the pixels (both ours:
                there is nothing official).
            grad_sigma: smoothing of ``grad`` in pixels of a 448-pixel image (DevNet's code).
        """

        backbone: str = "torchvision/resnet18"
        img_size: int = 0
        epochs: int = 30
        steps_per_epoch: int = 20
        batch_size: int = 48
        n_scales: int = 2
        topk: float = 0.1
        hidden: int = 256
        margin: float = 5.0
        n_references: int = 5000
        n_ref: int = 5
        ref_source: Literal["seen_pool", "target", "none"] = "seen_pool"
        ref_train: Literal["seen_pool", "seen_same_class", "none"] = "seen_pool"
        ref_clean: bool = True
        pseudo_probability: float = 0.5
        cut_area: tuple[float, ...] = (0.02, 0.15)
        cut_aspect: float = 0.3
        cut_jitter: float = 0.1
        rotation: float = 180.0
        lr: float = 2e-4
        weight_decay: float = 1e-5
        lr_step: int = 10
        lr_gamma: float = 0.1
        lr_ahead: bool = True
        clip: float = 1.0
        pixel_map: Literal["heads", "grad"] = "heads"
        grad_sigma: float = 4.0

        def __post_init__(self) -> None:
            for field in ("epochs", "steps_per_epoch", "n_scales", "hidden", "n_ref", "lr_step"):
                if getattr(self, field) < 1:
                    raise ValueError(f"{field} is at least 1")
            for field in ("batch_size", "n_references"):
                if getattr(self, field) < 2:
                    raise ValueError(f"{field} is at least 2")
            for field in ("topk", "cut_aspect"):
                if not 0 < getattr(self, field) <= 1:
                    raise ValueError(f"{field} is above 0, at most 1")
            if not 0 <= self.pseudo_probability <= 1:
                raise ValueError("pseudo_probability is from 0 to 1")
            if len(self.cut_area) != 2 or not 0 < self.cut_area[0] <= self.cut_area[1] <= 1:
                raise ValueError("cut_area is two parts of the image, the smaller first, as in 0.02+0.15")
            if not 0 <= self.cut_jitter <= 0.5:
                raise ValueError("cut_jitter is from 0 to 0.5 (half the colour circle)")
            if self.ref_train == "none" and self.ref_source != "none":
                raise ValueError(
                    "a residual head that was not trained cannot be used; ref_train=none needs ref_source=none"
                )

    def __init__(self, config: Config) -> None:
        self.config = config
        self._scorer: DRAScorer | None = None

    @classmethod
    def traits(cls, config: Config) -> Traits:
        at_test = {
            "seen_pool": "references from the seen categories' normals",
            "target": "the target's normals as references",
            "none": "no references at test",
        }[config.ref_source]
        maps = {"heads": "the heads' own scores as maps", "grad": "DevNet's gradients as maps"}[config.pixel_map]
        return Traits(
            title="DRA",
            source="Ding et al., CVPR 2022; Choubo/DRA",
            zero_shot=config.ref_source != "target",
            backbone=True,
            support=config.ref_source == "target",
            fits_on_support=config.ref_source == "target",
            adapted=f"trained on the pooled images of all seen categories, not within one; {at_test}; {maps}",
        )

    @classmethod
    def work(cls, config: Config, n_images: int) -> float:
        """Images and references over all steps, see :class:`bench.contracts.HasWork`."""
        return config.epochs * config.steps_per_epoch * (config.batch_size + config.n_ref)

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Fine-tune the backbone and the heads, and look at the references of the test.

        Raises:
            NotApplicable: no normal or no anomalous image to learn from, or no support images as references.
        """
        import torch

        from bench.methods.dra.batches import Batches
        from bench.methods.dra.net import loss
        from bench.methods.shared import finetune
        from bench.methods.shared.pixels import load_pixels

        config = self.config
        if len(set(train.labels.tolist())) < 2:
            raise NotApplicable("DRA needs normal and anomalous training images")
        support = context.support if config.ref_source == "target" else None
        if config.ref_source == "target" and not support:
            raise NotApplicable("DRA with ref_source=target needs normal images of the target category")
        n_ref = len(support) if support else config.n_ref

        generator = torch.Generator().manual_seed(context.seed)
        network, prepare, size = self._build(context, generator)
        pixels = load_pixels(train.images, size, context.device)
        batches = Batches(config, train, pixels, prepare, n_ref, generator)
        # The test's references are drawn before training, so that they do not hang on its length.
        references = None
        if support:
            references = batches.as_references(load_pixels(support, size, context.device))
        elif config.ref_source == "seen_pool":
            references = batches.from_pool()
        n_first = 0 if config.ref_train == "none" else n_ref

        def loss_of_step(step: int) -> torch.Tensor:
            images, labels, groups = batches.batch()
            answers = network.answers_to(images, n_first, groups)
            return loss(answers.scores, labels, generator, config.margin, config.n_references)

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
            lr_ahead=config.lr_ahead,
            clip=config.clip,
            track=context.track,
        )
        network.eval()
        self._scorer = DRAScorer(network, prepare, size, references, config)

    def _build(self, context: Context, generator: torch.Generator) -> tuple[DRANetwork, Preparation, int]:
        """The network before training, the images' preparation, and the side of the input in pixels."""
        import torch

        from bench.methods.dra.net import DRANetwork
        from bench.methods.shared import finetune

        config = self.config
        backbone = context.backbone(config.backbone)
        network = DRANetwork(
            backbone,
            n_scales=config.n_scales,
            topk=config.topk,
            hidden=config.hidden,
            residual=config.ref_train != "none",
            generator=generator,
        ).to(context.device)
        network.to(memory_format=torch.channels_last)
        prepare = finetune.Preparation(backbone, context.device)
        return network, prepare, config.img_size or backbone.image_size

    def state(self) -> State:
        """All weights of the fine-tuned network, and the mean features of the references."""
        from bench.methods.shared.learned import state_of

        if self._scorer is None:
            raise RuntimeError("state before fit")
        return state_of(self._scorer.tensors())

    def restore(self, state: State, context: Context) -> None:
        """Take the weights of a fine-tuned network and its references instead of training one."""
        import torch

        from bench.methods.shared.learned import check_tensors

        network, prepare, size = self._build(context, torch.Generator())
        network.eval()
        # A black image as reference tells the shapes that the references' features have.
        black = prepare(torch.zeros(1, 3, size, size, dtype=torch.uint8))
        references = None if self.config.ref_source == "none" else black
        scorer = DRAScorer(network, prepare, size, references, self.config)
        check_tensors(state, scorer.tensors())
        scorer.take(state.tensors)
        self._scorer = scorer

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores, and maps on the backbone's grid (``heads``) or on a quarter of the pixels (``grad``)."""
        from bench.methods.shared.batches import in_batches
        from bench.methods.shared.pixels import load_pixels

        scorer = self._scorer
        if scorer is None:
            raise RuntimeError("score before fit")
        pixels = load_pixels(images, scorer.size, context.device)
        function = scorer.with_gradients if self.config.pixel_map == "grad" else scorer.with_heads
        found = in_batches(function, pixels, _SCORE_BATCH)
        return Scores(found["image"].numpy(), found["maps"].numpy())

    def features(self, images: ImageSet, context: Context) -> NDArray[np.float32]:
        """``(N, C)``: the fine-tuned backbone's features, averaged over positions and scales."""
        from bench.methods.shared import finetune
        from bench.methods.shared.pixels import load_pixels

        scorer = self._scorer
        if scorer is None:
            raise RuntimeError("features before fit")
        pixels = load_pixels(images, scorer.size, context.device)
        return finetune.mean_features(scorer.network.features, scorer.prepare, pixels, _SCORE_BATCH)


class DRAScorer:
    """The trained network and its references.

    Args:
        references: ``(n_ref, 3, S, S)`` prepared images, or None to leave the residual head out.
        size: side of the network's input in pixels.
    """

    def __init__(
        self,
        network: DRANetwork,
        prepare: Preparation,
        size: int,
        references: torch.Tensor | None,
        config: DRA.Config,
    ) -> None:
        import torch

        self.network, self.prepare, self.size, self.config = network, prepare, size, config
        self.means: list[torch.Tensor] | None = None
        if references is not None:
            # Their features hang on no test image: BatchNorm is in eval mode now.
            with torch.no_grad():
                self.means = [feature.mean(dim=0, keepdim=True) for feature in network.features(references)]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that is learned: the network's weights, and ``references.SCALE``, the references' mean features."""
        means = {f"references.{scale}": mean for scale, mean in enumerate(self.means or ())}
        return {**self.network.state_dict(), **means}

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy in what another's :meth:`tensors` gave."""
        self.network.load_state_dict({name: tensors[name] for name in self.network.state_dict()})
        if self.means is not None:
            # Not copied into those that are there, which may lie in memory otherwise.
            given = [tensors[f"references.{scale}"] for scale in range(len(self.means))]
            self.means = [mean.to(self.prepare.device, copy=True) for mean in given]

    def with_heads(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Scores and maps of one batch, on the CPU."""
        import torch

        from bench.methods.shared import finetune

        with torch.no_grad():
            answers = self.network.answers(self.network.features(self.prepare(pixels)), self.means)
            return {"image": answers.anomaly.cpu(), "maps": finetune.finest(answers.maps).cpu()}

    def with_gradients(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Scores of one batch, and the smoothed gradients of each with respect to its image, on the CPU."""
        from bench.methods.shared import finetune

        images = self.prepare(pixels).requires_grad_()
        scores = self.network.answers(self.network.features(images), self.means).anomaly
        maps = finetune.gradient_maps(scores, images, self.config.grad_sigma)
        return {"image": scores.detach().cpu(), "maps": maps.cpu()}
