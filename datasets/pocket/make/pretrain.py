"""Pretrains the pocket encoders: `python -m make.pretrain clip|resnet|vocabulary`.

Everything is rendered on the way (`make.pool`); batch n of a run follows from the seed and n.
The weights are those after the last step. Zero-shot numbers on the shipped images are logged to see how the
run goes; they choose no checkpoint.

`clip`: contrastive. An image and a caption are a pair if the caption's facts all hold of the image. Three more
losses, each with a weight of its own (0 switches it off), work on the same forward pass:
- local: a linear map of each patch token (after block 4) gives the pixels of its own patch;
- marks: a linear map of each patch token (after block 4) says whether anything was drawn onto the plain scene
  in its patch, be it a normal detail or a defect; which of the two is not told;
- state: an image chooses between two texts that differ in the state alone.
The linear maps are dropped at the end; what is stored is a plain `open_clip.CLIP`.
`resnet`: a classifier of shape, texture and colour; its heads are dropped at the end.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from bench.encoders.pocket import (
    BACKBONE_MEAN,
    BACKBONE_STD,
    END,
    PAD,
    START,
    UNKNOWN,
    WordTokenizer,
    build_backbone,
    build_clip,
    words,
)

from . import probe
from .captions import COLOURS, DEFECT_WORDS, MATERIALS, THINGS
from .pool import Mixture, draw_batch, rivals, satisfied

WEIGHTS = Path(__file__).parents[1] / "weights"
LOCAL_BLOCK = 4

_LOOSE = {"defects": 0.15, "unnoticed": 0.35, "praised": 0.2}
_MORE = {"defects": 0.18, "unnoticed": 0.3, "typed": 0.45, "praised": 0.2}
_EXPLICIT = {"defects": 0.4, "unnoticed": 0.1, "typed": 0.5, "praised": 0.3, "details": 0.3, "captions": 2}
PHASES: tuple[dict[str, Any], ...] = (
    {"until": 450, "steps": 3000, "state": 0.0, "marks": 0.0, "mixture": _LOOSE},
    {"until": 1050, "steps": 3600, "state": 0.0, "marks": 0.0, "mixture": _MORE},
    {"until": 1350, "steps": 2600, "state": 0.0, "marks": 0.0, "mixture": {**_EXPLICIT, "unnoticed": 0.15}},
    {"until": 1600, "steps": 3300, "state": 1.0, "marks": 0.0, "mixture": _EXPLICIT},
    {"until": 1900, "steps": 3000, "state": 1.0, "marks": 2.0, "mixture": {**_EXPLICIT, "details": 0.4}},
    {"until": 2150, "steps": 3200, "state": 2.0, "marks": 4.0, "mixture": {**_EXPLICIT, "details": 0.4}},
    {"until": 3200, "steps": 3200, "state": 3.0, "marks": 4.0,
     "mixture": {**_EXPLICIT, "defects": 0.45, "details": 0.2}},
)  # fmt: skip
"""Training of the shipped `pocket/clip`: 128 images a step, seed 1, rate 0.001. `steps` is what the schedule
of the rate goes by. Mixture and losses were changed by hand as the run went: the first ones learned too slowly
to say anything about defects in the time there was."""


def make_vocabulary(seed: int, *, batches: int = 150, least: int = 4) -> list[str]:
    """The words that captions of the pool use, between the special tokens."""
    counts: Counter[str] = Counter()
    for number in range(batches):
        for sample in draw_batch(seed, number, 256, Mixture(group=1)):
            counts.update(words(sample.captions[0].text))
    definitions = [m[2] for m in MATERIALS.values()] + [t[1] for t in THINGS.values()]
    for texts in [*definitions, *DEFECT_WORDS.values()]:
        for text in texts:
            counts.update(dict.fromkeys(words(text), least))
    return [PAD, UNKNOWN, START, *sorted(word for word, count in counts.items() if count >= least), END]


class ClipBatches(Dataset[tuple[Tensor, ...]]):
    """By number: images (B, 3, 64, 64) uint8, token rows, pairs (B, K), states (B,), marks (B, 64).

    The rows are K captions, then for each image a text that is true if it is normal, then for each image one
    that is true if it is not. A state is 1 where the image is known to be defective.
    """

    def __init__(self, seed: int, steps: int, size: int, mixture: Mixture, tokenizer: WordTokenizer) -> None:
        self.seed, self.steps, self.size, self.mixture, self.tokenizer = seed, steps, size, mixture, tokenizer

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, number: int) -> tuple[Tensor, ...]:
        samples = draw_batch(self.seed, number, self.size, self.mixture)
        images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).contiguous()
        rng = np.random.default_rng([self.seed, number, 2])
        good, bad = zip(*[rivals(rng, s) for s in samples], strict=True)
        rows = self.tokenizer([*(c.text for s in samples for c in s.captions), *good, *bad])
        # Now and then a word is hidden, so that an unknown word means "something".
        hide = torch.from_numpy(np.random.default_rng([self.seed, number, 1]).random(rows.shape)) < 0.02
        inner = (rows > 2) & (rows < self.tokenizer.vocab_size - 1)
        rows[hide & inner] = 1
        states = torch.tensor([int("state:defect" in s.facts) for s in samples])
        rows = rows[:, : int((rows > 0).sum(dim=1).max())]
        marks = torch.from_numpy(np.stack([s.marked for s in samples])).flatten(1).float()
        return images, rows, torch.from_numpy(satisfied(samples)), states, marks


class LabelBatches(Dataset[tuple[Tensor, Tensor]]):
    """Images (B, 3, 64, 64) uint8 and labels (B, 3): shape (the last number: none), texture, colour."""

    def __init__(self, seed: int, steps: int, size: int) -> None:
        self.seed, self.steps, self.size = seed, steps, size

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        samples = draw_batch(self.seed, number, self.size, Mixture(defects=0.0, group=1))
        images = torch.from_numpy(np.stack([s.image for s in samples])).permute(0, 3, 1, 2).contiguous()
        shapes, textures, colours = [*THINGS, None], list(MATERIALS), list(COLOURS)
        labels = [
            (shapes.index(s.family.shape), textures.index(s.family.texture), colours.index(s.family.first))
            for s in samples
        ]
        return images, torch.tensor(labels)


def encode_text(model: Any, rows: Tensor) -> Tensor:
    """The text tower on rows that may be shorter than its context; the same as `encode_text` otherwise."""
    length = rows.shape[1]
    hidden = model.token_embedding(rows) + model.positional_embedding[:length]
    hidden = model.transformer(hidden, attn_mask=model.attn_mask[:length, :length])
    hidden = model.ln_final(hidden)
    result: Tensor = hidden[torch.arange(len(rows)), rows.argmax(dim=-1)] @ model.text_projection
    return result


def pair_loss(images: Tensor, texts: Tensor, scale: Tensor, pairs: Tensor) -> Tensor:
    """Contrastive cross-entropy both ways; all pairs of a row (of a column) share its target."""
    logits = scale * images @ texts.T
    target = pairs.float()
    by_image = -(target / target.sum(1, keepdim=True).clamp(min=1) * logits.log_softmax(1)).sum(1)
    by_text = -(target / target.sum(0, keepdim=True).clamp(min=1) * logits.log_softmax(0)).sum(0)
    return (by_image.mean() + by_text.mean()) / 2


def to_half(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as it is stored: floating-point tensors in float16."""
    return {k: (v.half() if v.is_floating_point() else v).contiguous().clone() for k, v in state.items()}


class Log:
    """Lines for the screen and the log file."""

    def __init__(self, path: Path, *, fresh: bool = True) -> None:
        self.path = path
        if fresh:
            path.write_text("", encoding="utf-8")

    def __call__(self, line: str) -> None:
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def versions() -> str:
    """Versions and settings that the run was made with."""
    import open_clip
    import timm

    return (
        f"python {platform.python_version()}, torch {torch.__version__}, open_clip {open_clip.__version__}, "
        f"timm {timm.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads"
    )


def schedule(step: int, steps: int, warm: int) -> float:
    """Linear warm-up, a plateau over three fifths of the steps, then a cosine to zero."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * max(0.0, (step + 1) / steps - 0.6) / 0.4))


def decayed(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups: matrices decay; gains, biases and the scale do not."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]


def train_clip(options: argparse.Namespace) -> None:
    """Trains `pocket/clip`; goes on from the checkpoint in the working folder if there is one."""
    torch.manual_seed(options.seed)
    config = json.loads((WEIGHTS / "clip.json").read_text(encoding="utf-8"))
    tokenizer = WordTokenizer.read(WEIGHTS / "vocabulary.txt", config["text_cfg"]["context_length"])
    assert config["text_cfg"]["vocab_size"] == tokenizer.vocab_size
    mixture = Mixture(**json.loads(options.mixture))
    model: Any = build_clip(config)
    local = nn.Linear(config["vision_cfg"]["width"], 3 * 8 * 8)
    marker = nn.Linear(config["vision_cfg"]["width"], 1)
    trained = nn.ModuleList([model, local, marker])
    optimiser = torch.optim.AdamW(decayed(trained, 0.05), lr=options.rate, betas=(0.9, 0.98))

    options.work.mkdir(parents=True, exist_ok=True)
    checkpoint, start, spent = options.work / "checkpoint.pt", 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        trained.load_state_dict(saved["model"])
        optimiser.load_state_dict(saved["optimiser"])
        start, spent = saved["step"], saved["seconds"]
    last = options.steps if options.until is None else min(options.until, options.steps)
    if start >= last:
        return
    log = Log(options.work / "clip.log", fresh=start == 0)
    if start == 0:
        log(f"pocket/clip: seed {options.seed}, {options.steps} steps of {options.batch} images, "
            f"rate {options.rate}, local loss {options.local}, bfloat16 autocast")  # fmt: skip
        log(f"mixture: {json.dumps(asdict(mixture))}")
        log(f"model: {json.dumps(config)}")
        size = sum(p.numel() for p in model.parameters())
        log(f"{size} parameters, {tokenizer.vocab_size} tokens; {versions()}")
    else:
        log(f"went on from step {start}: {options.steps} steps, local loss {options.local}, "
            f"state loss {options.state}, marks loss {options.marks}")  # fmt: skip
        log(f"mixture: {json.dumps(asdict(mixture))}")

    batches = ClipBatches(options.seed, options.steps, options.batch, mixture, tokenizer)
    order = range(start, last)
    loader = DataLoader(batches, batch_size=None, sampler=order, num_workers=1, prefetch_factor=8)
    kept: list[Tensor] = []
    model.visual.transformer.resblocks[LOCAL_BLOCK - 1].register_forward_hook(lambda *call: kept.append(call[2]))
    sets = probe.read(options.images)
    began, since, sums = time.monotonic() - spent, time.monotonic(), torch.zeros(4)
    model.train()
    for step, (images, rows, pairs, states, marks) in enumerate(loader, start):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * schedule(step, options.steps, 200)
        pixels = probe.normalise(images / 255, config)
        kept.clear()
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            seen = model.visual(pixels)
            read = encode_text(model, rows)
            drawn, marked = local(kept[0][:, 1:]), marker(kept[0][:, 1:])[:, :, 0]
        scale = model.logit_scale.exp().clamp(max=100)
        seen, read = F.normalize(seen.float(), dim=-1), F.normalize(read.float(), dim=-1)
        captions, good, bad = read.split([pairs.shape[1], len(seen), len(seen)])
        paired = pair_loss(seen, captions, scale, pairs)
        choice = torch.stack([(seen * good).sum(dim=1), (seen * bad).sum(dim=1)], dim=1)
        state = F.cross_entropy(scale * choice, states)
        target = F.unfold(pixels, 8, stride=8).transpose(1, 2)
        kept_local = F.mse_loss(drawn.float(), target)
        found = F.binary_cross_entropy_with_logits(marked.float(), marks, pos_weight=torch.tensor(3.0))
        losses = torch.stack([paired, kept_local, state, found])
        optimiser.zero_grad()
        (losses * torch.tensor([1.0, options.local, options.state, options.marks])).sum().backward()
        nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimiser.step()
        sums = sums + losses.detach()
        done = step + 1
        if done % options.every == 0 or done == last:
            count = options.every if done % options.every == 0 else done % options.every
            pace = count * options.batch / (time.monotonic() - since)
            image, pixel = probe.mean(probe.zero_shot(model, tokenizer, config, sets))
            pair_mean, local_mean, state_mean, mark_mean = (sums / count).tolist()
            log(f"step {done:6d}  images {done * options.batch:7d}  loss {pair_mean:.4f}  local {local_mean:.4f}  "
                f"state {state_mean:.4f}  marks {mark_mean:.4f}  scale {scale.item():.1f}  {pace:.0f} images/s  "
                f"zero-shot image {image:.3f} map {pixel:.3f}")  # fmt: skip
            model.train()
            sums = torch.zeros(4)
            save_file(to_half(model.state_dict()), options.work / "clip.safetensors")
            progress = {"model": trained.state_dict(), "optimiser": optimiser.state_dict(), "step": done,
                     "seconds": time.monotonic() - began}  # fmt: skip
            torch.save(progress, options.work / "checkpoint.new")
            (options.work / "checkpoint.new").replace(checkpoint)
            since = time.monotonic()
    if last < options.steps:
        return
    log(f"{options.steps * options.batch} renderings in {time.monotonic() - began:.0f} s; "
        "the weights are those of the last step")  # fmt: skip
    result = probe.zero_shot(model, tokenizer, config, sets)
    log("shipped set, zero-shot image AUROC: " + ", ".join(f"{k} {v[0]:.3f}" for k, v in result.items()))


def train_resnet(options: argparse.Namespace) -> None:
    """Trains `pocket/resnet`."""
    torch.manual_seed(options.seed)
    model: Any = build_backbone()
    sizes = (len(THINGS) + 1, len(MATERIALS), len(COLOURS))
    heads = nn.Linear(model.num_features, sum(sizes))
    trained = nn.ModuleList([model, heads])
    optimiser = torch.optim.AdamW(decayed(trained, 0.05), lr=options.rate, betas=(0.9, 0.98))
    options.work.mkdir(parents=True, exist_ok=True)
    log = Log(options.work / "resnet.log")
    log(f"pocket/resnet: seed {options.seed}, {options.steps} steps of {options.batch} images, "
        f"rate {options.rate}, bfloat16 autocast")  # fmt: skip
    log(f"{sum(p.numel() for p in model.parameters())} parameters, classes {sizes}; {versions()}")
    batches = LabelBatches(options.seed, options.steps, options.batch)
    loader = DataLoader(batches, batch_size=None, sampler=range(options.steps), num_workers=1, prefetch_factor=8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (BACKBONE_MEAN, BACKBONE_STD))
    began, since = time.monotonic(), time.monotonic()
    sums, right = 0.0, torch.zeros(3)
    model.train()
    for step, (images, labels) in enumerate(loader):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * schedule(step, options.steps, 50)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = heads(model((images / 255 - mean) / std).mean(dim=(2, 3))).float()
        parts = logits.split(sizes, dim=1)
        loss = sum((F.cross_entropy(p, labels[:, k]) for k, p in enumerate(parts)), torch.zeros(()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        sums += loss.item()
        right += torch.tensor([float((p.argmax(1) == labels[:, k]).float().mean()) for k, p in enumerate(parts)])
        done = step + 1
        if done % options.every == 0 or done == options.steps:
            count = options.every if done % options.every == 0 else done % options.every
            pace = count * options.batch / (time.monotonic() - since)
            shape, texture, colour = (right / count).tolist()
            log(f"step {done:6d}  images {done * options.batch:7d}  loss {sums / count:.3f}  accuracy: shape "
                f"{shape:.3f} texture {texture:.3f} colour {colour:.3f}  {pace:.0f} images/s")  # fmt: skip
            sums, right, since = 0.0, torch.zeros(3), time.monotonic()
            save_file(to_half(model.state_dict()), options.work / "resnet.safetensors")
    log(f"{options.steps * options.batch} renderings in {time.monotonic() - began:.0f} s; "
        "the weights are those of the last step")  # fmt: skip


def write_vocabulary(seed: int) -> None:
    """Writes the vocabulary file and its size into the configuration."""
    tokens = make_vocabulary(seed)
    (WEIGHTS / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = json.loads((WEIGHTS / "clip.json").read_text(encoding="utf-8"))
    config["text_cfg"]["vocab_size"] = len(tokens)
    (WEIGHTS / "clip.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(len(tokens), "tokens")


def main() -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Pretrain the pocket encoders.")
    parser.add_argument("what", choices=("clip", "resnet", "vocabulary"))
    parser.add_argument("--work", type=Path, default=Path("pretrain"), help="folder for weights, log, checkpoint")
    parser.add_argument(
        "--images", type=Path, default=Path(__file__).parents[1] / "images", help="for the log only"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, help="of one phase; without it clip goes through all PHASES")
    parser.add_argument("--until", type=int, help="stop clip there; the same command without it goes on")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--local", type=float, default=0.3, help="weight of the second loss of clip")
    parser.add_argument("--state", type=float, default=0.0, help="weight of the third loss of clip")
    parser.add_argument("--marks", type=float, default=0.0, help="weight of the fourth loss of clip")
    parser.add_argument("--every", type=int, default=100, help="steps between log lines")
    parser.add_argument("--mixture", default="{}", help="JSON: other values of the pool's mixture")
    options = parser.parse_args()
    if options.what == "vocabulary":
        write_vocabulary(options.seed)
    elif options.what == "resnet":
        options.steps = options.steps or 1000
        train_resnet(options)
    elif options.steps is not None:
        train_clip(options)
    else:
        for phase in PHASES:
            settings = {**vars(options), **phase, "mixture": json.dumps(phase["mixture"])}
            train_clip(argparse.Namespace(**settings))


if __name__ == "__main__":
    main()
