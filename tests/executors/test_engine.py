from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.store.store import Store

pytestmark = pytest.mark.usefixtures("plugin")


@pytest.fixture
def bench(toy_root: Path, tmp_path: Path) -> Any:
    """``bench run`` on the toy data in this process, unless reported otherwise."""

    def call(*words: str, workers: int = 0) -> Result:
        common = ["--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path / "store")]
        return CliRunner().invoke(main, ["run", *common, "--workers", str(workers), *words])

    return call


def records(tmp_path: Path) -> list[dict[str, Any]]:
    return list(Store(tmp_path / "store").documents())


def test_a_third_partys_method_runs_into_a_table(bench: Any, tmp_path: Path) -> None:
    result = bench("--methods", "toy-brightness,toy-learner", "--shots", "1", "--seeds", "2")
    assert result.exit_code == 0, result.output
    assert "Brightness" in result.stdout
    assert "Average" in result.stdout
    found = records(tmp_path)
    assert len(found) == 3 + 3 * 2  # the untrained method runs once per category
    one = next(r for r in found if r["trial"]["method"]["name"] == "toy-brightness")
    assert one["status"] == "ok"
    assert one["trial"]["shots"] is None
    assert one["metrics"]["exact"]["values"]["image_auroc"] == 1.0  # the blots are brighter than anything else
    assert one["provenance"]["seconds"]["total"] > 0
    assert one["provenance"]["command"].startswith("bench run --methods toy-brightness")
    manifest = Store(tmp_path / "store").manifest(one["trial"]["protocol"]["manifest"])
    assert manifest is not None
    assert len(manifest["test"]) == 18
    assert set(Store(tmp_path / "store").score_ids(one["key"])) == set(manifest["test"])


def test_a_second_run_does_nothing_and_says_so(bench: Any, tmp_path: Path) -> None:
    first = bench("--methods", "toy-learner", "--shots", "1")
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "store/records").rglob("*.json")}
    second = bench("--methods", "toy-learner", "--shots", "1")
    assert "nothing to do" in second.stderr
    assert second.stdout == first.stdout
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "store/records").rglob("*.json")}


def test_workers_do_not_change_a_record(bench: Any, tmp_path: Path) -> None:
    bench("--methods", "toy-learner", "--shots", "1", "--seeds", "2")
    alone = {r["key"]: r for r in records(tmp_path)}
    (tmp_path / "store").rename(tmp_path / "first")
    bench("--methods", "toy-learner", "--shots", "1", "--seeds", "2", workers=2)
    for record in records(tmp_path):
        assert record | {"provenance": 0} == alone.pop(record["key"]) | {"provenance": 0}
    assert not alone


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("raise", "RuntimeError: boom at layer 3"),
        ("memory", "out of memory"),
        ("exit", "SystemExit: 7"),
        ("nan", "finite"),
        ("shape", r"shape \(19,\) for 18 images"),
        ("constant", "constant"),
    ],
)
def test_a_faulty_method_is_recorded_and_the_rest_goes_on(
    bench: Any, tmp_path: Path, how: str, reason: str
) -> None:
    result = bench("--methods", f"toy-faulty[how={how}],toy-brightness")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    found = records(tmp_path)
    assert [r["status"] for r in found if r["trial"]["method"]["name"] == "toy-brightness"] == ["ok"] * 3
    for record in found:
        if record["trial"]["method"]["name"] == "toy-faulty":
            assert record["status"] == "failed"
            assert re.search(reason, record["reason"]), record["reason"]
    assert re.search(reason, result.stderr)
    again = bench("--methods", f"toy-faulty[how={how}],toy-brightness")
    assert "3 done, 3 to run" in again.stderr  # failed trials are tried again


def test_a_method_that_kills_its_process_costs_only_its_own_trials(bench: Any, tmp_path: Path) -> None:
    result = bench("--methods", "toy-faulty[how=die],toy-brightness", workers=2)
    assert result.exit_code == 1
    by_method: dict[str, list[str]] = {}
    for record in records(tmp_path):
        by_method.setdefault(record["trial"]["method"]["name"], []).append(record["status"])
    assert by_method == {"toy-faulty": ["failed"] * 3, "toy-brightness": ["ok"] * 3}
    assert "the worker process died" in result.stderr


def test_ctrl_c_keeps_what_is_done_and_a_second_run_finishes(toy_root: Path, tmp_path: Path) -> None:
    words = [
        "run",
        "--methods",
        "toy-learner[pause=1.2]",
        "--dataset",
        "folder",
        "--data-root",
        str(toy_root),
    ]
    words += ["--store", str(tmp_path / "store"), "--shots", "1", "--seeds", "3", "--workers", "2"]
    command = [sys.executable, "-P", "-m", "bench", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 90
    while not list((tmp_path / "store").glob("records/*/*.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command runs the rest" in message
    assert "Traceback" not in message
    done = len(records(tmp_path))
    assert 0 < done < 9
    finished = subprocess.run(command, capture_output=True, text=True)
    assert f"9 trials, {done} done" in finished.stderr
    assert len(records(tmp_path)) == 9


def test_two_processes_share_a_study_without_doing_a_trial_twice(toy_root: Path, tmp_path: Path) -> None:
    words = [
        "run",
        "--methods",
        "toy-learner[pause=0.3]",
        "--dataset",
        "folder",
        "--data-root",
        str(toy_root),
    ]
    words += ["--store", str(tmp_path / "store"), "--shots", "1", "--seeds", "3", "--workers", "0"]
    command = [sys.executable, "-P", "-m", "bench", *words]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "ab"]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(records(tmp_path)) == 9


def test_a_method_sees_no_label_no_mask_and_no_path(bench: Any, tmp_path: Path) -> None:
    assert bench("--methods", "toy-curious").exit_code == 0
    for record in records(tmp_path):
        (seen,) = record["notes"]
        for secret in ("dent", "stain", "good", "ground_truth", ".png", str(tmp_path)):
            assert secret not in seen


def test_a_target_without_anomalies_is_skipped_with_its_reason(bench: Any, toy_root: Path) -> None:
    import shutil

    for folder in ("test/dent", "test/stain", "ground_truth"):
        shutil.rmtree(toy_root / "bolt" / folder)
    result = bench("--methods", "toy-brightness")
    assert result.exit_code == 0
    assert "bolt has no anomalous test image" in result.output


def test_scores_lie_beside_the_record_in_neutral_order(bench: Any, tmp_path: Path) -> None:
    bench("--methods", "toy-brightness", "--categories", "bolt")
    (record,) = records(tmp_path)
    store = Store(tmp_path / "store")
    assert store.scores(record["key"])["maps"].shape == (18, 4, 4)
    ids = store.score_ids(record["key"])
    assert list(ids) != sorted(ids)
    text = store.record_path(record["key"]).read_text()
    assert json.loads(text).items() >= record.items()


def test_data_that_change_under_a_running_study_fail_its_trials(toy_root: Path, tmp_path: Path) -> None:
    from bench.study.plan import prepare
    from bench.study.study import Study
    from bench.tools.spec import parse_spec
    from bench.trial.trial import run_trial

    study = Study("s", (parse_spec("toy-brightness"),), (parse_spec("folder"),), roots={"folder": toy_root})
    plan = prepare(study, Store(tmp_path / "store"))
    image = toy_root / "cloth/test/good/000.png"
    image.write_bytes((toy_root / "cloth/test/good/001.png").read_bytes())
    outcome = run_trial(plan.tasks[0])
    assert outcome.record["status"] == "failed"
    assert "is not the data that the trial was planned with" in outcome.record["reason"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
def test_workers_end_with_a_driver_that_is_killed(toy_root: Path, tmp_path: Path) -> None:
    words = ["run", "--methods", "toy-learner[pause=60]", "--dataset", "folder", "--data-root", str(toy_root)]
    words += ["--store", str(tmp_path / "store"), "--shots", "1", "--workers", "1"]
    driver = subprocess.Popen([sys.executable, "-P", "-m", "bench", *words], stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children")
    deadline = time.monotonic() + 90
    workers: list[str] = []
    while not workers:  # the claim is taken when the worker is started
        assert time.monotonic() < deadline
        time.sleep(0.2)
        workers = [pid for pid in children.read_text().split() if b"spawn_main" in _command_line(pid)]
    time.sleep(5)
    driver.kill()
    driver.wait()
    while any(b"spawn_main" in _command_line(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
