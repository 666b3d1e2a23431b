"""Sorting and searching of the exact engine on a torch device.

Only what takes the time runs there: the two sorts and the search of the anomalous scores among the normal
ones. All of it is comparison, so the order and the counts are those of the NumPy path, and the sums are made
from them by the same code: the metrics agree to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

_TOP_BIT = np.uint64(1 << 63)


@dataclass(frozen=True)
class TorchNegatives:
    """The normal pixels, ``(normal pixels,)`` float32, sorted on a device (see ``ranks.Negatives``)."""

    scores: torch.Tensor

    @property
    def largest(self) -> np.float32:
        return np.float32(self.scores[-1].item())

    def count(self, values: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        import torch

        wanted = torch.from_numpy(values).to(self.scores.device)
        below, upto = (torch.searchsorted(self.scores, wanted, right=right) for right in (False, True))
        return below.cpu().numpy(), upto.cpu().numpy()


def sort_on(
    device: str, positive: NDArray[np.uint64], negative: NDArray[np.float32]
) -> tuple[NDArray[np.uint64], TorchNegatives]:
    """Sort the arrays of ``pixels.Pixels`` on a device.

    Returns:
        The anomalous pixels, sorted, here; the normal ones, sorted, there.

    Raises:
        RuntimeError: torch does not know the device, or has no such device here.
    """
    import torch

    # torch sorts signed integers: with the top bit flipped they are in the same order.
    signed = torch.from_numpy((positive ^ _TOP_BIT).view(np.int64)).to(device)
    ordered = signed.sort().values.cpu().numpy().view(np.uint64) ^ _TOP_BIT
    return ordered, TorchNegatives(torch.from_numpy(negative).to(device).sort().values)
