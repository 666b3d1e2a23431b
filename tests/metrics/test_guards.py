"""What a trial's record and table say of scores that are no measurement."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from bench.cli.main import main
from bench.metrics import Evaluation, evaluation
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.spec import parse_spec
from bench.trial.trial import Outcome, run_trial

pytestmark = pytest.mark.usefixtures("plugin")

IMAGE = {"image_auroc", "image_ap", "image_f1max", "image_fpr95"}
PIXEL = {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"}


@pytest.fixture
def trial(toy_root: Path, tmp_path: Path) -> Any:
    """One trial of a method on the toy category bolt."""

    def run(method: str) -> Outcome:
        roots = {"folder": toy_root}
        study = Study("s", (parse_spec(method),), (parse_spec("folder"),), categories=("bolt",), roots=roots)
        (task,) = prepare(study, Store(tmp_path / "store")).tasks
        return run_trial(task)

    return run


def bench(toy_root: Path, tmp_path: Path, *words: str) -> Result:
    common = ["--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path / "store")]
    return CliRunner().invoke(main, ["run", *common, "--workers", "0", *words])


def test_sound_scores_pass(trial: Any) -> None:
    record = trial("toy-faulty[how=none]").record
    assert (record["status"], record["reason"]) == ("ok", None)
    assert set(record["metrics"]["exact"]["values"]) == IMAGE | PIXEL
    assert None not in record["metrics"]["exact"]["values"].values()


@pytest.mark.parametrize(
    ("how", "reason", "undefined"),
    [
        ("constant", "constant image scores: all 18 equal 0; constant maps: every pixel of all 18", IMAGE | PIXEL),
        ("constant-scores", "constant image scores: all 18 equal 0.25", IMAGE),
        ("constant-maps", "constant maps: every pixel of all 18 maps equals 0.25", PIXEL),
        ("flat-maps", "constant maps: each of the 18 maps is one value throughout", set()),
        ("nan-map", "non-finite maps: 1 of 18, the first at index 2", PIXEL),
        ("infinite-scores", "non-finite image scores: 2 of 18, the first at index 1", IMAGE),
        ("saturated-scores", "saturated image scores: 15 of 15 anomalous and", set()),
        ("saturated-maps", "saturated pixel scores: .* tie at the largest value", set()),
    ],
)
def test_bad_scores_fail_the_trial_and_the_table_says_why(
    how: str, reason: str, undefined: set[str], trial: Any, toy_root: Path, tmp_path: Path
) -> None:
    outcome = trial(f"toy-faulty[how={how}]")
    record = outcome.record
    assert record["status"] == "failed"
    assert re.match(reason, record["reason"]), record["reason"]
    block = record["metrics"]["exact"]
    assert {name for name, value in block["values"].items() if value is None} == undefined
    assert set(block["reasons"]) == undefined
    assert block["problems"]
    # The scores are kept: who wants to know can look at them.
    assert set(outcome.scores) == {"image", "maps"}

    result = bench(
        toy_root, tmp_path, "--methods", f"toy-faulty[how={how}],toy-brightness", "--categories", "bolt"
    )
    assert result.exit_code == 1
    row = next(line for line in result.stdout.splitlines() if line.startswith("bolt"))
    assert "failed" in row
    assert not re.search(r"\b(0\.000|0\.500)\b", row)
    assert re.search(reason.split(":")[0], " ".join(result.stdout.split()))


def test_a_note_that_is_no_text_does_not_end_the_run(toy_root: Path, tmp_path: Path) -> None:
    assert bench(toy_root, tmp_path, "--methods", "toy-faulty[how=note]").exit_code == 0
    assert [record["notes"] for record in Store(tmp_path / "store").documents()] == [["0.5"]] * 3


def test_defects_that_vanish_on_the_grid(trial: Any, toy_root: Path) -> None:
    for path in (toy_root / "bolt").rglob("*.png"):
        with Image.open(path) as image:
            large = image.resize((512, 512))
        if "ground_truth" in path.parts:
            mask = np.zeros((512, 512), np.uint8)
            mask[0, 0] = 255  # every second pixel is taken, from the second on
            large = Image.fromarray(mask)
        large.save(path)
    record = trial("toy-faulty[how=none]").record
    assert (record["status"], record["reason"]) == ("ok", None)
    block = record["metrics"]["exact"]
    assert {name for name, value in block["values"].items() if value is None} == PIXEL
    assert block["reasons"] == dict.fromkeys(PIXEL, "one class only: no anomalous pixel")


def test_no_anomalous_image_skips_the_trial(trial: Any, toy_root: Path, tmp_path: Path) -> None:
    for name in ("dent", "stain"):
        shutil.rmtree(toy_root / "bolt/test" / name)
        shutil.rmtree(toy_root / "bolt/ground_truth" / name)
    record = trial("toy-brightness").record
    assert record["status"] == "skipped"
    assert record["reason"] == "bolt has no anomalous test image, so no metric is defined"
    assert record["metrics"] == {}
    result = bench(toy_root, tmp_path, "--methods", "toy-brightness")
    assert result.exit_code == 0, result.output
    assert re.search(r"^bolt +skipped", result.stdout, re.MULTILINE)
    assert "bolt has no anomalous test image" in " ".join(result.stdout.split())


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "nan"), (float("inf"), "inf")])
def test_a_metric_that_is_no_number_is_null_and_the_run_goes_on(
    value: float, word: str, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, calls = evaluation.evaluate_under, []

    def broken(*args: Any, **named: Any) -> Evaluation:
        found = sound(*args, **named)
        calls.append(found)
        return found if len(calls) > 1 else Evaluation({**found.metrics, "aupro": value})

    monkeypatch.setattr(evaluation, "evaluate_under", broken)
    result = bench(toy_root, tmp_path, "--methods", "toy-brightness", "--metrics", "aupro,pixel_auroc")
    assert result.exit_code == 0, result.output
    records = list(Store(tmp_path / "store").documents())
    assert [record["status"] for record in records] == ["ok"] * 3
    blocks = [record["metrics"]["exact"] for record in records]
    (bad,) = [block for block in blocks if block["values"]["aupro"] is None]
    assert bad["reasons"] == {"aupro": f"the metric came out as {word}"}
    assert f"no value: the metric came out as {word}" in " ".join(result.stdout.split())
