"""Trial records, read for a table: chosen by method, and placed in a grid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import BenchError, unknown
from bench.metrics.registry import TITLES
from bench.report.tables.model import LEAKED
from bench.report.tables.naming import Identity, Name, flat, unique_names
from bench.store.record import AnyRecord, Record, as_records
from bench.tools.groups import group

_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class TableRecord:
    """A record with the identities that decide on its place in a table."""

    record: Record
    dataset: Identity
    protocol: Identity
    method: Identity


def read(records: Iterable[AnyRecord]) -> list[TableRecord]:
    """The records for a table; of several with one key the last ``ok`` one, or the last that ran.

    Raises:
        BenchError: one of them is no trial record.
    """
    found: dict[str | int, Record] = {}
    for number, record in enumerate(as_records(records)):
        known = found.get(record.key or number)
        if known is None or _weight(record) >= _weight(known):
            found[record.key or number] = record
    identities = _Identities()
    return [identities.of(record) for record in found.values()]


def _weight(record: Record) -> int:
    return {"ok": 2, "missing": 0}.get(record.status, 1)


class _Identities:
    """The identities of all records. Thousands of records share a few, which are made once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Identity] = {}

    def of(self, record: Record) -> TableRecord:
        return TableRecord(record, self._dataset(record), self._protocol(record), self._method(record))

    def _dataset(self, record: Record) -> Identity:
        dataset = record.dataset
        title = f"{dataset.title} (subset)" if dataset.subset else dataset.title
        key = (dataset.label, title, dataset.version, dataset.fingerprint)
        if key not in self._known:
            self._known[key] = Identity.of(
                dataset.label, title, version=dataset.version, fingerprint=dataset.fingerprint
            )
        return self._known[key]

    def _protocol(self, record: Record) -> Identity:
        protocol = record.protocol
        # repr is quicker than canonical JSON, and distinguishes at least as much.
        key = (protocol.label, protocol.title, repr(protocol.config), repr(protocol.source))
        if key not in self._known:
            source = None if protocol.source is None else protocol.source.identity
            self._known[key] = Identity.of(protocol.label, protocol.title, config=protocol.config, source=source)
        return self._known[key]

    def _method(self, record: Record) -> Identity:
        method = record.method
        encoders = tuple(record.encoders.items())
        key = (method.label, method.title, method.version, repr(method.config), encoders, record.prompts)
        if key not in self._known:
            identity = Identity.of(
                method.label,
                method.title,
                version=method.version,
                config=method.config,
                encoders={role: encoder.identity for role, encoder in encoders},
            )
            # Prompts are not in the fingerprint: they may have one hash per category.
            properties = {**identity.properties, "prompts": record.prompts}
            self._known[key] = replace(identity, properties=properties)
        return self._known[key]


def one_line(text: str) -> str:
    """``text`` without line breaks and full stop, cut off where it is very long."""
    text = " ".join(str(text).split()).removesuffix(".")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1].rstrip() + "…"


def check_names(entries: Sequence[TableRecord], metrics: Sequence[str], protocol: str) -> None:
    """Refuse a metric or metric protocol that no record has."""
    protocols = {name for entry in entries for name in entry.record.blocks}
    # Without any finished trial nothing is known to be wrong with the name.
    if protocols and protocol not in protocols:
        error = unknown("metric protocol", protocol, protocols)
        raise BenchError(f"{error} bench rescore --metric-protocol NAME adds another to a study that was run.")
    known = {*TITLES}
    for entry in entries:
        if protocol in entry.record.blocks:
            known |= entry.record.blocks[protocol].values.keys()
    for metric in metrics:
        if metric not in known:
            raise unknown("metric", metric, known)


def choose(entries: Sequence[TableRecord], methods: Sequence[str]) -> list[TableRecord]:
    """The entries of ``methods``, in their order: by label, or by name where no label is the same."""
    names = {entry.method.label: entry.record.method.name for entry in entries}
    order: dict[str, int] = {}
    for method in methods:
        # A label wins over a name: clip may mean one variant, or all.
        found = [method] if method in names else sorted(label for label, name in names.items() if name == method)
        if not found:
            raise unknown("method", method, {*names, *names.values()}, "among the records")
        for label in found:
            order.setdefault(label, len(order))
    return sorted((e for e in entries if e.method.label in order), key=lambda e: order[e.method.label])


class Grid:
    """The records of one dataset and protocol by method, category, shots and seed.

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
        self, entries: Sequence[TableRecord], categories: Iterable[str] = (), shots: Iterable[int] = ()
    ) -> None:
        self.entries = _separate_prompts(entries)
        self.categories = list(dict.fromkeys([*categories, *sorted({e.record.category for e in entries})]))
        self.of_method = group(self.entries, lambda e: e.method)
        self.names: Mapping[Identity, Name] = self._marked(unique_names(self.of_method))
        learned = {*shots, *(e.record.shots for e in entries if e.record.shots is not None)}
        self.shots: list[int | None] = [*sorted(learned)] or [None]
        drawn = {(e.record.shots, e.record.seed) for e in entries if e.record.seed is not None}
        self.seeds: dict[int | None, list[int]] = {}
        for number in self.shots:
            # A method that does not learn from shots has its seeds at every number of them.
            seeds = {seed for own, seed in drawn if seed is not None and own in (None, number)}
            self.seeds[number] = sorted(seeds)
        self._at: dict[tuple[Identity, str, int | None], dict[int | None, TableRecord]] = {}
        for entry in self.entries:
            record = entry.record
            cell = self._at.setdefault((entry.method, record.category, record.shots), {})
            known = cell.get(record.seed)
            if known is None or known.record.status == "missing":
                cell[record.seed] = entry
            elif record.status != "missing":
                raise _contradiction(known, entry)

    def _marked(self, names: Mapping[Identity, Name]) -> dict[Identity, Name]:
        """The names; the head says, wherever it is printed, if weights have learned from the data tested on."""
        marked = {}
        for method, name in names.items():
            leaked = any(entry.record.leak for entry in self.of_method[method])
            marked[method] = name
            if leaked:
                marked[method] = Name(f"{name.label} {LEAKED}", f"{name.head} {LEAKED}")
        return marked

    def find(self, method: Identity, category: str, shots: int | None) -> dict[int | None, TableRecord]:
        """Seed -> record; a method without labelled anomalies has its records at every number of shots."""
        return {**self._at.get((method, category, None), {}), **self._at.get((method, category, shots), {})}

    def seedless(self, method: Identity) -> bool:
        """True if no record of the method has a seed."""
        return all(entry.record.seed is None for entry in self.of_method[method])


def _separate_prompts(entries: Sequence[TableRecord]) -> list[TableRecord]:
    """Give records made with different prompt files columns of their own.

    A category whose prompts changed shows that several files were in use. If the hash is one per file, it
    tells the columns apart; if it is one per category, records of different categories cannot be matched.
    """
    result: list[TableRecord] = []
    for method, same in group(entries, lambda e: e.method).items():
        hashes: dict[str, set[str]] = {}  # of the prompts, by category
        for e in same:
            found = hashes.setdefault(e.record.category, set())
            if e.record.prompts:
                found.add(e.record.prompts)
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
            fingerprint = f"{method.fingerprint} prompts {e.record.prompts}"
            result.append(replace(e, method=replace(e.method, fingerprint=fingerprint)))
    return result


def _contradiction(one: TableRecord, other: TableRecord) -> BenchError:
    a, b = flat(one.record.description), flat(other.record.description)
    pairs = []
    for name in sorted({*a, *b}):
        if a.get(name) != b.get(name):
            pairs.append(f"{name}: {(a.get(name) or 'none')[:12]} and {(b.get(name) or 'none')[:12]}")
    record = one.record
    where = f"{record.method.label} on {record.category}"
    where += "" if record.shots is None else f", {record.shots}-shot"
    where += "" if record.seed is None else f", seed {record.seed}"
    return BenchError(
        f"{where}: two records cannot share a cell; they differ in {'; '.join(pairs) or 'their keys alone'} "
        f"(trials {record.key[:12]} and {other.record.key[:12]}). Make the table from the trials of one study, or "
        "delete the records of the older one."
    )
