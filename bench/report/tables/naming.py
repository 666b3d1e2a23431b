"""What datasets, protocols and methods are called in a table, and what tells two of one name apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from bench.tools.groups import group
from bench.tools.hashes import canonical_json
from bench.tools.spec import Spec, parse_spec

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Thing:
    """A dataset, a protocol or a method. Those with one label and identity are the same.

    Attributes:
        label: its spec.
        identity: everything else that keeps its numbers apart from others, as text.
        title: as printed.
        properties: what may tell it from others with its label.
    """

    label: str
    identity: str
    title: str = field(compare=False)
    properties: Mapping[str, Any] = field(compare=False)

    @classmethod
    def of(cls, label: str, title: str | None, **properties: Any) -> Thing:
        """The thing whose identity is its properties."""
        return cls(str(label), canonical_json(properties), str(title or label), properties)


class Name(NamedTuple):
    """What a thing is called in a table; no other thing of its kind has either."""

    label: str
    head: str


def unique_names(things: Iterable[Thing]) -> dict[Thing, Name]:
    """The names of all things of one kind.

    Those with one title get the options that set them apart behind it, and those with one label the
    properties.
    """
    found = list(dict.fromkeys(things))
    heads = _heads(found)
    names = {}
    for label, same in group(found, lambda thing: thing.label).items():
        for thing, difference in zip(same, _differences([t.properties for t in same]), strict=True):
            suffix = f" ({difference})" if len(same) > 1 else ""
            names[thing] = Name(label + suffix, heads[label, thing.title] + suffix)
    return names


def _heads(things: Iterable[Thing]) -> dict[tuple[str, str], str]:
    """Label and title -> the title with those of the label's options that not all labels of the title share."""
    heads: dict[tuple[str, str], str] = {}
    for title, pairs in group({(t.label, t.title) for t in things}, lambda pair: pair[1]).items():
        options = {label: set(parse_spec(label).options.items()) for label, _ in pairs}
        shared = set.intersection(*options.values())
        heads |= {(label, title): str(Spec(title, dict(own - shared))) for label, own in options.items()}
    times = Counter(heads.values())
    # methods of different names may have one title and no options that differ
    return {pair: head if times[head] == 1 else pair[0] for pair, head in heads.items()}


def _differences(things: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells each thing from the others, in a few words; hashes only where nothing else does."""
    flats = [flat(thing) for thing in things]
    names = sorted({name for each in flats for name in each})
    differing = [name for name in names if len({each.get(name) for each in flats}) > 1]
    without_hashes = [name for name in differing if not name.endswith("sha256")]
    for chosen in (without_hashes, differing):
        told = [", ".join(_say(name, each.get(name) or "none") for name in chosen) for each in flats]
        if len(set(told)) == len(told):
            return told
    return [f"{words} {number}".strip() for number, words in enumerate(told, 1)]


def _say(name: str, value: str) -> str:
    leaf = name.rpartition(".")[2]
    if leaf in ("name", "label", "title"):
        return value
    if leaf == "version":
        return f"version {value}"
    hashes = {"sha256": "weights", "fingerprint": "data", "prompts": "prompts"}
    return f"{hashes[leaf]} {value[:8]}" if leaf in hashes else f"{leaf}={value}"


def flat(value: Any, prefix: str = "") -> dict[str, str | None]:
    """The leaves of nested mappings as text: ``{"a": {"b": True}}`` gives ``{"a.b": "on"}``."""
    if isinstance(value, Mapping):
        items = (flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
        return {name: text for item in items for name, text in item.items()}
    if isinstance(value, bool):
        return {prefix: "on" if value else "off"}
    if isinstance(value, list | tuple):
        return {prefix: "+".join(str(item) for item in value)}
    return {prefix: None if value is None else str(value)}
