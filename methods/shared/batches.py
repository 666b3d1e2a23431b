"""Scoring in batches, so that memory stays bounded however many images there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def in_batches(
    function: Callable[[torch.Tensor], Mapping[str, torch.Tensor]], rows: torch.Tensor, size: int
) -> dict[str, torch.Tensor]:
    """Apply ``function`` to ``rows`` in consecutive batches of ``size``; the last may be smaller.

    The batches depend on ``rows`` alone, so the same call gives the same bits. In other company a row may land in
    a batch of another size, where matrix products round differently. Features that are *kept* for later calls
    need :func:`bench.encoders.features.in_fixed_batches` instead.

    Args:
        function: ``(B, ...)`` -> name -> ``(B, ...)``.
        rows: ``(N, ...)``, N > 0.
        size: largest B.

    Returns:
        name -> ``(N, ...)``.
    """
    import torch

    parts: dict[str, list[torch.Tensor]] = {}
    for batch in rows.split(size):
        for name, output in function(batch).items():
            parts.setdefault(name, []).append(output)
    return {name: torch.cat(outputs) for name, outputs in parts.items()}
