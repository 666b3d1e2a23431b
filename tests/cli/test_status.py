"""A study that can be watched: ``bench status`` and ``bench list runs`` before, during and after its run."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bench.cli.main import main
from bench.store.planned import pack, unpack
from bench.store.store import Store

CALL = Callable[..., Result]
COUNTS = dict[str, dict[str, int]]


@pytest.fixture
def call(toy_root: Path, tmp_path: Path, plugin: Path) -> CALL:
    """A ``bench`` command on one store; ``run`` on the toy data, in this process."""

    def call(name: str, *words: str) -> Result:
        own = ["--dataset", "folder", "--data-root", str(toy_root), "--workers", "0"] if name == "run" else []
        return CliRunner().invoke(main, [name, *own, *words, "--store", str(tmp_path / "store")])

    return call


def counts(call: CALL, *words: str) -> COUNTS:
    """Method -> the states that it has trials in."""
    result = call("status", "--json", *words)
    assert result.exit_code == 0, result.output
    content: COUNTS = json.loads(result.stdout)["methods"]
    return {method: {state: n for state, n in own.items() if n} for method, own in content.items()}


@pytest.fixture
def slow_run(toy_root: Path, tmp_path: Path, plugin: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A study of 3 quick and 3 slow trials in a process of its own, of which the quick ones are done."""
    words = ["--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path / "store")]
    words += ["--methods", "toy-brightness,toy-learner[pause=600]", "--shots", "1", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench", "run", *words, "--name", "slow"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("store/records/*/*.json"))) < 3 or not Store(tmp_path / "store").claimed():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.1)
    yield process
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="kills a group of processes")
def test_a_study_is_visible_while_it_runs_and_after_a_kill(
    call: CALL, slow_run: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    learner = "toy-learner[pause=600.0]"
    assert counts(call) == {"toy-brightness": {"done": 3}, learner: {"running": 1, "missing": 2}}
    said = call("status", "--study", "slow").stdout
    assert said.startswith("study slow: 6 trials: 3 done, 1 running, 2 missing\n")
    assert "left: no estimate for 3 of them" in said
    assert "no process" not in said
    table = call("table")
    assert table.exit_code == 0, table.output
    assert table.stdout.count("missing") >= 3
    assert "Brightness" in table.stdout
    assert call("report", "--images", "0").exit_code == 0
    assert call("figure", "categories", "--output", str(tmp_path / "x.png")).exit_code == 0
    assert call("list", "runs").stdout == "slow  6 trials: 3 done, 1 running, 2 missing\n"

    os.killpg(slow_run.pid, signal.SIGKILL)
    slow_run.wait()
    assert counts(call)[learner] == {"missing": 3}
    assert "no process runs it now" in call("status").stdout
    assert call("list", "runs").stdout == "slow  6 trials: 3 done, 3 missing\n"
    assert call("table").exit_code == 0


def test_what_is_missing_is_told_by_the_records(call: CALL, tmp_path: Path) -> None:
    """Also those of another study or process, written after the study was."""
    assert call("run", "--methods", "toy-brightness", "--name", "whole").exit_code == 0
    store = Store(tmp_path / "store")
    key = store.study_records("whole")[0].key
    record = store.record_path(key)
    kept = record.read_bytes()
    record.unlink()
    assert counts(call) == {"toy-brightness": {"done": 2, "missing": 1}}
    (missing,) = [each for each in store.study_records("whole") if each.status == "missing"]
    assert (missing.key, missing.category, missing.method.title) == (key, "bolt", "Brightness")
    # An estimate from the two that are done.
    assert "left: about 1 s, one after the other (from 2 finished trials" in call("status").stdout
    other = Store(store.root)
    assert other.claim(key)
    assert counts(call) == {"toy-brightness": {"done": 2, "running": 1}}
    other.release(key)
    record.write_bytes(kept)
    assert counts(call) == {"toy-brightness": {"done": 3}}


def test_failures_are_told_until_they_are_run_again(call: CALL, tmp_path: Path) -> None:
    result = call("run", "--methods", "toy-faulty[how=raise]", "--categories", "bolt")
    assert result.exit_code == 1
    said = call("status").stdout
    assert "1 trial: 1 failed" in said
    assert "failed: toy-faulty · bolt: RuntimeError: boom at layer 3" in said
    store = Store(tmp_path / "store")
    (key,) = json.loads(next(store.root.glob("studies/*.json")).read_text())["keys"]
    assert store.claim(key)
    assert counts(call) == {"toy-faulty": {"running": 1}}
    assert "boom" not in call("status").stdout
    store.release(key)


def test_a_fit_that_trials_wait_for_is_told(call: CALL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZSAD_TRAININGS", str(tmp_path / "trainings.txt"))
    source = ["--protocol", "transfer", "--train-dataset", "pocket", "--seeds", "2", "--shots", "1"]
    assert call("run", "--methods", "toy-keeper", *source).exit_code == 0
    store = Store(tmp_path / "store")
    (name,) = store.study_names()
    fits = (store.study(name) or {})["fits"]
    assert len(fits) == 2  # one for each seed, of three targets each
    for key in [record.key for record in store.study_records(name)]:
        store.record_path(key).unlink()
    assert "no process runs it now" in call("status").stdout
    assert store.claim(fits[0])
    said = call("status").stdout
    assert "1 fit being trained, which missing trials wait for" in said
    assert "no process" not in said
    store.release(fits[0])


def test_runs_are_listed_the_latest_first_under_their_names(call: CALL, tmp_path: Path) -> None:
    assert "start with: bench run" in call("list", "runs").stderr
    first = ["--methods", "toy-brightness", "--name", "first"]
    assert call("run", *first).exit_code == 0
    assert call("run", "--methods", "toy-faulty", "--categories", "bolt", "--name", "second").exit_code == 1
    assert call("list", "runs").stdout == "second  1 trial: 1 failed\nfirst   3 trials: 3 done\n"
    again = call("run", *first, "--categories", "bolt")  # nothing is left to run
    assert again.exit_code == 0
    assert "note: study first had other trials; from now on its name stands for these" in again.stderr
    assert call("list", "runs").stdout == "first   1 trial: 1 done\nsecond  1 trial: 1 failed\n"
    assert "had other trials" not in call("run", *first, "--categories", "bolt").stderr
    (tmp_path / "store/studies/second.json").write_text('{"keys": 5}')
    assert "second  its file cannot be read; run the study again" in call("list", "runs").stdout
    refused = call("run", "--methods", "toy-brightness", "--name", "a/b")
    assert refused.exit_code == 2
    assert "cannot be called 'a/b'" in refused.stderr


def test_a_dry_run_is_not_a_run(call: CALL, tmp_path: Path) -> None:
    assert call("run", "--methods", "toy-brightness", "--dry-run").exit_code == 0
    assert Store(tmp_path / "store").study_names() == []


def test_only_bench_table_takes_several_studies(call: CALL) -> None:
    for name in ("one", "two"):
        words = ["--methods", "toy-brightness", "--categories", "bolt" if name == "one" else "cloth"]
        assert call("run", *words, "--name", name).exit_code == 0
    both = ["--study", "one", "--study", "two"]
    assert {"bolt", "cloth"} <= {*call("table", *both).stdout.split()}
    for command in ("report", "figure maps", "compare", "check", "pin", "rescore", "explain-gap", "status", "run"):
        name, *words = command.split()
        result = call(name, *words, *both)
        assert result.exit_code == 2, command
        assert "takes one study, not --study one and --study two; bench table takes several" in result.stderr


def test_the_quick_study_is_not_left_without_a_word(call: CALL, tmp_path: Path) -> None:
    def stderr(*words: str) -> str:
        result = CliRunner().invoke(main, ["run", *words, "--dry-run", "--store", str(tmp_path / "store")])
        assert result.exit_code == 0, result.output
        return result.stderr

    short = "devnet[batch_size=24,epochs=10], promptad[ffn=256,iters=300]"
    note = f"note: this is not the quick study, which shortens training: {short}; for that one add --study quick"
    tile = ("--categories", "tile", "--shots", "1")
    assert note in stderr(*tile)
    assert note in stderr("--seeds", "2")
    assert "study, which shortens training: devnet[batch_size=24,epochs=10]\n" in stderr(
        "--methods", "devnet", *tile
    )
    for words in (
        ["--study", "quick", *tile],
        [],
        ["--methods", "devnet", "--dataset", "pocket", *tile],  # whoever names both knows what is run
        ["--methods", "devnet[epochs=1]", *tile],
        ["--methods", "clip", *tile],
        ["--set", "iters=5,epochs=1", *tile],
    ):
        assert "not the quick study" not in stderr(*words)
    assert "promptad[encoder=pocket/clip,ffn=256,iters=300]" in stderr("--study", "quick", *tile)


def test_ten_thousand_planned_trials_take_a_small_file(tmp_path: Path) -> None:
    method = {"name": "m", "config": {f"option {i}": i / 7 for i in range(40)}, "label": "m"}
    trials = {}
    for i in range(10_000):
        protocol = {"name": "loo", "config": {"k": 0}, "source": None, "manifest": f"{i // 2:064}", "label": "loo"}
        trials[f"{i:064}"] = {
            "method": method,
            "dataset": {"name": "d", "label": "d"},
            "protocol": protocol,
            "category": f"c{i % 15}",
            "shots": 1,
            "seed": i // 15,
            "encoders": {},
            **({"leak": "weights have met d"} if i == 7 else {}),
        }
    store = Store(tmp_path)
    store.write_study("big", {"keys": list(trials), "planned": pack(trials.values())})
    assert (tmp_path / "studies/big.json").stat().st_size < 2e6
    content = store.study("big")
    assert content is not None
    assert dict(unpack(content["planned"], content["keys"])) == trials
    assert sum(record.status == "missing" for record in store.study_records("big")) == 10_000
