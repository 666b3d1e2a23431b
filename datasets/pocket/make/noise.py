"""Numeric ground under the renderer: coordinates, noise and colour fields, in NumPy alone.

Lengths are in units of a 64th of the image's side, whatever the number of pixels. Everything is float64 on
the grid of pixels. Rounding to 8 bits happens once, at the end, so that a difference in the last place of a
sine (another CPU, another NumPy) does not reach the pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Rng = np.random.Generator

SIZE = 96
"""Side of an image in pixels."""
SIDE = 64.0
"""Side of an image in units."""
PIXEL = SIDE / SIZE
"""Side of a pixel in units."""


@cache
def axes() -> tuple[Array, Array]:
    """Coordinates x and y of all pixels' centres in units, the image's centre at (0, 0)."""
    y, x = (np.mgrid[0:SIZE, 0:SIZE].astype(np.float64) + 0.5) * PIXEL - SIDE / 2
    return x, y


def coverage(distance: Array) -> Array:
    """Share of each pixel inside a shape, given the signed distance to its edge (negative inside)."""
    return np.clip(0.5 - distance / PIXEL, 0.0, 1.0)


def turn(x: Array, y: Array, angle: float) -> tuple[Array, Array]:
    """The coordinates in a frame that is turned by `angle` radians."""
    c, s = np.cos(angle), np.sin(angle)
    return c * x + s * y, c * y - s * x


def step(low: float, high: float, value: Array) -> Array:
    """A smooth step from 0 (at `low`) to 1 (at `high`); `low` may be the larger one."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@cache
def _weights(cells: int) -> Array:
    """Interpolation from `cells` + 1 lattice nodes to the pixels of one axis."""
    position = (np.arange(SIZE) + 0.5) / SIZE * cells
    index = np.minimum(position.astype(int), cells - 1)
    t = position - index
    t = t * t * (3.0 - 2.0 * t)
    weights = np.zeros((SIZE, cells + 1))
    weights[np.arange(SIZE), index] = 1.0 - t
    weights[np.arange(SIZE), index + 1] = t
    return weights


def smooth_noise(rng: Rng, rows: int, columns: int | None = None) -> Array:
    """Value noise in [0, 1] with `rows` by `columns` cells over the image."""
    columns = rows if columns is None else columns
    lattice = rng.random((rows + 1, columns + 1))
    noise: Array = _weights(rows) @ lattice @ _weights(columns).T
    return noise


def cloud(rng: Rng, cells: int = 3, octaves: int = 3) -> Array:
    """Fractal noise around 0.5, roughly in [0, 1]."""
    total, weight, norm = np.zeros((SIZE, SIZE)), 1.0, 0.0
    for _ in range(octaves):
        total += weight * smooth_noise(rng, min(cells, SIZE))
        norm += weight
        weight *= 0.55
        cells *= 2
    return total / norm


def noise_at(rng: Rng, u: Array, v: Array) -> Array:
    """Value noise sampled at any coordinates (one cell per unit), so that it can be turned and stretched."""
    lattice = rng.random((64, 64))
    iu, iv = np.floor(u), np.floor(v)
    fu, fv = u - iu, v - iv
    fu, fv = fu * fu * (3 - 2 * fu), fv * fv * (3 - 2 * fv)
    ju, jv = iu.astype(np.int64) % 64, iv.astype(np.int64) % 64
    ku, kv = (ju + 1) % 64, (jv + 1) % 64
    top = lattice[jv, ju] * (1 - fu) + lattice[jv, ku] * fu
    low = lattice[kv, ju] * (1 - fu) + lattice[kv, ku] * fu
    return top * (1 - fv) + low * fv


def cells(rng: Rng, u: Array, v: Array, size: float) -> tuple[Array, Array, Array]:
    """Cellular noise: distance to the nearest point, to the second nearest, and the nearest one's number.

    The points are one per square of side `size`, jittered; distances are in units, the number in [0, 1].
    """
    jitter = rng.random((2, 64, 64))
    number = rng.random((64, 64))
    a, b = u / size, v / size
    ia, ib = np.floor(a).astype(np.int64), np.floor(b).astype(np.int64)
    near, second, name = np.full(u.shape, 9.0), np.full(u.shape, 9.0), np.zeros(u.shape)
    for di in (-1, 0, 1):
        for dj in (-1, 0, 1):
            ja, jb = (ia + di) % 64, (ib + dj) % 64
            distance = np.hypot(ia + di + jitter[0, jb, ja] - a, ib + dj + jitter[1, jb, ja] - b)
            closer = distance < near
            second = np.where(closer, near, np.minimum(second, distance))
            name = np.where(closer, number[jb, ja], name)
            near = np.minimum(near, distance)
    return near * size, second * size, name


@cache
def _blur_matrix(tenths: int) -> Array:
    sigma = tenths / 10
    index = np.arange(SIZE)
    matrix = np.exp(-0.5 * ((index[:, None] - index[None, :]) / sigma) ** 2)
    weights: Array = matrix / matrix.sum(axis=1, keepdims=True)
    return weights


def blur(field: Array, sigma: float) -> Array:
    """Gaussian blur of a field (H, W) or an image (H, W, C); sigma in units, kept to tenths of a pixel."""
    tenths = round(sigma * 10 / PIXEL)
    if tenths < 2:
        return field
    matrix = _blur_matrix(tenths)
    if field.ndim == 2:
        blurred: Array = matrix @ field @ matrix.T
        return blurred
    channels = [matrix @ field[:, :, c] @ matrix.T for c in range(field.shape[2])]
    return np.stack(channels, axis=2)


def mix(a: Array, b: Array, weight: Array) -> Array:
    """a where the weight (H, W) is 0, b where it is 1; a and b are colours (3,) or images (H, W, 3)."""
    w = weight[:, :, None]
    return a * (1.0 - w) + b * w
