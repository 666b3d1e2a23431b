"""``bench rescore``: metrics anew and metrics added, without a trial being run again."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from trial_records import record as made_up

from bench.cli.main import main
from bench.errors import BenchError
from bench.metrics import blocks as measured
from bench.report.frame import frame
from bench.report.tables.table import build_tables
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def store(toy_root: Path, tmp_path: Path) -> Store:
    """A store with a study of two methods on three categories, one of which gives no maps."""
    result = run(toy_root, tmp_path)
    assert result.exit_code == 0, result.output
    return Store(tmp_path / "store")


def call(tmp_path: Path, *words: str) -> Result:
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "store")])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def run(toy_root: Path, tmp_path: Path) -> Result:
    words = ("--dataset", "folder", "--data-root", str(toy_root), "--shots", "1", "--workers", "0")
    return call(tmp_path, "run", "--methods", "toy-brightness,toy-learner", *words)


def flat(text: str) -> str:
    return " ".join(text.split())


def by_key(store: Store) -> dict[str, dict[str, Any]]:
    return {record["key"]: record for record in store.documents()}


def test_records_say_which_version_measured_them(store: Store) -> None:
    assert {r["metrics"]["exact"]["version"] for r in store.documents()} == {measured.METRICS_VERSION}
    assert set(frame(store.documents())["metrics_version"]) == {measured.METRICS_VERSION}


def test_what_is_up_to_date_stays_as_it_is(store: Store, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in store.root.glob("records/*/*.json")}
    result = call(tmp_path, "rescore")
    assert result.exit_code == 0
    assert result.stdout == "6 trials: 0 measured, 6 up to date, 0 without scores, 0 not measured\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_metric_that_was_added_later_is_measured_and_moves_no_other(store: Store, tmp_path: Path) -> None:
    new = by_key(store)
    for record in by_key(store).values():
        del record["metrics"]["exact"]["values"]["image_fpr95"]
        store.write(record, None)
    table = call(tmp_path, "table", "--metrics", "image_fpr95,image_auroc").stdout
    assert "no value: not measured; bench rescore adds it" in flat(table)
    assert re.search(r"\d\.\d\d\d", table)  # of the metric that is there
    result = call(tmp_path, "rescore")
    assert result.stdout == "6 trials: 6 measured, 0 up to date, 0 without scores, 0 not measured\n"
    for key, record in by_key(store).items():
        assert record["metrics"] == new[key]["metrics"]
    assert call(tmp_path, "rescore").stdout.startswith("6 trials: 0 measured, 6 up to date")


def test_another_version_is_noticed_mended_and_trains_nothing(
    store: Store, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = by_key(store)
    monkeypatch.setattr(measured, "METRICS_VERSION", "99")
    table = call(tmp_path, "table")
    assert "no value: measured by version 1 of the metrics, which is now 99; bench rescore" in flat(table.stdout)
    assert not re.search(r"\d\.\d\d\d", table.stdout)

    # A trial that is done is not run again because metrics changed.
    again = run(toy_root, tmp_path)
    assert "nothing to do" in again.stderr
    assert by_key(store) == before

    result = call(tmp_path, "rescore")
    assert result.stdout == "6 trials: 6 measured, 0 up to date, 0 without scores, 0 not measured\n"
    for key, record in by_key(store).items():
        block, old = record["metrics"]["exact"], before[key]["metrics"]["exact"]
        assert block == {**old, "version": "99"}
        assert record["provenance"].pop("rescored")["protocols"] == ["exact"]
        assert {**record, "metrics": 0} == {**before[key], "metrics": 0}
    assert re.search(r"Average +\d\.\d\d\d", call(tmp_path, "table").stdout)


def test_a_version_that_was_not_written_down_is_the_first() -> None:
    record = made_up(value=0.75)
    del record["metrics"]["exact"]["version"]
    assert build_tables([record])[0].rows[0].cells[0].mean == 0.75


def test_versions_are_never_mixed(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = made_up(seed=0, value=0.25), made_up(seed=1, value=0.75)
    monkeypatch.setattr(measured, "METRICS_VERSION", "99")
    new["metrics"]["exact"]["version"] = "99"
    (table,) = build_tables([old, new])
    cell = table.rows[0].cells[0]
    assert (cell.mean, cell.status, cell.seeds) == (0.75, "partial", 1)
    assert "measured by version 1 of the metrics" in cell.note
    data = frame([old, new])
    assert data["metrics_version"].tolist() == ["1", "99"]
    assert data["image_auroc"].isna().tolist() == [True, False]


def test_other_protocols_are_added_and_reach_tables(store: Store, tmp_path: Path) -> None:
    before = by_key(store)
    missing = call(tmp_path, "table", "--metric-protocol", "grid200")
    assert missing.exit_code == 2
    assert "bench rescore --metric-protocol" in missing.stderr

    result = call(tmp_path, "rescore", "--metric-protocol", "grid200[eval_size=64],ader50")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("6 trials: 6 measured")
    for key, record in by_key(store).items():
        names = ["ader50", "exact", "grid200[eval_size=64]"]
        assert sorted(record["metrics"]) == names
        assert record["metrics"]["exact"] == before[key]["metrics"]["exact"]
        assert record["metrics"]["grid200[eval_size=64]"]["eval_size"] == 64
        if record["trial"]["method"]["name"] == "toy-learner":
            assert record["metrics"]["ader50"]["reasons"]["aupro"] == "the method gives no maps"

    result = call(tmp_path, "table", "--metric-protocol", "grid200[eval_size=64]", "--metrics", "aupro")
    assert result.exit_code == 0
    assert "metric protocol grid200[eval_size=64] at 64 px" in flat(result.stdout)
    values = [r["metrics"]["grid200[eval_size=64]"]["values"]["aupro"] for r in by_key(store).values()]
    mean = np.mean([value for value in values if value is not None])
    assert re.search(rf"Average +{mean:.3f}", result.stdout)
    found = call(tmp_path, "compare", "--metric-protocol", "grid200[eval_size=64]", "--json")
    assert json.loads(found.stdout)["comparisons"][0]["metric_protocol"] == "grid200[eval_size=64]"

    # What was measured so is as explain-gap has it.
    words = ("--method", "toy-brightness", "--protocol", "ader50", "--json")
    (rows,) = json.loads(call(tmp_path, "explain-gap", *words).stdout)["results"].values()
    own = [r for r in by_key(store).values() if r["trial"]["method"]["name"] == "toy-brightness"]
    mean = np.mean([r["metrics"]["ader50"]["values"]["pixel_auroc"] for r in own])
    assert rows["ader50"]["pixel_auroc"] == pytest.approx(mean, abs=1e-12)

    again = call(tmp_path, "rescore", "--metric-protocol", "ader50")
    assert "0 measured, 6 up to date" in again.stdout


def test_aupimo_is_added_shown_and_kept_up_to_date(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.metrics import pimo

    # The toy images have too few normal pixels for anomalib's rates of 1e-5.
    monkeypatch.setattr(pimo, "aupimo", lambda maps, masks, protocol: (0.625, None))
    asked = call(tmp_path, "table", "--metrics", "aupimo")
    assert "not measured; bench rescore --aupimo adds it" in flat(asked.stdout)
    assert "6 measured" in call(tmp_path, "rescore", "--aupimo").stdout
    assert "6 up to date" in call(tmp_path, "rescore", "--aupimo").stdout
    shown = call(tmp_path, "table", "--metrics", "aupimo").stdout
    assert "AUPIMO (protocol loo, metric protocol exact at 256 px" in flat(shown)
    assert re.search(r"bolt +0\.625", shown)
    assert "no value: the method gives no maps" in flat(shown)

    monkeypatch.setattr(measured, "METRICS_VERSION", "99")
    monkeypatch.setattr(pimo, "aupimo", lambda maps, masks, protocol: (0.5, None))
    assert "6 measured" in call(tmp_path, "rescore").stdout
    values = [record["metrics"]["exact"]["values"]["aupimo"] for record in store.documents()]
    assert sorted(values, key=str) == [0.5] * 3 + [None] * 3


def test_aupimo_that_cannot_be_defined_is_said_and_nothing_is_measured(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.metrics import evaluation, pimo, prepare

    before = by_key(store)

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("measured")

    monkeypatch.setattr(evaluation, "evaluate_under", refuse)
    monkeypatch.setattr(prepare, "resize_bilinear", refuse)  # of maps
    monkeypatch.setattr(pimo, "LOWEST_RATE", 1e-9)
    result = call(tmp_path, "rescore", "--aupimo")
    assert "6 measured" in result.stdout
    (note,) = [line for line in result.stderr.splitlines() if "AUPIMO" in line and "pixels" in line]
    assert re.fullmatch(r"note: no AUPIMO: the normal images' \d+ pixels are too few for .* 1e-09", note)
    for key, record in by_key(store).items():
        block = record["metrics"]["exact"]
        assert block["values"].pop("aupimo") is None
        assert block["reasons"].pop("aupimo")
        assert block == before[key]["metrics"]["exact"]
    assert "6 up to date" in call(tmp_path, "rescore", "--aupimo").stdout


def test_data_that_moved_are_said_and_can_be_given(
    store: Store, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured, "METRICS_VERSION", "99")
    before = by_key(store)
    moved = toy_root.rename(toy_root.with_name("moved"))
    result = call(tmp_path, "rescore")
    assert result.exit_code == 1
    assert "6 not measured" in result.stdout
    assert f"not measured: 6 trials: the data root {toy_root} is not a folder" in result.stderr
    assert "--data-root folder=DIR" in result.stderr
    assert by_key(store) == before
    assert "6 measured" in call(tmp_path, "rescore", "--data-root", str(moved)).stdout
    next((moved / "bolt/test/good").iterdir()).unlink()
    monkeypatch.setattr(measured, "METRICS_VERSION", "100")
    result = call(tmp_path, "rescore", "--data-root", str(moved))
    assert result.exit_code == 1
    assert "is not the data that the trial was planned with" in result.stderr


def test_one_trial_that_cannot_be_measured_costs_no_other(store: Store, tmp_path: Path) -> None:
    first, second, *_ = by_key(store)
    store.scores_path(first).write_bytes(b"torn")
    other = Store(store.root)
    assert other.claim(second)
    result = call(tmp_path, "rescore", "--metric-protocol", "openiad")
    other.release(second)
    assert result.exit_code == 1
    assert result.stdout == "6 trials: 4 measured, 0 up to date, 0 without scores, 2 not measured\n"
    assert f"scores of trial {first[:12]} cannot be read" in result.stderr
    assert "another process is running it" in result.stderr


def test_trials_that_metrics_failed_are_mended_without_training(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.metrics import evaluation

    def broken(*args: Any, **named: Any) -> None:
        raise ValueError("a mistake in the metrics")

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "measure", broken)
        assert run(toy_root, tmp_path).exit_code == 1
    store = Store(tmp_path / "store")
    assert {record["reason"] for record in store.documents()} == {"ValueError: a mistake in the metrics"}
    assert "6 measured" in call(tmp_path, "rescore").stdout
    assert {(record["status"], record["reason"]) for record in store.documents()} == {("ok", None)}
    assert "nothing to do" in run(toy_root, tmp_path).stderr


def test_trials_without_scores_are_named(store: Store, toy_root: Path, tmp_path: Path) -> None:
    for part in ("test/dent", "test/stain", "ground_truth"):
        shutil.rmtree(toy_root / "bolt" / part)
    words = ("--dataset", "folder", "--data-root", str(toy_root), "--shots", "1", "--workers", "0")
    call(tmp_path, "run", "--methods", "toy-faulty,toy-faulty[how=constant]", *words)
    result = call(tmp_path, "rescore")
    assert result.exit_code == 0
    assert result.stdout == "6 trials: 0 measured, 2 up to date, 4 without scores, 0 not measured\n"
    assert "without scores: 2 trials: failed: RuntimeError: boom at layer 3" in result.stderr
    assert "without scores: 2 trials: skipped: bolt has no anomalous test image" in result.stderr
    # All of the store, on data that are partly gone: the first study was run on other files.
    result = call(tmp_path, "rescore", "--all", "--metric-protocol", "grid200")
    assert "12 trials: 2 measured, 0 up to date, 4 without scores, 6 not measured" in result.stdout


def test_guards_decide_on_the_status_again(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.metrics import guards

    words = ("--dataset", "folder", "--data-root", str(toy_root), "--workers", "0", "--categories", "bolt")
    call(tmp_path, "run", "--methods", "toy-faulty[how=saturated-scores]", *words)
    store = Store(tmp_path / "store")
    (record,) = store.documents()
    assert record["status"] == "failed"
    monkeypatch.setattr(guards, "MAJORITY", 1.0)
    monkeypatch.setattr(guards, "TIED_PAIRS", 1.0)
    monkeypatch.setattr(measured, "METRICS_VERSION", "99")
    assert "1 measured" in call(tmp_path, "rescore").stdout
    (record,) = store.documents()
    assert (record["status"], record["reason"]) == ("ok", None)


def test_mistakes_get_one_clear_line(store: Store, tmp_path: Path) -> None:
    for words, message in (
        (("--metric-protocol", "grid"), "Did you mean 'grid200'"),
        (("--metric-protocol", ","), "names no metric protocol"),
        (("--study", "nothing"), "unknown study"),
        (("--all", "--study", "toy"), "leave out --study"),
    ):
        result = call(tmp_path, "rescore", *words)
        assert result.exit_code == 2
        assert message in result.stderr
    result = CliRunner().invoke(main, ["rescore", "--store", str(tmp_path / "none")])
    assert "no study was run" in result.stderr
    with pytest.raises(BenchError, match="unknown metric protocol 'grid200'"):
        build_tables([made_up()], protocol="grid200")
