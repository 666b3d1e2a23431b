"""Variants of one method on both halves of pocket, as a Markdown table.

    python results/promptad/summarise.py screen confirm --store results/runs

Of each study the mean over categories and seeds, and the mean difference from the first variant with its standard
error over the seeds (each seed's difference is the mean over the categories, so that a seed counts once).
"""

from __future__ import annotations

import argparse

import pandas as pd

import bench

METRICS = {"image_auroc": "image", "pixel_auroc": "pixel"}


def read(study: str, store: str) -> pd.DataFrame:
    """The trials of a study; `variant` is the method's label without the encoder's name."""
    frame = bench.results(study, store=store)
    frame["variant"] = frame["label"].str.replace("encoder=pocket/clip,", "").str.replace("ffn=256,", "")
    return frame


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--store", default="results/runs")
    arguments = parser.parse_args()
    frames = {study: read(study, arguments.store) for study in arguments.studies}
    variants = list(dict.fromkeys(variant for frame in frames.values() for variant in frame["variant"]))
    base = min(variants, key=len)
    heads = [f"{name}, {study}" for name in METRICS.values() for study in frames]
    print(f"| variant | {' | '.join(f'{head} | difference' for head in heads)} | failed |")
    print(f"| :-- | {' | '.join('--: | :--' for _ in heads)} | --: |")
    for variant in [base, *(v for v in variants if v != base)]:
        cells, failed = [], 0
        for metric in METRICS:
            for frame in frames.values():
                by_seed = frame.groupby(["variant", "seed"])[metric].mean()
                rise = (by_seed[variant] - by_seed[base]).dropna()
                cells.append(f"{by_seed[variant].mean():.3f}")
                cells.append("" if variant == base else f"{rise.mean():+.3f} ± {rise.sem():.3f}")
        for frame in frames.values():
            failed += int((frame.loc[frame["variant"] == variant, "status"] != "ok").sum())
        print(f"| `{variant}` | {' | '.join(cells)} | {failed or ''} |")


if __name__ == "__main__":
    main()
