"""Folders of anomaly maps for ``bench evaluate``: links, pipes, names, and files among them that are no maps."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import Hostile
from PIL import Image

from bench.metrics.files import load_images

KIND = "folders of maps"

STACK = np.random.default_rng(0).random((4, 6, 6), dtype=np.float32)
MASKS = np.zeros((2, 6, 6), np.uint8)
MASKS[:, 2:4, 2:4] = 1


def _tree(tmp_path: Path) -> tuple[Path, Path]:
    maps, masks = tmp_path / "maps", tmp_path / "masks"
    for folder in (maps / "crack", maps / "good", masks / "crack"):
        folder.mkdir(parents=True)
    for number in range(2):
        np.save(maps / f"crack/{number}.npy", STACK[number])
        np.save(maps / f"good/{number}.npy", STACK[2 + number])
        Image.fromarray(MASKS[number] * 255).save(masks / f"crack/{number}_mask.png")
    return maps, masks


def _loop(maps: Path) -> None:
    (maps / "crack/up").symlink_to(maps)


def _itself(maps: Path) -> None:
    (maps / "a.npy").symlink_to("a.npy")


def _nowhere(maps: Path) -> None:
    (maps / "good/9.npy").symlink_to("nothing.npy")


def _pipe(maps: Path) -> None:
    os.mkfifo(maps / "good/9.npy")


def _twice(maps: Path) -> None:
    (maps / "more").symlink_to(maps / "good")


def _bytes(maps: Path) -> None:
    np.save(os.fsdecode(os.fsencode(maps) + b"/good/\xff.npy"), STACK[0])


def _escape(maps: Path) -> None:
    np.save(maps / "good/\x1b[31m.npy", STACK[0])


def _bomb(maps: Path) -> None:
    Image.new("1", (11_200, 8_000)).save(maps / "good/9.png")


def _pages(maps: Path) -> None:
    pages = [Image.fromarray(STACK[0]), Image.fromarray(STACK[1])]
    pages[0].save(maps / "good/9.tif", save_all=True, append_images=pages[1:])


def _colours(maps: Path) -> None:
    Image.new("RGB", (6, 6)).save(maps / "good/9.png")


def _unreadable(maps: Path) -> None:
    (maps / "good/9.npy").write_bytes(b"")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        pytest.param(_loop, "read already", id="a link round in a circle"),
        pytest.param(_itself, "leads nowhere", id="a link to itself"),
        pytest.param(_nowhere, "leads nowhere", id="a link to nothing"),
        pytest.param(_pipe, "no file", id="a pipe"),
        pytest.param(_twice, "read already", id="a folder twice"),
        pytest.param(_bytes, "not valid Unicode", id="a name that is no text"),
        pytest.param(_escape, "control character", id="a name with an escape sequence"),
        pytest.param(_bomb, "too large", id="a picture bomb"),
        pytest.param(_pages, "holds 2 pictures", id="two pages"),
        pytest.param(_colours, "colour picture", id="a colour picture"),
        pytest.param(_unreadable, "cannot be read", id="an empty file"),
    ],
)
def test_folders(hostile: Hostile, tmp_path: Path, spoil: Callable[[Path], None], word: str) -> None:
    maps, masks = _tree(tmp_path)
    spoil(maps)
    result = hostile.command("evaluate", "--maps", maps, "--masks", masks, "--eval-size", "6")
    assert word in result.stderr, result.stderr


def test_a_linked_folder_is_read(hostile: Hostile, tmp_path: Path) -> None:
    maps, masks = _tree(tmp_path)
    (maps / "good").rename(tmp_path / "elsewhere")
    (maps / "good").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "link").symlink_to(maps)
    assert len(hostile.handled(lambda: load_images(tmp_path / "link", masks)).names) == 4


@pytest.mark.parametrize("size", ["0", "-1", "1.5", "nan", "100000", "9" * 400, "²", "own,own", "1e3"])
def test_evaluation_grids(hostile: Hostile, tmp_path: Path, size: str) -> None:
    maps, masks = _tree(tmp_path)
    hostile.command("evaluate", "--maps", maps, "--masks", masks, "--eval-size", size)
