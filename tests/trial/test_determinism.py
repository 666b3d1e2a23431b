"""The same study gives the same records and scores, to the last bit, wherever and however often it is run."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.store.store import Store

METHODS = "clip,devnet[epochs=1,steps_per_epoch=2],promptad[iters=3,ffn=64]"
TRIALS = 3 * 3


@pytest.fixture
def study(toy_root: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The command that runs the study into a store."""
    words = ["run", "--methods", METHODS, "--dataset", "folder", "--data-root", str(toy_root), "--shots", "1"]
    words += ["--encoder", "pocket/clip", "--backbone", "pocket/resnet", "--device", "cpu"]

    def command(store: str, *more: str) -> list[str]:
        return [sys.executable, "-P", "-m", "bench", *words, "--store", str(tmp_path / store), *more]

    return command


def finish(command: list[str], **environment: str) -> dict[str, tuple[str, bytes]]:
    """Run a study to its end; key -> its record without provenance, and its file of scores."""
    # What tests set for their speed must not be what makes runs alike.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | environment
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    store = Store(Path(command[command.index("--store") + 1]))
    found = {}
    for record in store.documents():
        assert record.pop("provenance")
        found[record["key"]] = json.dumps(record, sort_keys=True), store.scores_path(record["key"]).read_bytes()
    assert len(found) == TRIALS
    return found


@pytest.mark.slow
def test_executors_workers_and_interruptions_change_no_bit(
    study: Callable[..., list[str]], tmp_path: Path
) -> None:
    expected = finish(study("alone", "--workers", "0"), BENCH_CACHE="off")
    assert finish(study("one", "--workers", "1")) == expected
    assert finish(study("two", "--workers", "2")) == expected
    assert finish(study("four", "--workers", "4"), BENCH_CACHE=str(tmp_path / "cache")) == expected
    if importlib.util.find_spec("ray"):
        assert finish(study("ray", "--executor", "ray", "--workers", "2")) == expected
    for how in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL):
        interrupt(study("interrupted", "--workers", "2"), how)
    assert finish(study("interrupted", "--workers", "2")) == expected


def interrupt(command: list[str], how: signal.Signals) -> None:
    """Start a study and end it when it has done one more trial."""
    store = Store(Path(command[command.index("--store") + 1]))
    before = len(list(store.documents()))
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(list(store.documents())) == before:
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(how)
    assert driver.wait(timeout=60) == (130 if how == signal.SIGINT else -9)
    assert len(list(store.documents())) < TRIALS
