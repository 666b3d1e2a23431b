"""``bench cache``: what is kept on disk beside records, and how to be rid of it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from bench.cli._options import store_option
from bench.encoders.feature_store import GIB, FeatureStore, default_limit, default_root
from bench.errors import BenchError
from bench.store.store import Store


@click.command("cache")
@click.option(
    "--limit",
    type=click.FloatRange(min=0),
    metavar="GIB",
    help="Remove the least recently used features beyond this.",
)
@click.option("--clear", is_flag=True, help="Remove all features.")
@click.option(
    "--clear-detectors",
    type=click.Choice(["left", "all"]),
    help="Remove detectors that runs have left, or also those that are kept.",
)
@store_option
def command(limit: float | None, clear: bool, clear_detectors: str | None, store: Path) -> None:
    """Show the features of frozen encoders, and the detectors, that are kept on disk.

    Features lie in BENCH_CACHE (off: nowhere; by default in the user's cache folder), at most BENCH_CACHE_GIB
    gibibytes of them (by default 50). Detectors lie in the store: those that bench run --keep-detectors keeps, and
    those that a run needs, or has left behind when it was killed. Nothing is lost with either but the time to
    compute them again.
    """
    _features(limit, clear)
    _detectors(Store(store), clear_detectors)


def _features(limit: float | None, clear: bool) -> None:
    root = default_root()
    if root is None:
        if clear or limit is not None:
            raise BenchError("features are not kept on disk: BENCH_CACHE is off; unset it or name a folder")
        click.echo("features are not kept on disk: BENCH_CACHE is off")
        return
    store = FeatureStore(root, default_limit())
    if limit is not None and not math.isfinite(limit):
        raise BenchError(f"--limit {limit}: not a finite number")
    if clear or limit is not None:
        freed = store.clear() if clear else store.evict(int((limit or 0) * GIB))
        click.echo(f"removed {_size(freed)}")
    spaces: dict[Path, int] = {}
    for path, size, _ in store.files():
        space = root / path.relative_to(root).parts[0]
        spaces[space] = spaces.get(space, 0) + size
    for folder, size in sorted(spaces.items(), key=lambda item: -item[1]):
        click.echo(f"{_size(size):>10}  {_describe(folder)}")
    click.echo(f"{_size(sum(spaces.values())):>10}  of {_size(store.limit)} in {root}")


def _detectors(store: Store, remove: str | None) -> None:
    """Show a store's detectors, after some were removed."""
    for path in store.detectors():
        size = path.stat().st_size
        kept = path.parents[1].name == "detectors"
        if remove == "all" or (remove and not kept):
            if store.remove_detector(path):
                click.echo(f"removed {_size(size)}: {path}")
                continue
            click.echo(f"in use: {path}")
        click.echo(f"{_size(size):>10}  {'kept' if kept else 'left'}: {_describe_detector(path)}  {path}")


def _describe_detector(path: Path) -> str:
    from bench.store.detectors import load_detector

    try:
        told, _ = load_detector(path.read_bytes(), path.name)
        learned = told["trained_on"]
        return f"{told['method']['label']}, learned on {learned['dataset']}, seed {told['seed']}"
    except (BenchError, OSError, KeyError, TypeError):
        return "damaged"


def _describe(folder: Path) -> str:
    try:
        made = json.loads((folder / "space.json").read_text(encoding="utf-8"))
        return f"weights {made['weights'][:12]}: {made['preprocessing']}"
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
