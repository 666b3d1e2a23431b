"""Texture families: each turns coordinates (pixels, already turned and shifted) into a pattern in [0, 1].

A pattern has no colour; `paint` gives it one. The families are the words of `TEXTURES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .noise import Array, Rng, axes, cells, cloud, mix, noise_at, smooth_noise, step, turn

Texture = Callable[[Rng, Array, Array], Array]

_TAU = 2 * np.pi


def plain(rng: Rng, u: Array, v: Array) -> Array:
    """A smooth surface with broad, faint unevenness."""
    return 0.35 + 0.3 * cloud(rng, 2, 3)


def stripes(rng: Rng, u: Array, v: Array) -> Array:
    """Parallel bands with soft edges."""
    period, duty = rng.uniform(5, 14), rng.uniform(-0.5, 0.5)
    return step(-0.35, 0.35, np.sin(_TAU * u / period) - duty)


def corduroy(rng: Rng, u: Array, v: Array) -> Array:
    """Narrow raised ribs with a fibrous surface."""
    ribs = np.abs(np.sin(np.pi * u / rng.uniform(3.5, 6.0)))
    return np.asarray(np.clip(0.75 * ribs + 0.35 * noise_at(rng, u, v / 2) - 0.05, 0, 1))


def weave(rng: Rng, u: Array, v: Array) -> Array:
    """A plain weave: threads go over and under by turns."""
    return _woven(u, v, rng.uniform(3.0, 5.5), 2, noise_at(rng, u / 1.3, v / 1.3))


def twill(rng: Rng, u: Array, v: Array) -> Array:
    """A twill: over two, under two, shifted by one, so that diagonals appear."""
    return _woven(u, v, rng.uniform(2.6, 4.2), 4, noise_at(rng, u / 1.3, v / 1.3))


def _woven(u: Array, v: Array, pitch: float, repeat: int, fibre: Array) -> Array:
    over = (np.floor(u / pitch) + np.floor(v / pitch)) % repeat < repeat / 2
    across_u, across_v = np.abs(np.sin(np.pi * u / pitch)), np.abs(np.sin(np.pi * v / pitch))
    warp = across_u**0.6 * (0.7 + 0.3 * across_v)
    weft = across_v**0.6 * (0.5 + 0.3 * across_u)
    return np.asarray(np.clip(np.where(over, warp, weft) * 0.85 + 0.25 * (fibre - 0.4), 0, 1))


def herringbone(rng: Rng, u: Array, v: Array) -> Array:
    """Bands that zigzag."""
    width, period = rng.uniform(8, 14), rng.uniform(4, 7)
    zigzag = np.abs((u / width) % 2 - 1) * width
    return step(-0.4, 0.4, np.sin(_TAU * (v + zigzag) / period))


def wood(rng: Rng, u: Array, v: Array) -> Array:
    """Grain along v: wavering growth rings and fine fibres."""
    period = rng.uniform(4.5, 9.0)
    waver = noise_at(rng, u / 14, v / 40) * rng.uniform(4, 12)
    rings = 0.5 + 0.5 * np.sin(_TAU * (u + waver) / period)
    fibre = noise_at(rng, u / 1.1, v / 14)
    return np.asarray(np.clip(0.15 + 0.5 * rings**1.5 + 0.4 * fibre - 0.1, 0, 1))


def marble(rng: Rng, u: Array, v: Array) -> Array:
    """Pale stone with dark wandering veins."""
    wander = cloud(rng, 3, 4) * rng.uniform(20, 40)
    vein = np.abs(np.sin(np.pi * (u + wander) / rng.uniform(14, 26)))
    return np.asarray(0.15 + 0.7 * vein**0.5 + 0.15 * cloud(rng, 6, 2))


def granite(rng: Rng, u: Array, v: Array) -> Array:
    """Coarse grains, light and dark."""
    grain = 0.5 * noise_at(rng, u / 1.2, v / 1.2) + 0.5 * noise_at(rng, u / 2.6, v / 2.6)
    return step(0.25, 0.75, grain)


def terrazzo(rng: Rng, u: Array, v: Array) -> Array:
    """Stone chips of many greys set in a binder."""
    near, second, number = cells(rng, u, v, rng.uniform(6, 11))
    chip = step(0.8, 2.2, second - near) * (number > 0.35)
    return np.asarray(0.45 + chip * (number * 1.4 - 0.92) * 0.8)


def pebbled(rng: Rng, u: Array, v: Array) -> Array:
    """The small closed cells of leather."""
    near, second, number = cells(rng, u, v, rng.uniform(3.5, 6.0))
    return np.asarray(step(0.0, 2.0, second - near) * (0.75 + 0.25 * number))


def brushed(rng: Rng, u: Array, v: Array) -> Array:
    """Metal with fine parallel brush lines and a broad sheen."""
    sheen = 0.5 + 0.5 * np.sin(_TAU * v / rng.uniform(60, 120) + rng.uniform(0, _TAU))
    return np.asarray(0.25 + 0.35 * noise_at(rng, u / 18, v / 0.9) + 0.4 * sheen)


def dotted(rng: Rng, u: Array, v: Array) -> Array:
    """Round dots in rows."""
    pitch = rng.uniform(7, 13)
    row = np.floor(v / pitch)
    du = (u + 0.5 * pitch * (row % 2)) % pitch - pitch / 2
    dv = v % pitch - pitch / 2
    radius = pitch * rng.uniform(0.2, 0.36)
    return step(radius + 0.6, radius - 0.6, np.hypot(du, dv))


def checked(rng: Rng, u: Array, v: Array) -> Array:
    """A chessboard."""
    period = rng.uniform(10, 22)
    return step(-0.12, 0.12, np.sin(_TAU * u / period) * np.sin(_TAU * v / period))


def brick(rng: Rng, u: Array, v: Array) -> Array:
    """Courses of bricks with mortar between."""
    height = rng.uniform(7, 11)
    length = height * rng.uniform(1.8, 2.4)
    row = np.floor(v / height)
    shifted = u + 0.5 * length * (row % 2)
    edge = np.minimum(
        length / 2 - np.abs(shifted % length - length / 2), height / 2 - np.abs(v % height - height / 2)
    )
    tone = rng.random((64, 64))[row.astype(np.int64) % 64, np.floor(shifted / length).astype(np.int64) % 64]
    return np.asarray(step(0.3, 1.5, edge) * (0.6 + 0.4 * tone))


def corrugated(rng: Rng, u: Array, v: Array) -> Array:
    """Sheet folded into waves, lit from one side."""
    return np.asarray(0.5 + 0.45 * np.sin(_TAU * (u + 1.5 * np.sin(v / 20)) / rng.uniform(8, 16)))


def ringed(rng: Rng, u: Array, v: Array) -> Array:
    """Concentric circles around a point."""
    radius = np.hypot(u - rng.uniform(-10, 10), v - rng.uniform(-10, 10))
    return np.asarray(0.5 + 0.5 * np.sin(_TAU * radius / rng.uniform(6, 12)))


def clouded(rng: Rng, u: Array, v: Array) -> Array:
    """Broad soft blotches."""
    return step(0.25, 0.75, cloud(rng, 4, 4))


def rusty(rng: Rng, u: Array, v: Array) -> Array:
    """Ragged patches over a finer ground."""
    ragged = step(0.48, 0.6, cloud(rng, 5, 4))
    return np.asarray(np.clip(0.75 * ragged + 0.3 * smooth_noise(rng, 40), 0, 1))


def camouflage(rng: Rng, u: Array, v: Array) -> Array:
    """Blotches of three flat tones."""
    field = cloud(rng, 4, 2)
    return np.asarray(0.5 * step(0.42, 0.45, field) + 0.5 * step(0.58, 0.61, field))


def scaly(rng: Rng, u: Array, v: Array) -> Array:
    """Overlapping rounded scales in rows."""
    pitch = rng.uniform(8, 13)
    row = np.floor(v / (pitch / 2))
    du = (u + 0.5 * pitch * (row % 2)) % pitch - pitch / 2
    dv = v % (pitch / 2)
    return np.asarray(np.clip(np.hypot(du, dv) / (0.62 * pitch), 0, 1) ** 1.5)


def knitted(rng: Rng, u: Array, v: Array) -> Array:
    """Columns of small V-shaped stitches."""
    width, height = rng.uniform(6, 9), rng.uniform(4, 5.5)
    slant = np.abs(u % width - width / 2)
    stitch = np.abs(np.sin(np.pi * (v - slant * 0.9) / height))
    return np.asarray(stitch**0.7 * (0.45 + 0.55 * np.sin(np.pi * (u % width) / width)) ** 0.5)


def sandy(rng: Rng, u: Array, v: Array) -> Array:
    """Fine even grit."""
    return np.asarray(0.3 + 0.4 * noise_at(rng, u * 0.95, v * 0.95) + 0.15 * cloud(rng, 2, 2))


def confetti(rng: Rng, u: Array, v: Array) -> Array:
    """Small round flecks strewn at random."""
    near, _, number = cells(rng, u, v, rng.uniform(8, 13))
    radius = 1.2 + 1.6 * number
    return np.asarray(np.clip(radius + 0.5 - near, 0, 1) * (number > 0.3))


def mesh(rng: Rng, u: Array, v: Array) -> Array:
    """Wires that cross at right angles, one over the other by turns; 0 in the openings."""
    pitch, radius = rng.uniform(9.5, 12.5), rng.uniform(1.5, 2.1)
    du, dv = np.abs(u % pitch - pitch / 2), np.abs(v % pitch - pitch / 2)
    over = (np.floor(u / pitch) + np.floor(v / pitch)) % 2 < 1
    a = np.sqrt(np.clip(1 - (du / radius) ** 2, 0, 1))
    b = np.sqrt(np.clip(1 - (dv / radius) ** 2, 0, 1))
    top, under = np.where(over, a, b), np.where(over, b, a)
    return np.asarray(np.where(top > 0, top, 0.75 * under))


TEXTURES: Mapping[str, Texture] = {
    f.__name__: f
    for f in (
        plain, stripes, corduroy, weave, twill, herringbone, wood, marble, granite, terrazzo, pebbled, brushed,
        dotted, checked, brick, corrugated, ringed, clouded, rusty, camouflage, scaly, knitted, sandy, confetti,
        mesh,
    )
}  # fmt: skip


def pattern(name: str, rng: Rng, *, angle: float | None = None, zoom: float = 1.0) -> Array:
    """The pattern of a family over the whole image, at a random phase and (unless given) a random turn."""
    x, y = axes()
    u, v = turn(x, y, rng.uniform(0, np.pi) if angle is None else angle)
    return TEXTURES[name](rng, (u + rng.uniform(0, 900)) / zoom, (v + rng.uniform(0, 900)) / zoom)


def paint(field: Array, low: Array, high: Array) -> Array:
    """The image whose colour goes from `low` (where the pattern is 0) to `high` (where it is 1)."""
    return mix(low, high, field)
