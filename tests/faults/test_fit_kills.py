"""``kill -9`` of a driver while it trains fits that serve several targets, and between their trials."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import Driver, Left
from faults import Faults
from toy_data import write_toy_data

from bench.errors import BenchError
from bench.store.detectors import load_detector
from bench.store.store import Store

SEED = 21
PATIENCE = 300  # seconds; what takes longer hangs
SEEDS, TARGETS = 6, 3
TRIALS = SEEDS * TARGETS


class Study:
    """A study of toy-keeper on one store: what it has trained, what it has left.

    Args:
        driver: starts it.
        source: the data learned from.
        trainings: the file in which the method writes the seed of every training that begins.
    """

    def __init__(self, driver: Driver, source: Path, trainings: Path) -> None:
        self.driver, self.trainings = driver, trainings
        self.words = ["--methods", "toy-keeper[pause=0.15]", "--protocol", "transfer", "--shots", "1"]
        self.words += ["--seeds", str(SEEDS), "--train-dataset", "folder", "--train-root", str(source)]

    def trained(self) -> Counter[str]:
        """Seed -> how often its training has begun."""
        return Counter(self.trainings.read_text().split())

    def complete(self) -> set[str]:
        """The seeds whose fit is complete: its detector is there, or all of its trials are."""
        seeds = set()
        for path in Store(self.driver.store).detectors():
            try:
                description, _ = load_detector(path.read_bytes(), path.name)
            except (BenchError, FileNotFoundError):  # just dropped
                continue
            seeds.add(str(description["seed"]))
        ended = Counter(str(record["trial"]["seed"]) for record in self.driver.left().records.values())
        return seeds | {seed for seed, number in ended.items() if number == TARGETS}


@pytest.fixture
def new_study(
    new_driver: Callable[[], Driver], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Study]:
    source = tmp_path / "source"
    write_toy_data(source, first_seed=1000)
    number = iter(range(1000))

    def make() -> Study:
        trainings = tmp_path / f"trainings-{next(number)}"
        trainings.touch()
        monkeypatch.setenv("ZSAD_TRAININGS", str(trainings))
        return Study(new_driver(), source, trainings)

    return make


def test_no_fit_is_trained_again_once_it_is_complete(
    new_study: Callable[[], Study], pytestconfig: pytest.Config, faults: Faults
) -> None:
    undisturbed = new_study()
    begin = time.monotonic()
    code, _, said = undisturbed.driver.run(*undisturbed.words)
    assert code == 0, said
    life = time.monotonic() - begin
    assert sum(undisturbed.trained().values()) == SEEDS
    reference = undisturbed.driver.left()

    kills = max(3, pytestconfig.getoption("--faults-kills") * 30 // 100)
    chance = random.Random(SEED)
    done = lost = torn = twice = again = 0
    while done < kills:
        study = new_study()
        finished: Left | None = None
        while done < kills:
            complete, before = study.complete(), study.trained()
            process = study.driver.start_run(*study.words)
            moment = time.monotonic() + chance.uniform(0.5, life)
            while process.poll() is None and time.monotonic() < moment:
                time.sleep(0.002)
            killed = process.poll() is None
            process.kill()
            process.wait()
            left, after = study.driver.left(), study.trained()
            torn, twice = torn + left.torn, twice + left.twice
            if finished is not None:
                lost += len(finished.files.keys() - left.files.keys())
                twice += sum(left.files.get(key, data) != data for key, data in finished.files.items())
            again += sum(after[seed] - before[seed] for seed in complete)
            finished = left
            if not killed:
                break
            done += 1
        complete, before = study.complete(), study.trained()
        code, _, said = study.driver.run(*study.words)
        assert code == 0, said
        again += sum(study.trained()[seed] - before[seed] for seed in complete)
        found = study.driver.left()
        assert found.records == reference.records
        assert found.scores == reference.scores
        assert not Store(study.driver.store).detectors()
    beside = f"{SEEDS} fits with {TARGETS} targets each; none trained again that was complete: {again}"
    what = "`kill -9` of the driver within fits that serve several targets"
    faults.add(what, done, done, lost, torn, twice + again, beside=beside)
    assert (lost, torn, twice, again) == (0, 0, 0, 0)
