"""The data behind records: labels, masks and images, which no store holds."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data.catalogue import Catalogue, open_catalogue
from bench.errors import BenchError
from bench.store.store import Store
from bench.tools.hashes import HashBook
from bench.tools.spec import parse_spec


class Catalogues:
    """The datasets that records were scored on, each opened once.

    Args:
        store: remembers the files' hashes.
        roots: name of a dataset -> its folder; by default the one where the record's own trial found it.
    """

    def __init__(self, store: Store, roots: Mapping[str, Path]) -> None:
        self._store, self._roots = store, roots
        self._open: dict[str, Catalogue] = {}

    def of(self, record: Mapping[str, Any]) -> Catalogue:
        """The dataset of a record.

        Raises:
            BenchError: it is not there, or holds other data than were scored.
        """
        dataset = record["trial"]["dataset"]
        label = str(dataset["label"])
        if label not in self._open:
            spec = parse_spec(label)
            root = self._roots.get(spec.name) or _root_of(record)
            catalogue = open_catalogue(spec, root, HashBook(self._store.root / "hashes.json"))
            if catalogue.fingerprint != dataset["fingerprint"]:
                raise BenchError(f"{label} is not the data that were scored; give their folder with --data-root")
            self._open[label] = catalogue
        return self._open[label]


def command_words(record: Mapping[str, Any]) -> list[str]:
    """The words of the command that ran a trial; none if it is no command."""
    try:
        return shlex.split(record["provenance"].get("command") or "")
    except (KeyError, AttributeError, ValueError):
        return []


def _root_of(record: Mapping[str, Any]) -> Path | None:
    """The folder that the record's command names, if it is still there."""
    words = command_words(record)
    roots = [Path(value) for option, value in itertools.pairwise(words) if option == "--data-root"]
    return next((root for root in roots if root.is_dir()), None)
