"""Features on disk, shared by every process and run on this machine: write-once shards, read by memory map.

Layout under the root::

    <space>/space.json              what the features of this folder were made with
    <space>/<bucket>-<random>.safetensors   a shard: part -> (n, *shape), and which images its rows are
    <space>/<bucket>.lock           held by the process that encodes images of this bucket

A *space* is everything but the image that decides a feature: weights, preprocessing, number format, and the
versions of what computed it. A *bucket* is a sixteenth of all images, by their content hash. A process that lacks
features takes one bucket after another under its lock, so that several processes share the work and no image is
encoded twice. Shards are written under a temporary name and renamed, never changed, and checked by a checksum when
a process first reads them; a broken one is removed and its images are encoded again.
"""

from __future__ import annotations

import json
import os
import uuid
import warnings
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.tools.files import write_atomically
from bench.tools.hashes import hash_json

if TYPE_CHECKING:
    import torch
    from filelock import BaseFileLock

VERSION = 1  # raise it when the code that computes features changes them
GIB = 2**30
DEFAULT_LIMIT = 50 * GIB
SHARD = 64 * 2**20  # bytes after which a shard is closed
PATIENCE = 600.0  # seconds to wait for a process that encodes the same images, before doing so oneself

Rows = Iterator[tuple[str, Mapping[str, "torch.Tensor"]]]
"""Image, and its features by part."""


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
    """What decides a feature beside its image; two descriptions that differ share nothing."""
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
    """The shards under one folder.

    Args:
        root: the folder; made when something is first written.
        limit: bytes that may be kept; beyond, whole shards go, the least recently used first.
    """

    root: Path
    limit: int = DEFAULT_LIMIT
    _spaces: dict[str, Space] = field(default_factory=dict)

    def space(self, weights: str, preprocessing: str, dtype: str) -> Space:
        """The features made with these."""
        description = describe_space(weights, preprocessing, dtype)
        name = hash_json(description)[:32]
        if name not in self._spaces:
            self._spaces[name] = Space(self.root / name, description, self.evict)
        return self._spaces[name]

    def shards(self) -> list[tuple[Path, int, float]]:
        """Every shard: file, bytes, when it was last used (seconds since 1970); least recently used first."""
        found = []
        for path in self.root.glob("*/*.safetensors"):
            try:
                status = path.stat()
            except OSError:  # another process has just removed it
                continue
            found.append((path, status.st_size, status.st_mtime))
        return sorted(found, key=lambda shard: (shard[2], str(shard[0])))

    def evict(self, limit: int | None = None) -> int:
        """Remove shards until at most ``limit`` bytes are kept (by default, the store's own); returns bytes freed.

        A process that still reads a removed shard keeps what it has mapped.
        """
        limit = self.limit if limit is None else limit
        shards = self.shards()
        excess, freed = sum(size for _, size, _ in shards) - limit, 0
        for path, size, _ in shards:
            if freed >= excess:
                break
            try:
                path.unlink()
                freed += size
            except OSError:  # in use, on systems that forbid it
                continue
        return freed


class Space:
    """The shards of one space, as this process knows them."""

    def __init__(self, folder: Path, description: Mapping[str, Any], evict: Callable[[], object]) -> None:
        self.folder = folder
        self._description = description
        self._evict = evict
        self._tensors: dict[Path, Mapping[str, torch.Tensor]] = {}
        self._places: dict[tuple[str, str], tuple[Path, int]] = {}  # (part, image) -> shard, row
        self._known: set[Path] = set()

    def share(self, images: Collection[str], parts: Collection[str], compute: Callable[[list[str]], Rows]) -> Rows:
        """Features of all ``images``, in any order: those on disk, and the rest computed here and kept.

        What cannot be kept (disk full, no permission) is computed all the same, with one warning.

        Args:
            images: content hashes, each once.
            parts: which features.
            compute: encodes some of the images.
        """
        missing: list[str] = []
        yield from self._held(images, parts, missing)
        buckets: dict[str, list[str]] = {}
        for image in missing:
            buckets.setdefault(image[:1], []).append(image)
        # Each process begins elsewhere; buckets that another one is at come last.
        order = deque(sorted(buckets))
        order.rotate(os.getpid() % 16)
        for patience in (0, PATIENCE):
            for bucket in [b for b in order if b in buckets]:
                try:
                    lock = self._lock(bucket, patience)
                except OSError as error:
                    self._warn(error)
                    yield from compute(buckets.pop(bucket))
                    continue
                if lock is None and not patience:
                    continue
                try:
                    left: list[str] = []
                    yield from self._held(buckets.pop(bucket), parts, left)
                    yield from self._keep(bucket, compute(left))
                finally:
                    if lock is not None:
                        lock.release()

    def _held(self, images: Iterable[str], parts: Collection[str], missing: list[str]) -> Rows:
        """Yields what is on disk; images of which something is not go to ``missing``."""
        self._look()
        for image in images:
            found = {part: row for part in parts if (row := self._row(part, image)) is not None}
            if len(found) == len(parts):
                yield image, found
            else:
                missing.append(image)

    def _row(self, part: str, image: str) -> torch.Tensor | None:
        place = self._places.get((part, image))
        if place is None:
            return None
        tensors = self._open(place[0])
        return None if tensors is None else tensors[part][place[1]]

    def _look(self) -> None:
        """Learn of shards that were written since."""
        from safetensors import SafetensorError, safe_open

        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._known:
                continue
            self._known.add(path)
            try:
                with safe_open(path, "pt") as shard:
                    parts, images = list(shard.keys()), json.loads(shard.metadata()["images"])
            except (SafetensorError, OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                continue
            for part in parts:
                for row, image in enumerate(images):
                    self._places.setdefault((part, image), (path, row))

    def _open(self, path: Path) -> Mapping[str, torch.Tensor] | None:
        """The tensors of a shard, mapped and checked; None if it is gone or broken."""
        from safetensors import SafetensorError, safe_open

        if path not in self._tensors:
            try:
                with safe_open(path, "pt") as shard:
                    tensors = {part: shard.get_tensor(part) for part in shard.keys()}  # noqa: SIM118
                    sums = json.loads(shard.metadata()["checksums"])
                if any(_checksum(tensor) != sums[part] for part, tensor in tensors.items()):
                    raise ValueError("the checksum is wrong")
                os.utime(path)  # used
            except (SafetensorError, OSError, ValueError, KeyError, TypeError):
                path.unlink(missing_ok=True)
                self._places = {key: place for key, place in self._places.items() if place[0] != path}
                return None
            self._tensors[path] = tensors
        return self._tensors[path]

    def _lock(self, bucket: str, patience: float) -> BaseFileLock | None:
        """The lock, or None if another process has held it for ``patience`` seconds."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{bucket}.lock")
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            return None
        return lock

    def _keep(self, bucket: str, rows: Rows) -> Rows:
        """Passes rows on, and writes them in shards."""
        batch: list[tuple[str, Mapping[str, torch.Tensor]]] = []
        size = 0
        for image, row in rows:
            batch.append((image, row))
            size += sum(part.nbytes for part in row.values())
            if size >= SHARD:
                self._write(bucket, batch)
                batch, size = [], 0
            yield image, row
        if batch:
            self._write(bucket, batch)

    def _write(self, bucket: str, batch: list[tuple[str, Mapping[str, torch.Tensor]]]) -> None:
        import torch
        from safetensors.torch import save

        tensors = {part: torch.stack([row[part] for _, row in batch]) for part in batch[0][1]}
        metadata = {
            "images": json.dumps([image for image, _ in batch]),
            "checksums": json.dumps({part: _checksum(tensor) for part, tensor in tensors.items()}),
        }
        try:
            description = self.folder / "space.json"
            if not description.exists():
                write_atomically(description, json.dumps(self._description, indent=1, sort_keys=True).encode())
            path = self.folder / f"{bucket}-{uuid.uuid4().hex}.safetensors"
            write_atomically(path, save(tensors, metadata))
        except OSError as error:
            self._warn(error)
        else:
            self._evict()

    def _warn(self, error: OSError) -> None:
        warnings.warn(
            f"features cannot be kept in {self.folder.parent} ({error}); they are computed again each time. "
            "Set BENCH_CACHE to another folder, or to off",
            stacklevel=2,
        )


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.contiguous().view(-1).numpy().data)
