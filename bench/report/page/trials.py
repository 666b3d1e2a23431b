"""What a page shows of one record, and the environments that records share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Environment:
    """What several trials ran on.

    Attributes:
        number: from 1, in the order of the records.
        facts: name -> value, e.g. ``Python`` -> ``3.12.1``.
        versions: package -> version.
        first, last: when the first and the last of them finished; empty if no record says.
        trials: how many they are.
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
class Trial:
    """One record, ready to be shown.

    Attributes:
        key: the trial's key, and ``anchor``, the name of its place on the page.
        environment: number of its :class:`Environment`; None if the record names none.
        seconds: by part of the trial, with ``total``; empty if it did not come that far.
        reasons: why metrics are undefined, each once.
        record: the record itself, for what is shown as it stands there.
    """

    key: str
    status: str
    reason: str
    category: str
    method: str
    shots: int | None
    seed: int | None
    environment: int | None
    seconds: Mapping[str, float]
    reasons: tuple[str, ...]
    problems: tuple[str, ...]
    record: Mapping[str, Any]

    @property
    def anchor(self) -> str:
        return f"trial-{self.key}"

    @property
    def facts(self) -> dict[str, str]:
        """Name -> value of what identifies the trial and is not its place in the table."""
        trial = self.record["trial"]
        facts = {
            "Key": self.key,
            "Split manifest": trial["protocol"].get("manifest"),
            "Data fingerprint": trial["dataset"].get("fingerprint"),
            "Method version": trial["method"].get("version"),
            "Prompts": trial.get("prompts"),
        }
        for role, encoder in (trial.get("encoders") or {}).items():
            facts[f"{role.capitalize()} weights"] = f"{encoder.get('name')} · {encoder.get('sha256')}"
        return {name: str(value) for name, value in facts.items() if value}

    @property
    def provenance(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.record.get("provenance") or {}
        return found


_FACTS = {"bench": "bench", "revision": "Revision", "python": "Python", "platform": "Platform", "device": "Device"}


def read_trials(records: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Trial], list[Environment]]:
    """The trials by key, in the order of the records, and their environments."""
    trials, numbers, finished = {}, dict[tuple[Any, ...], int](), dict[int, list[str]]()
    for record in records:
        provenance = record.get("provenance") or {}
        number = None
        if place := _place(provenance):
            number = numbers.setdefault(place, len(numbers) + 1)
            finished.setdefault(number, []).append(str(provenance.get("finished") or ""))
        trials[str(record["key"])] = _trial(record, number)
    environments = []
    for (facts, versions), number in numbers.items():
        times = sorted(filter(None, finished[number])) or [""]
        count = len(finished[number])
        environments.append(Environment(number, dict(facts), dict(versions), times[0], times[-1], count))
    return trials, environments


def _place(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    facts = tuple((word, str(provenance[name])) for name, word in _FACTS.items() if provenance.get(name))
    versions = tuple(sorted((provenance.get("versions") or {}).items()))
    return (facts, versions) if facts or versions else ()


def _trial(record: Mapping[str, Any], environment: int | None) -> Trial:
    trial = record["trial"]
    blocks: Sequence[Mapping[str, Any]] = list((record.get("metrics") or {}).values())
    return Trial(
        key=str(record["key"]),
        status=str(record["status"]),
        reason=str(record.get("reason") or ""),
        category=str(trial["category"]),
        method=str(trial["method"]["label"]),
        shots=trial["shots"],
        seed=trial["seed"],
        environment=environment,
        seconds=(record.get("provenance") or {}).get("seconds") or {},
        reasons=_distinct(reason for block in blocks for reason in (block.get("reasons") or {}).values()),
        problems=_distinct(problem for block in blocks for problem in block.get("problems") or ()),
        record=record,
    )


def _distinct(texts: Iterable[Any]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(text) for text in texts))
