"""A dataset's test images of one category, to be scored by a detector and measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts import Sample
from bench.data.catalogue import Catalogue, open_catalogue
from bench.errors import BenchError, unknown
from bench.metrics import evaluation
from bench.metrics.protocols import resolve
from bench.metrics.registry import METRICS
from bench.predict.detector import Detector
from bench.predict.pictures import Picture, Pictures
from bench.predict.predictions import Predictions
from bench.study.lookup import leak
from bench.tools.spec import parse_spec
from bench.tools.text import count


@dataclass(frozen=True)
class Labelled:
    """The test part of one category of a dataset."""

    catalogue: Catalogue
    samples: tuple[Sample, ...]

    @classmethod
    def open(cls, dataset: str, root: Path | None, category: str) -> Labelled:
        """The test part of a category.

        Raises:
            BenchError: no such dataset or category, or the category has no test image.
        """
        catalogue = open_catalogue(parse_spec(dataset), root)
        if not category and len(catalogue.categories) == 1:
            category = catalogue.categories[0]
        if not category:
            raise BenchError(f"{catalogue.label}: name the category, {', '.join(catalogue.categories)}")
        if category not in catalogue.categories:
            raise unknown("category", category, catalogue.categories, f"of {catalogue.label}")
        samples = catalogue.select(category, "test")
        if not samples:
            raise BenchError(f"{catalogue.label}: {category} has no test image")
        return cls(catalogue, samples)

    def predict(self, detector: Detector, *, allow_leak: bool = False, **options: Any) -> Predictions:
        """The detector's predictions of the images, with the dataset's prompts unless others are given.

        Raises:
            BenchError: the detector was trained on images of this category.
        """
        category = self.samples[0].category
        if options.get("prompts") is None:
            options["prompts"] = self.catalogue.dataset.prompts().get(category)
        keys = {self.catalogue.keys[s.id] for s in self.catalogue.samples.values() if s.category == category}
        leaked = leak(detector.weights.values(), self.catalogue.dataset.name)
        if leaked and not allow_leak:
            raise BenchError(f"leakage: {leaked}; --allow-leak prints its metrics even so")
        known = keys & frozenset(detector.trained_on.get("images", ()))
        if known and not allow_leak:
            raise BenchError(
                f"leakage: the detector was trained on {count(len(known), 'image')} of {category} in "
                f"{self.catalogue.label}, so its metrics there mean nothing; --allow-leak prints them even so"
            )
        tested = {self.catalogue.keys[sample.id] for sample in self.samples}
        for option in ("normals", "calibrate"):
            given = Pictures.of(options[option]).items if options.get(option) is not None else ()
            shared = sum(picture.key in tested for picture in given)
            if shared:
                raise BenchError(
                    f"leakage: --{option} holds {count(shared, 'test image')} of {category}; give other pictures, "
                    "such as its training part"
                )
        pictures = Pictures(tuple(Picture(s.id, s.image, box=s.box) for s in self.samples))
        found = detector.predict(pictures, category, **options)
        return dataclasses.replace(found, notes=(*found.notes, *filter(None, [leaked])))

    def metrics(self, predictions: Predictions) -> dict[str, str]:
        """Title of a metric -> its value, or the reason why there is none."""
        ids = [sample.id for sample in self.samples]
        maps = predictions.maps
        found = evaluation.measure(
            resolve("exact", self.catalogue.dataset.traits.eval_size),
            labels=self.catalogue.labels(ids),
            image_scores=predictions.image,
            maps=maps,
            masks=None if maps is None else self.catalogue.masks(ids, blank=True),
            no_masks=self.catalogue.without_masks(ids),
            unmasked=self.catalogue.unmasked(ids),
        )
        said = {}
        for name, value in found.metrics.items():
            reason = found.reasons.get(name, "undefined")
            said[METRICS[name].title] = f"n/a ({reason})" if value is None else f"{value:.3f}"
            if value is not None and found.pixel_images and METRICS[name].level != "image":
                measured, of = found.pixel_images
                said[METRICS[name].title] += (
                    f" (on {measured} of {of} images: anomalous ones without a mask are left out)"
                )
        return said
