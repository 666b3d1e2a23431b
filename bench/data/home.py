"""The data home: a folder that holds many datasets, each in a folder of one of its usual names.

``ZSAD_DATA`` names it, or ``--data-home``, or ``bench.run(data_home=...)``; a root that is given goes before it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.errors import BenchError

VARIABLE = "ZSAD_DATA"


@contextmanager
def data_home(folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Make a folder the data home for a while; None changes nothing."""
    before = os.environ.get(VARIABLE)
    if folder is not None:
        os.environ[VARIABLE] = os.path.abspath(os.path.expanduser(folder))
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def find_root(cls: Any) -> tuple[Path | None, str]:
    """The folder of a dataset class in the data home, and where it was looked for, in words.

    Names are compared without regard to case; of several folders the one whose name stands first in
    ``traits.folders`` is taken.

    Raises:
        BenchError: the data home is not a folder, or cannot be read.
    """
    given = os.environ.get(VARIABLE, "")
    names = cls.traits.folders
    if not given or not names:
        return None, ""
    home = Path(given).expanduser()
    try:
        found = {entry.name.lower(): Path(entry.path) for entry in os.scandir(home) if entry.is_dir()}
    except OSError as error:
        raise BenchError(f"the data home {home} (--data-home, {VARIABLE}): {error.strerror or error}") from error
    for name in names:
        inside = home / name  # a name may have several parts
        if (folder := found.get(name.lower())) is not None or ("/" in name and inside.is_dir()):
            return folder or inside, ""
    return None, f"{home} has none of {', '.join(names)}"
