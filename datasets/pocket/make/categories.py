"""The nine shipped categories: how a normal example of each looks, and which defects it may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .noise import Array, Rng, axes, blur, cells, cloud, mix, noise_at, step, turn
from .scenes import Pose, Scene, body, shape_distance, stroke, surface
from .shapes import box, circle
from .textures import brushed, mesh, paint, pattern, weave, wood


def _jitter(rng: Rng, colour: tuple[float, float, float], by: float = 0.05) -> Array:
    return np.clip(np.array(colour) + rng.uniform(-by, by, 3) * 0.6 + rng.uniform(-by, by), 0.0, 1.0)


def _shifted(rng: Rng, angle: float) -> tuple[Array, Array]:
    u, v = turn(*axes(), angle)
    return u + rng.uniform(0, 900), v + rng.uniform(0, 900)


def _pose(rng: Rng, radius: float, *, angle: float | None = None) -> Pose:
    x, y = rng.uniform(-3.5, 3.5, 2)
    turned = rng.uniform(0, 2 * np.pi) if angle is None else angle + rng.uniform(-0.25, 0.25)
    return Pose(float(x), float(y), radius * rng.uniform(0.92, 1.06), turned)


def _ground(rng: Rng, colour: tuple[float, float, float]) -> Array:
    tone = _jitter(rng, colour, 0.04)
    return paint(pattern("plain", rng), tone * 0.9, np.clip(tone * 1.08, 0, 1))


def _light(rng: Rng) -> float:
    return float(rng.uniform(0.4, 1.2))


def fabric(rng: Rng) -> Scene:
    """Woven cloth of two yarns; some pieces have a woven stripe."""
    u, v = _shifted(rng, rng.uniform(-0.3, 0.3))
    woven = weave(rng, u, v)
    yarn = _jitter(rng, (0.62, 0.55, 0.42), 0.07)
    image = paint(woven, yarn * 0.45, np.clip(yarn * 1.25, 0, 1))
    if rng.random() < 0.45:
        period, offset = rng.uniform(26, 50), rng.uniform(0, 50)
        band = step(0.8, 1.0, np.cos(2 * np.pi * (u + offset) / period))
        image = mix(image, image * _jitter(rng, (0.65, 0.75, 0.95), 0.1), band)
    return surface(image, _ground(rng, (0.12, 0.11, 0.12)))


def plank(rng: Rng) -> Scene:
    """A wooden board, sometimes with a knot."""
    u, v = _shifted(rng, rng.uniform(-0.35, 0.35))
    grain = wood(rng, u, v)
    brown = _jitter(rng, (0.70, 0.50, 0.30), 0.06)
    image = paint(grain, np.clip(brown * 1.12, 0, 1), brown * 0.58)
    if rng.random() < 0.5:
        x, y = rng.uniform(-24, 24, 2)
        a, b = turn(axes()[0] - x, axes()[1] - y, rng.uniform(-0.3, 0.3))
        reach = np.hypot(a * 1.3, b * 0.8) / rng.uniform(2.5, 5.0)
        knot = np.exp(-(reach**2)) * (0.75 + 0.25 * np.cos(reach * 7))
        image = mix(image, brown * 0.4, np.clip(knot, 0, 1))
    return surface(image, _ground(rng, (0.10, 0.08, 0.07)))


def terrazzo(rng: Rng) -> Scene:
    """A polished slab of stone chips in cement."""
    u, v = _shifted(rng, rng.uniform(0, np.pi))
    near, second, number = cells(rng, u, v, rng.uniform(6.0, 9.0))
    binder = paint(
        cloud(rng, 8, 3), _jitter(rng, (0.62, 0.60, 0.57), 0.05), _jitter(rng, (0.72, 0.70, 0.66), 0.05)
    )
    chips = np.stack([0.35 + 0.55 * (number * k % 1) for k in (7.3, 7.3, 7.3)], axis=2)
    chips = chips * (1 + 0.12 * np.stack([(number * k % 1) - 0.5 for k in (13.7, 5.1, 31.3)], axis=2))
    image = mix(binder, np.clip(chips, 0, 1), step(0.6, 1.8, second - near) * (number > 0.45))
    return surface(image, _ground(rng, (0.16, 0.15, 0.15)))


def wire_mesh(rng: Rng) -> Scene:
    """Crossing wires over a dark ground; the openings show the ground."""
    angle = rng.uniform(-0.25, 0.25)
    u, v = _shifted(rng, angle)
    wires = mesh(rng, u, v)
    metal = _jitter(rng, (0.70, 0.72, 0.74), 0.06)
    front = paint(np.clip(wires + 0.15 * (noise_at(rng, u / 2, v / 2) - 0.5), 0, 1), metal * 0.35, metal * 1.15)
    cover = blur(np.asarray(wires > 0.05, dtype=np.float64), 0.4)
    rows, columns = np.nonzero((wires > 0.2)[8:-8, 8:-8])
    parts = []
    for _ in range(6):
        k = int(rng.integers(len(rows)))
        parts.append((columns[k] + 8.5 - 32, rows[k] + 8.5 - 32, 3.6))
    return replace(
        surface(np.clip(front, 0, 1), _ground(rng, (0.22, 0.22, 0.25))), cover=cover, parts=tuple(parts)
    )


def washer(rng: Rng) -> Scene:
    """A flat metal ring with brush marks."""
    pose = _pose(rng, 25)
    light = _light(rng)
    metal = _jitter(rng, (0.66, 0.66, 0.65), 0.06)
    u, v = _shifted(rng, pose.angle)
    fill = paint(brushed(rng, u, v), metal * 0.72, np.clip(metal * 1.25, 0, 1))
    pu, pv = pose.local()
    distance = np.maximum(circle(pu, pv, 0.97), -circle(pu, pv, rng.uniform(0.44, 0.5))) * pose.radius
    return body(distance, fill, _ground(rng, (0.28, 0.33, 0.42)), light=light, bevel=3.0)


def capsule(rng: Rng) -> Scene:
    """A two-part medicine capsule; most carry a printed mark."""
    pose = _pose(rng, 27)
    pu, pv = pose.local()
    distance = box(pu, pv, 1.0, 0.42, 0.42) * pose.radius
    first, second = _jitter(rng, (0.82, 0.32, 0.22), 0.06), _jitter(rng, (0.90, 0.84, 0.66), 0.05)
    fill = mix(first, second, step(-0.03, 0.03, pu - rng.uniform(-0.05, 0.08)))
    fill = mix(fill, fill * 0.75, np.exp(-(((pu - 0.06) / 0.03) ** 2)))
    gloss = np.exp(-(((pv + 0.17) / 0.08) ** 2)) * (np.abs(pu) < 0.8)
    fill = mix(fill, np.ones(3), 0.45 * blur(gloss, 0.8))
    if rng.random() < 0.7:
        for k in range(int(rng.integers(2, 4))):
            a = pose.place(0.3 + 0.16 * k, 0.12)
            b = pose.place(0.3 + 0.16 * k + rng.uniform(-0.05, 0.08), 0.3)
            fill = mix(fill, fill * 0.55, stroke(np.array([a, b]), 1.2))
    return body(distance, fill, _ground(rng, (0.82, 0.84, 0.86)), light=_light(rng), bevel=9, depth=0.5)


def button(rng: Rng) -> Scene:
    """A round four-hole button with a raised rim."""
    pose = _pose(rng, 26)
    pu, pv = pose.local()
    distance = circle(pu, pv, 0.92)
    for cu, cv in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        distance = np.maximum(distance, -circle(pu, pv, 0.125, cu * 0.23, cv * 0.23))
    horn = _jitter(rng, (0.30, 0.47, 0.50), 0.08)
    fill = paint(pattern("clouded", rng), horn * 0.8, np.clip(horn * 1.2, 0, 1))
    rim = np.exp(-(((np.hypot(pu, pv) - 0.72) / 0.06) ** 2))
    fill = mix(fill, np.clip(fill * 1.45, 0, 1), 0.6 * rim)
    scene = body(
        distance * pose.radius, fill, _ground(rng, (0.78, 0.70, 0.58)), light=_light(rng), bevel=4, depth=0.35
    )
    parts = tuple((*pose.place(0.86 * np.cos(a), 0.86 * np.sin(a)), 6.0) for a in rng.uniform(0, 2 * np.pi, 6))
    return replace(scene, parts=parts)


def chip(rng: Rng) -> Scene:
    """A black case with four metal legs on each side and a mark at one end."""
    pose = _pose(rng, 24, angle=0.0 if rng.random() < 0.5 else np.pi)
    pu, pv = pose.local()
    legs = shape_distance("chip", rng, pose)
    case = box(pu, pv, 0.98, 0.58, 0.06) * pose.radius
    tin = _jitter(rng, (0.80, 0.80, 0.76), 0.05)
    board = _jitter(rng, (0.16, 0.42, 0.30), 0.05)
    ground = paint(pattern("sandy", rng), board * 0.85, board * 1.15)
    for _ in range(int(rng.integers(1, 4))):
        end = rng.uniform(-32, 32, 4)
        ground = mix(ground, np.clip(board * 1.5, 0, 1), stroke(np.array([end[:2], end[2:]]), 1.6))
    pins = body(legs, np.broadcast_to(tin, (64, 64, 3)), ground, light=_light(rng), bevel=2)
    black = _jitter(rng, (0.17, 0.17, 0.18), 0.03)
    skin = paint(pattern("sandy", rng), black * 0.8, black * 1.25)
    skin = mix(skin, np.array([0.55, 0.55, 0.55]), step(0.08, 0.04, circle(pu, pv, 0.02, -0.78, 0.3)))
    for k in range(int(rng.integers(3, 6))):
        a, b = pose.place(-0.4 + 0.2 * k, -0.12), pose.place(-0.4 + 0.2 * k + rng.uniform(0, 0.12), 0.12)
        skin = mix(skin, np.array([0.5, 0.5, 0.5]), 0.7 * stroke(np.array([a, b]), 1.0))
    inside = np.clip(0.5 - case, 0, 1)
    front = mix(pins.front, skin, inside)
    parts = tuple((*pose.place((k - 1.5) * 0.44, side * 0.78), 4.4) for k in range(4) for side in (-1, 1))
    return Scene(front, pins.back, np.maximum(pins.cover, inside), pins.shadow, parts)


def gear(rng: Rng) -> Scene:
    """A toothed wheel with a round bore."""
    pose = _pose(rng, 26)
    distance = shape_distance("gear", rng, pose)
    brass = _jitter(rng, (0.74, 0.60, 0.32), 0.06)
    pu, pv = pose.local()
    radius = np.hypot(pu, pv)
    fill = paint(0.5 + 0.5 * np.sin(radius * 40 + rng.uniform(0, 6)) * 0.4, brass * 0.8, brass * 1.15)
    fill = mix(fill, fill * 0.72, step(0.56, 0.52, radius) * step(0.36, 0.4, radius))
    scene = body(distance, np.clip(fill, 0, 1), _ground(rng, (0.34, 0.32, 0.36)), light=_light(rng), bevel=3)
    sectors = [2 * np.pi * k / 9 for k in range(9)]
    parts = tuple((*pose.place(0.9 * np.cos(a), 0.9 * np.sin(a)), 5.0) for a in sectors)
    return replace(scene, parts=parts)


@dataclass(frozen=True)
class Category:
    """Painter of a normal scene, and the defect types of the test images."""

    draw: Callable[[Rng], Scene]
    defects: tuple[str, ...]


CATEGORIES: Mapping[str, Category] = {
    "button": Category(button, ("contamination", "crack", "missing")),
    "capsule": Category(capsule, ("crack", "hole", "scratch")),
    "chip": Category(chip, ("bent", "contamination", "missing", "scratch")),
    "fabric": Category(fabric, ("contamination", "hole", "stain")),
    "gear": Category(gear, ("crack", "missing", "stain")),
    "mesh": Category(wire_mesh, ("bent", "contamination", "missing")),
    "terrazzo": Category(terrazzo, ("crack", "scratch", "stain")),
    "washer": Category(washer, ("missing", "scratch", "stain")),
    "wood": Category(plank, ("crack", "hole", "scratch", "stain")),
}
