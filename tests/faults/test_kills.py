"""``kill -9`` at random moments: of the process that drives a study, and of its workers."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import STUDY, Driver, Left, alive, children, place_of
from faults import Faults

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")

SEED = 20
SLOW = "slow=0.02"  # so that many moments lie within a write
PATIENCE = 300  # seconds; what takes longer hangs


def the_driver(pid: int) -> int | None:
    return pid


def a_worker(pid: int) -> int | None:
    """One that is there at this moment."""
    return next(iter(children(pid)), None)


# Who is killed, how many workers there are, and the options of the executor. A node of a cluster is a third one.
VICTIMS: dict[str, tuple[Callable[[int], int | None], int, tuple[str, ...]]] = {
    "driver": (the_driver, 1, ()),
    "worker": (a_worker, 2, ()),
}


class Campaign:
    """Kills processes of one kind in one study after another, and resumes each until it is complete."""

    def __init__(self, victim: str, new_driver: Callable[[], Driver], reference: Left) -> None:
        self.victim, self.new_driver, self.reference = victim, new_driver, reference
        self.find, self.workers, self.options = VICTIMS[victim]
        self.random = random.Random(f"{SEED} {victim}")
        self.kills = self.survived = self.lost = self.torn = self.twice = 0
        self.within_writes = self.studies = 0

    def run(self, kills: int) -> None:
        begin = time.monotonic()
        self.driver = self.new_driver()
        assert self._start().wait(PATIENCE) == 0
        life = time.monotonic() - begin  # how long the study takes here and now
        while self.kills < kills:
            self.driver = self.new_driver()
            self.finished: dict[str, bytes] = {}
            self.ends: Counter[str] = Counter()
            before = self.kills
            while self.kills < kills and not self._one_life(life, kills):
                pass
            self._complete()
            self.studies += 1
            self.survived += self.kills - before

    def _start(self) -> subprocess.Popen[str]:
        return self.driver.start_run(*STUDY, *self.options, workers=self.workers, fault=SLOW)

    def _one_life(self, life: float, kills: int) -> bool:
        """Run the study until its driver is killed, or to its end; whether it came to its end."""
        process = self._start()
        while self.kills < kills:
            moment = time.monotonic() + self.random.uniform(0, life)
            # Half of the drivers die in the middle of a write, which chance alone would seldom hit.
            writing = self.victim == "driver" and self.random.random() < 0.5
            while not self._is_time(process, moment, writing):
                if process.poll() is not None:
                    return process.returncode == 0
                assert time.monotonic() < moment + PATIENCE, "the driver hangs"
                time.sleep(0.002)
            if not self._kill(process):
                continue
            if self.victim == "driver":
                self._look()
                return False
        return process.wait(PATIENCE) == 0

    def _is_time(self, process: subprocess.Popen[str], moment: float, writing: bool) -> bool:
        if time.monotonic() < moment or self.find(process.pid) is None:
            return False
        return not writing or self.driver.half_written() > 0

    def _kill(self, process: subprocess.Popen[str]) -> bool:
        workers, found = children(process.pid), self.find(process.pid)
        try:
            if found is None or process.poll() is not None:
                return False
            os.kill(found, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.kills += 1
        if self.victim == "driver":
            self.within_writes += self.driver.half_written() > 0
            process.wait()
            deadline = time.monotonic() + PATIENCE
            while any(map(alive, workers)):  # they see that their driver is gone
                assert time.monotonic() < deadline, "a worker outlives its driver"
                time.sleep(0.01)
        return True

    def _look(self) -> None:
        """Compare with what was finished at the last look: it is there, as it was, and was not done again."""
        left, ends = self.driver.left(), self.driver.carried_out()
        self.torn += left.torn
        self.twice += left.twice
        for key, data in self.finished.items():
            self.lost += key not in left.files
            self.twice += left.files.get(key, data) != data
        for key in self.finished.keys() & self.reference.records.keys():
            place = place_of(self.reference.records[key])
            journaled = self.reference.records[key]["trial"]["method"]["name"] == "toy-journal"
            self.twice += journaled and ends[place] != self.ends[place]
        self.finished, self.ends = dict(left.files), ends

    def _complete(self) -> None:
        for _ in range(3):  # a trial whose worker was killed twice has failed; it is tried again
            self._look()
            if self._start().wait(PATIENCE) == 0:
                break
        self._look()
        left = self.driver.left()
        self.lost += len(self.reference.records.keys() - left.records.keys())
        same = left.records == self.reference.records and left.scores == self.reference.scores
        assert same, "the study differs from the undisturbed one"
        assert self.driver.half_written() == 0, "what a writer that was killed had begun is still there"


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_killed_study_ends_as_an_undisturbed_one(
    victim: str,
    new_driver: Callable[[], Driver],
    undisturbed: tuple[Driver, Left],
    faults: Faults,
    pytestconfig: pytest.Config,
) -> None:
    kills = pytestconfig.getoption("--faults-kills") // len(VICTIMS)
    campaign = Campaign(victim, new_driver, undisturbed[1])
    try:
        campaign.run(kills)
    finally:
        beside = f"{campaign.studies} studies of {len(undisturbed[1].records)} trials, seed {SEED}"
        if victim == "driver":
            beside += f"; {campaign.within_writes} kills within a write"
        counts = campaign.kills, campaign.survived, campaign.lost, campaign.torn, campaign.twice
        faults.add(f"`kill -9` of the {victim} at a random moment", *counts, beside=beside)
    assert (campaign.survived, campaign.lost, campaign.torn, campaign.twice) == (kills, 0, 0, 0)
