"""AITEX: patches, splits, and every irregularity of the published archives."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import FABRICS, aitex, mask, picture, strip

from bench.contracts import Dataset, Sample
from bench.datasets.aitex import Aitex
from bench.errors import BenchError
from bench.tools.spec import build_config, parse_spec


def dataset(root: Path, options: str = "aitex") -> Aitex:
    return Aitex(root, build_config(Aitex.Config, parse_spec(options), "dataset"))


def findings(data: Aitex, level: str) -> dict[str, str]:
    return {f.path: f.message for f in data.check() if f.level == level}


def anomalous(data: Aitex) -> dict[str, Sample]:
    return {s.id: s for s in data.samples() if s.anomalous}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return aitex(tmp_path_factory.mktemp("aitex"))


def test_anomalous_patches_are_those_that_the_mask_touches(root: Path) -> None:
    data = dataset(root)
    assert isinstance(data, Dataset)
    assert sorted(anomalous(data)) == [
        "00/test/Broken_end/0001_002_00_00",
        "00/test/Broken_end/0001_002_00_01",
        "00/test/Broken_end/0001_002_00_15",
        "00/test/Broken_end/0003_002_00_01",
        "01/test/Broken_end/0004_002_01_02",
        "02/test/Fuzzyball/0022_019_02_02",
        "03/test/Broken_pick/0018_010_03_07",
        "03/test/Broken_pick/0018_010_03_08",
        "04/test/Fuzzyball/0043_019_04_00",
        "04/test/Fuzzyball/0044_019_04_04",
        "04/test/Fuzzyball/0044_019_04_05",
        "05/test/Knots/0094_027_05_14",
        "06/test/Fuzzyball/0055_019_06_00",
    ]
    sample = anomalous(data)["00/test/Broken_end/0001_002_00_15"]
    assert sample.box == (3840, 0, 4096, 256)
    assert sample.type == "Broken_end"
    assert sample.mask_threshold == 127
    assert [s.id for s in data.samples()] == sorted({s.id for s in data.samples()})


def test_dras_rule_keeps_faint_rims(root: Path) -> None:
    more = set(anomalous(dataset(root, "aitex[mask_threshold=0]"))) - set(anomalous(dataset(root)))
    assert more == {"00/test/Broken_end/0003_002_00_02"}
    with pytest.raises(BenchError, match="0 to 254"):
        dataset(root, "aitex[mask_threshold=300]")


def test_two_masks_of_one_strip_are_united(root: Path) -> None:
    data = dataset(root)
    masks = {s.masks for key, s in anomalous(data).items() if "0044_019_04" in key}
    assert [[m.name for m in pair] for pair in masks] == [["0044_019_04_mask1.png", "0044_019_04_mask2.png"]]
    assert "united" in findings(data, "note")["Mask_images/0044_019_04_mask1.png"]


def test_the_last_patch_of_the_narrow_strip_ends_at_its_border(root: Path) -> None:
    data = dataset(root)
    assert anomalous(data)["05/test/Knots/0094_027_05_14"].box == (3584, 0, 3796, 256)
    assert "3796" in findings(data, "note")["Defect_images/0094_027_05.png"]


def test_known_irregularities_are_notes(root: Path) -> None:
    data = dataset(root)
    assert findings(data, "error") == {}
    notes = findings(data, "note")
    assert "eighth fabric" in notes["Defect_images/0100_025_08.png"]
    assert "all zero" in notes["Defect_images/0106_010_03.png"]
    assert "00" in notes["NODefect_images/2608691-202020u/0018_00_01.png"]
    assert "11 of 106 defective strips, 29 of 141 defect-free strips" in notes["."]
    assert not any("0100_025_08" in s.id or "0106_010_03" in s.id for s in data.samples())


def test_the_published_spelling_and_another_are_read(root: Path, tmp_path: Path) -> None:
    aitex(tmp_path)
    (tmp_path / "NODefect_images").rename(tmp_path / "NoDefect_images")
    assert [s.id for s in dataset(tmp_path).samples()] == [s.id for s in dataset(root).samples()]


def test_strips_are_split_whole(root: Path) -> None:
    sides = defaultdict(set)
    strips = defaultdict(set)
    for s in dataset(root).samples():
        if not s.anomalous:
            sides[s.group].add(s.split)
            strips[s.category, s.split].add(s.group)
    assert all(len(split) == 1 for split in sides.values())
    assert {key: len(groups) for key, groups in strips.items()} == {
        **{(code, "train"): 3 for code in FABRICS},
        **{(code, "test"): 1 for code in FABRICS},
        ("01", "train"): 4,
    }
    assert len(sides) == 29  # numbers recur from fabric to fabric; groups do not


def test_the_strip_split_does_not_depend_on_the_files_around(root: Path, tmp_path: Path) -> None:
    for number in (4, 2, 3, 1):
        strip(tmp_path, f"{number:04d}_000_03")
    (tmp_path / "Defect_images").mkdir()
    alone = {s.id for s in dataset(tmp_path).samples()}
    assert alone == {s.id for s in dataset(root).samples() if s.category == "03" and not s.anomalous}


def test_the_patch_split_is_scikit_learns(root: Path) -> None:
    from sklearn.model_selection import train_test_split

    good = sorted(
        (s for s in dataset(root, "aitex[split=patch]").samples() if not s.anomalous),
        key=lambda s: (s.image, s.box),
    )
    assert len(good) == 29 * 16
    train, test = train_test_split(range(len(good)), test_size=0.25, random_state=42)
    assert [i for i, s in enumerate(good) if s.split == "train"] == sorted(train)
    assert [i for i, s in enumerate(good) if s.split == "test"] == sorted(test)
    groups = {split: {s.group for s in good if s.split == split} for split in ("train", "test")}
    assert groups["train"] & groups["test"], "the patch split is leaky, and its groups say so"


def test_one_class(root: Path) -> None:
    data = dataset(root, "aitex[classes=one]")
    assert {s.category for s in data.samples()} == {"AITEX"}
    assert Counter((s.split, s.type, s.group, s.box) for s in data.samples()) == Counter(
        (s.split, s.type, s.group, s.box) for s in dataset(root).samples()
    )
    assert set(data.prompts()) == {"AITEX"}


def test_blank_patches_can_be_dropped(tmp_path: Path) -> None:
    pixels = np.tile(np.arange(256, dtype=np.uint8) // 2, (256, 16))
    pixels[:, :300] = 255  # the whole of patch 0, and less than half of patch 1
    pixels[:, 1024:1290] = 77  # the whole of patch 4 is flat
    for path in ("NODefect_images/2311694-2040n7u/0001_000_00.png", "Defect_images/0001_002_00.png"):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / path)
    mask(tmp_path / "Mask_images/0001_002_00_mask.png", (4096, 256), [(100, 1000, 255)])
    every = dataset(tmp_path).samples()
    data = dataset(tmp_path, "aitex[drop_blank=on]")
    assert len(every) == 16 + 5
    dropped = {(s.type, s.box[0] // 256) for s in set(every) - set(data.samples()) if s.box}
    assert dropped == {("good", 0), ("good", 4), ("Broken_end", 0), ("Broken_end", 4)}
    assert "4 patches" in next(f.message for f in data.check() if "drop_blank" in f.message)


def test_every_layout_problem_is_named_at_once(tmp_path: Path) -> None:
    aitex(tmp_path, free=1)
    strip(tmp_path, "0200_099_02", marks=[(0, 4, 255)])
    strip(tmp_path, "0201_019_09", marks=[(0, 4, 255)])
    strip(tmp_path, "0202_019_02")
    strip(tmp_path, "0203_019_02", marks=[])
    mask(tmp_path / "Mask_images/0300_019_02_mask.png")
    picture(tmp_path / "Mask_images/0001_002_00.png")
    picture(tmp_path / "Defect_images/0001_000_00.png")
    picture(tmp_path / "Defect_images/holiday.png")
    mask(tmp_path / "Defect_images/0001_002_00_mask.png")
    picture(tmp_path / "Defect_images/unused/0001_002_00.png")
    picture(tmp_path / "NODefect_images/0001_000_00.png")
    picture(tmp_path / "NODefect_images/2311694-2040n7u/0001_000_03.png")
    picture(tmp_path / "NODefect_images/2311694-2040n7u/0001_002_00.png")
    picture(tmp_path / "0001_000_00.png")
    picture(tmp_path / "Defect_images/0204_019_02.png", (512, 128))
    mask(tmp_path / "Mask_images/0204_019_02_mask.png", (512, 128))
    expected = {
        "Defect_images/0200_099_02.png": "unknown defect code 099",
        "Defect_images/0201_019_09.png": "unknown fabric code 09",
        "Defect_images/0202_019_02.png": "without a mask",
        "Defect_images/0203_019_02.png": "nothing is marked",
        "Defect_images/0204_019_02.png": "256 pixels high",
        "Mask_images/0300_019_02_mask.png": "without its image",
        "Mask_images/0001_002_00.png": "not named like a mask",
        "Defect_images/0001_000_00.png": "misplaced",
        "Defect_images/holiday.png": "not named",
        "Defect_images/0001_002_00_mask.png": "misplaced",
        "Defect_images/unused": "misplaced",
        "NODefect_images/0001_000_00.png": "misplaced",
        "NODefect_images/2311694-2040n7u/0001_000_03.png": "misplaced",
        "NODefect_images/2311694-2040n7u/0001_002_00.png": "misplaced",
        "0001_000_00.png": "misplaced",
    }
    found = findings(dataset(tmp_path), "error")
    assert set(found) == set(expected)
    for path, words in expected.items():
        assert words in found[path]


def test_a_strip_without_a_mask_is_listed_whole(tmp_path: Path) -> None:
    aitex(tmp_path, free=1)
    strip(tmp_path, "0202_019_02")
    sample = anomalous(dataset(tmp_path))["02/test/Fuzzyball/0202_019_02"]
    assert (sample.masks, sample.box) == ((), None)


@pytest.mark.parametrize("broken", ["Defect_images/0004_002_01.png", "Mask_images/0004_002_01_mask.png"])
def test_a_file_that_cannot_be_read_is_left_for_the_engine_to_report(tmp_path: Path, broken: str) -> None:
    aitex(tmp_path, free=1)
    (tmp_path / broken).write_bytes(b"not a PNG")
    sample = anomalous(dataset(tmp_path))["01/test/Broken_end/0004_002_01"]
    assert sample.box is None
    assert sample.masks == (tmp_path / "Mask_images/0004_002_01_mask.png",)


def test_a_mask_of_another_size_is_left_for_the_engine_to_report(tmp_path: Path) -> None:
    aitex(tmp_path, free=1)
    mask(tmp_path / "Mask_images/0004_002_01_mask.png", (4000, 256))
    assert anomalous(dataset(tmp_path))["01/test/Broken_end/0004_002_01"].box is None


def test_missing_folders(tmp_path: Path) -> None:
    aitex(tmp_path, free=1)
    (tmp_path / "Mask_images").rename(tmp_path / "masks")
    data = dataset(tmp_path)
    assert findings(data, "error")["Mask_images"] == "this folder is missing"
    assert all(s.masks == () for s in data.samples())


def test_a_fabric_without_anomalies_is_noted(tmp_path: Path) -> None:
    aitex(tmp_path, free=1)
    (tmp_path / "Defect_images/0055_019_06.png").unlink()
    (tmp_path / "Mask_images/0055_019_06_mask.png").unlink()
    notes = [f.message for f in dataset(tmp_path).check() if f.path == "Defect_images"]
    assert notes == ["fabric 06 has no anomalous patch: there is nothing to detect in it"]


def test_a_wrong_root(tmp_path: Path) -> None:
    aitex(tmp_path / "aitex", free=1)
    for given in (tmp_path, tmp_path / "aitex" / "Mask_images"):
        with pytest.raises(BenchError, match="Expected the folders Defect_images") as caught:
            dataset(given).samples()
        assert str(caught.value).endswith(f"Did you mean {tmp_path / 'aitex'}?")
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "Defect_images.7z").write_bytes(b"")
    with pytest.raises(BenchError, match=r"Unpack Defect_images.7z first\?"):
        dataset(tmp_path / "new").samples()


def test_files_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(root)
    first = data.samples()
    monkeypatch.setattr(Image, "open", None)
    assert data.samples() is first
    assert data.check()


def test_fabrics_share_their_prompts(root: Path) -> None:
    prompts = dataset(root).prompts()
    assert set(prompts) == set(FABRICS)
    assert {p.label for p in prompts.values()} == {"fabric"}
    assert len({p.normality for p in prompts.values()}) == 1


def test_real_strips(real_data: Path) -> None:
    data = dataset(real_data / "aitex")
    assert findings(data, "error") == {}
    samples = data.samples()
    assert Counter(s.category for s in samples if s.anomalous) == {
        "00": 4,
        "01": 21,
        "02": 19,
        "03": 52,
        "04": 7,
        "06": 3,
    }
    assert Counter((s.category, s.split) for s in samples if not s.anomalous) == {
        **{(code, "train"): 48 for code in FABRICS},
        **{(code, "test"): 16 for code in FABRICS},
    }
    strips = {s.group: s for s in samples if s.anomalous}
    assert Counter(s.category for s in strips.values()) == {
        "00": 4,
        "01": 6,
        "02": 19,
        "03": 16,
        "04": 5,
        "06": 3,
    }
    assert Counter(group.split("_")[2] for group in strips) == {  # the README's, less 0100_025_08
        "002": 5,
        "006": 5,
        "010": 5,
        "016": 1,
        "019": 19,
        "022": 5,
        "023": 2,
        "025": 3,
        "029": 1,
        "030": 6,
        "036": 1,
    }
    notes = findings(data, "note")
    assert "54 of 106 defective strips, 28 of 141 defect-free strips, 53 of 107 masks" in notes["."]
    assert "Defect_images/0100_025_08.png" in notes
