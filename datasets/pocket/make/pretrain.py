"""Pretrains the pocket encoders: `python -m make.pretrain pool|clip|resnet`.

`pool` renders the images that the other two learn from (`make.pool`) into the working folder, once, and with
them the vocabulary. An image is seen several times, each time turned and mirrored in another way, so that the
two cores learn instead of rendering. The weights are those after the last step. Numbers on renderings that
were held out are logged to see how the run goes; they choose no checkpoint, and the shipped images are not
read at all.

`clip`: contrastive. An image and a caption are a pair if the caption's facts all hold of the image. Beside
that, linear maps of each patch token (after the blocks of `TAPS`) tell what the renderer knows of the patch:
object or ground, texture, colours, whether a normal detail was drawn there, and which defect. The maps are
dropped at the end; what is stored is a plain `open_clip.CLIP`.
`resnet`: a classifier of shape, texture and colour, with the same maps of each position of its features.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

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

from .captions import COLOURS, DEFECT_WORDS, MATERIALS, THINGS
from .noise import SIZE
from .pool import CELLS, DrawnImage, Mixture, draw_chunk

WEIGHTS = Path(__file__).parents[1] / "weights"
CHUNK = 256
"""Images that are rendered in one go."""
HELD_OUT = 2048
"""Images of the pool's end that nothing learns from."""
TAPS = (3, 5)
"""Blocks after which the patch tokens are asked what they show."""
TOUCHED = 0.04
"""Share of a patch from which on a detail or defect counts as there; patches with less are left out."""
CLASSES: tuple[tuple[Any, ...], ...] = ((*THINGS, None), tuple(MATERIALS), tuple(COLOURS), tuple(COLOURS))
"""Labels of an image: shape (None for a surface), texture, first colour, colour of the ground."""
KINDS = tuple(DEFECT_WORDS)
ASKED = 1 + sum(len(names) for names in CLASSES[1:]) + 1 + len(KINDS)
"""Outputs per patch: object or ground, texture, two colours, a normal detail, and each kind of defect."""


# The pool on disk: images.npy (N, SIZE, SIZE, 3) and drawn.npy (N, 3, CELLS, CELLS), uint8; labels.npy (N, 5)
# int64, the last column the number of the defect's kind or -1; captions.jsonl, the facts and captions of each.


def _render(job: tuple[int, int]) -> tuple[int, list[DrawnImage]]:
    seed, number = job
    return number, draw_chunk(seed, number, CHUNK, Mixture())


def _labels(sample: DrawnImage) -> list[int]:
    family = sample.family
    values = (family.shape, family.texture, family.first, family.ground)
    numbers = [names.index(value) for names, value in zip(CLASSES, values, strict=True)]
    return [*numbers, -1 if sample.defect is None else KINDS.index(sample.defect)]


def render_pool(work: Path, seed: int, count: int) -> None:
    """Renders `count` images (a multiple of CHUNK) into the working folder, and their vocabulary."""
    chunks = count // CHUNK
    work.mkdir(parents=True, exist_ok=True)
    new = np.lib.format.open_memmap
    images = new(work / "images.npy", "w+", np.uint8, (count, SIZE, SIZE, 3))
    drawn = new(work / "drawn.npy", "w+", np.uint8, (count, 3, CELLS, CELLS))
    labels = new(work / "labels.npy", "w+", np.int64, (count, len(CLASSES) + 1))
    began = time.monotonic()
    with multiprocessing.Pool() as pool, (work / "captions.jsonl").open("w", encoding="utf-8") as stream:
        for number, samples in pool.imap(_render, [(seed, number) for number in range(chunks)]):
            rows = slice(number * CHUNK, (number + 1) * CHUNK)
            images[rows] = np.stack([s.image for s in samples])
            drawn[rows] = np.stack([s.drawn for s in samples])
            labels[rows] = np.array([_labels(s) for s in samples])
            for s in samples:
                captions = [[c.text, sorted(c.facts)] for c in s.captions]
                stream.write(json.dumps({"facts": sorted(s.facts), "captions": captions}) + "\n")
            if (number + 1) % 20 == 0 or number + 1 == chunks:
                done = (number + 1) * CHUNK
                print(f"{done} of {count} images, {done / (time.monotonic() - began):.0f} images/s", flush=True)
    tokens = make_vocabulary(text for _, captions in read_captions(work) for text, _ in captions)
    (WEIGHTS / "vocabulary.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    config = json.loads((WEIGHTS / "clip.json").read_text(encoding="utf-8"))
    config["text_cfg"]["vocab_size"] = len(tokens)
    (WEIGHTS / "clip.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    print(len(tokens), "tokens")


def read_captions(work: Path) -> Iterator[tuple[list[str], list[tuple[str, list[str]]]]]:
    """The facts and the captions, each with the facts that it asserts, of every image."""
    with (work / "captions.jsonl").open(encoding="utf-8") as stream:
        for line in stream:
            entry = json.loads(line)
            yield entry["facts"], [(text, facts) for text, facts in entry["captions"]]


def make_vocabulary(texts: Iterable[str], *, least: int = 4) -> list[str]:
    """The words that the captions use, and all of definitions and defects, between the special tokens."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words(text))
    definitions = [m[2] for m in MATERIALS.values()] + [t[1] for t in THINGS.values()]
    for some in [*definitions, *DEFECT_WORDS.values()]:
        for text in some:
            counts.update(dict.fromkeys(words(text), least))
    return [PAD, UNKNOWN, START, *sorted(word for word, count in counts.items() if count >= least), END]


class View(NamedTuple):
    """A batch: images (B, 3, SIZE, SIZE) in [0, 1], drawn (B, 3, CELLS, CELLS) in [0, 1], labels (B, 5), and
    the images' numbers in the pool (B,)."""

    images: Tensor
    drawn: Tensor
    labels: Tensor
    numbers: NDArray[np.int64]


class Pool:
    """The rendered images of a working folder."""

    def __init__(self, work: Path) -> None:
        self.images = np.load(work / "images.npy", mmap_mode="r")
        self.drawn = np.load(work / "drawn.npy", mmap_mode="r")
        self.labels = np.load(work / "labels.npy")

    def view(self, numbers: NDArray[np.int64], turns: int = 0) -> View:
        """The images of these numbers, all turned and mirrored in one of eight ways."""
        images = torch.from_numpy(self.images[numbers]).permute(0, 3, 1, 2)
        images, drawn = (_turned(t, turns).contiguous() for t in (images, torch.from_numpy(self.drawn[numbers])))
        return View(images / 255, drawn / 255, torch.from_numpy(self.labels[numbers]), numbers)

    def batches(self, seed: int, size: int) -> Iterator[View]:
        """Endless batches: every epoch all groups in a new order, each eighth of a batch turned in its own way."""
        group = Mixture().group
        groups = (len(self.images) - HELD_OUT) // group
        epoch = 0
        while True:
            rng = np.random.default_rng([seed, epoch])
            order = rng.permutation(groups)
            for first in range(0, groups - size // group + 1, size // group):
                numbers = (order[first : first + size // group, None] * group + np.arange(group)).T.flatten()
                parts = [self.view(part, int(rng.integers(8))) for part in np.split(numbers, 8)]
                yield View(*(torch.cat(field) for field in list(zip(*parts, strict=True))[:3]), numbers)
            epoch += 1

    def held_out(self) -> View:
        """The images that nothing learns from."""
        return self.view(np.arange(len(self.images) - HELD_OUT, len(self.images)))


def _turned(t: Tensor, turns: int) -> Tensor:
    return torch.rot90(t.flip(-1) if turns >= 4 else t, turns % 4, (-2, -1))


class Texts:
    """The captions of a pool as token rows, and which images satisfy them."""

    def __init__(self, work: Path, tokenizer: WordTokenizer) -> None:
        entries = list(read_captions(work))
        names = {fact: k for k, fact in enumerate(sorted({fact for facts, _ in entries for fact in facts}))}
        count, each = len(entries), len(entries[0][1])
        self.facts = np.zeros((count, len(names)), dtype=bool)
        self.asserted = np.zeros((count, each, len(names)), dtype=bool)
        self.rows = np.zeros((count, each, tokenizer.context_length), dtype=np.int16)
        for k, (facts, captions) in enumerate(entries):
            self.facts[k, [names[fact] for fact in facts]] = True
            self.rows[k] = tokenizer([text for text, _ in captions]).numpy()
            for c, (_, some) in enumerate(captions):
                self.asserted[k, c, [names[fact] for fact in some if fact in names]] = True
                if any(fact not in names for fact in some):
                    raise AssertionError(f"a caption asserts what holds of no image: {some}")
        self.last = tokenizer.vocab_size - 1

    def draw(self, numbers: NDArray[np.int64], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token rows (B, L) of a caption each, and pairs (B, B): image i satisfies all that caption j asserts."""
        which = rng.integers(self.rows.shape[1], size=len(numbers))
        rows = torch.from_numpy(self.rows[numbers, which].astype(np.int64))
        # Now and then a word is hidden, so that an unknown word means "something".
        hide = torch.from_numpy(rng.random(rows.shape) < 0.02) & (rows > 2) & (rows < self.last)
        rows[hide] = 1
        lacking = (~self.facts[numbers]).astype(np.float32) @ self.asserted[numbers, which].astype(np.float32).T
        return rows[:, : int((rows > 0).sum(dim=1).max())], torch.from_numpy(lacking == 0)


def patch_loss(logits: Tensor, view: View) -> tuple[Tensor, Tensor]:
    """Losses of (B, P * P, ASKED) outputs: on object, texture and colours; on details and defects."""
    side = math.isqrt(logits.shape[1])
    shares = F.adaptive_avg_pool2d(view.drawn, side).flatten(2)  # (B, 3, patches)
    cover, detail, defect = shares.unbind(1)
    parts = logits.float().split([1, *(len(names) for names in CLASSES[1:]), 1, len(KINDS)], dim=2)
    look = F.binary_cross_entropy_with_logits(parts[0][:, :, 0], cover)
    for part, column, where in zip(parts[1:4], (1, 2, 3), (cover > 0.6, cover > 0.6, cover < 0.4), strict=True):
        labels = view.labels[:, column, None].expand_as(cover)
        look = look + 0.3 * F.cross_entropy(part[where], labels[where])
    kinds = F.one_hot(view.labels[:, 4] + 1, len(KINDS) + 1)[:, None, 1:]  # (B, 1, kinds)
    found = _touched(parts[4], detail[:, :, None]) + _touched(parts[5], defect[:, :, None] * kinds)
    return look, found


def _touched(logits: Tensor, shares: Tensor) -> Tensor:
    """Balanced cross-entropy of what lies in a patch, times the number of questions."""
    there = shares >= TOUCHED
    clear = (there | (shares == 0)).float()
    loss = F.binary_cross_entropy_with_logits(
        logits, there.float(), weight=clear, pos_weight=torch.tensor(4.0), reduction="none"
    )
    return loss.mean(dim=(0, 1)).sum()


def patch_auroc(logits: Tensor, view: View) -> float:
    """AUROC of the patches with a defect among all clear ones, whatever its kind."""
    share = F.adaptive_avg_pool2d(view.drawn[:, 2:], math.isqrt(logits.shape[1])).flatten()
    there, clear = share >= TOUCHED, (share >= TOUCHED) | (share == 0)
    score = logits[:, :, -len(KINDS) :].float().logsumexp(dim=2).flatten()
    return float(roc_auc_score(there[clear].numpy(), score[clear].numpy()))


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


class Trainer:
    """The loop that both encoders share: schedule, optimiser, log and checkpoints.

    A run goes on from the checkpoint in the working folder if there is one.
    """

    def __init__(self, options: argparse.Namespace, model: nn.Module, heads: nn.Module, facts: list[str]) -> None:
        self.options, self.model = options, model
        self.trained = nn.ModuleList([model, heads])
        self.optimiser = torch.optim.AdamW(decayed(self.trained, 0.05), lr=options.rate, betas=(0.9, 0.98))
        self.checkpoint = options.work / f"{options.what}.checkpoint"
        self.start, self.spent = 0, 0.0
        if self.checkpoint.exists():
            saved = torch.load(self.checkpoint, weights_only=True)
            self.trained.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])
            self.start, self.spent = saved["step"], saved["seconds"]
        self.log = Log(options.work / f"{options.what}.log", fresh=self.start == 0)
        if self.start:
            self.log(f"went on from step {self.start}")
            return
        self.log(f"pocket/{options.what}: seed {options.seed}, {options.steps} steps of {options.batch} images, "
                 f"rate {options.rate}, bfloat16 autocast")  # fmt: skip
        for line in facts:
            self.log(line)
        self.log(f"{sum(p.numel() for p in model.parameters())} parameters; {versions()}")

    def run(self, pool: Pool, losses: Callable[[int, View], dict[str, Tensor]], look: Callable[[], str]) -> None:
        """Trains to the last step; `losses` gives the terms of a batch by name, `look` a word for the log."""
        options, began, since = self.options, time.monotonic() - self.spent, time.monotonic()
        sums: Counter[str] = Counter()
        batches = islice(pool.batches(options.seed, options.batch), self.start, options.steps)
        for step, view in enumerate(batches, self.start):
            for group in self.optimiser.param_groups:
                group["lr"] = options.rate * schedule(step, options.steps, 200)
            self.trained.train()
            terms = losses(step, view)
            self.optimiser.zero_grad()
            torch.stack(list(terms.values())).sum().backward()
            nn.utils.clip_grad_norm_(self.trained.parameters(), 1.0)
            self.optimiser.step()
            sums.update({name: float(term.detach()) for name, term in terms.items()})
            done = step + 1
            if done % options.every and done < options.steps:
                continue
            count = done % options.every or options.every
            pace = count * options.batch / (time.monotonic() - since)
            means = "  ".join(f"{name} {value / count:.4f}" for name, value in sums.items())
            self.trained.eval()
            self.log(f"step {done:6d}  {means}  {look()}  {pace:.0f} images/s")
            self._save(done, time.monotonic() - began)
            sums, since = Counter(), time.monotonic()
        self.log(f"{options.steps * options.batch} views in {time.monotonic() - began:.0f} s; "
                 "the weights are those of the last step")  # fmt: skip

    def _save(self, step: int, seconds: float) -> None:
        save_file(to_half(self.model.state_dict()), self.options.work / f"{self.options.what}.safetensors")
        progress = {"model": self.trained.state_dict(), "optimiser": self.optimiser.state_dict(), "step": step,
                    "seconds": seconds}  # fmt: skip
        new = self.checkpoint.with_suffix(".new")
        torch.save(progress, new)
        new.replace(self.checkpoint)


def train_clip(options: argparse.Namespace) -> None:
    """Trains `pocket/clip`."""
    torch.manual_seed(options.seed)
    config = json.loads((WEIGHTS / "clip.json").read_text(encoding="utf-8"))
    tokenizer = WordTokenizer.read(WEIGHTS / "vocabulary.txt", config["text_cfg"]["context_length"])
    pool, texts = Pool(options.work), Texts(options.work, tokenizer)
    model: Any = build_clip(config)
    heads = nn.ModuleList([nn.Linear(config["vision_cfg"]["width"], ASKED) for _ in TAPS])
    facts = [f"pool of {len(pool.images)}: {json.dumps(asdict(Mixture()))}", f"model: {json.dumps(config)}"]
    trainer = Trainer(options, model, heads, facts)
    mean, std = (torch.tensor(config["preprocess_cfg"][key]).view(3, 1, 1) for key in ("mean", "std"))
    kept: list[Tensor] = []
    for tap in TAPS:
        block = model.visual.transformer.resblocks[tap - 1]
        block.register_forward_hook(lambda *call: kept.append(call[2][:, 1:]))

    def forward(view: View) -> tuple[Tensor, list[Tensor]]:
        kept.clear()
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            seen = model.visual((view.images - mean) / std)
            return seen, [head(tap) for head, tap in zip(heads, kept, strict=True)]

    def losses(step: int, view: View) -> dict[str, Tensor]:
        rows, pairs = texts.draw(view.numbers, np.random.default_rng([options.seed, step, 1]))
        seen, asked = forward(view)
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            read = encode_text(model, rows)
        seen, read = F.normalize(seen.float(), dim=-1), F.normalize(read.float(), dim=-1)
        looks, founds = zip(*(patch_loss(logits, view) for logits in asked), strict=True)
        scale = model.logit_scale.exp().clamp(max=100)
        return {
            "pair": pair_loss(seen, read, scale, pairs),
            "look": options.look * torch.stack(looks).mean(),
            "found": options.found * torch.stack(founds).mean(),
        }

    @torch.no_grad()
    def look() -> str:
        view = pool.held_out()
        rows, pairs = texts.draw(view.numbers, np.random.default_rng(0))
        seen, asked = [], []
        for first in range(0, HELD_OUT, 256):
            some, logits = forward(View(*(field[first : first + 256] for field in view)))
            seen.append(some)
            asked.append(logits[-1])
        near = F.normalize(torch.cat(seen).float(), dim=-1) @ F.normalize(encode_text(model, rows), dim=-1).T
        hits = pairs[torch.arange(HELD_OUT), near.argmax(dim=1)].float().mean()
        return f"held out: captions right {hits:.3f}, defects by patch {patch_auroc(torch.cat(asked), view):.3f}"

    trainer.run(pool, losses, look)


def train_resnet(options: argparse.Namespace) -> None:
    """Trains `pocket/resnet`."""
    torch.manual_seed(options.seed)
    pool = Pool(options.work)
    model: Any = build_backbone().to(memory_format=torch.channels_last)  # twice as fast on a CPU
    sizes = [len(names) for names in CLASSES[:3]]
    heads = nn.ModuleList([nn.Linear(model.num_features, sum(sizes)), nn.Linear(model.num_features, ASKED)])
    trainer = Trainer(options, model, heads, [f"pool of {len(pool.images)}: {json.dumps(asdict(Mixture()))}"])
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (BACKBONE_MEAN, BACKBONE_STD))

    def forward(view: View) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = model(((view.images - mean) / std).contiguous(memory_format=torch.channels_last))
            return heads[0](features.mean(dim=(2, 3))), heads[1](features.flatten(2).transpose(1, 2))

    def losses(_: int, view: View) -> dict[str, Tensor]:
        whole, asked = forward(view)
        classes = zip(whole.float().split(sizes, dim=1), view.labels.T[:3], strict=True)
        look, found = patch_loss(asked, view)
        return {
            "classes": torch.stack([F.cross_entropy(part, labels) for part, labels in classes]).sum(),
            "look": options.look * look,
            "found": options.found * found,
        }

    @torch.no_grad()
    def look() -> str:
        view = pool.held_out()
        whole, asked = forward(view)
        right = [
            float((part.argmax(dim=1) == labels).float().mean())
            for part, labels in zip(whole.split(sizes, dim=1), view.labels.T[:3], strict=True)
        ]
        return (
            "held out: shape {:.3f} texture {:.3f} colour {:.3f}, ".format(*right)
            + f"defects by position {patch_auroc(asked, view):.3f}"
        )

    trainer.run(pool, losses, look)


STEPS = {"clip": 5000, "resnet": 2400}
"""Of the shipped weights."""


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the command line."""
    parser = argparse.ArgumentParser(description="Pretrain the pocket encoders.")
    parser.add_argument("what", choices=("pool", "clip", "resnet"))
    parser.add_argument("--work", type=Path, default=Path("pretrain"), help="folder for pool, weights and logs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=80 * 1024, help="images of the pool")
    parser.add_argument("--steps", type=int, help="other than those of the shipped weights")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--look", type=float, default=0.2, help="weight of what patches say on object and colours")
    parser.add_argument("--found", type=float, default=1.0, help="weight of what patches say on defects")
    parser.add_argument("--every", type=int, default=100, help="steps between log lines")
    options = parser.parse_args(arguments)
    if options.what == "pool":
        render_pool(options.work, options.seed, options.count)
        return
    options.steps = options.steps or STEPS[options.what]
    {"clip": train_clip, "resnet": train_resnet}[options.what](options)


if __name__ == "__main__":
    main()
