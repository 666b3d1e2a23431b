"""Data and weights that a machine lacks: fetched once, whole, and checked."""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.contracts import Weights
from bench.data.catalogue import open_catalogue
from bench.errors import BenchError
from bench.executors import shipping
from bench.executors.shipping import FileCache, LocalFiles
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.study.task import Task
from bench.tools.hashes import hash_file
from bench.tools.spec import parse_spec
from bench.trial.trial import run_trial

pytestmark = pytest.mark.usefixtures("plugin")


class Far(LocalFiles):
    """The files below ``home``, under a path that does not exist here; counts what is asked for."""

    def __init__(self, home: Path) -> None:
        self.home, self.reads = home, 0

    def names(self, root: str) -> list[tuple[str, int]]:
        return super().names(self._here(root))

    def read(self, root: str, names: list[str]) -> list[bytes]:
        self.reads += 1
        return super().read(self._here(root), names)

    def _here(self, path: str) -> str:
        assert path.startswith("/far/away/")
        return path.replace("/far/away", str(self.home))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def task(toy_root: Path, tmp_path: Path) -> Task:
    """A trial of which nothing but its plan is here."""
    study = Study("s", (parse_spec("toy-brightness"),), (parse_spec("folder"),), roots={"folder": toy_root})
    (task, *_) = prepare(study, Store(tmp_path / "store")).tasks
    return dataclasses.replace(task, root="/far/away/toy", hashes="/far/away/hashes.json")


def test_a_dataset_is_fetched_once_and_the_trial_runs_on_it(task: Task, toy_root: Path, cache: Path) -> None:
    far = Far(toy_root.parent)
    here = FileCache(far).localised(task)
    assert Path(here.root) == cache / "shipped" / "data" / task.identity["dataset"]["fingerprint"]
    assert run_trial(here).record["status"] == "ok"
    reads = far.reads
    assert FileCache(far).localised(task) == here
    assert far.reads == reads


def test_what_is_here_is_used_where_it_lies(task: Task, toy_root: Path, cache: Path) -> None:
    far = Far(toy_root.parent)
    assert FileCache(far).localised(dataclasses.replace(task, root=str(toy_root))).root == str(toy_root)
    assert far.reads == 0


def test_another_dataset_at_that_path_is_not_taken_for_it(task: Task, toy_root: Path, tmp_path: Path) -> None:
    other = shutil.copytree(toy_root, tmp_path / "other")
    (other / "bolt/test/good/000.png").unlink()

    class Here(LocalFiles):
        def names(self, root: str) -> list[tuple[str, int]]:
            return super().names(str(toy_root))

        def read(self, root: str, names: list[str]) -> list[bytes]:
            return super().read(str(toy_root), names)

    found = FileCache(Here()).localised(dataclasses.replace(task, root=str(other))).root
    assert _fingerprint(found) == task.identity["dataset"]["fingerprint"] != _fingerprint(str(other))


def test_a_fetch_that_broke_off_is_made_anew(task: Task, toy_root: Path, cache: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(shipping, "CHUNK", 2000)
    far = Far(toy_root.parent)

    class Breaking(Far):
        def read(self, root: str, names: list[str]) -> list[bytes]:
            if self.reads == 3:
                raise OSError("the driver is gone")
            return super().read(root, names)

    with pytest.raises(OSError, match="the driver is gone"):
        FileCache(Breaking(toy_root.parent)).localised(task)
    (part,) = (cache / "shipped/data").glob("*.part")
    next(part.rglob("*.png")).with_name("999.png").write_bytes(b"of another time")
    assert run_trial(FileCache(far).localised(task)).record["status"] == "ok"
    assert far.reads > 10  # chunk by chunk


def test_processes_of_one_machine_fetch_once(task: Task, toy_root: Path) -> None:
    far = Far(toy_root.parent)
    with ThreadPoolExecutor(4) as pool:
        roots = set(pool.map(lambda _: FileCache(far).localised(task).root, range(4)))
    assert len(roots) == 1
    assert far.reads == 1


def test_data_that_have_changed_at_the_driver_are_refused(task: Task, toy_root: Path) -> None:
    (toy_root / "cloth/test/good/000.png").unlink()
    with pytest.raises(BenchError, match="changed while the study ran"):
        FileCache(Far(toy_root.parent)).localised(task)


def test_weights_are_known_by_their_content(task: Task, tmp_path: Path, toy_root: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"right")
    (tmp_path / "same_name.safetensors").write_bytes(b"wrong")
    digest = hash_file(tmp_path / "w.safetensors")
    far = Far(tmp_path)
    weights = {
        "far": Weights("far", digest, Path("/far/away/w.safetensors")),
        "none": Weights("none", "0" * 64),
    }
    here = FileCache(far).localised(dataclasses.replace(task, root=str(toy_root), weights=weights))
    assert here.weights["none"] == weights["none"]
    assert here.weights["far"].file.name == "w.safetensors"
    assert here.weights["far"].file.read_bytes() == b"right"
    wrong = {"far": Weights("far", digest, tmp_path / "same_name.safetensors")}
    kept = FileCache(far).localised(dataclasses.replace(task, root=str(toy_root), weights=weights)).weights
    assert far.reads == 1
    assert kept == here.weights
    with pytest.raises(AssertionError):  # asks the driver, since the file here is another one
        FileCache(far).localised(dataclasses.replace(task, root=str(toy_root), weights=wrong))


def _fingerprint(root: str) -> str:
    return open_catalogue(parse_spec("folder"), Path(root)).fingerprint


def test_the_file_of_an_option_is_fetched_and_checked(task: Task, tmp_path: Path, cache: Path) -> None:
    (home := tmp_path / "home" / "options").mkdir(parents=True)
    (home / "table.json").write_text("[1, 2]")
    sha256 = hash_file(home / "table.json")
    task = dataclasses.replace(task, root=str(tmp_path), files={sha256: "/far/away/options/table.json"})
    fetched = FileCache(Far(tmp_path / "home"))
    fetched._dataset = lambda identity, root: root  # type: ignore[assignment]  # this is about the file alone
    kept = Path(fetched.localised(task).files[sha256])
    assert cache in kept.parents and kept.read_text() == "[1, 2]"

    shutil.rmtree(cache)
    (home / "table.json").write_text("[1, 3]")
    changed = FileCache(Far(tmp_path / "home"))
    changed._dataset = fetched._dataset
    with pytest.raises(BenchError, match="changed while the study ran"):
        changed.localised(task)
