"""Three categories of small noise images with bright blots, in MVTec layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CATEGORIES = ("bolt", "cloth", "plate")
PARTS = (("train/good", 4, False), ("test/good", 3, False), ("test/dent", 12, True), ("test/stain", 3, True))


def write_toy_data(root: Path, first_seed: int = 0) -> None:
    """Per category 4 + 3 normal images, and two types of 12 and 3 anomalies."""
    seed = first_seed
    for category in CATEGORIES:
        for part, count, blot in PARTS:
            for number in range(count):
                seed += 1
                _image(root / category / part / f"{number:03}.png", seed, blot)


def _image(path: Path, seed: int, blot: bool) -> None:
    generator = np.random.default_rng(seed)
    pixels = generator.integers(60, 120, (32, 32, 3), dtype=np.uint8)
    mask = np.zeros((32, 32), np.uint8)
    if blot:
        y, x = generator.integers(2, 22, 2)
        mask[y : y + 8, x : x + 8] = 255
        pixels[mask > 0] = 250
        target = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
