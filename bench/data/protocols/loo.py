"""Leave one category out: learn from every other category of the dataset (PromptAD, section 4.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from bench.contracts import LearnedImages, ProtocolTraits, SplitRequest
from bench.data.splits import ProtocolConfig, drawn_normals, drawn_training, whole_test_part
from bench.errors import BenchError


class LeaveOneOut:
    """The protocol ``loo``."""

    name: ClassVar[str] = "loo"
    traits: ClassVar[ProtocolTraits] = ProtocolTraits(
        title="leave one category out",
        source="PromptAD (WACV 2024), section 4.1",
        learns="every other category of the dataset: training normals and K labelled anomalies of each",
        tests="the test part of the category that was left out",
    )
    Config: ClassVar[type[Any]] = ProtocolConfig

    def __init__(self, config: ProtocolConfig) -> None:
        self.config = config

    def learned(self, request: SplitRequest) -> LearnedImages:
        """Normals and labelled anomalies of the other categories.

        Raises:
            BenchError: the dataset has no other category.
        """
        seen = tuple(category for category in request.target.categories if category != request.category)
        if not seen:
            raise BenchError(
                f"{request.target.label} has no category but {request.category!r}, so there is nothing to learn "
                "from; leave-one-category-out needs two or more. Learn from another dataset (--protocol auxiliary "
                "or --protocol transfer, with --train-dataset NAME), use methods that are not trained "
                "(--methods clip,winclip), or score the images alone (bench predict)"
            )
        return drawn_training(request, seen, self.config)

    def support(self, request: SplitRequest) -> tuple[str, ...]:
        """``k`` normal images of the target category."""
        return drawn_normals(request, self.config)

    def tested(self, request: SplitRequest, support: tuple[str, ...]) -> tuple[str, ...]:
        """The category's test part, without the support images that were taken from it."""
        return whole_test_part(request, support)
