"""MVTec AD's layout: what is listed, what is found wrong, and what a wrong root gets."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from trees import category, mask, picture

from bench.contracts import Dataset
from bench.datasets.mvtec import OFFICIAL, MVTec
from bench.errors import BenchError


def mvtec(root: Path) -> MVTec:
    return MVTec(root, MVTec.Config())


def errors(dataset: MVTec) -> dict[str, str]:
    return {f.path: f.message for f in dataset.check() if f.level == "error"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    category(tmp_path, "bottle", {"broken_large": 2, "contamination": 1})
    category(tmp_path, "screw", {"thread_top": 2})
    return tmp_path


def test_official_numbers() -> None:
    assert len(OFFICIAL) == 15
    assert sum(train for train, *_ in OFFICIAL.values()) == 3629
    assert sum(counts.normal for counts in OFFICIAL.values()) == 467
    assert sum(counts.anomalous for counts in OFFICIAL.values()) == 1258
    assert sum(len(counts.types) for counts in OFFICIAL.values()) == 73


def test_lists_images_with_their_masks(root: Path) -> None:
    dataset = mvtec(root)
    assert isinstance(dataset, Dataset)
    samples = dataset.samples()
    assert [s.id for s in samples] == sorted({s.id for s in samples})
    by_id = {s.id: s for s in samples}
    assert len(by_id) == 2 * (3 + 2) + 3 + 2
    broken = by_id["bottle/test/broken_large/001"]
    assert (broken.category, broken.split, broken.type, broken.anomalous) == (
        "bottle",
        "test",
        "broken_large",
        True,
    )
    assert broken.image == root / "bottle/test/broken_large/001.png"
    assert broken.masks == (root / "bottle/ground_truth/broken_large/001_mask.png",)
    assert broken.box is None
    assert by_id["screw/train/good/002"].masks == ()
    assert not by_id["screw/test/good/000"].anomalous
    assert errors(dataset) == {}


def test_a_subset_is_noted_not_refused(root: Path) -> None:
    notes = [f for f in mvtec(root).check() if f.level == "note"]
    assert any("2 of 15 categories" in n.message and "zipper" in n.message for n in notes)
    assert any(n.path == "bottle" and "3 of 209 train/good" in n.message for n in notes)


def test_a_relative_root_is_made_absolute(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    dataset = mvtec(Path(root.name))
    assert dataset.root == root
    assert all(s.image.is_absolute() for s in dataset.samples())


def test_other_files_and_folders_are_tolerated(root: Path) -> None:
    before = mvtec(root).samples()
    (root / "license.txt").write_text("x")
    (root / "bottle" / "readme.txt").write_text("x")
    (root / "licenses").mkdir()
    (root / "bottle" / "validation").mkdir()
    (root / "bottle" / "test" / ".ipynb_checkpoints").mkdir()
    (root / "bottle" / "test" / "broken_large" / "._000.png").write_bytes(b"x")
    category(root, "my_own_parts")
    dataset = mvtec(root)
    assert dataset.samples() == before
    assert errors(dataset) == {}
    assert any(f.path == "my_own_parts" and "folder" in f.message for f in dataset.check())


def test_every_layout_problem_is_named_at_once(root: Path) -> None:
    (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    mask(root / "bottle/ground_truth/contamination/077_mask.png")
    mask(root / "bottle/ground_truth/no_such_type/000_mask.png")
    (root / "bottle/ground_truth/contamination/note.jpg").write_bytes(b"x")
    picture(root / "bottle/test/stray.png")
    picture(root / "bottle/loose.png")
    picture(root / "bottle/train/bad/000.png")
    picture(root / "bottle/test/good/more/000.png")
    picture(root / "bottle/test/good/000.jpg")
    mask(root / "bottle/test/contamination/000_mask.png")
    picture(root / "screw/test/scrached/000.png")
    mask(root / "screw/ground_truth/scrached/000_mask.png")
    found = errors(mvtec(root))
    expected = {
        "bottle/test/broken_large/001.png": "without a mask",
        "bottle/ground_truth/contamination/077_mask.png": "without its image",
        "bottle/ground_truth/no_such_type/000_mask.png": "without its image",
        "bottle/ground_truth/contamination/note.jpg": "lossless",
        "bottle/test/stray.png": "misplaced",
        "bottle/loose.png": "misplaced",
        "bottle/train/bad": "misplaced",
        "bottle/test/good/more": "misplaced",
        "bottle/test/good/000.png": "second image",
        "bottle/test/contamination/000_mask.png": "misplaced",
        "screw/test/scrached": "not an anomaly type of screw",
    }
    assert set(found) == set(expected)
    for path, words in expected.items():
        assert words in found[path]


def test_an_anomaly_without_mask_is_listed(root: Path) -> None:
    (root / "bottle/ground_truth/broken_large/001_mask.png").unlink()
    sample = next(s for s in mvtec(root).samples() if s.id == "bottle/test/broken_large/001")
    assert sample.masks == ()
    assert sample.anomalous


@pytest.mark.parametrize("missing", ["train", "train/good", "test", "test/good", "ground_truth"])
def test_missing_folders(root: Path, missing: str) -> None:
    folder = root / "screw" / missing
    folder.rename(root / "moved")
    dataset = mvtec(root)
    assert any(path.startswith("screw/") and message for path, message in errors(dataset).items())
    assert any(s.category == "screw" for s in dataset.samples())


def test_only_good_images_in_the_test_folder(tmp_path: Path) -> None:
    category(tmp_path, "bottle", {})
    assert "no image of an anomaly" in errors(mvtec(tmp_path))["bottle/test"]


def test_an_empty_category(root: Path) -> None:
    (root / "wood" / "train" / "good").mkdir(parents=True)
    assert "no image that can be used" in errors(mvtec(root))["wood"]


@pytest.mark.parametrize(
    ("given", "right"), [("mvtec/bottle", "mvtec"), ("mvtec/bottle/test", "mvtec"), (".", "mvtec")]
)
def test_a_root_one_level_off_gets_the_right_folder(tmp_path: Path, given: str, right: str) -> None:
    category(tmp_path / "mvtec", "bottle")
    dataset = mvtec(tmp_path / given)
    with pytest.raises(BenchError, match="Expected folders named after its categories") as caught:
        dataset.samples()
    assert str(caught.value).endswith(f"Did you mean {tmp_path / right}?")
    assert [f.level for f in dataset.check()] == ["error"]


def test_a_root_that_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        mvtec(tmp_path / "nowhere").samples()
    with pytest.raises(BenchError, match="cannot be read"):
        mvtec(tmp_path / ("x" * 5000)).samples()
    archive = tmp_path / "mvtec.tar.xz"
    archive.write_bytes(b"")
    with pytest.raises(BenchError, match=r"but a file; unpack it"):
        mvtec(archive).samples()
    with pytest.raises(BenchError, match=r"Unpack mvtec\.tar\.xz first"):
        mvtec(tmp_path).samples()
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BenchError, match="found nothing"):
        mvtec(empty).samples()
    with pytest.raises(BenchError, match="--data-root"):
        MVTec(None, MVTec.Config())


def test_links_inside_the_root_are_followed(root: Path) -> None:
    (root / "screw").rename(root / "elsewhere")
    (root / "screw").symlink_to("elsewhere")
    assert any(s.category == "screw" for s in mvtec(root).samples())


def test_links_out_of_the_root_are_followed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    category(outside, "wood", {"scratch": 1})
    (root / "wood").symlink_to(outside / "wood")
    (root / "bottle/test/good/009.png").symlink_to(outside / "wood/test/good/000.png")
    (root / "bottle/test/good/010.png").symlink_to("nothing")
    dataset = mvtec(root)
    assert errors(dataset).keys() == {"bottle/test/good/010.png"}
    assert "does not exist (nothing)" in errors(dataset)["bottle/test/good/010.png"]
    found = {sample.id: sample for sample in dataset.samples()}
    assert found["bottle/test/good/009"].image == root / "bottle/test/good/009.png"
    assert found["wood/test/scratch/000"].masks == (root / "wood/ground_truth/scratch/000_mask.png",)


def test_a_root_that_is_only_a_link_out(tmp_path: Path) -> None:
    category(tmp_path / "real", "wood")
    root = tmp_path / "root"
    root.mkdir()
    (root / "wood").symlink_to(tmp_path / "real" / "wood")
    assert len(mvtec(root).samples()) == 7
    (root / "wood").unlink()
    (root / "wood").symlink_to(tmp_path / "gone" / "wood")
    with pytest.raises(BenchError, match="Not usable: wood: a link to something that does not exist"):
        mvtec(root).samples()


def test_circular_links_end(root: Path) -> None:
    (root / "bottle/test/round").symlink_to(root / "bottle/test")
    (root / "bottle/test/good/up").symlink_to(root)
    (root / "bottle/test/a").symlink_to("b")
    (root / "bottle/test/b").symlink_to("a")
    found = errors(mvtec(root))
    assert found.keys() == {f"bottle/test/{name}" for name in ("round", "good/up", "a", "b")}
    assert all("circle" in message for message in found.values())
    assert len(mvtec(root).samples()) == 15


def test_unreadable_folder_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "broken_large":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert "Permission denied" in errors(mvtec(root))["bottle/test/broken_large"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_named_like_an_image_is_not_opened(root: Path) -> None:
    os.mkfifo(root / "bottle/test/good/009.png")
    assert "neither a file nor a folder" in errors(mvtec(root))["bottle/test/good/009.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode on this system")
def test_a_name_that_is_not_unicode(root: Path) -> None:
    raw = os.fsencode(root / "bottle/test/good") + b"/\xff.png"
    with open(raw, "wb"):
        pass
    found = errors(mvtec(root))
    (path,) = (path for path in found if "Unicode" in found[path])
    path.encode("utf-8")


def test_prompts_for_all_categories(root: Path) -> None:
    prompts = mvtec(root).prompts()
    assert set(prompts) == set(OFFICIAL)
    for name, counts in OFFICIAL.items():
        assert list(prompts[name].descriptions) == list(counts.types)


def test_real_images(real_data: Path) -> None:
    dataset = mvtec(real_data / "mvtec")
    counts = Counter((s.category, s.split, s.type) for s in dataset.samples())
    assert counts == {
        ("bottle", "train", "good"): 30,
        ("bottle", "test", "good"): 10,
        ("bottle", "test", "broken_large"): 8,
        ("bottle", "test", "broken_small"): 8,
        ("bottle", "test", "contamination"): 8,
        ("screw", "train", "good"): 30,
        ("screw", "test", "good"): 16,
        ("screw", "test", "manipulated_front"): 10,
        ("screw", "test", "scratch_head"): 10,
        ("screw", "test", "scratch_neck"): 10,
        ("screw", "test", "thread_side"): 10,
        ("screw", "test", "thread_top"): 10,
    }
    assert all(len(s.masks) == s.anomalous for s in dataset.samples())
    assert errors(dataset) == {}
