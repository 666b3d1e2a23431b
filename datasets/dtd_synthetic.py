"""DTD-Synthetic: 12 textures of the Describable Textures Dataset with drawn-in defects.

Aota, Tong, Okatani: "Zero-shot versus Many-shot: Unsupervised Texture Anomaly Detection", WACV 2023.
"""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.layout import Tree, read_tree
from bench.datasets.published import PublishedDataset

# texture -> normal and anomalous test images; each has 100 training images.
_TEST = {
    "Blotchy_099": (20, 80),
    "Fibrous_183": (20, 80),
    "Marbled_078": (20, 80),
    "Matted_069": (20, 79),
    "Mesh_114": (36, 80),
    "Perforated_037": (20, 80),
    "Stratified_154": (20, 80),
    "Woven_001": (30, 70),
    "Woven_068": (51, 79),
    "Woven_104": (20, 80),
    "Woven_125": (20, 79),
    "Woven_127": (80, 80),
}
OFFICIAL = {name: Counts(100, normal, {"bad": bad}) for name, (normal, bad) in _TEST.items()}


class DtdSynthetic(PublishedDataset):
    """DTD-Synthetic, in MVTec AD's layout, with the one type ``bad``."""

    name: ClassVar[str] = "dtd_synthetic"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="DTD-Synthetic",
        source="Aota et al., Zero-shot versus Many-shot, WACV 2023",
        citation="Aota, Tong, Okatani: Zero-shot versus Many-shot: Unsupervised Texture Anomaly Detection, "
        "WACV 2023",
        page="https://github.com/zqhang/AnomalyCLIP",
        counts=OFFICIAL,
        remark="The licence is not known. The page is a README that links to the archive. Some papers pool "
        "the five "
        "Woven textures and average over 8 categories instead of 12.",
        folders=("DTD-Synthetic", "dtd_synthetic", "DTD_Synthetic"),
    )

    def _list(self) -> Tree:
        return read_tree(self.root, self.traits.title, official=OFFICIAL)
