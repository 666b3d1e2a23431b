"""Progress of one thing in this process: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import click

_PAUSE = 10.0  # seconds between two lines


def steps(items: Iterable[Any], description: str) -> Iterator[Any]:
    """``items``, one by one; how many of them are done is shown on standard error."""
    total = len(items) if isinstance(items, Sized) else None
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description, total, console=Console(stderr=True), transient=True)
        return
    shown = time.monotonic()
    for done, item in enumerate(items):
        if (now := time.monotonic()) - shown > _PAUSE:
            of = "" if total is None else f" of {total}"
            click.echo(f"{description}: {done}{of}", err=True)
            shown = now
        yield item
