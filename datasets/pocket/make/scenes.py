"""A scene: what lies in front, what lies behind, and how much of the front covers each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .noise import PIXEL, SIDE, SIZE, Array, Rng, axes, blur, coverage, mix, smooth_noise, step, turn
from .shapes import SHAPES


@dataclass(frozen=True)
class Pose:
    """Position of an object: its centre and radius in units, its turn in radians."""

    x: float = 0.0
    y: float = 0.0
    radius: float = 24.0
    angle: float = 0.0

    def local(self) -> tuple[Array, Array]:
        """The image's coordinates in the object's frame, in units of its radius."""
        x, y = axes()
        u, v = turn(x - self.x, y - self.y, self.angle)
        return u / self.radius, v / self.radius

    def place(self, u: float, v: float) -> tuple[float, float]:
        """The position in the image of a point of the object's frame."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        return self.x + self.radius * (c * u - s * v), self.y + self.radius * (s * u + c * v)


@dataclass(frozen=True)
class Scene:
    """Front and back images (H, W, 3) in [0, 1], the front's coverage (H, W), and its shadow on the back.

    `parts` are (x, y, radius) in units: what a missing or bent part may be (a leg, a tooth, a wire).
    """

    front: Array
    back: Array
    cover: Array
    shadow: Array
    parts: tuple[tuple[float, float, float], ...] = ()

    def image(self) -> Array:
        """The composed image, still free of light, noise and rounding."""
        return mix(self.back * (1.0 - self.shadow)[:, :, None], self.front, self.cover)


def shade(distance: Array, bevel: float, light: float, depth: float) -> Array:
    """Brightness factor of a body whose edge is rounded over `bevel` units, lit from the angle `light`."""
    height = np.sqrt(np.clip(-distance / bevel, 0.0, 1.0))
    dy, dx = np.gradient(blur(height, 0.8))
    return np.asarray(1.0 + depth * (dx * np.cos(light) + dy * np.sin(light)) * 4.0 / PIXEL)


def body(
    distance: Array, fill: Array, back: Array, *, light: float, bevel: float = 5.0, depth: float = 0.3
) -> Scene:
    """The scene of one body (a signed distance in units) filled with an image, with a soft shadow behind."""
    cover = coverage(distance)
    front = np.clip(fill * shade(distance, bevel, light, depth)[:, :, None], 0.0, 1.0)
    shift = np.round(2 / PIXEL * np.array([np.sin(light), np.cos(light)])).astype(int)
    dark = 0.35 * np.roll(blur(cover, 2.0), tuple(shift), (0, 1))
    return Scene(front, back, cover, dark)


def surface(front: Array, back: Array) -> Scene:
    """The scene of a texture that fills the image; `back` shows where it is torn."""
    return Scene(front, back, np.ones((SIZE, SIZE)), np.zeros((SIZE, SIZE)))


def shape_distance(name: str, rng: Rng, pose: Pose) -> Array:
    """The signed distance to a shape in units."""
    u, v = pose.local()
    return SHAPES[name](rng, u, v) * pose.radius


def expose(image: Array, rng: Rng, *, gain: float = 0.2, slope: float = 0.2, grain: float = 0.006) -> Array:
    """The image as a camera takes it: exposure, uneven light, a colour cast, a little blur and noise."""
    x, y = axes()
    angle = rng.uniform(0, 2 * np.pi)
    light = 1.0 + rng.uniform(-gain, gain)
    light = light + rng.uniform(0, slope) * (x * np.cos(angle) + y * np.sin(angle)) / (SIDE / 2)
    cast = 1.0 + rng.uniform(-0.15, 0.15, 3) * gain
    taken = blur(image * light[:, :, None] * cast, rng.uniform(0.0, 0.55))
    noise = rng.random((SIZE, SIZE, 3)) + rng.random((SIZE, SIZE, 3)) - 1.0
    return np.clip(taken + noise * grain * 2.4, 0.0, 1.0)


def quantise(image: Array, bits: int = 6) -> NDArray[np.uint8]:
    """8-bit pixels with only `bits` significant bits, so that PNG compresses them."""
    levels = 2**bits - 1
    pixels: NDArray[np.uint8] = np.floor(np.floor(image * levels + 0.5) * (255 / levels) + 0.5).astype(np.uint8)
    return pixels


def blotch(rng: Rng, x: float, y: float, radius: float, *, ragged: float = 0.5, soft: float = 1.0) -> Array:
    """Coverage of an irregular blob around (x, y)."""
    px, py = axes()
    stretch, angle = rng.uniform(0.7, 1.4), rng.uniform(0, np.pi)
    u, v = turn(px - x, py - y, angle)
    reach = np.hypot(u * stretch, v / stretch)
    wobble = (smooth_noise(rng, 9) - 0.5) * 2 * ragged * radius
    return step(radius + soft, radius - soft, reach + wobble)


def stroke(points: Array, width: float) -> Array:
    """Coverage of a line through points (n, 2), antialiased; all lengths in units."""
    x, y = axes()
    distance = np.full(x.shape, 1e3)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = bx - ax, by - ay
        t = np.clip(((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)
        distance = np.minimum(distance, np.hypot(x - ax - t * dx, y - ay - t * dy))
    return coverage(distance - width / 2)
