"""RegAD (Huang et al., "Registration based Few-Shot Anomaly Detection", ECCV 2022).

Implements ``MediaBrain-SJTU/RegAD`` (commit 5e2c1f8; ``train.py``, ``models/stn.py``, ``models/siamese.py``,
``utils/funcs.py``):

- a ResNet's first three stages with a spatial transformer behind each, trained to register two normal images of
  one seen category (SimSiam's loss between a query and the mean features of K supports);
- for the target category, a Gaussian per position of the features, warped back, of its K normal images and their
  21 variants each;
- Mahalanobis distances as a map, scaled to the image, smoothed; an image's score is the map's maximum.

How it differs: the weights of the last epoch are used. The official code tests every epoch's on the target's test
set and keeps the best, which is what its published numbers are of; a ``select=test_best`` is left out because it
needs the test images' labels, and no method sees those. Its ten fixed sets of support images are not public in a
form that could be shipped, so the protocol draws them. Images are scaled to squares (the official code scales the
shorter side, and takes square images only). Quarter turns are exact instead of interpolated. Gaussians are
factorised in float64 instead of inverted in float32. The map of the registration heads, which the official code
computes and does not use, is not computed. Maps are averaged back to the features' grid; image scores are taken
before that. Everything random is seeded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Backbone, Context, ImageSet, Scores, State, TrainingSet, Traits
from bench.errors import NotApplicable

if TYPE_CHECKING:
    import torch

    from bench.methods.regad.net import RegistrationNet

Ints = NDArray[np.int64]

_SCORE_BATCH = 16  # images per pass when scoring
_GROUP = 16 * _SCORE_BATCH  # images whose features are held at once
_OFFICIAL_SIZE = 224


class RegAD:
    """Registration of features across categories; see the module's head."""

    name: ClassVar[str] = "regad"
    version: ClassVar[str] = "1"

    @dataclass(frozen=True)
    class Config:
        """Options; the defaults are those of the official code unless noted.

        Attributes:
            backbone: trainable backbone. The first three stages of a ResNet are read, as the paper does; a
                network without stages counts as one stage, with one transformer behind it (ours).
            img_size: side that images are scaled to; 0 for 224, or the backbone's own where that is smaller (64
                for ``pocket/resnet``; ours).
            normalise: normalise images with the backbone's mean and deviation; the official code does not.
            epochs: passes over the seen categories' normals. The rate reaches 0 in the last one, so a single
                epoch moves nothing but BatchNorm's statistics.
            batch_size: query images per step, all of one category.
            supports: per query in training; 0 for as many as the target has (official).
            lr, momentum: of SGD; the rate falls as ``lr * (1 + cos(pi * epoch / epochs)) / 2``, epochs from 1.
            stn: what the spatial transformers may do; ``none`` for no transformers (the paper's ablation).
            augment: variants of the support images: ``rotation`` (8), ``translation`` (8), ``flip`` (1), ``grey``
                (1), ``turn`` by quarters (3), joined by ``+``; or ``none``.
            shrinkage: added to the diagonal of each covariance.
            gauss_sigma: smoothing of the map, in pixels of a 224-pixel image; 0 for none.
        """

        backbone: str = "torchvision/resnet18"
        img_size: int = 0
        normalise: bool = False
        epochs: int = 50
        batch_size: int = 32
        supports: int = 0
        lr: float = 1e-4
        momentum: float = 0.9
        stn: Literal[
            "rotation_scale",
            "rotation",
            "scale",
            "translation",
            "shear",
            "affine",
            "translation_scale",
            "rotation_translation",
            "rotation_translation_scale",
            "none",
        ] = "rotation_scale"
        augment: tuple[Literal["rotation", "translation", "flip", "grey", "turn", "none"], ...] = (
            "rotation",
            "translation",
            "flip",
            "grey",
            "turn",
        )
        shrinkage: float = 0.01
        gauss_sigma: float = 4.0

        def __post_init__(self) -> None:
            if low := [name for name in ("epochs", "batch_size") if getattr(self, name) < 1]:
                raise ValueError(f"{', '.join(low)} must be at least 1")
            if low := [
                n for n in ("img_size", "supports", "lr", "momentum", "gauss_sigma") if getattr(self, n) < 0
            ]:
                raise ValueError(f"{', '.join(low)} must not be below 0")
            if self.shrinkage <= 0:
                raise ValueError("shrinkage must be above 0: the covariance of a few images is singular")
            if not self.augment or ("none" in self.augment and len(self.augment) > 1):
                raise ValueError("augment is none, or kinds joined by +, such as rotation+flip")

    def __init__(self, config: Config) -> None:
        self.config = config
        self._net: RegistrationNet | None = None
        self._backbone: Backbone | None = None

    @classmethod
    def traits(cls, config: Config) -> Traits:
        return Traits(
            title="RegAD",
            source="Huang et al., ECCV 2022; MediaBrain-SJTU/RegAD",
            anomalies=False,
            zero_shot=False,
            backbone=True,
            support=True,
            adapted="the last epoch's weights instead of those that do best on the test set",
        )

    # ---------------------------------------------------------------- training

    @classmethod
    def work(cls, config: Config, n_images: int) -> float:
        """Queries over all epochs, see :class:`bench.contracts.HasWork`."""
        return config.epochs * n_images

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Learn to register normal images of the seen categories. Labelled anomalies are not used.

        Raises:
            NotApplicable: no support images, or no seen category with two normal images.
        """
        import torch

        from bench.methods.shared import finetune
        from bench.methods.shared.pixels import rows

        config = self.config
        k = config.supports or context.n_support
        if not k:
            raise NotApplicable("RegAD needs K normal images of the target; use --protocol loo[k=4]")
        images = train.images.subset(np.flatnonzero(train.labels == 0))
        if not draw_epoch(images.categories, config.batch_size, k, np.random.default_rng(0)):
            raise NotApplicable("RegAD registers normal images of one category; no seen category has two")
        net, frozen_norm = self._build(context)
        net.train()
        for part in (net.stem, net.stages):
            finetune.training_mode(part, frozen_norm)

        pixels = self._load(images, context)
        rng = np.random.default_rng(context.seed)
        optimiser = torch.optim.SGD(net.parameters(), lr=config.lr, momentum=config.momentum)
        epoch = draw_epoch(images.categories, config.batch_size, k, rng)
        for step in context.track(range(config.epochs * len(epoch)), "train"):
            number, place = divmod(step, len(epoch))
            if place == 0:
                if number:
                    epoch = draw_epoch(images.categories, config.batch_size, k, rng)
                rate = config.lr * (1 + math.cos(math.pi * (number + 1) / config.epochs)) / 2
                optimiser.param_groups[0]["lr"] = rate
            queries, supports = map(torch.from_numpy, epoch[place])
            loss = net.loss(
                self._prepare(rows(pixels, queries), context.device),
                self._prepare(rows(pixels, supports.flatten()), context.device).unflatten(0, supports.shape),
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        net.eval()
        self._net = net

    def _build(self, context: Context) -> tuple[RegistrationNet, bool]:
        """The network before training, and whether its BatchNorm is frozen; this method keeps its backbone."""
        import torch

        from bench.methods.regad.net import RegistrationNet

        self._backbone = backbone = context.backbone(self.config.backbone)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed)
            net = RegistrationNet(backbone.module, self._size, self.config.stn)
        return net.to(context.device).to(memory_format=torch.channels_last), backbone.frozen_norm

    def state(self) -> State:
        """All weights of the registration network; the Gaussians are of the target's images, not learned."""
        from bench.methods.shared.learned import state_of

        if self._net is None:
            raise RuntimeError("state before fit")
        return state_of(self._net.state_dict())

    def restore(self, state: State, context: Context) -> None:
        """Take the weights of a registration network instead of training one."""
        from bench.methods.shared.learned import restore_module

        net, _ = self._build(context)
        restore_module(net, state)
        net.eval()
        self._net = net

    # ---------------------------------------------------------------- scoring

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Distances from the support images; maps on the grid of the first stage's features.

        Raises:
            NotApplicable: no support images, or a single one without variants, which has no covariance.
        """
        import torch
        from torch.nn import functional as F

        from bench.methods.regad.net import augment, distance_maps, smooth

        if self._net is None:
            raise RuntimeError("score before fit")
        config, size, grid = self.config, self._size, self._net.grid
        variants = augment(self._load(_support(context), context).float() / 255, config.augment)
        if len(variants) < 2:
            raise NotApplicable("RegAD needs two support images, or variants of one: leave augment=none out")
        support = self._features(variants, context.device)
        scores, maps = [], []
        pixels = self._load(images, context)
        for group in pixels.split(_GROUP):
            distances = distance_maps(support, self._features(group, context.device), config.shrinkage)
            smoothed = smooth(distances, size, config.gauss_sigma * size / _OFFICIAL_SIZE)
            scores.append(smoothed.max(axis=(1, 2)))
            maps.append(F.adaptive_avg_pool2d(torch.from_numpy(smoothed), grid).numpy())
        return Scores(np.concatenate(scores), np.concatenate(maps))

    @property
    def _size(self) -> int:
        assert self._backbone is not None
        return self.config.img_size or min(_OFFICIAL_SIZE, self._backbone.image_size)

    def _load(self, images: ImageSet, context: Context) -> torch.Tensor:
        """``(N, 3, S, S)`` bytes, scaled as the official code does."""
        from bench.methods.shared.pixels import load_pixels

        return load_pixels(images, self._size, context.device, "lanczos")

    def _prepare(self, pixels: torch.Tensor, device: str) -> torch.Tensor:
        """``(B, 3, S, S)`` bytes, or floats in [0, 1], to what the network takes."""
        import torch

        from bench.tools.devices import sent

        assert self._backbone is not None
        images = sent(pixels, device)
        if not images.is_floating_point():
            images = images.float() / 255
        if self.config.normalise:
            mean, std = (sent(torch.tensor(v), device) for v in (self._backbone.mean, self._backbone.std))
            images = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
        # channels last: a third faster on CPUs
        return images.contiguous(memory_format=torch.channels_last)

    def _features(self, pixels: torch.Tensor, device: str) -> list[torch.Tensor]:
        """The network's aligned features of ``(N, 3, S, S)``, level by level."""
        import torch

        from bench.methods.shared.batches import in_batches

        def aligned(batch: torch.Tensor) -> dict[str, torch.Tensor]:
            assert self._net is not None
            with torch.no_grad():
                levels = self._net.aligned(self._prepare(batch, device))
            return {str(number): level for number, level in enumerate(levels)}

        return list(in_batches(aligned, pixels, _SCORE_BATCH).values())


def _support(context: Context) -> ImageSet:
    if context.support is None or not len(context.support):
        raise NotApplicable("RegAD needs K normal images of the target; use --protocol loo[k=4]")
    return context.support


def draw_epoch(
    categories: Sequence[str], batch_size: int, k: int, rng: np.random.Generator
) -> list[tuple[Ints, Ints]]:
    """One pass over normal images: each is a query once, in batches of one category, in random order.

    Args:
        categories: of the N images.
        batch_size: queries per batch; a category's last batch may be smaller.
        k: supports per query, drawn with replacement from the other images of its category, as in the official
            code. A category with one image has none and is left out.

    Returns:
        Per batch the queries ``(B,)`` and their supports ``(B, k)``.
    """
    names = np.asarray(categories)
    batches = []
    for name in sorted(set(categories)):
        members = rng.permutation(np.flatnonzero(names == name))
        if len(members) < 2:
            continue
        for places in np.split(np.arange(len(members)), range(batch_size, len(members), batch_size)):
            others = rng.integers(len(members) - 1, size=(len(places), k))
            others += others >= places[:, None]
            batches.append((members[places], members[others]))
    return [batches[i] for i in rng.permutation(len(batches))]
