"""Features on disk, shared by every process and run on this machine: one file per image and part, written once.

Layout under the root::

    <space>/space.json                      what the features of this folder were made with
    <space>/<ab>/<image>.<part>.feature     a checksum and one feature, as safetensors; ab begins the image's hash

A *space* is everything but the image that decides a feature: weights, preprocessing, number format, and the
versions of what computed it. Files are written under a temporary name and renamed, so that a file is whole or not
there; a process checks each one when it first reads it, and a damaged one is removed and made again. There are no
locks: two processes that lack the same image may both encode it, and write the same bits.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tools.files import write_atomically
from bench.tools.hashes import hash_json

if TYPE_CHECKING:
    import torch

VERSION = 3  # raise it when the code that computes features, or their files, change
GIB = 2**30
DEFAULT_LIMIT = 50 * GIB
_OVER = 8  # room is made whenever an eighth of the limit has been written
_STALE = 3600.0  # seconds, after which a temporary file is one of a writer that was killed
_CHECKSUM = 4  # bytes
_SPACE = re.compile("[0-9a-f]{16,32}")  # names of spaces, here and in earlier versions

Features = Iterator[tuple[str, Mapping[str, "torch.Tensor"]]]
"""Images, each with its features by part."""


def default_root() -> Path | None:
    """``$BENCH_CACHE``, or a folder in the user's cache; None if it is ``off``."""
    given = os.environ.get("BENCH_CACHE", "")
    if given.lower() in ("off", "none", "0"):
        return None
    if given:
        return Path(given).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "zsad-bench" / "features"


def default_limit() -> int:
    """Bytes: ``$BENCH_CACHE_GIB``, by default 50 GiB."""
    try:
        return int(float(os.environ["BENCH_CACHE_GIB"]) * GIB)
    except (KeyError, ValueError, OverflowError):
        return DEFAULT_LIMIT


def describe_space(weights: str, preprocessing: str, dtype: str) -> dict[str, Any]:
    """Everything but the image that decides a feature; spaces with different descriptions share nothing."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return ""

    return {
        "version": VERSION,
        "weights": weights,
        "preprocessing": preprocessing,
        "dtype": dtype,
        # other kernels round differently
        "torch": torch.__version__,
        "open_clip_torch": installed("open_clip_torch"),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


@dataclass
class FeatureStore:
    """The features under one folder.

    Args:
        root: the folder; made when something is first written.
        limit: bytes that may be kept; beyond, files go, the least recently used first.
    """

    root: Path
    limit: int = DEFAULT_LIMIT
    _spaces: dict[str, Space] = field(default_factory=dict)

    def space(self, weights: str, preprocessing: str, dtype: str) -> Space:
        """The features made with these."""
        description = describe_space(weights, preprocessing, dtype)
        name = hash_json(description)[:32]
        if name not in self._spaces:
            self._spaces[name] = Space(self.root / name, description, self)
        return self._spaces[name]

    def spaces(self) -> list[Path]:
        """The folders of all spaces, those of earlier versions too; other folders here are none of ours."""
        if not self.root.is_dir():
            return []
        return sorted(path for path in self.root.iterdir() if path.is_dir() and _SPACE.fullmatch(path.name))

    def files(self) -> list[tuple[Path, int, float]]:
        """Every file, its bytes, and when it was last used (seconds since 1970); least recently used first.

        Those of earlier versions are never read, but shown and removed; so are those of writers that were killed.
        """
        found = []
        for space in self.spaces():
            for path in space.rglob("*"):
                try:
                    status = path.stat()
                except OSError:  # another process has just removed it
                    continue
                if path.is_file() and path.name != "space.json":
                    found.append((path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda file: (file[2], str(file[0])))

    def evict(self, limit: int | None = None) -> int:
        """Remove files until at most ``limit`` bytes are left (the store's own by default); return bytes freed."""
        limit = self.limit if limit is None else limit
        files = self.files()
        excess = sum(size for _, size, _ in files) - limit
        freed = 0
        for path, size, used in files:
            if freed >= excess:
                break
            if path.name.startswith(".") and time.time() - used < _STALE:
                continue  # somebody is writing it
            try:
                path.unlink()
                freed += size
            except OSError:  # in use, on systems that forbid it
                continue
        return freed

    def clear(self) -> int:
        """Remove everything that was kept here; return bytes freed."""
        freed = sum(size for _, size, _ in self.files())
        for space in self.spaces():
            shutil.rmtree(space, ignore_errors=True)
        self._spaces.clear()
        return freed - sum(size for _, size, _ in self.files())


class Space:
    """The features of one space."""

    def __init__(self, folder: Path, description: Mapping[str, Any], store: FeatureStore) -> None:
        self.folder = folder
        self._description = description
        self._store = store
        self._written = 0  # bytes, since room was last made
        self._checked: set[Path] = set()  # files that this process has found sound

    def share(
        self,
        images: Collection[str],
        parts: Collection[str],
        compute: Callable[[Sequence[str]], Features],
        chunk: int,
    ) -> Features:
        """Features of all ``images``, in any order: those on disk, and the rest computed here and kept.

        What cannot be kept (disk full, no permission) is computed all the same, with one warning.

        Args:
            images: content hashes, each once.
            parts: which features.
            compute: encodes some of the images.
            chunk: images that are encoded before the disk is looked at again.
        """
        missing = []
        for image in images:
            features = self._read(image, parts)
            if features is None:
                missing.append(image)
            else:
                yield image, features
        if not missing:
            return
        # Processes that lack the same images take them in different orders, and look again before each chunk:
        # so they share most of the work without waiting for each other.
        random.Random(os.getpid()).shuffle(missing)
        writable = True
        try:
            for start in range(0, len(missing), chunk):
                left = []
                for image in missing[start : start + chunk]:
                    features = self._read(image, parts)
                    if features is None:
                        left.append(image)
                    else:
                        yield image, features
                for image, computed in compute(left):
                    writable = writable and self._write(image, computed)
                    if self._written > self._store.limit // _OVER:
                        self._make_room()
                    yield image, computed
        finally:  # also if the encoder fails, or nobody asks for the rest
            self._make_room()

    def _make_room(self) -> None:
        self._written = 0
        self._store.evict()

    def _path(self, image: str, part: str) -> Path:
        return self.folder / image[:2] / f"{image}.{part}.feature"

    def _read(self, image: str, parts: Collection[str]) -> dict[str, torch.Tensor] | None:
        """The features of an image; None if one of them is not there."""
        features = {}
        for part in parts:
            feature = self._load(self._path(image, part))
            if feature is None:
                return None
            features[part] = feature
        return features

    def _load(self, path: Path) -> torch.Tensor | None:
        """The feature in a file; None if there is no such file, or it was damaged and is now removed."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            content = path.read_bytes()
            if path not in self._checked and _checksum(content[_CHECKSUM:]) != content[:_CHECKSUM]:
                raise ValueError("the checksum is wrong")
            feature = load(content[_CHECKSUM:])["feature"]
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            # What cannot be removed either is computed each time.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        if path not in self._checked:
            self._checked.add(path)
            with contextlib.suppress(OSError):  # of another user, say: it is sound even so
                os.utime(path)  # used
        return feature

    def _write(self, image: str, features: Mapping[str, torch.Tensor]) -> bool:
        """Keep an image's features; False, after a warning, if that is not possible."""
        from safetensors.torch import save

        try:
            description = self.folder / "space.json"
            if not description.exists():
                write_atomically(description, json.dumps(self._description, indent=1, sort_keys=True).encode())
            for part, feature in features.items():
                content = save({"feature": feature.contiguous().clone()})  # a row alone, without its batch
                # Not durable: a flush for each file takes longer than encoding, and damage is found.
                write_atomically(self._path(image, part), _checksum(content) + content, durable=False)
                self._written += len(content)
        except OSError as error:
            warnings.warn(
                f"features cannot be kept in {self.folder.parent} ({error}); they are computed again each time. "
                "Set BENCH_CACHE to another folder, or to off",
                stacklevel=2,
            )
            return False
        return True


def _checksum(content: bytes) -> bytes:
    """The first bytes of a file: they cover all the others, names, types and shapes too."""
    return zlib.crc32(content).to_bytes(_CHECKSUM, "little")
