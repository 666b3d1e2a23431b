"""The loop that every executor with workers shares, held against workers that die and dawdle in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.executors import pool as crew_module
from bench.executors.pool import NODES, STARTS, Shift
from bench.executors.worker import Done


class WorkerDiedError(Exception):
    pass


def resolved(value: Any = None, error: BaseException | None = None) -> Future[Any]:
    future: Future[Any] = Future()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(value)
    return future


class FakeWorker:
    def __init__(self, crew: FakeCrew) -> None:
        self.crew, self.stopped = crew, False
        self.ready = resolved(error=WorkerDiedError("no room")) if crew.stillborn else resolved()

    def submit(self, batch: Any) -> Future[Done]:
        assert not self.stopped
        keys = [task.key for task in batch]
        self.crew.log.append("".join(keys))
        self.crew.runs.update(keys)
        future = self.crew.answer(batch)
        self.crew.most = max(self.crew.most, sum(not w.stopped for w in self.crew.hired))
        return future

    def stop(self) -> None:
        self.stopped = True


class FakeCrew:
    """Answers at once, unless ``how`` says something else of a key."""

    deaths = (WorkerDiedError,)

    def __init__(self, workers: int, how: dict[str, Callable[[], Future[Any]]], blame: bool = True) -> None:
        self.workers, self.how, self.blame = workers, how, blame
        self.stillborn = False
        self.hired: list[FakeWorker] = []
        self.log: list[str] = []
        self.runs: Counter[str] = Counter()
        self.most = 0

    def size(self) -> int:
        return self.workers

    def hire(self) -> FakeWorker:
        self.hired.append(FakeWorker(self))
        return self.hired[-1]

    def welcome(self, worker: Any) -> None:
        worker.ready.result()

    def blames(self, worker: Any, death: BaseException) -> bool:
        return self.blame

    def news(self) -> list[Any]:
        return []

    def answer(self, batch: Any) -> Future[Any]:
        for task in batch:
            if task.key in self.how:
                return self.how[task.key]()
        return resolved(Done([f"outcome of {task.key}" for task in batch], worn=False))  # type: ignore[misc]


def run(crew: FakeCrew, batches: Iterator[Any] | list[str], limit: float | None = None) -> dict[str, str]:
    """Key -> outcome; each task comes out exactly once, and every worker has been stopped."""
    tasks = (tuple(SimpleNamespace(key=key) for key in keys) for keys in batches)
    found: dict[str, str] = {}
    for task, outcome in Shift(crew, lambda *_: None, limit).run(tasks):  # type: ignore[arg-type]
        assert task.key not in found
        found[task.key] = str(outcome)
    assert all(worker.stopped for worker in crew.hired)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew_module, "_POLL", 0.01)
    monkeypatch.setattr(crew_module, "failed", lambda task, reason: f"failed: {reason}")


def dying() -> Future[Any]:
    return resolved(error=WorkerDiedError())


def once(first: Callable[[], Future[Any]], batch: str) -> Callable[[], Future[Any]]:
    """``first`` for the first try of a batch, a sound answer for each of its tasks later."""
    tries = iter([first])
    return lambda: next(tries, lambda: resolved(Done([f"outcome of {batch}"], worn=False)))()  # type: ignore[misc]


def test_every_trial_comes_out_once_and_workers_stay() -> None:
    crew = FakeCrew(2, {})
    found = run(crew, ["a", "bc", "d", "efg", "h"])
    assert found == {key: f"outcome of {key}" for key in "abcdefgh"}
    assert len(crew.hired) == 2


def test_no_more_workers_than_batches() -> None:
    crew = FakeCrew(8, {})
    run(crew, ["a", "b"])
    assert len(crew.hired) == 2


def test_batches_are_taken_only_when_there_is_room() -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for key in "abcdef":
            taken.append(key)
            yield key

    crew = FakeCrew(2, {})
    tasks = ((SimpleNamespace(key=key),) for key in source())
    outcomes = Shift(crew, lambda *_: None, None).run(tasks)  # type: ignore[arg-type]
    next(outcomes)
    assert len(taken) <= 2 + 2  # two have ended, two are running
    outcomes.close()
    assert all(worker.stopped for worker in crew.hired)


def test_a_batch_whose_worker_dies_is_tried_again_one_by_one_when_all_else_is_done() -> None:
    crew = FakeCrew(2, {"b": once(dying, "b")})
    found = run(crew, ["a", "bc", "d", "e"])
    assert found == {key: f"outcome of {key}" for key in "abcde"}
    assert crew.log[-2:] == ["b", "c"]
    assert crew.runs == {"a": 1, "b": 2, "c": 2, "d": 1, "e": 1}


def test_a_trial_that_kills_its_worker_twice_has_failed() -> None:
    crew = FakeCrew(2, {"b": dying})
    found = run(crew, ["a", "bc", "d"])
    assert "died, twice" in found.pop("b")
    assert found == {key: f"outcome of {key}" for key in "acd"}
    assert crew.runs["b"] == 2


def test_a_lost_machine_is_not_its_trials_fault() -> None:
    crew = FakeCrew(1, {"b": dying}, blame=False)
    found = run(crew, ["a", "b", "c"])
    assert "machines were lost" in found.pop("b")
    assert found == {key: f"outcome of {key}" for key in "ac"}
    assert crew.runs["b"] == NODES


def test_work_waits_until_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = FakeCrew(1, {"b": dying}, blame=False)
    sizes = iter([1] * 20 + [0] * 20)
    monkeypatch.setattr(crew, "size", lambda: next(sizes, 1))
    naps: list[float] = []
    monkeypatch.setattr(crew_module.time, "sleep", naps.append)
    assert set(run(crew, ["a", "b", "c"])) == set("abc")
    assert len(naps) in range(5, 21)


def test_a_trial_that_takes_too_long_is_stopped_alone() -> None:
    crew = FakeCrew(2, {"b": Future})
    found = run(crew, ["a", "b", "c", "d"], limit=0.1)
    assert found.pop("b") == "failed: took longer than 0.1 seconds; raise --time-limit"
    assert found == {key: f"outcome of {key}" for key in "acd"}
    assert crew.runs["b"] == 1


def test_a_batch_may_take_as_long_as_its_trials_together(monkeypatch: pytest.MonkeyPatch) -> None:
    crew, clock = FakeCrew(1, {}), SimpleNamespace(monotonic=lambda: 29.0)
    monkeypatch.setattr(crew_module, "time", clock)
    shift, slow = Shift(crew, lambda *_: None, 10), Future[Done]()  # type: ignore[arg-type]
    batch: Any = tuple(SimpleNamespace(key=key) for key in "abc")
    shift.flying = {slow: crew_module._Job(crew.hire(), batch, 0.0)}  # type: ignore[arg-type]
    assert shift._collect(slow) == []
    clock.monotonic = lambda: 31.0
    assert shift._collect(slow) == []
    assert [task.key for task in shift.suspects] == list("abc")
    assert crew.hired[0].stopped


def test_of_a_batch_that_takes_too_long_each_trial_is_tried_alone() -> None:
    crew = FakeCrew(2, {"b": Future})
    found = run(crew, ["abc", "d"], limit=0.1)
    assert found.pop("b") == "failed: took longer than 0.1 seconds; raise --time-limit"
    assert found == {key: f"outcome of {key}" for key in "acd"}


def test_a_worn_worker_is_replaced() -> None:
    worn = lambda: resolved(Done(["outcome of b"], worn=True))  # type: ignore[list-item]  # noqa: E731
    crew = FakeCrew(1, {"b": worn})
    assert run(crew, ["a", "b", "c"]) == {key: f"outcome of {key}" for key in "abc"}
    assert len(crew.hired) == 2


def test_a_worker_without_its_gpu_is_replaced_and_a_batch_that_it_failed_is_tried_trial_by_trial() -> None:
    def broken(outcome: str, trials: int) -> Callable[[], Future[Any]]:
        return lambda: resolved(Done([outcome] * trials, worn=False, broken=True))  # type: ignore[list-item]

    crew = FakeCrew(1, {"a": once(broken("lost", 3), "a"), "d": broken("failed on its own", 1)})
    found = run(crew, ["abc", "d"])
    assert found == {**{key: f"outcome of {key}" for key in "abc"}, "d": "failed on its own"}
    assert crew.log == ["abc", "d", "a", "b", "c"]
    assert [worker.stopped for worker in crew.hired[:2]] == [True, True]


def test_an_outcome_that_cannot_travel_fails_its_trial() -> None:
    crew = FakeCrew(1, {"b": lambda: resolved(error=TypeError("cannot pickle\na socket"))})
    found = run(crew, ["a", "bc"])
    assert found.pop("b") == "failed: its outcome could not be returned: cannot pickle"
    assert found == {key: f"outcome of {key}" for key in "ac"}


def test_workers_that_never_start_end_the_run_with_the_reason() -> None:
    crew = FakeCrew(1, {})
    crew.stillborn = True
    with pytest.raises(BenchError, match="no worker can be started: no room"):
        run(crew, ["a"])
    assert len(crew.hired) == STARTS


def test_a_crew_that_shrinks_lets_idle_workers_go() -> None:
    crew = FakeCrew(3, {})
    shift = Shift(crew, lambda *_: None, None)  # type: ignore[arg-type]
    shift.idle = [crew.hire() for _ in range(3)]  # type: ignore[misc]
    crew.workers = 1
    shift._hire()
    assert [worker.stopped for worker in crew.hired] == [False, True, True]
