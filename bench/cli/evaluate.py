"""``bench evaluate``: metrics of anybody's maps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from bench.cli._side_by_side import (
    evaluate_files,
    file_options,
    plain_errors,
    print_reasons,
    read_files,
    read_protocols,
    table,
)
from bench.errors import BenchError


@click.command("evaluate")
@file_options
@click.option(
    "--protocol",
    "--metric-protocol",
    "protocols",
    default="exact",
    show_default=True,
    help="Metric protocols, with commas: exact,grid200,ader50,openiad,devnet-perimage,winclip-cy.",
)
@click.option("--stream", is_flag=True, help="Bounded memory: exact to within a bound that is printed.")
@click.option("--device", help="Sort pixels there: cuda, auto.  [default: the CPU, with NumPy]")
def command(
    maps: Path | None,
    masks: Path | None,
    scores: Path | None,
    eval_size: str | None,
    aupimo: bool,
    as_json: bool,
    protocols: str,
    stream: bool,
    device: str | None,
) -> None:
    """Metrics of the anomaly maps of any program, beside a dataset's masks.

    One category at a time: all images that are given are evaluated together.

    \b
    bench evaluate --maps out/bottle --masks mvtec/bottle
    bench evaluate --maps maps.npz --masks mvtec/bottle --protocol exact,grid200 --json

    Images are matched by their path below the two folders, without suffix, "_mask", and folders called
    "test" or "ground_truth". A map without a mask is a normal image; a mask without a map is an error.
    """
    if maps is None or masks is None:
        raise BenchError("bench evaluate needs --maps and --masks")
    chosen = read_protocols(protocols, eval_size)
    images = read_files(maps, masks, scores)
    bounds: dict[str, float] = {}
    if stream:
        from bench.metrics.evaluation import measure_streaming

        if len(chosen) > 1 or chosen[0].thresholds != "all" or aupimo or device:
            raise BenchError("--stream goes with --protocol exact alone, without --aupimo and --device")
        assert images.image_scores is not None
        with plain_errors(images.names):
            evaluation, bounds = measure_streaming(
                chosen[0],
                labels=images.labels,
                image_scores=images.image_scores,
                maps=images.maps,
                masks=images.masks,
            )
        found = {chosen[0].name: evaluation}
    else:
        found = evaluate_files(images, chosen, aupimo, _device(device))
    if as_json:
        content: dict[str, Any] = {
            "images": len(images.names),
            "anomalous": int(images.labels.sum()),
            "notes": list(images.notes),
            "protocols": {
                name: {"metrics": each.metrics, "reasons": each.reasons, "problems": each.problems}
                for name, each in found.items()
            },
        }
        if stream:
            content["bounds"] = bounds
        click.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
        return
    click.echo(f"{len(images.names)} images, {int(images.labels.sum())} anomalous")
    for line in table({name: each.metrics for name, each in found.items()}):
        click.echo(line)
    for name, bound in bounds.items():
        click.echo(f"{name} is within {bound:.1e} of the exact value")
    print_reasons(found)


def _device(name: str | None) -> str | None:
    if name is None:
        return None
    from bench.tools.devices import choose_device

    return choose_device(name)
