"""``bench figure`` on trials that were run, and on records with known numbers."""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from trial_records import record

from bench.cli.main import main
from bench.metrics import resize_bilinear
from bench.metrics.curves import Curve
from bench.report.figures import critical as diagram
from bench.store.store import Store
from bench.tools.registry import METHODS

pytestmark = pytest.mark.usefixtures("plugin")
NOTE = "pocket says nothing about MVTec AD"


class Study:
    """A study in a store, and the figures that were drawn of it."""

    def __init__(self, folder: Path, drawn: list[Figure]) -> None:
        self.folder, self.drawn = folder, drawn
        self.store = Store(folder / "store")

    def call(self, *words: str) -> Result:
        return CliRunner().invoke(main, [*words, "--store", str(self.store.root)])

    def figure(self, *words: str) -> Figure:
        result = self.call("figure", *words, "--output", str(self.folder / "a.svg"))
        assert result.exit_code == 0, result.output
        assert f"written: {self.folder / 'a.svg'}" in result.stderr
        return self.drawn[-1]

    def refused(self, *words: str) -> str:
        """The message of a call that must end as a user's error."""
        result = self.call("figure", *words)
        assert result.exit_code == 2, result.output
        assert isinstance(result.exception, SystemExit)
        return result.stderr.splitlines()[-1]

    def record(self, method: str, category: str, seed: int | None = None) -> dict[str, Any]:
        def found(trial: dict[str, Any]) -> bool:
            return (trial["method"]["name"], trial["category"], trial["seed"]) == (method, category, seed)

        (one,) = (each for each in self.store.documents() if found(each["trial"]))
        return one

    def value(self, metric: str, *which: Any) -> float:
        return float(self.record(*which)["metrics"]["exact"]["values"][metric])


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """An empty study whose figures are kept as they are saved."""
    drawn: list[Figure] = []
    save = diagram.save_figure

    def keep(figure: Figure, path: Path) -> None:
        drawn.append(figure)
        save(figure, path)

    monkeypatch.setattr(diagram, "save_figure", keep)
    monkeypatch.chdir(tmp_path)
    return Study(tmp_path, drawn)


@pytest.fixture
def toy(study: Study, toy_root: Path) -> Study:
    """Brightness, which has maps and no seeds, and a learner with two seeds, features and no maps."""
    data = ["--dataset", "folder", "--data-root", str(toy_root), "--workers", "0"]
    result = study.call("run", "--methods", "toy-brightness,toy-learner", "--shots", "1", "--seeds", "2", *data)
    assert result.exit_code == 0, result.output
    return study


def written(study: Study, *records: dict[str, Any]) -> Study:
    """The study with made-up records."""
    for each in records:
        study.store.write(each, None)
    methods = list(dict.fromkeys(each["trial"]["method"]["label"] for each in records))
    study.store.write_study("mine", {"keys": [each["key"] for each in records], "methods": methods})
    return study


def small_print(figure: Figure) -> str:
    return " ".join(figure.texts[-1].get_text().split())


# ---------------------------------------------------------------- maps


def test_maps_are_those_of_the_store(toy: Study) -> None:
    figure = toy.figure("maps", "--categories", "cloth,bolt", "--count", "2", "--methods", "toy-brightness")
    assert [axes.get_title() for axes in figure.axes[:3]] == ["image", "mask", "Brightness"]
    names = [axes.get_ylabel() for axes in figure.axes[:12:3]]
    assert [name.split("\n")[0] for name in names] == ["cloth", "cloth", "bolt", "bolt"]
    for place, name in enumerate(names):
        category, rest = name.split("\n")
        key = toy.record("toy-brightness", category)["key"]
        index = toy.store.score_ids(key).index(f"{category}/test/{rest}")
        shown = figure.axes[3 * place + 2].get_images()[0]
        assert np.array_equal(shown.get_array(), resize_bilinear(toy.store.scores(key)["maps"][index], (32, 32)))
        assert shown.get_clim() == pytest.approx(np.percentile(toy.store.scores(key)["maps"], (1, 99.9)))
        assert figure.axes[3 * place + 1].get_images()[0].get_array().any()  # an anomalous image
    best, worst = (float(axes.get_xlabel()) for axes in (figure.axes[2], figure.axes[5]))
    assert best >= worst
    assert "best to the worst by this AUROC of Brightness" in small_print(figure)


def test_one_method_is_shown_with_its_branches(toy: Study) -> None:
    key = toy.record("toy-brightness", "bolt")["key"]
    scores, ids = toy.store.scores(key), toy.store.score_ids(key)
    scores |= {"map_abnormality": scores["maps"] / 2, "map_normality": scores["maps"] / 3}
    toy.store.write(toy.record("toy-brightness", "bolt"), scores, ids)
    words = ("maps", "--methods", "toy-brightness", "--images", "good/001,dent/003")
    figure = toy.figure(*words, "--categories", "bolt")
    titles = [axes.get_title() for axes in figure.axes[:5]]
    assert titles == ["image", "mask", "abnormality branch", "normality branch", "fused map"]
    place = ids.index("bolt/test/good/001")
    drawn = [axes.get_images()[0].get_array() for axes in figure.axes[2:5]]
    for array, part in zip(drawn, (2, 3, 1), strict=True):
        np.testing.assert_allclose(array, resize_bilinear(scores["maps"][place] / part, (32, 32)))
    # Without --categories the images are looked for in all of them.
    shown = [axes.get_ylabel() for axes in toy.figure(*words).axes if axes.get_ylabel()]
    assert shown == [f"{c}\n{name}" for c in ("bolt", "cloth", "plate") for name in ("good/001", "dent/003")]


# ---------------------------------------------------------------- curves


@pytest.mark.parametrize("metric", ["image_auroc", "image_ap"])
def test_image_curves_have_the_records_numbers(toy: Study, metric: str) -> None:
    figure = toy.figure("curves", "--metric", metric)
    for axes in figure.axes:
        category = axes.get_title()
        seeds = [toy.value(metric, "toy-learner", category, seed) for seed in (0, 1)]
        mean, deviation = statistics.fmean(seeds), statistics.stdev(seeds)
        single = toy.value(metric, "toy-brightness", category)
        numbers = [text.get_text() for text in axes.get_legend().get_texts()]
        assert numbers == [f"{single:.3f}", f"{mean:.3f} ± {deviation:.3f}"]
        first, second = (Curve(*line.get_data()) for line in axes.get_lines() if line.get_label()[0] != "_")
        assert first.area() == pytest.approx(single, abs=1e-12)
        assert second.area() == pytest.approx(mean, abs=2e-3)


@pytest.mark.parametrize("metric", ["pixel_auroc", "pixel_ap", "aupro"])
def test_pixel_curves_have_the_records_numbers(toy: Study, metric: str) -> None:
    figure = toy.figure("curves", "--metric", metric, "--categories", "plate,bolt")
    assert [axes.get_title() for axes in figure.axes] == ["plate", "bolt"]
    for axes in figure.axes:
        (line,) = (line for line in axes.get_lines() if line.get_label()[0] != "_")
        number = toy.value(metric, "toy-brightness", axes.get_title())
        assert line.get_label() == f"{number:.3f}"
        assert Curve(*line.get_data()).area() == pytest.approx(number, abs=2e-3)
    assert "Learner on all: no value (all 2 seeds): the method gives no maps" in small_print(figure)


# ---------------------------------------------------------------- categories


def test_bars_are_the_tables_means(toy: Study) -> None:
    (axes,) = toy.figure("categories").axes
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    assert names == ["bolt", "cloth", "plate", "Average"]
    single, several = ([bar.get_height() for bar in c] for c in axes.containers if isinstance(c, BarContainer))
    expected = [toy.value("image_auroc", "toy-brightness", c) for c in names[:3]]
    assert single == pytest.approx([*expected, statistics.fmean(expected)])
    means = [
        statistics.fmean(toy.value("image_auroc", "toy-learner", c, seed) for seed in (0, 1)) for c in names[:3]
    ]
    assert several == pytest.approx([*means, statistics.fmean(means)])
    assert axes.get_title("left") == "1-shot"


def test_a_panel_per_number_of_shots_and_what_is_missing(study: Study) -> None:
    records = [record("clip", c, None, None, 0.7, note=NOTE) for c in "ab"]
    records += [record("dra", c, k, 0, 0.6, zero_shot=False, note=NOTE) for c in "ab" for k in (1, 10)]
    lost = next(r for r in records if (r["trial"]["shots"], r["trial"]["category"]) == (10, "b"))
    lost |= {"status": "failed", "reason": "out of memory", "metrics": {}}
    figure = written(study, *records).figure("categories")
    first, second = figure.axes
    assert (first.get_title("left"), second.get_title("left")) == ("1-shot", "10-shot")
    bars = [[len(c) for c in axes.containers if isinstance(c, BarContainer)] for axes in figure.axes]
    assert bars == [[3, 3], [3, 1]]  # neither the failed category nor the average over the rest
    said = small_print(figure)
    assert NOTE in said
    assert "dra on b: failed: out of memory" in said
    assert "cross: no value" in said
    assert "Not zero-shot, but given images of the target category: dra" in said
    assert "Encoders: pocket/clip" in said


# ---------------------------------------------------------------- t-SNE


def test_features_are_made_once_and_drawn(toy: Study) -> None:
    words = ("figure", "tsne", "--methods", "toy-learner", "--categories", "plate,bolt", "--seed", "1")
    first = toy.call(*words, "--workers", "0", "--output", "first.pdf")
    assert first.exit_code == 0, first.output
    assert "repeating 2 trials for the features" in first.stderr
    second = toy.call(*words, "--output", "second.pdf")
    assert second.stderr.splitlines() == ["written: second.pdf"]
    assert Path("first.pdf").read_bytes() == Path("second.pdf").read_bytes()
    figure = toy.drawn[-1]
    assert [axes.get_title() for axes in figure.axes] == ["plate", "bolt"]
    for axes in figure.axes:
        category = axes.get_title()
        kept = toy.record("toy-learner", category, 1)
        assert axes.get_xlabel() == f"image AUROC {kept['metrics']['exact']['values']['image_auroc']:.3f}"
        stored = toy.store.features(kept["key"])
        assert stored is not None and stored["features"].shape == (18, 4)
        assert np.array_equal(stored["image"], toy.store.scores(kept["key"])["image"])
        assert [len(points.get_offsets()) for points in axes.collections] == [3, 15]


def test_a_trial_that_does_not_repeat_is_named(toy: Study) -> None:
    kept = toy.record("toy-learner", "bolt", 0)
    scores = toy.store.scores(kept["key"])
    toy.store.write(kept, scores | {"image": scores["image"] + 1}, toy.store.score_ids(kept["key"]))
    result = toy.call("figure", "tsne", "--methods", "toy-learner", "--categories", "bolt", "--workers", "0")
    assert result.exit_code == 0, result.output
    assert (
        "note: Learner on bolt, seed 0, repeated for its features, has other scores than its record"
        in result.stderr
    )


def test_features_that_cannot_be_had(toy: Study, toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Brightness: no features to show" in toy.refused("tsne", "--methods", "toy-brightness")
    words = ("tsne", "--methods", "toy-learner", "--categories", "bolt", "--workers", "0")
    with monkeypatch.context() as patch:
        patch.setattr(METHODS.load("toy-learner"), "version", "99")
        assert "what its record was made with has changed" in toy.refused(*words)
    (toy_root / "bolt/test/good/002.png").unlink()
    assert "is not the data that the trial was planned with" in toy.refused(*words)


def test_trials_are_repeated_from_their_inputs_as_data(toy: Study, toy_root: Path) -> None:
    moved = toy_root.rename(toy_root.with_name("moved"))
    words = ("tsne", "--methods", "toy-learner", "--categories", "bolt", "--workers", "0")
    assert "--data-root folder=DIR" in toy.refused(*words)
    kept = toy.record("toy-learner", "bolt", 0)
    inputs = {"roots": {"target": str(moved), "source": None}, "weights": {}, "prompts": None, "options": {}}
    kept["provenance"] |= {"inputs": inputs, "command": "bench run --data-root /nowhere --shots 7"}
    toy.store.write(kept, None)
    result = toy.call("figure", *words)
    assert result.exit_code == 0, result.output


def test_moved_data_can_be_given(toy: Study, toy_root: Path) -> None:
    moved = toy_root.rename(toy_root.with_name("moved"))
    words = ("figure", "tsne", "--methods", "toy-learner", "--categories", "bolt", "--workers", "0")
    result = toy.call(*words, "--data-root", str(moved))
    assert result.exit_code == 0, result.output


# ---------------------------------------------------------------- critical difference


def test_the_diagram_is_that_of_compare(study: Study) -> None:
    places = [(m, c) for m in range(3) for c in range(8)]
    methods = ("clip", "devnet", "promptad")
    records = [record(methods[m], f"c{c}", None, None, 0.5 + m / 10 + c / 100, note=NOTE) for m, c in places]
    records.append(record("clip", "c8", None, None, 0.5, note=NOTE))
    figure = written(study, *records).figure("cd")
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "PromptAD  1.00" in texts and "3.00  CLIP" in texts
    below = figure.get_supxlabel().splitlines()
    assert below[0].startswith("mean rank over 8 categories")
    assert below[1:] == [NOTE, "Encoders: pocket/clip", "left out: c8: no value for DevNet, PromptAD"]
    assert study.call("compare", "--figure", "b.svg").exit_code == 0
    assert Path("b.svg").read_bytes() == (study.folder / "a.svg").read_bytes()


def test_too_few_for_a_diagram(study: Study) -> None:
    records = [record(m, c, None, None, 0.5) for m in ("clip", "devnet", "promptad") for c in "ab"]
    written(study, *records)
    assert "3 methods need at least 3 categories" in study.refused("cd")
    assert "at least 3 methods; there are 2" in study.refused("cd", "--methods", "clip,devnet")


# ---------------------------------------------------------------- the command


def test_files_are_named_after_the_study_and_always_the_same(toy: Study) -> None:
    for name in ("maps", "curves", "categories"):
        result = toy.call("figure", name)
        assert result.exit_code == 0, result.output
        path = Path(result.stderr.removeprefix("written: ").strip())
        assert path.name == f"{toy.store.study_names()[0]}-{name}.pdf"
        content = path.read_bytes()
        toy.call("figure", name)
        assert path.read_bytes() == content
        assert b"CreationDate" not in content


def test_mistakes_get_one_clear_line(toy: Study) -> None:
    assert "written as .pdf, .svg, .png" in toy.refused("curves", "--output", "a.gif")
    assert "is the area under no curve" in toy.refused("curves", "--metric", "image_f1max")
    assert "unknown metric" in toy.refused("categories", "--metric", "image_auc")
    assert "Did you mean 'bolt'" in toy.refused("curves", "--categories", "bold")
    assert "there is nothing at 5 shots; there is: 1" in toy.refused("categories", "--shots", "5")
    assert "no test image is called dent/099; there are bolt/dent/000" in toy.refused(
        "maps", "--images", "dent/099"
    )
    assert "no seed 7; there is 0, 1" in toy.refused("tsne", "--seed", "7", "--workers", "0")
    assert "the method gives no maps" in toy.refused("maps", "--methods", "toy-learner")
    assert "no dataset 'mvtec'; it has folder" in toy.refused("maps", "--dataset", "mvtec")
    key = toy.record("toy-brightness", "bolt")["key"]
    toy.store.scores_path(key).unlink()
    for words in (["maps"], ["curves"]):
        assert f"scores of trial {key[:12]} cannot be read" in toy.refused(*words)


def test_data_other_than_were_scored_are_refused(toy: Study, toy_root: Path) -> None:
    (toy_root / "bolt/test/good/002.png").unlink()
    assert "is not the data that the trial was planned with" in toy.refused("curves")
    toy_root.rename(toy_root.with_name("elsewhere"))
    assert "is not a folder; say where it is now: --data-root folder=DIR" in toy.refused("curves")


def test_several_datasets_must_be_told_apart(study: Study) -> None:
    records = [record("clip", "a", None, None, v, dataset=d) for v, d in ((0.5, "pocket"), (0.6, "mvtec"))]
    written(study, *records)
    assert "choose with --dataset and --study among: Pocket: image AUROC" in study.refused("categories")
    (axes,) = study.figure("categories", "--dataset", "mvtec").axes
    assert {bar.get_height() for bar in axes.containers[0]} == {0.6}


def test_no_study_says_how_to_start(study: Study) -> None:
    assert "start with: bench run" in study.refused("maps")


def test_asking_for_help_imports_nothing_heavy() -> None:
    heavy = ("matplotlib", "torch", "pandas", "seaborn", "sklearn", "scipy")
    code = f"import sys, bench.cli.figure; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
