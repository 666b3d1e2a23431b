from __future__ import annotations

import threading
from pathlib import Path

import pytest

import bench.stopwatch
import bench.tools.stopwatch
from bench.encoders.feature_store import FeatureStore
from bench.encoders.features import CACHE
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.spec import parse_spec
from bench.tools.stopwatch import Stopwatch, timed
from bench.trial.trial import run_trial


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(bench.tools.stopwatch.time, "perf_counter", lambda: now[0])
    return now


def test_the_old_module_gives_the_same() -> None:
    assert bench.stopwatch.timed is timed


def test_every_second_belongs_to_the_innermost_part(clock: list[float]) -> None:
    watch = Stopwatch()
    with watch.running():
        clock[0] += 1
        with watch("fit"):
            clock[0] += 2
            with timed("encode"):
                clock[0] += 4
                with timed("encode"):  # an encoder that calls itself is not counted twice
                    clock[0] += 8
            clock[0] += 16
    clock[0] += 100  # another trial's
    with watch.running(), watch("score"), timed("encode"):
        clock[0] += 32
    assert watch.seconds() == {"encode": 44, "fit": 18, "score": 0, "total": 63}


def test_what_is_done_for_several_trials_is_shared_out(clock: list[float]) -> None:
    both, own = Stopwatch(), Stopwatch()
    with both.running(), both("fit"):
        clock[0] += 6
        with timed("encode"):
            clock[0] += 4
    with own.running(), own("fit"):
        clock[0] += 1
    own.add_share(both, 2)
    assert own.seconds() == {"encode": 2, "fit": 4, "total": 6}


def test_a_part_that_fails_is_counted(clock: list[float]) -> None:
    @timed("encode")
    def fail() -> None:
        clock[0] += 1
        raise KeyError

    watch = Stopwatch()
    with pytest.raises(KeyError), watch.running(), watch("fit"):
        fail()
    assert watch.seconds() == {"encode": 1, "fit": 0, "total": 1}


def test_another_thread_takes_no_time_from_the_trial() -> None:
    watch = Stopwatch()

    def work() -> None:
        with timed("encode"):
            pass

    thread = threading.Thread(target=work)
    with watch.running():
        thread.start()
        thread.join()
    assert watch.seconds().keys() == {"total"}


def test_a_trial_says_what_its_encoder_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded, run, read back: in the part ``encode`` and in no other."""
    monkeypatch.setattr(CACHE, "store", FeatureStore(tmp_path / "features"))  # nothing is there from other tests
    specs = parse_spec("clip[encoder=pocket/clip]"), parse_spec("pocket")
    study = Study("s", specs[:1], specs[1:], categories=("button", "chip"))
    first, second = [run_trial(task).record["provenance"] for task in prepare(study, Store(tmp_path)).tasks]
    for provenance in (first, second):
        seconds = provenance["seconds"]
        assert seconds.keys() == {"data", "encode", "score", "metrics", "total"}
        assert sum(seconds.values()) <= 2 * seconds["total"] + 0.005  # parts do not overlap
        assert seconds["encode"] > 0
    assert first["encoder_passes"] > 0
