"""Transfer: learn from all categories of another dataset (PromptAD, section 4.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from bench.contracts import LearnedImages, ProtocolTraits, SplitRequest
from bench.data.splits import ProtocolConfig, drawn_normals, drawn_training, whole_test_part


class Transfer:
    """The protocol ``transfer``."""

    name: ClassVar[str] = "transfer"
    traits: ClassVar[ProtocolTraits] = ProtocolTraits(
        title="transfer from another dataset",
        source="PromptAD (WACV 2024), section 4.1",
        learns="all categories of another dataset: training normals and K labelled anomalies of each",
        tests="the test part of each category",
        needs_source=True,
    )
    Config: ClassVar[type[Any]] = ProtocolConfig

    def __init__(self, config: ProtocolConfig) -> None:
        self.config = config

    def learned(self, request: SplitRequest) -> LearnedImages:
        """Normals and labelled anomalies of the source's categories."""
        return drawn_training(request, request.source.categories, self.config)

    def support(self, request: SplitRequest) -> tuple[str, ...]:
        """``k`` normal images of the target category."""
        return drawn_normals(request, self.config)

    def tested(self, request: SplitRequest, support: tuple[str, ...]) -> tuple[str, ...]:
        """The category's test part, without the support images that were taken from it."""
        return whole_test_part(request, support)
