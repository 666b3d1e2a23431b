"""Measures a `pocket/clip` encoder on the shipped images: `python -m make.probe`.

Zero-shot: the normality against the abnormality prompt, on the image embedding and on each patch token.
Probe: a linear classifier of patch tokens, trained on eight categories with their masks, tested on the ninth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from bench.encoders.pocket import WordTokenizer, build_clip

from .render import items

HERE = Path(__file__).parents[1]


class TestSet(NamedTuple):
    """The test images of one category."""

    images: Tensor
    masks: Tensor
    labels: NDArray[np.int64]


def read(folder: Path) -> dict[str, TestSet]:
    """The shipped test images (N, 3, 64, 64) in [0, 1], masks (N, 64, 64), labels (N,), per category."""
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for item in items():
        if item.split != "test":
            continue
        image = torch.tensor(np.asarray(Image.open(folder / item.path))).permute(2, 0, 1) / 255
        mask = torch.zeros(64, 64)
        if item.mask_path is not None:
            mask = torch.tensor(np.asarray(Image.open(folder / item.mask_path))) / 255
        found.setdefault(item.category, []).append((image, mask))
    sets = {}
    for category, pairs in found.items():
        images, masks = (torch.stack(part) for part in zip(*pairs, strict=True))
        sets[category] = TestSet(images, masks, masks.flatten(1).any(dim=1).long().numpy())
    return sets


def normalise(images: Tensor, config: dict[str, Any]) -> Tensor:
    """Images in [0, 1] as the encoder expects them."""
    mean, std = (torch.tensor(config["preprocess_cfg"][key]).view(3, 1, 1) for key in ("mean", "std"))
    return (images - mean) / std


@torch.no_grad()
def tokens(model: Any, images: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
    """Image embeddings (N, D), the patch tokens after each block (N, 64, W), and the projected last ones."""
    kept: list[Tensor] = []
    blocks = model.visual.transformer.resblocks
    hooks = [block.register_forward_hook(lambda *call: kept.append(call[2][:, 1:].float())) for block in blocks]
    embedded = F.normalize(model.encode_image(images).float(), dim=-1)
    for hook in hooks:
        hook.remove()
    last = model.visual.ln_post(kept[-1]) @ model.visual.proj
    return embedded, kept, F.normalize(last, dim=-1)


def map_auroc(patches: Tensor, masks: Tensor) -> float:
    """Pixel AUROC of patch scores (N, 64), upsampled bilinearly."""
    maps = F.interpolate(patches.view(-1, 1, 8, 8), size=64, mode="bilinear", align_corners=False)
    return float(roc_auc_score(masks.flatten().numpy() > 0.5, maps.flatten().numpy()))


@torch.no_grad()
def zero_shot(
    model: nn.Module, tokenizer: WordTokenizer, config: dict[str, Any], sets: dict[str, TestSet]
) -> dict[str, tuple[float, float]]:
    """Image AUROC and patch-map AUROC per category."""
    prompts = yaml.safe_load((HERE / "prompts.yaml").read_text(encoding="utf-8"))
    encoder: Any = model.eval()
    result = {}
    for category, test in sets.items():
        entry = prompts[category]
        bad = f"abnormality of {entry['label']} is {', '.join(entry['descriptions'].values())}"
        text = F.normalize(encoder.encode_text(tokenizer([entry["normality"], bad])).float(), dim=-1)
        embedded, _, patches = tokens(encoder, normalise(test.images, config))
        image = (embedded @ (text[1] - text[0])).numpy()
        result[category] = (
            float(roc_auc_score(test.labels, image)), map_auroc(patches @ (text[1] - text[0]), test.masks)
        )  # fmt: skip
    return result


def fit_linear(features: Tensor, labels: Tensor, *, decay: float = 1e-3, steps: int = 40) -> tuple[Tensor, Tensor]:
    """Logistic regression with balanced classes: weights and bias for standardised features."""
    weight = torch.zeros(features.shape[1], requires_grad=True)
    bias = torch.zeros(1, requires_grad=True)
    balance = (labels == 0).sum() / labels.sum().clamp(min=1)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = features @ weight + bias
        loss = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=balance)
        loss = loss + decay * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach(), bias.detach()


def probe(
    model: nn.Module,
    config: dict[str, Any],
    sets: dict[str, TestSet],
    blocks: tuple[int, ...],
    shots: int | None = None,
) -> dict[str, tuple[float, float]]:
    """Image AUROC (mean of the top tenth of the patches) and map AUROC of a linear probe, per unseen category.

    `blocks` counts from 1; `shots` limits the training set to that many anomalies (and normals) per category.
    """
    rng = np.random.default_rng(0)
    inputs, targets = {}, {}
    for category, test in sets.items():
        _, kept, _ = tokens(model.eval(), normalise(test.images, config))
        inputs[category] = torch.cat([kept[b - 1] for b in blocks], dim=-1)
        targets[category] = (F.avg_pool2d(test.masks[:, None], 8).flatten(1) > 0.06).float()
    result = {}
    for category, test in sets.items():
        features, labels = [], []
        for other in sets:
            if other == category:
                continue
            chosen = np.arange(len(sets[other].labels))
            if shots is not None:
                bad = rng.permutation(np.flatnonzero(sets[other].labels))[:shots]
                good = rng.permutation(np.flatnonzero(sets[other].labels == 0))[:shots]
                chosen = np.concatenate([bad, good])
            features.append(inputs[other][chosen].flatten(0, 1))
            labels.append(targets[other][chosen].flatten())
        stacked = torch.cat(features)
        mean, std = stacked.mean(0), stacked.std(0) + 1e-6
        weight, bias = fit_linear((stacked - mean) / std, torch.cat(labels))
        scores = ((inputs[category] - mean) / std) @ weight + bias
        image = scores.topk(6, dim=1).values.mean(dim=1).numpy()
        result[category] = (float(roc_auc_score(test.labels, image)), map_auroc(scores, test.masks))
    return result


def mean(result: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """The means over the categories."""
    values = np.array(list(result.values()))
    return float(values[:, 0].mean()), float(values[:, 1].mean())


def load(weights: Path, config: dict[str, Any]) -> tuple[nn.Module, WordTokenizer]:
    """The encoder of a weights file, in float32, and its tokenizer."""
    from safetensors.torch import load_file

    model = build_clip(config)
    model.load_state_dict({name: value.float() for name, value in load_file(weights).items()})
    length = config["text_cfg"]["context_length"]
    return model.eval(), WordTokenizer.read(HERE / "weights" / "vocabulary.txt", length)


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Measure pocket/clip on the shipped images.")
    parser.add_argument("--weights", type=Path, default=HERE / "weights" / "clip.safetensors")
    parser.add_argument("--images", type=Path, default=HERE / "images")
    options = parser.parse_args()
    config = json.loads((HERE / "weights" / "clip.json").read_text(encoding="utf-8"))
    model, tokenizer = load(options.weights, config)
    sets = read(options.images)
    for title, result in (
        ("zero-shot", zero_shot(model, tokenizer, config, sets)),
        ("probe, blocks 1 3 4", probe(model, config, sets, (1, 3, 4))),
        ("probe, blocks 1 3 4, one anomaly per category", probe(model, config, sets, (1, 3, 4), shots=1)),
    ):
        print(f"{title}: image {mean(result)[0]:.3f}, map {mean(result)[1]:.3f}")
        for category, (image, pixel) in result.items():
            print(f"  {category:12} image {image:.3f}  map {pixel:.3f}")
    for block in range(1, config["vision_cfg"]["layers"] + 1):
        image, pixel = mean(probe(model, config, sets, (block,)))
        print(f"probe, block {block}: image {image:.3f}, map {pixel:.3f}")


if __name__ == "__main__":
    main()
