"""DAGM 2007: ten classes of generated textures with defects, in a training and a test part that both have some.

Wieler, Hahn: "Weakly Supervised Learning for Industrial Optical Inspection", DAGM symposium 2007.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from bench.contracts import GOOD, DatasetTraits, Sample
from bench.datasets.layout import CategoryConfig, Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.published import PublishedDataset

_CLASS = re.compile(r"Class([1-9]|10)")
_LABEL = "_label"
_SPLITS: tuple[tuple[str, Literal["train", "test"]], ...] = (("Train", "train"), ("Test", "test"))


class Dagm(PublishedDataset):
    """DAGM 2007 from ``Class{1..10}/{Train,Test}/NNNN.PNG`` and ``Label/NNNN_label.PNG`` beside the images.

    An image is defective if it has a label, which is a filled ellipse around the defect. Both parts use the same
    numbers for different images.
    """

    name: ClassVar[str] = "dagm"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="DAGM 2007",
        source="Wieler and Hahn, DAGM symposium 2007",
        licence="CC BY 4.0",
        citation="Wieler, Hahn: Weakly Supervised Learning for Industrial Optical Inspection, DAGM symposium 2007",
        page="https://zenodo.org/records/8086136",
        released="2007",
        files={"images": 16100, "anomalous images": 2100},
        note="DAGM's masks are ellipses drawn around the defects, not their outlines.",
        remark="The licence is Zenodo's; that of the copy on Kaggle is not known. AdaCLIP pools both parts, and "
        "Bayes-PFL and VCP-CLIP test on seven classes with masks of their own.",
        folders=("DAGM_KaggleUpload", "dagm", "DAGM", "DAGM2007"),
    )
    Config = CategoryConfig

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        folders, _ = scan.entries(self.root)
        classes = [folder for folder in folders if _CLASS.fullmatch(folder.name)]
        if not any((folder / "Test").is_dir() or (folder / "Train").is_dir() for folder in classes):
            expected = "folders Class1 to Class10 with Train, Test and Label in them"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        samples = []
        for folder in classes:
            for name, split in _SPLITS:
                if (folder / name).is_dir():
                    samples += list(_part(scan, folder, name, split))
                else:
                    scan.error(folder / name, "this folder is missing")
        return tree_of(scan, samples)


def _part(scan: Scan, folder: Path, name: str, split: Literal["train", "test"]) -> Iterable[Sample]:
    labels = folder / name / "Label"
    masks = {}
    if labels.is_dir():
        for path in scan.entries(labels)[1]:
            if path.suffix.lower() == ".png" and path.stem.endswith(_LABEL):
                masks[path.stem.removesuffix(_LABEL)] = path
            elif path.name.lower() != "labels.txt":
                scan.note(path, f"not named NNNN{_LABEL}.PNG; ignored")
    else:
        scan.error(labels, "this folder is missing: it says which images are defective")
    below, files = scan.entries(folder / name)
    for path in below:
        if path != labels:
            scan.note(path, "not part of the layout; ignored")
    for path in files:
        if path.suffix.lower() != ".png":
            scan.note(path, "not a PNG image; ignored")
            continue
        mask = masks.pop(path.stem, None)
        type_ = GOOD if mask is None else "defect"
        yield Sample(
            id=f"{folder.name}/{split}/{type_}/{path.stem}",
            category=folder.name,
            split=split,
            type=type_,
            image=path,
            masks=() if mask is None else (mask,),
        )
    for path in masks.values():
        scan.error(path, f"a label without its image in {name}")


def _parts(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if _CLASS.fullmatch(name) and (folder / name / "Test").is_dir()]
