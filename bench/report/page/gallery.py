"""The test images that a method ranks worst and best, with its anomaly maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Sample
from bench.data.catalogue import Catalogue
from bench.data.images import mask_or_blank, read_image
from bench.errors import BenchError
from bench.report.page import pictures
from bench.store.record import Record
from bench.store.scores import RecordedData
from bench.store.store import Store

PERCENTILES = (1, 99.9)  # of all pixels of a trial's maps: the ends of its colours


@dataclass(frozen=True)
class Picture:
    """One test image of one trial.

    Attributes:
        id: the image's name in the dataset.
        anomalous: its label.
        score: its image score.
        outranked: number of images of the other class on the wrong side of it, or level with it.
        others: number of all images of the other class.
        image: data URI; so are ``mask``, None if the image is normal, and ``map``, None without maps.
    """

    id: str
    anomalous: bool
    score: float
    outranked: int
    others: int
    image: str
    mask: str | None
    map: str | None


@dataclass(frozen=True)
class Exhibition:
    """The worst and the best images of one trial; ``reason`` says why there are none.

    Attributes:
        key: the trial's.
        low, high: the scores at the ends of the maps' colours; None without maps.
    """

    key: str
    worst: tuple[Picture, ...] = ()
    best: tuple[Picture, ...] = ()
    low: float | None = None
    high: float | None = None
    reason: str = ""


class Gallery:
    """Makes exhibitions of trials whose scores are in the store.

    Args:
        store: holds the scores.
        roots: name of the dataset -> its folder, for the images and labels, which no store holds; by default
            the one where the trial found it.
        count: number of worst and of best images, at most.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path], count: int) -> None:
        self.store, self.roots, self.count = store, roots, count
        self._data = RecordedData(store, roots)
        self._opened: dict[str, Catalogue | str] = {}

    @property
    def refused(self) -> list[str]:
        """The reasons why datasets could not be opened."""
        return [found for found in self._opened.values() if isinstance(found, str)]

    def show(self, record: Record) -> Exhibition:
        """The exhibition of one finished trial.

        Worst are the images that the most images of the other class outrank: an anomalous one by normal
        images that score as high or higher, a normal one by anomalous images that score as low or lower.
        Their share, averaged over the anomalous images, is what an image AUROC of 1 lacks (ties count half
        there). Best are the anomalous images that the fewest outrank, the highest scores first.

        Raises:
            BenchError: the folder that was given for the dataset is not it, or holds other data than were
                scored.
        """
        key = record.key
        catalogue = self._catalogue(record)
        if isinstance(catalogue, str):
            return Exhibition(key, reason=catalogue)
        try:
            scores = self.store.scores(key)
        except BenchError:
            return Exhibition(key, reason="the trial's scores cannot be read; run the study again")
        ids = self.store.score_ids(key)
        labels = catalogue.labels(ids).astype(bool)
        outranked = _outranked(scores["image"], labels)
        others = np.where(labels, (~labels).sum(), labels.sum())
        share = outranked / np.maximum(others, 1)  # there may be images of one class alone
        right = scores["image"] * np.where(labels, 1, -1)  # how far an image is on the right side
        order = sorted(range(len(ids)), key=lambda i: (-share[i], right[i], ids[i]))
        best = [i for i in reversed(order) if labels[i]][: self.count]
        worst = [i for i in order if i not in best][: self.count]
        maps = scores.get("maps")
        low, high = (None, None) if maps is None else map(float, np.percentile(maps, PERCENTILES))

        def picture(index: int) -> Picture:
            sample = catalogue.samples[ids[index]]
            map_ = None if maps is None else maps[index]
            shown = _shown(sample, map_, low or 0.0, high or 0.0)
            label, value = bool(labels[index]), float(scores["image"][index])
            others = int((labels != label).sum())
            return Picture(sample.id, label, value, int(outranked[index]), others, *shown)

        return Exhibition(key, tuple(map(picture, worst)), tuple(map(picture, best)), low, high)

    def _catalogue(self, record: Record) -> Catalogue | str:
        """The dataset of a record, or why it cannot be opened."""
        label = record.dataset.label
        if label not in self._opened:
            try:
                self._opened[label] = self._data.of(record)
            except BenchError as error:
                if record.dataset.name in self.roots:
                    raise
                self._opened[label] = f"no pictures of {label}: {error}"
        return self._opened[label]


def _outranked(scores: NDArray[np.float32], anomalous: NDArray[np.bool_]) -> NDArray[np.intp]:
    """``(N,)`` counts: see :attr:`Picture.outranked`."""
    normal, other = np.sort(scores[~anomalous]), np.sort(scores[anomalous])
    higher = len(normal) - np.searchsorted(normal, scores, "left")
    lower = np.searchsorted(other, scores, "right")
    return np.where(anomalous, higher, lower)


def _shown(
    sample: Sample, scores: NDArray[np.float32] | None, low: float, high: float
) -> tuple[str, str | None, str | None]:
    image = read_image(sample)
    # An anomalous image that lacks a mask is shown without a silhouette and without an outline.
    mask = mask_or_blank(sample)
    return (
        pictures.photograph(image),
        pictures.silhouette(mask) if sample.masks else None,
        None if scores is None else pictures.overlay(image, scores, mask, low, high),
    )
