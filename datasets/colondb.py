"""CVC-ColonDB: images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class ColonDb(ImagesWithMasks):
    """Polyps in frames of colonoscopies, as re-packaged in PNG.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "colondb"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="CVC-ColonDB",
        source="Tajbakhsh et al., IEEE TMI 2016",
        citation="Tajbakhsh, Gurudu, Liang: Automated polyp detection in colonoscopy videos "
        "using shape and context information, IEEE Transactions on Medical Imaging "
        "2016",
        page="https://figshare.com/articles/figure/Polyp_DataSet_zip/21221579",
        counts={"colondb": Counts(0, 0, {"polyp": 380})},
        remark="The licence is not known. Frames are of few videos: many are near "
        "duplicates. Pixels at the edges of masks may be grey.",
        folders=("CVC-ColonDB", "ColonDB", "colondb"),
    )
    pairs = (Pair("images", "masks"),)
    anomaly = "polyp"
