"""Arithmetic with embeddings, for methods on a frozen CLIP: cosines, probabilities, distances to normal images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def unit(vectors: Floats) -> Floats:
    """Scale ``(..., E)`` vectors to length 1, in their own precision."""
    scaled: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def along(vectors: Floats, direction: Floats) -> Floats:
    """Inner products over the last axis, ``(..., E)`` each, summed in double precision if either is double.

    Directions are double here: a temperature of 0.01 makes log-odds of them that single precision would round
    in the fifth digit.
    """
    products: Floats = np.einsum("...e,...e->...", vectors, direction)
    return products


def probability(log_odds: Floats) -> Floats:
    """The second entry of a softmax over two logits, given the second less the first."""
    result: Floats = 1 / (1 + np.exp(-np.clip(log_odds, -500, 500)))
    return result


def distance(vectors: Floats, normals: Floats) -> Floats:
    """Half the cosine distance to the closest of the vectors of normal images, at least 0.

    Args:
        vectors: ``(..., E)`` of length 1.
        normals: ``(K, M, E)`` of length 1, M vectors of each of K normal images.

    Returns:
        ``(...)``, in [0, 1].
    """
    closest: Floats = np.full(vectors.shape[:-1], -1, dtype=vectors.dtype)
    # One normal image at a time: the similarities to hundreds of them would take gigabytes at once.
    for rows in normals:
        closest = np.maximum(closest, (vectors @ rows.T).max(axis=-1))
    # An image that is among the normal ones is at distance 0, not a rounding error below.
    return np.maximum((1 - closest) / 2, 0)
