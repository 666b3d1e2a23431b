"""KolektorSDD2 (2021): surfaces of one product, in a training and a test part that both have defects.

Bozic, Tabernik, Skocaj: "Mixed supervision for surface-defect detection: from weakly to fully supervised "
"learning",
Computers in Industry 2021.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, Literal

from bench.contracts import GOOD, Counts, DatasetTraits, Sample
from bench.datasets.layout import CategoryConfig, Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.published import PublishedDataset
from bench.errors import BenchError

_NAME = re.compile(r"[0-9]+")
_MASK = "_GT"
_SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


class Ksdd2(PublishedDataset):
    """KolektorSDD2 from ``{train,test}/NNNNN.png`` and ``NNNNN_GT.png``; one category, ``ksdd2``.

    An image is anomalous if its mask marks a pixel. The copies that the archive holds (``10301 (copy).png``) are
    left
    out: the copy of a mask would pass for an image.
    """

    name: ClassVar[str] = "ksdd2"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="KolektorSDD2",
        source="Bozic et al., Computers in Industry 2021",
        licence="CC BY-NC-SA 4.0",
        citation="Bozic, Tabernik, Skocaj: Mixed supervision for surface-defect detection: from weakly to fully "
        "supervised learning, Computers in Industry 2021",
        page="https://www.vicos.si/resources/kolektorsdd2/",
        released="2021",
        counts={"ksdd2": Counts(2085, 894, {"defect": 110}, 246)},
        remark="Bayes-PFL's and VCP-CLIP's KSDD2 are 356 crops of defects from both parts and 356 normal "
        "images, not "
        "this test part.",
        folders=("KolektorSDD2", "ksdd2", "KSDD2"),
    )
    Config = CategoryConfig

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        found = [each for split in _SPLITS for each in self._part(scan, split)]
        if not found:
            expected = "train and test with NNNNN.png and NNNNN_GT.png"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        with ThreadPoolExecutor(4) as pool:
            return tree_of(scan, pool.map(_sample, found))

    def _part(self, scan: Scan, split: Literal["train", "test"]) -> Iterable[tuple[str, Path, Path]]:
        folder = self.root / split
        if not folder.is_dir():
            scan.error(folder, "this folder is missing")
            return
        files = {path.stem: path for path in scan.images(folder)}
        for stem, path in files.items():
            if "(copy)" in stem:
                scan.note(path, "a copy that the archive holds by mistake; ignored")
            elif stem.endswith(_MASK):
                if stem.removesuffix(_MASK) not in files:
                    scan.error(path, f"a mask without its image {stem.removesuffix(_MASK)}.png")
            elif not _NAME.fullmatch(stem):
                scan.error(path, "not named NNNNN.png or NNNNN_GT.png; ignored")
            elif stem + _MASK not in files:
                scan.error(path, f"no {stem}{_MASK}.png, which says whether it is defective; ignored")
            else:
                yield split, path, files[stem + _MASK]


def _sample(found: tuple[str, Path, Path]) -> Sample:
    """An image; its mask is read, which says what it is."""
    from bench.data.images import brightest

    split, image, mask = found
    try:
        defective = bool(brightest(mask).any())
    except BenchError:
        defective = True  # the check of the content names the mask
    type_ = "defect" if defective else GOOD
    return Sample(
        id=f"ksdd2/{split}/{type_}/{image.stem}",
        category="ksdd2",
        split=split,  # type: ignore[arg-type]  # one of _SPLITS
        type=type_,
        image=image,
        masks=(mask,) if defective else (),
    )


def _parts(folder: Path) -> list[str]:
    """``train`` and ``test`` where they hold images themselves, as no other layout has them."""
    return [split for split in _SPLITS if any((folder / split).glob(f"*{_MASK}.png"))]
