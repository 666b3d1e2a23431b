"""Several datasets as one to learn from: ``--train-dataset visa+clinicdb``.

Ids and categories bear the name of their dataset in front, ``visa/candle``, since two datasets may have categories
of one name. Prompts, and so the words that a method reads, are those of each dataset.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bench.contracts import Dataset, DatasetTraits, Finding, Prompts, Sample
from bench.data.catalogue import Catalogue
from bench.errors import BenchError
from bench.tools.hashes import HashBook


@dataclass(frozen=True)
class _NoOptions:
    """A union has none; its parts have theirs."""


class Union:
    """Several datasets as one (:class:`bench.contracts.Dataset`), not registered by any name."""

    def __init__(self, parts: Sequence[Catalogue]) -> None:
        self._parts = parts
        self.name, self.version = "+".join(part.dataset.name for part in parts), "1"
        self.Config, self.config = _NoOptions, _NoOptions()
        self.root: Path = parts[0].dataset.root  # never read: the parts have theirs
        traits = [part.dataset.traits for part in parts]
        self.traits = DatasetTraits(
            title=" + ".join(each.title for each in traits),
            source="; ".join(each.source for each in traits),
            needs_root=any(each.needs_root for each in traits),
            note=" ".join(each.note for each in traits if each.note),
            all_masked=all(each.all_masked for each in traits),
        )

    def samples(self) -> tuple[Sample, ...]:
        """All images of all parts, sorted by id."""
        found = []
        for part in self._parts:
            prefix = part.dataset.name
            for sample in part.samples.values():
                renamed = dataclasses.replace(
                    sample,
                    id=f"{prefix}/{sample.id}",
                    category=f"{prefix}/{sample.category}",
                    group=sample.group and f"{prefix}/{sample.group}",
                )
                found.append(renamed)
        return tuple(sorted(found))

    def check(self) -> list[Finding]:
        """Findings of all parts."""
        return [finding for part in self._parts for finding in part.dataset.check()]

    def prompts(self) -> Mapping[str, Prompts]:
        """Prompts of all parts, by the categories' names in the union."""
        found = {}
        for part in self._parts:
            for category, prompts in part.dataset.prompts().items():
                found[f"{part.dataset.name}/{category}"] = prompts
        return found


class UnionCatalogue(Catalogue):
    """A union, opened.

    Attributes:
        parts: the datasets that it is made of.

    Raises:
        BenchError: two of them have one name, or share an image.
    """

    def __init__(self, parts: Sequence[Catalogue], hashes: HashBook | None) -> None:
        names = [part.dataset.name for part in parts]
        if len(set(names)) < len(names):
            raise BenchError(f"{'+'.join(names)}: a dataset is named twice; name the categories of both in one")
        # The contract speaks of classes that are built from a root and options; this one is built from its parts.
        super().__init__(cast(Dataset, Union(parts)), hashes)
        self.parts = tuple(parts)
        self.label = "+".join(part.label for part in parts)
        first: dict[str, str] = {}
        for part in parts:
            # A dataset may hold an image twice; two datasets may disagree on what is anomalous in it.
            for id_, key in part.keys.items():
                if key in first and not first[key].startswith(f"{part.dataset.name}/"):
                    raise BenchError(
                        f"{part.dataset.name}/{id_} is {first[key]}: datasets that are learned from together must "
                        "share no image"
                    )
                first.setdefault(key, f"{part.dataset.name}/{id_}")


def parts_of(catalogue: Catalogue) -> tuple[Catalogue, ...]:
    """The datasets that a catalogue is made of, most often one."""
    return catalogue.parts if isinstance(catalogue, UnionCatalogue) else (catalogue,)
