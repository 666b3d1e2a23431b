"""Where arrays come from: a folder of files, or one file that holds them all, whoever wrote it.

Nothing is ever unpickled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, first_line, printable
from bench.tools.arrays import ARRAYS, PICTURES, load_archive, load_array, read_map, read_mask_file
from bench.tools.files import name_fault
from bench.tools.pictures import MAX_PIXELS
from bench.tools.text import parse_json

MASK_PICTURES = (*PICTURES, ".bmp", ".jpg", ".jpeg")
# The array that holds all maps, where a file has others besides, and the one that names them.
STACK, IDS, IMAGE = "maps", "ids", "image"
_LAYOUT = ("test", "ground_truth")


def image_name(path: str) -> str:
    """The name of an image from a relative path or an array's name; see the module."""
    parts = path.replace("\\", "/").split("/")
    stem = parts[-1]
    for suffix in (*ARRAYS, *MASK_PICTURES):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return "/".join([*(part for part in parts[:-1] if part not in _LAYOUT), stem.removesuffix("_mask")])


@dataclass(frozen=True)
class Source:
    """Arrays of a folder or a file.

    Attributes:
        names: of the images, in the order of the arrays; None where nothing names them.
        paths: for messages.
        read: reads the array at an index.
        image_scores: ``(N,)`` that lie beside the arrays.
    """

    names: tuple[str, ...] | None
    paths: tuple[str, ...]
    read: Any
    image_scores: NDArray[np.float64] | None = None

    @property
    def number(self) -> int:
        return len(self.paths)


def open_source(path: Path, kind: str) -> Source:
    if path.is_dir():
        return _folder(path, kind)
    if not path.is_file():
        raise BenchError(f"--{kind}s {path}: there is no such file or folder")
    if path.suffix.lower() == ".npy":
        return _stack(path, load_array(path), None)
    if path.suffix.lower() == ".npz":
        return _several(path, load_archive(path), None)
    if path.suffix.lower() == ".safetensors":
        return _safetensors(path)
    raise BenchError(f"--{kind}s {path}: give a folder, or one .npz, .safetensors or .npy file")


def _folder(root: Path, kind: str) -> Source:
    suffixes = (*ARRAYS, *(PICTURES if kind == "map" else MASK_PICTURES))
    files = sorted(file for file in _files(root) if file.suffix.lower() in suffixes)
    if kind == "mask":
        truth = [file for file in files if "ground_truth" in file.relative_to(root).parts]
        files = truth or files
    if not files:
        raise BenchError(f"--{kind}s {root}: no {', '.join(suffixes)} file lies there")
    names = [image_name(file.relative_to(root).as_posix()) for file in files]
    seen: dict[str, Path] = {}
    for name, file in zip(names, files, strict=True):
        if name in seen:
            raise BenchError(f"two {kind}s of one image, {name}: {seen[name]} and {file}")
        seen[name] = file
    read = read_map if kind == "map" else read_mask_file
    return Source(tuple(names), tuple(map(str, files)), lambda index: read(files[index]))


def _files(root: Path) -> Iterator[Path]:
    """The files below a folder, without hidden ones. Links to folders are followed, and lead nowhere twice.

    Raises:
        BenchError: a folder cannot be read or is met twice, a file is none, or a name is no text.
    """

    def refuse(error: OSError) -> None:
        raise BenchError(f"{error.filename}: this folder cannot be read: {error.strerror}") from None

    met: dict[str, str] = {}
    for folder, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        first = met.setdefault(os.path.realpath(folder), folder)
        if first is not folder:
            raise BenchError(f"{folder} is a link to {first}, which is read already; remove the link")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder, name) for name in files if not name.startswith(".")):
            if not path.is_file():
                raise BenchError(f"{path}: a link that leads nowhere, or no file; remove it")
            if fault := name_fault(path.name):
                raise BenchError(f"{printable(str(path))}: {fault}")
            yield path


def _safetensors(path: Path) -> Source:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        with safe_open(path, "numpy") as stream:
            metadata = stream.metadata() or {}
        ids = parse_json(metadata[IDS]) if IDS in metadata else None
    except Exception as error:  # of safetensors, and of NumPy for types that it does not know
        raise BenchError(f"{path}: cannot be read: {first_line(error)}") from None
    if ids is not None and not (isinstance(ids, list) and all(isinstance(name, str) for name in ids)):
        raise BenchError(f"{path}: {IDS!r} in its metadata is no list of names")
    return _several(path, arrays, ids)


def _several(path: Path, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str] | None) -> Source:
    """The arrays of one file: one for each image, or all in one."""
    if ids is None and IDS in arrays:
        ids = [str(name) for name in arrays[IDS].ravel()]
    stacks = [name for name, array in arrays.items() if array.ndim == 3]
    if STACK in stacks or len(stacks) == 1:
        scores = arrays.get(IMAGE)
        return _stack(path, arrays[STACK if STACK in stacks else stacks[0]], ids, scores)
    single = {name: array for name, array in arrays.items() if name != IDS}
    if stacks or not single or any(array.ndim != 2 for array in single.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:8])
        raise BenchError(
            f"{path}: expected an array (h, w) for each image, or one array {STACK!r} (N, h, w); found {shapes}"
        )
    keys = sorted(single)
    names = tuple(image_name(key) for key in keys)
    if len(set(names)) < len(names):
        raise BenchError(f"{path}: two arrays belong to one image")
    for array in single.values():
        _check(path, array)
    return Source(names, tuple(f"{path}:{key}" for key in keys), lambda index: single[keys[index]])


def _check(path: Path, array: NDArray[Any]) -> None:
    """Refuse an array ``(h, w)`` or ``(N, h, w)`` that holds no map or mask."""
    if array.dtype.kind not in "fiub" or not 0 < array.shape[-1] * array.shape[-2] <= MAX_PIXELS:
        most = f"numbers, 1 to {MAX_PIXELS} for each image"
        raise BenchError(f"{path}: expected {most}; found an array {array.shape} of {array.dtype}")


def _above_zero(source: Source, place: int) -> NDArray[np.bool_]:
    mask = source.read(place)
    if mask.dtype.kind == "f" and np.isnan(mask).any():
        raise BenchError(f"{source.paths[place]}: a mask with NaN, which is neither normal nor anomalous")
    return np.asarray(mask > 0)


def _stack(
    path: Path, array: NDArray[Any], ids: Sequence[str] | None, scores: NDArray[Any] | None = None
) -> Source:
    if array.ndim != 3 or not len(array):
        raise BenchError(f"{path}: expected an array (N, h, w), found {array.shape}")
    names = None if ids is None else tuple(image_name(str(name)) for name in ids)
    if names is not None and (len(names) != len(array) or len(set(names)) < len(names)):
        different = len(set(names))
        raise BenchError(f"{path}: {len(array)} arrays need as many different names; {IDS!r} has {different}")
    _check(path, array)
    if scores is not None and (scores.ndim != 1 or scores.dtype.kind not in "fiub"):
        scores = None  # the images themselves, perhaps
    if scores is not None and len(scores) != len(array):
        raise BenchError(f"{path}: {len(array)} arrays, but {len(scores)} image scores in {IMAGE!r}")
    paths = tuple(f"{path}[{i}]" for i in range(len(array)))
    image_scores = None if scores is None else np.asarray(scores, dtype=np.float64)
    return Source(names, paths, lambda index: array[index], image_scores)
