"""transmm.json, from hila-chefer/Transformer-MM-Explainability; see README.md."""

from __future__ import annotations

import json
from typing import Any

import _run

folder = _run.checkout()
_run.on_the_cpu()

import numpy as np
import recipes
import torch
from CLIP.clip.model import CLIP

SENTENCES = ["a flawless thing", "abnormality of thing is dent"]
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])

# The notebook's function, as it stands there.
cells = json.loads((folder / "CLIP_explainability.ipynb").read_text(encoding="utf-8"))["cells"]
(source,) = ("".join(cell["source"]) for cell in cells if "def interpret(" in "".join(cell["source"]))
notebook: dict[str, Any] = {"torch": torch, "np": np, "start_layer": -1, "start_layer_text": -1}
exec(source, notebook)

model = CLIP(
    embed_dim=48,
    image_resolution=32,
    vision_layers=3,
    vision_width=128,
    vision_patch_size=8,
    context_length=recipes.CONTEXT_LENGTH,
    vocab_size=recipes.VOCABULARY,
    transformer_width=64,
    transformer_heads=1,
    transformer_layers=2,
).eval()
recipes.fill(model)
pixels = torch.from_numpy(np.stack(recipes.pictures(2, 32, 6))).float() / 255
images, texts = ((pixels - MEAN) / STD).permute(0, 3, 1, 2), recipes.tokenize(SENTENCES)

found: dict[str, Any] = {"logits": model(images, texts)[0]}
for start in (-1, 1, 0):
    maps = [
        notebook["interpret"](image[None], texts[1:], model, "cpu", start_layer=start)[1][0].view(4, 4)
        for image in images
    ]
    found[f"maps from block {start}"] = torch.stack(maps)
_run.save("transmm", found)
