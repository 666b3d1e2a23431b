"""Features on disk, shared by every process and run on this machine: one file per image, written whole.

Layout under the root::

    <space>/space.json               what the features of this folder were made with
    <space>/<ab>/<image>.features    the features of one image; ab begins the image's hash

A *space* is everything but the image that decides a feature: weights, preprocessing, number format, and the
versions of what computed it. Files are written under a temporary name and renamed, so that a file is whole or not
there; a damaged one is found by its checksums when a process first reads it, and made again. There are no locks:
two processes that lack the same image may both encode it, and write the same bits.

A file is a line, and after it the features one after another, each filled up with zeros to a multiple of 64 bytes.
The line is the CRC-32 of its JSON text, a space, and that text: space and image, and of each feature the number
format, shape, bytes and CRC-32. So every byte is covered, and one feature can be read without the others.
"""

from __future__ import annotations

import contextlib
import json
import math
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

VERSION = 4  # raise it when the code that computes features, or their files, change
GIB = 2**30
DEFAULT_LIMIT = 50 * GIB
_STEP = 2**28  # bytes for which room is made at once, at most: looking at all files takes a while
_ABANDONED = 3600  # seconds after which the writer of a temporary file is taken to be dead
_USED = 3600  # seconds after which use is written down again, which takes longer than reading a file
_ALIGNMENT = 64  # bytes; each feature begins at a multiple of it
_START = 2**15  # bytes of a file that are read at once, which is all of most small ones

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
        limit: bytes that may be kept; before more is written, files go, the least recently used first. Several
            processes that write at once may each be ahead by a twentieth of it, but by no more than 256 MiB.
    """

    root: Path
    limit: int = DEFAULT_LIMIT
    _spaces: dict[str, Space] = field(default_factory=dict)
    _room: int = 0  # bytes that may be written before the files are looked at again

    def space(self, weights: str, preprocessing: str, dtype: str) -> Space:
        """The features made with these."""
        description = describe_space(weights, preprocessing, dtype)
        name = hash_json(description)[:32]
        if name not in self._spaces:
            self._spaces[name] = Space(self.root / name, description, self.make_room)
        return self._spaces[name]

    def folders(self) -> list[Path]:
        """The folders of all spaces, those of earlier layouts among them; whatever else lies there is not ours."""
        try:
            found = sorted(self.root.iterdir())
        except OSError:  # nothing was kept yet
            return []
        return [path for path in found if re.fullmatch("[0-9a-f]{16,64}", path.name) and path.is_dir()]

    def files(self) -> list[tuple[Path, int, float]]:
        """Every file, its bytes, and when it was last used (seconds since 1970); least recently used first.

        All that lies in the folders: features, descriptions, temporary files, and the files of earlier layouts.
        """
        found = []
        for space in self.folders():
            for folder, _, names in os.walk(space):
                for name in names:
                    path = Path(folder, name)
                    try:
                        status = path.lstat()
                    except OSError:  # another process has just removed it
                        continue
                    found.append((path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda file: (file[2], str(file[0])))

    def evict(self, limit: int | None = None) -> int:
        """Remove files until at most ``limit`` bytes are left (the store's own by default); return bytes freed.

        What another process is writing now stays, and so do the descriptions of spaces.
        """
        limit = self.limit if limit is None else limit
        files = self.files()
        excess = sum(size for _, size, _ in files) - limit
        freed = 0
        for path, size, used in files:
            if freed >= excess:
                break
            being_written = path.name.startswith(".") and used > time.time() - _ABANDONED
            if path.name == "space.json" or being_written:
                continue
            try:
                path.unlink()
                freed += size
            except OSError:  # in use, on systems that forbid it
                continue
        return freed

    def clear(self) -> int:
        """Remove everything; return bytes freed."""
        before = sum(size for _, size, _ in self.files())
        for folder in self.folders():
            shutil.rmtree(folder, ignore_errors=True)
        return before - sum(size for _, size, _ in self.files())

    def make_room(self, size: int) -> bool:
        """Make room for ``size`` bytes that are about to be written; False if that is more than the limit."""
        if size > self.limit:
            return False
        if size > self._room:
            self._room = max(size, min(self.limit // 20, _STEP))
            self.evict(self.limit - self._room)
        self._room -= size
        return True


class Space:
    """The features of one space.

    Args:
        folder: where they lie.
        description: what they are made with.
        make_room: called with the bytes of a file before it is written; the file is not kept if it says False.
    """

    def __init__(self, folder: Path, description: Mapping[str, Any], make_room: Callable[[int], bool]) -> None:
        self.folder = folder
        self._description = description
        self._make_room = make_room
        self._checked: set[tuple[str, str]] = set()  # image, part: those that this process has found sound

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
                yield image, computed

    def _path(self, image: str) -> str:
        return f"{self.folder}/{image[:2]}/{image}.features"  # a string, since a Path takes longer than reading

    def _read(self, image: str, parts: Collection[str] | None = None) -> dict[str, torch.Tensor] | None:
        """Features of an image, by default all; None if one of them is not there, or is damaged."""
        import torch

        features = {}
        try:
            with open(self._path(image), "rb", buffering=0) as stream:
                start = bytearray(_START)
                in_start = stream.readinto(start) or 0
                end, known = self._header(start, image)
                places = {}
                for part, (dtype, shape, size, checksum) in known.items():
                    places[part] = (end, dtype, shape, size, checksum)
                    end += size
                status = os.fstat(stream.fileno())
                if end != status.st_size:
                    raise ValueError("bytes are missing, or too many")
                if status.st_mtime < time.time() - _USED:
                    with contextlib.suppress(OSError):  # a file of another user's can be read all the same
                        os.utime(stream.fileno())
                for part in known if parts is None else parts:
                    if part not in places:
                        return None
                    offset, dtype, shape, size, checksum = places[part]
                    buffer = start
                    if offset + size > in_start:
                        buffer = bytearray(size)
                        stream.seek(offset)
                        offset = 0
                        if stream.readinto(buffer) != size:
                            raise ValueError("bytes are missing")
                    if (image, part) not in self._checked:
                        if zlib.crc32(memoryview(buffer)[offset : offset + size]) != checksum:
                            raise ValueError("the checksum is wrong")
                        self._checked.add((image, part))
                    count = math.prod(shape)
                    values = torch.frombuffer(buffer, dtype=getattr(torch, dtype), count=count, offset=offset)
                    features[part] = values.view(shape)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError):
            return None  # not there, or damaged: whoever computes it replaces the file
        return features

    def _header(self, start: bytearray, image: str) -> tuple[int, dict[str, tuple[str, list[int], int, int]]]:
        """The bytes of a file's first line, and what it says of each feature.

        Raises:
            ValueError: it is damaged, or the file of another image.
            LookupError, TypeError: it is not a line of ours.
        """
        end = start.index(b"\n")
        if int(start[:8], 16) != zlib.crc32(memoryview(start)[9:end]):
            raise ValueError("the checksum is wrong")
        content = json.loads(start[9:end])
        if content["image"] != image or content["space"] != self.folder.name:
            raise ValueError("the file of another image")
        return end + 1, content["parts"]

    def _write(self, image: str, features: Mapping[str, torch.Tensor]) -> bool:
        """Keep an image's features; False, after a warning, if that is not possible."""
        content = self._content(image, {**(self._read(image) or {}), **features})
        if not self._make_room(len(content)):
            return True
        try:
            description = self.folder / "space.json"
            if not description.exists():
                write_atomically(description, json.dumps(self._description, indent=1, sort_keys=True).encode())
            # Not durable: a flush for each file takes longer than encoding, and damage is found.
            write_atomically(Path(self._path(image)), content, durable=False)
        except FileNotFoundError:  # another process has cleared the folder at this moment
            return True
        except OSError as error:
            warnings.warn(
                f"features cannot be kept in {self.folder.parent} ({error}); they are computed again each time. "
                "Set BENCH_CACHE to another folder, or to off",
                stacklevel=2,
            )
            return False
        return True

    def _content(self, image: str, features: Mapping[str, torch.Tensor]) -> bytes:
        """The content of an image's file."""
        import torch

        parts, blocks = {}, []
        for part, feature in features.items():
            block = feature.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            block += bytes(-len(block) % _ALIGNMENT)
            dtype = str(feature.dtype).removeprefix("torch.")
            parts[part] = (dtype, list(feature.shape), len(block), zlib.crc32(block))
            blocks.append(block)
        text = json.dumps({"space": self.folder.name, "image": image, "parts": parts}).encode()
        text += b" " * (-(len(text) + 10) % _ALIGNMENT)  # 10: the checksum, the space and the line's end
        return b"%08x %b\n" % (zlib.crc32(text), text) + b"".join(blocks)
