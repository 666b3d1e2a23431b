"""The shipped categories: how a normal example of each looks, and which defects it may have.

They form two halves (`HALVES` of the package). No shape or texture family of one half is drawn in the other, so
that one half can teach a detector that is tested on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .noise import SIDE, SIZE, Array, Rng, axes, blur, coverage, mix, noise_at, step, turn
from .scenes import Pose, Scene, body, shape_distance, surface
from .shapes import box, circle, polygon
from .textures import brushed, checked, confetti, knitted, mesh, paint, pattern, terrazzo, weave, wood

_TAU = 2 * np.pi


def _jitter(rng: Rng, colour: tuple[float, float, float], by: float = 0.07) -> Array:
    return np.clip(np.array(colour) + rng.uniform(-by, by, 3) * 0.6 + rng.uniform(-by, by), 0.0, 1.0)


def _choice(rng: Rng, *colours: tuple[float, float, float]) -> Array:
    """One of the colours in which the category is made."""
    return _jitter(rng, colours[int(rng.integers(len(colours)))])


def _shifted(rng: Rng, angle: float) -> tuple[Array, Array]:
    u, v = turn(*axes(), angle)
    return u + rng.uniform(0, 900), v + rng.uniform(0, 900)


def _pose(rng: Rng, radius: float, *, angle: float | None = None) -> Pose:
    x, y = rng.uniform(-3.5, 3.5, 2)
    turned = rng.uniform(0, _TAU) if angle is None else angle + rng.uniform(-0.25, 0.25)
    return Pose(float(x), float(y), radius * rng.uniform(0.92, 1.06), turned)


def _ground(rng: Rng, colour: tuple[float, float, float]) -> Array:
    tone = _jitter(rng, colour, 0.05)
    return paint(pattern("plain", rng), tone * 0.92, np.clip(tone * 1.06, 0, 1))


def _light(rng: Rng) -> float:
    return float(rng.uniform(0.4, 1.2))


def fabric(rng: Rng) -> Scene:
    """Woven cloth with pinstripes, each a dark line beside a light one."""
    u, v = _shifted(rng, rng.uniform(-0.3, 0.3))
    woven = weave(rng, u, v)
    yarn = _choice(rng, (0.66, 0.58, 0.44), (0.45, 0.55, 0.66), (0.70, 0.50, 0.50))
    image = paint(woven, yarn * 0.45, np.clip(yarn * 1.25, 0, 1))
    period, width = rng.uniform(20, 40), rng.uniform(1.0, 1.8)
    along = (u + rng.uniform(0, 50)) % period
    for start, tone in ((2.0, 0.08), (2.0 + 2 * width, 0.92)):
        line = coverage(np.abs(along - start) - width)
        image = mix(image, paint(woven, np.full(3, tone * 0.75), np.full(3, tone)), line)
    return surface(image, _ground(rng, (0.12, 0.11, 0.12)))


def plank(rng: Rng) -> Scene:
    """Wooden boards side by side, pale or dark, with straight black gaps."""
    u, v = _shifted(rng, rng.uniform(-0.35, 0.35))
    brown = _choice(rng, (0.74, 0.54, 0.33), (0.58, 0.38, 0.22), (0.82, 0.68, 0.48))
    image = paint(wood(rng, u, v), np.clip(brown * 1.12, 0, 1), brown * 0.62)
    width = rng.uniform(20, 36)
    across = (u + rng.uniform(0, 50)) / width
    tones = rng.uniform(0.85, 1.1, 64)[np.floor(across).astype(int) % 64]
    gap = coverage(np.abs(across - np.round(across)) * width - rng.uniform(0.6, 1.2))
    image = mix(np.clip(image * tones[:, :, None], 0, 1), brown * 0.1, gap)
    return surface(image, _ground(rng, (0.10, 0.08, 0.07)))


def jumper(rng: Rng) -> Scene:
    """Knitted wool with rows of a second colour, dark on light or light on dark."""
    u, v = _shifted(rng, rng.uniform(-0.25, 0.25))
    stitches = knitted(rng, u, v)
    wool = _choice(rng, (0.30, 0.45, 0.62), (0.80, 0.74, 0.62), (0.40, 0.58, 0.42))
    image = paint(stitches, wool * 0.4, np.clip(wool * 1.2, 0, 1))
    period, offset = rng.uniform(22, 40), rng.uniform(0, 40)
    rows = step(0.35, 0.4, np.cos(_TAU * (v + offset) / period))
    other = _jitter(rng, (0.10, 0.10, 0.14) if wool.mean() > 0.55 else (0.92, 0.90, 0.86), 0.06)
    image = mix(image, paint(stitches, other * 0.55, other), rows)
    return surface(image, _ground(rng, (0.10, 0.10, 0.11)))


def washer(rng: Rng) -> Scene:
    """A flat metal ring with brush marks."""
    pose = _pose(rng, 27)
    metal = _choice(rng, (0.62, 0.63, 0.64), (0.68, 0.60, 0.46))
    u, v = _shifted(rng, pose.angle)
    fill = paint(brushed(rng, u, v), metal * 0.72, np.clip(metal * 1.25, 0, 1))
    pu, pv = pose.local()
    distance = np.maximum(circle(pu, pv, 0.97), -circle(pu, pv, rng.uniform(0.40, 0.48))) * pose.radius
    return body(distance, fill, _ground(rng, (0.28, 0.33, 0.42)), light=_light(rng), bevel=3.0)


def button(rng: Rng) -> Scene:
    """A round four-hole button with a raised rim, sewn on with dark or light thread."""
    pose = _pose(rng, 27)
    pu, pv = pose.local()
    distance = circle(pu, pv, 0.94)
    for cu, cv in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        distance = np.maximum(distance, -circle(pu, pv, 0.125, cu * 0.23, cv * 0.23))
    horn = _choice(rng, (0.30, 0.50, 0.54), (0.62, 0.34, 0.34), (0.40, 0.42, 0.62))
    fill = paint(pattern("clouded", rng), horn * 0.85, np.clip(horn * 1.15, 0, 1))
    rim = np.exp(-(((np.hypot(pu, pv) - 0.74) / 0.06) ** 2))
    fill = mix(fill, np.clip(fill * 1.45, 0, 1), 0.6 * rim)
    thread = _jitter(rng, (0.08, 0.08, 0.10) if rng.random() < 0.6 else (0.95, 0.94, 0.90), 0.05)
    for side in (-1, 1):
        fill = mix(fill, thread, coverage(box(pu, pv - side * 0.23, 0.30, 0.055, 0.03) * pose.radius))
    ground = _ground(rng, (0.80, 0.74, 0.62))
    return body(distance * pose.radius, fill, ground, light=_light(rng), bevel=4, depth=0.35)


def chip(rng: Rng) -> Scene:
    """A dark case with four metal legs on each side and a round mark at one end."""
    pose = _pose(rng, 27, angle=0.0 if rng.random() < 0.5 else np.pi)
    pu, pv = pose.local()
    legs = shape_distance("chip", rng, pose)
    case = box(pu, pv, 0.98, 0.58, 0.06) * pose.radius
    tin = _jitter(rng, (0.82, 0.82, 0.78), 0.05)
    ground = _ground(rng, (0.16, 0.42, 0.30) if rng.random() < 0.6 else (0.18, 0.26, 0.48))
    pins = body(legs, np.broadcast_to(tin, (SIZE, SIZE, 3)), ground, light=_light(rng), bevel=2)
    dark = _choice(rng, (0.20, 0.20, 0.22), (0.30, 0.27, 0.25))
    skin = paint(pattern("plain", rng), dark * 0.9, dark * 1.15)
    skin = mix(skin, np.array([0.75, 0.75, 0.75]), coverage(circle(pu, pv, 0.09, -0.76, 0.28) * pose.radius))
    inside = coverage(case)
    front = mix(pins.front, skin, inside)
    parts = tuple((*pose.place((k - 1.5) * 0.44, side * 0.80), 6.0) for k in range(4) for side in (-1, 1))
    return Scene(front, pins.back, np.maximum(pins.cover, inside), pins.shadow, parts)


def wire_mesh(rng: Rng) -> Scene:
    """Crossing wires over a dark ground; the openings show the ground."""
    u, v = _shifted(rng, rng.uniform(-0.25, 0.25))
    wires = mesh(rng, u, v)
    metal = _choice(rng, (0.72, 0.74, 0.76), (0.74, 0.62, 0.42))
    front = paint(np.clip(wires + 0.15 * (noise_at(rng, u / 2, v / 2) - 0.5), 0, 1), metal * 0.35, metal * 1.15)
    cover = blur(np.asarray(wires > 0.05, dtype=np.float64), 0.4)
    x, y = axes()
    inner = (wires > 0.2) & (np.abs(x) < SIDE / 2 - 9) & (np.abs(y) < SIDE / 2 - 9)
    columns, rows = x[inner], y[inner]
    parts = tuple((float(columns[k]), float(rows[k]), 7.5) for k in rng.integers(len(rows), size=6))
    ground = _ground(rng, (0.20, 0.20, 0.23))
    return replace(surface(np.clip(front, 0, 1), ground), cover=cover, parts=parts)


def slab(rng: Rng) -> Scene:
    """A polished slab of dark and light stone chips in cement."""
    u, v = _shifted(rng, rng.uniform(0, np.pi))
    cement = _choice(rng, (0.70, 0.67, 0.62), (0.55, 0.57, 0.60), (0.72, 0.60, 0.54))
    chips = np.clip(0.45 + (terrazzo(rng, u, v) - 0.45) * rng.uniform(1.0, 1.3), 0, 1)
    image = paint(chips, cement * 0.25, np.clip(cement * 1.7, 0, 1))
    return surface(image, _ground(rng, (0.16, 0.15, 0.15)))


def tile(rng: Rng) -> Scene:
    """A glazed tile with a chessboard of two colours."""
    u, v = _shifted(rng, rng.uniform(-0.2, 0.2))
    light = _choice(rng, (0.88, 0.86, 0.80), (0.80, 0.86, 0.88))
    other = _choice(rng, (0.20, 0.26, 0.42), (0.46, 0.20, 0.16), (0.20, 0.20, 0.22))
    glaze = 0.94 + 0.1 * pattern("plain", rng)
    image = paint(checked(rng, u, v), light, other) * glaze[:, :, None]
    return surface(np.clip(image, 0, 1), _ground(rng, (0.14, 0.13, 0.13)))


def capsule(rng: Rng) -> Scene:
    """A two-part medicine capsule with two printed dark rings and a gloss along its side."""
    pose = _pose(rng, 28)
    pu, pv = pose.local()
    distance = box(pu, pv, 1.0, 0.46, 0.46) * pose.radius
    first = _choice(rng, (0.82, 0.34, 0.24), (0.30, 0.52, 0.76), (0.36, 0.62, 0.40))
    second = _jitter(rng, (0.90, 0.84, 0.66), 0.06)
    fill = mix(np.broadcast_to(first, (SIZE, SIZE, 3)), second, step(-0.02, 0.02, pu - rng.uniform(-0.05, 0.08)))
    ring = rng.uniform(0.14, 0.5) * rng.choice((-1, 1))
    for shift in (-0.07, 0.07):
        printed = coverage((np.abs(pu - ring - shift) - rng.uniform(0.03, 0.045)) * pose.radius)
        fill = mix(fill, np.full(3, 0.06), printed)
    gloss = np.exp(-(((pv + 0.17) / 0.08) ** 2)) * (np.abs(pu) < 0.8)
    fill = mix(fill, np.ones(3), 0.45 * blur(gloss, 0.8))
    return body(distance, fill, _ground(rng, (0.46, 0.50, 0.56)), light=_light(rng), bevel=9, depth=0.5)


def gear(rng: Rng) -> Scene:
    """A toothed wheel with a round bore and turning marks."""
    pose = _pose(rng, 27)
    distance = shape_distance("gear", rng, pose)
    alloy = _choice(rng, (0.74, 0.60, 0.32), (0.60, 0.62, 0.66), (0.70, 0.46, 0.34))
    radius = np.hypot(*pose.local())
    fill = paint(0.5 + 0.2 * np.sin(radius * 40 + rng.uniform(0, 6)), alloy * 0.8, alloy * 1.15)
    fill = mix(fill, fill * 0.72, step(0.56, 0.52, radius) * step(0.36, 0.4, radius))
    scene = body(distance, np.clip(fill, 0, 1), _ground(rng, (0.34, 0.32, 0.36)), light=_light(rng), bevel=3)
    angles = [_TAU * k / 9 for k in range(9)]
    return replace(scene, parts=tuple((*pose.place(0.9 * np.cos(a), 0.9 * np.sin(a)), 6.5) for a in angles))


def biscuit(rng: Rng) -> Scene:
    """A six-sided biscuit with rounded corners, strewn with pearls of dark chocolate or white sugar."""
    pose = _pose(rng, 27)
    pu, pv = pose.local()
    distance = (polygon(pu, pv, 6, 0.72) - 0.16) * pose.radius
    dough = _choice(rng, (0.80, 0.62, 0.38), (0.46, 0.30, 0.20), (0.90, 0.80, 0.62))
    fill = paint(pattern("sandy", rng), dough * 0.85, np.clip(dough * 1.12, 0, 1))
    u, v = _shifted(rng, pose.angle)
    pearls = confetti(rng, u, v) * step(-1.0, -3.0, distance)
    pearl = _jitter(rng, (0.14, 0.08, 0.06) if dough.mean() > 0.6 else (0.96, 0.94, 0.91), 0.05)
    fill = mix(fill, pearl, pearls)
    return body(distance, fill, _ground(rng, (0.52, 0.60, 0.62)), light=_light(rng), bevel=6, depth=0.4)


@dataclass(frozen=True)
class Category:
    """Painter of a normal scene, and the defect types of the test images."""

    draw: Callable[[Rng], Scene]
    defects: tuple[str, ...]


CATEGORIES: Mapping[str, Category] = {
    "biscuit": Category(biscuit, ("contamination", "crack", "missing")),
    "button": Category(button, ("contamination", "crack", "missing")),
    "capsule": Category(capsule, ("crack", "hole", "scratch")),
    "chip": Category(chip, ("bent", "missing", "scratch")),
    "fabric": Category(fabric, ("contamination", "hole", "stain")),
    "gear": Category(gear, ("missing", "scratch", "stain")),
    "knit": Category(jumper, ("contamination", "hole", "stain")),
    "mesh": Category(wire_mesh, ("bent", "contamination", "missing")),
    "terrazzo": Category(slab, ("crack", "hole", "stain")),
    "tile": Category(tile, ("crack", "scratch", "stain")),
    "washer": Category(washer, ("missing", "scratch", "stain")),
    "wood": Category(plank, ("crack", "hole", "scratch")),
}
