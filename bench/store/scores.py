"""Stored scores with the labels and masks of their images, ready to be measured again."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.catalogue import Catalogue, open_catalogue
from bench.data.images import read_mask
from bench.data.recorded import command_words
from bench.errors import BenchError
from bench.metrics import Evaluation
from bench.metrics.evaluation import measure
from bench.metrics.prepare import Kept
from bench.metrics.protocols import MetricProtocol
from bench.store.store import Store
from bench.tools.hashes import HashBook
from bench.tools.spec import parse_spec


@dataclass(frozen=True)
class Scored:
    """The scores of one trial and the truth.

    Attributes:
        labels: ``(N,)`` 0 or 1.
        image_scores: ``(N,)``.
        maps: ``(N, h, w)``; None if the method gives none.
        masks: N arrays ``(H, W)``, read when they are asked for; None where there are no maps.
        eval_size: the grid of pixel metrics that the dataset stands for.
    """

    labels: NDArray[np.int8]
    image_scores: NDArray[Any]
    maps: NDArray[Any] | None
    masks: Sequence[NDArray[np.bool_]] | None
    eval_size: int

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
        )


class StoredScores:
    """Opens the scores of a store's trials.

    Args:
        store: holds records and scores.
        roots: dataset name -> its folder, where it is not the one that the trial was run on.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self.store = store
        self.roots = roots
        self._hashes = HashBook(store.root / "hashes.json")
        self._catalogue = functools.lru_cache(maxsize=4)(self._open)
        # Trials of one category share their masks, which take longer to read than the metrics to compute.
        self._masks = functools.lru_cache(maxsize=2)(self._read_masks)

    def open(self, record: Mapping[str, Any]) -> Scored:
        """A trial's scores.

        Raises:
            BenchError: its dataset is not there or has changed, or its scores cannot be read.
        """
        dataset, key = record["trial"]["dataset"], record["key"]
        arrays, ids = self.store.scores(key), self.store.score_ids(key)
        place = dataset["label"], self._root(record)
        catalogue = self._catalogue(*place)
        if catalogue.fingerprint != dataset["fingerprint"]:
            raise BenchError(
                f"{catalogue.label} at {catalogue.dataset.root} is not what trial {key[:12]} was run on; "
                "give the folder it saw with --data-root, or run the study again"
            )
        maps = arrays.get("maps")
        masks = None if maps is None else self._masks(place, ids)
        return Scored(catalogue.labels(ids), arrays["image"], maps, masks, catalogue.dataset.traits.eval_size)

    def _root(self, record: Mapping[str, Any]) -> Path | None:
        """The dataset's folder: the one given, or the one in the command that ran the trial."""
        name = record["trial"]["dataset"]["name"]
        if name in self.roots:
            return self.roots[name]
        words = command_words(record)
        if "--data-root" not in words[:-1]:
            return None
        root = Path(words[words.index("--data-root") + 1]).expanduser()
        if not root.is_dir():
            raise BenchError(f"the data root {root} is not a folder; say where it is now: --data-root {name}=DIR")
        return root

    def _open(self, label: str, root: Path | None) -> Catalogue:
        return open_catalogue(parse_spec(label), root, self._hashes)

    def _read_masks(self, place: tuple[str, Path | None], ids: tuple[str, ...]) -> Kept:
        samples = [self._catalogue(*place).samples[id_] for id_ in ids]
        return Kept(lambda index: read_mask(samples[index]), len(samples))
