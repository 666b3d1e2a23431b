"""Hashes: of files (remembered by size, times of change and inode), and of JSON in one canonical form."""

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


_State = tuple[int, int, int, int]  # size, modification time, time of change, inode


class HashBook:
    """File hashes, remembered between runs so that gigabytes of images are read once.

    A remembered hash holds as long as the file's size, its modification time, the time of change that the system
    keeps (which nobody can set), and its inode are the same: a file put in another's place with the same size and
    modification time is read anew.

    Args:
        path: where to keep it; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, tuple[_State, str]] = {}
        self._changed = False
        if path is not None and path.exists():
            try:
                # Entries of three parts are of an earlier version: these files are read once more.
                self._known = {
                    name: ((int(v[0]), int(v[1]), int(v[2]), int(v[3])), str(v[4]))
                    for name, v in json.loads(path.read_text()).items()
                    if len(v) == 5
                }
            except (OSError, ValueError, AttributeError, LookupError, TypeError, OverflowError, RecursionError):
                self._known = {}  # only a memory: a broken one is made again

    def __getitem__(self, path: Path) -> str:
        state = _state(path)
        known = self._known.get(str(path))
        if known is not None and known[0] == state:
            return known[1]
        digest = hash_file(path)
        self._known[str(path)] = state, digest
        self._changed = True
        return digest

    def fill(self, paths: Iterable[Path]) -> dict[Path, str]:
        """The hashes of many files, read in parallel where they are new; the book is saved.

        Files that cannot be read are left out.
        """
        found: dict[Path, str] = {}
        new = []
        # Known ones are looked up here: a thread's turn costs more than asking for a file's state.
        for path in paths:
            with contextlib.suppress(OSError):  # the data check names it
                known = self._known.get(str(path))
                if known is not None and known[0] == _state(path):
                    found[path] = known[1]
                else:
                    new.append(path)

        def one(path: Path) -> None:
            with contextlib.suppress(OSError):
                found[path] = self[path]

        if new:
            with ThreadPoolExecutor(max_workers=8) as pool:
                list(pool.map(one, new))
        if self._path is not None and self._changed:
            with contextlib.suppress(OSError):  # a memory only; the store says so when it cannot be written
                content = json.dumps({name: [*state, digest] for name, (state, digest) in self._known.items()})
                write_atomically(self._path, content.encode())
            self._changed = False
        return found


def _state(path: Path) -> _State:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino
