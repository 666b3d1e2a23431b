"""MVTec 3D-AD: its colour images alone, without the depth that it was made for.

Bergmann, Jin, Sattlegger, Steger: "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and "
"Localization",
VISAPP 2022.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from bench.contracts import GOOD, DatasetTraits, Sample
from bench.datasets.layout import Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.published import PublishedDataset

_SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


class MVTec3D(PublishedDataset):
    """MVTec 3D-AD from ``<category>/{train,test}/<type>/{rgb,gt,xyz}/NNN.png``; ``validation`` is left out.

    Good images have masks, too, in which nothing is marked; they are not read.
    """

    name: ClassVar[str] = "mvtec_3d"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="MVTec 3D-AD (RGB)",
        source="Bergmann et al., The MVTec 3D-AD Dataset, VISAPP 2022",
        licence="CC BY-NC-SA 4.0",
        citation="Bergmann, Jin, Sattlegger, Steger: The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly "
        "Detection "
        "and Localization, VISAPP 2022",
        page="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
        released="2021",
        note="Of MVTec 3D-AD the colour images alone are used, without depth.",
        remark="Official counts are not known here.",
        folders=("mvtec_3d_anomaly_detection", "mvtec_3d", "mvtec3d", "MVTec3D"),
    )

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        if not _parts(self.root):
            expected = "category folders (bagel, ...) with test/<type>/rgb"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        chosen = [folder for folder in scan.entries(self.root)[0] if folder.name in _parts(self.root)]
        return tree_of(scan, [sample for folder in chosen for sample in _category(scan, folder)])


def _category(scan: Scan, folder: Path) -> Iterable[Sample]:
    if (folder / "validation").is_dir():
        scan.note(folder / "validation", "left out: neither learned from nor tested on")
    for split in _SPLITS:
        if not (folder / split).is_dir():
            scan.error(folder / split, "this folder is missing")
            continue
        for type_ in scan.entries(folder / split)[0]:
            if not (type_ / "rgb").is_dir():
                scan.error(type_ / "rgb", "this folder is missing")
                continue
            bad = type_.name != GOOD
            masks = {}
            if bad and (type_ / "gt").is_dir():
                masks = {path.stem: path for path in scan.images(type_ / "gt")}
            for path in scan.images(type_ / "rgb"):
                mask = masks.pop(path.stem, None)
                if bad and mask is None:
                    scan.error(path, f"an anomaly without a mask: no {path.stem}.png in {type_.name}/gt")
                yield Sample(
                    id=f"{folder.name}/{split}/{type_.name}/{path.stem}",
                    category=folder.name,
                    split=split,
                    type=type_.name,
                    image=path,
                    masks=() if mask is None else (mask,),
                )
            for path in masks.values():
                scan.error(path, "a mask without its image in rgb")


def _parts(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if any((folder / name / "test").glob("*/rgb"))]
