"""Weights by role: found, hashed into keys, given to methods, and refused where they have met the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import save_file

import bench
from bench.cli.main import main
from bench.encoders import identify
from bench.errors import BenchError
from bench.store.store import Store
from bench.testing import check_method

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file({"factor": torch.tensor(2.0)}, path)
    return path


@pytest.fixture
def run(toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def call(*words: str, method: str = "toy-checked[checkpoint=mine]", store: str = "store") -> Result:
        data = ["--dataset", "folder", "--data-root", str(toy_root), "--categories", "bolt", "--workers", "0"]
        where = ["--store", str(tmp_path / store)]
        return CliRunner().invoke(main, ["run", "--methods", method, *data, *where, *words])

    return call


def records(tmp_path: Path, store: str = "store") -> list[Any]:
    return list(Store(tmp_path / store).records())


@pytest.mark.parametrize("way", ["", "checkpoint=", "mine=", "toy-checked.checkpoint="])
def test_a_checkpoint_reaches_the_method_whatever_it_is_called_by(
    run: Any, weights: Path, tmp_path: Path, way: str
) -> None:
    result = run("--weights", f"{way}{weights}")
    assert result.exit_code == 0, result.output
    (record,) = records(tmp_path)
    assert record.encoders["checkpoint"].name == "mine"
    written = record.document["provenance"]["weights"]["checkpoint"]
    assert written == {"name": "mine", "sha256": record.encoders["checkpoint"].sha256, "trained_on": []}
    assert f"--weights toy-checked.checkpoint={weights}" in record.document["provenance"]["command"]


def test_its_content_and_not_its_place_is_in_the_key(run: Any, weights: Path, tmp_path: Path) -> None:
    assert run("--weights", str(weights)).exit_code == 0
    other = tmp_path / "elsewhere.safetensors"
    other.write_bytes(weights.read_bytes())
    assert "nothing to do" in run("--weights", str(other)).output
    save_file({"factor": torch.tensor(3.0)}, other)
    assert run("--weights", str(other)).exit_code == 0
    assert len(records(tmp_path)) == 2


def test_a_method_may_have_several_of_one_kind(run: Any, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"factor": torch.tensor(-1.0)}, other)
    both = "toy-checked[checkpoint=a,second=b]"
    ambiguous = run("--weights", str(weights), method=both)
    assert ambiguous.exit_code == 2
    assert "say for which" in ambiguous.output
    result = run("--weights", f"checkpoint={weights}", "--weights", f"second={other}", method=both)
    assert result.exit_code == 0, result.output
    (record,) = records(tmp_path)
    scores = Store(tmp_path / "store").scores(record.key)["image"]
    assert (scores < 0).all()


@pytest.mark.parametrize(
    ("method", "words", "said"),
    [
        ("toy-checked[checkpoint=mine]", [], "no checkpoint 'mine' is known"),
        ("toy-checked[checkpoint=our]", [], "(did you mean 'ours'?)"),
        ("toy-checked", [], "toy/toy/weights.safetensors on the Hugging Face hub is not in the local cache"),
        ("toy-checked[checkpoint=a/b:c.safetensors]", [], "a/b/c.safetensors on the Hugging Face hub"),
        ("toy-checked[checkpoint=mine]", ["--weights", "nowhere.pt"], "there is no file nowhere.pt"),
        ("toy-checked[checkpoint=mine]", ["--weights", "checkpoin=x.pt"], "unknown weights 'checkpoin'"),
    ],
)
def test_weights_that_are_not_there(run: Any, method: str, words: list[str], said: str) -> None:
    result = run(*words, method=method)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_a_pickle_is_never_run(run: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pt"
    torch.save({"factor": Path("x")}, bad)
    result = run("--weights", str(bad))
    assert result.exit_code == 1
    assert "loading the rest would run what is in it" in " ".join(result.output.split())


def test_what_has_met_the_target_is_refused_or_marked_in_every_table(
    run: Any, weights: Path, tmp_path: Path
) -> None:
    given = ["--weights", f"ours={weights}"]
    refused = run(*given, method="toy-checked")
    assert refused.exit_code == 2
    assert "leakage: toy-checked: ours was trained on folder, the dataset tested on" in refused.output
    assert "--allow-leak" in refused.output
    assert not records(tmp_path)
    allowed = run(*given, "--allow-leak", method="toy-checked")
    assert allowed.exit_code == 0, allowed.output
    (record,) = records(tmp_path)
    assert record.leak == "ours was trained on folder, the dataset tested on"
    runner = CliRunner()
    for kind in ("terminal", "markdown", "latex", "csv"):
        table = runner.invoke(main, ["table", "--store", str(tmp_path / "store"), "--format", kind])
        assert table.exit_code == 0, table.output
        assert "(leak)" in table.output
        if kind != "csv":
            assert "trained on folder" in " ".join(table.output.split())
    page = runner.invoke(
        main, ["report", "--store", str(tmp_path / "store"), "--output", str(tmp_path / "p.html")]
    )
    assert page.exit_code == 0, page.output
    assert "(leak)" in (tmp_path / "p.html").read_text()
    frame = bench.results(store=tmp_path / "store")
    assert list(frame["leak"].unique()) == [record.leak]


def test_built_in_weights_say_what_they_have_learned_from() -> None:
    assert identify("pocket/clip").trained_on == ("renderings that are not among pocket's images",)
    assert identify("random/ViT-B-32").trained_on == ()


def test_a_detector_with_a_checkpoint(weights: Path, toy_root: Path, tmp_path: Path) -> None:
    detector = bench.fit("toy-checked", weights={"checkpoint": weights})
    found = detector.predict(toy_root / "bolt/test")
    detector.save(tmp_path / "d.zsad")
    again = bench.load(tmp_path / "d.zsad", weights={"checkpoint": weights})
    np.testing.assert_array_equal(again.predict(toy_root / "bolt/test").image, found.image)
    words = ["predict", str(tmp_path / "d.zsad"), "--weights", str(weights), "--dataset", "folder"]
    result = CliRunner().invoke(main, [*words, "--data-root", str(toy_root), "--category", "bolt"])
    assert result.exit_code == 2
    assert "leakage: ours was trained on folder" in result.output


def test_the_conformance_suite_takes_checkpoints(weights: Path) -> None:
    check_method("toy-checked", checkpoints={"checkpoint": weights})
    with pytest.raises(BenchError, match="no checkpoint 'other' is known; give its file"):
        check_method("toy-checked[checkpoint=other]")


def test_a_published_file_under_another_name_has_learned_from_the_same_data(
    run: Any, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.contracts import Checkpoint
    from bench.tools.hashes import hash_file
    from bench.tools.registry import METHODS

    declared = {"ours": Checkpoint(hub="a/b:c", sha256=hash_file(weights), trained_on=("folder",))}
    monkeypatch.setattr(METHODS.load("toy-checked"), "checkpoints", declared)
    result = run("--weights", str(weights))
    assert result.exit_code == 2
    assert "leakage: toy-checked[checkpoint=mine]: mine was trained on folder" in result.output


def test_a_file_for_a_detector_must_be_for_something(weights: Path, tmp_path: Path) -> None:
    bench.fit("toy-brightness").save(tmp_path / "none.zsad")
    with pytest.raises(BenchError, match=r"say for which of \S+, --weights ROLE=\S+ \(it loads none\)"):
        bench.load(tmp_path / "none.zsad", weights=weights)
