"""Time that kept features, and trials trained together, save PromptAD.

    python results/benchmarks/bench_promptad.py [--out FILE.json] [--iters 60] [--ffn 256] [--targets wood,mesh]
        [--encoder random/ViT-B-16] [--parts together,column,run]

Four things, each beside its alternative in the same run and on the same machine:

- ``column``: PromptAD on pocket, the targets named (all by default), 3 seeds x 2 shots, in this process with one
  thread: with features kept, and with the encoder in every training step, as scripts without a feature store
  train. The latter has the same network and the same random draws and must come to the same scores.
- ``second method`` (with ``column``): how many images another method on the same encoder puts through it then.
- ``run``: the trials of ``column`` as this machine runs them, a worker per core and features kept, none of which
  are there at first; and as a script does, one after another, torch's own number of threads, the encoder in every
  step.
- ``together``: 10 seeds x 2 shots of one target: 20 trainings one after another in one process, with torch's own
  number of threads, as a script would; the same in worker processes, one thread each; the same, fitted as one
  per worker.

Wall time suffers where other work shares the machine; the processor time of this process, which is given for
``column``, suffers less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from bench.contracts import ImageFeatures, ImageSet
from bench.encoders.feature_store import FeatureStore
from bench.encoders.features import CACHE
from bench.executors.engine import batches
from bench.executors.local import LocalConfig, LocalExecutor
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.study.task import Task
from bench.tools.spec import parse_spec
from bench.trial import steps
from bench.trial.trial import Outcome, run_trial


@dataclass
class EveryStep:
    """An encoder whose tokens are computed when they are looked up: each step decodes and encodes its images."""

    inner: Any
    encoded: int = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def encode_images(
        self, images: ImageSet, *, layers: Sequence[int] = (), image_size: int | None = None
    ) -> ImageFeatures:
        """Embeddings at once, as ever; tokens when they are asked for."""
        grid = (image_size or self.inner.image_size) // self.inner.patch_size
        fresh = Fresh(self, images, tuple(layers), image_size)
        return ImageFeatures(
            torch.empty(len(images), 0), {layer: Tokens(fresh, layer, grid) for layer in layers}, (grid, grid)
        )


@dataclass
class Fresh:
    """The tokens of the images that were looked up last: the layers of one step are encoded together."""

    encoder: EveryStep
    images: ImageSet
    layers: tuple[int, ...]
    size: int | None
    last: list[int] = field(default_factory=list)
    tokens: Any = None

    def look_up(self, rows: list[int], layer: int) -> torch.Tensor:
        if rows != self.last:
            CACHE.clear()
            subset = self.images.subset(rows)
            self.tokens = self.encoder.inner.encode_images(subset, layers=self.layers, image_size=self.size).tokens
            self.encoder.encoded += len(set(subset.keys))
            self.last = rows
        found: torch.Tensor = self.tokens[layer]
        return found


@dataclass
class Tokens:
    """Stands for the tensor of one layer's tokens."""

    fresh: Fresh
    layer: int
    grid: int
    nbytes: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - it is immutable

    def to(self, device: torch.device) -> Tokens:
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.fresh.images), 1 + self.grid**2, self.fresh.encoder.inner.width

    def __getitem__(self, rows: torch.Tensor | list[int]) -> torch.Tensor:
        return self.fresh.look_up([int(row) for row in rows], self.layer)


@contextlib.contextmanager
def features_at(root: Path | None) -> Iterator[None]:
    """Features kept in ``root`` meanwhile, or nowhere, not even in memory."""
    before = CACHE.store, CACHE.limit
    CACHE.clear()
    CACHE.store, CACHE.limit = (None, 0) if root is None else (FeatureStore(root), before[1])
    try:
        yield
    finally:
        CACHE.store, CACHE.limit = before


@contextlib.contextmanager
def kept_at(root: Path) -> Iterator[None]:
    """Set ``features_at`` for this process and the workers that it starts."""
    with features_at(root), mock.patch.dict(os.environ, BENCH_CACHE=str(root)):
        yield


@contextlib.contextmanager
def encoder_in_every_step() -> Iterator[EveryStep]:
    """Trials of this process meanwhile encode their images whenever they need them."""
    load = steps._text_image
    wrapped: dict[Any, EveryStep] = {}

    def loaded(weights: Any, device: str) -> EveryStep:
        return wrapped.setdefault((weights.name, device), EveryStep(load(weights, device)))

    steps._text_image = loaded  # type: ignore[assignment]
    try:
        with features_at(None):
            yield wrapped  # type: ignore[misc]
    finally:
        steps._text_image = load


def tasks(folder: Path, method: str, targets: Sequence[str], seeds: int) -> tuple[Task, ...]:
    study = Study(
        "benchmark",
        (parse_spec(method),),
        (parse_spec("pocket"),),
        seeds=tuple(range(seeds)),
        categories=tuple(targets),
        device="cpu",
    )
    return prepare(study, Store(folder)).tasks


def timed_trials(chosen: Sequence[Task]) -> tuple[float, float, list[Outcome]]:
    """Wall and processor seconds of the trials in this process, and what they came to."""
    start, processors = time.perf_counter(), time.process_time()
    outcomes = [run_trial(task) for task in chosen]
    seconds = time.perf_counter() - start, time.process_time() - processors
    check(outcomes)
    return *seconds, outcomes


def check(outcomes: Sequence[Outcome]) -> None:
    """A trial that failed has taken no time worth comparing."""
    for outcome in outcomes:
        if outcome.record["status"] != "ok":
            raise RuntimeError(outcome.record["reason"])


def column(folder: Path, method: str, targets: Sequence[str], encoder: str) -> dict[str, Any]:
    chosen = tasks(folder, method, targets, 3)
    run_trial(tasks(folder, method.replace("promptad[", "promptad[topk=0.2,"), ["gear"], 1)[0])  # imports
    with features_at(folder / "features"):
        kept, kept_processors, ours = timed_trials(chosen)
        _, _, clip = timed_trials(tasks(folder, f"clip[encoder={encoder}]", targets, 1))
    with encoder_in_every_step():
        every, every_processors, theirs = timed_trials(chosen)
    difference = max(
        float(np.abs(a.scores["maps"] - b.scores["maps"]).max())
        for a, b in zip(ours, theirs, strict=True)
        if a.scores is not None and b.scores is not None
    )
    return {
        "trials": len(chosen),
        "targets": len(targets),
        "kept_seconds": round(kept, 1),
        "kept_processor_seconds": round(kept_processors, 1),
        "every_step_seconds": round(every, 1),
        "every_step_processor_seconds": round(every_processors, 1),
        "ratio": round(every / kept, 2),
        "processor_ratio": round(every_processors / kept_processors, 2),
        "encoder_passes": sum(o.record["provenance"]["encoder_passes"] for o in ours),
        "encoder_passes_every_step": sum(o.record["provenance"]["encoder_passes"] for o in theirs),
        "encoder_passes_second_method": sum(o.record["provenance"]["encoder_passes"] for o in clip),
        "largest_difference_of_maps": difference,
    }


def in_workers(folder: Path, chosen: Sequence[Task], workers: int, size: int = 1) -> float:
    """Seconds that the trials take in worker processes of one thread each, ``size`` of them fitted as one."""
    start = time.perf_counter()
    executor = LocalExecutor(LocalConfig(), workers, folder / "logs")
    outcomes = [outcome for _, outcome in executor.run(iter(batches(chosen, size)), lambda *_: None)]
    seconds = time.perf_counter() - start
    check(outcomes)
    if len(outcomes) != len(chosen):
        raise RuntimeError(f"{len(outcomes)} of {len(chosen)} trials came back")
    return seconds


def in_one_process(chosen: Sequence[Task]) -> float:
    """Seconds that the trials take one after another, with torch's own number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        return timed_trials(chosen)[0]
    finally:
        torch.set_num_threads(threads)


def run(folder: Path, method: str, targets: Sequence[str], workers: int) -> dict[str, Any]:
    chosen = tasks(folder, method, targets, 3)
    with kept_at(folder / "run"):
        ours = in_workers(folder, chosen, workers)
    with encoder_in_every_step():
        theirs = in_one_process(chosen)
    return {
        "trials": len(chosen),
        "workers": workers,
        "kept_in_workers_seconds": round(ours, 1),
        "every_step_one_by_one_seconds": round(theirs, 1),
        "threads_one_by_one": os.cpu_count(),
        "ratio": round(theirs / ours, 2),
    }


def together(folder: Path, method: str, target: str, workers: int) -> dict[str, Any]:
    chosen = tasks(folder, method, [target], 10)
    with kept_at(folder / "together"):
        for task in tasks(folder, method.replace("promptad[", "promptad[topk=0.2,"), [target], 1):
            run_trial(task)  # features are there before anything is timed
        found = {
            "one_by_one": in_one_process(chosen),
            "workers": in_workers(folder, chosen, workers),
            "together": in_workers(folder, chosen, workers, -(-len(chosen) // workers)),
        }
    return {
        "trials": len(chosen),
        "workers": workers,
        "threads_one_by_one": os.cpu_count(),
        **{f"{name}_seconds": round(value, 1) for name, value in found.items()},
        "together_over_one_by_one": round(found["one_by_one"] / found["together"], 2),
        "workers_over_one_by_one": round(found["one_by_one"] / found["workers"], 2),
        "together_over_workers": round(found["workers"] / found["together"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time PromptAD with features kept, and trained together.")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--iters", type=int, default=60, help="training steps (default 60)")
    parser.add_argument("--ffn", type=int, default=256, help="width of the feed-forward layers (default 256)")
    parser.add_argument("--targets", help="target categories, with commas (default: all nine)")
    parser.add_argument("--encoder", default="pocket/clip", help="default pocket/clip")
    parser.add_argument("--parts", default="together,column,run")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    method = f"promptad[encoder={options.encoder},iters={options.iters},ffn={options.ffn}]"
    every = "button,capsule,chip,fabric,gear,mesh,terrazzo,washer,wood"
    targets = (options.targets or every).split(",")
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "method": method,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in ("torch", "open_clip_torch", "numpy")},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts: dict[str, Any] = {
            "together": lambda: together(folder, method, targets[0], options.workers),
            "column": lambda: column(folder, method, targets, options.encoder),
            "run": lambda: run(folder, method, targets, options.workers),
        }
        for part in options.parts.split(","):
            result[part] = parts[part]()
            print(f"{part}: {json.dumps(result[part], indent=1)}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
