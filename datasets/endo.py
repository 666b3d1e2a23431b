"""EndoTect (test part): images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class Endo(ImagesWithMasks):
    """Polyps of the EndoTect 2020 challenge's test part; masks are JPEG or PNG by copy.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "endo"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="EndoTect (test part)",
        source="Hicks et al., EndoTect challenge, ICPR 2020",
        citation="Hicks, Jha, Thambawita, Halvorsen, Hammer, Riegler: The EndoTect 2020 "
        "Challenge: Evaluation and Comparison of Classification, Segmentation and "
        "Inference Time for Endoscopy, ICPR 2020 workshops",
        page="https://endotect.com/",
        counts={"endo": Counts(0, 0, {"polyp": 200})},
        remark="The licence is not known.",
        folders=("EndoTect_2020_Segmentation_Test_Dataset", "EndoTect", "endo", "Endo"),
    )
    pairs = (Pair("images", "masks"),)
    anomaly = "polyp"
