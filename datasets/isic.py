"""ISIC 2016 (test part): images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class Isic(ImagesWithMasks):
    """Skin lesions of the ISBI 2016 challenge's test part; masks are named ``NNN_Segmentation.png``.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "isic"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="ISIC 2016 (test part)",
        source="Gutman et al., ISBI 2016 challenge, part 1",
        citation="Gutman, Codella, Celebi, et al.: Skin Lesion Analysis toward Melanoma "
        "Detection: A Challenge at ISBI 2016, 2016",
        page="https://challenge.isic-archive.com/data/",
        counts={"isic": Counts(0, 0, {"lesion": 379})},
        remark="The licence is not known.",
        folders=("ISIC", "isic", "ISBI"),
    )
    pairs = (
        Pair("ISBI2016_ISIC_Part1_Test_Data", "ISBI2016_ISIC_Part1_Test_GroundTruth", "_Segmentation"),
        Pair("images", "masks"),
    )
    anomaly = "lesion"
