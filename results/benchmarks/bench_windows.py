"""Speed of WinCLIP's windows, compared with a large matrix product, the plain transformer and anomalib.

    python results/benchmarks/bench_windows.py [--out FILE.json] [--repeat 5] [--threads 1,2]

The encoder is ``random/ViT-B-16-plus-240``, the paper's architecture, where one image has 196 windows of 2x2
patches and 169 of 3x3. In turns, one image at a time, as on a CPU by default:

- ours: :func:`bench.methods.winclip.encode_windows`, with nothing kept from before;
- the same with the windows passed to open_clip's transformer as it is, as ours did before;
- anomalib's windows, mended to pass them with the batch first (:class:`bench.methods.anomalib.winclip.Mended`);
  its time lacks the patch embedding and the image's scaling;
- a float32 product of two matrices of side 4096, as torch's ``@`` carries it out, and as oneDNN does.

After one round that is not counted, medians count. Counted operations are those of the windows' matrix
products: patch embedding, queries, keys and values, attention and its projection, the feed-forward layers, the
projection into the joint space. A share of 1 is the rate of a product in the same run. Where other work shares the
machine, wall times suffer, those of several threads most; times of the processors (of all threads) suffer less.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bench.contracts import ImageSet, TextImageEncoder
from bench.encoders import identify, load_text_image
from bench.encoders.features import CACHE
from bench.methods.anomalib.run import replaced
from bench.methods.anomalib.winclip import Mended
from bench.methods.shared import vit
from bench.methods.winclip import encode_windows, window_patches

ENCODER = "random/ViT-B-16-plus-240"
SIDES = (2, 3)
LARGE = 4096
LIMIT = 1e-4  # largest difference between raw embeddings, whose entries are of the order of 1


def image() -> ImageSet:
    """Return one image of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (240, 240, 3), dtype=np.uint8)
    return ImageSet(["noise"], ["noise"], {}, lambda key: pixels)


def operations(encoder: TextImageEncoder, grid: tuple[int, int]) -> int:
    """Return the operations of the matrix products that one image's windows take."""
    visual: Any = encoder.model.visual
    width, hidden = encoder.width, visual.transformer.resblocks[0].mlp.c_fc.out_features
    total = 2 * grid[0] * grid[1] * width * visual.conv1.weight[0].numel()
    for side in SIDES:
        count, length = len(window_patches(grid, side)), side * side + 1
        token = 2 * width * (4 * width + 2 * hidden) + 4 * length * width
        total += encoder.n_blocks * count * length * token + 2 * count * width * encoder.embed_dim
    return total


def contestants(encoder: TextImageEncoder, grid: tuple[int, int]) -> dict[str, Callable[[], Any]]:
    """Return what is timed."""
    visual, images = vit.tower(encoder), image()
    anomalibs = Mended(encoder, "noise", SIDES)
    large = torch.randn(LARGE, LARGE)
    packed = large.to_mkldnn()
    with torch.no_grad():
        patches = vit.embed(visual, encoder.preprocess(images[0])[None])

    def ours() -> list[torch.Tensor]:
        CACHE.clear()
        return list(encode_windows(images, encoder, SIDES, grid).values())

    def plain(visual: Any, tokens: torch.Tensor) -> torch.Tensor:
        return vit.pooled(visual, visual.transformer(tokens))

    def before() -> list[torch.Tensor]:
        with replaced(vit, "embed_sequences", plain):
            return ours()

    def anomalib() -> list[torch.Tensor]:
        with torch.no_grad():
            return [anomalibs._get_window_embeddings(patches, masks) for masks in anomalibs.masks]

    return {
        "ours": ours,
        "before": before,
        "anomalib": anomalib,
        "product": lambda: large @ large,
        "onednn_product": lambda: F.linear(packed, packed),
    }


def timed(function: Callable[[], Any]) -> tuple[float, float]:
    """Return the seconds that pass during a call, and those of the processors."""
    gc.collect()
    start, processors = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - start, time.process_time() - processors


def measure(encoder: TextImageEncoder, threads: int, repeat: int) -> dict[str, Any]:
    """Measure everything with one number of threads."""
    torch.set_num_threads(threads)
    visual: Any = encoder.model.visual
    grid = (int(visual.grid_size[0]), int(visual.grid_size[1]))
    functions = contestants(encoder, grid)
    found = {name: function() for name, function in functions.items()}
    difference = {
        name: max(float((a - b).abs().max()) for a, b in zip(found["ours"], found[name], strict=True))
        for name in ("before", "anomalib")
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(repeat):
        for name, function in functions.items():
            times[name].append(timed(function))
    wall, processors = (
        {name: statistics.median(run[clock] for run in runs) for name, runs in times.items()} for clock in (0, 1)
    )
    counted = operations(encoder, grid)
    row: dict[str, Any] = {"threads": threads, "operations": counted, "difference": difference}
    row["agrees"] = max(difference.values()) <= LIMIT
    for clock, seconds in (("wall", wall), ("processors", processors)):
        rates = {
            name: (2 * LARGE**3 if name.endswith("product") else counted) / second / 1e9
            for name, second in seconds.items()
        }
        row[clock] = {
            "seconds": {name: round(second, 4) for name, second in seconds.items()},
            "gigaflops": {name: round(rate, 1) for name, rate in rates.items()},
            "share_of_product": round(rates["ours"] / rates["product"], 3),
            "share_of_onednn_product": round(rates["ours"] / rates["onednn_product"], 3),
            "before_over_ours": round(seconds["before"] / seconds["ours"], 2),
            "anomalib_over_ours": round(seconds["anomalib"] / seconds["ours"], 2),
        }
    return row


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(description="Time WinCLIP's windows beside a matrix product and anomalib.")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--repeat", type=int, default=5, help="how often each is timed (default 5)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (default 1,2)")
    options = parser.parse_args()

    CACHE.store = None  # the folder of kept features is neither read nor written
    encoder = load_text_image(identify(ENCODER))
    rows = [measure(encoder, int(threads), options.repeat) for threads in options.threads.split(",")]
    for row in rows:
        for clock in ("wall", "processors"):
            line = ", ".join(f"{name} {rate:.0f}" for name, rate in row[clock]["gigaflops"].items())
            print(
                f"{row['threads']} threads, {clock}: GFLOP/s {line}; "
                f"share of the product {row[clock]['share_of_product']:.2f}, "
                f"of oneDNN's {row[clock]['share_of_onednn_product']:.2f}; "
                f"before {row[clock]['before_over_ours']:.2f} x ours, "
                f"anomalib {row[clock]['anomalib_over_ours']:.2f} x ours; "
                + ("agrees" if row["agrees"] else f"DISAGREES: {row['difference']}")
            )
    if options.out is not None:
        result = {
            "cases": rows,
            "cores": os.cpu_count(),
            "encoder": ENCODER,
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "libraries": {name: version(name) for name in ("numpy", "torch", "open_clip_torch", "anomalib")},
            "load": [round(load, 1) for load in os.getloadavg()],
            "processor": processor(),
            "python": platform.python_version(),
            "repeat": options.repeat,
        }
        options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
