"""MVTec LOCO AD: logical and structural anomalies, with a folder of masks for each image.

Bergmann, Batzner, Fauser, Sattlegger, Steger: "Beyond Dents and Scratches: Logical Constraints in Unsupervised
Anomaly Detection and Localization", IJCV 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from bench.contracts import GOOD, Counts, DatasetTraits, Sample
from bench.datasets.layout import Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.published import PublishedDataset

_KINDS = ("logical_anomalies", "structural_anomalies")


def _counts(train: int, normal: int, structural: int, logical: int) -> Counts:
    return Counts(train, normal, dict(zip(_KINDS, (logical, structural), strict=True)))


OFFICIAL = {
    "breakfast_box": _counts(351, 102, 90, 83),
    "juice_bottle": _counts(335, 94, 94, 142),
    "pushpins": _counts(372, 138, 81, 91),
    "screw_bag": _counts(360, 122, 82, 137),
    "splicing_connectors": _counts(360, 119, 85, 108),
}


class MVTecLoco(PublishedDataset):
    """MVTec LOCO AD; the mask of an image is all files in ``ground_truth/<kind>/<name>/`` together.

    A mask's value is the number of its kind of defect, so that any pixel above 0 is anomalous.
    """

    name: ClassVar[str] = "mvtec_loco"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="MVTec LOCO AD",
        source="Bergmann et al., Beyond Dents and Scratches, IJCV 2022",
        licence="CC BY-NC-SA 4.0",
        citation="Bergmann, Batzner, Fauser, Sattlegger, Steger: Beyond Dents and Scratches: Logical "
        "Constraints in "
        "Unsupervised Anomaly Detection and Localization, IJCV 2022",
        page="https://www.mvtec.com/company/research/datasets/mvtec-loco",
        released="2022",
        counts=OFFICIAL,
        note="MVTec LOCO AD is measured by the metrics of other datasets; its own, sPRO with saturation "
        "thresholds, is "
        "not among them.",
        remark="The paper has 354 training and 59 validation images of splicing_connectors, the release 360 "
        "and 60.",
        folders=("mvtec_loco_anomaly_detection", "mvtec_loco", "MVTecLOCO", "mvtec_loco_ad"),
    )
    types_are_official: ClassVar[bool] = True

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        found = {folder.name: folder for folder in scan.entries(self.root)[0]}
        if not _parts(self.root):
            expected = "category folders (breakfast_box, ...) with train, test and ground_truth"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        for name, folder in found.items():
            if name not in OFFICIAL:
                scan.note(folder, f"not a category of {self.traits.title}; ignored")
        chosen = [found[name] for name in OFFICIAL if name in found]
        return tree_of(scan, [sample for folder in chosen for sample in _category(scan, folder)])


def _category(scan: Scan, folder: Path) -> Iterable[Sample]:
    if (folder / "validation").is_dir():
        scan.note(folder / "validation", "left out: neither learned from nor tested on")
    parts: list[tuple[Literal["train", "test"], str]] = [("train", GOOD)]
    if (folder / "test").is_dir():
        parts += [("test", path.name) for path in scan.entries(folder / "test")[0]]
    for kind in (GOOD, *_KINDS):
        if ("test", kind) not in parts:
            scan.error(folder / "test" / kind, "this folder is missing")
    for split, type_ in parts:
        place = folder / split / type_
        if not place.is_dir():
            scan.error(place, "this folder is missing")
            continue
        masks = {}
        truth = folder / "ground_truth" / type_
        if type_ != GOOD and truth.is_dir():
            masks = {path.name: path for path in scan.entries(truth)[0]}
        for path in scan.images(place):
            own = masks.pop(path.stem, None)
            files = tuple(scan.images(own)) if own is not None else ()
            if type_ != GOOD and not files:
                scan.error(path, f"an anomaly without a mask: no image in ground_truth/{type_}/{path.stem}/")
            yield Sample(
                id=f"{folder.name}/{split}/{type_}/{path.stem}",
                category=folder.name,
                split=split,
                type=type_,
                image=path,
                masks=files,
                mask_ids=True,
            )
        for path in masks.values():
            scan.error(path, f"masks without their image in test/{type_}")


def _parts(folder: Path) -> list[str]:
    """Categories with LOCO's folder names, by which it is told from other datasets of this family."""
    return [name for name in OFFICIAL if (folder / name / "test").is_dir() or (folder / name / "train").is_dir()]
