"""Hashes: of files (remembered by size and time of change), and of JSON in one canonical form."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.tools.files import write_atomically


def canonical_json(value: Any) -> str:
    """The one JSON text of ``value``: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def hash_json(value: Any) -> str:
    """SHA-256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class HashBook:
    """File hashes, remembered between runs so that gigabytes of images are read once.

    A remembered hash holds as long as the file's size and modification time are the same.

    Args:
        path: where to keep it; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, tuple[int, int, str]] = {}
        self._changed = False
        if path is not None and path.exists():
            try:
                self._known = {
                    k: (int(v[0]), int(v[1]), str(v[2])) for k, v in json.loads(path.read_text()).items()
                }
            except (OSError, ValueError, AttributeError, LookupError, TypeError, OverflowError, RecursionError):
                self._known = {}  # only a memory: a broken one is made again

    def __getitem__(self, path: Path) -> str:
        status = os.stat(path)
        known = self._known.get(str(path))
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        digest = hash_file(path)
        self._known[str(path)] = (status.st_size, status.st_mtime_ns, digest)
        self._changed = True
        return digest

    def fill(self, paths: Iterable[Path]) -> None:
        """Hash many files in parallel and save the book. Files that cannot be read are left out."""

        def one(path: Path) -> None:
            with contextlib.suppress(OSError):  # the data check names it
                self[path]

        with ThreadPoolExecutor(max_workers=8) as pool:
            list(pool.map(one, paths))
        if self._path is not None and self._changed:
            with contextlib.suppress(OSError):  # a memory only; the store says so when it cannot be written
                write_atomically(self._path, json.dumps(self._known).encode())
            self._changed = False
