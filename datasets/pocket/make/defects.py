"""Defects: each changes a scene at some place and says exactly where (a boolean mask).

A defect looks alike on whatever it is drawn, and like nothing that a normal scene has: normal details are
even shapes in flat colours, defects are ragged, edged in light and dark, or break an outline. `strength` in
[0, 1] sets contrast and size together: near 0 a defect is small and pale, near 1 large and stark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .noise import PIXEL, SIDE, SIZE, Array, Rng, axes, mix
from .scenes import Scene, blotch, stroke

Mask = NDArray[np.bool_]
Defect = Callable[[Scene, Rng, float], tuple[Scene, Mask]]

SMALLEST, LARGEST = 0.01, 0.10
"""A mask with a smaller or larger share of the image is drawn again."""
VISIBLE = 0.12
"""So much at least does some colour channel change in the mask, on average."""

STAINS = ((0.45, 0.22, 0.08), (0.10, 0.10, 0.14), (0.12, 0.20, 0.55), (0.35, 0.45, 0.10), (0.55, 0.08, 0.10))
"""Colours of stains: rust, oil, ink, moss, wine."""
FOREIGN = ((0.85, 0.10, 0.10), (0.10, 0.25, 0.80), (0.95, 0.95, 0.95), (0.98, 0.85, 0.15), (0.05, 0.05, 0.05))
"""Colours of fibres and grains."""


def _position(rng: Rng, where: Mask) -> tuple[float, float] | None:
    """A random place inside a region, in units; None if the region is empty."""
    rows, columns = np.nonzero(where)
    if not len(rows):
        return None
    k = int(rng.integers(len(rows)))
    return (columns[k] + 0.5) * PIXEL - SIDE / 2, (rows[k] + 0.5) * PIXEL - SIDE / 2


def somewhere(scene: Scene, rng: Rng, margin: float = 6.0) -> tuple[float, float]:
    """A random place on the front."""
    x, y = axes()
    inner = (np.abs(x) < SIDE / 2 - margin) & (np.abs(y) < SIDE / 2 - margin)
    return _position(rng, inner & (scene.cover > 0.9)) or (0.0, 0.0)


def _walk(rng: Rng, x: float, y: float, length: float, steps: int, wander: float) -> Array:
    """The corners of a wandering line whose middle is near (x, y)."""
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.uniform(-wander, wander, steps))
    stride = length / steps * rng.uniform(0.7, 1.3, steps)
    path = np.stack([np.cumsum(stride * np.cos(headings)), np.cumsum(stride * np.sin(headings))], axis=1)
    path = np.vstack([np.zeros((1, 2)), path])
    return np.asarray(path - path.mean(axis=0) + np.array([x, y]))


def scratch(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """Nearly straight grooves side by side, each a light line beside a dark one."""
    path = _walk(rng, *somewhere(scene, rng), rng.uniform(20, 28) + 14 * strength, 4, 0.15)
    along = path[-1] - path[0]
    across = np.array([-along[1], along[0]]) / (np.hypot(*along) + 1e-9)
    light, dark = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    width = rng.uniform(0.9, 1.2) + 0.4 * strength
    for k in range(int(rng.integers(1, 4))):
        offset = 3.2 * k + rng.uniform(-0.5, 0.5)
        piece = path[: len(path) - int(rng.integers(0, 2))] + across * offset
        light = np.maximum(light, stroke(piece, width))
        dark = np.maximum(dark, stroke(piece + across * width, width))
    light, dark = light * (scene.cover > 0.5), dark * (scene.cover > 0.5)
    front = mix(scene.front, scene.front * (0.6 - 0.4 * strength), dark)
    front = mix(front, np.ones(3), light * (0.45 + 0.5 * strength))
    return replace(scene, front=front), np.maximum(light, dark) > 0.3


def crack(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A jagged dark line with branches, pale along one side."""
    path = _walk(rng, *somewhere(scene, rng), rng.uniform(24, 30) + 16 * strength, 9, 0.8)
    width = rng.uniform(1.3, 1.6) + 0.8 * strength
    dark = stroke(path, width)
    for _ in range(int(rng.integers(1, 4))):
        start = path[int(rng.integers(2, 8))]
        branch = _walk(rng, 0.0, 0.0, rng.uniform(7, 14), 4, 0.7)
        dark = np.maximum(dark, stroke(branch - branch[0] + start, 0.75 * width))
    pale = np.roll(dark, (1, 1), (0, 1)) * (1.0 - dark)
    dark, pale = dark * (scene.cover > 0.5), pale * (scene.cover > 0.5)
    front = mix(scene.front, np.ones(3), pale * (0.25 + 0.3 * strength))
    front = mix(front, scene.front * (0.30 - 0.25 * strength), dark)
    return replace(scene, front=front), dark > 0.3


def hole(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A ragged opening, dark inside, its torn rim pale."""
    x, y = somewhere(scene, rng, 9)
    radius = rng.uniform(3.6, 4.6) + 3.5 * strength
    state = rng.integers(2**32)
    inner = blotch(np.random.default_rng(state), x, y, radius, ragged=0.35, soft=0.7)
    rim = blotch(np.random.default_rng(state), x, y, radius + 1.4, ragged=0.35, soft=0.7)
    inner, rim = inner * (scene.cover > 0.5), rim * (scene.cover > 0.5)
    front = mix(scene.front, 0.5 + 0.5 * scene.front, rim * (0.5 + 0.4 * strength))
    depth = np.full(3, 0.04) + 0.25 * scene.back * (1.0 - strength)
    front = mix(front, depth, inner)
    return replace(scene, front=front), rim > 0.4


def stain(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """An irregular patch of another colour, darker along its edge, as a dried drop is."""
    x, y = somewhere(scene, rng)
    colour = np.array(STAINS[int(rng.integers(len(STAINS)))]) + rng.uniform(-0.05, 0.05, 3)
    radius = rng.uniform(5.0, 6.5) + 4.5 * strength
    state = rng.integers(2**32)
    weight = blotch(np.random.default_rng(state), x, y, radius, ragged=0.6, soft=1.2)
    inner = blotch(np.random.default_rng(state), x, y, radius - 1.8, ragged=0.6, soft=1.6)
    weight, inner = weight * (scene.cover > 0.5), inner * (scene.cover > 0.5)
    soaked = mix(scene.front, scene.front * 0.45 + 0.55 * np.clip(colour, 0, 1), weight * (0.45 + 0.5 * strength))
    front = mix(soaked, soaked * 0.6, np.clip(weight - inner, 0, 1))
    return replace(scene, front=front), weight > 0.4


def contamination(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """Foreign matter on top, with its shadow: a curled fibre, or scattered grains."""
    x, y = somewhere(scene, rng, 9)
    if rng.random() < 0.5:
        path = _walk(rng, x, y, rng.uniform(26, 34) + 14 * strength, 9, 0.75)
        weight = stroke(path, rng.uniform(1.3, 1.7) + 0.7 * strength)
    else:
        weight = np.zeros((SIZE, SIZE))
        for _ in range(int(rng.integers(4, 8))):
            at = np.array([x, y]) + rng.normal(0, 5.0, 2)
            grain = blotch(rng, at[0], at[1], rng.uniform(1.4, 2.0) + 0.9 * strength, ragged=0.4, soft=0.5)
            weight = np.maximum(weight, grain)
    # What cannot be told from the ground is not what anyone would call a contamination.
    tone = (scene.image() * weight[:, :, None]).sum(axis=(0, 1)) / (weight.sum() + 1e-9)
    colours = [np.array(c) for c in FOREIGN if np.abs(np.array(c) - tone).max() > 0.4]
    colour = np.clip(colours[int(rng.integers(len(colours)))] + rng.uniform(-0.05, 0.05, 3), 0, 1)
    opaque, shadow = weight * (0.65 + 0.35 * strength), 0.4 * np.roll(weight, (1, 1), (0, 1)) * (1.0 - weight)
    front = mix(scene.front * (1.0 - shadow)[:, :, None], colour, opaque)
    back = mix(scene.back * (1.0 - shadow)[:, :, None], colour, opaque)
    return replace(scene, front=front, back=back), weight > 0.35


def missing(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A part that is not there, or a piece broken off the edge, pale where it broke."""
    if scene.parts:
        x, y, radius = scene.parts[int(rng.integers(len(scene.parts)))]
        radius *= 0.95 + 0.35 * strength
    else:
        x, y = _edge(scene, rng)
        radius = rng.uniform(6.0, 7.5) + 4.0 * strength
    state = rng.integers(2**32)
    gone = blotch(np.random.default_rng(state), x, y, radius, ragged=0.3, soft=0.5)
    broken = blotch(np.random.default_rng(state), x, y, radius + 1.3, ragged=0.3, soft=0.5)
    cover = scene.cover * (1.0 - gone)
    shadow = scene.shadow * (1.0 - gone * scene.cover)
    front = mix(scene.front, 0.35 + 0.65 * scene.front, broken * (0.4 + 0.4 * strength))
    mask = (scene.cover - cover > 0.35) | ((broken > 0.5) & (scene.cover > 0.5))
    return replace(scene, front=front, cover=cover, shadow=shadow), mask


def bent(scene: Scene, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """A part pushed out of its place: the picture is displaced around one point."""
    if scene.parts:
        x, y, radius = scene.parts[int(rng.integers(len(scene.parts)))]
        radius = max(6.5, radius * 1.3)
    else:
        x, y = _edge(scene, rng)
        radius = rng.uniform(7, 10)
    px, py = axes()
    pull = np.exp(-0.5 * (np.hypot(px - x, py - y) / (0.6 * radius)) ** 2)
    angle, reach = rng.uniform(0, 2 * np.pi), 3.0 + 2.5 * strength
    sx, sy = px - pull * reach * np.cos(angle), py - pull * reach * np.sin(angle)
    stacked = np.concatenate([scene.front, scene.cover[:, :, None]], axis=2)
    moved = _sample(stacked, sx, sy)
    bowed = replace(scene, front=moved[:, :, :3], cover=moved[:, :, 3])
    changed = np.abs(bowed.image() - scene.image()).max(axis=2) > 0.08
    mask = (pull * reach > 0.8) & (np.maximum(scene.cover, moved[:, :, 3]) > 0.3) & _near(changed)
    return bowed, mask


def _near(mask: Mask) -> Mask:
    """The mask and its direct neighbours."""
    grown = mask.copy()
    for axis in (0, 1):
        for by in (-1, 1):
            grown |= np.roll(mask, by, axis)
    return grown


def _edge(scene: Scene, rng: Rng) -> tuple[float, float]:
    """A random place on the front's outline (anywhere, for a surface without one)."""
    x, y = axes()
    inside = scene.cover > 0.5
    outline = _near(~inside) & inside & (np.abs(x) < SIDE / 2 - 3) & (np.abs(y) < SIDE / 2 - 3)
    return _position(rng, outline) or somewhere(scene, rng, 9)


def _sample(image: Array, x: Array, y: Array) -> Array:
    """The image (H, W, C) read at positions in units, bilinearly."""
    u = np.clip((x + SIDE / 2) / PIXEL - 0.5, 0, SIZE - 1.001)
    v = np.clip((y + SIDE / 2) / PIXEL - 0.5, 0, SIZE - 1.001)
    iu, iv = u.astype(int), v.astype(int)
    fu, fv = (u - iu)[:, :, None], (v - iv)[:, :, None]
    top = image[iv, iu] * (1 - fu) + image[iv, iu + 1] * fu
    low = image[iv + 1, iu] * (1 - fu) + image[iv + 1, iu + 1] * fu
    return np.asarray(top * (1 - fv) + low * fv)


DEFECTS: Mapping[str, Defect] = {
    f.__name__: f for f in (scratch, crack, hole, stain, contamination, missing, bent)
}


def spoil(scene: Scene, kind: str, rng: Rng, strength: float) -> tuple[Scene, Mask]:
    """The scene with one defect, and its mask, within the limits on its size and on what it changes.

    Raises:
        RuntimeError: forty attempts gave no such defect.
    """
    before = scene.image()
    for attempt in range(40):
        spoiled, mask = DEFECTS[kind](scene, rng, min(1.0, strength + 0.025 * attempt))
        if not SMALLEST <= mask.mean() <= LARGEST:
            continue
        change = np.abs(spoiled.image() - before).max(axis=2)
        if float(change[mask].mean()) >= VISIBLE:
            return spoiled, mask
    raise RuntimeError(f"no visible {kind} could be drawn")
