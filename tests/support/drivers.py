"""``bench run`` as processes of their own on the toy data, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.store.files import load_arrays, load_with_checksum
from bench.store.store import FINAL
from bench.tools.hashes import hash_json

STUDY = ("--methods", "toy-journal[pause=0.03],toy-brightness", "--shots", "1", "--seeds", "8")
TRIALS = 3 * 8 + 3


@dataclass(frozen=True)
class Left:
    """What a store holds.

    Attributes:
        records: key -> the record without its provenance; of trials that are final.
        scores: key -> the bytes of its file.
        files: key -> the bytes of its record's file.
        torn: files under a final name that are not whole.
        twice: records beyond the first of one trial.
    """

    records: Mapping[str, dict[str, Any]]
    scores: Mapping[str, bytes]
    files: Mapping[str, bytes]
    torn: int
    twice: int


class Driver:
    """Starts ``bench`` on one store.

    Args:
        folder: holds the store and the journal of the trials that were carried out to their end.
        data: the toy data.
        path: where the toy plugins are installed.
    """

    def __init__(self, folder: Path, data: Path, path: Path) -> None:
        self.store, self.journal = folder / "store", folder / "journal"
        self.data, self.path = data, path
        self.said = folder / "stderr"
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, *words: str, fault: str = "") -> subprocess.Popen[str]:
        """A process in a session of its own; what it says goes to the end of the file ``said``."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.path),
            "PYTHONSAFEPATH": "1",
            "ZSAD_JOURNAL": str(self.journal),
            "ZSAD_FAULT": fault,
        }
        command = [sys.executable, "-m", "bench", *words, "--store", str(self.store)]
        with self.said.open("a") as said:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                errors="replace",
                start_new_session=True,
            )

    def start_run(self, *words: str, workers: int = 0, fault: str = "") -> subprocess.Popen[str]:
        data = ("--dataset", "folder", "--data-root", str(self.data), "--workers", str(workers))
        return self.start("run", *data, *words, fault=fault)

    def call(self, process: subprocess.Popen[str]) -> tuple[int, str, str]:
        """Wait for it: exit code, output, and what it said on standard error."""
        output, _ = process.communicate(timeout=600)
        said = self.said.read_text(errors="replace")
        self.said.unlink()
        return process.returncode, output, said

    def run(self, *words: str, workers: int = 0, fault: str = "") -> tuple[int, str, str]:
        return self.call(self.start_run(*words, workers=workers, fault=fault))

    def carried_out(self) -> Counter[str]:
        """Category, shots and seed -> how often it was carried out to its end."""
        return Counter(self.journal.read_text().splitlines()) if self.journal.exists() else Counter()

    def half_written(self) -> int:
        """LocalFiles that are being written."""
        return sum(1 for folder in ("records", "scores") for _ in (self.store / folder).glob("*/.*"))

    def left(self) -> Left:
        """What the store holds, read without the store's own leniency: whatever is not whole is torn."""
        records, scores, files = {}, {}, {}
        torn = 0
        for path in self.store.glob("records/*/*.json"):
            data = path.read_bytes()
            record = load_with_checksum(data, required="scores")
            if record is None or record["key"] != path.stem:
                torn += 1
            elif record["status"] in FINAL:
                files[path.stem] = data
                records[path.stem] = {name: value for name, value in record.items() if name != "provenance"}
        for path in self.store.glob("scores/*/*.safetensors"):
            data = path.read_bytes()
            torn += load_arrays(data) is None
            if path.stem in records:
                scores[path.stem] = data
        torn += sum(record["scores"] is not None and key not in scores for key, record in records.items())
        torn += sum(load_with_checksum(path.read_bytes()) is None for path in self.store.glob("studies/*.json"))
        for path in self.store.glob("manifests/*.json"):
            torn += hash_json(json.loads(path.read_bytes())) != path.stem
        trials = Counter(name_of(record) for record in records.values())
        return Left(records, scores, files, torn, sum(trials.values()) - len(trials))


def name_of(record: Mapping[str, Any]) -> str:
    """What tells a trial from any other, apart from its key."""
    trial = record["trial"]
    return f"{trial['method']['label']}: {place_of(record)}"


def place_of(record: Mapping[str, Any]) -> str:
    """As the journal has it."""
    trial = record["trial"]
    return f"{trial['category']}/{trial['shots']}/{trial['seed']}"


def children(pid: int, words: bytes = b"spawn_main") -> list[int]:
    """The processes that one has started with these words in their command line: a driver's workers."""
    with contextlib.suppress(OSError):  # it is gone
        files = Path(f"/proc/{pid}/task").glob("*/children")
        found = [int(child) for file in files for child in file.read_text().split()]
        return [child for child in found if words in _command_line(child)]
    return []


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
