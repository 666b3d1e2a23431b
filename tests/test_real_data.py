"""The real-data commands of the README, shortened, on real MVTec AD and AITEX images where they are at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.store.record import Record

QUICK = "promptad[iters=3,ffn=64],devnet[epochs=1,steps_per_epoch=2]"


def run(store: Path, *words: str) -> Result:
    own = ["--encoder", "pocket/clip", "--backbone", "pocket/resnet", "--workers", "0", "--store", str(store)]
    return CliRunner().invoke(main, ["run", "--methods", QUICK, *words, *own])


def records(store: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (store / "records").rglob("*.json")]


def test_mvtec(real_data: Path, tmp_path: Path) -> None:
    result = run(tmp_path, "--dataset", "mvtec", "--data-root", str(real_data / "mvtec"), "--shots", "1")
    assert result.exit_code == 0, result.output
    assert "bottle" in result.stdout
    assert "screw" in result.stdout
    found = records(tmp_path)
    assert len(found) == 4
    assert {record["status"] for record in found} == {"ok"}


def test_aitex_leaves_one_fabric_out(real_data: Path, tmp_path: Path) -> None:
    words = ["--dataset", "aitex", "--data-root", str(real_data / "aitex"), "--shots", "10"]
    result = run(tmp_path, *words, "--categories", "03,05")
    assert result.exit_code == 0, result.output
    by_category = {(r["trial"]["category"], r["trial"]["method"]["name"]): r for r in records(tmp_path)}
    assert by_category["03", "devnet"]["status"] == "ok"
    assert any("instead of 10" in note for note in by_category["03", "devnet"]["notes"])
    assert by_category["05", "devnet"]["status"] == "skipped"  # no defective strip of this fabric is at hand
    assert "05 has no anomalous test image" in result.output


def test_learning_on_mvtec_and_testing_on_aitex(real_data: Path, tmp_path: Path) -> None:
    result = run(
        tmp_path,
        "--dataset", "aitex[classes=one]", "--data-root", str(real_data / "aitex"),
        "--protocol", "transfer", "--train-dataset", "mvtec", "--train-root", str(real_data / "mvtec"),
        "--shots", "1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = records(tmp_path)
    assert {record["status"] for record in found} == {"ok"}
    assert found[0]["trial"]["protocol"]["source"]["name"] == "mvtec"


@pytest.mark.parametrize("dataset", ["mvtec", "aitex"])
def test_data_check_finds_no_fault(real_data: Path, dataset: str) -> None:
    result = CliRunner().invoke(main, ["data", "check", dataset, "--data-root", str(real_data / dataset)])
    assert result.exit_code == 0, result.output


def test_a_subset_is_called_one_wherever_its_numbers_stand(real_data: Path, tmp_path: Path) -> None:
    words = ["--dataset", "mvtec", "--data-root", str(real_data / "mvtec"), "--categories", "bottle"]
    store = ["--store", str(tmp_path / "store")]
    own = ["--methods", "clip", "--encoder", "pocket/clip", "--workers", "0"]
    assert CliRunner().invoke(main, ["run", *own, *words, *store]).exit_code == 0
    (record,) = records(tmp_path / "store")
    said = record["trial"]["dataset"]["subset"]
    assert said.startswith("2 of 15 categories, ") and " of 3,629 training images, " in said
    for form in ("terminal", "markdown", "latex"):
        table = " ".join(CliRunner().invoke(main, ["table", "--format", form, *store]).stdout.split())
        assert "MVTec AD (subset): image AUROC" in table
        assert f"MVTec AD, a subset: {said}." in table
    page = tmp_path / "page.html"
    assert CliRunner().invoke(main, ["report", "--output", str(page), *store]).exit_code == 0
    assert f"MVTec AD, a subset: {said}" in page.read_text()


def test_a_subset_to_learn_from_is_called_one_and_enters_no_key(real_data: Path, tmp_path: Path) -> None:
    words = ["--dataset", "aitex[classes=one]", "--data-root", str(real_data / "aitex")]
    words += ["--protocol", "transfer", "--train-dataset", "mvtec", "--train-root", str(real_data / "mvtec")]
    own = ["--methods", QUICK.partition("],")[0] + "]", "--encoder", "pocket/clip", "--workers", "0"]
    result = CliRunner().invoke(
        main, ["run", *own, *words, "--shots", "1", "--seeds", "1", "--store", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    (record,) = records(tmp_path)
    assert "defective strips" in record["trial"]["dataset"]["subset"]
    assert record["trial"]["protocol"]["source"]["subset"].startswith("2 of 15 categories")
    table = " ".join(result.stdout.split())
    assert "AITEX, a subset: " in table and "mvtec, a subset: 2 of 15 categories" in table.casefold()
    # Records from before say nothing of it, and are the same trials: the key is a hash of the rest alone.
    del record["trial"]["dataset"]["subset"], record["trial"]["protocol"]["source"]["subset"]
    read = Record.of(record)
    assert read.subsets == () and read.dataset.title == "AITEX"
    assert "subset" not in str(read.dataset.identity)
