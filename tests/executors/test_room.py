"""Workers are counted by memory as well as by cores."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from trial_records import record

from bench.executors import local, worker
from bench.executors.local import LocalConfig, LocalExecutor
from bench.executors.room import LEAST, MARGIN, room
from bench.store.record import Record

GIB = 2**30
DEVNET = "devnet[backbone=pocket/resnet]"


def task(method: str, dataset: str = "pocket") -> Any:
    identity = {"method": {"name": method.partition("[")[0]}}
    return SimpleNamespace(method=method, dataset=dataset, device="cpu", identity=identity)


def measured(method: str, gib: float, device: str = "cpu (2 cores)", dataset: str = "pocket") -> Record:
    made = record(method, dataset=dataset)
    made["provenance"] = {"device": device, "peak_memory_mib": int(gib * 1024)}
    return Record.of(made)


def test_without_records_a_worker_needs_a_fixed_amount() -> None:
    found = room([task("clip")], [measured("devnet", 9), measured("clip", 9, dataset="mvtec")], 4, 5 * GIB)
    assert (found.need, found.in_memory, found.workers) == (LEAST, 2, 2)
    assert found.in_words(2) == "2 workers (of 4 cores; memory for 2: 5.0 GiB free, at least 2.0 GiB each)"
    assert room([task("clip")], [], 4, 1 * GIB).workers == 1
    assert room([task("clip")], [], 4, 100 * GIB).workers == 4


def test_the_most_demanding_trial_counts_by_its_lowest_peak() -> None:
    records = [measured("clip", 1), measured(DEVNET, 8), measured(DEVNET, 12), measured(DEVNET, 1, "NVIDIA H200")]
    found = room([task("clip"), task(DEVNET)], records, 4, 24 * GIB)
    assert found.need == int(8 * GIB * MARGIN)
    assert found.workers == 2
    assert found.in_words(2).endswith(f"memory for 2: 24.0 GiB free, 10.0 GiB each, as measured of {DEVNET})")
    assert (
        room([task("clip"), task("new")], records, 4, 24 * GIB).need == LEAST
    )  # a small need tells nothing of new
    assert room([task("devnet")], records, 4, 24 * GIB).need == found.need  # of other options, if of none like it
    assert room([task("clip")], records, 40, 24 * GIB).workers == int(24 / MARGIN)


def test_the_local_executor_settles_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.setattr(local, "free_memory", lambda: 20 * GIB)
    records = [measured(DEVNET, 8)]

    def settled(workers: int | None, tasks: list[Any]) -> tuple[int | None, str]:
        executor = LocalExecutor(LocalConfig(), workers, Path())
        return executor.workers, executor.choose_workers(tasks, records) and str(executor.workers)

    assert settled(None, [task(DEVNET)]) == (None, "2")
    assert settled(None, [task("clip")]) == (None, "8")
    assert settled(2, [task(DEVNET)]) == (2, "")
    assert settled(3, [task(DEVNET)]) == (3, "3")  # given, so it stays; but it is said
    assert settled(0, [task(DEVNET)]) == (0, "")
    assert settled(None, []) == (None, "")


def test_a_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CONTROL_GROUPS", tmp_path)
    whole = worker.memory()
    (tmp_path / "memory.max").write_text("max\n")
    assert worker.memory() == whole >= worker.free_memory()
    (tmp_path / "memory.max").write_text("1000000\n")
    assert worker.memory() == worker.free_memory() == 1000000
