"""One anomaly map or mask from one file, whatever program wrote it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError

ARRAYS, PICTURES = (".npy", ".npz"), (".png", ".tif", ".tiff")


def read_map(path: Path) -> NDArray[Any]:
    """``(h, w)`` scores of one file, as they are: a picture's grey values are not rescaled.

    Raises:
        BenchError: the file cannot be read, holds several arrays, or is a colour picture.
    """
    if path.suffix.lower() in ARRAYS:
        array = load_array(path) if path.suffix.lower() == ".npy" else _only(path, load_archive(path))
    else:
        array = _picture(path)
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    if array.ndim != 2 or array.dtype.kind not in "fiub":
        what = "a colour picture" if array.ndim == 3 and path.suffix.lower() in PICTURES else f"{array.shape}"
        raise BenchError(f"{path}: a map has one number for each pixel (h, w); this is {what} of {array.dtype}")
    return array


def read_mask_file(path: Path) -> NDArray[Any]:
    """``(H, W)`` mask of one file; pictures may be in colour, and are anomalous where they are not black."""
    if path.suffix.lower() in ARRAYS:
        return read_map(path)
    array = _picture(path)
    # Transparency is no colour.
    return array if array.ndim == 2 else array[..., : 3 if array.shape[-1] > 2 else 1].max(axis=-1)


def _picture(path: Path) -> NDArray[Any]:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except Exception as error:  # Pillow raises many kinds for broken files
        reason = error
    if path.suffix.lower() in (".tif", ".tiff"):
        # Pillow knows no 16- and 64-bit floats; tifffile does, where it is installed.
        try:
            from tifffile import imread
        except ImportError:
            pass
        else:
            try:
                return np.asarray(imread(path))
            except Exception as error:
                reason = error
    raise BenchError(f"{path}: cannot be read as a picture ({reason})") from None


def load_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file; nothing is unpickled."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise BenchError(f"{path}: cannot be read as an array ({error})") from None


def load_archive(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise BenchError(f"{path}: cannot be read as arrays ({error})") from None


def _only(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) != 1:
        raise BenchError(f"{path}: expected one array, the map; found {', '.join(arrays) or 'none'}")
    return next(iter(arrays.values()))
