"""CVC-ClinicDB: images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class ClinicDb(ImagesWithMasks):
    """Polyps in frames of colonoscopies, as re-packaged in PNG or in the original TIFF.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "clinicdb"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="CVC-ClinicDB",
        source="Bernal et al., Computerized Medical Imaging and Graphics 2015",
        citation="Bernal, Sanchez, Fernandez-Esparrach, Gil, Rodriguez, Vilarino: WM-DOVA maps"
        " for accurate polyp highlighting in colonoscopy, Computerized Medical "
        "Imaging and Graphics 2015",
        page="https://polyp.grand-challenge.org/CVCClinicDB/",
        counts={"clinicdb": Counts(0, 0, {"polyp": 612})},
        remark="The licence is not known. Frames are of few videos: many are near "
        "duplicates. Pixels at the edges of masks may be grey.",
        folders=("CVC-ClinicDB", "ClinicDB", "clinicdb"),
    )
    pairs = (Pair("images", "masks"), Pair("Original", "Ground Truth"))
    anomaly = "polyp"
