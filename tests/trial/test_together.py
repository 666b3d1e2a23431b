"""Trials fitted as one: the same records, whatever goes wrong on the way."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.contracts import ImageSet
from bench.store.store import Store
from bench.trial.trial import Trial

pytestmark = pytest.mark.usefixtures("plugin")


def run(root: Path, store: Path, method: str, *words: str) -> Result:
    common = ["--dataset", "folder", "--data-root", str(root), "--store", str(store), "--workers", "0"]
    return CliRunner().invoke(
        main, ["run", *common, "--methods", method, "--shots", "1,2", "--seeds", "3", *words]
    )


def plain(store: Path) -> dict[str, dict[str, Any]]:
    """The records by key, without where they came from."""
    return {record["key"]: {**record, "provenance": None} for record in Store(store).documents()}


def fitted_with(store: Path) -> list[int]:
    return sorted(record["provenance"]["fitted_with"] for record in Store(store).documents())


@pytest.fixture
def alone(toy_root: Path, tmp_path: Path) -> dict[str, dict[str, Any]]:
    assert run(toy_root, tmp_path / "alone", "toy-joint").exit_code == 0
    assert fitted_with(tmp_path / "alone") == [1] * 18
    return plain(tmp_path / "alone")


@pytest.mark.parametrize(("together", "expected"), [(6, [6] * 18), (4, [2] * 6 + [4] * 12), (100, [6] * 18)])
def test_records_are_the_same_however_many_are_fitted_as_one(
    toy_root: Path, tmp_path: Path, alone: dict[str, dict[str, Any]], together: int, expected: list[int]
) -> None:
    result = run(toy_root, tmp_path / "store", "toy-joint", "--together", str(together))
    assert result.exit_code == 0, result.output
    assert fitted_with(tmp_path / "store") == expected  # trials of three targets never mix
    assert plain(tmp_path / "store") == alone


def test_where_trials_compute_on_a_gpu_they_are_fitted_as_one_unasked(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.executors.local.LocalExecutor.on_gpu", lambda self, device: device == "auto")
    assert run(toy_root, tmp_path / "gpu", "toy-joint").exit_code == 0
    assert fitted_with(tmp_path / "gpu") == [6] * 18
    assert run(toy_root, tmp_path / "cpu", "toy-joint", "--device", "cpu").exit_code == 0
    assert fitted_with(tmp_path / "cpu") == [1] * 18
    assert run(toy_root, tmp_path / "said", "toy-joint", "--together", "1").exit_code == 0
    assert fitted_with(tmp_path / "said") == [1] * 18


@pytest.mark.parametrize("together", ["1", "6"])
def test_a_trained_method_goes_when_its_trial_has_ended(
    together: str, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when Python looks for cycles: what it holds of a GPU's memory would be missing until then."""
    alive: list[weakref.ref[Any]] = []
    construct = Trial.construct

    def watched(steps: Trial) -> Any:
        method = construct(steps)
        alive.append(weakref.ref(method))
        return method

    monkeypatch.setattr(Trial, "construct", watched)
    gc.collect()
    monkeypatch.setattr(gc, "collect", lambda: 0)
    gc.disable()
    try:
        assert run(toy_root, tmp_path / "store", "toy-joint", "--together", together).exit_code == 0
        assert len(alive) == 18
        assert [reference() for reference in alive] == [None] * 18
    finally:
        gc.enable()


def test_what_cannot_be_fitted_as_one_is_fitted_alone_and_says_so(toy_root: Path, tmp_path: Path) -> None:
    assert run(toy_root, tmp_path / "store", "toy-joint[how=raise]", "--together", "6").exit_code == 0
    assert fitted_with(tmp_path / "store") == [1] * 18
    for record in Store(tmp_path / "store").documents():
        assert record["provenance"]["seconds"]["fit"] >= 0.1 / 6  # what was tried in vain took its time, too
    for record in plain(tmp_path / "store").values():
        assert "boom together" in record["notes"][-1]


def test_a_faulty_trial_takes_no_other_with_it(toy_root: Path, tmp_path: Path) -> None:
    result = run(toy_root, tmp_path / "store", "toy-joint[how=seed 1]", "--together", "6")
    assert result.exit_code == 1
    statuses = {(r["trial"]["seed"], r["status"]) for r in plain(tmp_path / "store").values()}
    assert statuses == {(0, "ok"), (1, "failed"), (2, "ok")}


def test_short_of_memory_fewer_are_fitted_as_one(
    toy_root: Path, tmp_path: Path, alone: dict[str, dict[str, Any]]
) -> None:
    assert run(toy_root, tmp_path / "store", "toy-joint[how=memory]", "--together", "6").exit_code == 0
    assert fitted_with(tmp_path / "store") == [1] * 6 + [2] * 12  # six became three and three, those one and two
    found = [record["metrics"] for record in plain(tmp_path / "store").values()]
    assert sorted(map(str, found)) == sorted(str(record["metrics"]) for record in alone.values())


def test_methods_that_cannot_fit_together_are_left_alone(toy_root: Path, tmp_path: Path) -> None:
    assert run(toy_root, tmp_path / "store", "toy-learner", "--together", "6").exit_code == 0
    assert fitted_with(tmp_path / "store") == [1] * 18


def test_a_worker_carries_out_a_batch(toy_root: Path, tmp_path: Path, alone: dict[str, dict[str, Any]]) -> None:
    result = run(toy_root, tmp_path / "store", "toy-joint", "--together", "6", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert plain(tmp_path / "store") == alone


def test_promptad_gives_the_same_together(toy_root: Path, tmp_path: Path) -> None:
    import numpy as np

    method = "promptad[encoder=pocket/clip,iters=4,ffn=16,D=8,nhead=2,n_query=2,episodes_per_step=2]"
    for name, together in (("one", "1"), ("six", "6")):
        result = run(toy_root, tmp_path / name, method, "--together", together, "--categories", "bolt")
        assert result.exit_code == 0, result.output
    assert fitted_with(tmp_path / "six") == [6] * 6
    one, six = Store(tmp_path / "one"), Store(tmp_path / "six")
    for record in one.documents():
        for name, alone in one.scores(record["key"]).items():
            np.testing.assert_allclose(six.scores(record["key"])[name], alone, rtol=1e-4, atol=1e-4, err_msg=name)


def test_a_union_has_each_image_once() -> None:
    def images(keys: str, tag: int) -> ImageSet:
        return ImageSet(list(keys), [f"c{key}" for key in keys], {}, lambda key: (tag, key))  # type: ignore[arg-type,return-value]

    union = ImageSet.union([images("ab", 1), images("bca", 2)])
    assert union.keys == ("a", "b", "c")
    assert union.categories == ("ca", "cb", "cc")
    assert list(union) == [(1, "a"), (1, "b"), (2, "c")]
    assert ImageSet.union([images("aba", 1)]).keys == ("a", "b")
