"""``bench evaluate``: metrics of anybody's maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli._side_by_side import (
    evaluate_files,
    file_options,
    mean,
    plain_errors,
    print_reasons,
    read_files,
    read_protocols,
    table,
)
from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.metrics import Evaluation
    from bench.metrics.files import Images
    from bench.metrics.protocols import MetricProtocol


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
def command(
    maps: Path | None,
    masks: Path | None,
    scores: Path | None,
    eval_size: str | None,
    aupimo: bool,
    as_json: bool,
    protocols: str,
    stream: bool,
) -> None:
    """Metrics of the anomaly maps of any program, beside a dataset's masks.

    \b
    bench evaluate --maps out/bottle --masks mvtec/bottle
    bench evaluate --maps out --masks mvtec                 # a row for each category, and their mean
    bench evaluate --maps maps.npz --masks mvtec/bottle --protocol exact,grid200 --json
    bench evaluate --scores scores.csv                      # name,score,label: image metrics alone

    Images are matched by their path below the two folders, without suffix, "_mask", and folders called
    "test" or "ground_truth". Where the masks' folder lists images in "test", each must have a map and each map an
    image. Else a map without a mask is a normal image; a mask without a map is an error. Pixels are compared at
    the masks' own size, unless --eval-size or the metric protocol says otherwise.
    """
    if (maps is None or masks is None) and scores is None:
        raise BenchError("bench evaluate needs --maps and --masks, or --scores with labels")
    if masks is not None and maps is None:
        raise BenchError("--masks goes with --maps")
    chosen = read_protocols(protocols, eval_size)
    if stream and (len(chosen) > 1 or chosen[0].thresholds != "all" or aupimo):
        raise BenchError("--stream goes with --protocol exact alone, without --aupimo")
    images = read_files(maps, masks, scores)
    found: dict[str, dict[str, Evaluation]] = {}
    bounds: dict[str, dict[str, float]] = {}
    for category, own in images.by_category().items():
        if stream:
            found[category], bounds[category] = _streamed(own, chosen[0])
        else:
            found[category] = evaluate_files(own, chosen, aupimo)
    if as_json:
        content = _as_dict(images, found, bounds if stream else None)
        click.echo(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False))
    elif len(found) == 1:
        _print_one(images, next(iter(found.values())), next(iter(bounds.values()), {}))
    else:
        _print_several(images, found, bounds)


def _streamed(images: Images, protocol: MetricProtocol) -> tuple[dict[str, Evaluation], dict[str, float]]:
    """The metrics by the protocol's name, and by how much each may be off."""
    from bench.metrics.evaluation import measure_streaming

    assert images.image_scores is not None
    if images.maps is None:
        raise BenchError("--stream goes with --maps")
    with plain_errors(images.names):
        evaluation, bounds = measure_streaming(
            protocol,
            labels=images.labels,
            image_scores=images.image_scores,
            maps=images.maps,
            masks=images.masks,
            no_masks=images.no_masks,
        )
    return {protocol.name: evaluation}, bounds


def _as_dict(
    images: Images,
    found: Mapping[str, Mapping[str, Evaluation]],
    bounds: Mapping[str, Mapping[str, float]] | None,
) -> dict[str, Any]:
    """Plain JSON values: of one category its protocols; of several each one's, and their means."""
    content: dict[str, Any] = {**_counts(images), "notes": list(images.notes)}
    parts = {}
    for category, own in images.by_category().items():
        part: dict[str, Any] = {"protocols": {}}
        for name, each in found[category].items():
            part["protocols"][name] = {
                "metrics": each.metrics,
                "reasons": each.reasons,
                "problems": each.problems,
            }
        if bounds is not None:
            part["bounds"] = bounds[category]
        parts[category] = {**_counts(own), **part}
    if len(parts) == 1:
        return {**content, **next(iter(parts.values()))}
    return {**content, "categories": parts, "mean": _means(found)}


def _counts(images: Images) -> dict[str, int]:
    return {"images": len(images.names), "anomalous": int(images.labels.sum())}


def _means(found: Mapping[str, Mapping[str, Evaluation]]) -> dict[str, dict[str, float | None]]:
    """The mean over the categories under each protocol."""
    names = next(iter(found.values()))
    return {name: mean([own[name].metrics for own in found.values()]) for name in names}


def _print_one(images: Images, found: Mapping[str, Evaluation], bounds: Mapping[str, float]) -> None:
    click.echo(f"{len(images.names)} images, {int(images.labels.sum())} anomalous")
    for line in table({name: each.metrics for name, each in found.items()}):
        click.echo(line)
    for name, bound in bounds.items():
        click.echo(f"{name} is within {bound:.1e} of the exact value")
    print_reasons(found)


def _print_several(
    images: Images,
    found: Mapping[str, Mapping[str, Evaluation]],
    bounds: Mapping[str, Mapping[str, float]],
) -> None:
    """A table for each protocol, with a row for each category and their mean."""
    counts = f"{len(images.names)} images, {int(images.labels.sum())} anomalous"
    click.echo(f"{counts}, in {len(found)} categories, each evaluated alone")
    for protocol, means in _means(found).items():
        rows = {category: own[protocol].metrics for category, own in found.items()}
        for line in table({**rows, "mean": means}, first=protocol):
            click.echo(line)
        print_reasons({category: own[protocol] for category, own in found.items()})
    for category, own in bounds.items():
        for name, bound in own.items():
            click.echo(f"{category}: {name} is within {bound:.1e} of the exact value")
