"""Sentences about normal and anomalous objects, and their embeddings, for methods on a frozen CLIP.

``winclip`` is the compositional ensemble of WinCLIP (Jeong et al., CVPR 2023, appendix), in the form that public
re-implementations agree on; ``imagenet`` are the templates that CLIP's authors published for ImageNet, and
MaskCLIP's five more (``chongzhou96/MaskCLIP``, tools/maskclip_utils/prompt_engineering.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.errors import NotApplicable
from bench.methods.shared.cosines import Floats, unit

if TYPE_CHECKING:
    from bench.contracts import ImageSet, Prompts, TextImageEncoder

Kind = Literal["promptad", "two", "winclip", "imagenet", "damaged"]

NORMAL_STATES = (
    "{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect",
    "{} without damage",
)  # fmt: skip
ANOMALOUS_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = (
    "a cropped photo of the {}.", "a cropped photo of a {}.", "a close-up photo of a {}.",
    "a close-up photo of the {}.", "a bright photo of a {}.", "a bright photo of the {}.",
    "a dark photo of the {}.", "a dark photo of a {}.", "a jpeg corrupted photo of a {}.",
    "a jpeg corrupted photo of the {}.", "a blurry photo of the {}.", "a blurry photo of a {}.",
    "a photo of a {}.", "a photo of the {}.", "a photo of a small {}.", "a photo of the small {}.",
    "a photo of a large {}.", "a photo of the large {}.", "a photo of the {} for visual inspection.",
    "a photo of a {} for visual inspection.", "a photo of the {} for anomaly detection.",
    "a photo of a {} for anomaly detection.",
)  # fmt: skip
SCENE_TEMPLATES = (
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.",
)  # fmt: skip


def sentences(category: str, prompts: Prompts | None, kind: Kind) -> tuple[Sequence[str], Sequence[str]]:
    """The normal and the anomalous sentences of a category.

    Args:
        kind: ``promptad``: the category's own normality and abnormality sentence; ``two``: "a photo of a
            normal ..." and "... of an anomalous ..."; ``damaged``: "a photo of a ..." and "... of a damaged ...";
            ``winclip``: 154 and 88 sentences; ``imagenet``: 85 each, of "..." and "damaged ...".

    Raises:
        NotApplicable: ``promptad`` sentences are wanted and the category has no prompts.
    """
    if kind == "promptad":
        if prompts is None:
            raise NotApplicable(f"there are no prompts for {category}; write some, or choose prompts=winclip")
        return [prompts.normality], [prompts.abnormality]
    label = category.replace("_", " ") if prompts is None else prompts.label
    if kind == "two":
        return [f"a photo of a normal {label}."], [f"a photo of an anomalous {label}."]
    if kind == "damaged":
        return [f"a photo of a {label}."], [f"a photo of a damaged {label}."]
    if kind == "imagenet":
        return _imagenet(label), _imagenet(f"damaged {label}")
    return ensemble(label)


def ensemble(label: str, templates: Sequence[str] = TEMPLATES) -> tuple[list[str], list[str]]:
    """WinCLIP's sentences about ``label``: every state in every template, normal ones and anomalous ones."""
    return _filled(NORMAL_STATES, label, templates), _filled(ANOMALOUS_STATES, label, templates)


def _filled(states: Sequence[str], label: str, templates: Sequence[str]) -> list[str]:
    found = []
    for state in states:
        named = state.format(label)
        found += [template.format(named) for template in templates]
    return found


def _imagenet(name: str) -> list[str]:
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return [t(name) for t in OPENAI_IMAGENET_TEMPLATES] + [t.format(name) for t in SCENE_TEMPLATES]


def text_pairs(images: ImageSet, encoder: TextImageEncoder, kind: Kind) -> dict[str, Floats]:
    """Category -> ``(2, E)`` double: the normalised embeddings of its normal and its anomalous sentences."""
    pairs = {}
    for category in dict.fromkeys(images.categories):
        groups = sentences(category, images.prompts.get(category), kind)
        pairs[category] = np.stack([mean_text(group, encoder) for group in groups])
    return pairs


def mean_text(group: Sequence[str], encoder: TextImageEncoder, *, raw: bool = False) -> Floats:
    """Normalised mean of the sentences' embeddings, ``(E,)`` double; each normalised before unless ``raw``."""
    embeddings: Floats = encoder.encode_text(group).double().numpy()
    if not raw:
        embeddings = unit(embeddings)
    return unit(embeddings.mean(axis=0))
