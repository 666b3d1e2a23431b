"""Thousands of trials in one store: memory flat, time linear, resumed in seconds."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from drivers import Driver
from faults import Faults

CATEGORIES = 3
SHARES = (0.1, 0.5, 1.0)  # of the trials, where the driver is measured
LEAK = 20.0  # MiB by which the driver may grow while nine tenths of the trials are run

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")


def resident(pid: int) -> float:
    """MiB of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def test_a_long_study_neither_grows_nor_slows_down(
    driver: Driver, faults: Faults, pytestconfig: pytest.Config
) -> None:
    seeds = pytestconfig.getoption("--faults-trials") // CATEGORIES
    trials = CATEGORIES * seeds
    study = ("--methods", "toy-null", "--seeds", str(seeds))
    process = driver.start_run(*study, workers=1)
    driver.journal.touch()
    memory, moments = [], []
    marks = [round(share * trials) for share in SHARES]
    for mark in (1, *marks):
        while process.poll() is None and driver.journal.read_bytes().count(b"\n") < mark:
            time.sleep(0.02)
        moments.append(time.monotonic())
        if process.poll() is None:
            memory.append(resident(process.pid))
    code, _, said = driver.call(process)
    assert code == 0, said
    begin = time.monotonic()
    code, _, said = driver.run(*study, workers=1)
    resumed = time.monotonic() - begin
    assert code == 0 and "nothing to do" in said
    left, ends = driver.left(), driver.carried_out()
    lost, twice = trials - len(left.records), ends.total() - len(ends) + left.twice
    pace = [
        1000 * (late - early) / (last - first)
        for early, late, first, last in zip(moments[1:], moments[2:], marks, marks[1:], strict=False)
    ]
    beside = f"driver {', '.join(f'{m:.0f}' for m in memory)} MiB after 1, {', '.join(map(str, marks))} trials; "
    beside += f"{', '.join(f'{p:.1f}' for p in pace)} ms a trial; nothing to do said in {resumed:.1f} s"
    faults.add(f"{trials} trials in one store", 1, int(not lost), lost, left.torn, twice, beside)
    assert (lost, left.torn, twice) == (0, 0, 0)
    assert not list(driver.store.glob("locks/*"))
    assert memory[-1] - memory[1] < LEAK, beside
    if trials >= 1000:  # of fewer the start is most of it
        assert pace[-1] < 1.5 * pace[0], beside
