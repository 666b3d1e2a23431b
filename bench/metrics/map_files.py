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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError, shorten
from bench.metrics.files import IDS, IMAGE, Source, image_name, open_source
from bench.metrics.prepare import Kept, Lazy


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
    map_source, mask_source = open_source(maps, "map"), open_source(masks, "mask")
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
    kept = Kept(lambda place: _above_zero(mask_source, place), mask_source.number)

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


# ------------------------------------------------------------ what belongs together


def _above_zero(source: Source, place: int) -> NDArray[np.bool_]:
    mask = source.read(place)
    if mask.dtype.kind == "f" and np.isnan(mask).any():
        raise BenchError(f"{source.paths[place]}: a mask with NaN, which is neither normal nor anomalous")
    return np.asarray(mask > 0)


def _match(maps: Source, masks: Source) -> tuple[list[int | None], list[str]]:
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
            reader = csv.DictReader(stream, strict=True)
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BenchError(f"{path}: cannot be read as CSV ({error})") from None
    if not {"name", "score"} <= set(columns) or len(set(columns)) < len(columns):
        found_columns = shorten(", ".join(columns))
        raise BenchError(
            f"{path}: the first line must name the columns name,score[,label] once; found {found_columns}"
        )
    found: dict[str, tuple[float, bool]] = {}
    for line, row in enumerate(rows, start=2):
        name = image_name(row["name"] or "")
        if name in found:
            raise BenchError(f"{path}, line {line}: {shorten(name)} stands twice")
        try:
            label = "0" if "label" not in columns else (row["label"] or "").strip()
            if None in row:
                raise ValueError("more fields than columns")
            found[name] = float(row["score"] or ""), bool(("0", "1").index(label))
        except ValueError:
            raise BenchError(
                f"{path}, line {line}: expected name,number[,0 or 1], found {shorten(str([*row.values()]))}"
            ) from None
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
    return ", ".join(shorten(name, 300) for name in names[:number]) + more  # a path says most at its end
