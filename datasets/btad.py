"""BTAD (beanTech Anomaly Detection): three industrial products.

Mishra, Verk, Fornasier, Piciarelli, Foresti: "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and
Localization", ISIE 2021.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.layout import Tree, read_tree
from bench.datasets.published import PublishedDataset

OFFICIAL = {
    "01": Counts(400, 21, {"ko": 49}),
    "02": Counts(399, 30, {"ko": 200}),
    "03": Counts(1000, 400, {"ko": 41}),
}


class Btad(PublishedDataset):
    """BTAD: ``<product>/{train/ok,test/ok,test/ko,ground_truth/ko}``.

    Images are BMP or PNG, masks PNG or BMP of the image's name, by product and by who has unpacked them; ``ok``
    and ``ko`` have images of the same names, so that masks belong to ``ko`` alone.
    """

    name: ClassVar[str] = "btad"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="BTAD",
        source="Mishra et al., VT-ADL, ISIE 2021",
        licence="CC BY-SA 4.0",
        citation="Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL: A Vision Transformer Network for "
        "Image Anomaly "
        "Detection and Localization, ISIE 2021",
        page="https://github.com/pankajmishra000/VT-ADL",
        released="2021",
        counts=OFFICIAL,
        remark="The authors' README gives the training images of 02 and 03 the other way round. anomalib's "
        "loader names "
        "another licence, CC BY-NC-SA, and turns BMP files into PNG.",
        folders=("BTech_Dataset_transformed", "btad", "BTAD"),
    )

    def _list(self) -> Tree:
        tree = read_tree(self.root, self.traits.title, official=OFFICIAL, good=("ok",))
        # Test images of 01 run to 0049 without 0027; whether the release has a mask of that number is not known.
        extra = "01/ground_truth/ko/0027."
        findings = [replace(f, level="note") if f.path.startswith(extra) else f for f in tree.findings]
        return Tree(tree.samples, tuple(findings))
