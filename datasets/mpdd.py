"""MPDD (Metal Parts Defect Detection): six kinds of painted metal parts.

Jezek, Jonak, Burget, Dvorak, Skotak: "Deep learning-based defect detection of metal parts: evaluating current
methods in complex conditions", ICUMT 2021.
"""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.layout import Tree, read_tree
from bench.datasets.published import PublishedDataset

OFFICIAL = {
    "bracket_black": Counts(289, 32, {"hole": 12, "scratches": 35}),
    "bracket_brown": Counts(185, 26, {"bend_and_parts_mismatch": 17, "parts_mismatch": 34}),
    "bracket_white": Counts(110, 30, {"defective_painting": 13, "scratches": 17}),
    "connector": Counts(128, 30, {"parts_mismatch": 14}),
    "metal_plate": Counts(54, 26, {"major_rust": 14, "scratches": 34, "total_rust": 23}),
    "tubes": Counts(122, 32, {"anomalous": 69}),
}


class Mpdd(PublishedDataset):
    """MPDD, in MVTec AD's layout."""

    name: ClassVar[str] = "mpdd"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="MPDD",
        source="Jezek et al., ICUMT 2021",
        licence="CC BY-NC-SA 4.0",
        citation="Jezek, Jonak, Burget, Dvorak, Skotak: Deep learning-based defect detection of metal parts: "
        "evaluating current methods in complex conditions, ICUMT 2021",
        page="https://github.com/stepanje/MPDD",
        released="2021",
        counts=OFFICIAL,
        remark="The licence is the one that anomalib's loader names; the repository states none. Copies with "
        "four of "
        "the six categories are in use. Training counts are from a listing of the archive.",
        folders=("MPDD", "mpdd"),
    )

    def _list(self) -> Tree:
        return read_tree(self.root, self.traits.title, official=OFFICIAL)
