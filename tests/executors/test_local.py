"""Trials in local worker processes: time limits, output, and one GPU for each worker."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.executors import local, log_path, share_log
from bench.executors import worker as worker_module
from bench.executors.local import visible_gpus
from bench.executors.worker import BatchRunner, captured
from bench.store.store import Store

RUN = Callable[..., Result]


@pytest.fixture
def run(toy_root: Path, tmp_path: Path, plugin: Path) -> RUN:
    """``bench run`` on one category of the toy data."""

    def call(*words: str) -> Result:
        common = ["--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path / "store")]
        return CliRunner().invoke(main, ["run", *common, "--categories", "bolt", "--shots", "1", *words])

    return call


def test_a_trial_that_takes_too_long_is_ended_and_the_rest_goes_on(run: RUN, tmp_path: Path) -> None:
    result = run("--methods", "toy-learner[pause=300],toy-loud", "--workers", "1", "--time-limit", "15")
    assert result.exit_code == 1
    by_method = {record["trial"]["method"]["name"]: record for record in Store(tmp_path / "store").documents()}
    assert by_method["toy-learner"]["status"] == "failed"
    assert by_method["toy-learner"]["reason"] == "took longer than 15 seconds; raise --time-limit"
    assert by_method["toy-loud"]["status"] == "ok"
    key = by_method["toy-loud"]["key"]
    output = (tmp_path / "store/logs" / key[:2] / f"{key}.log").read_text()
    assert all(phrase in output for phrase in ("from Python", "from below", "a warning"))


def test_what_a_batch_printed_is_found_with_each_of_its_trials_that_failed(run: RUN, tmp_path: Path) -> None:
    words = ("--methods", "toy-joint[how=seed 1]", "--seeds", "3", "--together", "3", "--workers", "1")
    assert run(*words).exit_code == 1
    by_seed = {record["trial"]["seed"]: record["key"] for record in Store(tmp_path / "store").documents()}
    logs = {seed: tmp_path / "store/logs" / key[:2] / f"{key}.log" for seed, key in by_seed.items()}
    assert [logs[seed].exists() for seed in range(3)] == [True, True, False]
    assert logs[0].read_text() == logs[1].read_text()
    assert "fits seed 1" in logs[1].read_text()


def test_a_log_of_an_earlier_run_does_not_stay_with_a_trial_of_a_batch(tmp_path: Path) -> None:
    batch: Any = [SimpleNamespace(key=key * 2) for key in "abc"]
    outcomes: Any = [SimpleNamespace(status=status) for status in ("ok", "ok", "failed")]
    logs = [log_path(tmp_path, task) for task in batch]
    for log in logs:
        log.parent.mkdir()
        log.write_text(f"of {log.stem}")
    share_log(tmp_path, batch, outcomes)
    assert [log.exists() and log.read_text() for log in logs] == ["of aa", False, "of aa"]
    logs[0].unlink()
    share_log(tmp_path, batch, outcomes)
    assert not any(log.exists() for log in logs)


def test_a_time_limit_needs_a_process_that_can_be_stopped(run: RUN) -> None:
    result = run("--methods", "toy-brightness", "--workers", "0", "--time-limit", "15")
    assert result.exit_code == 2
    assert "give --workers 1, or no --time-limit" in result.output
    assert "more than 0 seconds" in run("--methods", "toy-brightness", "--time-limit", "-1").output


def test_output_is_captured_from_python_and_from_below_and_nothing_leaves_no_file(tmp_path: Path) -> None:
    code = """
import os, sys, warnings
from pathlib import Path
from bench.executors.worker import captured
for name in "ab":
    with captured(Path("logs") / name):
        print("out", name)
        os.system("echo below")
        warnings.warn("once per trial")
with captured(Path("logs/quiet")):
    pass
print("after")
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("after\n", "")
    for name in "ab":
        text = (tmp_path / "logs" / name).read_text()
        assert f"out {name}" in text and "below" in text and "once per trial" in text
    assert not (tmp_path / "logs/quiet").exists()


def test_a_method_may_print_what_the_log_cannot_encode(tmp_path: Path) -> None:
    code = "from pathlib import Path\nfrom bench.executors.worker import captured\n"
    code += "with captured(Path('log')):\n    print('a \\u2192 b')\n"
    own = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=own
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "log").read_text() == "a ? b\n"


def test_what_fails_under_capture_gives_the_output_back(tmp_path: Path, capfd: Any) -> None:
    def fail() -> None:
        with captured(tmp_path / "log"):
            os.write(1, b"inside")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    os.write(1, b"outside")
    assert capfd.readouterr().out == "outside"
    assert (tmp_path / "log").read_text() == "inside"


def test_a_process_that_gathers_memory_is_worn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond its share, and beyond twice what it held after its first trial: encoders and data may stay."""
    from bench.encoders.features import CACHE

    monkeypatch.setattr(CACHE, "limit", CACHE.limit)
    monkeypatch.setattr(worker_module, "run_batch", lambda batch, track: [])
    held = iter([30, 59, 61, 99, 101])
    monkeypatch.setattr(worker_module, "_resident", lambda: next(held))
    small, large = BatchRunner(50), BatchRunner(100)

    def worn(driver: BatchRunner) -> bool:
        return driver.work((), lambda _: None, tmp_path / "log").worn

    assert [worn(small), worn(small), worn(small)] == [False, False, True]
    assert [worn(large), worn(large)] == [False, False]


def test_a_process_that_has_lost_its_gpu_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[Any] = [SimpleNamespace(status=status) for status in ("ok", "failed")]
    monkeypatch.setattr(worker_module, "run_batch", lambda batch, track: outcomes)

    def broken() -> bool:
        return BatchRunner(2**40).work((), lambda _: None, tmp_path / "log").broken

    def crashed() -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    assert not broken()  # no GPU was used
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    assert not broken()  # the trial failed for a reason of its own
    monkeypatch.setattr("torch.cuda.synchronize", crashed)
    assert broken()
    del outcomes[1]
    assert not broken()


def test_resident_memory_is_measured() -> None:
    before = worker_module._resident()
    if before == 0:
        pytest.skip("this system does not tell")
    # pages of its own: from the heap it might get memory that this process holds already
    with mmap.mmap(-1, 64 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block.write(bytes(len(block)))
        gained = worker_module._resident() - before
    assert 60 * 2**20 < gained < 130 * 2**20  # the zeros that were written may lie on the heap, too


@pytest.mark.parametrize(
    ("device", "visible", "gpus"),
    [
        ("cuda", None, ["0", "1", "2"]),
        ("auto", None, ["0", "1", "2"]),
        ("cuda", "5,GPU-ab,7", ["5", "GPU-ab", "7"]),
        ("cuda:1", None, [""]),
        ("cuda", "0,1,2,8,9", ["0", "1", "2"]),
        ("cpu", None, []),
    ],
)
def test_which_gpus_there_are(
    device: str, visible: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus(device) == gpus


def test_workers_are_shared_out_among_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Process:
        stopped = False

        def __init__(self, share: int, gpu: str, logs: Path) -> None:
            self.gpu = gpu

    monkeypatch.setattr(local, "_Process", Process)
    pool = local._ProcessPool(4, ["0", "1"], tmp_path)
    started: list[Any] = [pool.start() for _ in range(4)]
    assert [worker.gpu for worker in started] == ["0", "1", "0", "1"]
    started[1].stopped = True
    assert pool.start().gpu == "1"  # in the place of the one that is gone
