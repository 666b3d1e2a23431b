"""A dataset with its content known: samples by id, content keys, fingerprint, and the sets methods see."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Dataset, Finding, ImageSet, Prompts, Sample, TrainingSet
from bench.data.images import read_image, read_mask, turned
from bench.errors import BenchError
from bench.tools.hashes import HashBook, hash_json
from bench.tools.registry import DATASETS
from bench.tools.spec import Spec, build_config, label

_TURNED = "its EXIF orientation is ignored: masks belong to the pixels as they are stored"


class Catalogue:
    """One dataset's samples and their content.

    Args:
        dataset: the dataset.
        hashes: remembers file hashes between runs.
    """

    def __init__(self, dataset: Dataset, hashes: HashBook | None = None) -> None:
        self.dataset = dataset
        self.label = label(dataset.name, dataset.config)
        self._hashes = hashes or HashBook()

    @functools.cached_property
    def samples(self) -> dict[str, Sample]:
        """All samples by id, in the order of the ids."""
        found = {sample.id: sample for sample in sorted(self.dataset.samples())}
        if not found:
            raise BenchError(f"{self.dataset.traits.title} at {self.dataset.root} holds no image")
        return found

    @functools.cached_property
    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({sample.category for sample in self.samples.values()}))

    def select(self, category: str, split: str, *, anomalous: bool | None = None) -> tuple[Sample, ...]:
        """The samples of one category and split, all or only the normal or anomalous ones."""
        return tuple(self._parts.get((category, split, anomalous), ()))

    @functools.cached_property
    def _parts(self) -> dict[tuple[str, str, bool | None], list[Sample]]:
        parts: dict[tuple[str, str, bool | None], list[Sample]] = {}
        for sample in self.samples.values():
            for anomalous in (None, sample.anomalous):
                parts.setdefault((sample.category, sample.split, anomalous), []).append(sample)
        return parts

    @functools.cached_property
    def keys(self) -> dict[str, str]:
        """Sample id -> content key: SHA-256 of the image file's hash and the box.

        Raises:
            BenchError: an image file is missing or cannot be read.
        """
        self._hashes.fill({sample.image for sample in self.samples.values()})
        return {id_: self._key(sample) for id_, sample in self.samples.items()}

    def _key(self, sample: Sample) -> str:
        return hashlib.sha256(f"{self._hash(sample)}|{sample.box}".encode()).hexdigest()

    def _hash(self, sample: Sample) -> str:
        try:
            return self._hashes[sample.image]
        except OSError as error:
            raise BenchError(f"{sample.image}: {error.strerror}") from None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every sample's id, group, image content and mask content; no path enters it."""
        masks = sorted({mask for sample in self.samples.values() for mask in sample.masks})
        self._hashes.fill(masks)
        return hash_json(
            [
                [s.id, s.group, self.keys[s.id], [self._hashes[mask] for mask in s.masks], s.mask_threshold]
                for s in self.samples.values()
            ]
        )

    # ------------------------------------------------------------ what methods see

    def image_set(self, ids: Sequence[str], prompts: Mapping[str, Prompts]) -> ImageSet:
        """The images ``ids`` in that order, without labels, masks or names."""
        by_key = {self.keys[id_]: self.samples[id_] for id_ in ids}
        categories = [self.samples[id_].category for id_ in ids]
        return ImageSet(
            [self.keys[id_] for id_ in ids],
            categories,
            {category: prompts[category] for category in set(categories) if category in prompts},
            lambda key: read_image(by_key[key]),
        )

    def training_set(self, ids: Sequence[str], prompts: Mapping[str, Prompts], shots: int) -> TrainingSet:
        """The images ``ids`` of seen categories with labels and masks."""
        by_key = {self.keys[id_]: self.samples[id_] for id_ in ids}
        samples = [self.samples[id_] for id_ in ids]
        return TrainingSet(
            self.image_set(ids, prompts),
            [int(sample.anomalous) for sample in samples],
            [sample.type for sample in samples],
            lambda key: read_mask(by_key[key]),
            shots,
        )

    def in_neutral_order(self, ids: Sequence[str]) -> tuple[str, ...]:
        """``ids`` ordered by content, so that their order says nothing of their labels."""
        return tuple(sorted(ids, key=lambda id_: (self.keys[id_], id_)))

    def labels(self, ids: Sequence[str]) -> NDArray[np.int8]:
        """``(N,)`` ground-truth labels; for metrics alone."""
        return np.array([self.samples[id_].anomalous for id_ in ids], dtype=np.int8)

    def masks(self, ids: Sequence[str]) -> list[NDArray[np.bool_]]:
        """Ground-truth masks; for metrics alone."""
        with ThreadPoolExecutor(max_workers=4) as pool:
            return list(pool.map(lambda id_: read_mask(self.samples[id_]), ids))


def open_catalogue(spec: Spec, root: Path | None, hashes: HashBook | None = None) -> Catalogue:
    """The catalogue of a dataset spec at ``root``.

    Raises:
        BenchError: unknown dataset or option, or a dataset that needs a root and got none.
    """
    cls = DATASETS.load(spec.name)
    config = build_config(cls.Config, spec, "dataset")
    if root is None and cls.traits.needs_root:
        raise BenchError(
            f"{spec.name} needs the folder that holds its files: add --data-root DIR "
            f"(or try --dataset pocket, which ships with the package)"
        )
    if root is not None and not root.is_dir():
        raise BenchError(f"the data root {root} is not a folder")
    return Catalogue(cls(root, config), hashes)


def check_content(catalogue: Catalogue) -> list[Finding]:
    """Decode every image and mask; name each one that is broken, empty or of another size.

    Images that viewers turn by an EXIF orientation, which is ignored here, give one note together.
    """

    def one(sample: Sample) -> list[Finding]:
        try:
            size = read_image(sample).shape[:2]
            odd = [Finding("note", sample.id, _TURNED)] if turned(sample.image) else []
        except BenchError as error:
            return [Finding("error", sample.id, str(error))]
        if not sample.masks:
            return odd
        try:
            mask = read_mask(sample)
        except BenchError as error:
            return [Finding("error", sample.id, str(error))]
        names = ", ".join(path.name for path in sample.masks)
        if mask.shape != size:
            found, wanted = ("x".join(str(n) for n in shape[::-1]) for shape in (mask.shape, size))
            return [Finding("error", sample.id, f"mask {names} is {found} pixels, its image {wanted}")]
        if not mask.any():
            return [Finding("error", sample.id, f"mask {names} marks no pixel")]
        return odd

    with ThreadPoolExecutor(max_workers=4) as pool:
        findings = [finding for found in pool.map(one, catalogue.samples.values()) for finding in found]
    notes = [finding for finding in findings if finding.level == "note"]
    together = [Finding("note", notes[0].path, f"{_TURNED} ({len(notes)} images)")] if notes else []
    return [finding for finding in findings if finding.level == "error"] + together
