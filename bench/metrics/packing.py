"""Scores as integers that sort as the scores do, alone or with a word of payload."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW_WORD = np.uint64(0xFFFFFFFF)
_SIGN = np.uint32(0x80000000)


def as_integers(scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Return integers ordered as the float32 scores, equal for equal scores."""
    # Adding 0 turns -0 into 0, which is equal as a score but not as bits.
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)
    # The bits of positive floats are in order once above those of negative ones, which run backwards.
    bits ^= np.where(bits & _SIGN, np.uint32(0xFFFFFFFF), _SIGN)
    return bits


def pack(scores: NDArray[np.float32], low: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return integers ordered as the float32 scores, with ``low`` in the low word."""
    return (as_integers(scores).astype(np.uint64) << np.uint64(32)) | low


def unpack(packed: NDArray[np.uint64]) -> NDArray[np.float32]:
    """Return the scores of packed integers."""
    bits = (packed >> np.uint64(32)).astype(np.uint32)
    bits ^= np.where(bits & _SIGN, _SIGN, np.uint32(0xFFFFFFFF))
    return bits.view(np.float32)
