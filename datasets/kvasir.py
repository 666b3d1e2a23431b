"""Kvasir-SEG: images that all have an anomaly, with masks."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import ImagesWithMasks, Pair


class Kvasir(ImagesWithMasks):
    """Polyps; JPEG images and masks in the original, PNG in a package of polyp sets.

    There is no normal image, so there are no image metrics.
    """

    name: ClassVar[str] = "kvasir"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="Kvasir-SEG",
        source="Jha et al., MMM 2020",
        citation="Jha, Smedsrud, Riegler, Halvorsen, de Lange, Johansen, Johansen: Kvasir-SEG:"
        " A Segmented Polyp Dataset, MMM 2020",
        page="https://datasets.simula.no/kvasir-seg/",
        counts={"kvasir": Counts(0, 0, {"polyp": 1000})},
        remark="The licence is not known. A package of polyp sets holds 100 of the images as a test part.",
        folders=("Kvasir-SEG", "Kvasir", "kvasir"),
    )
    pairs = (Pair("images", "masks"),)
    anomaly = "polyp"
