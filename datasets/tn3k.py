"""TN3K (test part): images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class Tn3k(ImagesWithMasks):
    """Thyroid nodules in ultrasound images, the test part; masks are JPEG.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "tn3k"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="TN3K (test part)",
        source="Gong et al., ISBI 2021",
        citation="Gong, Chen, Chen, Li, Li, Chen: Multi-task learning for thyroid nodule "
        "segmentation with thyroid region prior, ISBI 2021",
        page="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
        counts={"tn3k": Counts(0, 0, {"nodule": 614})},
        remark="The licence is not known. The count is unverified.",
        folders=("TN3K", "tn3k", "Thyroid Dataset/tn3k"),
    )
    pairs = (Pair("test-image", "test-mask"),)
    anomaly = "nodule"
