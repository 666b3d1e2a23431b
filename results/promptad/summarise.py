"""A study of variants of one method as a Markdown table: means, and paired differences from the first variant.

    python results/promptad/summarise.py results/promptad/screen.yaml --store results/runs

A pair is the same category, shots and seed. Behind each mean difference stands how many pairs rose. There are too
few categories for a test.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

from bench.store.store import Store
from bench.study.files import load_study
from bench.tools.spec import parse_spec

METRICS = ("image_auroc", "pixel_auroc")
Place = tuple[str, int, int]  # category, shots, seed
Values = dict[Place, dict[str, float]]


def options(spec: str) -> frozenset[tuple[str, str]]:
    """The options of a variant, whatever the order they were written in; the encoder is the dataset's."""
    return frozenset((key, value) for key, value in parse_spec(spec).options.items() if key != "encoder")


def collect(store: Store, study: str) -> tuple[dict[str, Values], dict[str, int]]:
    """Per variant, in the study's order: metrics by trial, and how many trials failed."""
    fields = load_study(study)
    names = {options(str(spec)): str(spec) for spec in fields["methods"]}
    values: dict[str, Values] = {name: {} for name in names.values()}
    failed: dict[str, int] = defaultdict(int)
    for record in store.records():
        name = names.get(options(record.method.label))
        place = (record.category, record.shots, record.seed)
        asked = (fields["categories"], fields["shots"], fields["seeds"])
        if name is None or any(value not in these for value, these in zip(place, asked, strict=True)):
            continue
        if record.status == "ok":
            found = {metric: record.value(metric) for metric in METRICS}
            values[name][place] = {metric: value for metric, value in found.items() if value is not None}
        else:
            failed[name] += 1
    return values, failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study")
    parser.add_argument("--store", type=Path, default=Path("results/runs"))
    arguments = parser.parse_args()
    values, failed = collect(Store(arguments.store), arguments.study)
    base = next(iter(values.values()))
    print("| variant | image, 1-shot | 10-shot | difference | pixel, 1-shot | 10-shot | difference | failed |")
    print("| :-- | --: | --: | :-- | --: | --: | :-- | --: |")
    for name, own in values.items():
        cells = []
        for metric in METRICS:
            for shots in (1, 10):
                numbers = [v[metric] for place, v in own.items() if place[1] == shots]
                cells.append(f"{statistics.fmean(numbers):.3f}" if numbers else "")
            rises = [own[place][metric] - base[place][metric] for place in own.keys() & base.keys()]
            up = sum(rise > 0 for rise in rises)
            cells.append(
                f"{statistics.fmean(rises):+.3f} ({up}/{len(rises)} up)" if rises and own is not base else ""
            )
        print(f"| `{name}` | {' | '.join(cells)} | {failed[name] or ''} |")


if __name__ == "__main__":
    main()
