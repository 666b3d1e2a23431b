"""Anomalous images without a mask: known to the catalogue, never normal pixels, never an empty training mask."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bench
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
    assert data.without_masks(bolt) == ""
    assert [bolt[place] for place in data.unmasked(bolt)] == ["bolt/test/dent/003", "bolt/test/stain/000"]
    (finding,) = data.findings()
    assert (finding.level, finding.path) == ("note", "bolt")
    assert finding.message == (
        "2 of 15 anomalous images have no mask; pixel metrics are taken on the other images"
    )
    assert check_content(data) == []
    with pytest.raises(BenchError, match=r"003\.png: an anomalous image without a mask"):
        data.masks(bolt)
    blank = data.masks(bolt, blank=True)
    assert [place for place in data.unmasked(bolt) if blank[place].any() or blank[place].shape != (32, 32)] == []
    assert len(data.masks([sample.id for sample in data.select("cloth", "test")])) == 18


def test_none_with_a_mask(toy_root: Path) -> None:
    shutil.rmtree(toy_root / "bolt/ground_truth")
    data = catalogue(toy_root)
    assert data.without_masks(data.samples) == "" and len(data.unmasked(data.samples)) == 15
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


def test_images_without_a_mask_are_left_out_of_pixel_metrics_alone(toy_root: Path, tmp_path: Path) -> None:
    assert run(toy_root, tmp_path / "with", *CLIP).exit_code == 0
    unmask(toy_root, "bolt/dent/003", "bolt/stain/000")
    result = run(toy_root, tmp_path / "without", *CLIP)
    assert result.exit_code == 0, result.output
    masked, mixed = blocks(tmp_path / "with"), blocks(tmp_path / "without")
    for category in ("cloth", "plate"):
        assert mixed[category] == masked[category]  # not a bit, and not a word more
        assert "pixel_images" not in mixed[category]
    bolt = mixed["bolt"]
    assert bolt["pixel_images"] == {"measured": 16, "of": 18}
    assert bolt["reasons"] == {} and bolt["problems"] == masked["bolt"]["problems"]
    for name in IMAGE_METRICS:
        assert bolt["values"][name] == masked["bolt"]["values"][name]
    # Pixel metrics are those of the other images alone.
    store = Store(tmp_path / "without")
    (key,) = (r["key"] for r in store.documents() if r["trial"]["category"] == "bolt")
    ids, maps = store.score_ids(key), store.scores(key)["maps"]
    kept = [place for place, id_ in enumerate(ids) if not id_.endswith(("dent/003", "stain/000"))]
    data = catalogue(toy_root)
    expected = evaluate(maps[kept], data.masks([ids[place] for place in kept]), eval_size=256)
    as_normal = evaluate(maps, data.masks(ids, blank=True), eval_size=256)
    for name in PIXEL_METRICS:
        assert bolt["values"][name] == expected[name]
        # The best F1 may lie at a threshold that nothing of the two images reaches.
        assert name == "pixel_f1max" or bolt["values"][name] != as_normal[name]


def test_tables_say_on_how_many_images_pixel_metrics_were_taken(toy_root: Path, tmp_path: Path) -> None:
    unmask(toy_root, "bolt/dent/003", "bolt/stain/000")
    assert run(toy_root, tmp_path / "store", *CLIP).exit_code == 0
    said = "Pixel metrics without the anomalous images that have no mask: bolt on 16 of 18 test images."
    store = ["--store", str(tmp_path / "store")]
    for words in (["table"], ["table", "--layout", "table2"]):
        for form in ("terminal", "markdown", "latex"):
            metric = [] if "--layout" in words else ["--metrics", "image_auroc,pixel_auroc"]
            result = CliRunner().invoke(main, [*words, *metric, "--format", form, *store])
            assert result.exit_code == 0, result.output
            assert " ".join(result.stdout.split()).count(said) == 1  # not below image metrics
    result = CliRunner().invoke(main, ["table", "--metrics", "pixel_auroc", "--format", "csv", *store])
    lines = {row["category"]: row for row in csv.DictReader(result.stdout.splitlines())}
    assert lines["bolt"]["status"] == "ok"
    assert lines["bolt"]["reason"] == "on 16 of 18 test images, without anomalous ones that have no mask"
    assert lines["Average"]["reason"].startswith("bolt: on 16 of 18 test images")
    assert lines["cloth"]["reason"] == ""
    frame = bench.results(store=tmp_path / "store").set_index("category")
    assert frame.pixel_images.dropna().to_dict() == {"bolt": "16 of 18"}


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
    shutil.rmtree(toy_root / "plate/ground_truth")
    store = ["--store", str(tmp_path / "store")]
    assert run(toy_root, tmp_path / "store", *CLIP).exit_code == 0
    for words in (
        ["rescore", "--metric-protocol", "grid200,winclip-cy,devnet-perimage"],
        ["report", "--output", str(tmp_path / "page.html")],
        ["figure", "curves", "--metric", "pixel_auroc", "--output", str(tmp_path / "curves.png")],
        ["figure", "maps", "--images", "bolt/dent/003,bolt/dent/004", "--output", str(tmp_path / "maps.png")],
    ):
        result = CliRunner().invoke(main, [*words, *store])
        assert result.exit_code == 0, result.output
    assert "bolt on 17 of 18 test images" in (tmp_path / "page.html").read_text()
    found = {record["trial"]["category"]: record for record in Store(tmp_path / "store").documents()}
    for name in ("exact", "grid200", "winclip-cy", "devnet-perimage"):
        of = {
            category: next(block for label, block in record["metrics"].items() if label.startswith(name))
            for category, record in found.items()
        }
        assert of["bolt"]["pixel_images"] == {"measured": 17, "of": 18}
        assert of["bolt"]["values"]["pixel_auroc"] is not None
        assert of["bolt"]["values"]["image_auroc"] is not None
        assert of["plate"]["values"]["image_auroc"] is not None  # also where image scores come from maps
        assert of["plate"]["reasons"]["pixel_auroc"] == "no masks: none of the 15 anomalous images has one"
        assert of["cloth"]["values"]["pixel_auroc"] is not None
    # The same numbers as of the images that have masks, through an implementation that knows of no other ones.
    kept = Store(tmp_path / "store")
    ids, maps = kept.score_ids(found["bolt"]["key"]), kept.scores(found["bolt"]["key"])["maps"]
    places = [place for place, id_ in enumerate(ids) if not id_.endswith("dent/003")]
    masks = catalogue(toy_root).masks([ids[place] for place in places])
    expected = evaluate(maps[places], masks, protocol="winclip-cy")
    (block,) = (block for name, block in found["bolt"]["metrics"].items() if name.startswith("winclip-cy"))
    assert {name: block["values"][name] for name in PIXEL_METRICS if name in expected} == {
        name: expected[name] for name in PIXEL_METRICS if name in expected
    }


def test_records_of_the_former_rule_say_so_and_are_measured_again(toy_root: Path, tmp_path: Path) -> None:
    """One missing mask took away all pixel metrics of a category before."""
    unmask(toy_root, "bolt/dent/003")
    assert run(toy_root, tmp_path / "store", *CLIP).exit_code == 0
    store = Store(tmp_path / "store")
    (document,) = (record for record in store.documents() if record["trial"]["category"] == "bolt")
    new = document["metrics"]["exact"]
    reason = "masks are missing: 1 of 15 anomalous images has none"
    old = {key: value for key, value in new.items() if key != "pixel_images"}
    old["values"] = {**new["values"], **dict.fromkeys(PIXEL_METRICS)}
    old["reasons"] = dict.fromkeys(PIXEL_METRICS, reason)
    store.write({**document, "metrics": {"exact": old}}, None)
    result = CliRunner().invoke(main, ["table", "--metrics", "pixel_auroc", "--store", str(store.root)])
    assert f"{reason}; bench rescore measures the others" in " ".join(result.stdout.split())
    result = CliRunner().invoke(main, ["rescore", "--store", str(store.root)])
    assert result.exit_code == 0, result.output
    assert blocks(store.root)["bolt"] == new


def test_trials_of_which_some_lack_masks_can_be_pinned(toy_root: Path, tmp_path: Path) -> None:
    unmask(toy_root, "bolt/dent/003")
    assert run(toy_root, tmp_path / "store", *CLIP).exit_code == 0
    store = ["--store", str(tmp_path / "store")]
    (name,) = Store(tmp_path / "store").study_names()
    result = CliRunner().invoke(main, ["pin", "--study", name, "--pins", str(tmp_path), *store])
    assert result.exit_code == 0, result.output


# ---------------------------------------------------------------- the conformance suite


def test_a_dataset_says_that_its_anomalies_may_lack_masks(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unmask(toy_root, "bolt/dent/003")
    check_dataset("folder", toy_root)
    monkeypatch.setattr(Folder, "traits", replace(Folder.traits, all_masked=True))
    with pytest.raises(AssertionError, match="bolt/test/dent/003: an anomaly without a mask"):
        check_dataset("folder", toy_root)


# ---------------------------------------------------------------- images that cannot be read


@pytest.mark.parametrize("words", [["run", *CLIP, "--workers", "0", "--dataset"], ["data", "check"]])
def test_images_that_cannot_be_read_are_named_all_at_once(
    toy_root: Path, tmp_path: Path, words: list[str]
) -> None:
    names = ["bolt/train/good/000", "cloth/test/dent/001", "plate/test/good/002"]
    for name in names:
        (toy_root / f"{name}.png").write_bytes(b"no picture")
    (toy_root / "plate/ground_truth/dent/000_mask.png").write_bytes(b"")
    store = ["--store", str(tmp_path / "store")] if words[0] == "run" else []
    result = CliRunner().invoke(main, [*words, "folder", "--data-root", str(toy_root), *store])
    assert result.exit_code != 0
    for name in [*names, "plate/ground_truth/dent/000_mask"]:
        assert f"{name}.png" in result.output
    assert not list((tmp_path / "store").glob("records/**/*.json"))  # nothing was run
