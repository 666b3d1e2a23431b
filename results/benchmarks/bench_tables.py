"""Speed of the command with ten thousand trials: lists, tables, and a study that is done already.

    python results/benchmarks/bench_tables.py [--out FILE.json] [--repeat 5] [--seeds 20] [--folder DIR]

Makes images in MVTec AD's layout, as many as it has and of a few pixels each, plans a study of PromptAD, variants
of it, and what it is compared with, and writes a record with made-up numbers for every trial, like the real ones
in all fields. Then it runs the commands as a user would, each in a process of its own, in turns, and takes the
median; the first turn fills the system's file cache and is not counted. Times are of the whole process, start-up
of Python included: seconds that pass, and those of the processors. ``--folder`` keeps what was made for another
run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.datasets.mvtec import OFFICIAL
from bench.metrics.blocks import METRICS_VERSION
from bench.metrics.registry import TITLES
from bench.store.store import FORMAT, Store
from bench.study.plan import Plan, prepare
from bench.study.study import Study
from bench.tools.provenance import environment
from bench.tools.spec import parse_spec
from bench.trial.recording import describe

ONCE = ("clip", "winclip", "maskclip", "transmm")
TRAINED = (
    "promptad",
    *(f"promptad[{option}]" for option in ("cmi=off", "ccl=off", "cmi=off,ccl=off", "wd=0", "iters=500")),
    *(f"promptad[{option}]" for option in ("lr=0.0005", "lr=0.002", "alpha=2", "tau=20", "topk=0.05")),
    *(f"promptad[{option}]" for option in ("supervision=pixel", "optim=adam", "sigma=1.0")),
    "devnet",
    "dra",
    "mlep",
)


def write_images(root: Path) -> None:
    """Write as many images and masks as MVTec AD has, no two alike."""
    numbers = itertools.count()

    def image(path: Path, mask: Path | None = None) -> None:
        pixels = np.full((8, 8, 3), 90, np.uint8)
        pixels[0, :2] = np.array(divmod(next(numbers), 250), np.uint8)[:, None]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        if mask is not None:
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(mask)

    for category, (train, good, types) in OFFICIAL.items():
        for i in range(train):
            image(root / category / f"train/good/{i:03}.png")
        for i in range(good):
            image(root / category / f"test/good/{i:03}.png")
        for name, count in types.items():
            for i in range(count):
                mask = root / category / f"ground_truth/{name}/{i:03}_mask.png"
                image(root / category / f"test/{name}/{i:03}.png", mask)


def planned(root: Path, store: Store, seeds: int) -> Plan:
    """Plan the study on the images in ``root``."""
    study = Study(
        "large",
        tuple(parse_spec(method) for method in (*ONCE, *TRAINED)),
        (parse_spec("mvtec"),),
        seeds=tuple(range(seeds)),
        encoder="pocket/clip",
        backbone="pocket/resnet",
        roots={"mvtec": root},
        device="cpu",
    )
    return prepare(study, store)


def write_records(plan: Plan, store: Store) -> None:
    """Write a record and scores for every trial; a method is as good as its place in the study, give or take."""
    rng = np.random.default_rng(0)
    methods = list(dict.fromkeys(task.method for task in plan.tasks))
    for hash_, manifest in plan.manifests.items():
        store.write_once("manifests", hash_, manifest.as_dict())
    for task in plan.tasks:
        level = 0.7 + 0.2 * methods.index(task.method) / len(methods)
        values = {metric: round(float(rng.normal(level, 0.03)), 6) for metric in TITLES}
        seconds = dict(zip(("data", "encode", "fit", "score", "metrics"), rng.random(5).round(3), strict=True))
        block = {"version": METRICS_VERSION, "eval_size": 256, "values": values, "reasons": {}, "problems": []}
        record = {
            "format": FORMAT,
            "key": task.key,
            "status": "ok",
            "reason": None,
            "trial": describe(task),
            "metrics": {"exact": block},
            "notes": [],
            "provenance": {
                **environment("cpu"),
                "command": task.command,
                "finished": "2026-01-02T03:04:05+00:00",
                "seconds": {**seconds, "total": round(sum(seconds.values()) + 0.002, 3)},
                "peak_memory_mib": 900,
                "encoder_passes": 0,
                "traceback": None,
            },
        }
        store.write(record, {"image": np.zeros(8, np.float32)}, [""] * 8)


def commands(root: Path, store: Path, seeds: int) -> dict[str, list[str]]:
    """Return what is measured: name -> words behind ``bench``."""
    study = ["--methods", ",".join((*ONCE, *TRAINED)), "--dataset", "mvtec", "--data-root", str(root)]
    study += ["--encoder", "pocket/clip", "--backbone", "pocket/resnet", "--seeds", str(seeds), "--device", "cpu"]
    kept = ["--store", str(store)]
    return {
        "list": ["list"],
        "run (all done)": ["run", *study, *kept],
        "run --dry-run": ["run", *study, *kept, "--dry-run"],
        "table": ["table", *kept],
        "report --images 0": ["report", *kept, "--images", "0", "--output", str(store / "report.html")],
    }


def measure(words: list[str]) -> tuple[float, float]:
    """Return the seconds that pass during a command and those of the processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-P", "-m", "bench", *words], capture_output=True, text=True)
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"bench {' '.join(words)} failed:\n{done.stderr}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the command beside a store of ten thousand trials.")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--repeat", type=int, default=5, help="how often each command is timed (default 5)")
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the study (default 20: 10,260 trials)")
    parser.add_argument("--folder", type=Path, help="keep images and store here, and use what is there already")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        root, store = folder / "images", Store(folder / "store")
        if not root.exists():
            write_images(root)
        plan = planned(root, store, options.seeds)
        if not all(store.done(task.key) for task in plan.tasks):
            write_records(plan, store)
        size = statistics.fmean(store.record_path(task.key).stat().st_size for task in plan.tasks)
        measured = commands(root, store.root, options.seeds)
        turns = [{name: measure(words) for name, words in measured.items()} for _ in range(options.repeat + 1)]
    rows = []
    for name in measured:
        wall, processors = zip(*(turn[name] for turn in turns[1:]), strict=True)
        row = {
            "command": f"bench {name}",
            "seconds": round(statistics.median(wall), 2),
            "fastest_seconds": round(min(wall), 2),
            "processor_seconds": round(statistics.median(processors), 2),
        }
        rows.append(row)
        print(f"{row['command']}: {row['seconds']:.2f} s (fastest {row['fastest_seconds']:.2f}, ", end="")
        print(f"processors {row['processor_seconds']:.2f})")
    if options.out is not None:
        result: dict[str, Any] = {
            "commands": rows,
            "trials": len(plan.tasks),
            "splits": len(plan.manifests),
            "bytes_per_record": round(size),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[1], 1),  # of the last five minutes: other work slows all this down
            "libraries": {name: version(name) for name in ("click", "numpy", "rich", "scipy", "torch")},
            "python": platform.python_version(),
        }
        options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
