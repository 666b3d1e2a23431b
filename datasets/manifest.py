"""Lists of images that come with a dataset: reading them, and holding them against the files that are there.

A manifest is CSV with a header, JSON lines, or JSON: a list of objects, or objects of lists at any depth, such as
``{"train": {"candle": [...]}, "test": {...}}``. A reader of a dataset says what the columns mean; what is wrong
with a list is told here, and all at once: lines that cannot be read, files that are listed and missing, listed
twice, outside of the root, or there and not listed.
"""

from __future__ import annotations

import csv
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.datasets.layout import Scan, is_image
from bench.errors import BenchError, first_line, printable, shorten

SUFFIXES = (".csv", ".json", ".jsonl")
_NAMED = 5  # files of one kind that a message names before it counts the others
_LARGEST = 1 << 30  # bytes; Real-IAD's lists have a few megabytes each


@dataclass(frozen=True)
class Row:
    """One entry of a manifest.

    Attributes:
        place: where it stands: ``1cls.csv, line 3``.
        fields: column -> value; text in CSV, any JSON value otherwise.
        keys: the keys of the JSON objects that the entry lies in, the outermost first.
    """

    place: str
    fields: Mapping[str, Any]
    keys: tuple[str, ...] = ()

    def text(self, column: str) -> str:
        """The value as text; empty where there is none."""
        value = self.fields.get(column)
        return "" if value is None else str(value).strip()


def read_manifest(path: Path, needed: Sequence[str], only: Sequence[str] = ()) -> list[Row]:
    """The entries of a manifest, in its own order.

    Args:
        path: ``.csv``, ``.json`` or ``.jsonl``.
        needed: columns that every entry must have; their values may be empty.
        only: keys at the top of a JSON file whose entries are read, where others say other things; all if empty.

    Raises:
        BenchError: the file is not there, cannot be read as what its suffix says, is empty, or entries lack
            columns; of several faulty lines the first ones are named and the others counted.
    """
    read = {".csv": _csv, ".json": _json, ".jsonl": _json_lines}.get(path.suffix.lower())
    if read is None:
        raise BenchError(f"{path}: a list of images is {', '.join(SUFFIXES)}")
    faults: list[str] = []
    try:
        if path.stat().st_size > _LARGEST:
            raise BenchError(f"{path}: larger than 1 GiB, which is no list of images")
        rows = list(_json(path, faults, only) if only and read is _json else read(path, faults))
    except FileNotFoundError:
        raise BenchError(f"{path} does not exist") from None
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BenchError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    for row in rows:
        if lacking := [column for column in needed if column not in row.fields]:
            found = ", ".join(map(printable, list(map(str, row.fields))[:8])) or "nothing"
            faults.append(f"{row.place}: no {', '.join(lacking)}; found {shorten(found)}")
    if faults:
        raise BenchError(f"{path} cannot be used: {_some(faults)}. Each entry needs {', '.join(needed)}")
    if not rows:
        raise BenchError(f"{path} lists nothing; each entry needs {', '.join(needed)}")
    return rows


def _csv(path: Path, faults: list[str]) -> Iterator[Row]:
    # Excel writes a byte-order mark; the csv module reads lines that end in CRLF only if newlines are left alone.
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        header: list[str] = []
        try:
            for values in reader:
                place = f"{path.name}, line {reader.line_num}"
                if not any(value.strip() for value in values):
                    continue
                if not header:
                    header = [value.strip() for value in values]
                elif len(values) != len(header):
                    faults.append(f"{place}: {len(values)} fields, the header has {len(header)}")
                else:
                    yield Row(place, dict(zip(header, values, strict=True)))
        except csv.Error as error:
            faults.append(f"{path.name}, line {reader.line_num}: {error}")


def _json(path: Path, faults: list[str], only: Sequence[str] = ()) -> Iterator[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, RecursionError) as error:
        faults.append(f"{path.name}: no JSON ({first_line(error)})")
        return
    if only and isinstance(content, dict):
        content = {key: value for key, value in content.items() if key in only}
    yield from _entries(content, path.name, (), faults)


def _entries(content: Any, name: str, keys: tuple[str, ...], faults: list[str]) -> Iterator[Row]:
    where = f"{name}, {'/'.join(map(printable, keys))}" if keys else name
    if isinstance(content, list):
        for number, entry in enumerate(content):
            place = f"{where}, entry {number}"
            if isinstance(entry, dict):
                yield Row(place, entry, keys)
            else:
                faults.append(f"{place}: no object with fields")
    elif isinstance(content, dict) and all(isinstance(value, list | dict) for value in content.values()):
        for key, value in content.items():
            yield from _entries(value, name, (*keys, key), faults)
    elif isinstance(content, dict):
        faults.append(f"{where}: keys that are neither a list of entries nor objects of lists")
    else:
        faults.append(f"{where}: no list of entries")


def _json_lines(path: Path, faults: list[str]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            place = f"{path.name}, line {number}"
            try:
                entry = json.loads(line) if line.strip() else None
            except (json.JSONDecodeError, RecursionError) as error:
                faults.append(f"{place}: no JSON ({first_line(error)})")
                continue
            if isinstance(entry, dict):
                yield Row(place, entry)
            elif line.strip():
                faults.append(f"{place}: no object with fields")


# ---------------------------------------------------------------- against the files


@dataclass
class Listing:
    """The files that a manifest names, held against those that are there.

    Args:
        scan: takes the findings.
        base: the folder that paths in the manifest are relative to.
        partial: a part of what is listed will do, as for a published dataset of which only some is there: missing
            images are then counted by the dataset, and no error.
    """

    scan: Scan
    base: Path
    partial: bool = False
    missing: list[Row] = field(default_factory=list)
    _first: dict[Path, Row] = field(default_factory=dict)
    _folders: dict[str, tuple[Path, frozenset[str]]] = field(default_factory=dict)
    _absent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # As text: lists have hundreds of thousands of entries, and paths are slow to put together.
        self._root, self._base = self.scan.root.as_posix(), self.base.as_posix()

    def image(self, row: Row, column: str) -> Path | None:
        """The image file that an entry names; None if it is not there or cannot be used, which is told."""
        path = self._resolve(row, column)
        if path is None:
            return None
        if path in self._first:
            self.scan.error(path, f"listed twice: {self._first[path].place}, and {row.place}")
            return None
        self._first[path] = row
        if not self._there(path):
            self.missing.append(row)
            if not self.partial:
                self._absent.append(f"{printable(row.text(column))} ({row.place})")
            return None
        return path

    def mask(self, row: Row, column: str) -> tuple[Path, ...]:
        """The mask file that an entry names; empty if it names none, or one that is not there, which is told."""
        if row.text(column) in ("", "nan", "None"):
            return ()
        path = self._resolve(row, column)
        if path is None:
            return ()
        if not self._there(path):
            self.scan.error(path, f"a mask that is listed and missing ({row.place})")
            return ()
        return (path,)

    def finish(self, folders: Iterable[Path] = ()) -> None:
        """Tell what is missing, and the images in ``folders`` that are there and not listed."""
        if self._absent:
            number = len(self._absent)
            plural = "s are" if number != 1 else " is"
            self.scan.error(self.base, f"{number:,} image{plural} listed and missing: {_some(self._absent)}")
        for folder in folders:
            if not folder.is_dir():
                continue
            found = [path for path in self.scan.images(folder) if path not in self._first]
            if found:
                names = _some([printable(path.name) for path in found])
                self.scan.note(folder, f"{len(found):,} there and not listed; ignored: {names}")

    def _resolve(self, row: Row, column: str) -> Path | None:
        written = row.text(column)
        if not written:
            self.scan.error(self.base, f"{row.place}: {column} is empty")
            return None
        if "\0" in written:
            self.scan.error(self.base, f"{row.place}: {shorten(printable(written))} is no path")
            return None
        plain = written.replace("\\", "/") if "/" not in written else written  # written on Windows
        path = posixpath.normpath(plain)
        if not posixpath.isabs(path):
            path = posixpath.normpath(f"{self._base}/{path}")
        if not path.startswith(f"{self._root}/"):
            shown = shorten(printable(written))
            self.scan.error(self.base, f"{row.place}: {shown} lies outside of {self._root}; ignored")
            return None
        folder, name = posixpath.split(path)
        return self._folder(folder)[0] / name

    def _folder(self, folder: str) -> tuple[Path, frozenset[str]]:
        """A folder and the names of its files: listed once, since asking for each file takes longer."""
        known = self._folders.get(folder)
        if known is None:
            path = Path(folder)
            names = self.scan.entries(path)[1] if path.is_dir() else []
            known = self._folders[folder] = path, frozenset(file.name for file in names)
        return known

    def _there(self, path: Path) -> bool:
        return path.name in self._folder(posixpath.dirname(path.as_posix()))[1] and is_image(path)


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more
