"""VisA: 12 categories, as the archive unpacks and in the converted layout.

Zou, Jeong, Pemula, Zhang, Dabeer: "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
Segmentation", ECCV 2022; layout, splits and ids of defects: amazon-science/spot-diff (README, ``split_csv``,
``utils/prepare_data.py``, ``utils/id2class.py``).
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.contracts import GOOD, Counts, DatasetTraits, Sample
from bench.datasets.layout import CategoryConfig, Scan, Tree, open_root, read_tree, text, tree_of, wrong_root
from bench.datasets.manifest import Listing, Row, read_manifest
from bench.datasets.published import PublishedDataset
from bench.errors import BenchError, printable

# category -> normal images of the training and of the test part of 1cls; each has 100 anomalous ones in its test
# part.
_NORMAL = {
    "candle": (900, 100),
    "capsules": (542, 60),
    "cashew": (450, 50),
    "chewinggum": (453, 50),
    "fryum": (450, 50),
    "macaroni1": (900, 100),
    "macaroni2": (900, 100),
    "pcb1": (904, 100),
    "pcb2": (901, 100),
    "pcb3": (905, 101),
    "pcb4": (904, 101),
    "pipe_fryum": (450, 50),
}
OFFICIAL = {name: Counts(train, test, {"": 100}) for name, (train, test) in _NORMAL.items()}
_ANOMALY = "anomaly"  # the type of an anomalous image of which image_anno.csv does not say more


@dataclass(frozen=True)
class VisaConfig(CategoryConfig):
    """Options, beside ``categories``.

    Attributes:
        split: one of the authors' three lists: ``1cls``, whose training part is normal; ``2cls_highshot`` and
            ``2cls_fewshot``, whose training parts have anomalies, too.
    """

    split: Literal["1cls", "2cls_fewshot", "2cls_highshot"] = "1cls"


class Visa(PublishedDataset):
    """VisA in the raw release, or converted to ``<category>/{train,test,ground_truth}`` with or without ``1cls/``.

    In the raw release ``split_csv/<split>.csv`` says what is trained and tested on, or else a ``meta.json`` as
    public repositories write it; ``image_anno.csv`` says the types of anomalies, of which an image may have
    several. Masks hold numbers of types, so that any pixel above 0 is anomalous. The converted layout knows no
    types.
    """

    name: ClassVar[str] = "visa"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="VisA",
        source="Zou et al., SPot-the-Difference, ECCV 2022",
        licence="CC BY 4.0",
        citation="Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-Supervised Pre-training for Anomaly "
        "Detection and Segmentation, ECCV 2022",
        page="https://github.com/amazon-science/spot-diff",
        released="VisA_20220922",
        counts=OFFICIAL,
        remark="Counts are those of the split 1cls. anomalib's loader names another licence, CC BY-NC-SA 4.0.",
        folders=("VisA_20220922", "visa", "VisA", "VisA_pytorch", "visa_pytorch"),
    )
    Config: ClassVar[type[Any]] = VisaConfig
    _listed: Mapping[str, Counts] | None = None

    def _official(self) -> Mapping[str, Counts]:
        return self.traits.counts if self.config.split == "1cls" or not self._listed else self._listed

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        raw = [folder for folder in scan.entries(self.root)[0] if (folder / "Data" / "Images").is_dir()]
        meta = self.root / "meta.json"
        if raw:
            return self._from_rows(scan, self._rows(meta))
        for root in (self.root / self.config.split, self.root):
            if _converted(root):
                if self.config.split != "1cls":
                    raise BenchError(
                        f"{root} is VisA in the converted layout, which is read for the split 1cls only; give "
                        f"the raw "
                        "release (category folders with Data/Images, and split_csv)"
                    )
                tree = read_tree(root, self.traits.title, official=OFFICIAL)
                return Tree(tree.samples, (*scan.told(), *tree.findings))
        if meta.is_file():
            return self._from_rows(scan, self._rows(meta))
        expected = (
            "category folders (candle, capsules, ...) with Data/Images, or train and test in the converted layout"
        )
        raise wrong_root(self.traits.title, self.root, expected, _parts)

    def _rows(self, meta: Path) -> list[tuple[Row, str, str, bool, str, str]]:
        """Each entry with category, part, whether it is anomalous, and its columns of image and mask."""
        table = self.root / "split_csv" / f"{self.config.split}.csv"
        if table.is_file() or self.config.split != "1cls" or not meta.is_file():
            if not table.is_file():
                raise BenchError(
                    f"{table} is missing: it says which images are trained and which tested on. It is in VisA's "
                    "archive, and in the authors' repository amazon-science/spot-diff"
                )
            rows = read_manifest(table, ("object", "split", "label", "image", "mask"))
            return [
                (row, row.text("object"), row.text("split"), row.text("label") != "normal", "image", "mask")
                for row in rows
            ]
        rows = read_manifest(meta, ("img_path", "mask_path", "cls_name", "anomaly"), ("train", "test"))
        return [
            (
                row,
                row.text("cls_name"),
                row.keys[0] if row.keys else "",
                row.text("anomaly") not in ("0", "", "False"),
                "img_path",
                "mask_path",
            )
            for row in rows
        ]

    def _from_rows(self, scan: Scan, rows: list[tuple[Row, str, str, bool, str, str]]) -> Tree:
        listing = Listing(scan, self.root, partial=True)
        types = self._types(scan, {category for _, category, *_ in rows})
        counted: defaultdict[str, Counter[tuple[str, bool]]] = defaultdict(Counter)
        samples = []
        for row, category, part, anomalous, image, mask in rows:
            if part not in ("train", "test"):
                scan.error(
                    self.root, f"{row.place}: the part {printable(part)!r} is neither train nor test; ignored"
                )
                continue
            counted[category][part, anomalous] += 1
            file = listing.image(row, image)
            if file is None:
                continue
            several = types.get(file, (_ANOMALY,)) if anomalous else ()
            masks = listing.mask(row, mask)
            if anomalous and not masks and not row.text(mask):
                scan.error(file, f"an anomaly without a mask ({row.place})")
            samples.append(
                Sample(
                    id=f"{text(category)}/{part}/{'bad' if anomalous else GOOD}/{text(file.stem)}",
                    category=text(category),
                    split=part,  # type: ignore[arg-type]  # one of the two, see above
                    type=",".join(several) or GOOD,
                    image=file,
                    masks=masks if anomalous else (),
                    types=several if len(several) > 1 else (),
                    mask_ids=True,
                )
            )
        self._listed = {
            category: Counts(n["train", False], n["test", False], {"": n["test", True]}, n["train", True])
            for category, n in counted.items()
        }
        images = self.root.glob("*/Data/Images/*")
        listing.finish(sorted(images))
        return tree_of(scan, samples)

    def _types(self, scan: Scan, categories: Iterable[str]) -> dict[Path, tuple[str, ...]]:
        """Anomalous image -> its types, as image_anno.csv names them, sorted."""
        types = {}
        for category in sorted(categories):
            folder = self.root / category
            table = folder / "image_anno.csv"
            if not table.is_file():
                if folder.is_dir():
                    scan.note(table, f"missing: all anomalies of the category have the one type {_ANOMALY!r}")
                continue
            for row in read_manifest(table, ("image", "label")):
                found = {name.strip() for name in row.text("label").split(",")} - {"", "normal"}
                if found:
                    types[self.root / row.text("image")] = tuple(sorted(found))
        return types


def _converted(root: Path) -> bool:
    return any((root / name / "test").is_dir() or (root / name / "train").is_dir() for name in OFFICIAL)


def _parts(folder: Path) -> list[str]:
    return [
        name
        for name in os.listdir(folder)
        if name in OFFICIAL and ((folder / name / "Data").is_dir() or (folder / name / "test").is_dir())
    ]
