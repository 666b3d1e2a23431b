"""Renders the shipped data set: `python -m make.render --out DIR [--check | --sheet FILE]`.

The pixels follow from the category, the split and the image's number alone. The layout is MVTec's:

    <category>/train/good/NNN.png
    <category>/test/good/NNN.png
    <category>/test/<defect>/NNN.png
    <category>/ground_truth/<defect>/NNN_mask.png
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .categories import CATEGORIES
from .defects import spoil
from .scenes import expose, quantise

TRAIN_GOOD, TEST_GOOD, PER_DEFECT = 12, 16, 10

Pixels = NDArray[np.uint8]


class Item(NamedTuple):
    """One image of the set."""

    category: str
    split: str
    kind: str
    number: int

    @property
    def path(self) -> str:
        return f"{self.category}/{self.split}/{self.kind}/{self.number:03d}.png"

    @property
    def mask_path(self) -> str | None:
        if self.kind == "good":
            return None
        return f"{self.category}/ground_truth/{self.kind}/{self.number:03d}_mask.png"


def items() -> Iterator[Item]:
    """All images of the set, in a fixed order."""
    for category, recipe in CATEGORIES.items():
        yield from (Item(category, "train", "good", n) for n in range(TRAIN_GOOD))
        yield from (Item(category, "test", "good", n) for n in range(TEST_GOOD))
        for defect in recipe.defects:
            yield from (Item(category, "test", defect, n) for n in range(PER_DEFECT))


def render(item: Item) -> tuple[Pixels, Pixels | None]:
    """The pixels (SIZE, SIZE, 3) of one image, and its mask (SIZE, SIZE) of 0 and 255 if it has a defect."""
    rng = np.random.default_rng([zlib.crc32(b"zsad-bench pocket 2"), zlib.crc32(item.path.encode())])
    scene = CATEGORIES[item.category].draw(rng)
    mask = None
    if item.kind != "good":
        # Strengths are spread evenly over the images of a type, from subtle to plain.
        strength = (item.number + rng.random()) / PER_DEFECT
        scene, where = spoil(scene, item.kind, rng, strength)
        mask = np.where(where, 255, 0).astype(np.uint8)
    return quantise(expose(scene.image(), rng)), mask


def write(folder: Path) -> int:
    """Writes the whole set under a folder; returns the number of bytes written."""
    size = 0
    for item in items():
        image, mask = render(item)
        size += _save(folder / item.path, image)
        if mask is not None and item.mask_path is not None:
            size += _save(folder / item.mask_path, mask)
    return size


def _save(path: Path, pixels: Pixels) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, optimize=True)
    return path.stat().st_size


def differences(folder: Path) -> list[str]:
    """The files under a folder that are missing, superfluous, or differ from what is rendered now."""
    wrong, expected = [], set()
    for item in items():
        image, mask = render(item)
        pairs = [(item.path, image)]
        if mask is not None and item.mask_path is not None:
            pairs.append((item.mask_path, mask))
        for name, pixels in pairs:
            expected.add(name)
            path = folder / name
            if not path.is_file():
                wrong.append(f"{name}: missing")
            elif not np.array_equal(np.asarray(Image.open(path)), pixels):
                wrong.append(f"{name}: other pixels")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    return wrong + [f"{name}: not part of the set" for name in sorted(found - expected)]


def sheet(folder: Path) -> Image.Image:
    """A picture of what is there: for each category a normal image, then of each type the faintest, a middling
    and the starkest."""
    gap, rows = 4, []
    for category, recipe in CATEGORIES.items():
        names = [f"{category}/test/good/000.png"]
        for defect in recipe.defects:
            names += [f"{category}/test/{defect}/{n:03d}.png" for n in (0, PER_DEFECT // 2, PER_DEFECT - 1)]
        pictures = [np.asarray(Image.open(folder / name)) for name in names]
        rows.append(np.hstack([np.pad(p, ((0, gap), (0, gap), (0, 0)), constant_values=255) for p in pictures]))
    return Image.fromarray(np.vstack(rows)[:-gap, :-gap])


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Render the pocket data set.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the images")
    parser.add_argument("--check", action="store_true", help="write nothing; compare what is there")
    parser.add_argument("--sheet", type=Path, help="write nothing but a picture of some images of each type")
    options = parser.parse_args(arguments)
    if options.sheet:
        sheet(options.out).save(options.sheet, quality=90)
        return 0
    if options.check:
        wrong = differences(options.out)
        print("\n".join(wrong) if wrong else "every image is as rendered")
        return 1 if wrong else 0
    print(f"{write(options.out)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
