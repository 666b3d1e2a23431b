"""Ray beside local worker processes: what it costs, and what a second machine gains.

    python results/benchmarks/bench_ray.py --out results/benchmarks/ray.json

Every trial of the study sleeps, or computes, for a given time in its training. Sleeping trials show what an
executor adds, even on a busy machine. Computing ones use up processor time: they show what it gains, but only on
an otherwise idle machine of two cores or more. "Machines" are Ray's simulated ones, with one core each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import zipfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from toy_plugin import build_wheel

from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.registry import EXECUTORS
from bench.tools.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

METHOD = '''
import dataclasses, time
import numpy as np
from bench.contracts import Scores, Traits


class Work:
    """Sleeps or computes while it is trained."""

    name, version = "toy-work", "1"

    @dataclasses.dataclass(frozen=True)
    class Config:
        how: str = "sleep"
        seconds: float = 5.0

    def __init__(self, config):
        self.config = config

    @classmethod
    def traits(cls, config):
        return Traits("Work", "this benchmark", maps=False)

    def fit(self, train, context):
        matrix = np.ones((64, 64))
        for _ in context.track(range(50), "train"):
            begin, share = time.thread_time(), self.config.seconds / 50
            if self.config.how == "sleep":
                time.sleep(share)
            while self.config.how == "compute" and time.thread_time() - begin < share:
                matrix @ matrix

    def score(self, images, context):
        return Scores(np.array([image.mean() for image in images], np.float32))
'''
CATEGORIES = ("button", "capsule", "chip", "gear")


def run(place: str, workers: int, how: str, options: argparse.Namespace) -> dict[str, float]:
    """Run the study once.

    Returns:
        ``seconds`` from beginning to end; ``start_seconds`` of them before the first trial began;
        ``trial_seconds``, what a trial took one worker after that, what comes between trials included.
    """
    method = parse_spec(f"toy-work[how={how},seconds={options.seconds:g}]")
    seeds = tuple(range(options.trials // len(CATEGORIES)))
    study = Study("bench", (method,), (parse_spec("pocket"),), shots=(1,), seeds=seeds, categories=CATEGORIES)
    with tempfile.TemporaryDirectory() as folder:
        plan = prepare(study, Store(Path(folder)))
        cls = EXECUTORS.load(place)
        begin = time.perf_counter()
        starts, ends = [], []
        executor = cls(cls.Config(), workers, Path(folder))
        for _, outcome in executor.run(((task,) for task in plan.tasks), lambda *_: None):
            assert outcome.record["status"] == "ok", outcome.record["reason"]
            ends.append(time.perf_counter() - begin)
            starts.append(ends[-1] - outcome.record["provenance"]["seconds"]["total"])
        seconds = time.perf_counter() - begin
    busy = (max(ends) - min(starts)) * workers / len(ends)
    measured = {"seconds": seconds, "start_seconds": min(starts), "trial_seconds": busy}
    print(place, workers, how, {name: round(value, 2) for name, value in measured.items()}, file=sys.stderr)
    return measured


@contextmanager
def simulated(machines: int) -> Iterator[None]:
    """A cluster of machines with one core each, to which this process is connected."""
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    for _ in range(machines - 1):
        cluster.add_node(num_cpus=1, object_store_memory=100 * 2**20)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}


def compare_executors(how: str, options: argparse.Namespace) -> dict[str, Any]:
    """Local processes and Ray in turns, two workers each."""
    turns = [(run("local", 2, how, options), run("ray", 2, how, options)) for _ in range(options.repeat)]
    local, ray = (medians(list(runs)) for runs in zip(*turns, strict=True))
    return {
        "how": how,
        "trials": options.trials,
        "local": local,
        "ray": ray,
        "overhead": round(ray["trial_seconds"] / local["trial_seconds"] - 1, 4),
        "overhead_with_start": round(ray["seconds"] / local["seconds"] - 1, 4),
    }


def compare_machines(how: str, options: argparse.Namespace) -> dict[str, Any]:
    """One simulated machine and two, in turns."""
    runs: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    for _ in range(options.repeat):
        for machines in runs:
            with simulated(machines):
                runs[machines].append(run("ray", machines, how, options))
    one, two = medians(runs[1]), medians(runs[2])
    return {
        "how": how,
        "trials": options.trials,
        "one": one,
        "two": two,
        "speed_up": round(2 * one["trial_seconds"] / two["trial_seconds"], 3),
        "speed_up_with_start": round(one["seconds"] / two["seconds"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time Ray beside local worker processes.")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--repeat", type=int, default=1, help="how often each is timed (default 1)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of work in each trial (default 5)")
    parser.add_argument("--trials", type=int, default=16, help="a multiple of 4 (default 16)")
    parser.add_argument("--sleep-only", action="store_true", help="leave the computing trials out")
    options = parser.parse_args()

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        entry = "[bench.methods]\ntoy-work = zsad_work:Work\n"
        with zipfile.ZipFile(build_wheel(Path(folder), "zsad_work", METHOD, entry)) as wheel:
            wheel.extractall(folder)
        sys.path.insert(0, folder)
        os.environ |= {"PYTHONPATH": folder, "BENCH_CACHE": f"{folder}/cache"}
        here = Path.cwd()
        os.chdir(folder)  # Ray puts it on its workers' path; the repository's "datasets" must not be there
        work = ("sleep",) if options.sleep_only else ("sleep", "compute")
        executors = [compare_executors(how, options) for how in work]
        machines = [compare_machines(how, options) for how in work]
        os.chdir(here)
    for row in executors:
        print(
            f"{row['how']}: a trial of {options.seconds:g} s takes a worker {row['local']['trial_seconds']:.2f} s "
            f"locally, {row['ray']['trial_seconds']:.2f} s on Ray ({row['overhead']:+.1%}); "
            f"to start, {row['local']['start_seconds']:.1f} s and {row['ray']['start_seconds']:.1f} s; "
            f"all {row['trials']}, {row['local']['seconds']:.1f} s and {row['ray']['seconds']:.1f} s "
            f"({row['overhead_with_start']:+.1%})"
        )
    for row in machines:
        print(
            f"{row['how']}: two machines are {row['speed_up']:.2f} x as fast as one "
            f"(with start and stop {row['speed_up_with_start']:.2f} x)"
        )
    if options.out is not None:
        result = {
            "executors": executors,
            "machines": machines,
            "seconds": options.seconds,
            "repeat": options.repeat,
            "cores": os.cpu_count(),
            "load": [round(value, 1) for value in os.getloadavg()],
            "libraries": {name: version(name) for name in ("ray", "torch", "numpy")},
            "python": platform.python_version(),
        }
        options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
