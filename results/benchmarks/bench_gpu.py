"""Table 1 on a GPU: what it takes, on images of MVTec AD's number and size, with encoders of random weights.

    python results/benchmarks/bench_gpu.py --root DIR [--out FILE.json] [--parts promptad,busy]

Every part can be run alone, one after another with the same ``--root``, which keeps the images and the features:

- ``images``: draws them, 15 categories, 5354 images of 700 to 1024 pixels, once.
- ``encode``: every image that ``promptad`` needs through ViT-B/16, once: the same trials, of one step.
- ``promptad``: all trials of one target, 10 seeds x 2 shots, as the harness runs them by default on a GPU (fitted
  as one, ``--precision`` as given); the other 15 targets of Table 1 are taken to cost the same.
- ``busy``: the share of the time in which the GPU computes while PromptAD trains, by torch's profiler, which takes
  some time itself.
- ``compiled``: the same with the network compiled by ``torch.compile``, which the harness does not do: on a CPU it
  does not pay. If it pays here, it should.
- ``baselines``: one trial of DevNet, MLEP and DRA (ResNet-18, 448 pixels), and all of CLIP, for one target.

What was not run is called estimated: the columns of Table 1 where a part ran in full, and Table 1 where all five
columns are known. ``--device cpu --scale 0.02`` tries the script without a GPU: the numbers are then of no use.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

from bench.datasets.mvtec import OFFICIAL

ENCODER, BACKBONE = "random/ViT-B-16", "torchvision/resnet18[weights=random]"
SIDES = (700, 800, 900, 1000, 1024)  # as MVTec AD's, by category
COLUMNS = ("clip", "devnet", "mlep", "dra", "promptad")
TARGETS, SEEDS, SHOTS = 16, 10, 2  # of Table 1: MVTec AD's categories and AITEX
TARGET = "bottle"
ITERS = 2000  # PromptAD's training steps by default
WARM_UP = 5  # steps before those that ``busy`` looks at


def draw(place: tuple[Path, int, int, bool]) -> None:
    """One image, smooth and noisy, unlike every other; with a blot and its mask if it is anomalous."""
    path, number, side, anomalous = place
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(40, 200, (12, 12, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((side, side), Image.Resampling.BICUBIC))
    pixels += rng.integers(0, 8, (side, side, 1), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    if anomalous:
        mask = np.zeros((side, side), dtype=np.uint8)
        top, left = rng.integers(0, side * 3 // 4, 2)
        mask[top : top + side // 8, left : left + side // 8] = 255
        pixels[mask > 0] = 250
        target = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)
    Image.fromarray(pixels).save(path, compress_level=1)


def places(root: Path, scale: float) -> Iterator[tuple[Path, int, int, bool]]:
    """The images of all categories: file, number, side, anomalous."""
    number = 0
    for which, (category, (train, good, types)) in enumerate(OFFICIAL.items()):
        side = max(64, int(SIDES[which % len(SIDES)] * min(1.0, scale * 4)))
        parts = [("train/good", train), ("test/good", good), *((f"test/{t}", n) for t, n in types.items())]
        for part, count in parts:
            for i in range(max(2, int(count * scale))):
                number += 1
                yield root / category / part / f"{i:03}.png", number, side, part not in ("train/good", "test/good")


def images(root: Path, scale: float) -> dict[str, Any]:
    wanted = list(places(root, scale))
    missing = [place for place in wanted if not place[0].exists()]
    start = time.perf_counter()
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw, missing, chunksize=16))
    return {"images": len(wanted), "drawn": len(missing), "seconds": round(time.perf_counter() - start, 1)}


def bench(options: argparse.Namespace, methods: str, *words: str) -> dict[str, Any]:
    """Wall time of ``bench run`` in a process of its own on a fresh store, and where its trials' time went."""
    store = options.root / f"store-{time.time_ns()}"
    command = [sys.executable, "-P", "-m", "bench", "run", "--dataset", "folder", "--methods", methods]
    command += ["--data-root", str(options.root / "images"), "--store", str(store), "--device", options.device]
    command += ["--prompts", str(prompts(options.root)), *words] if "promptad" in methods else [*words]
    environment = os.environ | {"BENCH_CACHE": str(options.root / "features"), "BENCH_CACHE_GIB": "200"}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    records = [json.loads(file.read_text()) for file in store.glob("records/*/*.json")]
    bad = [record["reason"] for record in records if record["status"] != "ok"]
    if done.returncode or bad or not records:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-2000:]}\n{bad[:1]}")
    spent: dict[str, float] = {}
    for record in records:
        for part, value in record["provenance"]["seconds"].items():
            spent[part] = round(spent.get(part, 0.0) + value, 1)
    return {
        "trials": len(records),
        "wall_seconds": round(seconds, 1),
        "trial_seconds": spent,
        "encoder_passes": sum(record["provenance"]["encoder_passes"] for record in records),
        "fitted_with": max(record["provenance"]["fitted_with"] for record in records),
        "device": records[0]["provenance"]["device"],
        "peak_memory_mib": max(record["provenance"]["peak_memory_mib"] or 0 for record in records),
    }


def prompts(root: Path) -> Path:
    """A prompt file for the drawn categories."""
    path = root / "prompts.yaml"
    lines = ["folder:"]
    for category in OFFICIAL:
        label = category.replace("_", " ")
        lines += [f"  {category}:", f"    label: {label}", f"    normality: a flawless {label}"]
        lines += [f"    abnormality: abnormality of {label} is blot"]
    path.write_text("\n".join(lines) + "\n")
    return path


def promptad(options: argparse.Namespace, iters: int | None = None) -> dict[str, Any]:
    words = ["--encoder", ENCODER, "--categories", TARGET, "--seeds", str(options.seeds), "--shots", "1,10"]
    words += ["--precision", options.precision]
    found = bench(options, f"promptad[iters={iters or options.iters}]", *words)
    if iters is None and options.iters == ITERS and options.scale == 1:
        found["column_minutes_estimated"] = column(found["wall_seconds"] * SEEDS * SHOTS / found["trials"])
    return {**found, "iters": iters or options.iters}


def baselines(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"clip": bench(options, "clip", "--encoder", ENCODER, "--categories", TARGET)}
    if options.scale == 1:
        found["clip"]["column_minutes_estimated"] = column(found["clip"]["wall_seconds"])
    short = "[epochs=1,steps_per_epoch=1,batch_size=4]" if options.scale < 1 else ""
    for name in ("devnet", "mlep", "dra"):
        words = ["--backbone", BACKBONE, "--categories", TARGET, "--seeds", "1", "--shots", "10"]
        found[name] = bench(options, name + short, *words, "--precision", options.precision)
        if options.scale == 1:
            seconds = found[name]["trial_seconds"]["total"] * SEEDS * SHOTS
            found[name]["column_minutes_estimated"] = column(seconds)
    return found


def column(seconds: float) -> float:
    """Minutes that a column of Table 1 takes if each target takes so many seconds."""
    return round(seconds * TARGETS / 60, 1)


def busy(options: argparse.Namespace) -> dict[str, Any]:
    """The share of the wall time of PromptAD's training steps in which at least one kernel runs."""
    import torch

    from bench.methods.promptad import PromptADConfig
    from bench.methods.promptad import fit as _promptad_fit
    from bench.tools.devices import seed_everything

    seed_everything(0, options.precision)
    config = PromptADConfig(iters=options.busy_steps)
    trials = options.seeds * SHOTS
    trains, contexts = made_up(trials, options.device)
    _promptad_fit.fit(PromptADConfig(iters=3), trains, contexts)
    if options.device == "cpu":
        start = time.perf_counter()
        _promptad_fit.fit(config, trains, contexts)
        return {"steps": config.iters, "seconds": round(time.perf_counter() - start, 2), "share": None}
    marks: list[float] = []

    def track(steps: Iterable[Any], _: str) -> Iterator[Any]:
        for step in steps:
            if step in (WARM_UP, config.iters - 1):
                torch.cuda.synchronize()
                marks.append(time.perf_counter())
            yield step

    contexts[0].track = track
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _promptad_fit.fit(config, trains, contexts)
        torch.cuda.synchronize()
    kernels = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profile.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    # the marks are seconds of the host's clock: of the kernels, those of the last steps before the end count
    span = (marks[1] - marks[0]) * 1e6
    end = kernels[-1][1]
    computed, until = 0.0, end - span
    for start_of, end_of in kernels:
        computed += max(0.0, end_of - max(start_of, until))
        until = max(until, end_of)
    return {
        "steps": config.iters - 1 - WARM_UP,
        "trials": trials,
        "seconds": round(span / 1e6, 3),
        "seconds_per_step": round(span / 1e6 / (config.iters - 1 - WARM_UP), 5),
        "share": round(computed / span, 3),
        "peak_gpu_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1),
    }


def compiled(options: argparse.Namespace) -> dict[str, Any]:
    """Measurement ``busy``, through ``torch.compile``."""
    import torch

    from bench.methods.promptad import fit as _promptad_fit

    plain = _promptad_fit.joined_losses

    def losses(*arguments: Any) -> Any:
        return torch.compile(plain(*arguments), dynamic=False)

    with mock.patch.object(_promptad_fit, "joined_losses", losses):
        return busy(options)


def made_up(trials: int, device: str) -> tuple[list[Any], list[Any]]:
    """Training sets of ``trials`` trials on the same 420 images, and an encoder whose features are noise."""
    import torch

    from bench.contracts import Context, ImageFeatures, ImageSet, Prompts, TrainingSet

    class Noise:
        n_blocks, width, embed_dim, image_size = 12, 768, 512, 224

        def encode_images(self, images: ImageSet, *, layers: Any = (), image_size: int | None = None) -> Any:
            generator = torch.Generator().manual_seed(0)
            tokens = {layer: torch.randn(len(images), 197, 768, generator=generator) for layer in layers}
            return ImageFeatures(torch.zeros(len(images), 512), tokens, (14, 14))

        def encode_text(self, sentences: Any) -> Any:
            return torch.randn(len(sentences), 512, generator=torch.Generator().manual_seed(1))

    def nothing(key: str) -> Any:
        raise AssertionError(key)

    names = list(OFFICIAL)[:14]
    wording = {name: Prompts(name, f"a flawless {name}", f"abnormality of {name} is blot") for name in names}
    categories = [names[i % 14] for i in range(420)]
    labels = [int(i >= 280) for i in range(420)]
    sets = ImageSet([f"{i:064x}" for i in range(420)], categories, wording, nothing)
    types = ["blot" if label else "good" for label in labels]
    train = TrainingSet(sets, labels, types, nothing, 10)
    contexts = [
        Context(device, seed, TARGET, encoder=lambda name: Noise(), backbone=nothing)  # type: ignore[arg-type,return-value]
        for seed in range(trials)
    ]
    return [train] * trials, contexts


def main() -> None:
    parser = argparse.ArgumentParser(description="Time Table 1 on a GPU.")
    parser.add_argument("--root", type=Path, required=True, help="where images, features and records are kept")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file; parts run before stay")
    parser.add_argument("--parts", default="images,encode,promptad,busy,compiled,baselines")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="high", help="see bench run --help (default high: TF32)")
    parser.add_argument("--iters", type=int, default=ITERS, help=f"PromptAD's training steps (default {ITERS})")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="PromptAD's seeds (default 10)")
    parser.add_argument("--busy-steps", type=int, default=60, help="steps under the profiler (default 60)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the images, and of their size")
    options = parser.parse_args()
    if options.busy_steps < WARM_UP + 5:
        parser.error(f"--busy-steps must be {WARM_UP + 5} or more: the first {WARM_UP} do not count")
    options.root.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {
        "images": lambda: images(options.root / "images", options.scale),
        "encode": lambda: promptad(options, iters=1),
        "promptad": lambda: promptad(options),
        "busy": lambda: busy(options),
        "compiled": lambda: compiled(options),
        "baselines": lambda: baselines(options),
    }
    result: dict[str, Any] = {}
    if options.out is not None and options.out.exists():
        result = json.loads(options.out.read_text(encoding="utf-8"))
    result |= {
        "libraries": {name: version(name) for name in ("torch", "open_clip_torch", "torchvision", "numpy")},
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "scale": options.scale,
        "precision": options.precision,
    }
    for name in options.parts.split(","):
        result[name] = parts[name]()
        print(f"{name}: {json.dumps(result[name])}", flush=True)
        result |= table1(result)
        if options.out is not None:
            options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if "table1_minutes_estimated" in result:
        print(f"Table 1, estimated from one target: {result['table1_minutes_estimated']} minutes")


def table1(result: dict[str, Any]) -> dict[str, float]:
    """The minutes that all of Table 1 takes, once each of its columns has been estimated."""
    rows = {"promptad": result.get("promptad", {}), **result.get("baselines", {})}
    columns = [rows.get(name, {}).get("column_minutes_estimated") for name in COLUMNS]
    return {} if None in columns else {"table1_minutes_estimated": round(sum(columns), 1)}


if __name__ == "__main__":
    main()
