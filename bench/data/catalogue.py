"""Datasets by content: samples by id, content keys, fingerprint, the checks, and the sets that methods see."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Dataset, Finding, ImageSet, Prompts, Sample, TrainingSet
from bench.data.home import find_root
from bench.data.images import marked, mask_or_blank, read_grey_masks, read_image, read_mask, turned
from bench.errors import BenchError, printable
from bench.tools.hashes import HashBook, hash_json
from bench.tools.registry import DATASETS
from bench.tools.spec import Spec, build_config, config_from_dict, label

_TURNED = "its EXIF orientation is ignored: masks belong to the pixels as they are stored"
_SAID = 4  # findings that the message for a dataset without images repeats


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
            raise BenchError(self._no_image())
        return found

    def _no_image(self) -> str:
        """The message for a dataset without a sample: its findings say why."""
        found = self.dataset.check()
        said = "; ".join(f"{finding.path}: {finding.message}" for finding in found[:_SAID])
        more = f"; and {len(found) - _SAID} more, see bench data check" if len(found) > _SAID else ""
        place = f"{self.dataset.traits.title} at {self.dataset.root}"
        return f"{place} holds no image that can be used ({said}{more})" if said else f"{place} holds no image"

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
            # None stands for both kinds: select() asks for all, or for one kind.
            for anomalous in (None, sample.anomalous):
                parts.setdefault((sample.category, sample.split, anomalous), []).append(sample)
        return parts

    @functools.cached_property
    def keys(self) -> dict[str, str]:
        """Sample id -> content key: SHA-256 of the image file's hash and the box.

        Raises:
            BenchError: an image file is missing or cannot be read.
        """
        known = self._hashes.fill({sample.image for sample in self.samples.values()})
        return {id_: self._key(sample, known) for id_, sample in self.samples.items()}

    def _key(self, sample: Sample, known: Mapping[Path, str]) -> str:
        digest = known.get(sample.image) or self._hash(sample)
        return hashlib.sha256(f"{digest}|{sample.box}".encode()).hexdigest()

    def _hash(self, sample: Sample) -> str:
        try:
            return self._hashes[sample.image]
        except OSError as error:
            raise BenchError(f"{sample.image}: {error.strerror}") from None

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every sample's id, group, image content and mask content; no path enters it."""
        # Hashed together: many files at once are read by several threads.
        masks = sorted({mask for sample in self.samples.values() for mask in sample.masks})
        known = self._hashes.fill(masks)
        return hash_json(
            [
                [
                    s.id,
                    s.group,
                    self.keys[s.id],
                    [known.get(mask) or self._hashes[mask] for mask in s.masks],
                    s.mask_threshold,
                ]
                for s in self.samples.values()
            ]
        )

    def without_masks(self, ids: Iterable[str]) -> str:
        """The reason why the images ``ids`` have no pixel metrics: no anomalous one has a mask; else empty."""
        anomalous = [self.samples[id_] for id_ in ids if self.samples[id_].anomalous]
        if not anomalous or not all(sample.lacks_mask for sample in anomalous):
            return ""
        return f"no masks: none of the {_images(len(anomalous))} has one"

    def unmasked(self, ids: Iterable[str]) -> tuple[int, ...]:
        """The places in ``ids`` of the anomalous images without a mask, which are left out of pixel metrics."""
        return tuple(place for place, id_ in enumerate(ids) if self.samples[id_].lacks_mask)

    def findings(self) -> list[Finding]:
        """The dataset's own findings about its files, and a note for each category whose anomalies lack masks.

        Raises:
            BenchError: the dataset has no image at all.
        """
        found = list(self.dataset.check())
        ids: dict[str, list[str]] = {}
        for sample in self.samples.values():
            ids.setdefault(sample.category, []).append(sample.id)
        # In words of the category, as pixel metrics are taken category by category.
        for category in self.categories:
            if reason := self.without_masks(ids[category]):
                found.append(Finding("note", printable(category), f"{reason}; it has image metrics only"))
            elif lacking := len(self.unmasked(ids[category])):
                anomalous = sum(self.samples[id_].anomalous for id_ in ids[category])
                message = (
                    f"{lacking} of {_images(anomalous)} {_have(lacking)} no mask; pixel metrics are taken on the "
                    "other images"
                )
                found.append(Finding("note", printable(category), message))
        return found

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
        unmasked = [self.keys[id_] for id_ in ids if self.samples[id_].lacks_mask]
        return TrainingSet(
            self.image_set(ids, prompts),
            [int(sample.anomalous) for sample in samples],
            [sample.type for sample in samples],
            lambda key: read_mask(by_key[key]),
            shots,
            unmasked,
        )

    def in_neutral_order(self, ids: Sequence[str]) -> tuple[str, ...]:
        """``ids`` ordered by content, so that their order says nothing of their labels."""
        return tuple(sorted(ids, key=lambda id_: (self.keys[id_], id_)))

    def labels(self, ids: Sequence[str]) -> NDArray[np.int8]:
        """``(N,)`` ground-truth labels; for metrics alone."""
        return np.array([self.samples[id_].anomalous for id_ in ids], dtype=np.int8)

    def masks(self, ids: Sequence[str], *, blank: bool = False) -> list[NDArray[np.bool_]]:
        """Ground-truth masks, each ``(H, W)`` bool; for metrics alone.

        Args:
            ids: of the images.
            blank: give an anomalous image without a mask an empty one, for those who leave out :meth:`unmasked`.

        Raises:
            BenchError: an anomalous image has no mask, unless ``blank``; a mask cannot be read.
        """
        read = mask_or_blank if blank else read_mask
        with ThreadPoolExecutor(max_workers=4) as pool:
            return list(pool.map(lambda id_: read(self.samples[id_]), ids))


def open_catalogue(spec: Spec, root: Path | None, hashes: HashBook | None = None) -> Catalogue:
    """The catalogue of a dataset spec at ``root``.

    Raises:
        BenchError: unknown dataset or option, or a dataset that needs a root and got none.
    """
    cls = DATASETS.load(spec.name)
    return _open(cls, build_config(cls.Config, spec, "dataset"), root, hashes)


def open_as_recorded(
    name: str,
    config: Mapping[str, Any],
    root: Path | None,
    fingerprint: str | None,
    hashes: HashBook | None = None,
    files: Mapping[str, str] | None = None,
) -> Catalogue:
    """The catalogue of the data that a trial was planned with.

    Args:
        name: of the dataset.
        config: its options as JSON values, as a task or a record has them; one that is left out has its default.
        root: its folder; None for a dataset that needs none.
        fingerprint: of the content that the trial was planned with, see :attr:`Catalogue.fingerprint`.
        hashes: remembers file hashes between runs.
        files: SHA-256 of a file among the options -> its path on this machine.

    Raises:
        BenchError: the folder is not there, or it holds other data.
    """
    if root is not None and not root.is_dir():
        raise BenchError(f"the data root {root} is not a folder; say where it is now: --data-root {name}=DIR")
    cls = DATASETS.load(name)
    catalogue = _open(cls, config_from_dict(cls.Config, config, files), root, hashes)
    if catalogue.fingerprint != fingerprint:
        raise BenchError(
            f"{catalogue.label} at {catalogue.dataset.root} is not the data that the trial was planned with; "
            "give the folder that holds them with --data-root, or run the study again"
        )
    return catalogue


def _open(cls: Any, config: Any, root: Path | None, hashes: HashBook | None) -> Catalogue:
    if root is None and cls.traits.needs_root:
        root, looked = find_root(cls)
        if root is None:
            raise BenchError(
                f"{cls.name} needs the folder that holds its files{f' ({looked})' if looked else ''}: add "
                "--data-root DIR, or --data-home DIR for a folder of many datasets (or try --dataset pocket, "
                "which ships with the package)"
            )
    if root is not None and not root.is_dir():
        raise BenchError(f"the data root {root} is not a folder")
    return Catalogue(cls(root, config), hashes)


def check_content(catalogue: Catalogue) -> list[Finding]:
    """Decode every image and mask; name each one that is broken, empty or of another size.

    Images that viewers turn by an EXIF orientation, which is ignored here, give one note together; so do masks
    with grey values, of which only the dataset's ``mask_threshold`` says what they mean.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        looks = list(pool.map(_look, catalogue.samples.values()))
    findings = [look.error for look in looks if look.error is not None]
    aside = [sample.id for sample, look in zip(catalogue.samples.values(), looks, strict=True) if look.turned]
    grey = [sample for sample, look in zip(catalogue.samples.values(), looks, strict=True) if look.grey]
    if aside:
        findings.append(Finding("note", aside[0], f"{_TURNED} ({_images(len(aside), '')})"))
    if grey:
        first = grey[0]
        reader = catalogue.dataset.name if hasattr(catalogue.dataset.config, "mask_threshold") else "folder"
        message = (
            f"its mask {first.masks[0].name} has grey values between black and its brightest, as smoothed masks "
            f"and former JPEGs have ({_images(len(grey), '')}); every pixel above mask_threshold="
            f"{first.mask_threshold} counts as anomalous, the grey ones too; {reader}[mask_threshold=127] cuts in "
            "the middle"
        )
        findings.append(Finding("note", first.id, message))
    return findings


@dataclass(frozen=True)
class _Look:
    """The result of decoding one sample: an error, or what is to be noted of it."""

    error: Finding | None = None
    turned: bool = False
    grey: bool = False


def _look(sample: Sample) -> _Look:
    """Decode a sample's image and masks."""
    try:
        size = read_image(sample).shape[:2]
        aside = turned(sample.image)
        layers = read_grey_masks(sample)
    except BenchError as error:
        return _Look(Finding("error", sample.id, str(error)))
    if not layers:
        return _Look(turned=aside)
    names = ", ".join(path.name for path in sample.masks)
    mask = marked(layers, sample.mask_threshold)
    if mask.shape != size:
        found = f"{mask.shape[1]}x{mask.shape[0]}"
        wanted = f"{size[1]}x{size[0]}"
        return _Look(Finding("error", sample.id, f"mask {names} is {found} pixels, its image {wanted}"))
    if not mask.any():
        return _Look(Finding("error", sample.id, f"mask {names} marks no pixel"))
    # A threshold other than 0 was chosen by somebody who knows of the values in between.
    grey = sample.mask_threshold == 0 and not sample.mask_ids and any(_has_between(layer) for layer in layers)
    return _Look(turned=aside, grey=grey)


def _has_between(layer: NDArray[np.uint8]) -> bool:
    """True if a mask has values between 0 and its largest, which may be any: 1 is a common mark."""
    values = np.flatnonzero(np.bincount(layer.ravel(), minlength=256))
    return bool((values > 0).sum() > 1)


def _images(number: int, kind: str = "anomalous ") -> str:
    return f"{number} {kind}image{'s' if number != 1 else ''}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
