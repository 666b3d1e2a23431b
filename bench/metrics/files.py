"""Anomaly maps, masks and scores in anybody's files: reading them, and matching those of one image.

**Names.** An image's name is its path below the folder that was given, without suffix; in one file with several
arrays it is the array's name. Folders called ``test`` or ``ground_truth`` and a ``_mask`` at the end do not count,
so that MVTec AD's ``test/crack/000`` and ``ground_truth/crack/000_mask`` are the same image.

**Which images count.** If the folder of masks is a dataset's (it has ``test`` folders with images), its images
count, no more and no fewer: each must have a map, and each map an image; what lies in ``test/good`` is normal, and
all else anomalous. Without such a listing each map is an image and each mask must have a map. A map without a mask
is then normal, unless some maps lie in a folder ``good``: all others are anomalous. An anomalous image without a
mask never counts as normal: without all masks there are no pixel metrics.

**Categories** are the folders above ``test`` and ``ground_truth``, or above the last two parts of names
(``bottle/crack/000``), or folders each of which holds normal and anomalous images.

**Masks** are anomalous where above 0. Where a set of masks has values in the upper half of their range and others
in the lower half too (JPEG files, anti-aliased outlines), only those of the upper half are anomalous (above 127).

Nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, first_line, printable, shorten
from bench.metrics.prepare import Kept, Lazy
from bench.tools.arrays import (
    ARRAYS,
    PICTURES,
    load_archive,
    load_array,
    plane,
    read_map,
    read_mask_file,
    to_array,
)
from bench.tools.files import name_fault
from bench.tools.pictures import MAX_PIXELS
from bench.tools.text import count, parse_json

_JPEG = (".jpg", ".jpeg")
MASK_PICTURES = (*PICTURES, ".bmp", *_JPEG)
# The array that holds all maps, where a file has others besides, and the one that names them.
STACK, IDS, IMAGE = "maps", "ids", "image"
_IMAGES, _MASKS, _NORMAL = "test", "ground_truth", "good"  # folders of a dataset


def image_name(path: str) -> str:
    """The name of an image from a relative path or an array's name; see the module."""
    parts = path.replace("\\", "/").split("/")
    stem = parts[-1]
    for suffix in (*ARRAYS, *MASK_PICTURES):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
            break
    folders = [part for part in parts[:-1] if part not in (_IMAGES, _MASKS)]
    return "/".join([*folders, stem.removesuffix("_mask")])


@dataclass(frozen=True)
class Images:
    """Images to be evaluated: arrays that are read when they are asked for, in the order of the names.

    Attributes:
        names: of the images.
        maps: N arrays ``(h, w)``; None where only scores were given.
        masks: N arrays ``(H, W)`` bool; None where the masks of anomalous images are not all there.
        labels: ``(N,)`` bool, whether an image is anomalous.
        image_scores: ``(N,)``, or None where there are none.
        notes: how files were matched, for readers.
        categories: ``N`` names, the same for all where there is one category.
        no_masks: why there are no masks.
    """

    names: tuple[str, ...]
    maps: Sequence[NDArray[Any]] | None
    masks: Sequence[NDArray[np.bool_]] | None
    labels: NDArray[np.bool_]
    image_scores: NDArray[np.float64] | None
    notes: tuple[str, ...]
    categories: tuple[str, ...]
    no_masks: str = ""

    def by_category(self) -> dict[str, Images]:
        """The images of each category, by its name."""
        result = {}
        for category in dict.fromkeys(self.categories):
            own = [index for index, each in enumerate(self.categories) if each == category]
            result[category] = Images(
                names=tuple(self.names[index] for index in own),
                maps=None if self.maps is None else _chosen(self.maps, own),
                masks=None if self.masks is None else _chosen(self.masks, own),
                labels=self.labels[own],
                image_scores=None if self.image_scores is None else self.image_scores[own],
                notes=(),
                categories=(category,) * len(own),
                no_masks=self.no_masks,
            )
        return result


def _chosen(arrays: Sequence[NDArray[Any]], indices: Sequence[int]) -> Lazy:
    return Lazy(lambda index: arrays[indices[index]], len(indices))


def load_images(maps: Path | None, masks: Path | None, scores: Path | None = None) -> Images:
    """Match maps, masks and scores.

    Args:
        maps: a folder with one .npy, .npz, .png or .tiff file for each image, in subfolders too; or one
            .npz or .safetensors file with an array for each image, or with an array ``maps`` ``(N, h, w)``
            and their names in ``ids``; or one .npy file ``(N, h, w)``. None: image metrics of ``scores`` alone.
        masks: likewise, or a dataset's folder. Maps without names need as many masks, which they take in order.
            None: image metrics alone.
        scores: a CSV file with the columns ``name``, ``score`` and, if wanted, ``label`` (0 or 1), which is needed
            without masks.

    Raises:
        BenchError: files that cannot be read or do not match; the message names them.
    """
    if maps is None or masks is None:
        return _without_masks(maps, scores)
    map_source, mask_source = open_source(maps, "map"), open_source(masks, "mask")
    names, places, notes = _match(map_source, mask_source, maps, masks)
    # Without names of maps there is nothing to hold a listing against: order decides.
    listed = _listing(masks) if map_source.names is not None else {}
    known = _known_labels(names, listed, masks)
    kept, grey = _masks(mask_source)
    categories = _by_layout(names, [*listed, *_below(masks)])

    # An empty mask has the size of its category's masks where they have one size, else that of its map.
    sizes: dict[str, set[tuple[int, ...]]] = {}
    shown = np.zeros(len(names), dtype=np.bool_)
    for index, place in enumerate(places):
        if place is not None:
            mask = kept[place]
            sizes.setdefault(categories[index], set()).add(mask.shape)
            shown[index] = mask.any()

    def mask_at(index: int) -> NDArray[np.bool_]:
        place = places[index]
        if place is not None:
            return kept[place]
        common = sizes.get(categories[index], set())
        return np.zeros(next(iter(common)) if len(common) == 1 else map_source.read(index).shape, dtype=np.bool_)

    found, given = _scores(scores, names) if scores is not None else (None, None)
    if found is None and map_source.image_scores is not None:
        found = map_source.image_scores
        notes.append(f"image scores: the array {IMAGE!r} of {maps.name}")
    # A label that is known wins; a mask that shows a defect makes an image anomalous in any case.
    labels = np.array([shown[i] if known[i] is None else known[i] or shown[i] for i in range(len(names))])
    if given is not None:
        _check_labels(names, given, shown, places, known, masks)
        labels = given
    # Images without a mask: an anomaly among them takes the pixel metrics away, a normal one needs none.
    absent = [i for i in range(len(names)) if places[i] is None]
    unknown = [names[i] for i in absent if labels[i]]
    normal = [names[i] for i in absent if not labels[i] and known[i] is None]
    empty = [names[i] for i in range(len(names)) if labels[i] and places[i] is not None and not shown[i]]
    no_masks = f"{_count(unknown, 'anomalous image')} without a mask: {_some(unknown)}" if unknown else ""
    if normal:
        notes.append(f"{_count(normal, 'map')} without a mask, taken as of normal images: {_some(normal)}")
    if unknown:
        notes.append(f"{no_masks}; so no pixel metrics")
    if empty:
        notes.append(f"{_count(empty, 'anomalous image')} with an empty mask: {_some(empty)}")
    notes += grey
    return Images(
        names=tuple(names),
        maps=Lazy(map_source.read, len(names)),
        masks=None if unknown else Lazy(mask_at, len(names)),
        labels=labels,
        image_scores=found,
        notes=tuple(notes),
        categories=_mixed_folders(names, labels) if len(set(categories)) == 1 else tuple(categories),
        no_masks=no_masks,
    )


def _without_masks(maps: Path | None, scores: Path | None) -> Images:
    """Images whose labels come from a file, for image metrics alone.

    Raises:
        BenchError: there are no labels.
    """
    source = open_source(maps, "map") if maps is not None else None
    if scores is None:
        raise BenchError("give --maps and --masks, or --scores with a column label for image metrics alone")
    if source is not None and source.names is None:
        raise BenchError(f"{maps} does not name its images, which --scores does; name them with an array {IDS!r}")
    names = source.names if source is not None and source.names is not None else tuple(_read_scores(scores))
    if not names:
        raise BenchError(f"{scores}: no image has a score")
    found, labels = _scores(scores, names)
    if labels is None:
        raise BenchError(f"{scores}: without --masks it must have a column label (0 or 1)")
    return Images(
        names=names,
        maps=None if source is None else Lazy(source.read, len(names)),
        masks=None,
        labels=labels,
        image_scores=found,
        notes=("no masks: image metrics alone",),
        categories=tuple(_by_layout(names, [])),
        no_masks="no masks were given",
    )


# ------------------------------------------------------------ matching


def _match(
    maps: ArraySource, masks: ArraySource, map_path: Path, mask_path: Path
) -> tuple[Sequence[str], list[int | None], list[str]]:
    """The images' names, the place of each one's mask or None, and notes.

    Raises:
        BenchError: a mask without a map, or other numbers where nothing is named.
    """
    if maps.names is None or masks.names is None:
        if maps.number != masks.number:
            unnamed = map_path if maps.names is None else mask_path
            raise BenchError(
                f"{unnamed} does not name its images, so there must be as many maps ({maps.number}) "
                f"as masks ({masks.number}); name them with an array {IDS!r}"
            )
        names = maps.names or masks.names or tuple(f"{i:06d}" for i in range(maps.number))
        return names, list(range(len(names))), ["maps and masks are matched by their order"]
    place = {name: index for index, name in enumerate(masks.names)}
    # A map without a mask may be of a normal image; a mask without a map is a mistake.
    alone = [masks.paths[place[name]] for name in sorted(place.keys() - set(maps.names))]
    if alone:
        raise BenchError(
            f"{len(alone)} of {masks.number} masks have no map: {_some(alone)}; "
            f"there are maps called {_some(maps.names)}"
        )
    return maps.names, [place.get(name) for name in maps.names], []


def _below(root: Path) -> list[str]:
    """Paths of the files below a folder, relative to it; none of a file."""
    return [file.relative_to(root).as_posix() for file in _files(root)] if root.is_dir() else []


def _listing(root: Path) -> dict[str, bool | None]:
    """The images that a dataset's folder lists in its ``test`` folders: relative path -> whether anomalous.

    None for an image that lies in ``test`` itself, whose mask decides. Empty where there is no such listing.
    """
    found: dict[str, bool | None] = {}
    for path in _below(root):
        folders = path.split("/")[:-1]
        if _IMAGES in folders and _MASKS not in folders and path.lower().endswith((*MASK_PICTURES, ".webp")):
            below = folders[folders.index(_IMAGES) + 1 :]
            found[path] = below[0] != _NORMAL if below else None
    return found


def _known_labels(names: Sequence[str], listed: Mapping[str, bool | None], root: Path) -> list[bool | None]:
    """Labels of the images, by their dataset's listing or by their folder; None for those that have neither.

    Raises:
        BenchError: maps and listed images are not the same.
    """
    if listed:
        labels = {image_name(path): label for path, label in listed.items()}
        missing, unlisted = sorted(labels.keys() - set(names)), sorted(set(names) - labels.keys())
        if missing or unlisted:
            parts = [f"no map for {len(missing)} of its {len(labels)} images: {_some(missing)}"] if missing else []
            parts += [f"no image for {_count(unlisted, 'map')}: {_some(unlisted)}"] if unlisted else []
            raise BenchError(f"{root} lists its images in folders called {_IMAGES}; {'; '.join(parts)}")
        return [labels[name] for name in names]
    folders = [name.split("/")[:-1] for name in names]
    if not any(_NORMAL in parts for parts in folders):
        return [None] * len(names)
    return [_NORMAL not in parts for parts in folders]


def _by_layout(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """The category of each image, by a dataset's folders or by the depth of names; empty if there is none.

    Args:
        names: of the images.
        paths: of a dataset's files, relative to its folder.
    """
    above: set[str] = set()
    for path in paths:
        parts = path.split("/")[:-1]
        marks = [parts.index(folder) for folder in (_IMAGES, _MASKS) if folder in parts]
        if marks:
            above.add("/".join(parts[: min(marks)]))
    categories = []
    for name in names:
        inside = [category for category in above if name.startswith(f"{category}/")]
        if above == {""}:
            categories.append("")
        elif inside:
            categories.append(max(inside, key=len))
        else:
            categories.append("/".join(name.split("/")[:-2]))
    return categories


def _mixed_folders(names: Sequence[str], labels: NDArray[np.bool_]) -> tuple[str, ...]:
    """The folders of the images as their categories, if there are several that hold both classes each."""
    folders = [name.rpartition("/")[0] for name in names]
    classes: dict[str, set[bool]] = {}
    for folder, label in zip(folders, labels, strict=True):
        classes.setdefault(folder, set()).add(bool(label))
    several = len(classes) > 1 and all(len(found) == 2 for found in classes.values())
    return tuple(folders) if several else ("",) * len(names)


def _masks(source: ArraySource) -> tuple[Kept, list[str]]:
    """The masks as bool, and a note if their values are grey; see the module."""
    least, most = np.inf, -np.inf
    for place in range(source.number):
        values = source.read(place)
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise BenchError(f"{source.paths[place]}: a mask with NaN, which is neither normal nor anomalous")
        most = max(most, float(values.max()))
        above = values[values > 0]
        if len(above):
            least = min(least, float(above.min()))
    jpeg = any(path.lower().endswith(_JPEG) for path in source.paths)
    # Half of the largest value that the masks' format can have, by the values that there are.
    if most <= 1:
        half = 0.5
    elif most <= 255:
        half = 127
    else:
        half = 32767
    # Masks with small numbers alone (0 to 9, say) hold ids of defects; JPEG blurs those of any kind.
    grey = least <= half and (most > half or jpeg) and most <= 65535
    threshold, notes = 0.0, []
    if grey:
        threshold = 127 if jpeg else half
        notes.append(f"masks have grey values; those above {threshold:g} are anomalous")
    # Masks are asked for several times by each protocol.
    return Kept(lambda place: np.asarray(source.read(place) > threshold), source.number), notes


def _read_scores(path: Path) -> dict[str, tuple[float, bool | None]]:
    """Score and label, None without such a column, of each image of a CSV file.

    Raises:
        BenchError: it cannot be read, a column is missing, or a row is not as it should be.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: cannot be read as CSV ({error})") from None
    if not {"name", "score"} <= set(columns) or len(set(columns)) < len(columns):
        found_columns = shorten(", ".join(columns))
        raise BenchError(
            f"{path}: the first line must name the columns name,score[,label] once; found {found_columns}"
        )
    found: dict[str, tuple[float, bool | None]] = {}
    for line, row in enumerate(rows, start=2):
        name = image_name(row["name"] or "")
        if name in found:
            raise BenchError(f"{path}, line {line}: {shorten(name)} is given twice")
        try:
            if None in row:
                raise ValueError("more fields than columns")
            label = bool(("0", "1").index((row["label"] or "").strip())) if "label" in columns else None
            found[name] = float(row["score"] or ""), label
        except ValueError:
            raise BenchError(
                f"{path}, line {line}: expected name,number[,0 or 1], found {shorten(str([*row.values()]))}"
            ) from None
    return found


def _scores(path: Path, names: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Scores and labels of a CSV file, in the order of ``names``."""
    found = _read_scores(path)
    missing, unknown = [name for name in names if name not in found], sorted(found.keys() - set(names))
    if missing or unknown:
        parts = [f"no score for {_some(missing)}"] if missing else []
        parts += [f"no map for {_some(unknown)}"] if unknown else []
        raise BenchError(f"{path}: {'; '.join(parts)}")
    labels = [found[name][1] for name in names]
    scores = np.array([found[name][0] for name in names])
    return scores, None if None in labels else np.array(labels, dtype=np.bool_)


def _check_labels(
    names: Sequence[str],
    labels: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    places: Sequence[int | None],
    known: Sequence[bool | None],
    masks: Path,
) -> None:
    """Refuse labels that contradict a mask, or the folder of an image without one."""
    wrong = []
    for index, name in enumerate(names):
        expected = bool(shown[index]) if places[index] is not None else known[index]
        if expected is not None and expected != labels[index]:
            wrong.append(name)
    if wrong:
        raise BenchError(
            f"{len(wrong)} images are labelled anomalous without an anomalous pixel in {masks}, "
            f"or normal with one: {_some(wrong)}"
        )


def _some(names: Sequence[str], number: int = 5) -> str:
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(shorten(name, 300) for name in names[:number]) + more  # the end of a path says most


def _count(names: Sequence[str], noun: str) -> str:
    return count(len(names), noun)


# ------------------------------------------------------------ reading


@dataclass(frozen=True)
class ArraySource:
    """Arrays of a folder or of one file, read when they are asked for.

    Attributes:
        names: of the images, in the order of the arrays; None where nothing names them.
        paths: for messages.
        read: reads the array at an index, ``(h, w)``.
        image_scores: ``(N,)`` that lie beside the arrays.
    """

    names: tuple[str, ...] | None
    paths: tuple[str, ...]
    read: Any
    image_scores: NDArray[np.float64] | None = None

    @property
    def number(self) -> int:
        """The number of arrays."""
        return len(self.paths)


def open_source(path: Path, kind: str) -> ArraySource:
    """Open a folder or file of arrays.

    Raises:
        BenchError: it cannot be read, or holds no arrays of the expected shape.
    """
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


def _folder(root: Path, kind: str) -> ArraySource:
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
    return ArraySource(tuple(names), tuple(map(str, files)), lambda index: read(files[index]))


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


def _safetensors(path: Path) -> ArraySource:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    try:
        try:
            arrays = load_file(path)
        except (KeyError, TypeError, AttributeError):  # NumPy lacks a type, such as bfloat16
            from safetensors.torch import load_file as load_tensors

            arrays = {name: to_array(tensor) for name, tensor in load_tensors(path).items()}
        with safe_open(path, "numpy") as stream:
            metadata = stream.metadata() or {}
        ids = parse_json(metadata[IDS]) if IDS in metadata else None
    except Exception as error:  # of safetensors, and of NumPy for types that it does not know
        raise BenchError(f"{path}: cannot be read: {first_line(error)}") from None
    if ids is not None and not (isinstance(ids, list) and all(isinstance(name, str) for name in ids)):
        raise BenchError(f"{path}: {IDS!r} in its metadata is no list of names")
    return _several(path, arrays, ids)


def _several(path: Path, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str] | None) -> ArraySource:
    """The arrays of one file: one for each image, or all in one."""
    if ids is None and IDS in arrays:
        ids = [str(name) for name in arrays[IDS].ravel()]
    single = {name: plane(array) for name, array in arrays.items() if name != IDS}
    stacks = [
        name for name, array in arrays.items() if array.ndim == 3 or (array.ndim == 4 and 1 in array.shape[1:])
    ]
    if STACK not in stacks and len(stacks) > 1 and all(array.ndim == 2 for array in single.values()):
        stacks = []  # an array (1, h, w) for each image
    if STACK in stacks or len(stacks) == 1:
        scores = arrays.get(IMAGE)
        return _stack(path, arrays[STACK if STACK in stacks else stacks[0]], ids, scores)
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
    return ArraySource(names, tuple(f"{path}:{key}" for key in keys), lambda index: single[keys[index]])


def _check(path: Path, array: NDArray[Any]) -> None:
    """Refuse an array ``(h, w)`` or ``(N, h, w)`` that holds no map or mask."""
    if array.dtype.kind not in "fiub" or not 0 < array.shape[-1] * array.shape[-2] <= MAX_PIXELS:
        most = f"numbers, 1 to {MAX_PIXELS} for each image"
        raise BenchError(f"{path}: expected {most}; found an array {array.shape} of {array.dtype}")


def _stack(
    path: Path, array: NDArray[Any], ids: Sequence[str] | None, scores: NDArray[Any] | None = None
) -> ArraySource:
    # One channel, before or behind: (N, 1, h, w), (N, h, w, 1).
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[-1]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
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
    return ArraySource(names, paths, lambda index: array[index], image_scores)
