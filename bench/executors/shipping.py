"""LocalFiles that a trial needs and this machine lacks: fetched once, checked, and kept for all of its processes.

Layout under the folder of :func:`shipped_root`::

    data/<fingerprint>/     a dataset's files as they lie on the driver's machine
    weights/<sha256>/NAME   a weights file
    detectors/<key>.zsad    a fit's detector
    hashes.json             the memory of file hashes

What lies here at the path that the driver knows it by, with the same content, is used as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.data.catalogue import open_as_recorded
from bench.encoders.feature_store import default_root
from bench.errors import BenchError
from bench.store.detectors import is_detector_of
from bench.study.task import Fit, Job, Task
from bench.tools.hashes import HashBook, canonical_json, hash_file
from bench.trial.loading import planned_parts

CHUNK = 32 * 2**20  # bytes of files that travel at once


class FileSource(Protocol):
    """The files of the driver's machine."""

    def names(self, root: str) -> list[tuple[str, int]]:
        """Every file under a folder, or the one file that ``root`` is: path relative to ``root``, bytes."""
        ...

    def read(self, root: str, names: list[str]) -> list[bytes]:
        """The content of some of them."""
        ...


class LocalFiles:
    """The files of this machine, as a :class:`FileSource` for others."""

    def names(self, root: str) -> list[tuple[str, int]]:
        if os.path.isfile(root):
            return [("", os.path.getsize(root))]
        paths = [Path(folder) / name for folder, _, names in os.walk(root, followlinks=True) for name in names]
        return [(path.relative_to(root).as_posix(), path.stat().st_size) for path in sorted(paths)]

    def read(self, root: str, names: list[str]) -> list[bytes]:
        return [(Path(root) / name).read_bytes() for name in names]


def shipped_root() -> Path:
    """``shipped`` in the folder of cached features, or in the user's cache where that is off."""
    return (default_root() or Path.home() / ".cache" / "zsad-bench") / "shipped"


class FileCache:
    """Makes tasks fit this machine: their paths lead to files that are here.

    Args:
        source: where files come from that are not.
    """

    def __init__(self, source: FileSource) -> None:
        self.source = source
        self.root = shipped_root().absolute()
        self.hashes = self.root / "hashes.json"
        self._dataset = functools.lru_cache(maxsize=16)(self._find_dataset)
        self._weights = functools.lru_cache(maxsize=16)(self._find_weights)
        self._detector = functools.lru_cache(maxsize=16)(self._find_detector)

    def localised(self, job: Job) -> Job:
        """The trial or fit, with the paths of its data and weights on this machine.

        Raises:
            BenchError: the driver's files are no longer those that were planned with.
            OSError: they cannot be read or kept.
        """
        return Fit(self._localised(job.task)) if isinstance(job, Fit) else self._localised(job)

    def _localised(self, task: Task) -> Task:
        source = task.identity["protocol"]["source"]
        weights = {
            name: dataclasses.replace(known, file=self._weights(str(known.file), known.sha256))
            for name, known in task.weights.items()
            if known.file is not None
        }
        return dataclasses.replace(
            task,
            root=self._dataset(canonical_json(task.identity["dataset"]), task.root),
            source_roots=tuple(
                self._dataset(canonical_json(part), root)
                for part, root in zip(planned_parts(source) if source else [], task.source_roots, strict=True)
            ),
            weights={**task.weights, **weights},
            files={sha256: str(self._weights(path, sha256)) for sha256, path in task.files.items()},
            detector=task.detector and str(self._detector(task.detector, task.fit_key)),
            hashes=str(self.hashes),
        )

    def _find_dataset(self, identity: str, root: str) -> str:
        wanted = json.loads(identity)
        name, config, fingerprint = wanted["name"], wanted["config"], wanted["fingerprint"]

        def planned(folder: Path) -> bool:
            try:
                open_as_recorded(name, config, folder, fingerprint, HashBook(self.hashes))
            except (BenchError, OSError):  # not here, or not all of it
                return False
            return True

        return str(self._find(root, self.root / "data" / fingerprint, planned))

    def _find_weights(self, file: str, sha256: str) -> Path:
        def planned(path: Path) -> bool:
            return path.is_file() and hash_file(path) == sha256

        return self._find(file, self.root / "weights" / sha256 / Path(file).name, planned)

    def _find_detector(self, file: str, key: str) -> Path:
        def planned(path: Path) -> bool:
            return path.is_file() and is_detector_of(path.read_bytes(), key)

        return self._find(file, self.root / "detectors" / f"{key}.zsad", planned)

    def _find(self, path: str, kept: Path, planned: Callable[[Path], bool]) -> Path:
        """``path`` if what lies there is as planned; else the copy that is ``kept``, fetched if need be."""
        from filelock import FileLock

        if planned(Path(path)):
            return Path(path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{kept}.lock"):  # the machine's other processes wait, and find it
            if not planned(kept):
                self._fetch(path, kept)
                if not planned(kept):
                    raise BenchError(f"the files of {path} changed while the study ran; run it again")
        return kept

    def _fetch(self, path: str, kept: Path) -> None:
        part = kept.with_name(f"{kept.name}.part")  # renamed when it is whole
        for leftover in (part, kept):
            _remove(leftover)
        listing = self.source.names(path)
        ends = itertools.accumulate(size for _, size in listing)
        for _, group in itertools.groupby(zip(listing, ends, strict=True), lambda pair: pair[1] // CHUNK):
            names = [name for (name, _), _ in group]
            for name, content in zip(names, self.source.read(path, names), strict=True):
                target = part / name if name else part
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        if listing:
            part.replace(kept)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
