"""Trans-MM against its authors' model and notebook, on the same weights and images; see golden/README.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import pytest
import recipes
import tiny
import torch
from parity import Parity, golden
from torch.nn import functional as F

from bench.contracts import Prompts
from bench.encoders.features import FeatureCache
from bench.encoders.towers import FrozenClip
from bench.methods.shared import vit
from bench.methods.transmm import TransMM, TransMMConfig, explicit_logits

AUTHORS = "hila-chefer/Transformer-MM-Explainability"
LIMIT = 1e-5  # the authors' layer norms compute in single precision, whatever they are given
THEIRS = golden("transmm")
PROMPTS = {"thing": Prompts("thing", "a flawless thing", "abnormality of thing is dent")}


@pytest.fixture(scope="module")
def encoder() -> FrozenClip:
    vision = {"image_size": 32, "patch_size": 8, "width": 128, "head_width": 64, "layers": 3}
    text = {
        "context_length": recipes.CONTEXT_LENGTH,
        "vocab_size": recipes.VOCABULARY,
        "width": 64,
        "heads": 1,
        "layers": 2,
    }
    model = open_clip.model.CLIP(48, vision, text, quick_gelu=True)
    recipes.fill(model)
    return FrozenClip("golden", "golden", model, recipes.tokenize, tiny.MEAN, tiny.STD, cache=FeatureCache())


@pytest.mark.parametrize("start", [-1, 1, 0])
def test_maps(start: int, encoder: FrozenClip, parity: Parity) -> None:
    images = tiny.image_set(recipes.pictures(2, 32, 6), prompts=PROMPTS)
    scores = TransMM(TransMMConfig(start_layer=start)).score(images, tiny.context(encoder))
    theirs = np.array(THEIRS[f"maps from block {start}"])
    assert scores.maps is not None
    assert np.ptp(theirs) > 0.5 * theirs.max()
    parity.equal("Trans-MM: maps", AUTHORS, scores.maps, theirs, LIMIT)


def test_logits(encoder: FrozenClip, parity: Parity) -> None:
    model: Any = encoder.model
    pixels = torch.stack([encoder.preprocess(image) for image in recipes.pictures(2, 32, 6)])
    texts = F.normalize(encoder.encode_text([PROMPTS["thing"].normality, PROMPTS["thing"].abnormality]))
    tokens = model.visual.ln_pre(vit.embed(model.visual, pixels))
    ours, _ = explicit_logits(model.visual, tokens, texts, float(model.logit_scale.exp()), 0)
    parity.equal("Trans-MM: logits", AUTHORS, ours, THEIRS["logits"], LIMIT)
