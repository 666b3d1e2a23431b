"""The loop that every executor with workers shares, held against workers that die and dawdle in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import BenchError
from bench.executors import pool as pool_module
from bench.executors.pool import NODES, STARTS, Scheduler
from bench.executors.worker import Done

METHOD = {"method": {"name": "devnet", "config": {"batch_size": 48}}}


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
    def __init__(self, pool: FakeCrew) -> None:
        self.pool, self.stopped = pool, False
        self.ready = resolved(error=WorkerDiedError("no room")) if pool.stillborn else resolved()

    def submit(self, batch: Any) -> Future[Done]:
        assert not self.stopped
        keys = [task.key for task in batch]
        self.pool.log.append("".join(keys))
        self.pool.runs.update(keys)
        future = self.pool.answer(batch)
        self.pool.most = max(self.pool.most, sum(not w.stopped for w in self.pool.started))
        return future

    def stop(self) -> None:
        self.stopped = True


class FakeCrew:
    """Answers at once, unless ``how`` says something else of a key."""

    deaths = (WorkerDiedError,)

    def __init__(self, workers: int, how: dict[str, Callable[[], Future[Any]]], blame: bool = True) -> None:
        self.workers, self.how, self.blame = workers, how, blame
        self.stillborn = False
        self.started: list[FakeWorker] = []
        self.log: list[str] = []
        self.runs: Counter[str] = Counter()
        self.most = 0

    def size(self) -> int:
        return self.workers

    def start(self) -> FakeWorker:
        self.started.append(FakeWorker(self))
        return self.started[-1]

    def check(self, worker: Any) -> None:
        worker.ready.result()

    def is_to_blame(self, worker: Any, death: BaseException) -> bool:
        return self.blame

    def progress(self) -> list[Any]:
        return []

    def answer(self, batch: Any) -> Future[Any]:
        for task in batch:
            if task.key in self.how:
                return self.how[task.key]()
        return resolved(Done([f"outcome of {task.key}" for task in batch], worn=False))  # type: ignore[misc]


def run(pool: FakeCrew, batches: Iterator[Any] | list[str], limit: float | None = None) -> dict[str, str]:
    """Key -> outcome; each task comes out exactly once, and every worker has been stopped."""
    tasks = (tuple(SimpleNamespace(key=key, identity=METHOD) for key in keys) for keys in batches)
    found: dict[str, str] = {}
    for task, outcome in Scheduler(pool, lambda *_: None, limit).run(tasks):  # type: ignore[arg-type]
        assert task.key not in found
        found[task.key] = str(outcome)
    assert all(worker.stopped for worker in pool.started)
    return found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_POLL", 0.01)
    monkeypatch.setattr(pool_module, "failed_job", lambda task, reason: f"failed: {reason}")


def dying() -> Future[Any]:
    return resolved(error=WorkerDiedError())


def once(first: Callable[[], Future[Any]], batch: str) -> Callable[[], Future[Any]]:
    """``first`` for the first try of a batch, a sound answer for each of its tasks later."""
    tries = iter([first])
    return lambda: next(tries, lambda: resolved(Done([f"outcome of {batch}"], worn=False)))()  # type: ignore[misc]


def test_every_trial_comes_out_once_and_workers_stay() -> None:
    pool = FakeCrew(2, {})
    found = run(pool, ["a", "bc", "d", "efg", "h"])
    assert found == {key: f"outcome of {key}" for key in "abcdefgh"}
    assert len(pool.started) == 2


def test_no_more_workers_than_batches() -> None:
    pool = FakeCrew(8, {})
    run(pool, ["a", "b"])
    assert len(pool.started) == 2


def test_batches_are_taken_only_when_there_is_room() -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for key in "abcdef":
            taken.append(key)
            yield key

    pool = FakeCrew(2, {})
    tasks = ((SimpleNamespace(key=key),) for key in source())
    outcomes = Scheduler(pool, lambda *_: None, None).run(tasks)  # type: ignore[arg-type]
    next(outcomes)
    assert len(taken) <= 2 + 2  # two have ended, two are running
    outcomes.close()
    assert all(worker.stopped for worker in pool.started)


def test_a_batch_whose_worker_dies_is_tried_again_one_by_one_when_all_else_is_done() -> None:
    pool = FakeCrew(2, {"b": once(dying, "b")})
    found = run(pool, ["a", "bc", "d", "e"])
    assert found == {key: f"outcome of {key}" for key in "abcde"}
    assert pool.log[-2:] == ["b", "c"]
    assert pool.runs == {"a": 1, "b": 2, "c": 2, "d": 1, "e": 1}


def test_a_trial_that_kills_its_worker_twice_has_failed() -> None:
    pool = FakeCrew(2, {"b": dying})
    found = run(pool, ["a", "bc", "d"])
    reason = found.pop("b")
    assert "died, twice" in reason
    assert reason.endswith("ran out of memory: try --workers 1 or --set devnet.batch_size=24")
    assert found == {key: f"outcome of {key}" for key in "acd"}
    assert pool.runs["b"] == 2


def test_what_is_of_no_use_is_not_advised(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = run(FakeCrew(1, {"b": dying}), ["b"])["b"]  # there was one worker anyway
    assert reason.endswith("try --set devnet.batch_size=24")
    monkeypatch.setitem(METHOD["method"], "config", {"iters": 20})
    assert run(FakeCrew(1, {"b": dying}), ["b"])["b"].endswith("most often it ran out of memory")


def test_a_lost_machine_is_not_its_trials_fault() -> None:
    pool = FakeCrew(1, {"b": dying}, blame=False)
    found = run(pool, ["a", "b", "c"])
    assert "machines were lost" in found.pop("b")
    assert found == {key: f"outcome of {key}" for key in "ac"}
    assert pool.runs["b"] == NODES


def test_work_waits_until_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = FakeCrew(1, {"b": dying}, blame=False)
    sizes = iter([1] * 20 + [0] * 20)
    monkeypatch.setattr(pool, "size", lambda: next(sizes, 1))
    naps: list[float] = []
    monkeypatch.setattr(pool_module.time, "sleep", naps.append)
    assert set(run(pool, ["a", "b", "c"])) == set("abc")
    assert len(naps) in range(5, 21)


def test_a_trial_that_takes_too_long_is_stopped_alone() -> None:
    pool = FakeCrew(2, {"b": Future})
    found = run(pool, ["a", "b", "c", "d"], limit=0.1)
    assert found.pop("b") == "failed: took longer than 0.1 seconds; raise --time-limit"
    assert found == {key: f"outcome of {key}" for key in "acd"}
    assert pool.runs["b"] == 1


def test_a_batch_may_take_as_long_as_its_trials_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, clock = FakeCrew(1, {}), SimpleNamespace(monotonic=lambda: 29.0)
    monkeypatch.setattr(pool_module, "time", clock)
    scheduler, slow = Scheduler(pool, lambda *_: None, 10), Future[Done]()  # type: ignore[arg-type]
    batch: Any = tuple(SimpleNamespace(key=key) for key in "abc")
    scheduler.flying = {slow: pool_module._Job(pool.start(), batch, 0.0)}  # type: ignore[arg-type]
    assert scheduler._collect(slow) == []
    clock.monotonic = lambda: 31.0
    assert scheduler._collect(slow) == []
    assert [task.key for task in scheduler.suspects] == list("abc")
    assert pool.started[0].stopped


def test_of_a_batch_that_takes_too_long_each_trial_is_tried_alone() -> None:
    pool = FakeCrew(2, {"b": Future})
    found = run(pool, ["abc", "d"], limit=0.1)
    assert found.pop("b") == "failed: took longer than 0.1 seconds; raise --time-limit"
    assert found == {key: f"outcome of {key}" for key in "acd"}


def test_a_worn_worker_is_replaced() -> None:
    worn = lambda: resolved(Done(["outcome of b"], worn=True))  # type: ignore[list-item]  # noqa: E731
    pool = FakeCrew(1, {"b": worn})
    assert run(pool, ["a", "b", "c"]) == {key: f"outcome of {key}" for key in "abc"}
    assert len(pool.started) == 2


def test_a_worker_without_its_gpu_is_replaced_and_a_batch_that_it_failed_is_tried_trial_by_trial() -> None:
    def broken(outcome: str, trials: int) -> Callable[[], Future[Any]]:
        return lambda: resolved(Done([outcome] * trials, worn=False, broken=True))  # type: ignore[list-item]

    pool = FakeCrew(1, {"a": once(broken("lost", 3), "a"), "d": broken("failed on its own", 1)})
    found = run(pool, ["abc", "d"])
    assert found == {**{key: f"outcome of {key}" for key in "abc"}, "d": "failed on its own"}
    assert pool.log == ["abc", "d", "a", "b", "c"]
    assert [worker.stopped for worker in pool.started[:2]] == [True, True]


def test_an_outcome_that_cannot_travel_fails_its_trial() -> None:
    pool = FakeCrew(1, {"b": lambda: resolved(error=TypeError("cannot pickle\na socket"))})
    found = run(pool, ["a", "bc"])
    assert found.pop("b") == "failed: its outcome could not be returned: cannot pickle"
    assert found == {key: f"outcome of {key}" for key in "ac"}


def test_workers_that_never_start_end_the_run_with_the_reason() -> None:
    pool = FakeCrew(1, {})
    pool.stillborn = True
    with pytest.raises(BenchError, match="no worker can be started: no room"):
        run(pool, ["a"])
    assert len(pool.started) == STARTS


def test_a_pool_that_shrinks_lets_idle_workers_go() -> None:
    pool = FakeCrew(3, {})
    scheduler = Scheduler(pool, lambda *_: None, None)  # type: ignore[arg-type]
    scheduler.idle = [pool.start() for _ in range(3)]  # type: ignore[misc]
    pool.workers = 1
    scheduler._start_workers()
    assert [worker.stopped for worker in pool.started] == [False, True, True]
