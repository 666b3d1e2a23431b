"""Arrays from anybody's programs: one anomaly map or mask of a file, and anything that is like an array."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, first_line
from bench.tools.pictures import MAX_PIXELS, opened

MAX_UNPACKED = 1 << 32  # bytes of a compressed .npz: a small file can stand for any number
ARRAYS, PICTURES = (".npy", ".npz"), (".png", ".tif", ".tiff")


def to_array(values: Any) -> NDArray[Any]:
    """A NumPy array of anything array-like: nested lists, and torch tensors on any device, with gradients too.

    Numbers that NumPy lacks (bfloat16) become float32, which holds them exactly.

    Raises:
        ValueError: rows of different lengths.
    """
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = values.detach().cpu()
        narrow = values.is_floating_point() and values.itemsize < 4
        return np.asarray((values.float() if narrow else values).numpy())
    if isinstance(values, list | tuple) and any(hasattr(each, "detach") for each in values):
        values = [to_array(each) for each in values]
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def plane(array: NDArray[Any]) -> NDArray[Any]:
    """The array ``(h, w)`` without axes of length one around it, as in ``(1, 1, h, w)`` or ``(h, w, 1)``."""
    while array.ndim > 2 and 1 in (array.shape[0], array.shape[-1]):
        array = array[0] if array.shape[0] == 1 else array[..., 0]
    return array


def read_map(path: Path) -> NDArray[Any]:
    """``(h, w)`` scores of one file, as they are: a picture's grey values are not rescaled.

    Raises:
        BenchError: the file cannot be read, holds several arrays, or is a colour picture.
    """
    if path.suffix.lower() in ARRAYS:
        array = load_array(path) if path.suffix.lower() == ".npy" else _only(path, load_archive(path))
    else:
        array = _picture(path)
    array = plane(array)
    if array.ndim == 2 and not 0 < array.size <= MAX_PIXELS:
        raise BenchError(f"{path}: a map has 1 to {MAX_PIXELS} pixels; this is {array.shape}")
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
    try:
        with opened(path) as image:
            return np.asarray(image.convert("RGB") if image.mode == "P" else image)
    except BenchError:
        array = _wide_tiff(path) if path.suffix.lower() in (".tif", ".tiff") else None
        if array is None:
            raise
        return array


def _wide_tiff(path: Path) -> NDArray[Any] | None:
    """A TIFF of 16- or 64-bit floats, which Pillow does not know and tifffile does, where it is installed."""
    try:
        from tifffile import TiffFile
    except ImportError:
        return None
    try:
        with TiffFile(path) as file:
            page = file.pages.first
            if len(file.pages) > 1 or page.dtype is None or page.dtype.kind != "f" or page.size > MAX_PIXELS:
                return None
            return np.asarray(page.asarray())
    except Exception:  # tifffile, too, raises many kinds; what Pillow said is reported
        return None


def load_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file, which stays in the file until it is looked at; nothing is unpickled.

    Raises:
        BenchError: it cannot be read, or is shorter than it says.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # NumPy raises many kinds for broken files
        raise BenchError(f"{path}: cannot be read as an array ({first_line(error)})") from None


def load_archive(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a .npz file by name; nothing is unpickled.

    Raises:
        BenchError: it cannot be read, or is packed and has more than :data:`MAX_UNPACKED` bytes.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(member.file_size for member in packed.infolist())
        if size > max(MAX_UNPACKED, path.stat().st_size):
            raise BenchError(
                f"{path}: unpacks to {size} bytes, of which {MAX_UNPACKED} are read; save it without compression"
            )
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except BenchError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds for broken files
        raise BenchError(f"{path}: cannot be read as arrays ({first_line(error)})") from None


def _only(path: Path, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    if len(arrays) != 1:
        raise BenchError(f"{path}: expected one array, the map; found {', '.join(arrays) or 'none'}")
    return next(iter(arrays.values()))
