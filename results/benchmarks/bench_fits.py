"""Seconds of one auxiliary fit with several targets, beside a training for each target, in one run.

    python results/benchmarks/bench_fits.py --out results/benchmarks/fits.json

PromptAD learns on three categories of pocket and is tested on the six others: as one study, which trains once, and
as six studies of one target each, which train six times. Both run inside this process, with the encoder loaded and
the features of all images kept, so that the training makes the difference. The scores of both are compared, too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import bench
from bench.store.store import Store

LEARNED = ("fabric", "terrazzo", "wood")
TARGETS = ("button", "capsule", "chip", "gear", "mesh", "washer")


def study(store: Path, method: str, categories: tuple[str, ...]) -> float:
    """Seconds of a study of these targets."""
    begin = time.perf_counter()
    bench.run(
        methods=[method],
        dataset=f"pocket[categories={'+'.join(TARGETS)}]",
        protocol="auxiliary",
        train_dataset=f"pocket[categories={'+'.join(LEARNED)}]",
        categories=list(categories),
        workers=0,
        store=store,
    )
    return time.perf_counter() - begin


def scores(store: Path) -> dict[str, Any]:
    kept = Store(store)
    return {record.key: kept.scores(record.key) for record in kept.records()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="promptad[iters=200,ffn=256]")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["BENCH_CACHE"] = str(folder / "features")
        study(folder / "first", given.method, TARGETS[:1])  # loads and encodes
        shared = study(folder / "shared", given.method, TARGETS)
        alone = sum(study(folder / "alone", given.method, (target,)) for target in TARGETS)
        one, other = scores(folder / "shared"), scores(folder / "alone")
        fits = {record.document["provenance"]["fit"]["key"] for record in Store(folder / "shared").records()}
    same = one.keys() == other.keys()
    for key, arrays in one.items():
        for part, values in arrays.items():
            same = same and np.array_equal(values, other[key][part])
    found = {
        "method": given.method,
        "targets": len(TARGETS),
        "fits": len(fits),
        "seconds": {"one fit": round(shared, 1), "a training for each target": round(alone, 1)},
        "ratio": round(alone / shared, 2),
        "scores equal to the last bit": bool(same),
        "cores": os.cpu_count(),
    }
    print(json.dumps(found, indent=1))
    if given.out:
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
