"""The store: one JSON record and one file of scores per trial, safe to kill and to share.

Layout under the store's root::

    records/ab/<key>.json           what was run, what came out, how long it took
    scores/ab/<key>.safetensors     image scores and anomaly maps at the method's own grid
    features/ab/<key>.safetensors   features of the same images, where a figure asked for them
    manifests/<hash>.json           the splits that records refer to
    studies/<name>.json             the trials of each study, for ``bench table``
    locks/                          claims of running processes; they die with their process

Files are written under a temporary name and renamed, scores before records, so that a record that can be
read is whole. Claims are file locks, which the system releases even after ``kill -9``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError
from bench.files import write_atomically

if TYPE_CHECKING:
    from filelock import BaseFileLock
    from numpy.typing import NDArray

DEFAULT_ROOT = Path("results/runs")
FORMAT = 1
_RUN_AGAIN = "run the study again"
FINAL = ("ok", "skipped")  # a failed trial is tried again


class Store:
    """The records and scores under one folder.

    Args:
        root: the folder; made when something is first written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._claims: dict[str, BaseFileLock] = {}

    # ------------------------------------------------------------ records

    def record_path(self, key: str) -> Path:
        return self.root / f"records/{key[:2]}/{key}.json"

    def scores_path(self, key: str) -> Path:
        return self.root / f"scores/{key[:2]}/{key}.safetensors"

    def record(self, key: str) -> dict[str, Any] | None:
        """The record of a trial, or None. A record that cannot be read is put aside as ``*.corrupt``."""
        path = self.record_path(key)
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            record = None
        if not isinstance(record, dict) or record.get("key") != key or record.get("format") != FORMAT:
            path.replace(path.with_suffix(".corrupt"))
            return None
        return record

    def done(self, key: str) -> bool:
        """Whether a trial needs no more running: its record is final and its scores are there."""
        record = self.record(key)
        if record is None or record["status"] not in FINAL:
            return False
        return record["status"] == "skipped" or self.scores_path(key).exists()

    def records(self) -> Iterator[dict[str, Any]]:
        """All records, in the order of their keys."""
        for path in sorted(self.root.glob("records/*/*.json")):
            record = self.record(path.stem)
            if record is not None:
                yield record

    def write(
        self,
        record: Mapping[str, Any],
        scores: Mapping[str, NDArray[Any]] | None,
        ids: Sequence[str] = (),
    ) -> None:
        """Write a trial's scores, then its record; ``ids`` names the images in the order of the scores.

        Raises:
            BenchError: the store cannot be written (disk full, no permission).
        """
        key = record["key"]
        try:
            if scores is not None:
                _save(self.scores_path(key), scores, ids)
            write_atomically(self.record_path(key), _readable_json(record))
        except OSError as error:
            raise self._unwritable(error) from None

    def scores(self, key: str) -> dict[str, NDArray[Any]]:
        """The scores of a trial: ``image`` (N,), ``maps`` (N,h,w) if there are any, and extra maps.

        Raises:
            BenchError: there are none, or the file is broken.
        """
        return _load(self.scores_path(key), f"scores of trial {key[:12]}", _RUN_AGAIN)

    def score_ids(self, key: str) -> tuple[str, ...]:
        """The images of :meth:`scores`, in its order.

        Raises:
            BenchError: there are none, or the file is broken.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.scores_path(key), "numpy") as stream:
                return tuple(json.loads(stream.metadata()["ids"]))
        except (OSError, SafetensorError) as error:
            raise _unreadable(f"scores of trial {key[:12]}", error, _RUN_AGAIN) from None

    # ------------------------------------------------------------ features

    def features_path(self, key: str) -> Path:
        return self.root / "features" / key[:2] / f"{key}.safetensors"

    def write_features(self, key: str, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str]) -> None:
        """Keep the features of a trial's images: ``features`` (N,F), and ``image`` (N,), the scores with them.

        Raises:
            BenchError: the store cannot be written.
        """
        try:
            _save(self.features_path(key), arrays, ids)
        except OSError as error:
            raise self._unwritable(error) from None

    def features(self, key: str) -> dict[str, NDArray[Any]] | None:
        """What :meth:`write_features` has kept of a trial; None if there is nothing.

        Raises:
            BenchError: the file is broken.
        """
        path = self.features_path(key)
        return _load(path, f"features of trial {key[:12]}", f"delete {path}") if path.exists() else None

    # ------------------------------------------------------------ manifests and studies

    def write_once(self, folder: str, name: str, content: Any) -> None:
        """Keep ``content`` as ``folder/name.json`` unless it is there already."""
        if not self.has(folder, name):
            try:
                write_atomically(self.root / folder / f"{name}.json", _readable_json(content))
            except OSError as error:
                raise self._unwritable(error) from None

    def has(self, folder: str, name: str) -> bool:
        """Whether :meth:`write_once` has kept something under that name."""
        return (self.root / folder / f"{name}.json").exists()

    def manifest(self, hash_: str) -> dict[str, Any] | None:
        """A split that records refer to, by its hash; None if it is not there."""
        return self._json(self.root / "manifests" / f"{hash_}.json")

    def write_study(self, name: str, content: Mapping[str, Any]) -> None:
        """Remember a study's trials under its name, replacing an earlier one of that name."""
        try:
            write_atomically(self.root / "studies" / f"{name}.json", _readable_json(content))
        except OSError as error:
            raise self._unwritable(error) from None

    def study(self, name: str) -> dict[str, Any] | None:
        """A study that was run here, by name; None if there is none."""
        return self._json(self.root / "studies" / f"{name}.json")

    def study_records(self, name: str) -> list[dict[str, Any]]:
        """The records of a study's trials; of those that have not run, their descriptions as ``missing``."""
        content = self.study(name) or {}
        found = {key: self.record(key) for key in content.get("keys", [])}
        missing = [record for record in content.get("missing", []) if found.get(record["key"]) is None]
        return [record for record in found.values() if record is not None] + missing

    def study_names(self) -> list[str]:
        """The studies run here, the latest first."""
        paths = sorted(self.root.glob("studies/*.json"), key=lambda p: (-p.stat().st_mtime_ns, p.name))
        return [path.stem for path in paths]

    def _json(self, path: Path) -> dict[str, Any] | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    # ------------------------------------------------------------ claims

    def claim(self, key: str) -> bool:
        """Take a trial for this process; False if this or another process has it."""
        from filelock import FileLock, Timeout

        if key in self._claims:
            return False
        lock = FileLock(self.root / "locks" / f"{key}.lock")
        try:
            (self.root / "locks").mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            raise self._unwritable(error) from None
        self._claims[key] = lock
        return True

    def release(self, key: str) -> None:
        """Give a claimed trial back."""
        lock = self._claims.pop(key, None)
        if lock is not None:
            lock.release()

    def release_all(self) -> None:
        """Give back whatever is still claimed."""
        for key in list(self._claims):
            self.release(key)

    def _unwritable(self, error: OSError) -> BenchError:
        return BenchError(
            f"cannot write to the store {self.root}: {error.strerror or error}; "
            "make room or choose another folder with --store"
        )


def _save(path: Path, arrays: Mapping[str, NDArray[Any]], ids: Sequence[str]) -> None:
    import numpy as np
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    write_atomically(path, save(contiguous, {"ids": json.dumps(list(ids))}))


def _load(path: Path, what: str, remedy: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise _unreadable(what, error, remedy) from None


def _unreadable(what: str, error: Exception, remedy: str) -> BenchError:
    return BenchError(f"{what} cannot be read: {error}; {remedy}")


def _readable_json(content: Any) -> bytes:
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()
