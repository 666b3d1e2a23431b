"""How long a study will take, from records with known durations."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from trial_records import record

from bench.cli.main import main
from bench.contracts import HasWork
from bench.methods.promptad import PromptAD
from bench.store.store import Store
from bench.study.estimate import Estimate, Sizes, can_share, estimate, in_words
from bench.study.plan import prepare
from bench.study.study import Study
from bench.study.task import Task
from bench.tools.registry import METHODS
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
    """A record of a trial like ``task`` that took so long; ``fit`` and ``score`` are parts of it."""
    parts = {name: fields.pop(name) for name in ("fit", "score") if name in fields}
    own = {"dataset": task.dataset, "shots": task.shots, "category": "wood", **fields}
    made = record(task.method, **own)
    made["trial"]["method"] |= {"config": dict(task.identity["method"]["config"]), "trained": bool(task.fit_key)}
    made["provenance"] = {"device": device, "finished": f"2026-01-0{day}T00:00:00+00:00"}
    if seconds is not None:
        made["provenance"]["seconds"] = {"total": seconds, **parts}
    return made


def of(tasks: list[Task], found: Estimate) -> list[float | None]:
    return [found.seconds.get(task.key) for task in tasks]


def test_the_finished_trials_most_like_it_count(tasks: list[Task]) -> None:
    one, ten, short_one, short_ten, clip = tasks
    records = [finished(one, 10.0, seed=seed) for seed in range(3)]
    records += [finished(one, 1000.0, seed=3), finished(ten, 30.0)]
    found = estimate(tasks, records)
    # The median of its own kind, which one slow trial does not move. Of the variant nothing is known: the records
    # do not tell which part of the time was training.
    assert of(tasks, found) == [10, 30, None, None, None]
    assert (found.basis, found.unknown) == (5, {short_one.method: 2, clip.method: 1})
    assert not found.rough
    closer = estimate(tasks, [*records, finished(short_ten, 2.0)])
    assert of(tasks, closer) == [10, 30, 2, 2, None]
    assert (closer.basis, closer.rough) == (6, {short_one.key})
    elsewhere = estimate(tasks[:1], [finished(one, 7.0, dataset="mvtec")])
    assert (of(tasks[:1], elsewhere), elsewhere.rough) == ([7], {one.key})


def test_training_is_scaled_by_its_length(tasks: list[Task]) -> None:
    one, _, short_one, *_ = tasks
    assert (one.identity["method"]["config"]["iters"], short_one.identity["method"]["config"]["iters"]) == (
        2000,
        60,
    )
    # 6 seconds of training became 200; loading and scoring take as long as before.
    found = estimate([one], [finished(short_one, 7.5, fit=6.0, score=1.0)])
    assert found.seconds[one.key] == pytest.approx(201.5)
    assert found.rough == {one.key}
    back = estimate([short_one], [finished(one, 201.5, fit=200.0, score=1.0)])
    assert back.seconds[short_one.key] == pytest.approx(7.5)


def test_scoring_is_scaled_by_the_number_of_images(tasks: list[Task]) -> None:
    one = tasks[0]
    sizes = {one.identity["protocol"]["manifest"]: Sizes(100, 0, 80), "elsewhere": Sizes(100, 0, 20)}
    other = finished(one, 12.0, fit=6.0, score=4.0, dataset="mvtec", manifest="elsewhere")
    found = estimate([one], [other], sizes=sizes.get)
    assert found.seconds[one.key] == pytest.approx(6 + 4 * 4 + 2)


def test_another_encoder_says_nothing(tasks: list[Task]) -> None:
    one = tasks[0]
    records = [finished(one, 7.0, fit=5.0, encoder="openai/ViT-B-16")]
    assert estimate([one], records).unknown == {one.method: 1}


def test_a_method_that_declares_no_work_is_known_by_its_own_options_alone(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, short_one, *_ = tasks
    records = [finished(short_one, 7.0, fit=6.0)]
    monkeypatch.delattr(PromptAD, "work")
    assert estimate([one], records).unknown == {one.method: 1}
    assert estimate([short_one], records).seconds == {short_one.key: 7.0}
    assert estimate([short_one], [finished(short_one, 7.0, dataset="mvtec")]).unknown == {short_one.method: 1}


def test_a_shared_fit_counts_once(tasks: list[Task]) -> None:
    one = dataclasses.replace(tasks[0], fit_key="shared")
    again = dataclasses.replace(one, key="another target")
    record = finished(one, 1.0)
    record["provenance"]["fit"] = {"key": "shared", "seconds": 60.0}  # trained before, for other targets
    found = estimate([one, again], [record])
    assert found.seconds == {one.key: 61.0, again.key: 61.0}
    assert found.wall(1) == pytest.approx(62.0 if can_share(one) else 122.0)


def test_every_trained_method_here_declares_its_work() -> None:
    for name in ("promptad", "devnet", "dra", "mlep", "regad", "clip"):
        cls = METHODS.load(name)
        assert isinstance(cls, HasWork)
        fields = {field.name for field in dataclasses.fields(cls.Config)}
        option = next(option for option in ("epochs", "iters", "iterations") if option in fields)
        config = cls.Config()
        twice = dataclasses.replace(config, **{option: 2 * getattr(config, option)})
        assert cls.work(twice, 100) == 2 * cls.work(config, 100) > 0


def test_what_did_not_finish_says_nothing(tasks: list[Task]) -> None:
    one = tasks[0]
    records = [
        finished(one, 5.0, status="failed"),
        finished(one, 5.0, status="skipped"),
        finished(one, None),  # a record without durations
    ]
    found = estimate([one], records)
    assert (found.seconds, found.basis, found.unknown) == ({}, 0, {one.method: 1})
    assert list(found.lines(2)) == ["no estimate for 1 of them: no trial like those of "
                                    "promptad[encoder=pocket/clip] has finished in this store"]  # fmt: skip


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
    store.write({**finished(one, 400.0, fit=399.0), "key": "0" * 64}, None)
    other = CliRunner().invoke(main, [*words, "--store", str(tmp_path), "--set", "iters=60"])
    assert other.stdout.splitlines()[0].split()[1:6] == ["to", "run", "~", "13", "s"]
    assert other.stdout.splitlines()[0].split()[6] == "?"
    assert "2 of the estimates (?) come from other options, data, protocol or shots" in other.stderr
