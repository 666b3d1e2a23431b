"""Verdicts on single numbers, and the ones that fail a check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Verdict = Literal["reproduced", "better", "worse", "undecided", "missing", "not comparable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


def turned(verdict: Verdict, direction: int) -> Verdict:
    """The verdict on a metric of which less is better (``direction`` -1), given as if more were."""
    if direction > 0:
        return verdict
    opposite: dict[Verdict, Verdict] = {"better": "worse", "worse": "better"}
    return opposite.get(verdict, verdict)


@dataclass(frozen=True)
class Result:
    """One expected number, and what was measured.

    Attributes:
        against: ``pinned``, or the paper and the place in it.
        dataset, method: labels.
        category, shots, seed: of the cell or the trial; None where there is none.
        metric, metric_protocol: of the number.
        verdict: of the comparison.
        fails: True if it fails the check.
        expected, measured: the two numbers, fractions; None if there is none.
        reason: the way they were compared, or why they were not.
    """

    against: str
    dataset: str
    method: str
    category: str
    shots: int | None
    seed: int | None
    metric: str
    metric_protocol: str
    verdict: Verdict
    fails: bool
    expected: float | None = None
    measured: float | None = None
    reason: str = ""

    @property
    def difference(self) -> float | None:
        """Measured less expected."""
        if self.expected is None or self.measured is None:
            return None
        return self.measured - self.expected

    @property
    def title(self) -> str:
        """The address of the number, in words."""
        parts = [self.method, self.dataset, self.category]
        parts += [f"{self.shots}-shot"] if self.shots is not None else []
        parts += [f"seed {self.seed}"] if self.seed is not None else []
        title = ", ".join(parts)
        if self.metric:
            title += f": {self.metric}"
        return title if self.metric_protocol in ("", "exact") else f"{title} ({self.metric_protocol})"


@dataclass(frozen=True)
class Check:
    """All results of one check.

    Attributes:
        study: the one that was checked.
        results: in the order of their references.
        notes: on the check as a whole.
    """

    study: str
    results: tuple[Result, ...]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.fails)

    @property
    def exit_code(self) -> int:
        """0: all is as expected; 1: something is not; 3: not one number could be compared."""
        if self.failures:
            return 1
        compared = {"reproduced", "better", "worse", "undecided"}
        return 0 if any(result.verdict in compared for result in self.results) else 3


def counts(results: Iterable[Result]) -> str:
    """The number of each verdict as text: ``12 reproduced, 1 worse``."""
    found = Counter(result.verdict for result in results)
    return ", ".join(f"{found[verdict]} {verdict}" for verdict in VERDICTS if found[verdict]) or "nothing"
