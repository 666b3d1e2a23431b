"""Speed of the exact metrics, compared with scikit-learn and anomalib on the same arrays.

    python results/benchmarks/bench_metrics.py [--out FILE.json] [--repeat 5] [--skip-reference] [--skip-streaming]

Both sides compute pooled pixel AUROC, AP, F1-max and AUPRO from full-size float32 maps in memory. The
reference runs once; ours runs before and after it, after one run that is not counted, and the median counts.
Where other work shares the machine, times suffer and the ratio with them; the ratio of processor times (of
all threads) suffers less. The largest case is measured in time and memory alone: the peak is what the call
allocates, as traced, plus the maps themselves, over the bytes of the maps.

Then the streaming mode, beside the exact engine on the same arrays, in turns: its time, how far off it is and
how far off it says it may be, and its peak for all maps and for a quarter of them.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics import pixel_metrics, resize_bilinear
from bench.metrics.streaming import PixelAccumulator, Streamed

COMPARED = ((100, 256), (60, 512))
LARGE = (60, 1024)
STREAMED = (1000, 512)
TOLERANCE = {"pixel_auroc": 1e-12, "pixel_ap": 1e-12, "pixel_f1max": 1e-12, "aupro": 1e-6}


def category(number: int, side: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return maps in [0, 1] and masks like those of a test set: seven images in ten have one to three
    defects.

    The defects are ellipses, some 4 % of all pixels. The maps are smooth, with pixel noise so that nearly all
    thresholds are distinct, and find the defects in part.
    """
    rng = np.random.default_rng(0)
    maps = np.empty((number, side, side), dtype=np.float32)
    masks = np.zeros((number, side, side), dtype=np.bool_)
    rows, columns = np.ogrid[:side, :side]
    for i in range(number):
        for _ in range(rng.integers(1, 4) if rng.random() < 0.7 else 0):
            y, x = rng.uniform(0.1, 0.9, 2) * side
            a, b = rng.uniform(0.05, 0.17, 2) * side
            masks[i] |= ((rows - y) / a) ** 2 + ((columns - x) / b) ** 2 < 1
        smooth = resize_bilinear(rng.random((16, 16), dtype=np.float32), side)
        maps[i] = 0.6 * smooth + 0.1 * rng.random((side, side), dtype=np.float32) + np.float32(0.2) * masks[i]
    return np.clip(maps, 0, 1), masks


def reference(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> dict[str, float]:
    """Return the same four metrics by scikit-learn and anomalib."""
    import torch
    from anomalib.metrics.aupro import _AUPRO
    from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

    labels, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    both = precision + recall
    metric = _AUPRO(fpr_limit=0.3)
    metric.update(torch.from_numpy(maps), torch.from_numpy(masks.astype(np.int64)))
    return {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "pixel_ap": float(average_precision_score(labels, scores)),
        "pixel_f1max": float((2 * precision * recall / np.where(both > 0, both, 1)).max()),
        "aupro": float(metric.compute()),
    }


def timed(function: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return the seconds that pass during a call, those of the processors, and what it returns."""
    gc.collect()
    start, processors = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - start, time.process_time() - processors, result


def peak(function: Callable[[], Any]) -> int:
    """Return the most bytes that a call holds at once beyond what it was given."""
    gc.collect()
    tracemalloc.start()
    function()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def measure(number: int, side: int, *, repeat: int, compare: bool) -> dict[str, Any]:
    """Measure one case."""
    maps, masks = category(number, side)

    def ours() -> dict[str, float | None]:
        return pixel_metrics(maps, masks, eval_size=None)

    found = ours()
    runs = [timed(ours)[:2] for _ in range(repeat)]
    row: dict[str, Any] = {"maps": number, "side": side, "metrics": found}
    if compare:
        theirs, theirs_processors, expected = timed(lambda: reference(maps, masks))
        runs += [timed(ours)[:2] for _ in range(repeat)]
        difference = {name: abs((found[name] or 0.0) - expected[name]) for name in TOLERANCE}
        row |= {
            "reference_seconds": round(theirs, 3),
            "reference_processor_seconds": round(theirs_processors, 3),
            "difference": difference,
            "agrees": all(difference[name] <= limit for name, limit in TOLERANCE.items()),
        }
    seconds, processors = (statistics.median(column) for column in zip(*runs, strict=True))
    row |= {
        "anomalous_share": round(float(masks.mean()), 4),
        "seconds": round(seconds, 4),
        "fastest_seconds": round(min(runs)[0], 4),
        "processor_seconds": round(processors, 4),
        "peak_over_scores": round((peak(ours) + maps.nbytes) / maps.nbytes, 3),
    }
    if compare:
        row["ratio"] = round(theirs / seconds, 1)
        row["processor_ratio"] = round(theirs_processors / processors, 1)
    return row


def streaming(number: int, side: int, *, repeat: int) -> dict[str, Any]:
    """Measure the streaming mode beside the exact engine."""
    maps, masks = category(number, side)

    def exact() -> dict[str, float | None]:
        return pixel_metrics(maps, masks, eval_size=None)

    def stream(count: int = number) -> Streamed:
        whole = PixelAccumulator(None)
        whole.add(maps[:count], masks[:count])
        return whole.metrics()

    expected, found = exact(), stream()
    turns = [(timed(exact)[:2], timed(stream)[:2]) for _ in range(repeat)]
    (exact_wall, exact_cpu), (wall, cpu) = (
        [statistics.median(column) for column in zip(*runs, strict=True)] for runs in zip(*turns, strict=True)
    )
    difference = {name: abs((found.values[name] or 0.0) - (value or 0.0)) for name, value in expected.items()}
    bounds = {name: bound or 0.0 for name, bound in found.bounds.items()}
    return {
        "maps": number,
        "side": side,
        "exact_seconds": round(exact_wall, 3),
        "exact_processor_seconds": round(exact_cpu, 3),
        "seconds": round(wall, 3),
        "processor_seconds": round(cpu, 3),
        "over_exact": round(wall / exact_wall, 2),
        "over_exact_processor": round(cpu / exact_cpu, 2),
        "difference": difference,
        "bounds": bounds,
        "within_bounds": all(difference[name] <= bounds[name] + 1e-10 for name in bounds),
        "peak_mib": round(peak(stream) / 2**20, 1),
        "peak_mib_of_a_quarter": round(peak(lambda: stream(number // 4)) / 2**20, 1),
        "exact_peak_mib": round(peak(exact) / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the exact metrics beside scikit-learn and anomalib.")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--repeat", type=int, default=5, help="how often ours is timed (default 5)")
    parser.add_argument("--skip-reference", action="store_true", help="time ours alone")
    parser.add_argument("--skip-streaming", action="store_true", help="leave the streaming mode out")
    options = parser.parse_args()

    if not options.skip_reference:
        # Imports are not what is compared.
        reference(*category(2, 32))
    rows = [
        measure(*case, repeat=options.repeat, compare=case != LARGE and not options.skip_reference)
        for case in (*COMPARED, LARGE)
    ]
    for row in rows:
        line = f"{row['maps']} maps {row['side']}x{row['side']}: {row['seconds']:.3f} s"
        line += f" (fastest {row['fastest_seconds']:.3f}, processors {row['processor_seconds']:.3f})"
        line += f", peak memory {row['peak_over_scores']:.2f} x the scores"
        if "ratio" in row:
            line += f", reference {row['reference_seconds']:.1f} s, ratio {row['ratio']:.0f}"
            line += f" (processors {row['processor_ratio']:.0f})"
            line += ", agrees" if row["agrees"] else f", DISAGREES: {row['difference']}"
        print(line)
    streamed = None if options.skip_streaming else streaming(*STREAMED, repeat=min(options.repeat, 3))
    if streamed is not None:
        print(
            f"streaming, {streamed['maps']} maps {streamed['side']}x{streamed['side']}: "
            f"{streamed['seconds']:.2f} s, exact {streamed['exact_seconds']:.2f} s, "
            f"{streamed['over_exact']:.2f} x (processors {streamed['over_exact_processor']:.2f}); "
            f"off by at most {max(streamed['difference'].values()):.1e}, "
            f"bound {max(streamed['bounds'].values()):.1e}; "
            f"peak {streamed['peak_mib']:.0f} MiB, of a quarter of the maps "
            f"{streamed['peak_mib_of_a_quarter']:.0f}, exact {streamed['exact_peak_mib']:.0f}"
        )
    if options.out is not None:
        libraries = {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "anomalib", "torch")}
        result = {
            "cases": rows,
            "cores": os.cpu_count(),
            "libraries": libraries,
            "streaming": streamed,
            "python": platform.python_version(),
        }
        options.out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
