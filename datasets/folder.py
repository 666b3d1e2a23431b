"""Any directory in MVTec AD's layout, with categories and anomaly types of any name."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import DatasetTraits, Prompts
from bench.datasets.layout import CategoryConfig, FileDataset, Tree, is_category, is_image, open_root, read_tree
from bench.errors import BenchError


@dataclass(frozen=True)
class FolderConfig(CategoryConfig):
    """Options, beside ``categories``.

    Attributes:
        good: further names of folders that hold images without anomalies, beside MVTec AD's ``good``, e.g.
            ``folder[good=ok+normal]``.
        mask_threshold: mask pixels above this value (0..254) are anomalous. MVTec AD's masks are 0 and
            255, and any pixel above 0 counts; anti-aliased masks want 127 (``bench data check`` notes them).
    """

    good: tuple[str, ...] = ()
    mask_threshold: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.mask_threshold <= 254:
            raise ValueError("mask_threshold must be from 0 to 254")


class Folder(FileDataset):
    """A user's own images in MVTec AD's layout.

    Images may be PNG, JPEG, BMP, TIFF, WebP, PPM or PGM. The mask of ``test/<type>/000.jpg`` is
    ``ground_truth/<type>/000_mask.png``, ``000.png``, ``000_gt.png`` or ``000_label.png``, never a JPEG. Every
    folder with ``train`` or ``test`` in it is a category; one that lacks a part (no ``train/good``, say) is read
    for what it has. Anomalous images without a mask are left out of pixel metrics.
    """

    name: ClassVar[str] = "folder"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="own images", source="the user's directory in MVTec AD's layout", all_masked=False
    )
    Config: ClassVar[type[Any]] = FolderConfig

    def _read(self) -> Tree:
        self._refuse_unlabelled()
        return read_tree(
            self.root,
            "a dataset in MVTec AD's layout",
            strict=False,
            good=self.config.good,
            mask_threshold=self.config.mask_threshold,
        )

    def _refuse_unlabelled(self) -> None:
        """Raise a BenchError if images lie in the root, or one folder below it, and no folder has the layout."""
        scan = open_root(self.root, "a dataset in MVTec AD's layout")
        folders, files = scan.entries(self.root)
        if scan.findings or any(map(is_category, (*folders, self.root, self.root.parent))):
            return  # the reader says what is wrong, and which folder is right
        images = [path for path in files if is_image(path)]
        if not images and len(folders) == 1:
            below, inside = scan.entries(folders[0])
            if any(is_category(folder) for folder in below):
                return  # the root is one level too high, which the reader says
            images = [path for path in inside if is_image(path)]
        if images:
            plural = "s" * (len(images) != 1)
            raise BenchError(
                f"{self.root} holds {len(images)} image{plural} without labels: no category folder with "
                "train/good, test/good and test/<type>, so there is nothing to measure. Score the images with "
                f"bench predict, e.g. bench predict --method clip {shlex.quote(str(self.root))} --category NAME"
            )

    def prompts(self) -> Mapping[str, Prompts]:
        """Prompts made from the categories' names; the user knows better ones (``--prompts FILE``)."""
        from bench.data.prompts import default_prompts

        return {name: default_prompts(name) for name in sorted({s.category for s in self.samples()})}
