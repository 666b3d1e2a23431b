"""The store: one JSON record and one file of scores per trial, safe to kill and to share.

Layout under the store's root::

    records/ab/<key>.json           what was run, what came out, how long it took
    scores/ab/<key>.safetensors     image scores and anomaly maps at the method's own grid
    features/ab/<key>.safetensors   features of the same images, where a figure asked for them
    manifests/<hash>.json           the splits that records refer to
    studies/<name>.json             the trials of each study, written when it is planned
    locks/                          claims of running processes; they die with their process
    .../<name>.<digest>.corrupt     a file that was found broken, as it was found

Files are written under a temporary name and renamed, scores before records, so that a record that can be
read is whole. Records and studies carry a checksum of their content, records also that of their scores: what was
damaged later is put aside, told of, and run again. Claims are file locks, which the system releases even after
``kill -9``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.errors import BenchError
from bench.store.files import (
    Arrays,
    dump_arrays,
    dump_with_checksum,
    load_arrays,
    load_with_checksum,
    readable_json,
)
from bench.store.planned import unpack
from bench.store.record import Record
from bench.tools.files import remove_leftovers, write_atomically
from bench.tools.hashes import hash_json

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from numpy.typing import NDArray

DEFAULT_ROOT = Path("results/runs")
FORMAT = 1
_LOG = logging.getLogger(__name__)
T = TypeVar("T")
FINAL = ("ok", "skipped")  # a failed trial is tried again


class Store:
    """The records and scores under one folder.

    Args:
        root: the folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._claims: dict[str, BaseFileLock] = {}
        self._needed: dict[str, BaseFileLock] = {}  # detectors, by the keys of their fits

    # ------------------------------------------------------------ records

    def record_path(self, key: str) -> Path:
        return self.root / f"records/{key[:2]}/{key}.json"

    def scores_path(self, key: str) -> Path:
        return self.root / f"scores/{key[:2]}/{key}.safetensors"

    def document(self, key: str) -> dict[str, Any] | None:
        """The JSON document of a trial's record, or None.

        A record that is not as it was written is put aside as ``*.corrupt``.
        """
        return self._sound(key, self.record_path(key), lambda data: _load_document(data, key))

    def record(self, key: str) -> Record | None:
        """The record of a trial, or None.

        Raises:
            BenchError: the document under the key is not a trial's record.
        """
        document = self.document(key)
        return None if document is None else Record.of(document)

    def done(self, key: str) -> bool:
        """True if a trial needs no more running: its record is final and its scores are there."""
        document = self.document(key)
        if document is None or document["status"] not in FINAL:
            return False
        return document["status"] == "skipped" or self._has_scores(document)

    def documents(self) -> Iterator[dict[str, Any]]:
        """The JSON documents of all records, in the order of their keys."""
        for path in sorted(self.root.glob("records/*/*.json")):
            document = self.document(path.stem)
            if document is not None:
                yield document

    def records(self) -> Iterator[Record]:
        """All records, in the order of their keys.

        Raises:
            BenchError: as :meth:`record`.
        """
        return map(Record.of, self.documents())

    def write(
        self,
        document: Mapping[str, Any],
        scores: Mapping[str, NDArray[Any]] | None,
        ids: Sequence[str] = (),
    ) -> None:
        """Write a trial's scores, then its record.

        Args:
            document: the record as JSON.
            scores: None keeps what the store has.
            ids: the images in the order of the scores.

        Raises:
            BenchError: the store cannot be written (disk full, no permission).
        """
        key = document["key"]
        try:
            if scores is not None:
                data = dump_arrays(scores, ids)
                write_atomically(self.scores_path(key), data)
                kept = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                document = {**document, "scores": kept}
            write_atomically(self.record_path(key), dump_with_checksum(document))
        except OSError as error:
            raise self._unwritable(error) from None

    def has_scores(self, key: str) -> bool:
        """True if a trial's scores are there in full length; only reading them shows whether they are sound."""
        document = self.document(key)
        return document is not None and self._has_scores(document)

    def _has_scores(self, document: Mapping[str, Any]) -> bool:
        key, kept = document["key"], _recorded_scores(document)
        path = self.scores_path(key)
        if kept is None or not path.exists():
            return False
        if kept.get("bytes") in (None, path.stat().st_size):
            return True
        return self._read_scores(key, kept) is not None  # which puts it aside

    def scores(self, key: str) -> Arrays:
        """The scores of a trial: ``image`` (N,), ``maps`` (N,h,w) if there are any, and extra maps.

        Raises:
            BenchError: there are none, or they are not as they were written; then they are put aside.
        """
        return self._scored(key)[0]

    def score_ids(self, key: str) -> tuple[str, ...]:
        """The images of :meth:`scores`, in its order.

        Raises:
            BenchError: as :meth:`scores`.
        """
        return self._scored(key)[1]

    def _scored(self, key: str) -> tuple[Arrays, tuple[str, ...]]:
        found = self._read_scores(key, _recorded_scores(self.document(key) or {}))
        if found is None:
            raise BenchError(
                f"scores of trial {key[:12]} cannot be read: they are missing or damaged; run the study again"
            )
        return found

    def _read_scores(self, key: str, kept: Mapping[str, Any] | None) -> tuple[Arrays, tuple[str, ...]] | None:
        if kept is None:
            return None
        return self._sound(key, self.scores_path(key), lambda data: _load_scores(data, kept.get("sha256")))

    # ------------------------------------------------------------ features

    def features_path(self, key: str) -> Path:
        return self.root / "features" / key[:2] / f"{key}.safetensors"

    def write_features(self, key: str, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str]) -> None:
        """Keep the features of a trial's images: ``features`` (N,F), and ``image`` (N,), the scores with them.

        Raises:
            BenchError: the store cannot be written.
        """
        try:
            write_atomically(self.features_path(key), dump_arrays(arrays, ids))
        except OSError as error:
            raise self._unwritable(error) from None

    def features(self, key: str) -> Arrays | None:
        """The arrays that :meth:`write_features` has kept of a trial; None if there are none that can be read."""
        found = self._sound(f"features-{key}", self.features_path(key), load_arrays)
        return None if found is None else found[0]

    # ------------------------------------------------------------ detectors

    def detector_path(self, key: str) -> Path:
        """File of a fit's detector: one that is kept, or one that stays while trials need it."""
        kept = self._kept_path(key)
        return kept if kept.exists() else self._fit_path(key)

    def _fit_path(self, key: str) -> Path:
        return self.root / f"fits/{key[:2]}/{key}.zsad"

    def _kept_path(self, key: str) -> Path:
        return self.root / f"detectors/{key[:2]}/{key}.zsad"

    def has_detector(self, key: str) -> bool:
        """True if a fit's detector is there and sound; a damaged one is put aside."""

        def read(data: bytes) -> bool | None:
            from bench.store.detectors import is_detector_of

            return is_detector_of(data, key) or None

        return self._sound(f"detector-{key}", self.detector_path(key), read) is not None

    def write_detector(self, key: str, data: bytes) -> None:
        """Keep a fit's detector.

        Raises:
            BenchError: the store cannot be written.
        """
        try:
            write_atomically(self.detector_path(key), data)
        except OSError as error:
            raise self._unwritable(error) from None

    def keep_detector(self, key: str) -> None:
        """Keep a fit's detector for good, if there is one.

        Raises:
            BenchError: the store cannot be written.
        """
        path, kept = self._fit_path(key), self._kept_path(key)
        if path.exists() and not kept.exists():
            try:
                # A copy: trials of other processes may be about to read the file where it is.
                write_atomically(kept, path.read_bytes())
            except OSError as error:
                raise self._unwritable(error) from None

    def drop_detector(self, key: str) -> None:
        """Remove a fit's detector, unless it is kept, or another process needs it (:meth:`need_detector`)."""
        own = self._needed.pop(key, None)
        if own is not None:
            _unlock(own)
        self.remove_detector(self._fit_path(key))

    def remove_detector(self, path: Path) -> bool:
        """Remove the file of a detector; False if a process needs it, or it cannot be removed."""
        if self._is_needed(path.stem):
            return False
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
        try:
            path.replace(aside)
            # A process that has said meanwhile that it needs the detector may have seen it.
            if self._is_needed(path.stem):
                aside.replace(path)
                return False
            aside.unlink()
        except OSError:
            return False
        return True

    def _is_needed(self, key: str) -> bool:
        """True if another process needs a fit's detector; locks of processes that are gone are cleared away."""
        stale = [_is_stale(lock) for lock in (self.root / "locks").glob(f"{key}.needed-*.lock")]
        return not all(stale)

    def need_detector(self, key: str) -> None:
        """Say that this process needs a fit's detector: no other one drops it until this one has dropped it."""
        from filelock import FileLock

        if key in self._needed:
            return
        lock = FileLock(self.root / "locks" / f"{key}.needed-{uuid.uuid4().hex[:12]}.lock")
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except OSError as error:
            raise self._unwritable(error) from None
        self._needed[key] = lock

    def detectors(self) -> list[Path]:
        """The files of all detectors: those that are kept, then those that a run needed, or needs."""
        return [*sorted(self.root.glob("detectors/*/*.zsad")), *sorted(self.root.glob("fits/*/*.zsad"))]

    def claimed_elsewhere(self, key: str) -> bool:
        """True if another process has claimed a trial or fit."""
        path = self.root / "locks" / f"{key}.lock"
        return key not in self._claims and path.exists() and not _is_stale(path)

    def claimed(self) -> set[str]:
        """The keys of the trials and fits that some process has claimed now."""
        keys = {path.stem for path in (self.root / "locks").glob("*.lock")}
        return {key for key in keys if key in self._claims or self.claimed_elsewhere(key)}

    # ------------------------------------------------------------ manifests and studies

    def write_once(self, folder: str, name: str, content: Any) -> None:
        """Keep ``content`` as ``folder/name.json`` unless it is there already."""
        if not self.has(folder, name):
            try:
                write_atomically(self.root / folder / f"{name}.json", readable_json(content))
            except OSError as error:
                raise self._unwritable(error) from None

    def has(self, folder: str, name: str) -> bool:
        """True if :meth:`write_once` has kept something under that name."""
        return (self.root / folder / f"{name}.json").exists()

    def manifest(self, hash_: str) -> dict[str, Any] | None:
        """A split that records refer to, by its hash; None if it is not there."""
        path = self.root / "manifests" / f"{hash_}.json"
        return self._sound(hash_, path, lambda data: _load_manifest(data, hash_))

    def write_study(self, name: str, content: Mapping[str, Any]) -> None:
        """Remember a study's trials under its name, replacing an earlier one of that name."""
        path = self._study_path(name)
        try:
            write_atomically(path, dump_with_checksum(content))
            others = [other.stat().st_mtime_ns for other in self.root.glob("studies/*.json") if other != path]
            if path.stat().st_mtime_ns <= (latest := max(others, default=0)):  # the clock was put back
                os.utime(path, ns=(latest + 1, latest + 1))
        except OSError as error:
            raise self._unwritable(error) from None

    def study(self, name: str) -> dict[str, Any] | None:
        """A study that was run here, by name; None if there is none.

        Raises:
            BenchError: the file under its name is not a study.
        """
        content = self._sound(f"study-{name}", self._study_path(name), load_with_checksum)
        if content is not None and not _is_study(content):
            raise BenchError(f"what the store keeps of study {name} cannot be read; run the study again")
        return content

    def _study_path(self, name: str) -> Path:
        return self.root / "studies" / f"{name}.json"

    def study_records(self, name: str) -> list[Record]:
        """The records of a study's trials; those that have not run have the status ``missing``.

        Raises:
            BenchError: as :meth:`record` and :meth:`study`.
        """
        content = self.study(name) or {}
        keys = content.get("keys", [])
        found = {key: document for key in keys if (document := self.document(key)) is not None}
        documents = list(found.values())
        # What is missing is told by the records, not by what was so when the study was written down.
        if len(found) < len(keys) and "planned" in content:
            for key, trial in unpack(content["planned"], keys):
                if key not in found:
                    documents.append({"format": FORMAT, "key": key, "status": "missing", "trial": trial})
        # Studies of earlier versions have whole documents of what was missing.
        documents += [planned for planned in content.get("missing", []) if planned["key"] not in found]
        return [Record.of(document) for document in documents]

    def study_names(self) -> list[str]:
        """The studies run here, the latest first."""
        paths = sorted(self.root.glob("studies/*.json"), key=lambda p: (-p.stat().st_mtime_ns, p.name))
        return [path.stem for path in paths]

    # ------------------------------------------------------------ broken files

    def _sound(self, claim: str, path: Path, read: Callable[[bytes], T | None]) -> T | None:
        """The content of a file as ``read`` gives it; None if there is none, or it is damaged and put aside."""
        try:
            content = read(path.read_bytes())
        except FileNotFoundError:
            return None
        if content is None:
            self._put_aside(claim, path, read)
        return content

    def _put_aside(self, claim: str, path: Path, read: Callable[[bytes], Any]) -> None:
        """Rename a broken file, unless another process is at it, and say so."""
        ours = claim in self._claims
        try:
            if not ours and not self.claim(claim):
                return
            try:
                data = path.read_bytes()
                if read(data) is None:  # it was not replaced before we had the claim
                    # named by its content, so that none takes another's place
                    aside = path.with_name(f"{path.stem}.{hashlib.sha256(data).hexdigest()[:8]}.corrupt")
                    path.replace(aside)
                    _LOG.warning("%s was damaged; it is put aside as %s and does not count", path, aside.name)
            finally:
                if not ours:
                    self.release(claim)
        except FileNotFoundError:
            return
        except (OSError, BenchError) as error:
            _LOG.warning("%s is damaged and does not count; it cannot be put aside: %s", path, error)

    # ------------------------------------------------------------ claims

    def claim(self, key: str) -> bool:
        """Take a trial or a fit for this process; False if this or another process has it."""
        from filelock import FileLock, Timeout

        if key in self._claims:
            return False
        lock = FileLock(self.root / "locks" / f"{key}.lock")
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
            for path in (self.record_path(key), self.scores_path(key), self.detector_path(key)):
                remove_leftovers(path)  # no other process writes these files now
        except Timeout:
            return False
        except OSError as error:
            lock.release()
            raise self._unwritable(error) from None
        self._claims[key] = lock
        return True

    def release(self, key: str) -> None:
        """Give a claimed trial back."""
        lock = self._claims.pop(key, None)
        if lock is not None:
            _unlock(lock)

    def release_all(self) -> None:
        """Give back whatever is still claimed or needed."""
        for key in list(self._claims):
            self.release(key)
        while self._needed:
            _unlock(self._needed.popitem()[1])

    def _unwritable(self, error: OSError) -> BenchError:
        if error.errno == errno.EMFILE:
            return BenchError(
                "too many open files: a trial that runs, or waits for its worker, holds one; raise the limit "
                "(ulimit -Hn), or take fewer --workers or --together"
            )
        return BenchError(
            f"cannot write to the store {self.root}: {error.strerror or error}; "
            "make room or choose another folder with --store"
        )


def _unlock(lock: BaseFileLock) -> None:
    # While it is held: a process that waits for a file that is gone does not get it, and opens a new one.
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


def _is_stale(path: Path) -> bool:
    """True if no process holds a lock any more; its file is removed then."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError):
        return False
    _unlock(lock)
    return True


def _load_document(data: bytes, key: str) -> dict[str, Any] | None:
    document = load_with_checksum(data, required="scores")
    if document is None or (document.get("key"), document.get("format")) != (key, FORMAT):
        return None
    return document if isinstance(document.get("status"), str) else None


def _recorded_scores(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Length and checksum of a trial's scores; None if it has none, empty in records of earlier versions."""
    kept: Mapping[str, Any] | None = document.get("scores", {})
    return kept


def _load_manifest(data: bytes, hash_: str) -> dict[str, Any] | None:
    content = load_with_checksum(data)
    return None if content is None or hash_json(content) != hash_ else content


def _is_study(content: Mapping[str, Any]) -> bool:
    """True if the keys of all trials, run or missing, can be names of files here."""
    keys, missing, methods = (content.get(name, []) for name in ("keys", "missing", "methods"))
    lists = all(isinstance(each, list) for each in (keys, missing, methods))
    if not lists or not isinstance(content.get("layout", ""), str):
        return False
    found = [*keys, *(each.get("key") if isinstance(each, dict) else None for each in missing)]
    return all(isinstance(key, str) and key.isalnum() for key in found) and all(
        isinstance(m, str) for m in methods
    )


def _load_scores(data: bytes, sha256: str | None) -> tuple[Arrays, tuple[str, ...]] | None:
    return load_arrays(data) if sha256 in (None, hashlib.sha256(data).hexdigest()) else None
