"""PromptAD's loss (Eq. 5) of one trial, from the anomaly maps of every block and branch.

Shapes as in :mod:`bench.methods.promptad.net`: V views, B images, N patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.tools.devices import sent

if TYPE_CHECKING:
    from bench.methods.promptad.config import PromptADConfig


def top_mean(s: Tensor, fraction: float) -> Tensor:
    """Mean of the highest ``fraction`` of the last axis, at least one value; signs are kept."""
    return s.topk(max(1, int(fraction * s.shape[-1])), dim=-1).values.mean(-1)


def deviation_loss(scores: Tensor, y: Tensor, alpha: float) -> Tensor:
    """Eq. 5, element by element: scores below -alpha for y = 0, above alpha for y = 1."""
    return (1 - y) * F.relu(alpha + scores) + y * F.relu(alpha - scores)


def draw_reference(
    shape: tuple[int, int], generators: Sequence[torch.Generator], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of 5000 standard normal scores for each loss, as DevNet's code draws them.

    Args:
        shape: of one trial's losses, ``(3, L)``.
        generators: one of each of the J trials.
        device: where the result is to lie.

    Returns:
        ``(J, 3, L, 1)`` each.
    """
    drawn = [torch.randn((*shape, 5000), generator=each, device=each.device) for each in generators]
    scores = sent(torch.stack(drawn), device)
    return scores.mean(-1, keepdim=True), scores.std(-1, keepdim=True)


def objective(
    maps: Tensor,
    labels: Tensor,
    config: PromptADConfig,
    regions: Tensor | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The training loss: Eq. 5 on every block and branch, mean over images, summed (section 3.6).

    Args:
        maps: ``(3, V, B, N)`` of :class:`bench.methods.promptad.net.BranchDecoder`.
        labels: ``(B,)`` float, 1 = anomalous.
        config: the method's options.
        regions: ``(B, N)`` float, 1 = anomalous there; needed where ``supervision`` is not ``image``.
        reference: mean and deviation of reference scores, ``(3, V or V + 1, 1)``; None = 0 and 1.
    """
    if config.loss_sum:  # the sum of the branches counts as one more
        maps = torch.cat([maps, maps.sum(1, keepdim=True)], 1)
    loss = maps.new_zeros(())
    if config.supervision != "pixel":
        pooled = top_mean(maps, config.topk)  # (3, V, B)
        if reference is not None:
            pooled = (pooled - reference[0]) / reference[1]
        loss = loss + _weighted(deviation_loss(pooled, labels, config.alpha).mean(-1), config)
    if config.supervision != "image":
        assert regions is not None
        if reference is not None:
            maps = (maps - reference[0].unsqueeze(-1)) / reference[1].unsqueeze(-1)
        loss = loss + _weighted(deviation_loss(maps, regions, config.alpha).mean((-2, -1)), config)
    return loss


def _weighted(losses: Tensor, config: PromptADConfig) -> Tensor:
    """The sum of ``(3, V)``, weighted by block: by numbers, since a GPU waits for tensors made of numbers."""
    total = losses.new_zeros(())
    for weight, block in zip(config.deep_weights, losses, strict=True):
        total = total + weight * block.sum()
    return total
