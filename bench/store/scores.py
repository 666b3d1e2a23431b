"""Stored scores with the labels and masks of their images, ready to be measured again."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.catalogue import Catalogue, open_as_recorded
from bench.data.images import mask_or_blank
from bench.metrics import Evaluation
from bench.metrics.evaluation import measure, measure_aupimo
from bench.metrics.measurement import NO_MAPS, NO_MASKS
from bench.metrics.prepare import Kept
from bench.metrics.protocols import MetricProtocol
from bench.store.record import Record
from bench.store.store import Store
from bench.tools.hashes import HashBook


class RecordedData:
    """The datasets that trials were tested on, each opened once; no store holds images, labels or masks.

    Args:
        store: remembers the files' hashes.
        roots: dataset name -> its folder, where it is not the one that the trial was run on.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self.roots = roots
        self._hashes = HashBook(store.root / "hashes.json")
        self._opened: dict[tuple[str, Path | None, str | None], Catalogue] = {}

    def of(self, record: Record) -> Catalogue:
        """The dataset that a trial was tested on.

        Raises:
            BenchError: its folder is not there, or holds other data.
        """
        data, root = record.dataset, self.root(record)
        key = data.label, root, data.fingerprint
        if key not in self._opened:
            self._opened[key] = open_as_recorded(data.name, data.config, root, data.fingerprint, self._hashes)
        return self._opened[key]

    def root(self, record: Record) -> Path | None:
        """The folder of the dataset that a trial was tested on; None if it needs none."""
        return self.roots.get(record.dataset.name, record.inputs.target)


@dataclass(frozen=True)
class LabelledScores:
    """The scores of one trial with the labels and masks of their images.

    Attributes:
        labels: ``(N,)`` 0 or 1.
        image_scores: ``(N,)``.
        maps: ``(N, h, w)``; None if the method gives none.
        masks: N arrays ``(H, W)``, read when they are asked for; None where there are no maps. Blank for anomalous
            images without a mask, which are ``unmasked``.
        eval_size: the dataset's own grid for pixel metrics.
        without_masks: the reason, if no anomalous image has a mask.
        unmasked: places of the anomalous images without a mask.
    """

    labels: NDArray[np.int8]
    image_scores: NDArray[Any]
    maps: NDArray[Any] | None
    masks: Sequence[NDArray[np.bool_]] | None
    eval_size: int
    without_masks: str = ""
    unmasked: tuple[int, ...] = ()

    def measure(self, protocol: MetricProtocol, aupimo: bool = False) -> Evaluation:
        """The metrics under a protocol; see :func:`bench.metrics.evaluation.measure`.

        Raises:
            ValueError: masks and labels contradict each other.
        """
        return measure(
            protocol,
            labels=self.labels,
            image_scores=self.image_scores,
            maps=self.maps,
            masks=self.masks,
            aupimo=aupimo,
            no_masks=self.without_masks,
            unmasked=self.unmasked,
        )

    def measure_aupimo(self, protocol: MetricProtocol) -> tuple[float | None, str | None]:
        """AUPIMO alone, where the other pixel metrics are defined; or None, and why.

        Raises:
            ValueError: masks and labels contradict each other.
        """
        if self.maps is None:
            return None, NO_MAPS
        if self.masks is None or self.without_masks:
            return None, self.without_masks or NO_MASKS
        return measure_aupimo(
            protocol, labels=self.labels, maps=self.maps, masks=self.masks, unmasked=self.unmasked
        )


class StoredScores:
    """The scores of a store's trials.

    Args:
        store: holds records and scores.
        roots: see :class:`RecordedData`.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self.store = store
        self._data = RecordedData(store, roots)
        # Trials of one category share their masks, which take longer to read than the metrics to compute.
        self._masks = functools.lru_cache(maxsize=2)(self._read_masks)

    def open(self, record: Record) -> LabelledScores:
        """A trial's scores.

        Raises:
            BenchError: its dataset is not there or has changed, or its scores cannot be read.
        """
        arrays, ids = self.store.scores(record.key), self.store.score_ids(record.key)
        catalogue = self._data.of(record)
        maps = arrays.get("maps")
        return LabelledScores(
            labels=catalogue.labels(ids),
            image_scores=arrays["image"],
            maps=maps,
            masks=None if maps is None else self._masks(catalogue, ids),
            eval_size=catalogue.dataset.traits.eval_size,
            without_masks=catalogue.without_masks(ids),
            unmasked=catalogue.unmasked(ids),
        )

    def _read_masks(self, catalogue: Catalogue, ids: tuple[str, ...]) -> Kept:
        samples = [catalogue.samples[id_] for id_ in ids]
        return Kept(lambda index: mask_or_blank(samples[index]), len(samples))
