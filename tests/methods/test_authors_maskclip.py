"""MaskCLIP against its authors' tower and head, on the same weights and images; see golden/README.md."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import recipes
import torch
from numpy.typing import NDArray
from open_clip.model import CLIP
from parity import Parity, golden

from bench.methods.maskclip import MaskClipConfig, mmseg_tower, patch_scores, values
from bench.methods.shared import vit
from bench.methods.shared.cosines import unit

AUTHORS = "chongzhou96/MaskCLIP"
LIMIT = 1e-9  # both sides compute in double precision
THEIRS = golden("maskclip")
WIDTH, EMBEDDED, PATCH, SIDE = 24, 20, 4, 16
BLOCK = {
    "ln_1.": "ln1.",
    "ln_2.": "ln2.",
    "attn.in_proj_": "attn.attn.in_proj_",
    "attn.out_proj.": "attn.attn.out_proj.",
    "mlp.c_fc.": "ffn.layers.0.0.",
    "mlp.c_proj.": "ffn.layers.1.",
}
NAMES = {
    "ln_pre.": "ln0.",
    "ln_post.": "ln1.",
    **{f"transformer.resblocks.{i}.{own}": f"layers.{i}.{name}" for i in range(3) for own, name in BLOCK.items()},
}


@pytest.fixture(scope="module")
def visual() -> Any:
    vision = {"image_size": SIDE, "patch_size": PATCH, "width": WIDTH, "head_width": 12, "layers": 3}
    tower: Any = mmseg_tower(CLIP(EMBEDDED, vision, {"layers": 1}).visual).double().eval().requires_grad_(False)
    recipes.fill(tower, NAMES)

    def drawn(name: str, *shape: int) -> torch.Tensor:
        return torch.from_numpy(recipes.weights(name, shape)).double()

    # Of other shapes there.
    tower.class_embedding.data = drawn("cls_token", 1, 1, WIDTH)[0, 0]
    tower.positional_embedding.data = drawn("pos_embed", 1, 1 + (SIDE // PATCH) ** 2, WIDTH)[0]
    tower.conv1.weight.data = drawn("patch_embed.projection.weight", WIDTH, 3, PATCH, PATCH)
    tower.proj.data = drawn("proj.weight", EMBEDDED, WIDTH, 1, 1)[:, :, 0, 0].T
    return tower


def cosines(visual: Any, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of two images' patches: cosines ``(2, P, 2)`` to the two texts, and keys ``(2, P, W)``."""
    tokens = visual.ln_pre(vit.embed(visual, 3 * recipes.images(2, side, 8, block=PATCH).double() - 1.5))
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    found = [values(visual, each, resid_ffn=True) for each in tokens]
    features, keys = (torch.stack(each).numpy() for each in zip(*found, strict=True))
    return unit(features) @ recipes.maskclip_texts().T, keys


@pytest.mark.parametrize("side", [SIDE, 24])
def test_value_path(side: int, visual: Any, parity: Parity) -> None:
    """At the tower's own size and at another, for which positions are interpolated."""
    found, keys = cosines(visual, side)
    theirs = np.moveaxis(np.array(THEIRS[f"cosines at {side}"]), 1, -1).reshape(2, -1, 2)
    parity.equal("MaskCLIP: cosines of the value path", AUTHORS, found, theirs, LIMIT)
    parity.equal("MaskCLIP: keys", AUTHORS, recipes.some(keys, 24), THEIRS[f"keys at {side}"], LIMIT)


@pytest.mark.parametrize("name", recipes.MASKCLIP)
def test_refinements(name: str, visual: Any, parity: Parity) -> None:
    found, keys = cosines(visual, SIDE)
    config = MaskClipConfig(**recipes.MASKCLIP[name])
    ours = [patch_scores(*each, config) for each in zip(found, keys, strict=True)]
    normal, anomalous = np.moveaxis(np.array(THEIRS[name]), 1, 0).reshape(2, 2, -1)
    if not config.ks_thresh:  # then these are logits, of which ours are the probabilities
        anomalous = 1 / (1 + np.exp(100 * (normal - anomalous)))
    parity.equal(f"MaskCLIP: scores, {name}", AUTHORS, ours, anomalous, LIMIT)
