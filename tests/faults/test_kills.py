"""``kill -9`` at random moments: of the process that drives a study, of its workers, of a machine with some."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from drivers import STUDY, Driver, Left, alive, children, place_of
from faults import Faults

from bench.errors import BenchError
from bench.executors.cluster import _import_ray

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes through /proc")

SEED = 20
SLOW = "slow=0.02"  # so that many moments lie within a write
PATIENCE = 300  # seconds; what takes longer hangs
OBJECT_STORE = 100 * 2**20  # bytes, of a machine of the cluster
LIFE = 2.0  # seconds of a machine of the cluster from its first trial: a few trials, each of half a second


@dataclass(frozen=True)
class Victim:
    """Who is killed.

    Attributes:
        find: the process to kill of the driver with this process id; None where there is none at this moment.
        kill: kills it.
        workers: how many there are.
        options: of ``bench run``.
        life: seconds within which it is killed, from when it is there; None: until a study would have ended.
        journal: where its workers write, if they do not have their environment from the driver.
    """

    find: Callable[[int], int | None]
    kill: Callable[[int], None]
    workers: int
    options: tuple[str, ...] = ()
    life: float | None = None
    journal: Path | None = None


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def a_worker(pid: int) -> int | None:
    return next(iter(children(pid)), None)


class Machine:
    """The one of a cluster that is not its head: the head holds the driver."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self._join()

    def _join(self) -> None:
        self.node = self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        self.raylet = self.node.all_processes["raylet"][0].process.pid

    def find(self, _: int) -> int | None:
        """A worker that is carrying out a trial."""
        return next(iter(children(self.raylet, b"ray::WorkerActor.work")), None)

    def kill(self, _: int) -> None:
        """With everything that runs on it; another one joins in its place."""
        workers = children(self.raylet, b"ray::")
        self.cluster.remove_node(self.node, allow_graceful=False)
        for worker in workers:  # by themselves they would notice only a while later
            with contextlib.suppress(ProcessLookupError):
                kill(worker)
        self._join()


@pytest.fixture(scope="module")
def node(new_driver: Callable[[], Driver], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    """One of two machines of a cluster, with one core each."""
    try:
        _import_ray()
    except BenchError as reason:
        pytest.skip(str(reason))
    from ray.cluster_utils import Cluster

    driver = new_driver()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(driver.path))
        patch.setenv("ZSAD_JOURNAL", str(driver.journal))
        patch.setenv("ZSAD_PAUSE", "0.5")  # else the head has done everything before another worker has started
        patch.chdir(tmp_path_factory.mktemp("neutral"))  # the repository's folder "datasets" is none of Ray's
        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        machine = Machine(cluster)
        options = ("--executor", "ray", "--ray-address", cluster.address, "--device", "cpu")
        yield Victim(machine.find, machine.kill, 2, options, LIFE, driver.journal)
        cluster.shutdown()


VICTIMS = {
    "driver": Victim(lambda pid: pid, kill, 1),
    "worker": Victim(a_worker, kill, 2),
    "node": None,  # the fixture, which takes a while
}


class Campaign:
    """Kills processes of one kind in one study after another, and resumes each until it is complete."""

    def __init__(self, name: str, victim: Victim, new_driver: Callable[[], Driver], reference: Left) -> None:
        self.name, self.victim, self.new_driver, self.reference = name, victim, new_driver, reference
        self.random = random.Random(f"{SEED} {name}")
        self.kills = self.survived = self.lost = self.torn = self.twice = 0
        self.within_writes = self.studies = 0

    def run(self, kills: int) -> None:
        life = self.victim.life or self._life()
        while self.kills < kills:
            self._begin()
            self.finished: dict[str, bytes] = {}
            self.most: dict[str, int] = {}  # place -> how often it may be carried out to its end
            before = self.kills
            while self.kills < kills and not self._one_life(life, kills):
                pass
            self._complete()
            self.studies += 1
            self.survived += self.kills - before

    def _begin(self) -> None:
        """A study of its own."""
        self.driver = self.new_driver()
        if self.victim.journal:
            self.driver.journal = self.victim.journal
            self.driver.journal.unlink(missing_ok=True)

    def _start(self) -> subprocess.Popen[str]:
        return self.driver.start_run(*STUDY, *self.victim.options, workers=self.victim.workers, fault=SLOW)

    def _life(self) -> float:
        """Seconds from the victim's first appearance to the end of an undisturbed study, here and now."""
        self._begin()
        process = self._start()
        self._appears(process)
        begin = time.monotonic()
        assert process.wait(PATIENCE) == 0
        return time.monotonic() - begin

    def _appears(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and self.victim.find(process.pid) is None:
            assert time.monotonic() < deadline, "the driver hangs"
            time.sleep(0.002)

    def _one_life(self, life: float, kills: int) -> bool:
        """Run the study until its driver is killed, or to its end; whether it came to its end."""
        process = self._start()
        while self.kills < kills:
            self._appears(process)
            moment = time.monotonic() + self.random.uniform(0, life)
            # Half of the drivers die in the middle of a write, which chance alone would seldom hit.
            writing = self.name == "driver" and self.random.random() < 0.5
            while not self._is_time(process, moment, writing):
                if process.poll() is not None:
                    return process.returncode == 0
                assert time.monotonic() < moment + PATIENCE, "the driver hangs"
                time.sleep(0.002)
            if not self._kill(process):
                continue
            self._look()
            if self.name == "driver":
                return False
        return process.wait(PATIENCE) == 0

    def _is_time(self, process: subprocess.Popen[str], moment: float, writing: bool) -> bool:
        if time.monotonic() < moment or self.victim.find(process.pid) is None:
            return False
        return not writing or self.driver.half_written() > 0

    def _kill(self, process: subprocess.Popen[str]) -> bool:
        workers, found = children(process.pid), self.victim.find(process.pid)
        try:
            if found is None or process.poll() is not None:
                return False
            self.victim.kill(found)
        except ProcessLookupError:
            return False
        self.kills += 1
        if self.name == "driver":
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
        journaled = (r for r in left.records.values() if r["trial"]["method"]["name"] == "toy-journal")
        recorded = set(map(place_of, journaled))
        self.twice += sum(max(0, count - self.most.get(place, 1)) for place, count in ends.items())
        # What is recorded is not done again; what was carried out and is not recorded may be lost.
        self.most = {place: count + (place not in recorded) for place, count in ends.items()}
        self.finished = dict(left.files)

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


@pytest.mark.parametrize("name", VICTIMS)
def test_a_killed_study_ends_as_an_undisturbed_one(
    name: str,
    new_driver: Callable[[], Driver],
    undisturbed: tuple[Driver, Left],
    faults: Faults,
    request: pytest.FixtureRequest,
) -> None:
    asked, place = request.config.getoption("--faults-kills"), list(VICTIMS).index(name)
    kills = asked * (place + 1) // len(VICTIMS) - asked * place // len(VICTIMS)
    campaign = Campaign(name, VICTIMS[name] or request.getfixturevalue(name), new_driver, undisturbed[1])
    try:
        campaign.run(kills)
    finally:
        beside = f"{campaign.studies} studies of {len(undisturbed[1].records)} trials, seed {SEED}"
        if name == "driver":
            beside += f"; {campaign.within_writes} kills within a write"
        counts = campaign.kills, campaign.survived, campaign.lost, campaign.torn, campaign.twice
        faults.add(f"`kill -9` of the {name} at a random moment", *counts, beside=beside)
    assert (campaign.survived, campaign.lost, campaign.torn, campaign.twice) == (kills, 0, 0, 0)
