"""Auxiliary: learn from the labelled test parts of other datasets, as zero-shot methods of today do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from bench.contracts import Draw, LearnedImages, ProtocolTraits, SplitRequest
from bench.data.splits import ProtocolConfig, draw, drawn_normals, whole_test_part
from bench.errors import BenchError


@dataclass(frozen=True)
class AuxiliaryConfig(ProtocolConfig):
    """Options, beside ``k`` and ``k_source``.

    Attributes:
        part: the part of the other datasets that is learned from, with its normal images; ``test`` in the field,
            since a training part has no anomalies.
        anomalies: labelled anomalies per category, drawn anew for each seed; 0 for all of them.
        types: where some are drawn, from ``all`` types of a category, or from ``one`` as PromptAD does.
        seen: ``all`` categories; another choice would depend on the target.
    """

    types: Literal["one", "all"] = "all"
    part: Literal["test", "train", "all"] = "test"
    anomalies: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.anomalies < 0:
            raise ValueError("anomalies must not be negative; 0 takes all")
        if self.seen != "all":
            raise ValueError("auxiliary learns from all categories of the other datasets")
        if self.anomalies and self.part == "train":
            raise ValueError("anomalies are drawn from the test part; part=train takes all that are there")


class Auxiliary:
    """The protocol ``auxiliary``."""

    name: ClassVar[str] = "auxiliary"
    traits: ClassVar[ProtocolTraits] = ProtocolTraits(
        title="learn from auxiliary data",
        source="AnomalyCLIP (ICLR 2024); zqhang/AnomalyCLIP train.py",
        learns="the test part of other datasets: its normal images and all labelled anomalies with their masks",
        tests="the test part of each category",
        needs_source=True,
        shots=False,
        apart=True,
    )
    Config: ClassVar[type[Any]] = AuxiliaryConfig

    def __init__(self, config: AuxiliaryConfig) -> None:
        self.config = config

    def learned(self, request: SplitRequest) -> LearnedImages:
        """Normal and anomalous images of the chosen part of the source's categories.

        Raises:
            BenchError: the part has no image.
        """
        parts = ("train", "test") if self.config.part == "all" else (self.config.part,)
        source = request.source
        normal = [
            sample.id
            for category in source.categories
            for part in parts
            for sample in source.select(category, part, anomalous=False)
        ]
        anomalous: dict[str, Draw] = {}
        for category in source.categories if request.anomalies else ():
            if self.config.anomalies:
                anomalous[category] = draw(source, category, self.config.anomalies, request.seed, self.config)
                continue
            found = [sample for part in parts for sample in source.select(category, part, anomalous=True)]
            if found:
                types = tuple(sorted({sample.type for sample in found}))
                anomalous[category] = Draw(types, tuple(sample.id for sample in found))
        if not normal and not anomalous:
            kind = "image" if request.anomalies else "normal image"
            raise BenchError(f"{source.label} has no {kind} in its {self.config.part} part to learn from")
        return LearnedImages(tuple(normal), anomalous)

    def support(self, request: SplitRequest) -> tuple[str, ...]:
        """``k`` normal images of the target category."""
        return drawn_normals(request, self.config)

    def tested(self, request: SplitRequest, support: tuple[str, ...]) -> tuple[str, ...]:
        """The category's test part, without the support images that were taken from it."""
        return whole_test_part(request, support)

    @property
    def learned_in_words(self) -> str:
        """Words for what is learned from each seen category, for the notes of tables."""
        part = {"test": "test part", "train": "training part", "all": "training and test part"}[self.config.part]
        if not self.config.anomalies:
            return f"all labelled anomalies and normal images of the {part}"
        anomalies = "anomaly" if self.config.anomalies == 1 else "anomalies"
        return f"{self.config.anomalies} {anomalies} per seen category, and the normal images of the {part}"
