"""Names of datasets, protocols and methods in a table, unique also where two share a label."""

from __future__ import annotations

import functools
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
class Identity:
    """A dataset, a protocol or a method; two with the same label and fingerprint are equal.

    Attributes:
        label: its spec.
        fingerprint: everything else that keeps its numbers apart from others, as text.
        title: as printed.
        properties: differences from others with the same label are looked for in these.
    """

    label: str
    fingerprint: str
    title: str = field(compare=False)
    properties: Mapping[str, Any] = field(compare=False)

    @functools.cached_property
    def spec(self) -> Spec:
        """The name and the non-default options, as the label has them."""
        return parse_spec(self.label)

    @classmethod
    def of(cls, label: str, title: str, **properties: Any) -> Identity:
        """The identity with the properties as its fingerprint."""
        return cls(label, canonical_json(properties), title, properties)


class Name(NamedTuple):
    """Label and printed head of an identity in one table; no other of its kind has either."""

    label: str
    head: str


def unique_names(identities: Iterable[Identity]) -> dict[Identity, Name]:
    """The names of all identities of one kind.

    Those with one title get the options that set them apart behind it, and those with one label the
    properties.
    """
    found = list(dict.fromkeys(identities))
    heads = _heads(found)
    names = {}
    for label, same in group(found, lambda identity: identity.label).items():
        differences = _differences([identity.properties for identity in same])
        for identity, difference in zip(same, differences, strict=True):
            suffix = f" ({difference})" if len(same) > 1 else ""
            names[identity] = Name(label + suffix, heads[label, identity.title] + suffix)
    return names


def _heads(identities: Iterable[Identity]) -> dict[tuple[str, str], str]:
    """Label and title -> the title with those of the label's options that not all labels of the title share."""
    heads: dict[tuple[str, str], str] = {}
    for title, same in group(identities, lambda each: each.title).items():
        options = {each.label: set(each.spec.options.items()) for each in same}
        shared = set.intersection(*options.values())
        for label, own in options.items():
            heads[label, title] = str(Spec(title, dict(own - shared)))
    times = Counter(heads.values())
    # methods of different names may have one title and no options that differ
    return {pair: head if times[head] == 1 else pair[0] for pair, head in heads.items()}


def _differences(properties: Sequence[Mapping[str, Any]]) -> list[str]:
    """Differences of each from the others, in a few words; hashes only where nothing else differs."""
    flats = [flat(own) for own in properties]
    names = sorted({name for each in flats for name in each})
    differing = []
    for name in names:
        if len({each.get(name) for each in flats}) > 1:
            differing.append(name)
    without_hashes = [name for name in differing if not name.endswith("sha256")]
    for chosen in (without_hashes, differing):
        told = []
        for each in flats:
            told.append(", ".join(_say(name, each.get(name) or "none") for name in chosen))
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
        leaves: dict[str, str | None] = {}
        for key, inner in value.items():
            leaves |= flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return leaves
    if isinstance(value, bool):
        return {prefix: "on" if value else "off"}
    if isinstance(value, list | tuple):
        return {prefix: "+".join(str(item) for item in value)}
    return {prefix: None if value is None else str(value)}
