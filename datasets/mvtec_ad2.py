"""MVTec AD 2: eight categories under changing light; what can be measured without MVTec's server.

Heckler-Kram, Neudeck, Scheler, Koenig, Steger: "The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised
Anomaly Detection", 2025.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from bench.contracts import GOOD, DatasetTraits, Sample
from bench.datasets.layout import Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.published import PublishedDataset

CATEGORIES = ("can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts")
_BAD = "bad"


class MVTecAD2(PublishedDataset):
    """MVTec AD 2: ``train/good``, and for testing ``test_public/{good,bad}`` with the masks in it.

    ``validation/good`` is left out, as the private test parts are, which have no labels. Names hold the light
    (``000_regular``), and one scene under several lights is one group.
    """

    name: ClassVar[str] = "mvtec_ad2"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="MVTec AD 2 (public test part)",
        source="Heckler-Kram et al., The MVTec AD 2 Dataset, 2025",
        licence="CC BY-NC-SA 4.0",
        citation="Heckler-Kram, Neudeck, Scheler, Koenig, Steger: The MVTec AD 2 Dataset: Advanced Scenarios for "
        "Unsupervised Anomaly Detection, 2025",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
        released="2025",
        note="MVTec AD 2 is tested on its public part; official scores are taken by its server on the private "
        "parts.",
        remark="Official counts are not known here.",
        folders=("mvtec_ad_2", "mvtec_ad2", "MVTecAD2", "mvtecad2"),
    )

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        folders = [folder for folder in scan.entries(self.root)[0] if (folder / "test_public").is_dir()]
        if not folders:
            expected = "category folders (can, fabric, ...) with train/good and test_public"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        return tree_of(scan, [sample for folder in folders for sample in _category(scan, folder)])


def _category(scan: Scan, folder: Path) -> Iterable[Sample]:
    if folder.name not in CATEGORIES:
        scan.note(folder, "no category of MVTec AD 2 by its name")
    if (folder / "validation").is_dir():
        scan.note(folder / "validation", "left out: neither learned from nor tested on")
    public = folder / "test_public"
    masks = {}
    if (truth := public / "ground_truth" / _BAD).is_dir():
        masks = {path.stem.removesuffix("_mask"): path for path in scan.images(truth)}
    else:
        scan.error(truth, "this folder is missing: no anomaly has a mask")
    parts: tuple[tuple[Path, Literal["train", "test"], str], ...] = (
        (folder / "train" / GOOD, "train", GOOD),
        (public / GOOD, "test", GOOD),
        (public / _BAD, "test", _BAD),
    )
    for place, split, type_ in parts:
        if not place.is_dir():
            scan.error(place, "this folder is missing")
            continue
        for path in scan.images(place):
            sample = Sample(
                id=f"{folder.name}/{split}/{type_}/{path.stem}",
                category=folder.name,
                split=split,
                type=type_,
                image=path,
                group=f"{folder.name}/{split}/{type_}/{path.stem.partition('_')[0]}",
            )
            if type_ == GOOD:
                yield sample
            elif mask := masks.pop(path.stem, None):
                yield replace(sample, masks=(mask,))
            else:
                scan.error(path, f"an anomaly without a mask: no {path.stem}_mask.png in ground_truth/{_BAD}")
                yield sample
    for path in masks.values():
        scan.error(path, f"a mask without its image in test_public/{_BAD}")


def _parts(folder: Path) -> list[str]:
    return [path.parent.name for path in folder.glob("*/test_public")]
