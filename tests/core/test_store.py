from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import BenchError
from bench.hashing import HashBook, canonical_json, hash_file
from bench.store import FORMAT, Store

KEY = "ab" + "0" * 62


def record(status: str = "ok", key: str = KEY) -> dict[str, Any]:
    return {"format": FORMAT, "key": key, "status": status, "reason": None}


def test_record_and_scores_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2).transpose(0, 2, 1)  # not contiguous
    assert not store.done(KEY)
    store.write(record(), {"image": np.array([1.0, 2.0], np.float32), "maps": maps}, ["a", "b"])
    assert store.done(KEY)
    assert store.record(KEY) == record()
    assert np.array_equal(store.scores(KEY)["maps"], maps)
    assert store.score_ids(KEY) == ("a", "b")
    assert [found["key"] for found in store.records()] == [KEY]


def test_failed_trials_and_lost_scores_are_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record("failed"), None)
    assert not store.done(KEY)
    store.write(record("skipped"), None)
    assert store.done(KEY)
    store.write(record("ok"), {"image": np.zeros(1, np.float32)})
    store.scores_path(KEY).unlink()
    assert not store.done(KEY)
    with pytest.raises(BenchError, match="run the study again"):
        store.scores(KEY)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "other"}'])
def test_a_broken_record_is_put_aside(tmp_path: Path, content: str) -> None:
    store = Store(tmp_path)
    store.write(record(), {"image": np.zeros(1, np.float32)})
    store.record_path(KEY).write_text(content)
    assert not store.done(KEY)
    assert store.record_path(KEY).with_suffix(".corrupt").exists()


def test_records_hold_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Store(tmp_path).write({**record(), "metrics": float("nan")}, None)
    assert not list(tmp_path.rglob("*.json"))


def test_an_unwritable_store_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchError, match="cannot write to the store"):
        Store(tmp_path / "file" / "store").write(record(), None)


HOLD = """
import pathlib, sys, time
from bench.store import Store
store = Store(pathlib.Path(sys.argv[1]))
print(store.claim(sys.argv[2]), flush=True)
time.sleep(60)
"""


def test_a_claim_excludes_other_processes_and_dies_with_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", HOLD, str(tmp_path), KEY]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "True\n"
    store = Store(tmp_path)
    assert not store.claim(KEY)
    other.kill()
    other.communicate()
    assert store.claim(KEY)
    assert not store.claim(KEY)
    store.release(KEY)
    assert store.claim(KEY)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == '{"a":[1.5,"é"],"b":1}'


def test_hash_book_notices_a_changed_file(tmp_path: Path) -> None:
    file, book_file = tmp_path / "x", tmp_path / "book.json"
    file.write_bytes(b"one")
    HashBook(book_file).fill([file, tmp_path / "missing"])
    assert json.loads(book_file.read_text())[str(file)][2] == hash_file(file)
    before = HashBook(book_file)[file]
    os.utime(file, ns=(1, 1))
    file.write_bytes(b"two")
    assert HashBook(book_file)[file] != before
    book_file.write_text("{broken")
    assert HashBook(book_file)[file] == hash_file(file)
