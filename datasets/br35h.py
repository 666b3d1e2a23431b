"""Br35H: images of the head with and without a tumour, labels alone."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import TwoFolders


class Br35H(TwoFolders):
    """Br35H from its folders ``no`` and ``yes``, or ``test/good`` and ``test/defect``; no masks.

    The archive holds further folders (TRAIN, TEST, VAL, pred), which are left alone.
    """

    name: ClassVar[str] = "br35h"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="Br35H",
        source="Kaggle data set of brain tumour images by Hamada, 2020",
        all_masked=False,
        citation="Hamada: Br35H: Brain Tumor Detection 2020, Kaggle 2020",
        page="https://www.kaggle.com/datasets/ahmedhamada0/brain-tumor-detection",
        counts={"br35h": Counts(0, 1500, {"tumor": 1500})},
        remark="The licence is not known. Some papers' scripts take every folder of the "
        "archive but no as anomalous.",
        folders=("Br35H", "br35h", "BR35H"),
    )
    pairs = (("no", "yes"), ("test/good", "test/defect"))
    anomaly = "tumor"
