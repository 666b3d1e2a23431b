"""Detectors used on pictures: from Python and from the command line, and what may be wrong with either."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from toy_data import write_toy_data

import bench
from bench.cli.main import main
from bench.contracts import Prompts
from bench.errors import BenchError
from bench.predict.predictions import threshold_at
from bench.store.detectors import dump_detector, load_detector
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture(autouse=True)
def trainings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZSAD_TRAININGS", str(tmp_path / "trainings.txt"))
    monkeypatch.chdir(tmp_path)  # the store's default place is below the working directory
    return tmp_path / "trainings.txt"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_toy_data(tmp_path / "source", first_seed=1000)
    return tmp_path / "source"


@pytest.fixture
def detector(source: Path) -> bench.Detector:
    return bench.fit("toy-keeper", train_dataset="folder", train_root=source, protocol="transfer", shots=2)


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


# ---------------------------------------------------------------- fitting, saving, loading


def test_a_detector_scores_alike_after_it_was_saved_and_loaded(
    detector: bench.Detector, toy_root: Path, tmp_path: Path
) -> None:
    files = sorted((toy_root / "bolt/test").rglob("*.png"))
    before = detector.predict(files)
    detector.save(tmp_path / "kept.zsad")
    again = bench.load(tmp_path / "kept.zsad")
    np.testing.assert_array_equal(again.predict(files).image, before.image)
    assert repr(again) == "<Detector toy-keeper: learned from 18 images of folder>"
    again.save(tmp_path / "copy.zsad")
    assert (tmp_path / "copy.zsad").read_bytes() == (tmp_path / "kept.zsad").read_bytes()


def test_bench_fit_gives_the_detector_that_a_study_trains(source: Path, toy_root: Path, tmp_path: Path) -> None:
    data = ["--train-dataset", "folder", "--train-root", source, "--protocol", "transfer", "--shots", 2]
    study = ["--methods", "toy-keeper", "--dataset", "folder", "--data-root", toy_root, "--workers", 0]
    result = call("run", *data, *study, "--keep-detectors", "--store", tmp_path / "store")
    assert result.exit_code == 0, result.output
    (kept,) = Store(tmp_path / "store").detectors()
    result = call("fit", "--method", "toy-keeper", *data, "--output", tmp_path / "mine.zsad")
    assert result.exit_code == 0, result.output
    theirs, state = load_detector(kept.read_bytes(), "")
    mine, own = load_detector((tmp_path / "mine.zsad").read_bytes(), "")
    assert mine | {"seconds": 0} == theirs | {"seconds": 0}
    assert {name: float(t) for name, t in own.tensors.items()} == {n: float(t) for n, t in state.tensors.items()}
    # the scores of the study's trials are those of the detector on the same files
    store = Store(tmp_path / "store")
    for record in store.records():
        where = {image_id: toy_root / f"{image_id}.png" for image_id in store.score_ids(record.key)}
        scores = bench.load(kept).predict(list(where.values())).image
        np.testing.assert_array_equal(scores, store.scores(record.key)["image"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["toy-keeper"], "is trained: name a dataset to learn from"),
        (["toy-learner", "--train-dataset", "folder"], "cannot be kept"),
        (["toy-brightness", "--train-dataset", "folder"], "learns nothing"),
        (["toy-keeper", "--train-dataset", "folder", "--protocol", "lo"], "unknown protocol 'lo'"),
    ],
)
def test_what_cannot_be_fitted(words: list[str], said: str, tmp_path: Path) -> None:
    result = call("fit", "--method", *words, "--output", tmp_path / "d.zsad")
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "d.zsad").exists()


def test_training_that_fails_leaves_no_file(source: Path, tmp_path: Path) -> None:
    words = ["--train-dataset", "folder", "--train-root", source, "--output", tmp_path / "d.zsad"]
    result = call("fit", "--method", "toy-keeper[how=raise]", *words)
    assert result.exit_code == 2
    assert "toy-keeper[how=raise] could not be fitted: RuntimeError: boom in training" in result.output
    assert not (tmp_path / "d.zsad").exists()


# ---------------------------------------------------------------- bad files


def _rewritten(path: Path, change: dict[str, Any]) -> Path:
    description, state = load_detector(path.read_bytes(), "")
    path.write_bytes(dump_detector({**description, **change}, state))
    return path


def test_files_that_are_no_detector_of_this_version(detector: bench.Detector, tmp_path: Path) -> None:
    path = tmp_path / "d.zsad"
    with pytest.raises(BenchError, match="No such file"):
        bench.load(path)
    path.write_text("not one")
    with pytest.raises(BenchError, match="is not a detector, or is damaged"):
        bench.load(path)
    detector.save(path)
    method = load_detector(path.read_bytes(), "")[0]["method"]
    with pytest.raises(BenchError, match="'gone', which is not installed here"):
        bench.load(_rewritten(path, {"method": {**method, "name": "gone"}}))
    with pytest.raises(BenchError, match="fitted by version 0 of toy-keeper, and version 1 is installed"):
        bench.load(_rewritten(path, {"method": {**method, "version": "0"}}))


def test_other_weights_than_those_it_was_fitted_on(tmp_path: Path) -> None:
    bench.fit("clip", encoder="pocket/clip").save(tmp_path / "d.zsad")
    loaded = bench.load(tmp_path / "d.zsad")
    assert repr(loaded) == "<Detector clip[encoder=pocket/clip]: nothing learned>"
    other = {"encoder": {"name": "pocket/clip", "sha256": "0" * 64}}
    with pytest.raises(BenchError, match=r"fitted on other weights of pocket/clip .*--weights encoder=FILE"):
        bench.load(_rewritten(tmp_path / "d.zsad", {"weights": other}))


# ---------------------------------------------------------------- pictures


def test_pictures_come_as_files_folders_arrays_or_pil_images(detector: bench.Detector, toy_root: Path) -> None:
    folder = toy_root / "bolt/test/dent"
    by_folder = detector.predict(folder)
    files = sorted(folder.glob("*.png"))
    assert by_folder.names == tuple(map(str, files))
    arrays = [np.asarray(Image.open(file)) for file in files]
    for given in (files, [str(file) for file in files], arrays, [Image.open(file) for file in files]):
        np.testing.assert_array_equal(detector.predict(given).image, by_folder.image)
    np.testing.assert_array_equal(detector.predict(np.stack(arrays)).image, by_folder.image)
    assert detector.predict(arrays[0]).image[0] == by_folder.image[0]
    assert detector.predict(files[0]).image[0] == by_folder.image[0]
    assert detector.predict(arrays[:2]).names == ("image 0", "image 1")
    grey = detector.predict(arrays[0][..., 0])
    assert len(grey) == 1
    with pytest.raises(BenchError, match="image 0 is an array of float64; give uint8"):
        detector.predict(arrays[0] / 255)
    with pytest.raises(BenchError, match="there is no picture"):
        detector.predict([])


def test_more_pictures_than_are_decoded_at_once(detector: bench.Detector, toy_root: Path) -> None:
    whole = detector.predict(toy_root)
    assert len(whole) > 50
    some = detector.predict(whole.names[40:43])
    np.testing.assert_array_equal(some.image, whole.image[40:43])


def test_a_picture_that_cannot_be_read_is_named_and_the_others_go_on(
    detector: bench.Detector, toy_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(toy_root / "bolt/test/good", folder)
    (folder / "001.png").write_bytes(b"no picture")
    detector.save(tmp_path / "d.zsad")
    result = call("predict", tmp_path / "d.zsad", folder, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "not read: " in result.output
    assert "001.png: cannot be read as an image" in result.output
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    assert len(rows) == 3
    assert sum(bool(row["score"]) for row in rows) == 2
    with pytest.raises(BenchError, match="cannot be read as an image"):
        detector.predict(folder)


def test_pictures_that_it_was_trained_on_are_marked(
    detector: bench.Detector, source: Path, tmp_path: Path
) -> None:
    found = detector.predict(source / "bolt/train/good")
    assert found.met == found.names
    assert detector.predict(source / "bolt/test/good").met == ()
    page = found.save(tmp_path / "out").read_text()
    assert "4 of the pictures are among those that the detector was trained" in page


# ---------------------------------------------------------------- words, normal pictures, thresholds


def test_the_words_of_a_category(tmp_path: Path, toy_root: Path) -> None:
    clip = bench.fit("clip", encoder="pocket/clip")
    photo = toy_root / "bolt/test/good/000.png"
    with pytest.raises(BenchError, match="reads texts: say what is on the pictures"):
        clip.predict(photo)
    generic = clip.predict(photo, "metal bolt")
    assert generic.category == "metal bolt"
    own = Prompts("bolt", "a flawless bolt", "a bent bolt")
    assert clip.predict(photo, prompts=own).image[0] != generic.image[0]
    file = tmp_path / "prompts.yaml"
    file.write_text("bolt:\n  label: bolt\n  normality: a flawless bolt\n  abnormality: a bent bolt\n")
    np.testing.assert_array_equal(
        clip.predict(photo, "bolt", prompts=file).image, clip.predict(photo, prompts=own).image
    )
    with pytest.raises(BenchError, match="unknown category 'nut'"):
        clip.predict(photo, "nut", prompts=file)


def test_few_shot_methods_are_given_normal_pictures(toy_root: Path) -> None:
    clip = bench.fit("clip[few_shot=support]", encoder="pocket/clip")
    with pytest.raises(BenchError, match="needs normal pictures of the category: --normals"):
        clip.predict(toy_root / "bolt/test", "bolt")
    normals = toy_root / "bolt/train/good"
    found = clip.predict(normals, "bolt", normals=normals)
    assert found.image.max() < 1e-6  # each is its own closest one
    assert clip.predict(toy_root / "bolt/test/dent", "bolt", normals=normals).image.min() > 1e-3


def test_a_threshold_leaves_at_most_the_stated_share_of_normal_pictures_above_it() -> None:
    scores = np.arange(100, dtype=np.float32)
    for rate, above in ((0.0, 0), (0.01, 1), (0.05, 5), (0.055, 5), (0.5, 50)):
        threshold, note = threshold_at(scores[::-1], rate)
        assert (scores > threshold).sum() == above
        assert not note
    threshold, note = threshold_at(scores[:20], 0.01)
    assert threshold == 19
    assert note.startswith("20 normal pictures cannot tell a false-alarm rate of 0.01")
    with pytest.raises(BenchError, match="at least 0 and below 1"):
        threshold_at(scores, 1.0)


def test_verdicts_from_given_normal_pictures(toy_root: Path, tmp_path: Path) -> None:
    words = ["--method", "toy-brightness", toy_root / "bolt/test", "--calibrate", toy_root / "bolt/train/good"]
    result = call("predict", *words, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader((tmp_path / "out/scores.csv").read_text().splitlines()))
    for row in rows:
        if "/good/" not in row["image"]:
            assert row["anomalous"] == "1"  # the blots are brighter than all else
        map_ = np.load(tmp_path / "out" / row["map"], allow_pickle=False)
        assert map_.shape == (4, 4)
        assert map_.max() == pytest.approx(float(row["score"]))
        with Image.open(tmp_path / "out" / row["picture"]) as picture:
            assert picture.size == (32, 32)
    page = (tmp_path / "out/index.html").read_text()
    assert page.index("dent") < page.index("good")
    assert "Anomalous: image scores above" in page
    both = call("predict", *words, "--threshold", 3)
    assert both.exit_code == 2
    assert "not both" in both.output


def test_what_a_notebook_shows(toy_root: Path) -> None:
    found = bench.fit("toy-brightness").predict(toy_root / "bolt/test", threshold=200.0)
    html = found._repr_html_()
    assert html.count("data:image/webp;base64,") == 18
    assert "18 pictures, the most anomalous first" in html
    assert repr(found) == "<Predictions of toy-brightness: 18 pictures, 15 above the threshold 200>"
    frame = found.frame()
    assert list(frame.columns) == ["image", "score", "anomalous"]
    assert found.map_of(0).shape == (32, 32)


# ---------------------------------------------------------------- a dataset's own images


def test_metrics_on_a_category_with_labels(detector: bench.Detector, toy_root: Path, tmp_path: Path) -> None:
    detector.save(tmp_path / "d.zsad")
    words = ["predict", tmp_path / "d.zsad", "--dataset", "folder", "--data-root", toy_root, "--category", "bolt"]
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "image AUROC       1.000" in result.output
    assert "pixel AUROC       n/a (the method gives no" in result.output
    missing = call(*words[:-1], "nut")
    assert missing.exit_code == 2
    assert "unknown category 'nut' of folder" in missing.output


def test_a_detector_that_has_met_the_category_is_refused(
    detector: bench.Detector, source: Path, tmp_path: Path
) -> None:
    detector.save(tmp_path / "d.zsad")
    words = ["predict", tmp_path / "d.zsad", "--dataset", "folder", "--data-root", source, "--category", "bolt"]
    refused = call(*words)
    assert refused.exit_code == 2
    assert "leakage: the detector was trained on 6 images of bolt" in refused.output
    allowed = call(*words, "--allow-leak")
    assert allowed.exit_code == 0, allowed.output
    assert "these are not test results" in allowed.output


def test_the_file_tells_what_was_fitted_on_what(detector: bench.Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "d.zsad")
    data = (tmp_path / "d.zsad").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    told = json.loads(header["__metadata__"]["zsad-bench"].partition(" ")[2])
    assert told["trained_on"]["dataset"] == "folder"
    assert told["shots"] == 2
    assert told["method"]["label"] == "toy-keeper"


def test_normal_pictures_are_none_of_those_that_are_tested(toy_root: Path) -> None:
    words = ["predict", "--method", "clip[few_shot=support]", "--encoder", "pocket/clip", "--dataset", "folder"]
    words += ["--data-root", toy_root, "--category", "bolt", "--normals"]
    refused = call(*words, toy_root / "bolt/test/good")
    assert refused.exit_code == 2
    assert "leakage: --normals holds 3 test images of bolt" in refused.output
    assert call(*words, toy_root / "bolt/train/good").exit_code == 0


def test_odd_names_of_pictures(toy_root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    picture = (toy_root / "bolt/test/good/000.png").read_bytes()
    names = [
        b"caf\xe9.png",
        b"a b#1%20.png",
        b"a b#1%20.jpg",
        "螺".encode() * 60 + b".png",
        b"it's <b>.png",
        b"100?.png",
    ]
    for name in names:
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(picture)
    found = bench.fit("toy-brightness").predict(folder)
    page = found.save(tmp_path / "out")
    links = re.findall(r'<img src="([^"]+)"', page.read_text())
    assert len(set(links)) == len(names)
    for link in links:
        assert (page.parent / unquote(html.unescape(link))).is_file()
    assert len((tmp_path / "out/scores.csv").read_bytes().splitlines()) == 1 + len(names)


def test_results_are_not_mixed_with_others(toy_root: Path, tmp_path: Path) -> None:
    words = ["predict", "--method", "toy-brightness", toy_root / "bolt/test", "--output"]
    assert call(*words, tmp_path / "out").exit_code == 0
    again = call(*words, tmp_path / "out")
    assert again.exit_code == 2
    assert "is not empty" in again.output
    inside = call(*words, toy_root / "bolt/test/out")
    assert inside.exit_code == 2
    assert "choose a folder outside" in inside.output
