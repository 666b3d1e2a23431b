"""Own images in MVTec AD's layout, and the pocket dataset that ships in it."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest
from trees import category, mask, picture

from bench.contracts import Dataset
from bench.datasets import pocket
from bench.datasets.folder import Folder
from bench.datasets.pocket import Pocket
from bench.errors import BenchError
from bench.tools.spec import build_config, parse_spec


def folder(root: Path, options: str = "folder") -> Folder:
    return Folder(root, build_config(Folder.Config, parse_spec(options), "dataset"))


def levels(dataset: Folder) -> dict[str, str]:
    return {f.path: f.level for f in dataset.check()}


def test_names_with_spaces_and_letters_of_any_script(tmp_path: Path) -> None:
    for name in ("steel plate", "Стекло", "螺丝", "a.b", "1", "résistance"):
        category(tmp_path, name, {"déchirure profonde": 1})
    dataset = folder(tmp_path)
    assert isinstance(dataset, Dataset)
    samples = dataset.samples()
    assert {s.category for s in samples} == {"steel plate", "Стекло", "螺丝", "a.b", "1", "résistance"}
    assert {s.type for s in samples} == {"good", "déchirure profonde"}
    assert dataset.check() == []


def test_decomposed_names_are_composed(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "résistance")
    category(tmp_path, name)
    sample = folder(tmp_path).samples()[0]
    assert sample.category == unicodedata.normalize("NFC", name) != name
    assert sample.image.is_file()


def test_two_spellings_of_one_name(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        category(tmp_path, unicodedata.normalize(form, "résistance"))
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system takes both spellings for one")
    dataset = folder(tmp_path)
    assert len({s.id for s in dataset.samples()}) == len(dataset.samples()) == 7
    assert [f.level for f in dataset.check()] == ["error"] * 7


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".Bmp", ".tif", ".TIFF", ".webp", ".ppm", ".PGM"])
@pytest.mark.parametrize(
    "mask_name", ["{}_mask.png", "{}.png", "{}_mask.PNG", "{}.bmp", "{}_gt.png", "{}_label.tif", "{}.pgm"]
)
def test_image_suffixes_and_mask_names(tmp_path: Path, suffix: str, mask_name: str) -> None:
    category(tmp_path, "part", {"bad": 2}, suffix=suffix, mask_name=mask_name)
    dataset = folder(tmp_path)
    bad = [s for s in dataset.samples() if s.anomalous]
    assert [s.id for s in bad] == ["part/test/bad/000", "part/test/bad/001"]
    assert [s.masks[0].name for s in bad] == [mask_name.format("000"), mask_name.format("001")]
    assert dataset.check() == []


def test_two_masks_of_one_image(tmp_path: Path) -> None:
    category(tmp_path, "part", {"bad": 1})
    mask(tmp_path / "part/ground_truth/bad/000.png")
    dataset = folder(tmp_path)
    assert next(s for s in dataset.samples() if s.anomalous).masks[0].name == "000_mask.png"
    assert levels(dataset) == {"part/ground_truth/bad/000.png": "error"}


def test_masks_that_lie_among_the_images(tmp_path: Path) -> None:
    category(tmp_path, "part", {"bad": 1})
    for ending in ("_mask", "_gt", "_label"):
        mask(tmp_path / f"part/test/bad/000{ending}.png")
    dataset = folder(tmp_path)
    assert [s.id for s in dataset.samples() if s.anomalous] == ["part/test/bad/000"]
    assert levels(dataset) == {f"part/test/bad/000{end}.png": "error" for end in ("_mask", "_gt", "_label")}


def test_masks_that_are_jpegs_are_refused(tmp_path: Path) -> None:
    category(tmp_path, "part", {"bad": 1}, mask_name="{}_mask.jpg")
    (finding,) = folder(tmp_path).check()
    assert (finding.level, finding.path) == ("error", "part/ground_truth/bad/000_mask.jpg")
    assert "must be lossless" in finding.message


def test_without_any_mask(tmp_path: Path) -> None:
    shutil.rmtree(category(tmp_path, "part", {"bad": 2, "worse": 1}) / "ground_truth")
    dataset = folder(tmp_path)
    assert dataset.check() == []
    assert [s.id for s in dataset.samples() if s.lacks_mask] == [s.id for s in dataset.samples() if s.anomalous]
    assert not any(s.lacks_mask for s in dataset.samples() if not s.anomalous)
    strict = Pocket(tmp_path, Pocket.Config()).check()
    assert {f.path for f in strict if f.level == "error"} == {
        "part/ground_truth", "part/test/bad/000.png", "part/test/bad/001.png", "part/test/worse/000.png"
    }  # fmt: skip


def test_masks_of_good_images_are_noted(tmp_path: Path) -> None:
    category(tmp_path, "part")
    mask(tmp_path / "part/ground_truth/good/000_mask.png", marks=[])
    dataset = folder(tmp_path)
    assert levels(dataset) == {"part/ground_truth/good": "note"}
    assert all(s.masks == () for s in dataset.samples() if not s.anomalous)


def test_good_may_have_other_names(tmp_path: Path) -> None:
    category(tmp_path, "a", good="ok")
    category(tmp_path, "b", good="normal")
    category(tmp_path, "c")
    dataset = folder(tmp_path, "folder[good=ok+normal]")
    assert dataset.check() == []
    assert {s.type for s in dataset.samples()} == {"good", "crack"}
    assert "a/train/ok/000" in {s.id for s in dataset.samples()}


def test_options(tmp_path: Path) -> None:
    category(tmp_path, "a")
    assert {s.mask_threshold for s in folder(tmp_path).samples()} == {0}
    assert {s.mask_threshold for s in folder(tmp_path, "folder[mask_threshold=127]").samples()} == {127}
    with pytest.raises(BenchError, match="0 to 254"):
        folder(tmp_path, "folder[mask_threshold=255]")
    with pytest.raises(BenchError, match="mask_threshold"):
        folder(tmp_path, "folder[mask_treshold=1]")


def test_a_category_that_lacks_a_part_is_read_for_what_it_has(tmp_path: Path) -> None:
    category(tmp_path, "only_test", train=0)
    category(tmp_path, "only_train", {}, test=0)
    category(tmp_path, "no_anomaly", {})
    dataset = folder(tmp_path)
    assert set(levels(dataset).values()) == {"note"}
    assert {s.category for s in dataset.samples()} == {"only_test", "only_train", "no_anomaly"}


def test_folders_that_are_no_categories_are_passed_over(tmp_path: Path) -> None:
    category(tmp_path, "part")
    (tmp_path / "docs" / "img").mkdir(parents=True)
    (tmp_path / ".git" / "train").mkdir(parents=True)
    (tmp_path / "loop").symlink_to(tmp_path)
    picture(tmp_path / "preview.png")
    dataset = folder(tmp_path)
    assert {s.category for s in dataset.samples()} == {"part"}
    assert levels(dataset) == {"docs": "note", "loop": "error", "preview.png": "note"}


def test_a_wrong_root(tmp_path: Path) -> None:
    category(tmp_path / "mine", "part")
    for given in (tmp_path, tmp_path / "mine" / "part", tmp_path / "mine" / "part" / "train"):
        with pytest.raises(BenchError, match="Did you mean") as caught:
            folder(given).samples()
        assert str(caught.value).endswith(f"Did you mean {tmp_path / 'mine'}?")
    (tmp_path / "mine" / "empty").mkdir()
    with pytest.raises(BenchError, match="found nothing") as caught:
        folder(tmp_path / "mine" / "empty").samples()
    assert "Did you mean" not in str(caught.value)


def test_prompts_are_made_of_the_names(tmp_path: Path) -> None:
    category(tmp_path, "metal_plate")
    prompts = folder(tmp_path).prompts()
    assert set(prompts) == {"metal_plate"}
    assert prompts["metal_plate"].label == "metal plate"


def test_pocket_reads_the_same_layout(tmp_path: Path) -> None:
    category(tmp_path, "gear")
    dataset = Pocket(tmp_path, Pocket.Config())
    assert isinstance(dataset, Dataset)
    assert len(dataset.samples()) == 7
    assert dataset.check() == []
    (tmp_path / "gear/test/good").rename(tmp_path / "gear/moved")
    assert any(f.level == "error" for f in Pocket(tmp_path, Pocket.Config()).check())


def test_pocket_without_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pocket, "HERE", tmp_path)
    with pytest.raises(BenchError, match="missing from this installation"):
        Pocket(None, Pocket.Config()).samples()


def test_pocket_as_it_ships() -> None:
    if not (pocket.HERE / "images").is_dir():
        pytest.skip("the images of pocket have not been rendered")
    dataset = Pocket(None, Pocket.Config())
    categories = {s.category for s in dataset.samples()}
    assert dataset.check() == []
    assert len(categories) == 12
    assert set(dataset.prompts()) == categories


@pytest.mark.parametrize("inside", ["", "photographs"])
def test_images_without_labels_are_for_predict(tmp_path: Path, inside: str) -> None:
    (tmp_path / inside).mkdir(exist_ok=True)
    for number in range(3):
        (tmp_path / inside / f"{number}.png").touch()
    with pytest.raises(BenchError, match=r"holds 3 images without labels.*bench predict --method clip") as caught:
        folder(tmp_path).samples()
    assert "\n" not in str(caught.value)


def test_images_beside_a_category_are_not_taken_for_unlabelled(tmp_path: Path) -> None:
    category(tmp_path, "nut")
    (tmp_path / "loose.png").touch()
    assert {sample.category for sample in folder(tmp_path).samples()} == {"nut"}
