"""``bench cache``: what frozen features are kept on disk, and how to be rid of them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click

from bench.encoders.feature_store import GIB, FeatureStore, default_limit, default_root
from bench.errors import BenchError


@click.command("cache")
@click.option(
    "--limit", type=click.FloatRange(min=0), metavar="GIB", help="Remove the least recently used beyond this."
)
@click.option("--clear", is_flag=True, help="Remove everything.")
def command(limit: float | None, clear: bool) -> None:
    """Show the features of frozen encoders that are kept on disk.

    They lie in BENCH_CACHE (off: nowhere; by default in the user's cache folder), at most BENCH_CACHE_GIB
    gibibytes of them (by default 50). Nothing is lost with them but the time to compute them again.
    """
    root = default_root()
    if root is None:
        raise BenchError("features are not kept on disk: BENCH_CACHE is off; unset it or name a folder")
    store = FeatureStore(root, default_limit())
    if limit is not None and not math.isfinite(limit):
        raise BenchError(f"--limit {limit}: not a finite number")
    if clear or limit is not None:
        freed = store.evict(0 if clear else int((limit or 0) * GIB))
        click.echo(f"removed {_size(freed)}")
    spaces: dict[Path, int] = {}
    for path, size, _ in store.files():
        space = root / path.relative_to(root).parts[0]
        spaces[space] = spaces.get(space, 0) + size
    for folder, size in sorted(spaces.items(), key=lambda item: -item[1]):
        click.echo(f"{_size(size):>10}  {_describe(folder)}")
    click.echo(f"{_size(sum(spaces.values())):>10}  of {_size(store.limit)} in {root}")


def _describe(folder: Path) -> str:
    try:
        made = json.loads((folder / "space.json").read_text(encoding="utf-8"))
        return f"weights {made['weights'][:12]}: {made['preprocessing']}"
    except (OSError, ValueError, KeyError, TypeError):
        return folder.name


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
