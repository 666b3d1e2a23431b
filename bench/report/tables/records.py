"""Trial records, read for a table: checked, chosen by method, and placed in a grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench.errors import BenchError, unknown
from bench.metrics.blocks import readable
from bench.report.tables.model import METRICS, Status
from bench.report.tables.naming import Name, Thing, flat, unique_names
from bench.tools.groups import group
from bench.tools.text import as_numbers, as_whole

_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with what decides where it belongs."""

    key: str
    status: Status
    reason: str
    dataset: Thing
    protocol: Thing
    method: Thing
    category: str
    shots: int | None
    seed: int | None
    trial: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, Any] = field(repr=False)


def read(records: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """The records; of several with one key the last ``ok`` one, or the last that ran.

    Raises:
        BenchError: one of them is no trial record.
    """
    entries: dict[str | int, Entry] = {}
    things = _Things()
    for number, record in enumerate(records):
        try:
            entry = _entry(record, things)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            key = str(record.get("key", f"number {number}"))[:12] if isinstance(record, Mapping) else number
            raise BenchError(f"record {key} is not a trial record: {error!r}; run the study again") from None
        known = entries.get(entry.key or number)
        if known is None or _weight(entry) >= _weight(known):
            entries[entry.key or number] = entry
    return list(entries.values())


def checked(records: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The records as they are, seen to be such.

    Raises:
        BenchError: see :func:`read`.
    """
    every = [dict(record) for record in records]
    read(every)
    return every


def _weight(entry: Entry) -> int:
    return {"ok": 2, "missing": 0}.get(entry.status, 1)


class _Things:
    """The things of all records. Thousands of records describe the same few, which are made once."""

    def __init__(self) -> None:
        self._known: dict[str, Thing] = {}

    def of(self, label: str, title: str | None, prompts: str | None = None, **properties: Any) -> Thing:
        """As :meth:`Thing.of`; the prompts are no part of the identity: they may have one hash per category."""
        said = repr((label, title, prompts, properties))
        if said not in self._known:
            thing = Thing.of(label, title, **properties)
            self._known[said] = replace(thing, properties={**properties, "prompts": prompts})
        return self._known[said]


def _entry(record: Mapping[str, Any], things: _Things) -> Entry:
    trial = record["trial"]
    method, dataset, protocol = trial["method"], trial["dataset"], trial["protocol"]
    status = record["status"]
    if not isinstance(record.get("provenance") or {}, Mapping):
        raise TypeError("its provenance is no mapping")
    if status not in ("ok", "failed", "skipped", "missing"):
        raise KeyError(f"status {status}")
    return Entry(
        key=str(record.get("key") or ""),
        status=status,
        reason=one_line(record.get("reason") or ""),
        dataset=things.of(
            dataset["label"],
            dataset.get("title"),
            version=dataset.get("version"),
            fingerprint=dataset.get("fingerprint"),
        ),
        protocol=things.of(
            protocol["label"],
            _protocol_title(protocol),
            config=protocol.get("config"),
            source=protocol.get("source"),
        ),
        method=things.of(
            method["label"],
            method.get("title"),
            trial.get("prompts"),
            version=method.get("version"),
            config=method.get("config"),
            encoders=trial.get("encoders"),
        ),
        category=str(trial["category"]),
        shots=as_whole(trial["shots"]),
        seed=as_whole(trial["seed"]),
        trial=trial,
        metrics=_numbers(readable(record.get("metrics") or {})),
    )


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: {**block, "values": as_numbers(block["values"])} for name, block in metrics.items()}


def _protocol_title(protocol: Mapping[str, Any]) -> str:
    title = str(protocol.get("title") or protocol["label"])
    source = protocol.get("source") or {}
    name = source.get("title") or source.get("label") or source.get("name")
    return f"{title} from {name}" if name else title


def one_line(text: str) -> str:
    """``text`` without line breaks and full stop, cut off where it is very long."""
    text = " ".join(str(text).split()).removesuffix(".")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1].rstrip() + "…"


def check_names(entries: Sequence[Entry], metrics: Sequence[str], protocol: str) -> None:
    """Refuse a metric or metric protocol that no record has."""
    protocols = {name for entry in entries for name in entry.metrics}
    if protocols and protocol not in protocols:
        error = unknown("metric protocol", protocol, protocols)
        raise BenchError(f"{error} bench rescore --metric-protocol NAME adds another to a study that was run.")
    blocks = (entry.metrics.get(protocol, {}) for entry in entries)
    known = {*METRICS, *(name for block in blocks for name in block.get("values", ()))}
    for metric in metrics:
        if metric not in known:
            raise unknown("metric", metric, known)


def choose(entries: Sequence[Entry], methods: Sequence[str]) -> list[Entry]:
    """The entries of ``methods``, in their order: by label, or by name where no label is the same."""
    names = {entry.method.label: str(entry.trial["method"].get("name", "")) for entry in entries}
    order: dict[str, int] = {}
    for method in methods:
        found = [method] if method in names else sorted(label for label, name in names.items() if name == method)
        if not found:
            raise unknown("method", method, {*names, *names.values()}, "among the records")
        for label in found:
            order.setdefault(label, len(order))
    return sorted((e for e in entries if e.method.label in order), key=lambda e: order[e.method.label])


class Grid:
    """Which record belongs where, for one dataset and protocol.

    Attributes:
        entries: the records.
        categories: sorted.
        of_method: the records of each method, in the order of the records.
        names: label and head of each method; no other method of the grid has either.
        shots: sorted; None alone if no method learns.
        seeds: of each number of shots, sorted.

    Args:
        entries: the records.
        categories: that should be there, if there are no records of them, and first, in their order.
        shots: that should be there.
    """

    def __init__(
        self, entries: Sequence[Entry], categories: Iterable[str] = (), shots: Iterable[int] = ()
    ) -> None:
        self.entries = _separate_prompts(entries)
        self.categories = list(dict.fromkeys([*categories, *sorted({entry.category for entry in entries})]))
        self.of_method = group(self.entries, lambda e: e.method)
        self.names: Mapping[Thing, Name] = unique_names(self.of_method)
        learned = {*shots, *(e.shots for e in entries if e.shots is not None)}
        self.shots: list[int | None] = [*sorted(learned)] or [None]
        self.seeds = {
            shots: sorted({e.seed for e in entries if e.seed is not None and e.shots in (None, shots)})
            for shots in self.shots
        }
        self._at: dict[tuple[Thing, str, int | None], dict[int | None, Entry]] = {}
        for entry in self.entries:
            cell = self._at.setdefault((entry.method, entry.category, entry.shots), {})
            known = cell.get(entry.seed)
            if known is None or known.status == "missing":
                cell[entry.seed] = entry
            elif entry.status != "missing":
                raise _contradiction(known, entry)

    def find(self, method: Thing, category: str, shots: int | None) -> dict[int | None, Entry]:
        """Seed -> record; a method without labelled anomalies has its records at every number of shots."""
        return {**self._at.get((method, category, None), {}), **self._at.get((method, category, shots), {})}

    def seedless(self, method: Thing) -> bool:
        """Whether no record of the method has a seed."""
        return all(entry.seed is None for entry in self.of_method[method])


def _separate_prompts(entries: Sequence[Entry]) -> list[Entry]:
    """Give records made with different prompt files columns of their own.

    A category whose prompts changed shows that several files were in use. If the hash is one per file, it
    tells the columns apart; if it is one per category, records of different categories cannot be matched.
    """
    result: list[Entry] = []
    for method, same in group(entries, lambda e: e.method).items():
        hashes = {
            category: {prompts for e in own if (prompts := e.trial.get("prompts"))}
            for category, own in group(same, lambda e: e.category).items()
        }
        changed = [category for category, found in hashes.items() if len(found) > 1]
        if not changed:
            result += same
            continue
        if max(map(len, hashes.values())) < len(set().union(*hashes.values())):
            raise BenchError(
                f"{method.label} on {changed[0]}: there are records made with different prompts; make the "
                "table from the trials of one study, or delete the records of the other prompts"
            )
        for e in same:
            identity = f"{method.identity} prompts {e.trial.get('prompts')}"
            result.append(replace(e, method=replace(e.method, identity=identity)))
    return result


def _contradiction(one: Entry, other: Entry) -> BenchError:
    a, b = flat(one.trial), flat(other.trial)
    differ = sorted(name for name in {*a, *b} if a.get(name) != b.get(name))
    pairs = (f"{n}: {(a.get(n) or 'none')[:12]} and {(b.get(n) or 'none')[:12]}" for n in differ)
    where = f"{one.method.label} on {one.category}"
    where += "" if one.shots is None else f", {one.shots}-shot"
    where += "" if one.seed is None else f", seed {one.seed}"
    return BenchError(
        f"{where}: two records cannot share a cell; they differ in {'; '.join(pairs) or 'their keys alone'} "
        f"(trials {one.key[:12]} and {other.key[:12]}). Make the table from the trials of one study, or "
        "delete the records of the older one."
    )
