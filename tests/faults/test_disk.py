"""A store on a disk that is full, read-only or slow, and a clock that jumps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import STUDY, Driver, Left
from faults import Faults


def resumed(driver: Driver, undisturbed: tuple[Driver, Left], before: Left) -> tuple[int, int, int, int]:
    """Run the study to its end: survived, lost, torn, twice."""
    ends = driver.carried_out()
    code, _, said = driver.run(*STUDY)
    assert code == 0, said
    left, reference = driver.left(), undisturbed[1]
    same = left.records == reference.records and left.scores == reference.scores
    lost = len(before.files.keys() - left.files.keys()) + len(reference.records.keys() - left.records.keys())
    again = sum(left.files.get(key) != data for key, data in before.files.items())
    fits = sum((driver.carried_out() - ends).values())
    journaled = sum(r["trial"]["method"]["name"] == "toy-journal" for r in before.records.values())
    again += fits - (24 - journaled)
    return int(same and driver.half_written() == 0), lost, before.torn + left.torn, again + left.twice


def test_a_full_disk_ends_the_run_in_one_line_and_room_lets_it_go_on(
    driver: Driver, mounted: Callable[..., Path], undisturbed: tuple[Driver, Left], faults: Faults
) -> None:
    driver.store = mounted("size=320k") / "store"
    code, output, said = driver.run(*STUDY)
    assert code == 2 and output == ""
    (line,) = (line for line in said.splitlines() if line.startswith("Error:"))
    assert "No space left on device; make room or choose another folder with --store" in line
    assert "Traceback" not in said
    left = driver.left()
    assert 0 < len(left.records) < len(undisturbed[1].records)
    assert driver.half_written() == 0
    mounted("remount,size=16m")
    counts = resumed(driver, undisturbed, left)
    faults.add("disk full (a tmpfs of 320 KiB), then room", 1, *counts)
    assert counts == (1, 0, 0, 0)


@pytest.mark.parametrize("files", [0, 3, 20, 27])
def test_no_write_is_half_done_on_a_full_disk(
    files: int, driver: Driver, undisturbed: tuple[Driver, Left], faults: Faults, thorough: None
) -> None:
    code, _, said = driver.run(*STUDY, fault=f"full={files}")
    assert code == 2 and "No space left on device" in said and "Traceback" not in said
    assert driver.half_written() == 0
    counts = resumed(driver, undisturbed, driver.left())
    faults.add(f"ENOSPC from `fsync` after {files} files, then none", 1, *counts)
    assert counts == (1, 0, 0, 0)


def test_a_read_only_store_is_read_and_refuses_more(
    driver: Driver,
    mounted: Callable[..., Path],
    undisturbed: tuple[Driver, Left],
    faults: Faults,
    thorough: None,
) -> None:
    driver.store = mounted("size=16m") / "store"
    driver.run(*STUDY)
    (damaged, *_) = sorted(driver.store.glob("records/*/*.json"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9])
    mounted("remount,ro")
    code, _, said = driver.call(driver.start("table"))
    assert code == 0
    (line,) = said.splitlines()
    assert f"{damaged} is damaged and does not count; it cannot be put aside" in line
    code, output, said = driver.run(*STUDY)
    assert code == 2 and output == "" and "Traceback" not in said
    assert "cannot write to the store" in said.splitlines()[-1]
    mounted("remount,rw")
    damaged.write_bytes(whole)
    counts = resumed(driver, undisturbed, driver.left())
    faults.add("read-only store, then writable", 1, *counts)
    assert counts == (1, 0, 0, 0)


def unchanged(left: Left, reference: Left) -> int:
    return int(left.records == reference.records and left.scores == reference.scores)


def test_a_slow_disk_changes_nothing(
    driver: Driver, undisturbed: tuple[Driver, Left], faults: Faults, thorough: None
) -> None:
    code, _, said = driver.run(*STUDY, fault="slow=0.1")
    assert code == 0, said
    left, ends = driver.left(), driver.carried_out()
    same = unchanged(left, undisturbed[1])
    lost = len(undisturbed[1].records.keys() - left.records.keys())
    faults.add("disk that takes 0.2 s for each file", 1, same, lost, left.torn, ends.total() - len(ends))
    assert same


@pytest.mark.parametrize("seconds", [10**5, 10**9])
def test_a_clock_that_jumps_changes_nothing(
    seconds: int, driver: Driver, undisturbed: tuple[Driver, Left], faults: Faults, thorough: None
) -> None:
    code, _, said = driver.run(*STUDY, fault=f"clock={seconds}")
    assert code == 0, said
    left, ends = driver.left(), driver.carried_out()
    for data in left.files.values():
        spent = json.loads(data)["provenance"]["seconds"]
        assert all(0 <= value < 600 for value in spent.values()), spent
    same = unchanged(left, undisturbed[1])
    driver.run("--methods", "toy-null", "--categories", "bolt", fault=f"clock={seconds}")
    _, output, _ = driver.call(driver.start("table", fault=f"clock={seconds}"))
    latest = "Null" in output
    what = f"clock that jumps {seconds} s back and forth at every look"
    lost = len(undisturbed[1].records.keys() - left.records.keys())
    faults.add(what, 1, int(same and latest), lost, left.torn, ends.total() - len(ends))
    assert same
    assert latest, "the study that a table is made of is the one that was run last"
