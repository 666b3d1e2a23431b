"""HeadCT: CT slices of heads with and without a haemorrhage, labels alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from bench.contracts import GOOD, Counts, DatasetTraits, Sample
from bench.datasets.layout import Scan, Tree, open_root, text, tree_of
from bench.datasets.manifest import read_manifest
from bench.datasets.medical import TwoFolders
from bench.errors import BenchError, printable


class HeadCT(TwoFolders):
    """HeadCT from Kaggle's ``labels.csv`` and ``head_ct/``, or ``test/good`` and ``test/defect``; no masks."""

    name: ClassVar[str] = "headct"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="HeadCT",
        source="Kitamura, Head CT - hemorrhage, Kaggle 2018",
        all_masked=False,
        citation="Kitamura: Head CT - hemorrhage, Kaggle 2018",
        page="https://www.kaggle.com/datasets/felipekitamura/head-ct-hemorrhage",
        counts={"headct": Counts(0, 100, {"hemorrhage": 100})},
        remark="The licence is not known.",
        folders=("head_ct", "HeadCT", "headct", "Head_CT"),
    )
    pairs = (("test/good", "test/defect"),)
    anomaly = "hemorrhage"

    def _list(self) -> Tree:
        table = self.root / "labels.csv"
        return self._listed(open_root(self.root, self.traits.title), table) if table.is_file() else super()._list()

    def _listed(self, scan: Scan, table: Path) -> Tree:
        folders = [self.root / "head_ct" / "head_ct", self.root / "head_ct"]
        folder = next((folder for folder in folders if any(folder.glob("*.png"))), None)
        if folder is None:
            raise BenchError(f"{self.root} has labels.csv and no images in head_ct/; unpack the archive anew")
        files = {text(path.stem): path for path in scan.images(folder)}
        samples = {}
        for row in read_manifest(table, ("id",)):
            # The header's names have blanks in front in Kaggle's copy; the second column is the label.
            (label,) = [str(value).strip() for column, value in row.fields.items() if column != "id"][:1] or [""]
            name = row.text("id")
            path = files.get(name.zfill(3)) or files.get(name)
            if label not in ("0", "1"):
                scan.error(table, f"{row.place}: the label {printable(label)!r} is neither 0 nor 1; ignored")
            elif path is None:
                scan.error(table, f"{row.place}: no image {printable(name.zfill(3))}.png in {folder.name}")
            elif path in samples:
                scan.error(path, f"listed twice, again in {row.place}")
            else:
                type_ = self.anomaly if label == "1" else GOOD
                samples[path] = Sample(
                    f"{self.name}/test/{type_}/{text(path.stem)}", self.name, "test", type_, path
                )
        for path in files.values():
            if path not in samples:
                scan.error(path, "there and not in labels.csv; ignored")
        return tree_of(scan, samples.values())

    def _recognised(self, folder: Path) -> list[str]:
        names = os.listdir(folder)
        return ["head_ct"] if {"labels.csv", "head_ct"} <= set(names) else super()._recognised(folder)
