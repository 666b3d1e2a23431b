"""Defects: each changes a scene at some place and says exactly where (a boolean mask).

`strength` in [0, 1] sets contrast and size together: near 0 a defect is subtle, near 1 it is plain to see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .noise import SIZE, Array, Rng, axes, mix
from .scenes import Scene, blotch, stroke

Mask = NDArray[np.bool_]
Defect = Callable[[Scene, Rng, float], tuple[Scene, Mask]]

SMALLEST = 6
"""A mask with fewer pixels is drawn again."""


def somewhere(scene: Scene, rng: Rng, margin: int = 5) -> tuple[float, float]:
    """A random pixel position on the front."""
    inside = scene.cover > 0.9
    inside[:margin] = inside[-margin:] = False
    inside[:, :margin] = inside[:, -margin:] = False
    rows, columns = np.nonzero(inside)
    if not len(rows):
        return 0.0, 0.0
    k = int(rng.integers(len(rows)))
    return columns[k] + 0.5 - SIZE / 2, rows[k] + 0.5 - SIZE / 2


def _tint(scene: Scene, rng: Rng, weight: Array, contrast: float) -> Array:
    """The front, darkened or lightened under a weight, away from what its own tone already is."""
    tone = float((scene.front.mean(axis=2) * weight).sum() / (weight.sum() + 1e-9))
    up = rng.random() < (0.8 if tone < 0.45 else 0.25)
    target = scene.front + (1.0 - scene.front) * contrast if up else scene.front * (1.0 - contrast)
    return mix(scene.front, target, weight)


def _walk(rng: Rng, x: float, y: float, length: float, steps: int, wander: float) -> Array:
    """The corners of a wandering line whose middle is near (x, y)."""
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.uniform(-wander, wander, steps))
    stride = length / steps * rng.uniform(0.7, 1.3, steps)
    path = np.stack([np.cumsum(stride * np.cos(headings)), np.cumsum(stride * np.sin(headings))], axis=1)
    path = np.vstack([np.zeros((1, 2)), path])
    return np.asarray(path - path.mean(axis=0) + np.array([x, y]))


def scratch(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A thin, nearly straight line, or a few side by side."""
    x, y = somewhere(scene, rng)
    path = _walk(rng, x, y, rng.uniform(10, 18) + 18 * strength, 4, 0.18)
    weight = stroke(path, rng.uniform(0.8, 1.1) + 0.8 * strength)
    if rng.random() < 0.3:
        shift = rng.uniform(-4, 4, 2)
        weight = np.maximum(weight, stroke(path * 0.98 + shift, rng.uniform(0.7, 1.2)))
    weight = weight * (scene.cover > 0.5)
    front = _tint(scene, rng, weight, 0.25 + 0.5 * strength)
    return replace(scene, front=front), weight > 0.3


def crack(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A dark jagged line, often with a branch."""
    x, y = somewhere(scene, rng)
    path = _walk(rng, x, y, rng.uniform(12, 18) + 20 * strength, 8, 0.85)
    weight = stroke(path, rng.uniform(0.8, 1.2) + 0.9 * strength)
    if rng.random() < 0.6:
        start = path[int(rng.integers(2, 6))]
        branch = _walk(rng, 0.0, 0.0, rng.uniform(5, 12), 4, 0.7)
        weight = np.maximum(weight, stroke(branch - branch[0] + start, rng.uniform(0.7, 1.1)))
    weight = weight * (scene.cover > 0.5)
    front = mix(scene.front, scene.front * (0.75 - 0.6 * strength), weight)
    return replace(scene, front=front), weight > 0.3


def hole(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A small opening through which the back shows, with a darker rim."""
    x, y = somewhere(scene, rng, 7)
    radius = rng.uniform(1.3, 2.2) + 3.0 * strength
    weight = blotch(rng, x, y, radius, ragged=0.35, soft=0.7)
    rim = blotch(rng, x, y, radius + 0.8, ragged=0.3, soft=1.2)
    front = mix(scene.front, scene.front * (0.8 - 0.3 * strength), rim)
    inner = mix(front, scene.back * 0.6, weight * (0.5 + 0.5 * strength))
    return replace(scene, front=inner), (np.maximum(weight, 0.8 * rim) > 0.4) & (scene.cover > 0.5)


def stain(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A soft-edged patch of another colour."""
    x, y = somewhere(scene, rng)
    weight = blotch(rng, x, y, rng.uniform(3, 5.5) + 5 * strength, ragged=0.6, soft=1.6) * (scene.cover > 0.5)
    colour = rng.uniform(0.05, 0.95, 3)
    kept = scene.front * (0.55 + 0.45 * colour) if rng.random() < 0.6 else 0.6 * scene.front + 0.4 * colour
    front = mix(scene.front, kept, weight * (0.4 + 0.6 * strength))
    return replace(scene, front=front), weight > 0.4


def contamination(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """Foreign matter on top: a fibre, or a few grains."""
    x, y = somewhere(scene, rng)
    if rng.random() < 0.5:
        weight = stroke(_walk(rng, x, y, rng.uniform(10, 16) + 12 * strength, 7, 0.6), 0.9 + 0.9 * strength)
    else:
        weight = np.zeros((SIZE, SIZE))
        for _ in range(int(rng.integers(2, 6))):
            at = np.array([x, y]) + rng.uniform(-6, 6, 2)
            grain = blotch(rng, at[0], at[1], rng.uniform(0.7, 1.2) + 1.2 * strength, ragged=0.4, soft=0.6)
            weight = np.maximum(weight, grain)
    colour = rng.uniform(0.0, 1.0, 3)
    opaque = weight * (0.45 + 0.5 * strength)
    front, back = mix(scene.front, colour, opaque), mix(scene.back, colour, opaque)
    return replace(scene, front=front, back=back), weight > 0.35


def missing(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A part that is not there, or a piece broken off the edge."""
    if scene.parts:
        x, y, radius = scene.parts[int(rng.integers(len(scene.parts)))]
        radius *= 0.75 + 0.35 * strength
        gone = blotch(rng, x, y, radius, ragged=0.15, soft=0.6)
    else:
        x, y = _edge(scene, rng)
        gone = blotch(rng, x, y, rng.uniform(2.5, 4.0) + 4.5 * strength, ragged=0.5, soft=0.6)
    cover = scene.cover * (1.0 - gone)
    shadow = scene.shadow * (1.0 - gone * scene.cover)
    return replace(scene, cover=cover, shadow=shadow), scene.cover - cover > 0.35


def bent(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A part pushed out of its place: the picture is displaced around one point."""
    if scene.parts:
        x, y, radius = scene.parts[int(rng.integers(len(scene.parts)))]
        radius = max(5.0, radius * 1.3)
    else:
        x, y = _edge(scene, rng)
        radius = rng.uniform(6, 9)
    px, py = axes()
    pull = np.exp(-0.5 * (np.hypot(px - x, py - y) / (0.6 * radius)) ** 2)
    angle, reach = rng.uniform(0, 2 * np.pi), 2.0 + 3.0 * strength
    sx, sy = px - pull * reach * np.cos(angle), py - pull * reach * np.sin(angle)
    stacked = np.concatenate([scene.front, scene.cover[:, :, None]], axis=2)
    moved = _sample(stacked, sx, sy)
    bowed = replace(scene, front=moved[:, :, :3], cover=moved[:, :, 3])
    changed = np.abs(bowed.image() - scene.image()).max(axis=2) > 0.05
    mask = (pull * reach > 0.6) & (np.maximum(scene.cover, moved[:, :, 3]) > 0.3) & _near(changed)
    return bowed, mask


def _near(mask: Mask) -> Mask:
    """The mask and its direct neighbours."""
    grown = mask.copy()
    for axis in (0, 1):
        for by in (-1, 1):
            grown |= np.roll(mask, by, axis)
    return grown


def _edge(scene: Scene, rng: Rng) -> tuple[float, float]:
    """A random position on the front's outline (anywhere, for a surface without one)."""
    inside = scene.cover > 0.5
    outline = _near(~inside) & inside
    outline[:4] = outline[-4:] = False
    outline[:, :4] = outline[:, -4:] = False
    rows, columns = np.nonzero(outline)
    if not len(rows):
        return somewhere(scene, rng, 9)
    k = int(rng.integers(len(rows)))
    return columns[k] + 0.5 - SIZE / 2, rows[k] + 0.5 - SIZE / 2


def _sample(image: Array, x: Array, y: Array) -> Array:
    """The image (H, W, C) read at pixel positions, bilinearly."""
    u = np.clip(x + SIZE / 2 - 0.5, 0, SIZE - 1.001)
    v = np.clip(y + SIZE / 2 - 0.5, 0, SIZE - 1.001)
    iu, iv = u.astype(int), v.astype(int)
    fu, fv = (u - iu)[:, :, None], (v - iv)[:, :, None]
    top = image[iv, iu] * (1 - fu) + image[iv, iu + 1] * fu
    low = image[iv + 1, iu] * (1 - fu) + image[iv + 1, iu + 1] * fu
    return np.asarray(top * (1 - fv) + low * fv)


DEFECTS: Mapping[str, Defect] = {
    f.__name__: f for f in (scratch, crack, hole, stain, contamination, missing, bent)
}


def spoil(scene: Scene, kind: str, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """The scene with one defect, and its mask: at least `SMALLEST` pixels, whose colours really changed."""
    before = scene.image()
    for attempt in range(20):
        spoiled, mask = DEFECTS[kind](scene, rng, min(1.0, strength + 0.05 * attempt))
        change = np.abs(spoiled.image() - before).max(axis=2)
        if mask.sum() >= SMALLEST and float(change[mask].mean()) > 0.04:
            return spoiled, mask
    raise RuntimeError(f"no visible {kind} could be drawn")
