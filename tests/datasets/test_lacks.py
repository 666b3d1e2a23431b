"""Studies on datasets that lack something: what exists is measured, the rest is absent with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import field_trees
import pytest
from click.testing import CliRunner

from bench.cli.main import main

CLIP = ["--methods", "clip", "--encoder", "pocket/clip"]
DEVNET = ["--methods", "devnet[epochs=1,steps_per_epoch=2]", "--backbone", "pocket/resnet", "--seeds", "1"]


def run(store: Path, *words: str) -> tuple[str, list[dict[str, Any]]]:
    result = CliRunner().invoke(main, ["run", *words, "--workers", "0", "--store", str(store)])
    assert result.exit_code == 0, result.output
    found = [json.loads(file.read_text()) for file in sorted((store / "records").rglob("*.json"))]
    return " ".join(result.stdout.split()), found


@pytest.mark.parametrize(
    ("name", "there", "absent", "reason"),
    [
        ("isic", "pixel_auroc", "image_auroc", "one class only: no normal image"),
        ("headct", "image_auroc", "pixel_auroc", "no masks: none of the 2 anomalous images has one"),
    ],
)
def test_metrics_that_cannot_be_computed_are_absent(
    tmp_path: Path, name: str, there: str, absent: str, reason: str
) -> None:
    root = field_trees.TREES[name](tmp_path / "data")
    output, (record,) = run(tmp_path / "store", *CLIP, "--dataset", name, "--data-root", str(root))
    assert record["status"] == "ok"
    measured = record["metrics"]["exact"]
    assert isinstance(measured["values"][there], float)
    assert measured["values"].get(absent) is None
    assert f"no value: {reason}" in output
    assert "a subset: " in output


def test_learning_from_a_set_without_normal_images_is_skipped_with_the_reason(tmp_path: Path) -> None:
    source, root = field_trees.TREES["isic"](tmp_path / "isic"), field_trees.visa(tmp_path / "visa")
    learned = ["--protocol", "auxiliary", "--train-dataset", "isic", "--train-root", str(source)]
    output, found = run(tmp_path / "store", *DEVNET, *learned, "--dataset", "visa", "--data-root", str(root))
    assert [record["status"] for record in found] == ["skipped", "skipped"]
    assert "needs normal and anomalous training images" in output


def test_anomalies_of_a_training_part_are_learned_from_on_request(tmp_path: Path) -> None:
    source, root = field_trees.ksdd2(tmp_path / "ksdd2"), field_trees.visa(tmp_path / "visa")
    words = [
        "--train-dataset",
        "ksdd2",
        "--train-root",
        str(source),
        "--dataset",
        "visa",
        "--data-root",
        str(root),
    ]
    for part, ids in (("train", {"10004"}), ("all", {"10004", "20004"}), ("test", {"20004"})):
        store = tmp_path / part
        run(store, *DEVNET, "--protocol", f"auxiliary[part={part}]", *words, "--categories", "pcb1")
        (split,) = [json.loads(file.read_text()) for file in (store / "manifests").rglob("*.json")]
        drawn = {id_.rpartition("/")[2] for draw in split["anomalous"].values() for id_ in draw["ids"]}
        assert drawn == ids


def test_k_normal_images_of_a_set_without_training_part(tmp_path: Path) -> None:
    root = field_trees.TREES["isic"](tmp_path / "data")
    words = ["run", *CLIP, "--dataset", "isic", "--data-root", str(root), "--protocol", "loo[k=2]"]
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "store")])
    assert result.exit_code == 2
    assert "isic: 2 normal images are asked for, but the dataset has no train part; only k=0" in result.output


def test_real_visa_and_ksdd_run(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "visa").is_dir():
        pytest.skip("no real images of VisA and KolektorSDD")
    words = ["--dataset", "visa,ksdd", "--data-root", f"visa={real_data / 'visa'}"]
    words += ["--data-root", f"ksdd={real_data / 'ksdd' / 'KolektorSDD'}"]
    _, found = run(tmp_path, *CLIP, *words)
    assert {record["trial"]["category"]: record["status"] for record in found} == {
        "capsules": "ok", "macaroni1": "ok", "ksdd": "ok",
    }  # fmt: skip
    assert all(isinstance(record["metrics"]["exact"]["values"]["aupro"], float) for record in found)
