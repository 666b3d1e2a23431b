"""Writes tiny datasets in MVTec AD's and AITEX's layout, irregularities included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

FABRICS = {
    "00": "2311694-2040n7u",
    "01": "2608691-202020u",
    "02": "2306894-210033u",
    "03": "2311694-1930c7u",
    "04": "2311517-195063u",
    "05": "2306881-210020u",
    "06": "2311980-185026u",
}

Marks = Sequence[tuple[int, int, int]]  # (left, width, grey value) on an otherwise black mask


def picture(path: Path, size: tuple[int, int] = (8, 8), value: int = 90, mode: str = "L") -> Path:
    """A flat image with one darker pixel, so that it is not blank."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("L", size, value)
    image.putpixel((0, 0), value // 2)
    image.convert(mode).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (8, 8), marks: Marks = ((2, 3, 255),), mode: str = "L") -> Path:
    """A mask with a band of rows 10 to 20 (or as many as there are) marked per mark."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    for left, width, value in marks:
        rows = slice(10, 20) if size[1] > 20 else slice(2, 5)
        pixels[rows, left : left + width] = value
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def category(
    root: Path,
    name: str,
    types: Mapping[str, int] | None = None,
    *,
    train: int = 3,
    test: int = 2,
    good: str = "good",
    suffix: str = ".png",
    mask_name: str = "{}_mask.png",
) -> Path:
    """One category in MVTec AD's layout."""
    folder = root / name
    for index in range(train):
        picture(folder / "train" / good / f"{index:03d}{suffix}")
    for index in range(test):
        picture(folder / "test" / good / f"{index:03d}{suffix}")
    for type_, count in ({"crack": 2} if types is None else types).items():
        for index in range(count):
            picture(folder / "test" / type_ / f"{index:03d}{suffix}")
            mask(folder / "ground_truth" / type_ / mask_name.format(f"{index:03d}"))
    return folder


def strip(root: Path, name: str, *, width: int = 4096, mode: str = "L", marks: Marks | None = None) -> Path:
    """A strip of ``Defect_images`` (with its mask, if ``marks`` are given) or of ``NODefect_images``."""
    _, code, fabric = name.split("_")
    if int(code) == 0:
        return picture(root / "NODefect_images" / FABRICS[fabric] / f"{name}.png", (width, 256), mode=mode)
    path = picture(root / "Defect_images" / f"{name}.png", (width, 256), mode=mode)
    if marks is not None:
        mask(root / "Mask_images" / f"{name}_mask.png", (width, 256), marks, mode)
    return path


def aitex(root: Path, *, free: int = 4) -> Path:
    """A small AITEX with every irregularity of the published archives."""
    for fabric in FABRICS:
        for number in range(1, free + 1):
            strip(root, f"{number:04d}_000_{fabric}")
    strip(root, "0018_00_01")  # a defect-free strip with a code of two digits
    strip(root, "0001_002_00", marks=[(0, 10, 255), (250, 12, 255), (4090, 6, 200)])  # patches 0, 1 and 15
    strip(root, "0003_002_00", marks=[(300, 5, 255), (600, 3, 105)])  # patch 2 is only a faint rim
    strip(root, "0004_002_01", marks=[(512, 4, 255)])
    strip(root, "0022_019_02", marks=[(700, 4, 255)])
    strip(root, "0018_010_03", marks=[(2000, 300, 255)])  # its number is that of a defect-free strip, too
    strip(root, "0043_019_04", marks=[(100, 4, 255)], mode="LA")
    strip(root, "0044_019_04")
    mask(root / "Mask_images" / "0044_019_04_mask1.png", (4096, 256), [(1030, 4, 255)])
    mask(root / "Mask_images" / "0044_019_04_mask2.png", (4096, 256), [(1290, 4, 255)])
    strip(root, "0094_027_05", width=3796, marks=[(3700, 20, 255)], mode="LA")
    strip(root, "0055_019_06", marks=[(0, 4, 255)])
    strip(root, "0100_025_08")  # no mask, no such fabric
    strip(root, "0106_010_03", marks=[])  # nothing marked
    return root
