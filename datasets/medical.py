"""Reading the medical sets that zero-shot detectors are tested on: images in two folders, or images with masks.

They have a test part alone. What the folders lack is not made up: sets of images with masks have no normal image,
and so no image metrics; sets in two folders have no masks, and so no pixel metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from bench.contracts import GOOD, Sample
from bench.datasets.layout import Scan, Tree, is_image, open_root, text, tree_of, wrong_root
from bench.datasets.published import PublishedDataset
from bench.tools.spec import ADDED

_JPEG = (".jpg", ".jpeg")
_JPEG_THRESHOLD = 127  # a JPEG smears 0 and 255 into what lies between


class TwoFolders(PublishedDataset):
    """A set whose images lie in a folder of normal and one of anomalous ones, without masks.

    Attributes:
        pairs: names of the two folders, normal ones first; the first pair that is there is read.
        anomaly: the one anomaly type.
    """

    pairs: ClassVar[Sequence[tuple[str, str]]]
    anomaly: ClassVar[str]

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        pair = next((pair for pair in self.pairs if _both(self.root, pair)), None)
        if pair is None:
            expected = " or ".join(f"the folders {normal} and {anomalous}" for normal, anomalous in self.pairs)
            raise wrong_root(self.traits.title, self.root, expected, self._recognised)
        _others(scan, self.root, {name.partition("/")[0] for name in pair})
        samples = []
        for name, type_ in zip(pair, (GOOD, self.anomaly), strict=True):
            samples += list(_tested(self.name, type_, scan.images(self.root / name)))
        return tree_of(scan, samples)

    def _recognised(self, folder: Path) -> list[str]:
        return [name for pair in self.pairs if _both(folder, pair) for name in pair]


class Pair(NamedTuple):
    """A folder of images and one of their masks, and how a mask's stem differs from its image's."""

    images: str
    masks: str
    ending: str = ""


@dataclass(frozen=True)
class MaskedConfig:
    """Options.

    Attributes:
        mask_threshold: pixels of lossless masks above this value (0..254) are anomalous. JPEG masks are cut at
            127, or at this value if it is larger.
    """

    mask_threshold: int = field(default=0, metadata=ADDED)

    def __post_init__(self) -> None:
        if not 0 <= self.mask_threshold <= 254:
            raise ValueError("mask_threshold must be from 0 to 254")


class ImagesWithMasks(PublishedDataset):
    """A set of anomalous images alone, each with its mask; image and mask are paired by name.

    Attributes:
        pairs: folders of images and masks; the first pair that is there is read.
        anomaly: the one anomaly type.
    """

    pairs: ClassVar[Sequence[Pair]]
    anomaly: ClassVar[str]
    Config: ClassVar[type[Any]] = MaskedConfig

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        pair = next((pair for pair in self.pairs if _both(self.root, pair[:2])), None)
        if pair is None:
            expected = " or ".join(f"the folders {each.images} and {each.masks}" for each in self.pairs)
            raise wrong_root(self.traits.title, self.root, expected, self._recognised)
        _others(scan, self.root, {name.partition("/")[0] for name in pair[:2]})
        masks = {text(path.stem): path for path in scan.images(self.root / pair.masks)}
        samples = list(_tested(self.name, self.anomaly, scan.images(self.root / pair.images)))
        found = []
        for sample in samples:
            mask = masks.pop(text(sample.image.stem) + pair.ending, None)
            if mask is None:
                wanted = f"{sample.image.stem}{pair.ending}"
                scan.error(sample.image, f"an anomaly without a mask: no {wanted} in {pair.masks}")
            found.append(_with_mask(sample, mask, self.config.mask_threshold))
        for path in masks.values():
            scan.error(path, f"a mask without its image in {pair.images}")
        return tree_of(scan, found)

    def _recognised(self, folder: Path) -> list[str]:
        return [name for pair in self.pairs if _both(folder, pair[:2]) for name in pair[:2]]


def _tested(name: str, type_: str, files: Iterable[Path]) -> Iterable[Sample]:
    seen: set[str] = set()
    for path in files:
        # Names that differ in their suffix alone are different images: BrainMRI has some.
        stem = text(path.stem) if text(path.stem) not in seen else text(path.name)
        seen.add(stem)
        yield Sample(f"{name}/test/{type_}/{stem}", name, "test", type_, path)


def _with_mask(sample: Sample, mask: Path | None, threshold: int) -> Sample:
    if mask is None:
        return sample
    if mask.suffix.lower() in _JPEG:
        threshold = max(threshold, _JPEG_THRESHOLD)
    return replace(sample, masks=(mask,), mask_threshold=threshold)


def _both(root: Path, pair: tuple[str, str]) -> bool:
    return all((root / name).is_dir() for name in pair)


def _others(scan: Scan, root: Path, used: set[str]) -> None:
    """Note what lies beside the folders that are read: Br35H's archive holds further ones."""
    folders, files = scan.entries(root)
    for path in folders:
        if path.name not in used:
            scan.note(path, "not part of the set; ignored")
    for path in filter(is_image, files):
        scan.note(path, "an image outside of the set's folders; ignored")
