"""BrainMRI: images of the head with and without a tumour, labels alone."""

from __future__ import annotations

from typing import ClassVar

from bench.contracts import Counts, DatasetTraits
from bench.datasets.medical import TwoFolders


class BrainMri(TwoFolders):
    """BrainMRI from its folders ``no`` and ``yes``, or ``test/good`` and ``test/defect``; no masks.

    Images have the suffixes .jpg, .JPG, .jpeg and .png, and names with blanks.
    """

    name: ClassVar[str] = "brainmri"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="BrainMRI",
        source="Kaggle data set of brain tumour images by Chakrabarty, 2019",
        all_masked=False,
        citation="Chakrabarty: Brain MRI Images for Brain Tumor Detection, Kaggle 2019",
        page="https://www.kaggle.com/datasets/navoneel/brain-mri-images-for-brain-tumor-detection",
        counts={"brainmri": Counts(0, 98, {"tumor": 155})},
        remark="The licence is not known. Counts are unverified. Some papers' scripts lose "
        "images by their suffixes and test on 85 and 68.",
        folders=("brain_tumor_dataset", "BrainMRI", "brainmri", "brain_mri"),
    )
    pairs = (("no", "yes"), ("brain_tumor_dataset/no", "brain_tumor_dataset/yes"), ("test/good", "test/defect"))
    anomaly = "tumor"
