"""Pictures to be scored: files, folders, PIL images or arrays, decoded a few at a time."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import GOOD, Sample
from bench.data.images import read_image, size_of
from bench.errors import BenchError
from bench.tools.hashes import hash_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: a file's path as it was given or found, ``image 3`` for the fourth array.
        path: the file, if there is one.
        given: the array, if there is no file.
        box: the part of the file that is the picture, see :class:`bench.contracts.Sample`.
    """

    name: str
    path: Path | None = None
    given: NDArray[np.uint8] | None = None
    box: tuple[int, int, int, int] | None = None

    def pixels(self) -> NDArray[np.uint8]:
        """``(H, W, 3)`` uint8 RGB.

        Raises:
            BenchError: it cannot be read.
        """
        if self.given is not None:
            return self.given
        assert self.path is not None
        return read_image(Sample(self.name, "", "test", GOOD, self.path, box=self.box))

    @functools.cached_property
    def key(self) -> str:
        """The key of its content, as a dataset's image has it: a picture that was trained on is recognised.

        Raises:
            BenchError: the file cannot be read.
        """
        if self.path is None:
            pixels = self.pixels()
            content = f"{hashlib.sha256(pixels.tobytes()).hexdigest()} {pixels.shape}"
        else:
            try:
                content = hash_file(self.path)
            except OSError as error:
                raise BenchError(f"{self.path}: {error.strerror}") from None
        return hashlib.sha256(f"{content}|{self.box}".encode()).hexdigest()

    @functools.cached_property
    def shape(self) -> tuple[int, int]:
        """``(H, W)`` in pixels."""
        if self.given is not None:
            return self.given.shape[0], self.given.shape[1]
        if self.box is not None:
            left, upper, right, lower = self.box
            return lower - upper, right - left
        assert self.path is not None
        width, height = size_of(self.path)
        return height, width


@dataclass(frozen=True)
class Pictures:
    """Pictures in the order in which they were given; those of a folder by name."""

    items: tuple[Picture, ...]

    @classmethod
    def of(cls, given: Any) -> Pictures:
        """Pictures from whatever a user has; see :meth:`bench.predict.detector.Detector.predict`.

        Raises:
            BenchError: there is none, a path leads nowhere, or an array is no picture.
        """
        if isinstance(given, Pictures):
            return given
        if isinstance(given, str | os.PathLike) or _is_picture(given):
            given = [given]
        items: list[Picture] = []
        for number, each in enumerate(given):
            if isinstance(each, str | os.PathLike):
                items += _at(Path(each))
            else:
                items.append(Picture(f"image {number}", given=_as_array(each, number)))
        if not items:
            raise BenchError("there is no picture to score")
        return cls(tuple(items))


def _is_picture(given: Any) -> bool:
    """True for one picture, not a sequence of some."""
    if hasattr(given, "convert"):  # a PIL image
        return True
    axes = getattr(given, "ndim", 0)
    return axes == 2 or (axes == 3 and given.shape[-1] in (1, 3, 4))


def _as_array(given: Any, number: int) -> NDArray[np.uint8]:
    if hasattr(given, "convert"):  # a PIL image
        return np.asarray(given.convert("RGB"), dtype=np.uint8)
    array = np.asarray(given)
    if array.dtype != np.uint8:
        raise BenchError(f"image {number} is an array of {array.dtype}; give uint8, from 0 to 255")
    if array.ndim == 3 and array.shape[-1] in (1, 4):
        array = array[..., :3] if array.shape[-1] == 4 else array[..., 0]
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.ndim != 3 or array.shape[-1] != 3 or not array.size:
        raise BenchError(f"image {number} has the shape {np.shape(given)}; give (H, W, 3) or (H, W)")
    return np.ascontiguousarray(array)


def _at(path: Path) -> list[Picture]:
    """The picture at a path, or those in the folder there and below it, by name."""
    if not path.is_dir():
        return [Picture(str(path), path)]
    found = []
    for folder, folders, names in os.walk(path, followlinks=False):
        folders.sort()
        found += [Path(folder) / name for name in names if name.lower().endswith(SUFFIXES)]
    found = [file for file in found if not file.name.startswith(".")]
    if not found:
        raise BenchError(f"{path} holds no picture ({', '.join(SUFFIXES)})")
    return [Picture(str(file), file) for file in sorted(found)]


def short_names(pictures: Sequence[Picture]) -> list[str]:
    """Names of the pictures without the folder that all their files have in common."""
    if any(picture.name != str(picture.path) for picture in pictures):
        return [picture.name for picture in pictures]  # arrays, or a dataset's images, have no such folder
    common = os.path.commonpath([os.path.dirname(os.path.abspath(picture.name)) for picture in pictures])
    return [os.path.relpath(os.path.abspath(picture.name), common) for picture in pictures]
