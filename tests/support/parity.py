"""How close two implementations come: what a parity test compares, and the table of what all of them reached."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

HEAD = """\
# What the parity tests reached

Each row is the largest difference of everything that its test compares, beside the limit above which the test
fails; where an array is compared, relative to the largest value of the other side. Rounding differs between
machines, and so do the figures. Where the other side's numbers were not computed in the test but stored, how they
were made stands in `tests/methods/golden/README.md`.

Made by `python -m pytest tests/methods --parity results/parity.md`
with {versions}.

"""


def numbers(values: Any) -> NDArray[np.float64]:
    """An array, tensor, number or nested list in double precision."""
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64)


def difference(ours: Any, theirs: Any) -> float:
    """The largest difference of two equally shaped arrays, relative to the largest magnitude in ``theirs``."""
    one, other = numbers(ours), numbers(theirs)
    assert one.shape == other.shape, f"{one.shape} is compared with {other.shape}"
    assert other.any(), "everything is 0 on the other side"
    return float(np.abs(one - other).max() / np.abs(other).max())


def golden(method: str) -> dict[str, Any]:
    """What the authors' modules gave, see ``tests/methods/golden/README.md``."""
    found: dict[str, Any] = json.loads((Path(__file__).parents[1] / f"methods/golden/{method}.json").read_text())
    return found


class Reached(NamedTuple):
    """A difference and its limit; of two for one thing, the larger difference counts."""

    difference: float
    limit: float

    def __str__(self) -> str:
        return f"{_short(self.difference)} (limit {_short(self.limit)})"


def _short(number: float) -> str:
    return f"{number:.1e}" if number else "0"


class Parity:
    """Fails where a difference is above its limit, and keeps what was reached.

    Args:
        rows: what was compared and with what -> the figure reached; several figures of one row are one, the
            largest.
        record: told of each figure, as pytest's ``record_property``.
    """

    def __init__(self, rows: dict[tuple[str, str], Reached], record: Callable[[str, object], None]) -> None:
        self.rows, self.record = rows, record

    def equal(self, what: str, against: str, ours: Any, theirs: Any, limit: float) -> None:
        """Two equally shaped arrays: their :func:`difference` is at most ``limit``."""
        self.reached(what, against, difference(ours, theirs), limit)

    def reached(self, what: str, against: str, difference: float, limit: float) -> None:
        """A difference that the test took itself is at most ``limit``."""
        key, found = (what, against), Reached(difference, limit)
        self.rows[key] = max(self.rows.get(key, found), found)
        self.record(f"parity: {what}, {against}", difference)
        print(f"parity: {what}, {against}: {found}")
        assert difference <= limit, f"{what}, {against}: {found}"


def table(rows: dict[tuple[str, str], Reached]) -> str:
    """The table of :data:`HEAD`, in Markdown."""
    packages = [f"{name} {version(name)}" for name in ("torch", "open_clip_torch", "numpy", "anomalib")]
    versions = f"Python {platform.python_version()}, {', '.join(packages)}, on a CPU ({platform.machine()})"
    lines = ["| what | against | largest difference | limit |", "|---|---|---:|---:|"]
    lines += [
        f"| {what} | {against} | {_short(found.difference)} | {_short(found.limit)} |"
        for (what, against), found in sorted(rows.items())
    ]
    return HEAD.format(versions=versions) + "\n".join(lines) + "\n"
