"""Trials as a page shows them, and the environments that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.store.record import AnyRecord, Provenance, Record, as_records


@dataclass(frozen=True)
class Environment:
    """The machine and the versions that several trials ran on.

    Attributes:
        number: from 1, in the order of the records.
        facts: name -> value, e.g. ``Python`` -> ``3.12.1``.
        versions: package -> version.
        first, last: when the first and the last of them finished; empty if no record says.
        trials: their number.
    """

    number: int
    facts: Mapping[str, str]
    versions: Mapping[str, str]
    first: str
    last: str
    trials: int

    @property
    def line(self) -> str:
        """All of it on one line."""
        return ", ".join(f"{name} {value}" for name, value in {**self.facts, **self.versions}.items())


@dataclass(frozen=True)
class PageTrial:
    """One trial, ready to be shown.

    Attributes:
        record: of the trial.
        environment: number of its :class:`Environment`; None if the record names none.
    """

    record: Record
    environment: int | None

    @property
    def anchor(self) -> str:
        """The id of its place on the page."""
        return f"trial-{self.record.key}"

    @property
    def facts(self) -> dict[str, str]:
        """Name -> value of everything that identifies the trial beyond its cell in the table."""
        record = self.record
        facts = {
            "Key": record.key,
            "Split manifest": record.protocol.manifest,
            "Data fingerprint": record.dataset.fingerprint,
            "Method version": record.method.version,
            "Prompts": record.prompts,
        }
        for role, encoder in record.encoders.items():
            facts[f"{role.capitalize()} weights"] = f"{encoder.name} · {encoder.sha256}"
        return {name: value for name, value in facts.items() if value}

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons why metrics are undefined, each once."""
        return _distinct(
            reason for block in self.record.stored_blocks.values() for reason in block.reasons.values()
        )

    @property
    def problems(self) -> tuple[str, ...]:
        """The problems that the metrics' guards found, each once."""
        return _distinct(problem for block in self.record.stored_blocks.values() for problem in block.problems)


def read_trials(records: Iterable[AnyRecord]) -> tuple[dict[str, PageTrial], list[Environment]]:
    """The trials by key, in the order of the records, and their environments."""
    trials: dict[str, PageTrial] = {}
    ran_on: dict[_Versions, list[Record]] = {}  # in the order of their numbers
    for record in as_records(records):
        versions = _versions(record.provenance)
        number = None
        if any(versions):
            ran_on.setdefault(versions, []).append(record)
            number = list(ran_on).index(versions) + 1
        trials[record.key] = PageTrial(record, number)
    environments = []
    for number, ((facts, packages), own) in enumerate(ran_on.items(), 1):
        finished = sorted(record.provenance.finished for record in own if record.provenance.finished) or [""]
        environments.append(Environment(number, dict(facts), dict(packages), finished[0], finished[-1], len(own)))
    return trials, environments


_Pairs = tuple[tuple[str, str], ...]
_Versions = tuple[_Pairs, _Pairs]


def _versions(provenance: Provenance) -> _Versions:
    """The facts and the packages' versions that tell one environment from another."""
    facts = {
        "bench": provenance.bench,
        "Revision": provenance.revision,
        "Python": provenance.python,
        "Platform": provenance.platform,
        "Device": provenance.device,
    }
    known = tuple((name, value) for name, value in facts.items() if value)
    return known, tuple(sorted(provenance.versions.items()))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(str, texts)))
