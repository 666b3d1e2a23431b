"""``bench split``: what one trial learns from and what it is tested on."""

from __future__ import annotations

import click

from bench.cli._options import data_options
from bench.errors import BenchError
from bench.study.build import read_roots, read_train_roots


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
    train_roots: tuple[str, ...],
    category: str,
    shots: int,
    seed: int,
    as_json: bool,
) -> None:
    """Print the split of one trial: what it learns from and what it is tested on."""
    from bench.data.catalogue import open_catalogue
    from bench.data.splits import check_leakage, check_source, load_protocol
    from bench.data.splits import split as make_split
    from bench.study.plan import open_sources
    from bench.study.sources import parse_sources
    from bench.study.study import DEFAULT_PROTOCOL, DEFAULT_WITH_SOURCE
    from bench.tools.hashes import HashBook
    from bench.tools.registry import PROTOCOLS
    from bench.tools.spec import parse_spec

    spec = parse_spec(datasets or "pocket")
    target = open_catalogue(spec, read_roots(roots, (spec,)).get(spec.name))
    sources = parse_sources(train_dataset) if train_dataset else None
    source = target
    if sources is not None:
        roots_of = read_train_roots(train_roots, sources)
        source = open_sources(sources.of(target.dataset.name), roots_of, HashBook(None))
    default = DEFAULT_WITH_SOURCE if train_dataset else DEFAULT_PROTOCOL
    rules = load_protocol(parse_spec(protocol) if protocol else default)
    if rules.traits.needs_source != bool(train_dataset) or (train_roots and not train_dataset):
        names = [name for name in PROTOCOLS.names() if PROTOCOLS.load(name).traits.needs_source]
        raise BenchError(f"--protocol {' or '.join(names)}, --train-dataset and --train-root go together")
    if train_dataset:
        check_source(rules.name, source, target, target.categories if rules.traits.apart else [category])
    asked = shots if rules.traits.shots else None
    manifest = make_split(
        rules, target=target, source=source, category=category, shots=asked, seed=seed, normals=True
    )
    check_leakage(manifest, target=target, source=source)
    if as_json:
        import json

        click.echo(json.dumps({"hash": manifest.hash, **manifest.as_dict()}, indent=1, ensure_ascii=False))
        return
    test = target.labels(manifest.test)
    drawn = f"{shots}-shot · " if rules.traits.shots else ""
    click.echo(f"{manifest.protocol} · {target.label} · {category} · {drawn}seed {seed}")
    click.echo(f"manifest  {manifest.hash}")
    click.echo(f"train     {len(manifest.normal)} normal, {len(manifest.train) - len(manifest.normal)} anomalous")
    for name, draw in manifest.anomalous.items():
        click.echo(f"  {name}: {', '.join(draw.ids) or 'none'}")
    if manifest.support:
        click.echo(f"support   {', '.join(manifest.support)}")
    click.echo(f"test      {int((test == 0).sum())} normal, {int((test == 1).sum())} anomalous")
    for note in manifest.notes:
        click.echo(f"note      {note}")
