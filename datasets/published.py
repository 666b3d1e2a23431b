"""Published datasets: what is there, held against the official counts in a dataset's traits."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from bench.contracts import GOOD, Counts, DatasetTraits, Finding, Prompts, Sample
from bench.datasets.layout import CategoryConfig, FileDataset, Tree, subset_note


class PublishedDataset(FileDataset):
    """A dataset with official counts (``traits.counts`` by category, or ``traits.files`` of the whole).

    A part of it is noted, category by category; nothing of that is an error.
    """

    traits: ClassVar[DatasetTraits]
    Config: ClassVar[type[Any]] = CategoryConfig
    types_are_official: ClassVar[bool] = False  # an anomaly type that the counts do not name is an error

    @abstractmethod
    def _list(self) -> Tree:
        """The images that are there, and what is wrong with the files."""

    def _read(self) -> Tree:
        tree = self._list()
        return Tree(tree.samples, (*tree.findings, *self._against_official(tree.samples)))

    def _official(self) -> Mapping[str, Counts]:
        """Official counts under the options chosen; read after the files."""
        return self.traits.counts

    def _found_files(self, samples: tuple[Sample, ...]) -> Mapping[str, int]:
        """The numbers of what is there, by the kinds of ``traits.files``."""
        anomalous = sum(sample.anomalous for sample in samples)
        tested = [sample for sample in samples if sample.split == "test"]
        tested_anomalous = sum(sample.anomalous for sample in tested)
        return {
            "images": len(samples),
            "normal images": len(samples) - anomalous,
            "anomalous images": anomalous,
            "training images": len(samples) - len(tested),
            "normal test images": len(tested) - tested_anomalous,
            "anomalous test images": tested_anomalous,
        }

    def subset(self) -> str:
        """The numbers of images that differ from the official ones, in words; empty if none does."""
        return self._difference(self.samples())

    def _difference(self, samples: tuple[Sample, ...]) -> str:
        official, files = self._official(), self.traits.files
        if not official:
            found = self._found_files(samples)
            return subset_note((kind, found[kind], number) for kind, number in files.items())
        # The total may be right where the categories are not: 1 more here, 1 fewer there.
        differing = [category for category, found in self._count(samples).items() if self._parts(category, found)]
        train = sum(sample.split == "train" for sample in samples)
        categories = len({sample.category for sample in samples})
        said = subset_note(
            [
                ("categories", categories, len(official)),
                ("training images", train, sum(each.train + each.train_anomalous for each in official.values())),
                (
                    "test images",
                    len(samples) - train,
                    sum(each.normal + each.anomalous for each in official.values()),
                ),
            ]
        )
        return said or (f"other images than the official ones of {', '.join(differing)}" if differing else "")

    def _count(self, samples: tuple[Sample, ...]) -> dict[str, Counter[tuple[str, str]]]:
        """Category -> (split, type) -> images."""
        counts: dict[str, Counter[tuple[str, str]]] = {}
        for sample in samples:
            counts.setdefault(sample.category, Counter())[sample.split, sample.type] += 1
        return counts

    def _parts(self, category: str, found: Counter[tuple[str, str]]) -> str:
        """The parts of a category with other numbers than the official ones, in words."""
        official = self._official().get(category)
        if official is None:
            return "it is no official category"
        parts = [
            ("train/good", found["train", GOOD], official.train),
            (
                "anomalous training images",
                sum(number for (split, type_), number in found.items() if split == "train" and type_ != GOOD),
                official.train_anomalous,
            ),
            ("test/good", found["test", GOOD], official.normal),
        ]
        if "" in official.types:
            anomalous = sum(n for (split, type_), n in found.items() if split == "test" and type_ != GOOD)
            parts.append(("anomalous test images", anomalous, official.anomalous))
        else:
            parts += [(f"test/{name}", found["test", name], number) for name, number in official.types.items()]
        return subset_note(parts)

    def _against_official(self, samples: tuple[Sample, ...]) -> list[Finding]:
        """Differences of the files from the official dataset: a subset is noted, see ``types_are_official``."""
        official = self._official()
        if not official:
            difference = self._difference(samples) if samples else ""
            return [Finding("note", ".", f"not the official files: {difference}")] if difference else []
        findings = []
        counts = self._count(samples)
        if missing := [category for category in official if category not in counts]:
            message = f"a subset: {len(counts)} of {len(official)} categories; without {', '.join(missing)}"
            findings.append(Finding("note", ".", message))
        for category, found in counts.items():
            if difference := self._parts(category, found):
                findings.append(Finding("note", category, f"not the official images: {difference}"))
            types = official[category].types if category in official else {"": 0}
            if "" in types:
                continue
            level = "error" if self.types_are_official else "note"
            findings += [
                Finding(
                    level,  # type: ignore[arg-type]  # one of the two words
                    f"{category}/test/{name}",
                    f"not an anomaly type of {category} in {self.traits.title}; its types are {', '.join(types)}",
                )
                for split, name in sorted(found)
                if split == "test" and name != GOOD and name not in types
            ]
        return findings

    @functools.cached_property
    def _categories(self) -> tuple[str, ...]:
        return tuple(self.traits.counts) or tuple(sorted({sample.category for sample in self.samples()}))

    def prompts(self) -> Mapping[str, Prompts]:
        """The shipped prompts of the dataset's categories; those made from a name for one that has none."""
        from bench.data.prompts import FILE, default_prompts, read_prompt_file

        shipped = read_prompt_file(FILE).get(self.name, {})
        return {name: shipped.get(name) or default_prompts(name) for name in self._categories}
