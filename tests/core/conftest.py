from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toy_plugin import build_wheel, forget_plugins, install

CATEGORIES = ("bolt", "cloth", "plate")
TYPES = ("dent", "stain")


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


@pytest.fixture
def toy_root(tmp_path: Path) -> Path:
    """Three categories in MVTec layout, 4 + 3 normal images and two types of 12 and 3 anomalies each."""
    root = tmp_path / "toy"
    seed = 0
    for category in CATEGORIES:
        for part, count, blot in (
            ("train/good", 4, False),
            ("test/good", 3, False),
            ("test/dent", 12, True),
            ("test/stain", 3, True),
        ):
            for number in range(count):
                seed += 1
                _image(root / category / part / f"{number:03}.png", seed, blot)
    return root


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the throw-away distribution."""
    folder = tmp_path_factory.mktemp("plugin")
    install(build_wheel(folder), folder / "site")
    return folder / "site"


@pytest.fixture
def plugin(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The throw-away distribution, importable here and in processes started from here."""
    monkeypatch.syspath_prepend(str(plugin_folder))
    path = os.pathsep.join(filter(None, [str(plugin_folder), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    forget_plugins()
    yield plugin_folder
    forget_plugins()
