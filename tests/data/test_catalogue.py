"""Anomalous images without a mask: known to the catalogue, never normal pixels, never an empty training mask."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.data.catalogue import Catalogue, check_content
from bench.datasets.folder import Folder
from bench.errors import BenchError, NotApplicable
from bench.metrics.evaluation import evaluate
from bench.metrics.registry import IMAGE_METRICS, PIXEL_METRICS
from bench.store.store import Store
from bench.testing import check_dataset


def catalogue(root: Path) -> Catalogue:
    return Catalogue(Folder(root, Folder.Config()))


def unmask(root: Path, *names: str) -> None:
    """Remove masks: ``bolt/dent/003``."""
    for name in names:
        category, type_, stem = name.split("/")
        (root / category / "ground_truth" / type_ / f"{stem}_mask.png").unlink()


def run(root: Path, store: Path, *words: str) -> Result:
    data = ["--dataset", "folder", "--data-root", str(root), "--store", str(store), "--workers", "0"]
    return CliRunner().invoke(main, ["run", *data, *words])


def blocks(store: Path) -> dict[str, dict[str, Any]]:
    records = list(Store(store).documents())
    assert {record["status"] for record in records} == {"ok"}, [record["reason"] for record in records]
    return {record["trial"]["category"]: record["metrics"]["exact"] for record in records}


CLIP = ("--methods", "clip", "--encoder", "pocket/clip")


# ---------------------------------------------------------------- the catalogue


def test_complete_masks_are_no_word_worth(toy_root: Path) -> None:
    data = catalogue(toy_root)
    assert data.without_masks(data.samples) == ""
    assert data.findings() == []


def test_some_without_a_mask(toy_root: Path) -> None:
    unmask(toy_root, "bolt/dent/003", "bolt/stain/000")
    data = catalogue(toy_root)
    bolt = [sample.id for sample in data.select("bolt", "test")]
    assert data.without_masks(bolt) == "masks are missing: 2 of 15 anomalous images have none"
    assert data.without_masks(id_ for id_ in bolt if "003" not in id_ and "stain" not in id_) == ""
    (finding,) = data.findings()
    assert (finding.level, finding.path) == ("note", "bolt")
    assert "2 of 15" in finding.message and "image metrics only" in finding.message
    assert check_content(data) == []
    with pytest.raises(BenchError, match=r"003\.png: an anomalous image without a mask"):
        data.masks(bolt)
    assert len(data.masks([sample.id for sample in data.select("cloth", "test")])) == 18


def test_none_with_a_mask(toy_root: Path) -> None:
    shutil.rmtree(toy_root / "bolt/ground_truth")
    data = catalogue(toy_root)
    assert data.without_masks(data.samples).startswith("masks are missing: 15 of 45")
    ids = [sample.id for sample in data.select("bolt", "test")]
    assert data.without_masks(ids) == "no masks: none of the 15 anomalous images has one"


def test_a_training_set_gives_no_empty_mask_for_an_anomaly(toy_root: Path) -> None:
    unmask(toy_root, "bolt/dent/003")
    data = catalogue(toy_root)
    ids = ["bolt/test/dent/002", "bolt/test/dent/003", "bolt/train/good/000"]
    train = data.training_set(ids, {}, 2)
    assert [train.has_mask(index) for index in range(3)] == [True, False, True]
    assert train.mask(0).any()
    assert train.mask(2).shape == (32, 32) and not train.mask(2).any()
    with pytest.raises(NotApplicable, match="an anomalous image of bolt has none"):
        train.mask(1)


# ---------------------------------------------------------------- trials and tables


def test_image_labels_alone_give_image_metrics(toy_root: Path, tmp_path: Path) -> None:
    assert run(toy_root, tmp_path / "with", *CLIP).exit_code == 0
    for folder in toy_root.glob("*/ground_truth"):
        shutil.rmtree(folder)
    result = run(toy_root, tmp_path / "without", *CLIP)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("none of the 15 anomalous images has one; it has image metrics only") == 3
    masked, unmasked = blocks(tmp_path / "with"), blocks(tmp_path / "without")
    for category, block in unmasked.items():
        values = block["values"]
        assert {name: values[name] for name in IMAGE_METRICS} == {
            name: masked[category]["values"][name] for name in IMAGE_METRICS
        }
        assert block["reasons"] == dict.fromkeys(
            PIXEL_METRICS, "no masks: none of the 15 anomalous images has one"
        )
    table = result.stdout.partition("pixel AUROC")[2]
    assert re.search(r"^bolt +n/a\[a\]$", table, re.MULTILINE)
    assert "[a] no value: no masks: none of the 15 anomalous images has one." in " ".join(table.split())


def test_one_missing_mask_leaves_out_one_category(toy_root: Path, tmp_path: Path) -> None:
    assert run(toy_root, tmp_path / "with", *CLIP).exit_code == 0
    unmask(toy_root, "bolt/dent/003")
    result = run(toy_root, tmp_path / "without", *CLIP)
    assert result.exit_code == 0, result.output
    masked, unmasked = blocks(tmp_path / "with"), blocks(tmp_path / "without")
    assert set(unmasked["bolt"]["reasons"]) == set(PIXEL_METRICS)
    assert unmasked["bolt"]["values"]["image_auroc"] == masked["bolt"]["values"]["image_auroc"]
    for category in ("cloth", "plate"):
        assert unmasked[category]["values"] == masked[category]["values"]
    words = " ".join(result.stdout.partition("pixel AUROC")[2].split())
    mean = np.mean([masked[category]["values"]["pixel_auroc"] for category in ("cloth", "plate")])
    assert f"Average {mean:.3f}† " in words
    assert "† average over the categories that have a value" in words


def test_no_normal_test_image_gives_pixel_metrics(toy_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(toy_root / "bolt/test/good")
    result = run(toy_root, tmp_path / "store", *CLIP)
    assert result.exit_code == 0, result.output
    block = blocks(tmp_path / "store")["bolt"]
    assert block["reasons"] == dict.fromkeys(IMAGE_METRICS, "one class only: no normal image")
    assert block["problems"] == []
    (record,) = (r for r in Store(tmp_path / "store").documents() if r["trial"]["category"] == "bolt")
    maps, ids = (
        Store(tmp_path / "store").scores(record["key"])["maps"],
        Store(tmp_path / "store").score_ids(record["key"]),
    )
    assert len(ids) == 15 and len(maps) == 15
    data = catalogue(toy_root)
    expected = evaluate(maps, data.masks(ids), eval_size=256)
    assert block["values"]["pixel_auroc"] == expected["pixel_auroc"]
    table = result.stdout.partition("pixel AUROC")[2]
    assert f"{expected['pixel_auroc']:.3f}\n" in table  # without a footnote


@pytest.mark.parametrize(
    ("gone", "reason"),
    [
        (
            ("test/good", "ground_truth"),
            "no normal test image, so no image metric is defined, and no pixel metric",
        ),
        (("test",), "bolt has no test image"),
        (("test/dent", "test/stain", "ground_truth"), "no anomalous test image, so no metric is defined"),
    ],
)
def test_where_nothing_is_defined_the_trial_is_skipped(
    toy_root: Path, tmp_path: Path, gone: tuple[str, ...], reason: str
) -> None:
    if gone == ("test",):
        shutil.rmtree(toy_root / "bolt/ground_truth")
    for name in gone:
        shutil.rmtree(toy_root / "bolt" / name)
    result = run(toy_root, tmp_path / "store", *CLIP)
    assert result.exit_code == 0, result.output
    found = {record["trial"]["category"]: record for record in Store(tmp_path / "store").documents()}
    assert found["bolt"]["status"] == "skipped"
    assert reason in found["bolt"]["reason"]
    assert found["cloth"]["status"] == "ok"


def test_a_method_that_learns_from_masks_is_skipped(toy_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(toy_root / "bolt/ground_truth")
    promptad = "promptad[iters=2,ffn=64,supervision=pixel]"
    words = ["--methods", promptad, "--encoder", "pocket/clip", "--shots", "10", "--seeds", "1"]
    result = run(toy_root, tmp_path / "store", *words)
    assert result.exit_code == 0, result.output
    found = {record["trial"]["category"]: record for record in Store(tmp_path / "store").documents()}
    assert {category: record["status"] for category, record in found.items()} == {
        "bolt": "ok", "cloth": "skipped", "plate": "skipped"
    }  # fmt: skip
    assert found["cloth"]["reason"] == "the method learns from masks, and an anomalous image of bolt has none"


def test_stored_scores_page_and_figures_do_without_masks(toy_root: Path, tmp_path: Path) -> None:
    unmask(toy_root, "bolt/dent/003")
    shutil.rmtree(toy_root / "cloth/test/good")
    store = ["--store", str(tmp_path / "store")]
    assert run(toy_root, tmp_path / "store", *CLIP).exit_code == 0
    for words in (
        ["rescore", "--metric-protocol", "grid200,winclip-cy"],
        ["report", "--output", str(tmp_path / "page.html")],
        ["figure", "curves", "--metric", "pixel_auroc", "--output", str(tmp_path / "curves.png")],
    ):
        result = CliRunner().invoke(main, [*words, *store])
        assert result.exit_code == 0, result.output
    for record in Store(tmp_path / "store").documents():
        for name in ("grid200", "winclip-cy"):
            (block,) = (block for label, block in record["metrics"].items() if label.startswith(name))
            assert (block["values"]["pixel_auroc"] is None) == (record["trial"]["category"] == "bolt")
            if record["trial"]["category"] == "bolt":
                assert "1 of 15" in block["reasons"]["pixel_auroc"]


# ---------------------------------------------------------------- the conformance suite


def test_a_dataset_says_that_its_anomalies_may_lack_masks(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmask(toy_root, "bolt/dent/003")
    check_dataset("folder", toy_root)
    monkeypatch.setattr(Folder, "traits", replace(Folder.traits, all_masked=True))
    with pytest.raises(AssertionError, match="bolt/test/dent/003: an anomaly without a mask"):
        check_dataset("folder", toy_root)
