"""Trials on a Ray cluster: one actor per worker, which keeps its encoders, data and features loaded.

Everything comes from the driver and goes back to it: trials as plain values, records and scores as return values,
datasets and weights files where a machine lacks them (:mod:`bench.executors.shipping`). No disk is shared. What
must be there on every machine is this package, in the driver's version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import bench
from bench.errors import BenchError
from bench.executors import Report, Source, check_time_limit, log_path, share_log
from bench.executors.pool import Scheduler, Worker
from bench.executors.shipping import FileCache, LocalFiles
from bench.executors.worker import BatchRunner, Done, Progress, memory
from bench.study.task import Batch, Fit, Job, Task
from bench.trial.batch import JobOutcome, failed_job

OBJECT_STORE = 256 * 2**20  # bytes, of a cluster started here: results pass through it, and little else
LOG = 2**20  # bytes of a trial's output that travel back: the last ones


@dataclass(frozen=True)
class RayConfig:
    """Options.

    Attributes:
        address: ``HOST:PORT`` of a cluster that this machine belongs to, ``auto`` for the one that runs here, or
            ``local`` to start one on this machine for this run.
        gpus: what each worker gets of a GPU (0.25: four share one); 0 computes on the CPU, with one thread.
        time_limit: seconds that a trial may take.
    """

    address: str = "local"
    gpus: float = 0.0
    time_limit: float | None = None

    def __post_init__(self) -> None:
        check_time_limit(self.time_limit)
        if self.gpus < 0:
            raise ValueError("gpus is a number of GPUs, or a part of one")
        if self.address.startswith("ray://"):
            raise ValueError("run bench on a machine of the cluster, and give HOST:PORT, as to ray start")


class RayExecutor:
    """Runs trials on as many workers as the cluster has room for, ``workers`` at most.

    Raises:
        BenchError: Ray is not installed, or 0 workers.
    """

    Config: ClassVar[type[Any]] = RayConfig

    def __init__(self, config: RayConfig, workers: int | None, logs: Path) -> None:
        if workers == 0:
            raise BenchError("--workers 0 runs trials in this process; with ray give 1 or more")
        _import_ray()
        self.config, self.workers, self.logs = config, workers, logs

    def on_gpu(self, device: str) -> bool:
        """Tell if trials compute on a GPU (:meth:`bench.executors.Executor.on_gpu`); the driver need not.

        Raises:
            BenchError: a device that a worker cannot have, or a GPU and no share of one for each worker.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise BenchError(f"on a cluster the device is auto, cpu or cuda, not {device!r}")
        if device == "cuda" and not self.config.gpus:
            raise BenchError("say what each worker gets of a GPU, for one each: --executor 'ray[gpus=1]'")
        return bool(self.config.gpus) and device != "cpu"

    def run(self, batches: Source, report: Report) -> Iterator[tuple[Job, JobOutcome]]:
        """Run batches, see :meth:`bench.executors.Executor.run`.

        Raises:
            BenchError: no cluster at the address, no room on it, other versions there, or no such device.
        """
        source = iter(batches)
        if not (first := next(source, ())):
            return
        self.on_gpu(first[0].device)
        with _connected(self.config.address, self.workers):
            pool = _ActorPool(self.config, self.workers, self.logs)
            try:
                yield from Scheduler(pool, report, self.config.time_limit).run(itertools.chain([first], source))
            finally:
                pool.close()


def _import_ray() -> Any:
    # Ray reads these when it is imported. It would report its use to its makers, and print every worker's death.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise BenchError(f'Ray cannot be imported ({error}); pip install "zsad-bench[cluster]"') from None
    return ray


@contextlib.contextmanager
def _connected(address: str, workers: int | None) -> Iterator[None]:
    """A connection to the cluster; one that this process has already is used, and left alone."""
    ray = _import_ray()
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"address": address}
    if address == "local":
        options |= {"num_cpus": workers, "include_dashboard": False, "object_store_memory": OBJECT_STORE}
    here = Path.cwd()
    # Workers start in the driver's folder and have it on their path, where a folder "datasets" would shadow the
    # distribution of that name.
    with tempfile.TemporaryDirectory() as neutral:
        os.chdir(neutral)
        try:
            ray.init(**options, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of many kinds, down to the bare one
            reason = " ".join(str(error).split())
            raise BenchError(f"no Ray cluster can be used at {address!r}: {reason}") from None
        finally:
            os.chdir(here)
        try:
            yield
        finally:
            ray.shutdown()


class _ActorPool:
    """Actors, as many as the cluster has room for at the moment."""

    def __init__(self, config: RayConfig, workers: int | None, logs: Path) -> None:
        self.ray = ray = _import_ray()
        errors = ray.exceptions
        # A worker's result is lost with its machine if it has not been fetched.
        self.deaths: tuple[type[BaseException], ...] = (errors.RayActorError, errors.ObjectLostError)
        self.config, self.workers, self.logs = config, workers, logs
        self.node = ray.get_runtime_context().get_node_id()
        self.driver = self._actor(DriverActor, here=True, num_cpus=0, max_concurrency=8).remote()
        self._reported: Future[list[Progress]] = self.driver.reported.remote().future()
        if not self.size():
            self.close()
            needed = f"one CPU and {config.gpus:g} GPU" if config.gpus else "one CPU"
            raise BenchError(f"the cluster has no room for a worker of {needed}")

    def size(self) -> int:
        room = sum(self._room(node["Resources"]) for node in self.ray.nodes() if node["Alive"])
        return room if self.workers is None else min(room, self.workers)

    def _room(self, resources: dict[str, float]) -> int:
        """Workers that fit on one node."""
        cpus, share = int(resources.get("CPU", 0)), self.config.gpus
        if not share:
            return cpus
        gpus = resources.get("GPU", 0)
        return min(cpus, int(gpus // share) if share >= 1 else int(gpus) * int(1 / share))

    def start(self) -> Worker:
        gpus = self.config.gpus
        actor = self._actor(WorkerActor, num_cpus=1, num_gpus=gpus).remote(self.driver, bool(gpus))
        return _Actor(self, actor)

    def check(self, worker: Worker) -> None:
        assert isinstance(worker, _Actor)
        try:
            version, worker.node = worker.ready.result()
        except self.ray.exceptions.RayActorError as error:
            if not error.actor_init_failed:
                raise
            last = str(error).strip().splitlines()[-1]
            raise BenchError(f"a worker cannot start: {last}; is zsad-bench installed on every machine?") from None
        if version != bench.__version__:
            where = next((n["NodeManagerHostname"] for n in self.ray.nodes() if n["NodeID"] == worker.node), "")
            raise BenchError(
                f"{where} has zsad-bench {version}, this machine {bench.__version__}; install the same everywhere"
            )

    def is_to_blame(self, worker: Worker, death: BaseException) -> bool:
        assert isinstance(worker, _Actor)
        # A machine that is gone makes its actors "unavailable" long before the cluster calls it dead. A process
        # that is gone is reported by its machine at once.
        alone = isinstance(death, self.ray.exceptions.ActorDiedError)
        return alone and any(node["Alive"] for node in self.ray.nodes() if node["NodeID"] == worker.node)

    def progress(self) -> list[Progress]:
        if not self._reported.done():
            return []
        with contextlib.suppress(*self.deaths):  # without that actor a run goes on, and shows no progress
            reported = self._reported.result()
            self._reported = self.driver.reported.remote().future()
            return reported
        return []

    def close(self) -> None:
        self.ray.kill(self.driver)

    def _actor(self, cls: type[Any], *, here: bool = False, **options: Any) -> Any:
        if here:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(self.node, soft=False)
        return self.ray.remote(cls).options(**options)


class _Actor:
    """One worker, as the driver sees it."""

    def __init__(self, pool: _ActorPool, actor: Any) -> None:
        self.pool, self.actor = pool, actor
        self.node = ""
        self.ready: Future[Any] = actor.ready.remote().future()

    def submit(self, batch: Batch) -> Future[Done]:
        jobs = tuple(_absolute(job) for job in batch)
        answer: Future[_Answer] = self.actor.work.remote(jobs).future()
        future: Future[Done] = Future()
        answer.add_done_callback(lambda _: self._receive(batch, answer, future))
        return future

    def _receive(self, batch: Batch, answer: Future[_Answer], future: Future[Done]) -> None:
        try:
            done, log = answer.result()
            path = log_path(self.pool.logs, batch[0])
            path.unlink(missing_ok=True)  # of an earlier run
            if log:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(log)
            share_log(self.pool.logs, batch, done.outcomes)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(done)

    def stop(self) -> None:
        self.pool.ray.kill(self.actor)


def _absolute(job: Job) -> Job:
    """The job with absolute paths, which mean the same in every working directory of this machine."""
    if isinstance(job, Fit):
        return Fit(_absolute_task(job.task))
    return _absolute_task(job)


def _absolute_task(task: Task) -> Task:
    weights = {
        name: dataclasses.replace(known, file=known.file and known.file.absolute())
        for name, known in task.weights.items()
    }
    files = {sha256: os.path.abspath(path) for sha256, path in task.files.items()}
    return dataclasses.replace(
        task,
        root=os.path.abspath(task.root),
        source_roots=tuple(map(os.path.abspath, task.source_roots)),
        weights=weights,
        files=files,
        detector=task.detector and os.path.abspath(task.detector),
    )


# ------------------------------------------------------------ actors


class _Answer(NamedTuple):
    done: Done
    log: bytes


class DriverActor(LocalFiles):
    """Actor on the driver's machine: keeps reported progress until the driver asks, and gives out files."""

    def __init__(self) -> None:
        self._progress: dict[str, Progress] = {}

    def tell(self, progress: Progress) -> None:
        self._progress[progress[0]] = progress

    def reported(self) -> list[Progress]:
        """The latest progress of every trial that has reported any since the last call."""
        progress, self._progress = self._progress, {}
        return list(progress.values())


class _RemoteFiles:
    """The files of the driver's machine, as a :class:`bench.executors.shipping.FileSource`."""

    def __init__(self, driver: Any) -> None:
        self.ray, self.driver = _import_ray(), driver

    def names(self, root: str) -> list[tuple[str, int]]:
        listing: list[tuple[str, int]] = self.ray.get(self.driver.names.remote(root))
        return listing

    def read(self, root: str, names: list[str]) -> list[bytes]:
        contents: list[bytes] = self.ray.get(self.driver.read.remote(root, names))
        return contents


class WorkerActor:
    """Actor on a machine of the cluster: carries out batches, one at a time."""

    def __init__(self, driver: Any, on_gpu: bool) -> None:
        if not on_gpu:  # Ray leaves the GPUs visible that it has not given away
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # Ctrl-C is for the driver; a KeyboardInterrupt in a trial is then known to be its method's.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self.driver = driver
        self.runner = BatchRunner(memory() // max(1, os.cpu_count() or 1))
        self.files = FileCache(_RemoteFiles(driver))

    def ready(self) -> tuple[str, str]:
        """This package's version, and the id of the node."""
        return bench.__version__, _import_ray().get_runtime_context().get_node_id()

    def work(self, batch: Batch) -> _Answer:
        try:
            jobs = tuple(self.files.localised(job) for job in batch)
        except (BenchError, OSError) as error:
            return _Answer(Done([failed_job(job, str(error)) for job in batch], worn=False), b"")
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            done = self.runner.work(jobs, self.driver.tell.remote, log)
            return _Answer(done, log.read_bytes()[-LOG:] if log.exists() else b"")
