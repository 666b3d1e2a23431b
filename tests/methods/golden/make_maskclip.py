"""maskclip.json, from chongzhou96/MaskCLIP; see README.md."""

from __future__ import annotations

import sys
from typing import Any
from unittest.mock import MagicMock

import _run

folder = _run.checkout()

# The packages' own __init__ import everything; of it, and of compiled operators, nothing is wanted here.
sys.modules["mmcv.ops"] = MagicMock()
for name in ("mmseg", "mmseg.models", "mmseg.models.backbones", "mmseg.models.decode_heads"):
    _run.bare_package(folder, name)
sys.modules["mmseg"].__version__ = "0.20.2"  # type: ignore[attr-defined]

import recipes
import torch
from mmseg.models.backbones.vit import VisionTransformer
from mmseg.models.decode_heads.maskclip_head import MaskClipHead

WIDTH, LAYERS, PATCH, SIDE, EMBEDDED = 24, 3, 4, 16, 20
tower = VisionTransformer(
    img_size=(SIDE, SIDE),
    patch_size=PATCH,
    patch_bias=False,
    embed_dims=WIDTH,
    num_layers=LAYERS,
    num_heads=2,
    norm_cfg={"type": "LN", "eps": 1e-6},
    pre_norm=True,
    final_norm=True,
    return_qkv=True,
).double()
recipes.fill(tower)
tower.eval()
MaskClipHead.load_visual_projs = lambda self: None  # it would read a file; the projection is filled in below


def head(**thresholds: float) -> MaskClipHead:
    made = MaskClipHead(
        text_categories=2,
        text_channels=EMBEDDED,
        text_embeddings_path=None,
        visual_projs_path=None,
        vit=True,
        in_channels=WIDTH,
        channels=0,
        num_classes=2,
        dropout_ratio=0,
        in_index=-1,
        loss_decode={"type": "CrossEntropyLoss"},
        init_cfg={},
        **thresholds,
    ).double()
    recipes.fill(made)
    made.text_embeddings.data = torch.from_numpy(recipes.maskclip_texts())
    made.eval()
    return made


found: dict[str, Any] = {}
with torch.no_grad():
    for side in (SIDE, 24):
        images = 3 * recipes.images(2, side, 8, block=PATCH).double() - 1.5
        outputs = tower(images)
        found[f"keys at {side}"] = recipes.some(outputs[0][2], 24)
        found[f"cosines at {side}"] = head()(outputs)
    for name, thresholds in recipes.MASKCLIP.items():
        found[name] = head(**thresholds)(tower(3 * recipes.images(2, SIDE, 8, block=PATCH).double() - 1.5))
_run.save("maskclip", found)
