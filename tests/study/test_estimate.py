"""How long a study will take, from records with known durations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trial_records import record

from bench.cli.main import main
from bench.store.store import Store
from bench.study.estimate import Estimate, estimate, in_words
from bench.study.plan import prepare
from bench.study.study import Study
from bench.study.task import Task
from bench.tools.spec import parse_spec

CPU, GPU = "cpu (2 cores)", "NVIDIA H100"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Two variants of PromptAD at 1 and 10 shots, and CLIP; one category."""
    study = Study(
        "s",
        tuple(map(parse_spec, ("promptad", "promptad[iters=60]", "clip"))),
        (parse_spec("pocket"),),
        categories=("chip",),
    )
    return list(prepare(study, Store(tmp_path_factory.mktemp("store"))).tasks)


def finished(task: Task, seconds: float | None, device: str = CPU, day: int = 1, **fields: Any) -> dict[str, Any]:
    """A record of a trial like ``task`` that took so long."""
    own = {"dataset": task.dataset, "shots": task.shots, "category": "wood", **fields}
    made = record(task.method, **own)
    made["provenance"] = {"device": device, "finished": f"2026-01-0{day}T00:00:00+00:00"}
    if seconds is not None:
        made["provenance"]["seconds"] = {"total": seconds}
    return made


def of(tasks: list[Task], found: Estimate) -> list[float | None]:
    return [found.seconds.get(task.key) for task in tasks]


def test_the_finished_trials_most_like_it_count(tasks: list[Task]) -> None:
    one, ten, short_one, short_ten, clip = tasks
    records = [finished(one, 10.0, seed=seed) for seed in range(3)]
    records += [finished(one, 1000.0, seed=3), finished(ten, 30.0)]
    found = estimate(tasks, records)
    # The median of its own kind, which one slow trial does not move; for the variant, that of all of the method.
    assert of(tasks, found) == [10, 30, 10, 10, None]
    assert (found.basis, found.unknown) == (5, {clip.method: 1})
    assert found.rough == {short_one.key, short_ten.key}
    closer = estimate(tasks, [*records, finished(short_ten, 2.0)])
    assert of(tasks, closer) == [10, 30, 2, 2, None]
    assert (closer.basis, closer.rough) == (6, {short_one.key})
    elsewhere = estimate(tasks[:1], [finished(one, 7.0, dataset="mvtec")])
    assert (of(tasks[:1], elsewhere), elsewhere.rough) == ([7], {one.key})


def test_what_did_not_finish_says_nothing(tasks: list[Task]) -> None:
    one = tasks[0]
    records = [
        finished(one, 5.0, status="failed"),
        finished(one, 5.0, status="skipped"),
        finished(one, None),  # a record without durations
    ]
    found = estimate([one], records)
    assert (found.seconds, found.basis, found.unknown) == ({}, 0, {one.method: 1})
    assert list(found.lines(2)) == ["no estimate for 1 of them: no trial of promptad[encoder=pocket/clip] has "
                                    "finished in this store"]  # fmt: skip


def test_times_on_another_device_do_not_count(tasks: list[Task]) -> None:
    one = tasks[0]
    records = [finished(one, 100.0, CPU, 1), finished(one, 3.0, GPU, 2), finished(one, 90.0, CPU, 1)]
    assert of([one], estimate([one], records)) == [3]  # the latest says where
    assert of([one], estimate([one], records, "cpu")) == [95]
    assert of([one], estimate([one], records, "cuda:1")) == [3]
    assert estimate([one], records[:1], "cuda").unknown == {one.method: 1}


def test_trials_side_by_side(tasks: list[Task]) -> None:
    found = Estimate({"a": 60.0, "b": 60.0, "c": 60.0, "d": 600.0}, 12, CPU, (), {})
    assert [found.wall(workers) for workers in (0, 1, 2, 4)] == [780, 780, 600, 600]  # one cannot be divided
    assert list(found.lines(1)) == [f"about 13 min, one after the other (from 12 finished trials on {CPU})"]
    assert list(found.lines(2)) == [f"about 10 min, 2 side by side (from 12 finished trials on {CPU})"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.02, "1 s"),
        (59.4, "59 s"),
        (59.7, "1 min"),
        (3599, "1 h 0 min"),
        (12000, "3 h 20 min"),
        (86399, "1 d 0 h"),
        (187200, "2 d 4 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_a_dry_run_says_how_long_it_will_take(tasks: list[Task], tmp_path: Path) -> None:
    store = Store(tmp_path)
    one, ten = tasks[:2]
    store.write(finished(one, 40.0), None)
    store.write(finished(one, 600.0, dataset="mvtec"), None)
    store.write({**finished(ten, 80.0), "key": ten.key, "status": "skipped"}, None)
    words = ["run", "--methods", "promptad,clip", "--dataset", "pocket", "--categories", "chip", "--dry-run"]
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path), "--workers", "2"])
    assert result.exit_code == 0, result.output
    lines = [line.split()[1:-1] for line in result.stdout.splitlines()]
    title = ["pocket", "·", "promptad[encoder=pocket/clip]", "·", "chip", "·"]
    assert lines[0] == ["to", "run", "~", "40", "s", *title, "1-shot", "·", "seed"]
    assert lines[1] == ["done", *title, "10-shot", "·", "seed"]
    assert lines[2] == ["to", "run", "pocket", "·", "clip[encoder=pocket/clip]", "·"]
    assert "3 trials, 1 done, 2 to run" in result.stderr
    assert f"about 40 s, 2 side by side (from 1 finished trial on {CPU})" in result.stderr
    assert "no estimate for 1 of them" in result.stderr
    assert "may be far off" not in result.stderr
    other = CliRunner().invoke(main, [*words, "--store", str(tmp_path), "--set", "iters=60"])
    assert other.stdout.splitlines()[0].split()[1:6] == ["to", "run", "~", "5", "min"]
    assert other.stdout.splitlines()[0].split()[6] == "?"
    assert "2 of the estimates (?) come from other options, data, protocol or shots" in other.stderr
