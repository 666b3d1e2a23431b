"""KolektorSDD (2019): 399 photographs of the surfaces of 50 commutators, cut into thirds as the field has it.

Tabernik, Sela, Skvarc, Skocaj: "Segmentation-based deep-learning approach for surface-defect detection", Journal
of Intelligent Manufacturing 2020. The thirds follow ``data/convert_SDD.py`` of Choubo/DRA, as AdaCLIP's
``sdd-pre.py`` does.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.contracts import GOOD, DatasetTraits, Sample
from bench.datasets.layout import Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.published import PublishedDataset
from bench.errors import BenchError

_ITEM = re.compile(r"kos[0-9]{2}")
_PART = re.compile(r"(Part[0-9]+)", re.IGNORECASE)
_LABEL = "_label"
_TWINS = {"kos26": "kos01", "kos34": "kos27"}  # image for image the same, with other masks of the defect
_SEED = 42

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class KsddConfig:
    """Options.

    Attributes:
        images: ``thirds``: each photograph is cut into three along its height, and a third is anomalous if its
            part of the mask is (DRA, AdaCLIP, AnomalyCLIP). ``whole``: photographs as they are.
        split: the normal images for training. ``image``: those of three in four defect-free photographs, chosen by
            a hash of their names, so that no photograph is on both sides. ``third``: three in four of all normal
            thirds, whatever their photograph, as DRA's script splits them. That is **leaky** and is meant for
            comparison with the literature only; DRA's draw also depends on the order in which the file system
            lists the files, so that the very same thirds cannot be had.
    """

    images: Literal["thirds", "whole"] = "thirds"
    split: Literal["image", "third"] = "image"


@dataclass(frozen=True)
class _Photograph:
    image: Path
    label: Path | None
    item: str
    part: str
    boxes: tuple[Box | None, ...] = (None,)
    defective: tuple[bool, ...] = (False,)

    @property
    def group(self) -> str:
        return f"{_TWINS.get(self.item, self.item)}/{self.part}"


class Ksdd(PublishedDataset):
    """KolektorSDD from ``kosNN/PartP.jpg`` and ``kosNN/PartP_label.bmp``; one category, ``ksdd``.

    The release has no parts for training and test. Every third of a defective photograph is tested on, anomalous
    or not. Whether an image is defective is told by its mask alone: any palette index above 0.
    """

    name: ClassVar[str] = "ksdd"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="KolektorSDD",
        source="Tabernik et al., Journal of Intelligent Manufacturing 2020",
        licence="CC BY-NC-SA 4.0",
        citation="Tabernik, Sela, Skvarc, Skocaj: Segmentation-based deep-learning approach for surface-defect "
        "detection, Journal of Intelligent Manufacturing 2020",
        page="https://www.vicos.si/resources/kolektorsdd/",
        released="2019",
        files={"items": 50, "photographs": 399, "defective photographs": 52, "masks": 399},
        remark="kos26 holds the photographs of kos01, and kos34 those of kos27. An older set of masks and "
        "dilated ones "
        "are in use, so that papers count other numbers of defective thirds.",
        folders=("KolektorSDD", "ksdd", "KSDD", "SDD"),
    )
    Config: ClassVar[type[Any]] = KsddConfig

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        folders, _ = scan.entries(self.root)
        items = [folder for folder in folders if _ITEM.fullmatch(folder.name)]
        if not items:
            raise wrong_root(self.traits.title, self.root, "folders kos01 to kos50 with PartN.jpg", _parts)
        for folder in folders:
            if folder not in items:
                scan.note(folder, "not an item (kosNN); ignored")
        found = [photograph for item in items for photograph in _photographs(scan, item)]
        with ThreadPoolExecutor(4) as pool:
            cut = list(pool.map(self._cut, found))
        self._counted = {
            "items": len(items),
            "photographs": len(cut),
            "defective photographs": sum(any(each.defective) for each in cut),
            "masks": sum(each.label is not None for each in cut),
        }
        for each in cut:
            if each.label is None:
                scan.error(each.image, f"no {each.part}{_LABEL}.bmp, which says whether it is defective; ignored")
        for copy, original in _TWINS.items():
            if {copy, original} <= {each.item for each in cut}:
                scan.note(
                    self.root / copy,
                    f"the photographs of {original} again, with another mask of the defect; both are tested on",
                )
        usable = [each for each in cut if each.label is not None]
        return tree_of(scan, self._samples(usable))

    def _found_files(self, samples: tuple[Sample, ...]) -> Mapping[str, int]:
        return self._counted

    def _cut(self, photograph: _Photograph) -> _Photograph:
        """The photograph with its boxes, and which of them are defective; reads the mask."""
        from bench.data.images import brightest, size_of

        if photograph.label is None:
            return photograph
        try:
            mask = brightest(photograph.label, indices=True)
            width, height = size_of(photograph.image)
        except BenchError:
            # The check of the content names the file; a mask is looked at in anomalous images only.
            return _replace(photograph, (None,), (True,))
        if self.config.images == "whole" or mask.shape != (height, width):
            return _replace(photograph, (None,), (bool(mask.any()),))
        edges = [height * third // 3 for third in range(4)]
        boxes = tuple((0, top, width, bottom) for top, bottom in itertools.pairwise(edges))
        return _replace(photograph, boxes, tuple(bool(mask[top:bottom].any()) for _, top, _, bottom in boxes))

    def _samples(self, photographs: list[_Photograph]) -> Iterable[Sample]:
        normal = [
            (each, index)
            for each in photographs
            for index, defective in enumerate(each.defective)
            if not defective
        ]
        if self.config.split == "third":
            train = {place for place, chosen in zip(normal, _field_split(len(normal)), strict=True) if chosen}
        else:
            tested = _tested(photographs)
            train = {place for place in normal if place[0].group not in tested}
        for each in photographs:
            for index, (box, defective) in enumerate(zip(each.boxes, each.defective, strict=True)):
                split: Literal["train", "test"] = "train" if (each, index) in train else "test"
                type_ = "defect" if defective else GOOD
                third = "" if box is None else f"_{index}"
                yield Sample(
                    id=f"ksdd/{split}/{type_}/{each.item}_{each.part}{third}",
                    category="ksdd",
                    split=split,
                    type=type_,
                    image=each.image,
                    masks=(each.label,) if defective and each.label is not None else (),
                    box=box,
                    group=each.group,
                    mask_ids=True,
                )


def _replace(photograph: _Photograph, boxes: tuple[Box | None, ...], defective: tuple[bool, ...]) -> _Photograph:
    return _Photograph(photograph.image, photograph.label, photograph.item, photograph.part, boxes, defective)


def _photographs(scan: Scan, item: Path) -> Iterable[_Photograph]:
    files = {path.stem: path for path in scan.images(item)}
    for stem, path in files.items():
        if _PART.fullmatch(stem):
            yield _Photograph(path, files.get(stem + _LABEL), item.name, stem)
        elif not stem.endswith(_LABEL):
            scan.error(path, f"not named PartN or PartN{_LABEL}; ignored")
        elif stem.removesuffix(_LABEL) not in files:
            scan.error(path, f"a mask without its image {stem.removesuffix(_LABEL)}.jpg")


def _tested(photographs: list[_Photograph]) -> set[str]:
    """The groups to test on: all with a defect, and one in four of the others by a hash of their names."""
    defective = {each.group for each in photographs if any(each.defective)}
    free = sorted(
        {each.group for each in photographs} - defective,
        key=lambda group: hashlib.sha256(f"{_SEED}/{group}".encode()).digest(),
    )
    return defective | set(free[: math.ceil(len(free) / 4)])


def _field_split(n: int) -> list[bool]:
    """For each image, True if it is for training: scikit-learn's ``train_test_split(0.25, random_state=42)``."""
    import numpy as np

    test = set(np.random.RandomState(_SEED).permutation(n)[: math.ceil(0.25 * n)].tolist())
    return [index not in test for index in range(n)]


def _parts(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if _ITEM.fullmatch(name) and (folder / name).is_dir()]
