"""The language of the pretraining pool: words for what is drawn, and sentences made of them.

A caption comes with the facts that it asserts (`shape:disc`, `state:normal`, ...). An image of the same
batch that satisfies all of them counts as a positive of the caption too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .noise import Rng

COLOURS: Mapping[str, tuple[float, float, float]] = {
    "red": (0.80, 0.18, 0.16), "orange": (0.90, 0.52, 0.15), "yellow": (0.90, 0.82, 0.25),
    "green": (0.24, 0.60, 0.28), "teal": (0.15, 0.56, 0.56), "blue": (0.20, 0.36, 0.75),
    "purple": (0.50, 0.28, 0.65), "pink": (0.92, 0.56, 0.68), "brown": (0.48, 0.31, 0.18),
    "beige": (0.82, 0.74, 0.60), "white": (0.93, 0.93, 0.91), "grey": (0.55, 0.55, 0.56),
    "black": (0.12, 0.12, 0.13), "silver": (0.74, 0.75, 0.77), "golden": (0.80, 0.65, 0.28),
}  # fmt: skip

# Texture: (nouns of a surface, adjectives of a thing made of it, dictionary-like definitions).
MATERIALS: Mapping[str, tuple[Sequence[str], Sequence[str], Sequence[str]]] = {
    "plain": (
        ("sheet", "plastic", "panel"), ("plain", "smooth", "plastic"),
        ("a flat sheet with a smooth and even surface", "a smooth hard material without any pattern"),
    ),
    "stripes": (
        ("striped cloth", "striped paper"), ("striped", "banded"),
        ("a material with parallel bands of two colours at equal distances",),
    ),
    "corduroy": (
        ("corduroy", "ribbed cloth"), ("ribbed",),
        ("a thick cotton cloth with parallel raised ribs",),
    ),
    "weave": (
        ("fabric", "cloth", "woven fabric", "carpet"), ("woven", "fabric"),
        ("cloth made by interlacing lengthwise and crosswise threads into an even regular texture",
         "a thick woven fabric with an even regular weave, used as a floor covering",
         "a material made by weaving threads over and under"),
    ),
    "twill": (
        ("twill", "denim", "fabric"), ("twill", "woven"),
        ("a strong cloth woven with diagonal lines", "a woven fabric with threads in a diagonal pattern"),
    ),
    "herringbone": (
        ("herringbone", "zigzag cloth"), ("zigzag",),
        ("a pattern of bands that run in a zigzag",),
    ),
    "wood": (
        ("wood", "wooden board", "plank", "timber"), ("wooden", "wood"),
        ("a board cut from the hard fibrous material of a tree with a continuous natural grain",
         "the hard material of a tree trunk, used for making things",
         "a long flat piece of timber with a natural grain"),
    ),
    "marble": (
        ("marble", "veined stone"), ("marble",),
        ("a hard stone with wandering veins, used for covering floors and walls",),
    ),
    "granite": (
        ("granite", "speckled stone", "tile"), ("granite", "speckled", "stone"),
        ("a very hard stone of coarse light and dark grains",
         "a flat slab of stone or baked clay with an even speckled surface, used for covering floors and walls"),
    ),
    "terrazzo": (
        ("terrazzo", "terrazzo floor", "stone slab"), ("terrazzo",),
        ("a hard floor material made of stone chips set in cement",
         "a smooth surface of small stone chips, used for covering floors"),
    ),
    "pebbled": (
        ("leather", "hide"), ("leather",),
        ("a sheet of tanned animal hide with a smooth and evenly grained surface",),
    ),
    "brushed": (
        ("metal", "brushed metal", "steel sheet"), ("metal", "brushed", "steel"),
        ("a hard shiny material such as steel or iron", "a flat sheet of steel with fine parallel lines"),
    ),
    "dotted": (
        ("dotted cloth", "dotted paper"), ("dotted",),
        ("a material with round dots in even rows",),
    ),
    "checked": (
        ("checked cloth", "chessboard"), ("checked",),
        ("a pattern of squares of two colours by turns",),
    ),
    "brick": (
        ("brick wall", "bricks", "wall"), ("brick",),
        ("a wall made of blocks of baked clay with mortar between",),
    ),
    "corrugated": (
        ("corrugated sheet", "corrugated metal"), ("corrugated",),
        ("a sheet folded into regular waves",),
    ),
    "ringed": (
        ("ringed surface", "target"), ("ringed",),
        ("a pattern of circles around one centre",),
    ),
    "clouded": (
        ("clouded paper", "clouded glass"), ("clouded",),
        ("a material with broad soft patches of two colours",),
    ),
    "rusty": (
        ("rust", "rusty metal", "iron"), ("rusty", "iron"),
        ("old iron covered with a rough coating of rust",),
    ),
    "camouflage": (
        ("camouflage", "camouflage cloth"), ("camouflage",),
        ("cloth with irregular patches of colour that hide its wearer",),
    ),
    "scaly": (
        ("scales", "shingles", "roof"), ("scaly",),
        ("a covering of rounded pieces that overlap in rows",),
    ),
    "knitted": (
        ("knitted wool", "knitted cloth", "wool"), ("knitted", "woollen"),
        ("soft cloth made of yarn with columns of small stitches",),
    ),
    "sandy": (
        ("sandpaper", "sand", "cork"), ("sandy", "rough"),
        ("a material with fine even grains on its surface",),
    ),
    "confetti": (
        ("confetti", "flecked paper"), ("flecked",),
        ("a material with small round flecks of another colour",),
    ),
}  # fmt: skip

# Shape: (nouns, dictionary-like definitions).
THINGS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "disc": (
        ("disc", "coin", "lid"),
        ("a flat round thin piece", "a flat circular piece used as money or as a lid"),
    ),
    "ring": (
        ("ring", "washer"),
        ("a flat ring with a round hole through its centre, placed under a nut or bolt",
         "a flat round piece of metal with a hole in the middle"),
    ),
    "plate": (("plate", "square"), ("a flat piece with four equal sides",)),
    "bar": (("bar", "rod", "stick"), ("a long straight piece of hard material",)),
    "card": (("card", "tag"), ("a flat piece of stiff material with four rounded corners",)),
    "capsule": (
        ("capsule", "pill"),
        ("a small smooth two part case with rounded ends that encloses a dose of medicine",
         "a small solid rounded tablet of medicine for swallowing whole"),
    ),
    "egg": (
        ("egg", "hazelnut", "pebble"),
        ("a smooth round body with one end narrow", "a small round brown nut with a hard shell"),
    ),
    "triangle": (("triangle",), ("a flat piece with three straight sides",)),
    "pentagon": (("pentagon",), ("a flat piece with five straight sides",)),
    "octagon": (("octagon",), ("a flat piece with eight equal sides",)),
    "nut": (
        ("nut", "metal nut"),
        ("a small flat piece of metal with a round hole through its centre, made to be fastened on a bolt",
         "a small piece with six sides and a hole in the middle"),
    ),
    "star": (("star",), ("a flat piece with five pointed ends",)),
    "cross": (("cross", "plus"), ("two bars that cross in the middle at right angles",)),
    "bracket": (
        ("bracket", "angle"),
        ("a piece with two straight arms that meet at a corner, used for holding shelves",),
    ),
    "tee": (("tee",), ("a piece with a straight stem and a bar across its end",)),
    "crescent": (("crescent", "moon"), ("a curved piece with two narrow pointed ends",)),
    "dome": (("dome", "cap"), ("a half round cover with a flat edge",)),
    "button": (
        ("button",),
        ("a small round piece with four holes, sewn on cloth and used for fastening it",
         "a small flat disc with holes in the middle for a thread"),
    ),
    "link": (("link", "buckle"), ("one of the rounded rings of a chain",)),
    "frame": (("frame",), ("a square rim that goes around an opening",)),
    "arrow": (("arrow",), ("a straight piece with a pointed head that shows a direction",)),
    "wedge": (("wedge",), ("a piece that is wide at one end and narrow at the other",)),
    "bottle": (
        ("bottle",),
        ("a container for liquids with a narrow neck",
         "a rigid glass container for liquids with a narrow round mouth"),
    ),
    "key": (("key",), ("a small piece of shaped metal with teeth, used for opening a lock",)),
    "screw": (
        ("screw", "bolt"),
        ("a short metal pin with a thread running round it and a slotted head",
         "a pointed metal fastener with a spiral ridge round its shaft"),
    ),
    "spoon": (("spoon",), ("a small round bowl on a handle, used for eating",)),
    "drop": (("drop",), ("a body that is round at one end and pointed at the other",)),
    "leaf": (("leaf",), ("a flat part of a plant with two pointed ends",)),
    "heart": (("heart",), ("a shape with two round lobes above and one point below",)),
    "strip": (
        ("strip", "strap", "cable"),
        ("a long narrow bent band", "a long narrow line with a round outer sheath"),
    ),
}  # fmt: skip

DEFECT_WORDS: Mapping[str, Sequence[str]] = {
    "scratch": ("scratch", "scratched mark", "cut"),
    "crack": ("crack", "tear", "breakage"),
    "hole": ("hole", "poke hole"),
    "stain": ("stain", "colour stain", "oil stain"),
    "contamination": ("contamination", "foreign fibre", "loose thread", "dirt"),
    "missing": ("missing part", "missing piece", "broken edge"),
    "bent": ("bent part", "bent edge", "fold"),
}

FINE = ("flawless", "perfect", "unblemished", "good", "intact", "clean", "new")
FINE_AFTER = ("without defect", "without flaw", "without damage", "without any defects", "in perfect condition")
BAD = ("damaged", "defective", "broken", "imperfect", "faulty")
BAD_AFTER = ("with a defect", "with defect", "with flaw", "with damage", "with a flaw", "with defects")

PHOTO = (
    "a photo of {}", "a photo of the {0}", "a close-up photo of {}", "a cropped photo of {}",
    "a bright photo of {}", "a dark photo of {}", "a blurry photo of {}", "a good photo of {}",
    "a low resolution photo of {}", "a photo of {} for visual inspection", "a photo of {} for anomaly detection",
    "an image of {}", "a picture of {}", "{}", "{}", "this is {}",
    "a close-up photo of {} for visual inspection",
)  # fmt: skip


class Caption(NamedTuple):
    """A sentence and what it asserts."""

    text: str
    facts: frozenset[str]


def pick(rng: Rng, options: Sequence[str]) -> str:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def article(noun: str) -> str:
    """The noun phrase with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def sentence(rng: Rng, phrase: str, after: str = "") -> str:
    """A phrase (no article) put into one of the photo templates, with something after it."""
    template = pick(rng, PHOTO)
    if "{0}" in template:
        return " ".join(template.format(f"{phrase} {after}").split())
    return " ".join(template.format(f"{article(phrase)} {after}").split())


def abnormality(rng: Rng, label: str, kind: str) -> str:
    """A sentence in the form of the abnormality prompt; it lists the type, among others."""
    kinds = [kind] + [k for k in DEFECT_WORDS if k != kind and rng.random() < 0.25]
    words = [pick(rng, DEFECT_WORDS[k]) for k in kinds]
    rng.shuffle(words)
    return f"abnormality of {label} is {', '.join(words)}"
