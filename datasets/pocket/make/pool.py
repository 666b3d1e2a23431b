"""The pretraining pool: endless captioned renderings, disjoint from the shipped set.

A chunk is a function of (seed, number) alone. It is made of small groups that share shape, texture and
colours and differ in details (marks, labels, bands) and defects, so that these matter.
The families of three shipped categories, `mesh`, `gear` and `chip`, are never drawn here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .captions import (
    BAD,
    BAD_AFTER,
    COLOURS,
    DEFECT_WORDS,
    FINE,
    FINE_AFTER,
    MATERIALS,
    THINGS,
    Caption,
    abnormality,
    article,
    pick,
    sentence,
)
from .defects import somewhere, spoil
from .noise import SIZE, Array, Rng, axes, coverage, mix
from .scenes import (
    Pose,
    Scene,
    blotch,
    body,
    expose,
    quantise,
    shape_distance,
    stroke,
    surface,
)
from .textures import paint, pattern

POOL = 0x706F6F6C  # "pool": the first word of every seed, so that no stream is one of the shipped set's
UNSEEN = ("mesh", "gear", "chip")
CELLS = 24
"""Cells a side of the grid on which the pool keeps where things are drawn."""
DETAILS = ("dot", "dots", "band", "circle", "cross", "label", "letters", "line", "patch")


@dataclass(frozen=True)
class Mixture:
    """Shares of the things that are drawn and said."""

    surfaces: float = 0.4
    defects: float = 0.45
    unnoticed: float = 0.4
    """Of the defective images: captioned as if nothing were wrong."""
    typed: float = 0.4
    """Of the noticed ones: captioned with the type of the defect."""
    praised: float = 0.25
    """Of the normal images: captioned as flawless."""
    defined: float = 0.15
    """Of all images without another word on their state: captioned with a definition."""
    details: float = 0.35
    """Of all images: with normal marks, lines or patches."""
    captions: int = 4
    """For each image."""
    group: int = 4


class Family(NamedTuple):
    """Properties that the images of one group share."""

    shape: str | None
    texture: str
    first: str
    second: str
    ground: str


class DrawnImage(NamedTuple):
    """One rendering with its captions, and all facts that hold of the image.

    `drawn` (3, CELLS, CELLS) is the share of each cell, in 255ths, that the object covers, that normal details
    changed, and that the defect's mask covers.
    """

    image: NDArray[np.uint8]
    captions: tuple[Caption, ...]
    facts: frozenset[str]
    family: Family
    drawn: NDArray[np.uint8]
    defect: str | None


def draw_family(rng: Rng, mixture: Mixture) -> Family:
    """A random family."""
    textures, shapes, colours = list(MATERIALS), list(THINGS), list(COLOURS)
    shape = None if rng.random() < mixture.surfaces else pick(rng, shapes)
    texture = "plain" if shape and rng.random() < 0.3 else pick(rng, textures)
    first, second = pick(rng, colours), pick(rng, colours)
    if texture == "wood" and rng.random() < 0.6:
        first = "brown"
    if texture == "brushed" and rng.random() < 0.6:
        first = "silver"
    ground = pick(rng, [c for c in colours if c != first])
    return Family(shape, texture, first, second, ground)


def _colour(rng: Rng, name: str) -> Array:
    return np.clip(np.array(COLOURS[name]) + rng.uniform(-0.06, 0.06, 3) + rng.uniform(-0.06, 0.06), 0, 1)


def _fill(rng: Rng, family: Family, angle: float | None) -> Array:
    """The family's texture in its colours; the second colour may only be a shade of the first."""
    base = _colour(rng, family.first)
    two = family.texture in ("stripes", "dotted", "checked", "confetti", "herringbone", "camouflage", "rusty")
    contrast = 0.25 if family.texture == "plain" else rng.uniform(0.3, 0.75)
    other = _colour(rng, family.second) if two else np.clip(base * (1.0 - contrast), 0, 1)
    lifted = base if two else np.clip(base * 1.1 + 0.03, 0, 1)
    return paint(pattern(family.texture, rng, angle=angle, zoom=rng.uniform(0.75, 1.35)), other, lifted)


def draw_scene(rng: Rng, family: Family) -> Scene:
    """A normal scene of a family, without details."""
    tone = _colour(rng, family.ground)
    rough = "plain" if rng.random() < 0.7 else pick(rng, ("sandy", "clouded", "brushed", "weave", "wood"))
    back = paint(pattern(rough, rng), tone * 0.88, np.clip(tone * 1.06, 0, 1))
    if family.shape is None:
        return surface(_fill(rng, family, None), back * rng.uniform(0.15, 0.5))
    x, y = rng.uniform(-6, 6, 2)
    pose = Pose(float(x), float(y), rng.uniform(17, 29), rng.uniform(0, 2 * np.pi))
    distance = shape_distance(family.shape, rng, pose)
    fill = _fill(rng, family, pose.angle)
    return body(
        distance,
        fill,
        back,
        light=rng.uniform(0, 2 * np.pi),
        bevel=rng.uniform(2, 9),
        depth=rng.uniform(0.15, 0.5),
    )


def add_detail(rng: Rng, scene: Scene, kind: str) -> tuple[Scene, str]:
    """The scene with a normal detail on its front, and the phrase for it."""
    x, y = somewhere(scene, rng, 8)
    colour = pick(rng, list(COLOURS))
    px, py = axes()
    angle = rng.uniform(0, np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    centre = np.array([x, y])
    across = (px - x) * along[1] - (py - y) * along[0]
    radius = rng.uniform(1.8, 4.5)
    phrase = article(f"{colour} {kind}")
    if kind == "dot":
        weight = coverage(np.hypot(px - x, py - y) - radius)
    elif kind == "dots":
        weight = np.zeros_like(px)
        for k in range(int(rng.integers(2, 4))):
            at = centre + along * 2.6 * radius * (k - 0.5)
            weight = np.maximum(weight, coverage(np.hypot(px - at[0], py - at[1]) - 0.7 * radius))
        phrase = f"{colour} dots"
    elif kind == "band":
        weight = coverage(np.abs(across) - rng.uniform(2.0, 5.0))
    elif kind == "circle":
        weight = coverage(np.abs(np.hypot(px - x, py - y) - radius - 2) - 0.7)
    elif kind == "cross":
        normal = np.array([-along[1], along[0]])
        weight = np.maximum(
            stroke(np.array([centre - 5 * along, centre + 5 * along]), 1.8),
            stroke(np.array([centre - 5 * normal, centre + 5 * normal]), 1.8),
        )
    elif kind == "label":
        weight = ((np.abs(across) < 4) & (np.abs((px - x) * along[0] + (py - y) * along[1]) < 7)).astype(
            np.float64
        )
    elif kind == "letters":
        weight = np.zeros_like(px)
        normal = np.array([-along[1], along[0]])
        for k in range(int(rng.integers(3, 6))):
            at = centre + along * 3.2 * (k - 2)
            lean = at + normal * 4 + along * rng.uniform(-1.6, 1.6)
            weight = np.maximum(weight, stroke(np.array([at, lean]), 1.1))
        phrase = f"{colour} printed letters"
    elif kind == "line":
        weight = coverage(np.abs(across) - 0.6)
    else:
        weight = blotch(rng, x, y, rng.uniform(4, 8), ragged=0.3, soft=1.0) * 0.7
    front = mix(scene.front, _colour(rng, colour), weight * rng.uniform(0.6, 1.0))
    changed = Scene(front, scene.back, scene.cover, scene.shadow, scene.parts)
    return changed, phrase


def _name(rng: Rng, family: Family) -> tuple[str, str, set[str]]:
    """A noun phrase for a family, its bare noun, and the facts that they assert."""
    nouns, adjectives, _ = MATERIALS[family.texture]
    facts: set[str] = set()
    words = []
    if rng.random() < 0.45:
        words.append(family.first)
        facts.add(f"colour:{family.first}")
    if family.shape is None:
        noun = pick(rng, nouns)
        facts |= {f"texture:{family.texture}", "surface"}
    else:
        noun = pick(rng, THINGS[family.shape][0])
        facts.add(f"shape:{family.shape}")
        if rng.random() < 0.5:
            words.append(pick(rng, adjectives))
            facts.add(f"texture:{family.texture}")
    return " ".join([*words, noun]), noun, facts


def _definition(rng: Rng, family: Family) -> tuple[str, set[str]]:
    if family.shape is None:
        return pick(rng, MATERIALS[family.texture][2]), {f"texture:{family.texture}", "surface"}
    return pick(rng, THINGS[family.shape][1]), {f"shape:{family.shape}"}


def describe(
    rng: Rng, family: Family, details: list[tuple[str, str]], defect: str | None, mixture: Mixture
) -> Caption:
    """A caption of an image, given its details (kind, phrase) and its defect as far as it was noticed."""
    name, noun, facts = _name(rng, family)
    if defect is not None:
        if rng.random() < mixture.typed:
            if rng.random() < 0.4:
                return Caption(abnormality(rng, noun, defect), frozenset(facts | {f"defect:{defect}"}))
            word = pick(rng, DEFECT_WORDS[defect])
            return Caption(sentence(rng, name, f"with {article(word)}"), frozenset(facts | {f"defect:{defect}"}))
        facts.add("state:defect")
        if rng.random() < 0.5:
            return Caption(sentence(rng, f"{pick(rng, BAD)} {name}"), frozenset(facts))
        return Caption(sentence(rng, name, pick(rng, BAD_AFTER)), frozenset(facts))
    draw = rng.random()
    if draw < mixture.praised:
        facts.add("state:normal")
        if rng.random() < 0.6:
            return Caption(sentence(rng, f"{pick(rng, FINE)} {name}"), frozenset(facts))
        return Caption(sentence(rng, name, pick(rng, FINE_AFTER)), frozenset(facts))
    if draw < mixture.praised + mixture.defined:
        text, facts = _definition(rng, family)
        if rng.random() < 0.3:
            text = f"{noun}: {text}"
        return Caption(text, frozenset(facts))
    after = []
    for kind, phrase in details:
        if rng.random() < 0.8:
            after.append(phrase)
            facts.add(f"{kind}:{phrase}")
    tail = f"with {' and '.join(after)}" if after else ""
    if family.shape is not None and rng.random() < 0.3:
        tail += f" on {article(family.ground)} background"
        facts.add(f"ground:{family.ground}")
    return Caption(sentence(rng, name, tail), frozenset(facts))


def draw_sample(rng: Rng, family: Family, mixture: Mixture) -> DrawnImage:
    """One image of a family, with its captions and its facts."""
    scene = draw_scene(rng, family)
    plain = scene.image()
    details: list[tuple[str, str]] = []
    share = mixture.details / 0.65
    for _ in range(int(rng.choice(4, p=(1.0 - mixture.details, 0.4 * share, 0.18 * share, 0.07 * share)))):
        kind = pick(rng, DETAILS)
        scene, phrase = add_detail(rng, scene, kind)
        details.append((kind, phrase))
    detailed = scene.image()
    changed = np.abs(detailed - plain).max(axis=2) > 0.06
    defect, noticed, mask = None, False, np.zeros((SIZE, SIZE))
    if rng.random() < mixture.defects:
        kind = pick(rng, list(DEFECT_WORDS))
        noticed = rng.random() > mixture.unnoticed
        try:
            scene, mask = spoil(scene, kind, rng, rng.uniform(0.0, 1.0))
            defect = kind
        except RuntimeError:  # no such defect shows on this scene
            pass
    facts = {f"texture:{family.texture}", f"colour:{family.first}", f"ground:{family.ground}"}
    facts.add(f"shape:{family.shape}" if family.shape else "surface")
    facts |= {f"{kind}:{phrase}" for kind, phrase in details}
    seen = defect if noticed else None
    facts |= {"state:normal"} if seen is None else {"state:defect", f"defect:{seen}"}
    captions = tuple(describe(rng, family, details, seen, mixture) for _ in range(mixture.captions))
    image = quantise(expose(scene.image(), rng, gain=0.15, slope=0.15, grain=rng.uniform(0, 0.012)))
    drawn = np.stack([_shares(field) for field in (scene.cover, changed, mask)])
    return DrawnImage(image, captions, frozenset(facts), family, drawn, defect)


def _shares(field: NDArray[Any]) -> NDArray[np.uint8]:
    """The means of a field (SIZE, SIZE) over the cells, in 255ths."""
    side = SIZE // CELLS
    means = field.astype(np.float64).reshape(CELLS, side, CELLS, side).mean(axis=(1, 3))
    return np.asarray(np.floor(means * 255 + 0.5), dtype=np.uint8)


def draw_chunk(seed: int, number: int, size: int, mixture: Mixture) -> list[DrawnImage]:
    """Chunk `number` of a pool: `size` samples in groups of one family each."""
    rng = np.random.default_rng([POOL, seed, number])
    samples: list[DrawnImage] = []
    while len(samples) < size:
        family = draw_family(rng, mixture)
        for _ in range(min(mixture.group, size - len(samples))):
            samples.append(draw_sample(rng, family, mixture))
    return samples
