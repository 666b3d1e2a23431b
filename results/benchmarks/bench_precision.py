"""Changes of AUROC by less exact products: the same trials in float32, with other last bits, in bfloat16.

    python results/benchmarks/bench_precision.py [--out FILE.json] [--methods SPECS] [--seeds 3] [--targets wood]

On pocket, all shots, in this process, three times each:

- ``highest``: float32, one thread, as trials run by default.
- ``threads``: the same with two threads, which add up the same numbers in another order. What this changes is
  what any other machine changes too: the scale that the next is to be held against.
- ``medium``: ``--precision medium``. Factors of float32 products are rounded to bfloat16 (if this machine can
  multiply these), and the baselines train their networks in bfloat16: which ``bench run`` does on a GPU alone,
  but a CPU computes it as well.

Training amplifies the last bit of a number: single trials differ in any case. What counts is whether their mean
does, beyond what chance makes of it. So for both alternatives the differences of pairs are given: mean, standard
error of the mean over all pairs, mean absolute, largest.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.encoders.feature_store import FeatureStore
from bench.encoders.features import CACHE
from bench.metrics.blocks import DEFAULT
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.study.task import Task
from bench.tools import devices
from bench.tools.spec import parse_spec, split_specs
from bench.trial.trial import run_trial

METHODS = "promptad[ffn=256,iters=100],devnet[epochs=5,batch_size=24],mlep[epochs=5],dra[epochs=5]"
METRICS = ("image_auroc", "pixel_auroc")


def tasks(folder: Path, method: str, targets: Sequence[str], seeds: int) -> tuple[Task, ...]:
    study = Study(
        "precision",
        (parse_spec(method),),
        (parse_spec("pocket"),),
        shots=(1, 10),
        seeds=tuple(range(seeds)),
        categories=tuple(targets),
        device="cpu",
    )
    return prepare(study, Store(folder)).tasks


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def metrics(task: Task) -> list[float]:
    record = run_trial(task).record
    if record["status"] != "ok":
        raise RuntimeError(f"{task.title}: {record['reason']}")
    return [record["metrics"][DEFAULT]["values"][name] for name in METRICS]


def asked_for(device: torch.device) -> bool:
    """Replacement for :func:`bench.tools.devices.uses_bfloat16`, were this a GPU."""
    return devices.get_precision() == "medium"


def measure(chosen: Sequence[Task]) -> dict[str, Any]:
    found: dict[str, list[list[float]]] = {"highest": [], "threads": [], "medium": []}
    seconds = dict.fromkeys(found, 0.0)
    bfloat16 = mock.patch.object(devices, "uses_bfloat16", asked_for)
    for task in chosen:
        less = dataclasses.replace(task, precision="medium")
        for name, count, what in (("highest", 1, task), ("threads", 2, task), ("medium", 1, less)):
            start = time.process_time()
            with threads(count), bfloat16:
                found[name].append(metrics(what))
            seconds[name] += time.process_time() - start
    exact = np.array(found["highest"])
    return {
        "trials": len(chosen),
        "mean": dict(zip(METRICS, exact.mean(0).round(4).tolist(), strict=True)),
        "processor_seconds": {name: round(value, 1) for name, value in seconds.items()},
        **{name: against(exact, np.array(found[name])) for name in ("threads", "medium")},
    }


def against(exact: Any, other: Any) -> dict[str, dict[str, float]]:
    """The differences ``(trials, metrics)`` of pairs, in numbers."""
    difference = other - exact
    rows = {
        "mean": difference.mean(0),
        "standard_error": difference.std(0, ddof=1) / len(difference) ** 0.5,
        "mean_absolute": np.abs(difference).mean(0),
        "largest": np.abs(difference).max(0),
    }
    return {
        metric: {row: round(float(values[column]), 5) for row, values in rows.items()}
        for column, metric in enumerate(METRICS)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What less exact products change in AUROC.")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file; other methods' stay there")
    parser.add_argument("--methods", default=METHODS, help=f"default {METHODS}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", help="target categories, with commas (default: all nine)")
    options = parser.parse_args()
    targets = options.targets.split(",") if options.targets else []
    torch.set_num_threads(1)
    result: dict[str, Any] = {"methods": {}}
    if options.out is not None and options.out.exists():
        result = json.loads(options.out.read_text(encoding="utf-8"))
    result |= {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in ("torch", "open_clip_torch", "torchvision", "numpy")},
    }
    with tempfile.TemporaryDirectory() as name:
        CACHE.store = FeatureStore(Path(name) / "features")
        for spec in split_specs(options.methods):
            chosen = tasks(Path(name), str(spec), targets, options.seeds)
            result["methods"][str(spec)] = {"seeds": options.seeds, **measure(chosen)}
            print(f"{spec}: {json.dumps(result['methods'][str(spec)], indent=1)}", flush=True)
            if options.out is not None:
                options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
