"""Any directory in MVTec AD's layout, with categories and anomaly types of any name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import DatasetTraits, Prompts
from bench.datasets.layout import FileDataset, Tree, read_tree


@dataclass(frozen=True)
class FolderConfig:
    """Options.

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
    for what it has. A category whose anomalies lack masks, some or all, has image metrics only.
    """

    name: ClassVar[str] = "folder"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="own images", source="the user's directory in MVTec AD's layout", all_masked=False
    )
    Config: ClassVar[type[Any]] = FolderConfig

    def _read(self) -> Tree:
        return read_tree(
            self.root,
            "a dataset in MVTec AD's layout",
            strict=False,
            good=self.config.good,
            mask_threshold=self.config.mask_threshold,
        )

    def prompts(self) -> Mapping[str, Prompts]:
        """Prompts made from the categories' names; the user knows better ones (``--prompts FILE``)."""
        from bench.data.prompts import default_prompts

        return {name: default_prompts(name) for name in sorted({s.category for s in self.samples()})}
