from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.errors import BenchError
from bench.store.files import dump_with_checksum, load_with_checksum
from bench.store.store import FORMAT, Store
from bench.tools.hashes import HashBook, canonical_json, hash_file, hash_json

KEY = "ab" + "0" * 62


def record(status: str = "ok", key: str = KEY) -> dict[str, Any]:
    return {"format": FORMAT, "key": key, "status": status, "reason": None}


def test_record_and_scores_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2).transpose(0, 2, 1)  # not contiguous
    assert not store.done(KEY)
    store.write(record(), {"image": np.array([1.0, 2.0], np.float32), "maps": maps}, ["a", "b"])
    assert store.done(KEY)
    found = store.document(KEY)
    assert found is not None
    assert found.pop("scores")["bytes"] == store.scores_path(KEY).stat().st_size
    assert found == record()
    assert np.array_equal(store.scores(KEY)["maps"], maps)
    assert store.score_ids(KEY) == ("a", "b")
    assert [found["key"] for found in store.documents()] == [KEY]


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


def put_aside(path: Path) -> list[bytes]:
    return sorted(aside.read_bytes() for aside in path.parent.glob(f"{path.stem}.*.corrupt"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "other"}'])
def test_a_broken_record_is_put_aside(tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(tmp_path)
    store.write(record(), {"image": np.zeros(1, np.float32)})
    store.record_path(KEY).write_text(content)
    assert not store.done(KEY)
    assert put_aside(store.record_path(KEY)) == [content.encode()]
    (told,) = caplog.messages
    assert "was damaged" in told and "\n" not in told


def flipped(data: bytes) -> Iterator[bytes]:
    """A file with each of its bits changed in turn."""
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        yield bytes(changed)


def test_no_bit_of_a_record_changes_unnoticed() -> None:
    content = {**record(), "scores": None, "metrics": {"auroc": 0.125, "reasons": ["é", None]}}
    data = dump_with_checksum(content)
    now = [load_with_checksum(changed, required="scores") for changed in flipped(data)]
    assert all(found in (None, content) for found in now)  # in a blank between two fields a bit means nothing
    assert now.count(None) > 7 * len(data)


def test_no_bit_of_scores_changes_unnoticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.scores_path(KEY)
    store.write(record(), {"image": np.array([0.5, 0.25], np.float32)}, ["a", "b"])
    data = path.read_bytes()
    broken = list(flipped(data))[::7]
    for place, changed in enumerate(broken):
        path.write_bytes(changed)
        with pytest.raises(BenchError, match="run the study again"):
            (store.scores if place % 2 else store.score_ids)(KEY)
        assert not store.done(KEY)
    assert put_aside(path) == sorted(broken)  # none took another's place
    path.write_bytes(data)
    assert store.done(KEY)


def test_truncated_scores_are_noticed_without_reading_them(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record(), {"image": np.zeros(9, np.float32)})
    data = store.scores_path(KEY).read_bytes()[:-1]
    store.scores_path(KEY).write_bytes(data)
    assert not store.done(KEY)
    assert put_aside(store.scores_path(KEY)) == [data]


def test_what_earlier_versions_wrote_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record(), {"image": np.array([3.0], np.float32)}, ["a"])
    store.record_path(KEY).write_text(json.dumps(record(), indent=1))  # without a checksum of either
    assert store.document(KEY) == record()
    assert store.done(KEY)
    assert store.scores(KEY)["image"].tolist() == [3.0]
    store.write({**record(), "metrics": {}}, None)  # measured again
    assert store.done(KEY)


def test_scores_of_an_attempt_that_does_not_count_are_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record("failed"), {"image": np.zeros(2, np.float32)})  # its scores were constant
    store.write({**record("failed"), "scores": None}, None)  # tried again, it raised
    with pytest.raises(BenchError, match="missing"):
        store.scores(KEY)


def test_what_another_process_is_at_is_left_to_it(tmp_path: Path) -> None:
    store, other = Store(tmp_path), Store(tmp_path)
    store.write(record(), None)
    store.record_path(KEY).write_text("{")
    assert other.claim(KEY)
    assert store.document(KEY) is None
    assert store.record_path(KEY).exists()
    other.release(KEY)
    assert store.document(KEY) is None
    assert not store.record_path(KEY).exists()


def test_a_damaged_study_or_split_is_put_aside(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_study("mine", {"keys": [KEY]})
    split = {"test": ["a"]}
    store.write_once("manifests", hash_json(split), split)
    assert store.study("mine") == {"keys": [KEY]}
    assert store.manifest(hash_json(split)) == split
    for folder in ("studies", "manifests"):
        (file,) = (tmp_path / folder).iterdir()
        file.write_text(file.read_text().replace('"a', '"c'))
    assert store.study("mine") is None
    assert store.manifest(hash_json(split)) is None
    assert store.study_names() == []
    assert not store.has("manifests", hash_json(split))


def test_the_latest_study_is_the_one_run_last_whatever_the_clock_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_study("zebra", {})
    os.utime(tmp_path / "studies/zebra.json", (4e9, 4e9))  # the clock was ahead, and was put back since
    store.write_study("ant", {})
    assert store.study_names() == ["ant", "zebra"]
    store.write_study("zebra", {})
    assert store.study_names() == ["zebra", "ant"]


def test_a_claim_leaves_nothing_and_clears_up_after_writers_that_were_killed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(record(), {"image": np.zeros(2, np.float32)})
    for path in (store.record_path(KEY), store.scores_path(KEY)):
        (path.parent / f".{path.name}.k1ll3d").write_text("half")
        (path.parent / f".{path.name.replace('ab', 'ac')}.other").write_text("of another trial")
    assert store.claim(KEY)
    store.release(KEY)
    assert not list((tmp_path / "locks").iterdir())
    assert [path.suffix for path in tmp_path.rglob(".*")] == [".other"] * 2
    assert store.done(KEY)


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
from bench.store.store import Store
store = Store(pathlib.Path(sys.argv[1]))
print(store.claim(sys.argv[2]), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("hard", "expected"), [(400, "claimed 300"), (100, "too many open files")])
def test_more_trials_in_flight_than_open_files_are_allowed(hard: int, expected: str, tmp_path: Path) -> None:
    code = f"""
import resource, sys
from pathlib import Path
from bench.errors import BenchError
from bench.tools.files import allow_many_open_files
from bench.store.store import Store
resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))
allow_many_open_files()
store = Store(Path(sys.argv[1]))
try:
    print("claimed", sum(store.claim(f"{{number:064x}}") for number in range(300)))
except BenchError as error:
    print(error)
store.release_all()
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(expected), done.stdout
    assert not list((tmp_path / "locks").iterdir())


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
    assert json.loads(book_file.read_text())[str(file)][-1] == hash_file(file)
    before = HashBook(book_file)[file]
    os.utime(file, ns=(1, 1))
    file.write_bytes(b"two")
    assert HashBook(book_file)[file] != before
    book_file.write_text("{broken")
    assert HashBook(book_file)[file] == hash_file(file)
    book_file.write_text(json.dumps({str(file): [3, file.stat().st_mtime_ns, "an entry of an earlier version"]}))
    assert HashBook(book_file)[file] == hash_file(file)


@pytest.mark.parametrize("how", ["written", "replaced"])
def test_hash_book_notices_other_bytes_of_the_same_size_and_time(tmp_path: Path, how: str) -> None:
    file, other, book_file = tmp_path / "x", tmp_path / "y", tmp_path / "book.json"
    file.write_bytes(b"one")
    os.utime(file, ns=(10**18, 10**18))
    HashBook(book_file).fill([file])
    if how == "written":  # in place, so that the inode is the same
        file.write_bytes(b"two")
    else:
        other.write_bytes(b"two")
        other.replace(file)
    os.utime(file, ns=(10**18, 10**18))
    assert HashBook(book_file)[file] == hash_file(file)
