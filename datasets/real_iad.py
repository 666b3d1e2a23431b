"""Real-IAD: 30 objects, each specimen photographed from five sides, split by JSON files.

Wang, Zhu, Zhang, et al.: "Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly
Detection", CVPR 2024.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.contracts import GOOD, DatasetTraits, Sample
from bench.datasets.layout import CategoryConfig, Scan, Tree, open_root, tree_of, wrong_root
from bench.datasets.manifest import Listing, Row, read_manifest
from bench.datasets.published import PublishedDataset
from bench.errors import BenchError, printable

_SUFFIX = {"all": "", "single": "_sv"}
_SIZES = ("256", "512", "1024", "raw")
_OK = "OK"


@dataclass(frozen=True)
class RealIadConfig(CategoryConfig):
    """Options, beside ``categories``.

    Attributes:
        split: the authors' lists: ``single`` view from above, which most papers test on; ``all`` five views; or
            all views with a share of anomalies in the training part (``fuiad_0.1`` to ``fuiad_0.4``;
            ``fuiad_0.0`` has none).
        size: the resolution, of those that are there; ``any`` takes the only one.
    """

    split: Literal["single", "all", "fuiad_0.0", "fuiad_0.1", "fuiad_0.2", "fuiad_0.4"] = "single"
    size: Literal["any", "256", "512", "1024", "raw"] = "any"


class RealIad(PublishedDataset):
    """Real-IAD from ``realiad_<size>/<object>`` and the lists ``realiad_jsons*/<object>.json``.

    Lists may also lie beside the objects. A view on which the defect is not seen has no mask in the lists and
    counts as normal. Views of one specimen are one group.
    """

    name: ClassVar[str] = "real_iad"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="Real-IAD",
        source="Wang et al., Real-IAD, CVPR 2024",
        licence="CC BY-NC-SA 4.0",
        citation="Wang, Zhu, Zhang, et al.: Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile "
        "Industrial Anomaly Detection, CVPR 2024",
        page="https://realiad4ad.github.io/Real-IAD/",
        released="2024",
        remark="151,050 images of all views, in 30 objects; how many each of the lists has is not known here, "
        "so that "
        "what is there is held against the list itself. The licence is the one that anomalib's loader names; "
        "the data are given out after a form is signed.",
        folders=("Real-IAD", "real_iad", "realiad", "RealIAD", "Real_IAD"),
    )
    Config: ClassVar[type[Any]] = RealIadConfig
    _missing: str = ""

    def _list(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        images = self._images_folder()
        lists = self._lists_folder(images)
        samples: list[Sample] = []
        absent, listed = 0, 0
        objects = {folder.name: folder for folder in scan.entries(images)[0]}
        for file in sorted(lists.glob("*.json")):
            folder = objects.pop(file.stem, None)
            if folder is None:
                scan.note(file, "its object is not there; ignored")
                continue
            rows = read_manifest(file, ("image_path", "mask_path", "anomaly_class"), ("train", "test"))
            listing = Listing(scan, folder, partial=True)
            samples += _object(scan, listing, rows)
            listed += len(rows)
            absent += len(listing.missing)
            if listing.missing:
                number = f"{len(listing.missing):,} of {len(rows):,} listed images are not there"
                scan.note(folder, f"{number}, the first one {printable(listing.missing[0].text('image_path'))}")
        for name, folder in objects.items():
            if folder != lists and not name.startswith("realiad_"):
                scan.note(folder, f"no list {name}.json in {lists.name}; ignored")
        self._missing = f"{listed - absent:,} of {listed:,} listed images" if absent else ""
        return tree_of(scan, samples)

    def _difference(self, samples: tuple[Sample, ...]) -> str:
        categories = {sample.category for sample in samples}
        objects = f"{len(categories)} of 30 objects" if len(categories) != 30 else ""
        return ", ".join(filter(None, (objects, self._missing)))

    def _images_folder(self) -> Path:
        """The folder of the objects, at the resolution chosen."""
        there = [size for size in _SIZES if (self.root / f"realiad_{size}").is_dir()]
        chosen = self.config.size
        if chosen == "any":
            if len(there) > 1:
                names = ", ".join(f"real_iad[size={size}]" for size in there)
                raise BenchError(f"{self.root} has several resolutions; choose one: {names}")
            return self.root / f"realiad_{there[0]}" if there else self.root
        if chosen in there:
            return self.root / f"realiad_{chosen}"
        if self.root.name == f"realiad_{chosen}":
            return self.root
        found = ", ".join(f"realiad_{size}" for size in there)
        raise BenchError(f"{self.root} has no realiad_{chosen}; it has {found or 'none of these folders'}")

    def _lists_folder(self, images: Path) -> Path:
        """The folder of the lists of the split chosen; for all views it may be that of the objects."""
        split = self.config.split
        name = "realiad_jsons" + _SUFFIX.get(split, f"_{split}")
        places = [self.root / name, self.root / "realiad_jsons" / name, images.parent / name]
        places += [images] if split == "all" else []
        for place in places:
            if any(place.glob("*.json")):
                return place
        if not any(folder.is_dir() for folder in images.glob("*/[ON][KG]")):
            expected = "realiad_256, realiad_512, realiad_1024 or realiad_raw, and the lists realiad_jsons*"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        raise BenchError(
            f"{self.root} has no {name} with the lists of images ({split}); unpack the archive of the lists there"
        )


def _object(scan: Scan, listing: Listing, rows: Iterable[Row]) -> Iterable[Sample]:
    name, root = listing.base.name, f"{scan.root.as_posix()}/"
    unseen = []
    for row in rows:
        split = row.keys[0] if row.keys else ""
        if split not in ("train", "test"):
            scan.error(
                listing.base, f"{row.place}: the part {printable(split)!r} is neither train nor test; ignored"
            )
            continue
        image = listing.image(row, "image_path")
        if image is None:
            continue
        masks = listing.mask(row, "mask_path")
        kind = row.text("anomaly_class")
        if kind != _OK and not row.text("mask_path"):
            unseen.append(row)
        type_ = kind if kind != _OK and row.text("mask_path") else GOOD
        yield Sample(
            id=f"{name}/{split}/{type_}/{image.stem}",
            category=name,
            split=split,  # type: ignore[arg-type]  # one of the two, see above
            type=type_,
            image=image,
            masks=masks if type_ != GOOD else (),
            group=posixpath.dirname(image.as_posix()).removeprefix(root),
        )
    if unseen:
        message = (
            f"{len(unseen):,} views of a defective specimen have no mask: the defect is not seen, they are normal"
        )
        scan.note(listing.base, message)


def _parts(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name in {f"realiad_{size}" for size in _SIZES}]
