"""DRA's training batches, references and pseudo-anomalies.

From ``Choubo/DRA`` (``datasets/mvtecad.py``, ``datasets/cutmix.py``, ``dataloaders/utlis.py``). Differences: the
colours of what is pasted are jittered on tensors instead of Pillow images (brightness, contrast and saturation
come out equal but for a grey level, hue somewhat different, as Pillow keeps hues in 8 bits); with
``ref_clean=off`` a reference is made a pseudo-anomaly of itself, not of another normal, which are equally likely;
all randomness comes from one seeded generator.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from bench.methods.dra.net import ANOMALY, NORMAL, PSEUDO
from bench.methods.shared import finetune
from bench.methods.shared.pixels import rows

if TYPE_CHECKING:
    from bench.contracts import TrainingSet
    from bench.methods.dra import DRA


class Batch(NamedTuple):
    """Images that one step learns from.

    Attributes:
        images: ``(G * n_ref + B, 3, S, S)`` ready for the backbone, the references first.
        labels: ``(B,)`` of 0 normal, 1 anomaly, 2 pseudo-anomaly.
        groups: ``(B,)`` the group of references with which each image is compared, or None if there is one.
    """

    images: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor | None


class Batches:
    """Draws batches and references.

    Args:
        config: options.
        train: images and labels.
        pixels: ``(N, 3, S, S)`` uint8, all of them.
        prepare: from pixels to what the backbone takes.
        n_ref: references per group.
        generator: decides everything random.
    """

    def __init__(
        self,
        config: DRA.Config,
        train: TrainingSet,
        pixels: torch.Tensor,
        prepare: finetune.Preparation,
        n_ref: int,
        generator: torch.Generator,
    ) -> None:
        self.config, self.pixels, self.prepare, self.n_ref = config, pixels, prepare, n_ref
        self.generator = generator
        self.categories = train.images.categories
        normals = np.flatnonzero(train.labels == 0)
        self.normals = torch.from_numpy(normals)
        self._slots = finetune.Endless(normals, generator)
        self._anomalies = finetune.Endless(np.flatnonzero(train.labels == 1), generator)
        self._references = finetune.Endless(normals, generator)
        self._by_category = finetune.by_category(normals, self.categories, generator)

    def draw(self) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` images and their labels: two thirds normals or pseudo-anomalies, then real anomalies.

        A normal image gives way, with ``pseudo_probability``, to a pseudo-anomaly that is made of any normal.
        """
        count = 2 * self.config.batch_size // 3
        slots = self._slots.take(count)
        pseudo = torch.rand(count, generator=self.generator) < self.config.pseudo_probability
        others = self.normals[torch.randint(len(self.normals), (count,), generator=self.generator)]
        anomalies = self._anomalies.take(self.config.batch_size - count)
        chosen = torch.cat([torch.where(pseudo, others, slots), anomalies])
        labels = torch.cat([torch.where(pseudo, PSEUDO, NORMAL), torch.full_like(anomalies, ANOMALY)])
        return chosen, labels

    def batch(self) -> Batch:
        """The next step's batch."""
        chosen, labels = self.draw()
        images = self._as_in_training(self._of(chosen), labels == PSEUDO)
        if self.config.ref_train == "none":
            return Batch(images, labels, None)
        if self.config.ref_train == "seen_same_class":
            references, groups = self.of_same_category(chosen)
            return Batch(torch.cat([self.as_references(self._of(references)), images]), labels, groups)
        return Batch(torch.cat([self.from_pool(), images]), labels, None)

    def from_pool(self) -> torch.Tensor:
        """``(n_ref, 3, S, S)`` references of any seen category, ready for the backbone."""
        return self.as_references(self._of(self._references.take(self.n_ref)))

    def of_same_category(self, chosen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """References for each category among ``chosen``, and which group of them each image belongs to.

        A category of which no normal image was seen is compared with the pool.
        """
        names = [self.categories[i] for i in chosen.tolist()]
        order = sorted(set(names))
        drawn = [self._by_category.get(name, self._references).take(self.n_ref) for name in order]
        return torch.cat(drawn), torch.tensor([order.index(name) for name in names])

    def as_references(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(n, 3, S, S)`` uint8 normals, ready for the backbone; treated as in training unless ``ref_clean``."""
        if self.config.ref_clean:
            return self.prepare(pixels)
        pseudo = torch.rand(len(pixels), generator=self.generator) < self.config.pseudo_probability
        return self._as_in_training(pixels.clone(), pseudo)

    def _of(self, chosen: torch.Tensor) -> torch.Tensor:
        """A copy of the pixels of the ``chosen`` images."""
        return rows(self.pixels, chosen)

    def _as_in_training(self, pixels: torch.Tensor, pseudo: torch.Tensor) -> torch.Tensor:
        """Turn the ``pseudo`` ones into pseudo-anomalies, in place; rotate and prepare all."""
        config = self.config
        for row in pseudo.nonzero()[:, 0].tolist():
            cut = draw_cut(pixels.shape[-1], self.generator, config.cut_area, config.cut_aspect)
            pixels[row] = cutmix(pixels[row], cut, config.cut_jitter, self.generator)
        return self.prepare(pixels, finetune.angles(len(pixels), config.rotation, self.generator))


# ---------------------------------------------------------------- pseudo-anomalies


class Cut(NamedTuple):
    """A rectangle's size, where it is cut out and where it is pasted, in pixels."""

    height: int
    width: int
    source: tuple[int, int]
    target: tuple[int, int]


def draw_cut(size: int, generator: torch.Generator, area: tuple[float, ...], aspect: float) -> Cut:
    """A random rectangle in an image of ``size`` times ``size`` pixels.

    Args:
        area: smallest and largest part of the image, drawn evenly.
        aspect: smallest ratio of the sides; drawn evenly on a logarithmic scale from it to its inverse.
    """
    uniform = torch.rand(6, generator=generator, dtype=torch.float64).tolist()
    pixels = (area[0] + uniform[0] * (area[1] - area[0])) * size**2
    ratio = math.exp((2 * uniform[1] - 1) * -math.log(aspect))
    width, height = (min(max(round(math.sqrt(p)), 1), size) for p in (pixels * ratio, pixels / ratio))
    y1, y2 = (int(u * (size - height)) for u in uniform[2:4])
    x1, x2 = (int(u * (size - width)) for u in uniform[4:6])
    return Cut(height, width, (y1, x1), (y2, x2))


def cutmix(image: torch.Tensor, cut: Cut, jitter: float, generator: torch.Generator) -> torch.Tensor:
    """A copy of ``image`` with one of its own rectangles, its colours changed, pasted elsewhere.

    Args:
        image: ``(3, S, S)`` uint8.
        jitter: largest change of brightness, contrast, saturation (as factors around 1) and hue (as part of the
            colour circle), made in random order; 0 for none.
    """
    from torchvision.transforms import functional

    (y, x), (to_y, to_x) = cut.source, cut.target
    patch = image[:, y : y + cut.height, x : x + cut.width]
    if jitter:
        changes = ((torch.rand(4, generator=generator) * 2 - 1) * jitter).tolist()
        for change in torch.randperm(4, generator=generator).tolist():
            if change == 3:
                patch = functional.adjust_hue(patch, changes[3])
            else:
                adjust = (
                    functional.adjust_brightness,
                    functional.adjust_contrast,
                    functional.adjust_saturation,
                )[change]
                patch = adjust(patch, 1 + changes[change])
    result = image.clone()
    result[:, to_y : to_y + cut.height, to_x : to_x + cut.width] = patch
    return result
