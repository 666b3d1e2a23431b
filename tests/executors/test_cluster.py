"""Trials on Ray, on a simulated cluster of two machines with one core each."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from drivers import children
from toy_data import write_toy_data

import bench
from bench.cli.main import main
from bench.errors import BenchError
from bench.executors import log_path
from bench.executors.cluster import (
    DriverActor,
    RayConfig,
    RayExecutor,
    WorkerActor,
    _Actor,
    _ActorPool,
    _Answer,
    _import_ray,
)
from bench.executors.local import LocalConfig, LocalExecutor
from bench.executors.worker import Done
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.registry import EXECUTORS
from bench.tools.spec import parse_spec
from bench.trial.trial import run_trial

try:
    ray = _import_ray()
except BenchError as reason:
    pytest.skip(str(reason), allow_module_level=True)

from ray.cluster_utils import Cluster

PATIENCE = 90  # seconds until something that must happen has not


@pytest.fixture(scope="module")
def cluster(plugin_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two machines with one core each; this process is connected to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(plugin_folder))
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        trainings = tmp_path_factory.mktemp("trainings") / "begun.txt"
        trainings.touch()
        patch.setenv("ZSAD_TRAININGS", str(trainings))
        patch.chdir(tmp_path_factory.mktemp("neutral"))  # the repository's folder "datasets" is none of Ray's
        node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield cluster
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def words(toy_root: Path, tmp_path: Path, plugin: Path, cluster: Cluster) -> Callable[..., list[str]]:
    """The arguments of ``bench`` that run methods on the toy data and the cluster."""

    def make(methods: str, *more: str, store: str = "store") -> list[str]:
        data = ["--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path / store)]
        return ["run", "--methods", methods, *data, "--device", "cpu", "--executor", "ray", *more]

    return make


def call(words: list[str]) -> Result:
    return CliRunner().invoke(main, words)


def records(folder: Path) -> list[dict[str, Any]]:
    return list(Store(folder).documents())


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return found


def busy_workers(raylet: int) -> list[int]:
    """Process ids of the workers of one machine that are carrying out a trial."""
    return children(raylet, b"ray::WorkerActor.work")


def raylets(cluster: Cluster) -> list[int]:
    return [node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()]


def test_a_trial_that_kills_its_worker_twice_has_failed_and_output_is_kept(words: Any, tmp_path: Path) -> None:
    result = call(words("toy-faulty[how=die],toy-loud"))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    found = records(tmp_path / "store")
    by_method = {
        name: [r for r in found if r["trial"]["method"]["name"] == name] for name in ("toy-faulty", "toy-loud")
    }
    assert [r["status"] for r in by_method["toy-faulty"]] == ["failed"] * 3
    assert "died, twice" in by_method["toy-faulty"][0]["reason"]
    assert [r["status"] for r in by_method["toy-loud"]] == ["ok"] * 3
    for record in by_method["toy-loud"]:
        log = tmp_path / "store/logs" / record["key"][:2] / f"{record['key']}.log"
        assert all(phrase in log.read_text() for phrase in ("from Python", "from below", "a warning"))
    assert "from below" not in result.output


def test_one_fit_serves_all_targets_on_all_machines(words: Any, tmp_path: Path, cluster: Cluster) -> None:
    source = tmp_path / "source"
    write_toy_data(source, first_seed=1000)
    learned = ["--protocol", "transfer", "--train-dataset", "folder", "--train-root", str(source), "--shots", "1"]
    result = call(words("toy-keeper", *learned, "--seeds", "2"))
    assert result.exit_code == 0, result.output
    begun = Path(os.environ["ZSAD_TRAININGS"])
    assert sorted(begun.read_text().split()) == ["0", "1"]
    there = Store(tmp_path / "store")
    assert not there.detectors()
    local = words("toy-keeper", *learned, "--seeds", "2", "--executor", "local", "--workers", "0", store="local")
    result = call(local)
    assert result.exit_code == 0, result.output
    here = Store(tmp_path / "local")
    assert len(records(here.root)) == 6
    for record in records(here.root):
        mine, theirs = here.scores(record["key"]), there.scores(record["key"])
        np.testing.assert_array_equal(mine["image"], theirs["image"])


def test_a_method_that_interrupts_is_not_the_user(words: Any, tmp_path: Path) -> None:
    result = call(words("toy-faulty[how=keyboard]", "--categories", "bolt"))
    assert result.exit_code == 1
    (record,) = records(tmp_path / "store")
    assert (record["status"], record["reason"]) == ("failed", "KeyboardInterrupt: not the user")


def test_a_trial_that_takes_too_long_is_ended(words: Any, tmp_path: Path) -> None:
    result = call(
        words(
            "toy-learner[pause=300],toy-brightness", "--categories", "bolt", "--shots", "1", "--time-limit", "15"
        )
    )
    assert result.exit_code == 1
    assert "took longer than 15 seconds" in result.output
    assert sorted(r["status"] for r in records(tmp_path / "store")) == ["failed", "ok"]


def during(words: list[str], accident: Callable[[], None]) -> Result:
    """A run, and what befalls it meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        happening = pool.submit(accident)
        result = call(words)
        happening.result()
    return result


def test_kill_9_of_a_worker_costs_nothing_but_time(words: Any, tmp_path: Path, cluster: Cluster) -> None:
    def accident() -> None:
        (victim, *_) = until(lambda: [pid for raylet in raylets(cluster) for pid in busy_workers(raylet)])
        os.kill(victim, signal.SIGKILL)

    result = during(words("toy-learner[pause=1.5]", "--shots", "1"), accident)
    assert result.exit_code == 0, result.output
    assert [r["status"] for r in records(tmp_path / "store")] == ["ok"] * 3


def test_the_loss_of_a_machine_costs_nothing_but_time(
    words: Any, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[bool] = []
    is_to_blame = _ActorPool.is_to_blame

    def noted(pool: _ActorPool, *what: Any) -> bool:
        answers.append(is_to_blame(pool, *what))
        return answers[-1]

    monkeypatch.setattr(_ActorPool, "is_to_blame", noted)
    other = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)

    def accident() -> None:
        until(lambda: busy_workers(other.all_processes["raylet"][0].process.pid))
        cluster.remove_node(other, allow_graceful=False)

    result = during(words("toy-learner[pause=1.5]", "--shots", "1", "--seeds", "2"), accident)
    cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    assert result.exit_code == 0, result.output
    assert [r["status"] for r in records(tmp_path / "store")] == ["ok"] * 6
    assert answers == [False]  # the machine was lost, the trial had no part in it


def test_the_driver_can_be_ended_and_leaves_no_worker_behind(words: Any, tmp_path: Path, cluster: Cluster) -> None:
    command = words("toy-learner[pause=1]", "--shots", "1", "--seeds", "4")
    done = 0
    for how in (signal.SIGINT, signal.SIGKILL):
        driver = start(command, cluster)
        until(lambda: len(records(tmp_path / "store")) > done)  # noqa: B023 - it is called here alone
        driver.send_signal(how)
        _, message = driver.communicate(timeout=PATIENCE)
        assert driver.returncode == (130 if how == signal.SIGINT else -9)
        assert ("the same command runs the rest" in message) == (how == signal.SIGINT)
        assert "Traceback" not in message
        until(lambda: not any(busy_workers(raylet) for raylet in raylets(cluster)))
        done = len(records(tmp_path / "store"))
        assert done < 12
    again = call(command)
    assert f"12 trials, {done} done" in again.stderr
    assert [r["status"] for r in records(tmp_path / "store")] == ["ok"] * 12


def start(words: list[str], cluster: Cluster) -> subprocess.Popen[str]:
    """A driver of its own."""
    command = [sys.executable, "-P", "-m", "bench", *words, "--ray-address", cluster.address]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)


def test_a_machine_without_the_files_gets_them_from_the_driver(
    plugin: Path, cluster: Cluster, toy_root: Path, tmp_path: Path
) -> None:
    class FarDriver(DriverActor):
        """Has the files of a folder that no worker can see."""

        def names(self, root: str) -> list[tuple[str, int]]:
            return super().names(root.replace("/far/away", str(toy_root)))

        def read(self, root: str, names: list[str]) -> list[bytes]:
            return super().read(root.replace("/far/away", str(toy_root)), names)

    study = Study("s", (parse_spec("toy-brightness"),), (parse_spec("folder"),), roots={"folder": toy_root})
    task = prepare(study, Store(tmp_path / "store")).tasks[0]
    driver = ray.remote(FarDriver).options(num_cpus=0).remote()
    worker = ray.remote(WorkerActor).options(num_cpus=1).remote(driver, False)
    far = dataclasses.replace(task, root="/far/away", hashes="/far/store/hashes.json")
    (outcome,) = ray.get(worker.work.remote((far,)), timeout=PATIENCE).done.outcomes
    ray.kill(worker)
    expected = run_trial(task)
    assert outcome.record | {"provenance": 0} == expected.record | {"provenance": 0}
    assert outcome.record["status"] == "ok"
    assert all((outcome.scores[name] == scores).all() for name, scores in expected.scores.items())


def test_workers_with_another_version_are_refused(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "__version__", "99.0")
    result = call(words("toy-brightness"))
    assert result.exit_code != 0
    assert f"has zsad-bench {_installed()}, this machine 99.0; install the same everywhere" in result.output


def _installed() -> str:
    from importlib.metadata import version

    return version("zsad-bench")


def test_a_cluster_without_gpus_has_no_room_for_their_workers(words: Any) -> None:
    result = call(words("toy-brightness", "--executor", "ray[gpus=0.5]"))
    assert "no room for a worker of one CPU and 0.5 GPU" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--executor", "ray[gpu=1]"], "Did you mean 'gpus'"),
        (["--executor", "ray[address=ray://head:10001]"], "run bench on a machine of the cluster"),
        (["--executor", "ray", "--workers", "0"], "give 1 or more"),
        (["--executor", "ray", "--time-limit", "0"], "more than 0 seconds"),
        (["--executor", "ray[gpus=-1]"], "or a part of one"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: list[str], message: str) -> None:
    result = call(["run", *options])
    assert result.exit_code == 2
    assert message in result.output


def test_a_gpu_must_be_asked_for(tmp_path: Path) -> None:
    task: Any = SimpleNamespace(device="cuda")
    with pytest.raises(BenchError, match=r"ray\[gpus=1\]"):
        next(RayExecutor(RayConfig(), None, tmp_path).run([(task,)], lambda *_: None))


def test_the_workers_device_counts_not_the_drivers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for driver_has_one in (False, True):
        monkeypatch.setattr("torch.cuda.is_available", lambda has=driver_has_one: has)
        assert RayExecutor(RayConfig(gpus=0.25), None, tmp_path).on_gpu("auto")
        assert not RayExecutor(RayConfig(gpus=0.25), None, tmp_path).on_gpu("cpu")
        assert RayExecutor(RayConfig(gpus=0.25), None, tmp_path).on_gpu("cuda")
        assert not RayExecutor(RayConfig(), None, tmp_path).on_gpu("auto")
        assert LocalExecutor(LocalConfig(), None, tmp_path).on_gpu("auto") == driver_has_one


@pytest.mark.parametrize("device", ["cuda:1", "mps", "gpu"])
def test_a_device_that_a_worker_cannot_have(device: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=f"auto, cpu or cuda, not '{device}'"):
        RayExecutor(RayConfig(gpus=1), None, tmp_path).on_gpu(device)


def test_a_cluster_may_have_what_this_machine_has_not(
    toy_root: Path, tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    words = ["run", "--dataset", "folder", "--data-root", str(toy_root), "--store", str(tmp_path), "--dry-run"]
    words += ["--methods", "toy-brightness", "--device", "cuda"]
    assert "not on this machine" in CliRunner().invoke(main, words).output
    result = CliRunner().invoke(main, [*words, "--executor", "ray[gpus=1]"])
    assert result.exit_code == 0, result.output


def test_a_log_of_an_earlier_run_does_not_stay(tmp_path: Path) -> None:
    batch: Any = [SimpleNamespace(key=key * 2) for key in "ab"]
    for task in batch:
        log_path(tmp_path, task).parent.mkdir()
        log_path(tmp_path, task).write_text("of an earlier run")
    outcomes: Any = [SimpleNamespace(status="failed")] * 2
    silent, received = Future[Any](), Future[Any]()
    silent.set_result(_Answer(Done(outcomes, worn=False), b""))
    actor = SimpleNamespace(ready=SimpleNamespace(remote=lambda: SimpleNamespace(future=Future)))
    _Actor(SimpleNamespace(logs=tmp_path), actor)._receive(batch, silent, received)  # type: ignore[arg-type]
    assert received.result().outcomes == outcomes
    assert not any(log_path(tmp_path, task).exists() for task in batch)


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r'pip install "zsad-bench\[cluster\]"'):
        EXECUTORS.load("ray")(RayConfig(), None, tmp_path)


def test_no_more_workers_than_gpus_have_room_for() -> None:
    def room(gpus: float, **resources: float) -> int:
        pool = object.__new__(_ActorPool)
        pool.config = RayConfig(gpus=gpus)
        return pool._room(resources)

    assert room(0, CPU=8.0, GPU=2.0) == 8
    assert room(0.25, CPU=8.0, GPU=2.0) == 8
    assert room(0.25, CPU=4.0, GPU=2.0) == 4
    assert room(0.4, CPU=8.0, GPU=2.0) == 4  # a worker's part is a part of one GPU
    assert room(1, CPU=8.0, GPU=2.0) == 2
    assert room(2, CPU=8.0, GPU=3.0) == 1
    assert room(0.5, CPU=8.0) == 0


def test_importing_the_executor_does_not_import_ray() -> None:
    code = "import sys; from bench.tools.registry import EXECUTORS; EXECUTORS.load('ray')"
    code += "; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code]).returncode == 0
