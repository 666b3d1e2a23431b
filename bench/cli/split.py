"""``bench split``: what one trial learns from and what it is tested on."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli._options import data_options
from bench.errors import BenchError
from bench.study.build import read_roots


@click.command("split")
@data_options
@click.option("--category", required=True, help="The target category.")
@click.option(
    "--shots",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Labelled anomalies per seen category.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The whole manifest, every image id.")
def command(
    datasets: str | None,
    roots: tuple[str, ...],
    protocol: str | None,
    train_dataset: str | None,
    train_root: Path | None,
    category: str,
    shots: int,
    seed: int,
    as_json: bool,
) -> None:
    """Print the split of one trial: what it learns from and what it is tested on."""
    from bench.data.catalogue import open_catalogue
    from bench.data.splits import check_leakage, check_source, load_protocol
    from bench.data.splits import split as make_split
    from bench.study.study import DEFAULT_PROTOCOL, DEFAULT_WITH_SOURCE
    from bench.tools.spec import parse_spec

    spec = parse_spec(datasets or "pocket")
    target = open_catalogue(spec, read_roots(roots, (spec,)).get(spec.name))
    source = open_catalogue(parse_spec(train_dataset), train_root) if train_dataset else target
    default = DEFAULT_WITH_SOURCE if train_dataset else DEFAULT_PROTOCOL
    rules = load_protocol(parse_spec(protocol) if protocol else default)
    if rules.traits.needs_source != bool(train_dataset) or (train_root and not train_dataset):
        raise BenchError("--protocol transfer, --train-dataset and --train-root go together")
    if train_dataset:
        check_source(rules.name, source, target, [category])
    manifest = make_split(rules, target=target, source=source, category=category, shots=shots, seed=seed)
    check_leakage(manifest, target=target, source=source)
    if as_json:
        import json

        click.echo(json.dumps({"hash": manifest.hash, **manifest.as_dict()}, indent=1, ensure_ascii=False))
        return
    test = target.labels(manifest.test)
    click.echo(f"{manifest.protocol} · {target.label} · {category} · {shots}-shot · seed {seed}")
    click.echo(f"manifest  {manifest.hash}")
    click.echo(f"train     {len(manifest.normal)} normal, {len(manifest.train) - len(manifest.normal)} anomalous")
    for name, draw in manifest.anomalous.items():
        click.echo(f"  {name}: {', '.join(draw.ids) or 'none'}")
    if manifest.support:
        click.echo(f"support   {', '.join(manifest.support)}")
    click.echo(f"test      {int((test == 0).sum())} normal, {int((test == 1).sum())} anomalous")
    for note in manifest.notes:
        click.echo(f"note      {note}")
