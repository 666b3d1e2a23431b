"""Shape families: signed distances (negative inside) in a frame where an object has a radius of about 1."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from .noise import Array, Rng, turn

Shape = Callable[[Rng, Array, Array], Array]


def box(u: Array, v: Array, a: float, b: float, corner: float = 0.0) -> Array:
    """A rectangle of half sides a and b, its corners rounded."""
    du, dv = np.abs(u) - a + corner, np.abs(v) - b + corner
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return np.asarray(outside + np.minimum(np.maximum(du, dv), 0) - corner)


def circle(u: Array, v: Array, radius: float, cu: float = 0.0, cv: float = 0.0) -> Array:
    """A disc."""
    return np.asarray(np.hypot(u - cu, v - cv) - radius)


def polygon(u: Array, v: Array, sides: int, radius: float) -> Array:
    """A regular polygon; `radius` is that of the inscribed circle."""
    distance = np.full(u.shape, -9.0)
    for k in range(sides):
        angle = 2 * np.pi * k / sides
        distance = np.maximum(distance, u * np.cos(angle) + v * np.sin(angle) - radius)
    return distance


def disc(rng: Rng, u: Array, v: Array) -> Array:
    return circle(u, v, 0.9)


def ring(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(circle(u, v, 0.95), -circle(u, v, rng.uniform(0.32, 0.62)))


def plate(rng: Rng, u: Array, v: Array) -> Array:
    return box(u, v, 0.8, 0.8, rng.uniform(0, 0.25))


def bar(rng: Rng, u: Array, v: Array) -> Array:
    return box(u, v, 1.05, rng.uniform(0.22, 0.45), 0.05)


def card(rng: Rng, u: Array, v: Array) -> Array:
    return box(u, v, 0.95, rng.uniform(0.55, 0.7), 0.15)


def capsule(rng: Rng, u: Array, v: Array) -> Array:
    half = rng.uniform(0.34, 0.46)
    return box(u, v, 1.0, half, half)


def egg(rng: Rng, u: Array, v: Array) -> Array:
    return np.asarray((np.hypot(u / 0.95, v / (0.68 + 0.1 * u)) - 1) * 0.7)


def triangle(rng: Rng, u: Array, v: Array) -> Array:
    return polygon(u, v, 3, 0.5)


def pentagon(rng: Rng, u: Array, v: Array) -> Array:
    return polygon(u, v, 5, 0.75)


def octagon(rng: Rng, u: Array, v: Array) -> Array:
    return polygon(u, v, 8, 0.85)


def nut(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(polygon(u, v, 6, 0.82), -circle(u, v, rng.uniform(0.36, 0.5)))


def star(rng: Rng, u: Array, v: Array) -> Array:
    angle = (np.arctan2(v, u) + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5
    radius = np.hypot(u, v)
    a, b = radius * np.cos(angle), np.abs(radius * np.sin(angle))
    return np.asarray((a * 0.53 + b * 0.85) - 0.5)


def cross(rng: Rng, u: Array, v: Array) -> Array:
    width = rng.uniform(0.22, 0.34)
    return np.minimum(box(u, v, 0.95, width), box(u, v, width, 0.95))


def bracket(rng: Rng, u: Array, v: Array) -> Array:
    return np.minimum(box(u + 0.55, v, 0.28, 0.9), box(u - 0.05, v - 0.62, 0.85, 0.28))


def tee(rng: Rng, u: Array, v: Array) -> Array:
    return np.minimum(box(u, v + 0.6, 0.9, 0.28), box(u, v - 0.15, 0.28, 0.85))


def crescent(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(circle(u, v, 0.95), -circle(u, v, 0.8, 0.5))


def dome(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(circle(u, v - 0.4, 1.0), v - 0.4)


def button(rng: Rng, u: Array, v: Array) -> Array:
    distance, offset, hole = circle(u, v, 0.9), rng.uniform(0.24, 0.32), rng.uniform(0.11, 0.16)
    for cu, cv in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        distance = np.maximum(distance, -circle(u, v, hole, cu * offset, cv * offset))
    return distance


def link(rng: Rng, u: Array, v: Array) -> Array:
    outer = box(u, v, 1.0, 0.6, 0.55)
    return np.abs(outer + 0.16) - 0.16


def frame(rng: Rng, u: Array, v: Array) -> Array:
    outer = box(u, v, 0.88, 0.88, 0.08)
    return np.abs(outer + 0.15) - 0.15


def arrow(rng: Rng, u: Array, v: Array) -> Array:
    return np.minimum(polygon(u - 0.35, v, 3, 0.3), box(u + 0.35, v, 0.6, 0.18))


def wedge(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(np.abs(v) - 0.45 - 0.25 * u, np.abs(u) - 0.9)


def bottle(rng: Rng, u: Array, v: Array) -> Array:
    body = box(u, v - 0.25, 0.42, 0.72, 0.15)
    neck = box(u, v + 0.7, 0.16, 0.32, 0.03)
    shoulder = circle(u, v + 0.35, 0.36)
    return np.minimum(np.minimum(body, neck), shoulder)


def key(rng: Rng, u: Array, v: Array) -> Array:
    bow = np.abs(circle(u, v, 0.28, -0.6)) - 0.11
    blade = box(u - 0.3, v, 0.72, 0.09)
    teeth = np.minimum(box(u - 0.8, v - 0.2, 0.08, 0.16), box(u - 0.5, v - 0.17, 0.07, 0.13))
    return np.minimum(np.minimum(bow, blade), teeth)


def screw(rng: Rng, u: Array, v: Array) -> Array:
    head = box(u + 0.75, v, 0.2, 0.45, 0.08)
    ridges = 0.05 * np.abs((u * 9) % 2 - 1)
    shaft = np.maximum(np.abs(v) - 0.17 + ridges, np.abs(u - 0.15) - 0.75)
    tip = np.maximum(np.abs(v) - (1.15 - u) * 0.6, np.abs(u - 0.95) - 0.15)
    return np.minimum(np.minimum(head, shaft), tip)


def spoon(rng: Rng, u: Array, v: Array) -> Array:
    bowl = (np.hypot((u + 0.6) / 0.42, v / 0.3) - 1) * 0.3
    return np.minimum(bowl, box(u - 0.35, v, 0.65, 0.07, 0.05))


def drop(rng: Rng, u: Array, v: Array) -> Array:
    cone = np.maximum(np.abs(v) - (u + 1.0) * 0.45, u - 0.1)
    return np.minimum(circle(u, v, 0.55, 0.35), cone)


def leaf(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(circle(u, v, 1.1, 0.0, 0.75), circle(u, v, 1.1, 0.0, -0.75))


def heart(rng: Rng, u: Array, v: Array) -> Array:
    a, b = turn(u, v + 0.1, np.pi / 4)
    lobes = np.minimum(circle(a, b, 0.45, 0.0, -0.45), circle(a, b, 0.45, -0.45, 0.0))
    square = box(a, b, 0.45, 0.45)
    return np.minimum(lobes, square)


def strip(rng: Rng, u: Array, v: Array) -> Array:
    return np.maximum(np.abs(v - 0.25 * np.sin(2.5 * u)) - 0.22, np.abs(u) - 1.15)


def gear(rng: Rng, u: Array, v: Array, teeth: int = 9) -> Array:
    """A wheel with square teeth and a round bore."""
    angle, radius = np.arctan2(v, u), np.hypot(u, v)
    sector = 2 * np.pi / teeth
    local = (angle + sector / 2) % sector - sector / 2
    a, b = radius * np.cos(local), radius * np.sin(local)
    tooth = np.maximum(np.abs(b) - 0.17 + 0.08 * (a - 0.7), np.abs(a - 0.78) - 0.24)
    body = np.minimum(radius - 0.74, tooth)
    bored: Array = np.maximum(body, -(radius - 0.27))
    return bored


def chip(rng: Rng, u: Array, v: Array, legs: int = 4) -> Array:
    """The legs of an electronic part, four on a side, without its case."""
    distance = np.full(u.shape, 9.0)
    for k in range(legs):
        offset = (k - (legs - 1) / 2) * 0.44
        distance = np.minimum(distance, box(u - offset, v, 0.085, 0.95))
    return distance


SHAPES: Mapping[str, Shape] = {
    f.__name__: f
    for f in (
        disc, ring, plate, bar, card, capsule, egg, triangle, pentagon, octagon, nut, star, cross, bracket, tee,
        crescent, dome, button, link, frame, arrow, wedge, bottle, key, screw, spoon, drop, leaf, heart, strip,
        gear, chip,
    )
}  # fmt: skip
