"""Fits that serve several targets: trained once, kept while needed, found again, dropped or kept afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from toy_data import write_toy_data

from bench.cli.main import main
from bench.executors import engine
from bench.store.detectors import load_detector
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which toy-keeper counts its trainings, a line each."""
    path = tmp_path / "trainings.txt"
    path.touch()
    monkeypatch.setenv("ZSAD_TRAININGS", str(path))
    return path


@pytest.fixture
def words(toy_root: Path, tmp_path: Path) -> list[str]:
    """``bench run`` that learns on one toy dataset and tests on the three categories of another."""
    source = tmp_path / "source"
    write_toy_data(source, first_seed=1000)
    data = ["--dataset", "folder", "--data-root", str(toy_root)]
    learned = ["--train-dataset", "folder", "--train-root", str(source)]
    return ["run", "--methods", "toy-keeper", *data, *learned, "--protocol", "transfer", "--shots", "1"]


@pytest.fixture
def bench(words: list[str], tmp_path: Path) -> Any:
    def call(*more: str, workers: int = 0, store: str = "store") -> Result:
        place = ["--store", str(tmp_path / store), "--workers", str(workers)]
        return CliRunner().invoke(main, [*words, *place, *more])

    return call


def count(trainings: Path) -> int:
    return len(trainings.read_text().splitlines())


def scores(store: Store) -> dict[str, Any]:
    return {document["key"]: store.scores(document["key"])["image"] for document in store.documents()}


def kept(store: Store) -> list[str]:
    return [path.parents[1].name for path in store.detectors()]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_fit_serves_all_targets(bench: Any, trainings: Path, tmp_path: Path, workers: int) -> None:
    result = bench("--seeds", "2", workers=workers)
    assert result.exit_code == 0, result.output
    assert count(trainings) == 2  # one for each seed
    together = Store(tmp_path / "store")
    assert not together.detectors()  # no trial needs them any more
    assert not list((tmp_path / "store/locks").glob("*"))
    documents = list(together.documents())
    assert len(documents) == 6
    for document in documents:
        assert document["status"] == "ok"
        assert document["notes"] == ["kept well"]
        assert document["provenance"]["fit"]["seconds"] >= 0

    # Each target alone trains within its trial: the records are the same but for their provenance.
    for category in ("bolt", "cloth", "plate"):
        assert bench("--seeds", "2", "--categories", category, store="alone").exit_code == 0
    assert count(trainings) == 2 + 6
    alone = Store(tmp_path / "alone")
    mine, theirs = scores(together), scores(alone)
    assert mine.keys() == theirs.keys()
    for key, found in mine.items():
        np.testing.assert_array_equal(found, theirs[key])
        one, other = together.document(key), alone.document(key)
        assert one is not None and other is not None
        assert one | {"provenance": 0} == other | {"provenance": 0}
        assert "fit" not in other["provenance"]


def test_leave_one_out_trains_within_its_trials(
    toy_root: Path, tmp_path: Path, trainings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "write_detector", None)
    words = ["run", "--methods", "toy-keeper", "--dataset", "folder", "--data-root", str(toy_root), "--shots", "1"]
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "store"), "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert count(trainings) == 3


def test_two_processes_train_once(words: list[str], trainings: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-m", "bench", *words, "--store", str(tmp_path / "store"), "--workers", "0"]
    command[command.index("toy-keeper")] = "toy-keeper[pause=3]"
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert count(trainings) == 1
    store = Store(tmp_path / "store")
    assert len(list(store.documents())) == 3
    assert not store.detectors()


def test_a_fit_is_found_again_after_an_interruption(
    bench: Any, trainings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = engine._Queue.ended

    def interrupt(queue: Any, job: Any, outcome: Any) -> None:
        ended(queue, job, outcome)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine._Queue, "ended", interrupt)
        assert bench().exit_code == 130
    store = Store(tmp_path / "store")
    assert kept(store) == ["fits"]
    assert not list(store.documents())
    result = bench()
    assert result.exit_code == 0, result.output
    assert count(trainings) == 1
    assert len(list(store.documents())) == 3
    assert not store.detectors()


def test_a_damaged_detector_is_put_aside_and_trained_anew(
    bench: Any, trainings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(engine._Queue, "_release_trials", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert bench().exit_code == 130
    (path,) = Store(tmp_path / "store").detectors()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert bench().exit_code == 0
    assert count(trainings) == 2
    assert list(path.parent.glob("*.corrupt"))


def test_detectors_are_kept_on_request_and_used_again(bench: Any, trainings: Path, tmp_path: Path) -> None:
    assert bench("--categories", "bolt", "--keep-detectors").exit_code == 0
    store = Store(tmp_path / "store")
    assert kept(store) == ["detectors"]
    assert bench("--categories", "cloth").exit_code == 0
    assert count(trainings) == 1
    (path,) = store.detectors()
    description, state = load_detector(path.read_bytes(), path.name)
    assert description["key"] == path.stem
    assert description["method"]["name"] == "toy-keeper"
    assert description["trained_on"]["categories"] == ["bolt", "cloth", "plate"]
    assert len(description["trained_on"]["images"]) == 3 * (4 + 1)
    assert state.values == {"steps": 3}


def test_bench_cache_shows_and_clears_detectors(
    bench: Any, trainings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", "off")
    store = Store(tmp_path / "store")
    assert bench("--keep-detectors").exit_code == 0
    key = "0" * 64
    store.write_detector(key, store.detectors()[0].read_bytes())

    def cache(*words: str) -> str:
        return CliRunner().invoke(main, ["cache", "--store", str(store.root), *words]).output

    assert "kept: toy-keeper, learned on folder, seed 0" in cache()
    assert f"left: toy-keeper, learned on folder, seed 0  {store.detector_path(key)}" in cache()
    store.need_detector(key)
    assert f"in use: {store.detector_path(key)}" in cache("--clear-detectors", "left")
    store.release_all()
    assert f"removed 0.0 MiB: {store.detector_path(key)}" in cache("--clear-detectors", "left")
    assert kept(store) == ["detectors"]
    cache("--clear-detectors", "all")
    assert not store.detectors()


@pytest.mark.parametrize(
    ("how", "status", "reason", "code"),
    [("raise", "failed", "RuntimeError: boom in training", 1), ("lack", "skipped", "nothing to keep here", 0)],
)
def test_what_a_fit_ends_in_is_said_of_its_trials(
    bench: Any, trainings: Path, tmp_path: Path, how: str, status: str, reason: str, code: int
) -> None:
    result = bench("--methods", f"toy-keeper[how={how}]")
    assert result.exit_code == code, result.output
    assert count(trainings) == 1
    documents = list(Store(tmp_path / "store").documents())
    assert [(d["status"], d["reason"]) for d in documents] == [(status, reason)] * 3
    if status == "failed":
        assert "boom in training" in documents[0]["provenance"]["traceback"]


def test_keeping_a_detector_leaves_it_where_others_read_it(bench: Any, trainings: Path, tmp_path: Path) -> None:
    assert bench("--keep-detectors").exit_code == 0
    store, other = Store(tmp_path / "store"), Store(tmp_path / "store")
    (path,) = store.detectors()
    key = "1" * 64
    store.write_detector(key, path.read_bytes())
    waiting = store.detector_path(key)  # the path that trials of another process hold
    other.need_detector(key)
    store.keep_detector(key)
    store.drop_detector(key)
    assert waiting.exists() and store.detector_path(key) != waiting
    other.drop_detector(key)
    assert not waiting.exists() and store.detector_path(key).exists()


def test_a_complete_study_keeps_no_detector_and_says_so(bench: Any, trainings: Path, tmp_path: Path) -> None:
    assert bench().exit_code == 0
    assert "no detector is kept: the trials were done before" in bench("--keep-detectors").output
    assert not Store(tmp_path / "store").detectors()


def test_what_a_fit_depends_on_is_in_its_key(words: list[str], toy_root: Path, tmp_path: Path) -> None:
    from bench.study.build import build_study
    from bench.study.plan import prepare

    common = {"methods": ["toy-keeper"], "dataset": "folder", "data_root": toy_root, "protocol": "transfer"}
    common |= {"train_dataset": "folder", "train_root": tmp_path / "source", "shots": 1}

    def fit_keys(**more: Any) -> set[str]:
        study, _ = build_study(**(common | more))
        return {task.fit_key for task in prepare(study, Store(tmp_path / "plans")).tasks}

    usual = fit_keys()
    assert len(usual) == 1  # three targets, one fit
    assert fit_keys(categories=["bolt"]) == usual
    changes = [{"seeds": [1]}, {"shots": 2}, {"methods": ["toy-keeper[steps=4]"]}, {"precision": "high"}]
    changes += [{"train_dataset": "folder[categories=bolt+cloth]"}]
    for change in changes:
        assert not fit_keys(**change) & usual, change
