"""The field's datasets: on trees in the official layouts, with every irregularity, the right value of each."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import field_trees
import numpy as np
import pytest
from trees import category, mask, picture

from bench.contracts import Sample
from bench.data.catalogue import open_catalogue
from bench.data.images import read_image, read_mask
from bench.errors import BenchError
from bench.tools.registry import DATASETS
from bench.tools.spec import build_config, parse_spec


def dataset(root: Path, spec: str) -> Any:
    parsed = parse_spec(spec)
    cls = DATASETS.load(parsed.name)
    return cls(root, build_config(cls.Config, parsed, "dataset"))


def by_id(root: Path, spec: str) -> dict[str, Sample]:
    return {sample.id: sample for sample in dataset(root, spec).samples()}


def said(root: Path, spec: str, level: str) -> dict[str, str]:
    return {f.path: f.message for f in dataset(root, spec).check() if f.level == level}


def marked(sample: Sample) -> int:
    return int(read_mask(sample).sum())


def counts(samples: dict[str, Sample]) -> Counter[tuple[str, str]]:
    return Counter((sample.split, sample.type) for sample in samples.values())


@pytest.mark.parametrize("spec", field_trees.TREES)
def test_names_what_is_a_subset_of_what_and_finds_no_error(spec: str, tmp_path: Path) -> None:
    field_trees.TREES[spec](tmp_path)
    data = dataset(tmp_path, spec)
    assert [f for f in data.check() if f.level == "error"] == []
    if data.traits.counts or data.traits.files:
        assert " of " in data.subset()


@pytest.mark.parametrize("name", sorted(set(DATASETS.names()) - {"folder", "pocket"}))
def test_traits(name: str) -> None:
    traits = DATASETS.load(name).traits
    assert traits.citation and traits.page.startswith("https://") and traits.folders
    assert traits.licence or "licence" in traits.remark or name == "aitex"
    assert traits.counts or traits.files or "not known" in traits.remark


@pytest.mark.parametrize("spec", field_trees.TREES)
@pytest.mark.parametrize("other", ["empty", "mvtec", "wrong"])
def test_another_datasets_folder_is_refused_in_one_line(spec: str, other: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    if other == "mvtec":
        category(root, "bottle", {"broken_large": 1})
    if other == "wrong":
        (root / "data.zip").write_bytes(b"x")
    with pytest.raises(BenchError) as caught:
        dataset(root, spec).samples()
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


@pytest.mark.parametrize("spec", ["visa", "ksdd", "mpdd", "dagm", "mvtec_loco", "brainmri", "isic", "ksdd2"])
def test_the_folder_above_gets_the_right_one(spec: str, tmp_path: Path) -> None:
    field_trees.TREES[spec](tmp_path / "inner")
    with pytest.raises(BenchError, match=r"Did you mean .*inner"):
        dataset(tmp_path, spec).samples()


# ---------------------------------------------------------------- VisA


def test_official_numbers_of_visa() -> None:
    official = DATASETS.load("visa").traits.counts
    assert sum(each.train for each in official.values()) == 8659
    assert sum(each.normal for each in official.values()) == 962
    assert sum(each.anomalous for each in official.values()) == 1200


def test_visa_raw(tmp_path: Path) -> None:
    field_trees.visa(tmp_path)
    samples = by_id(tmp_path, "visa")
    assert counts(samples) == {
        ("train", "good"): 6, ("test", "good"): 4, ("test", "bubble"): 1, ("test", "discolor,scratch"): 1,
        ("test", "leak"): 1, ("test", "bent"): 1, ("test", "melt"): 1,
    }  # fmt: skip
    # Stems are used twice: the normal 000 has no mask, the anomalous one has.
    assert samples["capsules/train/good/000"].masks == ()
    bubble = samples["capsules/test/bad/000"]
    assert bubble.image == tmp_path / "capsules/Data/Images/Anomaly/000.JPG"
    # Ids of 1 are defects: a threshold in the middle of the range would find none.
    assert marked(bubble) == 2
    both = samples["capsules/test/bad/001"]
    assert (both.types, both.all_types, marked(both)) == (("discolor", "scratch"), ("discolor", "scratch"), 4)
    assert bubble.types == () and bubble.all_types == ("bubble",)
    notes = said(tmp_path, "visa", "note")
    assert "2 of 12 categories" in notes["."]
    assert "3 of 542 train/good, 2 of 60 test/good, 3 of 100 anomalous test images" in notes["capsules"]
    (strays,) = [text for text in notes.values() if "left behind" in text]
    assert "and 9 more" in strays


def test_visa_ids_in_masks_are_no_smoothed_edges(tmp_path: Path) -> None:
    from bench.data.catalogue import check_content

    field_trees.visa(tmp_path)
    assert check_content(open_catalogue(parse_spec("visa"), tmp_path)) == []


def test_visa_few_shot_split_has_anomalies_in_its_training_part(tmp_path: Path) -> None:
    field_trees.visa(tmp_path)
    samples = by_id(tmp_path, "visa[split=2cls_fewshot]")
    assert [key for key, s in samples.items() if s.split == "train" and s.anomalous] == ["capsules/train/bad/000"]
    # What is official follows from the list itself: two of its images are not there.
    assert dataset(tmp_path, "visa[split=2cls_fewshot]").subset().startswith("2 of 3 categories")


def test_visa_by_meta_json_and_converted(tmp_path: Path) -> None:
    raw = by_id(field_trees.visa(tmp_path / "raw"), "visa")
    meta = by_id(field_trees.visa_meta(tmp_path / "meta"), "visa")
    assert [(s.id, s.type, marked(s)) for s in meta.values()] == [(s.id, s.type, marked(s)) for s in raw.values()]
    root = field_trees.visa_converted(tmp_path / "converted")
    for place in (root, root / "1cls"):
        converted = by_id(place, "visa")
        assert counts(converted) == {("train", "good"): 6, ("test", "good"): 4, ("test", "bad"): 6}
        assert marked(converted["capsules/test/bad/000"]) == field_trees.MARKED  # three channels
    with pytest.raises(BenchError, match="1cls only"):
        by_id(root / "1cls", "visa[split=2cls_fewshot]")


def test_visa_without_its_list_or_with_a_wrong_one(tmp_path: Path) -> None:
    root = field_trees.visa(tmp_path)
    table = root / "split_csv" / "1cls.csv"
    rows = table.read_text()
    (root / "capsules/Data/Masks/Anomaly/000.png").unlink()
    table.write_text(
        rows + "capsules,test,normal,capsules/Data/Images/Normal/000.JPG,\n"
        "capsules,test,normal,../x.JPG,\npcb1,valid,normal,pcb1/Data/Images/Normal/0009.JPG,\n"
    )
    picture(root / "pcb1/Data/Images/Normal/0077.JPG")
    errors = said(root, "visa", "error")
    assert "listed twice" in errors["capsules/Data/Images/Normal/000.JPG"]
    assert "listed and missing" in errors["capsules/Data/Masks/Anomaly/000.png"]
    messages = " ".join(f.message for f in dataset(root, "visa").check())
    assert "lies outside" in messages and "'valid' is neither train nor test" in messages
    assert "0077.JPG" in said(root, "visa", "note")["pcb1/Data/Images/Normal"]
    table.unlink()
    with pytest.raises(BenchError, match=r"1cls\.csv is missing.*amazon-science/spot-diff"):
        by_id(root, "visa")


def test_real_visa(real_data: Path) -> None:
    if not (real_data / "visa").is_dir():
        pytest.skip("no real images of VisA")
    data = dataset(real_data / "visa", "visa")
    samples = data.samples()
    assert Counter((s.category, s.split, s.anomalous) for s in samples) == {
        ("capsules", "train", False): 16, ("capsules", "test", False): 14, ("capsules", "test", True): 25,
        ("macaroni1", "train", False): 20, ("macaroni1", "test", False): 20, ("macaroni1", "test", True): 25,
    }  # fmt: skip
    assert {name for s in samples if s.category == "capsules" for name in s.all_types} == {
        "bubble", "discolor", "scratch", "leak", "misshape",
    }  # fmt: skip
    assert all(marked(s) for s in samples if s.anomalous)
    assert data.subset() == "2 of 12 categories, 36 of 8,659 training images, 84 of 2,162 test images"
    assert not [f for f in data.check() if f.level == "error"]


# ---------------------------------------------------------------- KolektorSDD


def test_ksdd_thirds(tmp_path: Path) -> None:
    field_trees.ksdd(tmp_path)
    samples = by_id(tmp_path, "ksdd")
    assert len(samples) == 3 * 31
    bad = [s for s in samples.values() if s.anomalous]
    assert [s.id for s in bad] == [f"ksdd/test/defect/kos{item}_Part5_0" for item in ("01", "20", "21", "26")]
    # Index 1 has the colour 85 in kos20; all eight pixels are defects.
    assert [marked(s) for s in bad] == [8, 8, 8, 8]
    # 35 rows: 0 to 11, 11 to 23, 23 to 35, so that no row is lost.
    thirds = [s for s in samples.values() if s.image.name == "Part5.jpg" and "kos01" in s.id]
    assert sorted(s.box for s in thirds if s.box) == [(0, 0, 20, 11), (0, 11, 20, 23), (0, 23, 20, 35)]
    assert read_image(bad[0]).shape == (*read_mask(bad[0]).shape, 3) == (11, 20, 3)
    # No photograph on both sides, nor its copy in kos26.
    sides = {}
    for sample in samples.values():
        sides.setdefault(sample.group, set()).add(sample.split)
    assert all(len(each) == 1 for each in sides.values())
    assert {s.group for s in samples.values() if "kos26" in s.id} == {f"kos01/Part{i}" for i in range(8)}
    free = {s.group for s in samples.values() if s.split == "train"}
    assert len(free) == 15  # of 20 defect-free photographs that differ


def test_ksdd_options(tmp_path: Path) -> None:
    field_trees.ksdd(tmp_path)
    whole = by_id(tmp_path, "ksdd[images=whole]")
    assert len(whole) == 31 and sum(s.anomalous for s in whole.values()) == 4
    assert all(s.box is None for s in whole.values())
    third = by_id(tmp_path, "ksdd[split=third]")
    normal = [s for s in third.values() if not s.anomalous]
    assert (sum(s.split == "train" for s in normal), len(normal)) == (66, 89)  # 23 of 89 are tested, rounded up
    (tmp_path / "kos01/Part0_label.bmp").unlink()
    mask(tmp_path / "kos20/Part9_label.bmp")
    assert said(tmp_path, "ksdd", "error").keys() == {"kos01/Part0.jpg", "kos20/Part9_label.bmp"}
    assert (
        "4 of 50 items, 31 of 399 photographs, 4 of 52 defective photographs, 30 of 399 masks"
        in (said(tmp_path, "ksdd", "note")["."])
    )


def test_real_ksdd(real_data: Path) -> None:
    root = real_data / "ksdd" / "KolektorSDD"
    if not root.is_dir():
        pytest.skip("no real images of KolektorSDD")
    data = dataset(root, "ksdd[images=whole]")
    samples = {s.id: s for s in data.samples()}
    assert (len(samples), sum(s.anomalous for s in samples.values())) == (39, 7)
    assert marked(samples["ksdd/test/defect/kos20_Part4"]) == 3692
    assert marked(samples["ksdd/test/defect/kos01_Part5"]) == 1143
    assert data.subset() == "5 of 50 items, 39 of 399 photographs, 7 of 52 defective photographs, 39 of 399 masks"
    thirds = dataset(root, "ksdd").samples()
    assert len(thirds) == 117
    assert sum(marked(s) for s in thirds if s.anomalous) == sum(marked(s) for s in samples.values() if s.anomalous)


def test_ksdd2(tmp_path: Path) -> None:
    field_trees.ksdd2(tmp_path)
    samples = by_id(tmp_path, "ksdd2")
    assert counts(samples) == {
        ("train", "good"): 4, ("train", "defect"): 1, ("test", "good"): 4, ("test", "defect"): 1,
    }  # fmt: skip
    assert marked(samples["ksdd2/test/defect/20004"]) == 30  # of the only picture with more than 20 rows
    notes = said(tmp_path, "ksdd2", "note")
    assert {"train/10001 (copy).png", "train/10001_GT (copy).png"} <= notes.keys()
    assert "4 of 2,085 train/good, 1 of 246 anomalous training images" in notes["ksdd2"]
    (tmp_path / "test/20001_GT.png").unlink()
    mask(tmp_path / "test/29999_GT.png")
    assert said(tmp_path, "ksdd2", "error").keys() == {"test/20001.png", "test/29999_GT.png"}


# ---------------------------------------------------------------- others


def test_btad(tmp_path: Path) -> None:
    field_trees.btad(tmp_path)
    samples = by_id(tmp_path, "btad")
    assert len(samples) == 27
    assert samples["01/test/ok/0000"].masks == ()  # though ko has a 0000 with a mask
    assert samples["01/test/ko/0000"].masks == (tmp_path / "01/ground_truth/ko/0000.png",)
    assert samples["03/test/ko/0000"].masks == (tmp_path / "03/ground_truth/ko/0000.bmp",)
    assert read_image(samples["03/test/ko/0028"]).shape == (9, 12, 3)
    assert {s.type for s in samples.values()} == {"good", "ko"}
    assert "without its image" in said(tmp_path, "btad", "note")["01/ground_truth/ko/0027.png"]
    mask(tmp_path / "02/ground_truth/ko/0027.png")
    assert said(tmp_path, "btad", "error").keys() == {"02/ground_truth/ko/0027.png"}
    official = DATASETS.load("btad").traits.counts
    assert [each.train for each in official.values()] == [400, 399, 1000]  # not as the authors' README has it
    assert sum(each.normal + each.anomalous for each in official.values()) == 741


def test_mpdd_and_dtd(tmp_path: Path) -> None:
    samples = by_id(field_trees.mpdd(tmp_path / "mpdd"), "mpdd")
    assert len(samples) == 2 * 5 + 5
    assert "left behind" in said(tmp_path / "mpdd", "mpdd", "note")["__MACOSX"]
    official = DATASETS.load("mpdd").traits.counts.values()
    assert [sum(each[0] for each in official), sum(each[1] for each in official)] == [888, 176]
    assert sum(each.anomalous for each in official) == 282
    samples = by_id(field_trees.dtd_synthetic(tmp_path / "dtd"), "dtd_synthetic")
    assert "Woven_068/test/good/mesh_000" in samples
    official = DATASETS.load("dtd_synthetic").traits.counts.values()
    assert sum(each.normal for each in official) == 357
    assert sum(each.anomalous for each in official) == 947


def test_goodsad_masks_have_the_images_name(tmp_path: Path) -> None:
    samples = by_id(field_trees.goodsad(tmp_path), "goodsad")
    assert marked(samples["drink_can/test/surface_damage/001"]) == field_trees.MARKED
    assert "3 of 3,136 training images" in dataset(tmp_path, "goodsad").subset()


def test_dagm(tmp_path: Path) -> None:
    field_trees.dagm(tmp_path)
    samples = by_id(tmp_path, "dagm")
    assert len(samples) == 20
    assert [s.id for s in samples.values() if s.anomalous] == [
        "Class1/test/defect/0003", "Class1/train/defect/0003",
        "Class10/test/defect/0003", "Class10/train/defect/0003",
    ]  # fmt: skip
    assert read_image(samples["Class1/train/good/0001"])[1, 1, 0] == 68
    assert read_image(samples["Class1/test/good/0001"])[1, 1, 0] == 118
    mask(tmp_path / "Class1/Test/Label/0099_label.PNG")
    shutil.rmtree(tmp_path / "Class10/Train")
    assert said(tmp_path, "dagm", "error").keys() == {"Class1/Test/Label/0099_label.PNG", "Class10/Train"}


def test_mvtec_ad2(tmp_path: Path) -> None:
    field_trees.mvtec_ad2(tmp_path)
    samples = by_id(tmp_path, "mvtec_ad2")
    assert sorted(samples) == [
        f"can/{part}/000_{light}" for part in ("test/bad", "test/good", "train/good")
        for light in ("overexposed", "regular")
    ]  # fmt: skip
    assert marked(samples["can/test/bad/000_regular"]) == field_trees.MARKED
    assert len({s.group for s in samples.values()}) == 3  # one scene under two lights is one group
    (tmp_path / "can/test_public/ground_truth/bad/000_regular_mask.png").unlink()
    assert said(tmp_path, "mvtec_ad2", "error").keys() == {"can/test_public/bad/000_regular.png"}


def test_mvtec_loco(tmp_path: Path) -> None:
    field_trees.mvtec_loco(tmp_path)
    samples = by_id(tmp_path, "mvtec_loco")
    logical = samples["screw_bag/test/logical_anomalies/000"]
    assert len(logical.masks) == 2
    assert marked(logical) == 9  # a column of value 236 and two of value 3
    assert marked(samples["screw_bag/test/structural_anomalies/001"]) == 3
    assert counts(samples)["train", "good"] == 2  # without validation
    official = DATASETS.load("mvtec_loco").traits.counts
    assert sum(each.train for each in official.values()) == 1778
    assert "sPRO" in DATASETS.load("mvtec_loco").traits.note
    shutil.rmtree(tmp_path / "screw_bag/ground_truth/logical_anomalies/000")
    mask(tmp_path / "screw_bag/ground_truth/logical_anomalies/077/000.png")
    assert said(tmp_path, "mvtec_loco", "error").keys() == {
        "screw_bag/test/logical_anomalies/000.png", "screw_bag/ground_truth/logical_anomalies/077",
    }  # fmt: skip


def test_mvtec_3d(tmp_path: Path) -> None:
    field_trees.mvtec_3d(tmp_path)
    samples = by_id(tmp_path, "mvtec_3d")
    assert counts(samples) == {("train", "good"): 2, ("test", "good"): 2, ("test", "hole"): 2}
    assert samples["bagel/test/good/000"].masks == ()
    assert marked(samples["bagel/test/hole/000"]) == field_trees.MARKED


def test_real_iad(tmp_path: Path) -> None:
    field_trees.real_iad(tmp_path)
    with pytest.raises(BenchError, match=r"several resolutions.*real_iad\[size=1024\]"):
        by_id(tmp_path, "real_iad")
    single = by_id(tmp_path, "real_iad[size=256]")
    assert counts(single) == {("train", "good"): 2, ("test", "good"): 1, ("test", "AK"): 1}
    every = by_id(tmp_path, "real_iad[size=1024,split=all]")
    # The second view of the defective specimen has no mask: it is normal.
    assert counts(every) == {("train", "good"): 4, ("test", "good"): 3, ("test", "AK"): 1}
    unseen = every["toy/test/good/toy_0004_NG_AK_C2_20230920"]
    assert unseen.group == every["toy/test/AK/toy_0004_NG_AK_C1_20230920"].group
    assert "the defect is not seen" in said(tmp_path, "real_iad[size=1024,split=all]", "note")["realiad_1024/toy"]
    noisy = by_id(tmp_path, "real_iad[size=256,split=fuiad_0.1]")
    assert counts(noisy)["train", "AK"] == 1
    with pytest.raises(BenchError, match=r"no realiad_jsons_fuiad_0\.4"):
        by_id(tmp_path, "real_iad[size=256,split=fuiad_0.4]")
    with pytest.raises(BenchError, match="no realiad_512; it has realiad_256, realiad_1024"):
        by_id(tmp_path, "real_iad[size=512]")
    # Lists beside the objects, as other programs have them.
    beside = tmp_path / "beside"
    shutil.copytree(tmp_path / "realiad_256", beside)
    shutil.copy(tmp_path / "realiad_jsons/realiad_jsons/toy.json", beside)
    assert counts(by_id(beside, "real_iad[split=all]")) == counts(every)
    gone = next((tmp_path / "realiad_256/toy/OK/S0001").iterdir())
    gone.unlink()
    assert "1 of 4 listed images are not there" in said(tmp_path, "real_iad[size=256]", "note")["realiad_256/toy"]
    assert dataset(tmp_path, "real_iad[size=256]").subset() == "1 of 30 objects, 3 of 4 listed images"


# ---------------------------------------------------------------- medical sets


def test_headct(tmp_path: Path) -> None:
    samples = by_id(field_trees.headct(tmp_path / "kaggle"), "headct")
    assert counts(samples) == {("test", "good"): 2, ("test", "hemorrhage"): 2}
    assert samples["headct/test/hemorrhage/001"].lacks_mask
    for name in ("good", "defect"):
        picture(tmp_path / "field" / "test" / name / "000.png", value=len(name) * 20)
    assert counts(by_id(tmp_path / "field", "headct")) == {("test", "good"): 1, ("test", "hemorrhage"): 1}
    (tmp_path / "kaggle/head_ct/head_ct/003.png").unlink()
    picture(tmp_path / "kaggle/head_ct/head_ct/009.png")
    (tmp_path / "kaggle/labels.csv").write_text("id, hemorrhage\n0,1\n1,x\n2,0\n3,0\n0,0\n")
    messages = " ".join(f.message for f in dataset(tmp_path / "kaggle", "headct").check() if f.level == "error")
    for words in ("'x' is neither 0 nor 1", "no image 003.png", "listed twice", "not in labels.csv"):
        assert words in messages


def test_brainmri_and_br35h(tmp_path: Path) -> None:
    samples = by_id(field_trees.brainmri(tmp_path / "mri"), "brainmri")
    assert counts(samples) == {("test", "good"): 4, ("test", "tumor"): 2}
    assert {"brainmri/test/good/no 3", "brainmri/test/good/no 3.png"} <= samples.keys()
    samples = by_id(field_trees.br35h(tmp_path / "br"), "br35h")
    assert counts(samples) == {("test", "good"): 2, ("test", "tumor"): 2}
    assert "not part of the set" in said(tmp_path / "br", "br35h", "note")["pred"]


@pytest.mark.parametrize("spec", ["isic", "colondb", "clinicdb", "kvasir", "endo", "tn3k", "cvc300"])
def test_sets_of_anomalous_images_alone(spec: str, tmp_path: Path) -> None:
    field_trees.TREES[spec](tmp_path)
    samples = dataset(tmp_path, spec).samples()
    assert len(samples) == 2 and all(s.anomalous and s.masks and s.split == "test" for s in samples)
    if spec != "isic":
        found = [marked(s) for s in samples]
        assert found == [100, 100]  # of JPEG masks, too: grey pixels at the edges do not count
    by_name = samples[0]
    assert by_name.image.stem in by_name.masks[0].stem
    by_name.masks[0].unlink()
    picture(by_name.masks[0].with_name("999" + by_name.masks[0].suffix), (32, 32))
    assert len(said(tmp_path, spec, "error")) == 2


def test_jpeg_masks_are_cut_in_the_middle(tmp_path: Path) -> None:
    field_trees.TREES["kvasir"](tmp_path)
    sample = dataset(tmp_path, "kvasir").samples()[0]
    from bench.data.images import brightest

    stored = brightest(sample.masks[0])
    assert (stored > 0).sum() > 100  # smeared
    assert sample.mask_threshold == 127
    with pytest.raises(BenchError, match="0 to 254"):
        dataset(tmp_path, "kvasir[mask_threshold=255]")


def test_a_complete_dataset_is_called_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from bench.cli.main import main

    field_trees.TREES["cvc300"](tmp_path)
    for index in range(3, 61):
        shutil.copy(tmp_path / "images/1.png", tmp_path / f"images/{index}.png")
        shutil.copy(tmp_path / "masks/1.png", tmp_path / f"masks/{index}.png")
    result = CliRunner().invoke(main, ["data", "check", "cvc300", "--data-root", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "complete: the official numbers of images" in result.output
    (tmp_path / "images/60.png").unlink()
    (tmp_path / "masks/60.png").unlink()
    result = CliRunner().invoke(main, ["data", "check", "cvc300", "--data-root", str(tmp_path)])
    assert "a subset: 59 of 60 test images" in result.output
    shown = CliRunner().invoke(main, ["data", "show", "cvc300"]).output
    assert "citation" in shown and "0 train, 0 test normal, 60 test anomalous" in shown
    listed = CliRunner().invoke(main, ["list", "datasets"]).output
    assert "VisA, 12 categories, CC BY 4.0" in listed


def test_a_palette_of_any_colours_is_read_by_its_indices(tmp_path: Path) -> None:
    from bench.data.images import brightest

    indices = np.zeros((6, 6), int)
    indices[1, 1:4] = 2
    file = field_trees.palette_mask(tmp_path / "m.png", indices, (0, 255, 0))  # 2 is black
    assert (brightest(file, indices=True) > 0).sum() == 3
    assert (brightest(file) > 0).sum() == 0
