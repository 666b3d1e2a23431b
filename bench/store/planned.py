"""Trials of a study as it was planned, in a form that stays small for ten thousand of them.

Most of what describes a trial is shared: there are a few methods and datasets, and a split serves all methods. So
each distinct value is kept once, by field, and a trial is a line of places in these lists::

    {"fields": ["method", "category"], "trials": ["0 1", "1 0"],
     "values": {"method": [{...}, {...}], "category": ["mesh", "wood"]}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.errors import BenchError

_ABSENT = "-"  # the place of a field that a trial does not have
_SPLIT = "manifest"  # of the protocol; apart, since it is another for each split, and the rest of it is not


def pack(descriptions: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The compact form of trials' descriptions, in their order.

    Args:
        descriptions: of each trial, as in the ``trial`` of its record.
    """
    places: dict[str, dict[str, int]] = {}  # field -> a value as JSON -> its place
    trials = []
    for description in descriptions:
        protocol = dict(description["protocol"])
        flat = {**description, _SPLIT: protocol.pop(_SPLIT, None), "protocol": protocol}
        trial = {}
        for name, value in flat.items():
            known = places.setdefault(name, {})
            trial[name] = str(known.setdefault(json.dumps(value, sort_keys=True), len(known)))
        trials.append(trial)
    lines = [" ".join(trial.get(name, _ABSENT) for name in places) for trial in trials]
    # The fields have an order of their own: in the file, names of an object are sorted.
    values = {name: [*map(json.loads, known)] for name, known in places.items()}
    return {"fields": list(places), "values": values, "trials": lines}


def unpack(packed: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The keys of trials, each with the description that :func:`pack` was given of it.

    Raises:
        BenchError: the content is not what :func:`pack` makes of as many trials.
    """
    try:
        fields, values = packed["fields"], packed["values"]
        for key, line in zip(keys, packed["trials"], strict=True):
            trial = {}
            for name, place in zip(fields, line.split(" "), strict=True):
                if place != _ABSENT:
                    trial[name] = values[name][int(place)]
            split = trial.pop(_SPLIT)
            yield key, {**trial, "protocol": {**trial["protocol"], _SPLIT: split}}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise BenchError("what was planned of the study cannot be read; run the study again") from None
