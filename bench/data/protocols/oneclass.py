"""One class: the ordinary unsupervised setting, with which the field began and which is not zero-shot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import LearnedImages, ProtocolTraits, SplitRequest
from bench.data.splits import ProtocolConfig, whole_test_part


@dataclass(frozen=True)
class OneClassConfig(ProtocolConfig):
    """No options. The inherited fields keep their defaults: the keys of trials are made of all of them."""

    def __post_init__(self) -> None:
        if any(getattr(self, name) != value for name, value in vars(ProtocolConfig()).items()):
            raise ValueError(
                "oneclass has no options: it gives every training normal of the target and nothing else"
            )


class OneClass:
    """The protocol ``oneclass``."""

    name: ClassVar[str] = "oneclass"
    traits: ClassVar[ProtocolTraits] = ProtocolTraits(
        title="one class",
        source="MVTec AD (CVPR 2019), section 4",
        learns="nothing but all training normals of the target category, given as support images",
        tests="the test part of the category",
        zero_shot=False,
    )
    Config: ClassVar[type[Any]] = OneClassConfig

    def __init__(self, config: OneClassConfig) -> None:
        self.config = config

    def learned(self, request: SplitRequest) -> LearnedImages:
        """Nothing: there are no seen categories."""
        return LearnedImages((), {})

    def support(self, request: SplitRequest) -> tuple[str, ...]:
        """All training normals of the target category."""
        return tuple(s.id for s in request.target.select(request.category, "train", anomalous=False))

    def tested(self, request: SplitRequest, support: tuple[str, ...]) -> tuple[str, ...]:
        """The category's test part."""
        return whole_test_part(request, support)
