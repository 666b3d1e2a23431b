"""Anomaly maps, masks and scores in anybody's files: reading them, and telling which belong together.

**Names.** An image's name is its path below the folder that was given, without suffix; in one file with
several arrays it is the array's name. Folders called ``test`` or ``ground_truth`` and a ``_mask`` at the end
do not count, so that MVTec AD's ``test/crack/000`` and ``ground_truth/crack/000_mask`` are the same image.

**Rules.** Each mask must have a map. A map without a mask is a normal image: all of its pixels are. It has the
size of the masks where they have one size, else that of its map (which matters to ``eval_size=own`` alone).

Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.arrayfiles import ARRAYS, PICTURES, load_archive, load_array, read_map, read_mask_file
from bench.errors import BenchError
from bench.metrics.prepare import Kept, Lazy

MASK_PICTURES = (*PICTURES, ".bmp", ".jpg", ".jpeg")
# The array that holds all maps, where a file has others besides, and the one that names them.
STACK, IDS, IMAGE = "maps", "ids", "image"
_LAYOUT = ("test", "ground_truth")


@dataclass(frozen=True)
class Images:
    """What is to be evaluated: arrays that are read when they are asked for, in the order of the names.

    Attributes:
        names: of the images.
        maps: N arrays ``(h, w)``.
        masks: N arrays ``(H, W)`` bool.
        labels: ``(N,)`` bool, whether an image is anomalous.
        image_scores: ``(N,)``, or None where there are none.
        notes: what a reader should know of how files were matched.
    """

    names: tuple[str, ...]
    maps: Sequence[NDArray[Any]]
    masks: Sequence[NDArray[np.bool_]]
    labels: NDArray[np.bool_]
    image_scores: NDArray[np.float64] | None
    notes: tuple[str, ...]


def image_name(path: str) -> str:
    """The name of an image from a relative path or an array's name; see the module."""
    parts = path.replace("\\", "/").split("/")
    stem = parts[-1]
    for suffix in (*ARRAYS, *MASK_PICTURES):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    return "/".join([*(part for part in parts[:-1] if part not in _LAYOUT), stem.removesuffix("_mask")])


def load_images(maps: Path, masks: Path, scores: Path | None = None) -> Images:
    """Match maps, masks and scores.

    Args:
        maps: a folder with one .npy, .npz, .png or .tiff file for each image, in subfolders too; or one
            .npz or .safetensors file with an array for each image, or with an array ``maps`` ``(N, h, w)``
            and their names in ``ids``; or one .npy file ``(N, h, w)``.
        masks: likewise; anomalous where above 0. A dataset's folder will do: where there are folders called
            ``ground_truth``, only those are looked at. Maps without names need as many masks, which they
            take in order.
        scores: a CSV file with the columns ``name``, ``score`` and, if wanted, ``label`` (0 or 1).

    Raises:
        BenchError: files that cannot be read or do not match; the message names them.
    """
    map_source, mask_source = _source(maps, "map"), _source(masks, "mask")
    if map_source.names is None or mask_source.names is None:
        if map_source.number != mask_source.number:
            unnamed = maps if map_source.names is None else masks
            raise BenchError(
                f"{unnamed} does not name its images, so there must be as many maps ({map_source.number}) "
                f"as masks ({mask_source.number}); name them with an array {IDS!r}"
            )
        names = map_source.names or mask_source.names or tuple(f"{i:06d}" for i in range(map_source.number))
        places: list[int | None] = list(range(len(names)))
        notes = ["maps and masks are matched by their order"]
    else:
        names = map_source.names
        places, notes = _match(map_source, mask_source)

    # Masks are asked for several times by each protocol.
    kept = Kept(lambda place: mask_source.read(place) > 0, mask_source.number)

    def mask_at(index: int) -> NDArray[np.bool_]:
        place = places[index]
        if place is None:
            return np.zeros(common or map_source.read(index).shape, dtype=np.bool_)
        return kept[place]

    found, labels = _scores(scores, names) if scores is not None else (None, None)
    if found is None and map_source.image_scores is not None:
        found = map_source.image_scores
        notes.append(f"image scores: the array {IMAGE!r} of {maps.name}")
    common: tuple[int, ...] | None = None
    lazy = Lazy(mask_at, len(names))
    shown = np.array([places[i] is not None and bool(lazy[i].any()) for i in range(len(names))])
    common = next(iter(kept.sizes)) if len(kept.sizes) == 1 else None
    if labels is not None:
        _check_labels(names, labels, shown, masks)
        shown = labels
    return Images(names, Lazy(map_source.read, len(names)), lazy, shown, found, tuple(notes))


# ------------------------------------------------------------ where arrays come from


@dataclass(frozen=True)
class _Source:
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


def _source(path: Path, kind: str) -> _Source:
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


def _folder(root: Path, kind: str) -> _Source:
    suffixes = (*ARRAYS, *(PICTURES if kind == "map" else MASK_PICTURES))
    files = sorted(file for file in root.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    files = [file for file in files if not any(part.startswith(".") for part in file.relative_to(root).parts)]
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
    return _Source(tuple(names), tuple(map(str, files)), lambda index: read(files[index]))


def _safetensors(path: Path) -> _Source:
    from safetensors import SafetensorError, safe_open
    from safetensors.numpy import load_file

    try:
        arrays = load_file(path)
        with safe_open(path, "numpy") as stream:
            metadata = stream.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BenchError(f"{path}: cannot be read: {error}") from None
    ids = json.loads(metadata[IDS]) if IDS in metadata else None
    return _several(path, arrays, ids)


def _several(path: Path, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str] | None) -> _Source:
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
    return _Source(names, tuple(f"{path}:{key}" for key in keys), lambda index: single[keys[index]])


def _stack(
    path: Path, array: NDArray[Any], ids: Sequence[str] | None, scores: NDArray[Any] | None = None
) -> _Source:
    if array.ndim != 3 or not len(array):
        raise BenchError(f"{path}: expected an array (N, h, w), found {array.shape}")
    names = None if ids is None else tuple(image_name(str(name)) for name in ids)
    if names is not None and (len(names) != len(array) or len(set(names)) < len(names)):
        different = len(set(names))
        raise BenchError(f"{path}: {len(array)} arrays need as many different names; {IDS!r} has {different}")
    if scores is not None and scores.shape != (len(array),):
        scores = None
    paths = tuple(f"{path}[{i}]" for i in range(len(array)))
    image_scores = None if scores is None else np.asarray(scores, dtype=np.float64)
    return _Source(names, paths, lambda index: array[index], image_scores)


# ------------------------------------------------------------ what belongs together


def _match(maps: _Source, masks: _Source) -> tuple[list[int | None], list[str]]:
    """The mask of each map by name, or None, and notes."""
    assert maps.names is not None
    assert masks.names is not None
    place = {name: index for index, name in enumerate(masks.names)}
    alone = [masks.paths[place[name]] for name in sorted(place.keys() - set(maps.names))]
    if alone:
        raise BenchError(
            f"{len(alone)} of {masks.number} masks have no map: {_some(alone)}; "
            f"there are maps called {_some(maps.names)}"
        )
    without = [name for name in maps.names if name not in place]
    notes = [f"{len(without)} maps have no mask and count as normal images: {_some(without)}"] if without else []
    return [place.get(name) for name in maps.names], notes


def _scores(path: Path, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Scores and labels of a CSV file, in the order of ``names``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: cannot be read as CSV ({error})") from None
    if not {"name", "score"} <= set(columns):
        raise BenchError(f"{path}: the first line must name the columns name,score[,label]; found {columns}")
    found: dict[str, tuple[float, bool]] = {}
    for line, row in enumerate(rows, start=2):
        name = image_name(row["name"] or "")
        if name in found:
            raise BenchError(f"{path}, line {line}: {name} stands twice")
        try:
            found[name] = float(row["score"] or ""), bool(("0", "1").index((row.get("label") or "0").strip()))
        except ValueError:
            raise BenchError(f"{path}, line {line}: expected name,number[,0 or 1], found {row}") from None
    missing, unknown = [name for name in names if name not in found], sorted(found.keys() - set(names))
    if missing or unknown:
        parts = [f"no score for {_some(missing)}"] if missing else []
        parts += [f"no map for {_some(unknown)}"] if unknown else []
        raise BenchError(f"{path}: {'; '.join(parts)}")
    labels = np.array([found[name][1] for name in names]) if "label" in columns else None
    return np.array([found[name][0] for name in names]), labels


def _check_labels(names: Sequence[str], labels: NDArray[np.bool_], shown: NDArray[np.bool_], masks: Path) -> None:
    wrong = [name for name, label, mask in zip(names, labels, shown, strict=True) if label != mask]
    if wrong:
        raise BenchError(
            f"{len(wrong)} images are labelled anomalous without an anomalous pixel in {masks}, "
            f"or normal with one: {_some(wrong)}"
        )


def _some(names: Sequence[str], number: int = 5) -> str:
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more
