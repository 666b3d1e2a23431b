"""Signs that scores are no measurement: each check returns what is wrong in words, or None.

A ranking metric turns anything into a number: a constant map into 0.5, a clipped one into something
plausible. The guards say so. What to do about it (fail the trial, mark the table) is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ONE_CLASS = "one class only"  # how the words begin for data that hold one class alone

# Scores pile up at an end of their range when more than this share of them ties there.
MAJORITY = 0.5
# Or, at the upper end, when more than this share of the (anomalous, normal) pairs that a metric ranks ties
# there: the metric counts such a pair as half right, so it may be off by half of this either way.
TIED_PAIRS = 0.1


@dataclass(frozen=True)
class Extent:
    """Range of the finite scores of some maps.

    Attributes:
        maps: how many there are.
        flat: how many are one value throughout.
        lowest: the smallest score of all; inf without any map.
        highest: the largest; -inf likewise.
    """

    maps: int = 0
    flat: int = 0
    lowest: float = np.inf
    highest: float = -np.inf

    @property
    def one_value(self) -> bool:
        """True if every score of every map is the same."""
        return self.lowest == self.highest

    def plus(self, other: Extent) -> Extent:
        """Of both together."""
        lowest, highest = min(self.lowest, other.lowest), max(self.highest, other.highest)
        return Extent(self.maps + other.maps, self.flat + other.flat, lowest, highest)


@dataclass(frozen=True)
class Counts:
    """Number of pixels of each class, and of those among them that tie at the largest score of all."""

    positives: int = 0
    negatives: int = 0
    positives_at_top: int = 0
    negatives_at_top: int = 0


def one_class(anomalous: int, normal: int, what: str) -> str | None:
    """Check that both classes are there; ``what`` is ``"image"`` or ``"pixel"``."""
    if anomalous and normal:
        return None
    return f"{ONE_CLASS}: no {'normal' if anomalous else 'anomalous'} {what}"


def non_finite(finite: NDArray[np.bool_], what: str) -> str | None:
    """Check that all are finite; ``what`` is ``"image scores"`` or ``"maps"``."""
    bad = np.flatnonzero(~finite)
    if not len(bad):
        return None
    return f"non-finite {what}: {len(bad)} of {len(finite)}, the first at index {bad[0]}"


def constant_scores(scores: NDArray[Any]) -> str | None:
    """Check that the finite image scores are not all equal; one score alone is no sign of anything."""
    if len(scores) < 2 or scores.min() != scores.max():
        return None
    return f"constant image scores: all {len(scores)} equal {scores[0]:.6g}"


def constant_maps(extent: Extent) -> str | None:
    """Check that not every map is one value throughout.

    Some flat maps among others are legitimate (nothing found); when all are flat nothing was localised.
    """
    if extent.flat < extent.maps:
        return None
    if extent.one_value:
        return f"constant maps: every pixel of all {extent.maps} maps equals {extent.lowest:.6g}"
    return f"constant maps: each of the {extent.maps} maps is one value throughout"


def saturated(
    what: str,
    *,
    anomalous: int,
    normal: int,
    anomalous_at_end: int,
    normal_at_end: int,
    end: str = "largest",
    ranked: float = 1.0,
) -> str | None:
    """Check that scores do not pile up at an end of their range with both classes in the pile.

    A pile of one class alone is a clear decision, not a loss. At the lower end only a majority counts: scores
    that are zero where nothing was found are legitimate (and maps are not checked there at all).

    Args:
        what: ``"image scores"`` or ``"pixel scores"``.
        anomalous: number of anomalous scores.
        normal: number of normal scores.
        anomalous_at_end: how many anomalous scores equal the extreme one.
        normal_at_end: how many normal scores equal the extreme one.
        end: ``"largest"`` or ``"smallest"``.
        ranked: the share of the normal scores, from the top, that the strictest metric looks at: the AUPRO's
            limit for pixels.
    """
    if not (anomalous_at_end and normal_at_end):
        return None
    share = (anomalous_at_end + normal_at_end) / (anomalous + normal)
    pairs = anomalous_at_end / anomalous * min(normal_at_end / (normal * ranked), 1.0)
    if share <= MAJORITY and (end != "largest" or pairs <= TIED_PAIRS):
        return None
    return (
        f"saturated {what}: {anomalous_at_end} of {anomalous} anomalous and {normal_at_end} of {normal} "
        f"normal ones tie at the {end} value"
    )


def saturated_pixels(counts: Counts, fpr_limit: float) -> str | None:
    """Check the pixels of maps that are not all flat at the upper end of their range."""
    return saturated(
        "pixel scores",
        anomalous=counts.positives,
        normal=counts.negatives,
        anomalous_at_end=counts.positives_at_top,
        normal_at_end=counts.negatives_at_top,
        ranked=fpr_limit,
    )


def saturated_scores(scores: NDArray[Any], anomalous: NDArray[np.bool_]) -> list[str]:
    """Check finite image scores ``(N,)`` of both classes at both ends of their range."""
    found = []
    for end, extreme in (("largest", scores.max()), ("smallest", scores.min())):
        at_end = scores == extreme
        found.append(
            saturated(
                "image scores",
                anomalous=int(np.count_nonzero(anomalous)),
                normal=int(np.count_nonzero(~anomalous)),
                anomalous_at_end=int(np.count_nonzero(at_end & anomalous)),
                normal_at_end=int(np.count_nonzero(at_end & ~anomalous)),
                end=end,
            )
        )
    return [problem for problem in found if problem is not None]
