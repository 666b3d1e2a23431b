"""CVC-300: images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class Cvc300(ImagesWithMasks):
    """Polyps in frames of colonoscopies, as re-packaged in PNG.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "cvc300"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="CVC-300",
        source="Vazquez et al., Journal of Healthcare Engineering 2017",
        citation="Vazquez, Bernal, Sanchez, et al.: A Benchmark for Endoluminal Scene "
        "Segmentation of Colonoscopy Images, Journal of Healthcare Engineering 2017",
        page="https://figshare.com/articles/figure/Polyp_DataSet_zip/21221579",
        counts={"cvc300": Counts(0, 0, {"polyp": 60})},
        remark="The licence is not known.",
        folders=("CVC-300", "cvc300", "CVC300"),
    )
    pairs = (Pair("images", "masks"),)
    anomaly = "polyp"
