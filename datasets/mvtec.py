"""MVTec AD in its official layout.

Bergmann, Fauser, Sattlegger, Steger: "MVTec AD -- A Comprehensive Real-World Dataset for Unsupervised Anomaly
Detection", CVPR 2019; https://www.mvtec.com/company/research/datasets/mvtec-ad (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.layout import Tree, read_tree
from bench.datasets.published import PublishedDataset

# category -> (train/good, test/good, {anomaly type: images}): 3629 + 467 + 1258 images, 73 types.
OFFICIAL: dict[str, Counts] = {
    "bottle": Counts(209, 20, {"broken_large": 20, "broken_small": 22, "contamination": 21}),
    "cable": Counts(
        224,
        58,
        {
            "bent_wire": 13,
            "cable_swap": 12,
            "combined": 11,
            "cut_inner_insulation": 14,
            "cut_outer_insulation": 10,
            "missing_cable": 12,
            "missing_wire": 10,
            "poke_insulation": 10,
        },
    ),
    "capsule": Counts(219, 23, {"crack": 23, "faulty_imprint": 22, "poke": 21, "scratch": 23, "squeeze": 20}),
    "carpet": Counts(280, 28, {"color": 19, "cut": 17, "hole": 17, "metal_contamination": 17, "thread": 19}),
    "grid": Counts(264, 21, {"bent": 12, "broken": 12, "glue": 11, "metal_contamination": 11, "thread": 11}),
    "hazelnut": Counts(391, 40, {"crack": 18, "cut": 17, "hole": 18, "print": 17}),
    "leather": Counts(245, 32, {"color": 19, "cut": 19, "fold": 17, "glue": 19, "poke": 18}),
    "metal_nut": Counts(220, 22, {"bent": 25, "color": 22, "flip": 23, "scratch": 23}),
    "pill": Counts(
        267,
        26,
        {
            "color": 25,
            "combined": 17,
            "contamination": 21,
            "crack": 26,
            "faulty_imprint": 19,
            "pill_type": 9,
            "scratch": 24,
        },
    ),
    "screw": Counts(
        320,
        41,
        {
            "manipulated_front": 24,
            "scratch_head": 24,
            "scratch_neck": 25,
            "thread_side": 23,
            "thread_top": 23,
        },
    ),
    "tile": Counts(230, 33, {"crack": 17, "glue_strip": 18, "gray_stroke": 16, "oil": 18, "rough": 15}),
    "toothbrush": Counts(60, 12, {"defective": 30}),
    "transistor": Counts(213, 60, {"bent_lead": 10, "cut_lead": 10, "damaged_case": 10, "misplaced": 10}),
    "wood": Counts(247, 19, {"color": 8, "combined": 11, "hole": 10, "liquid": 10, "scratch": 21}),
    "zipper": Counts(
        240,
        32,
        {
            "broken_teeth": 19,
            "combined": 16,
            "fabric_border": 17,
            "fabric_interior": 16,
            "rough": 17,
            "split_teeth": 18,
            "squeezed_teeth": 16,
        },
    ),
}


class MVTec(PublishedDataset):
    """MVTec AD, all 15 categories or some of them; folders of other names are left alone."""

    name: ClassVar[str] = "mvtec"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="MVTec AD",
        source="Bergmann et al., MVTec AD, CVPR 2019",
        licence="CC BY-NC-SA 4.0",
        citation="Bergmann, Fauser, Sattlegger, Steger: MVTec AD -- A Comprehensive Real-World Dataset for "
        "Unsupervised Anomaly Detection, CVPR 2019",
        page="https://www.mvtec.com/company/research/datasets/mvtec-ad",
        released="2019",
        counts=OFFICIAL,
        folders=("mvtec_anomaly_detection", "mvtec", "mvtec_ad", "MVTec", "MVTecAD"),
    )

    types_are_official: ClassVar[bool] = True

    def _list(self) -> Tree:
        return read_tree(self.root, self.traits.title, official=OFFICIAL)
