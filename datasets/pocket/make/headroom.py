"""Measures how much there is to gain on pocket: `python -m make.headroom`.

No method under test is trained. Ceilings come from learners that are given pixel masks, floors from rules that
know no encoder; all are tested on the shipped test images, or on fresh renderings (`--fresh-test`):

- ceiling: a small U-Net, given fresh renderings of all categories with their masks, half of them normal;
- transfer: the same U-Net, given the other categories only, in folds and from either half to the other;
- probe: a linear layer and a small MLP on the frozen encoder's patch tokens, given masks of the other categories;
- zero-shot: the method `clip` as the harness runs it;
- rules: distances to normal training images, and local contrast.

The image score of all but the method and the rules is the mean of the highest hundredth of the pixels of the
anomaly map, which is as much as the smallest defect covers. AUROC is taken per category and averaged.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import bench
from bench.contracts import GOOD, ImageSet
from bench.data.images import read_image, read_mask
from bench.datasets.pocket import HALVES, Pocket
from bench.encoders import identify, load_text_image
from bench.errors import BenchError
from bench.metrics import binary_metrics, pixel_metrics

from . import noise
from .categories import CATEGORIES
from .defects import spoil
from .render import TRAIN_GOOD
from .scenes import expose, quantise

PARTS = ("ceiling", "transfer", "probe", "zero-shot", "rules")
RENDERER = ("noise", "shapes", "textures", "scenes", "defects", "categories")
"""The modules that the pixels follow from."""
TOP = 0.01
"""Share of the pixels whose mean is the image score."""
NEAREST_PATCH = "nearest normal patch"
STREAM = 0x68656164  # "head": the first word of every seed, so that no stream is another script's
TRAIN, TEST, NORMAL = range(3)
"""The streams of renderings to learn from, to test on, and of normal training images."""

Pixels = NDArray[np.uint8]
Maps = NDArray[np.float32]
T = TypeVar("T")


def say(text: str) -> None:
    """Report progress."""
    click.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


# ---------------------------------------------------------------- renderings


def draw(
    stream: int, category: str, kind: str, number: int, strength: float | None = None
) -> tuple[Pixels, Pixels]:
    """One fresh rendering `(S, S, 3)` and its mask `(S, S)` of 0 and 1; all follows from the arguments."""
    rng = np.random.default_rng([STREAM, stream, number, *f"{category}/{kind}".encode()])
    recipe = CATEGORIES[category]
    for _ in range(10):
        scene, mask = recipe.draw(rng), np.zeros((noise.SIZE, noise.SIZE), dtype=np.uint8)
        if kind != GOOD:
            try:
                scene, where = spoil(scene, kind, rng, rng.random() if strength is None else strength)
            except RuntimeError:  # this scene has no room for it
                continue
            mask = where.astype(np.uint8)
        return quantise(expose(scene.image(), rng)), mask
    raise RuntimeError(f"no {kind} could be drawn on ten scenes of {category}")


def _fill(category: str, count: int, folder: Path) -> None:
    """Keep `count` renderings to learn from: by turns normal and with a defect, of any strength, of each type."""
    images = np.empty((count, noise.SIZE, noise.SIZE, 3), dtype=np.uint8)
    masks = np.empty(images.shape[:3], dtype=np.uint8)
    defects = CATEGORIES[category].defects
    for k in range(count):
        kind = defects[k // 2 % len(defects)] if k % 2 else GOOD
        images[k], masks[k] = draw(TRAIN, category, kind, k)
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("masks", masks), ("images", images)):
        part = folder / f"{category}-{name}.{os.getpid()}.npy"
        np.save(part, array)
        part.replace(folder / f"{category}-{name}.npy")


def _write(category: str, count: int, folder: Path) -> None:
    """Write `count` test images of a category, half of them normal, and normal training images, as MVTec does.

    Strengths are spread evenly over the images of a type, by number from subtle to plain.
    """
    defects = CATEGORIES[category].defects
    each = max(1, round(count / 2 / len(defects)))
    plan = [("train", GOOD, NORMAL, TRAIN_GOOD), ("test", GOOD, TEST, count // 2)]
    plan += [("test", kind, TEST, each) for kind in defects]
    for split, kind, stream, number in plan:
        images = folder / category / split / kind
        truth = folder / category / "ground_truth" / kind
        for path in (images,) if kind == GOOD else (images, truth):
            path.mkdir(parents=True, exist_ok=True)
        for k in range(number):
            pixels, mask = draw(stream, category, kind, k, (k + 0.5) / number)
            Image.fromarray(pixels).save(images / f"{k:04d}.png")
            if kind != GOOD:
                Image.fromarray(mask * 255).save(truth / f"{k:04d}_mask.png")


def _each_category(task: Callable[[str, int, Path], None], count: int, folder: Path, workers: int) -> None:
    """Call a task for each category, in processes of one thread each."""
    if not workers:
        for category in CATEGORIES:
            task(category, count, folder)
        return
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        start, total = time.monotonic(), len(CATEGORIES)
        with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
            done = pool.map(task, CATEGORIES, [count] * total, [folder] * total)
            for number, _ in enumerate(done, 1):
                speed = number * count / (time.monotonic() - start)
                say(f"rendered {number} of {total} categories, {speed:.0f} images/s")
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


@cache
def renderer() -> str:
    """A hash of the code that draws, which names the folders of what is kept."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in RENDERER)).hexdigest()[:12]


class Renderings(NamedTuple):
    """Images `(N, S, S, 3)` and masks `(N, S, S)` of 0 and 1 to learn from."""

    images: Pixels
    masks: Pixels


def fresh(work: Path, count: int, workers: int) -> dict[str, Renderings]:
    """The renderings to learn from, per category, mapped from the files in which they are kept."""
    folder = work / f"{renderer()}-train-{count}"
    paths = {c: (folder / f"{c}-images.npy", folder / f"{c}-masks.npy") for c in CATEGORIES}
    if not all(images.is_file() for images, _ in paths.values()):
        say(f"rendering {count} images of each category to learn from")
        _each_category(_fill, count, folder, workers)
    return {c: Renderings(*(np.load(path, mmap_mode="r") for path in pair)) for c, pair in paths.items()}


def fresh_tree(work: Path, count: int, workers: int) -> Path:
    """The folder of fresh test images, in MVTec AD's layout."""
    folder = work / f"{renderer()}-test-{count}"
    if not folder.is_dir():
        say(f"rendering {count} images of each category to test on")
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        _each_category(_write, count, part, workers)
        part.replace(folder)
    return folder


class TestSet(NamedTuple):
    """Test images of one category, in the order of their numbers, and its normal training images.

    Images are `(N, S, S, 3)` uint8, masks `(N, S, S)` bool; `types` names the defect of each image, or `good`.
    """

    images: Pixels
    masks: NDArray[np.bool_]
    types: tuple[str, ...]
    normal: Pixels

    @property
    def labels(self) -> NDArray[np.bool_]:
        return np.array([kind != GOOD for kind in self.types])


def read(folder: Path | None) -> dict[str, TestSet]:
    """The test sets of a folder; of the shipped images if None.

    Raises:
        BenchError: they are not what the renderer draws now.
    """
    samples = Pocket(folder, Pocket.Config()).samples()
    found = sorted({sample.category for sample in samples})
    sizes = {read_image(sample).shape[:2] for sample in samples}
    if found != sorted(CATEGORIES) or sizes != {(noise.SIZE, noise.SIZE)}:
        raise BenchError(
            f"the images are of {', '.join(found)}, of sizes {sorted(sizes)}, which is not what is rendered now; "
            "render them anew, or test on fresh ones (--fresh-test N)"
        )
    sets = {}
    for category in found:
        test = [s for s in samples if s.category == category and s.split == "test"]
        normal = [s for s in samples if s.category == category and s.split == "train"]
        sets[category] = TestSet(
            np.stack([read_image(sample) for sample in test]),
            np.stack([read_mask(sample) for sample in test]),
            tuple(sample.type for sample in test),
            np.stack([read_image(sample) for sample in normal]),
        )
    return sets


# ---------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Measured:
    """Image and pixel AUROC of a category, and image AUROC of each defect type and of its faintest third."""

    image: float
    pixel: float
    types: Mapping[str, float]
    faintest: Mapping[str, float]


def image_scores(maps: Maps) -> Maps:
    """The means `(N,)` of the highest hundredth of the pixels of maps `(N, H, W)`."""
    flat = maps.reshape(len(maps), -1)
    count = max(1, round(TOP * flat.shape[1]))
    highest: Maps = np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)
    return highest


def measure(test: TestSet, scores: Maps, maps: Maps) -> Measured:
    """AUROC of image scores `(N,)` and of maps `(N, h, w)`, which are scaled to the images' size."""
    types, faintest = {}, {}
    of = np.array(test.types)
    for kind in dict.fromkeys(kind for kind in test.types if kind != GOOD):
        members = np.flatnonzero(of == kind)
        types[kind] = _auroc(scores, of == GOOD, members)
        faintest[kind] = _auroc(scores, of == GOOD, members[: max(1, len(members) // 3)])
    pixel = pixel_metrics(maps, test.masks, eval_size=None)["pixel_auroc"]
    assert pixel is not None
    return Measured(_auroc(scores, of == GOOD, np.flatnonzero(test.labels)), pixel, types, faintest)


def _auroc(scores: Maps, good: NDArray[np.bool_], bad: NDArray[np.int64]) -> float:
    chosen = np.concatenate([scores[good], scores[bad]])
    labels = np.concatenate([np.zeros(int(good.sum())), np.ones(len(bad))])
    value = binary_metrics(chosen, labels)["auroc"]
    assert value is not None
    return value


Result = dict[str, Measured]
"""By category."""


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# ---------------------------------------------------------------- the U-Net


class _Block(nn.Sequential):
    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        super().__init__(*layers)


class UNet(nn.Module):
    """A U-Net of 0.12 million parameters at half the images' size: `(N, 3, H, W)` to logits `(N, H, W)`."""

    def __init__(self, widths: Sequence[int] = (16, 24, 32, 48)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList(_Block(a, b) for a, b in pairwise((widths[0], *widths)))
        self.up = nn.ModuleList(_Block(a + b, a) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[0], 1, 1)
        nn.init.constant_(self.head.get_parameter("bias"), -4.0)  # few pixels are anomalous

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.stem(images))
        kept: list[Tensor] = []
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if kept else x)
            kept.append(x)
        for block, skipped in zip(reversed(self.up), reversed(kept[:-1]), strict=True):
            x = block(torch.cat([F.interpolate(x, size=skipped.shape[-2:]), skipped], dim=1))
        logits = F.interpolate(self.head(x), size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits[:, 0]


def _inputs(images: Pixels) -> Tensor:
    """Images `(N, H, W, 3)` as the network takes them: `(N, 3, H, W)`, in channels-last order, about -1 to 1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _rows(sizes: Sequence[int], batch: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """One epoch of batches of `(set, row)`, in random order; what is left over is dropped."""
    pairs = np.concatenate([np.stack([np.full(n, k), np.arange(n)], axis=1) for k, n in enumerate(sizes)])
    shuffled = rng.permutation(pairs)
    for start in range(0, len(pairs) - batch + 1, batch):
        yield shuffled[start : start + batch]


def train_unet(data: Sequence[Renderings], epochs: int, seed: int, batch: int = 32) -> UNet:
    """A U-Net trained on renderings and their mirror images.

    Binary cross-entropy of pixels, AdamW, one cycle of the learning rate.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([STREAM, seed])
    model = UNet().to(memory_format=torch.channels_last)
    sizes = [len(each.images) for each in data]
    steps = epochs * (sum(sizes) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    start = time.monotonic()
    for epoch in range(epochs):
        total, count = 0.0, 0
        for rows in _rows(sizes, batch, rng):
            flipped = tuple(axis for axis in (1, 2) if rng.random() < 0.5)
            images = _inputs(np.flip(np.stack([data[k].images[row] for k, row in rows]), flipped).copy())
            masks = torch.from_numpy(np.flip(np.stack([data[k].masks[row] for k, row in rows]), flipped).copy())
            optimiser.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(images)
            loss = F.binary_cross_entropy_with_logits(logits.float(), masks.float())
            loss.backward()
            optimiser.step()
            schedule.step()
            total, count = total + loss.item(), count + 1
        speed = (epoch + 1) * count * batch / (time.monotonic() - start)
        say(f"  epoch {epoch + 1} of {epochs}: loss {total / count:.4f}, {speed:.0f} images/s")
    return model.eval()


@torch.no_grad()
def test_unet(model: UNet, sets: Mapping[str, TestSet], categories: Iterable[str]) -> Result:
    """The network's AUROC on the test images of some categories."""
    result = {}
    for category in categories:
        test = sets[category]
        maps = np.concatenate(
            [model(_inputs(test.images[k : k + 64])).numpy() for k in range(0, len(test.types), 64)]
        )
        result[category] = measure(test, image_scores(maps), maps)
    return result


def folds(count: int, seed: int) -> list[tuple[str, ...]]:
    """The categories in random parts of equal size."""
    names = np.random.default_rng([STREAM, seed]).permutation(sorted(CATEGORIES))
    return [tuple(sorted(map(str, names[k::count]))) for k in range(count)]


def ceiling(data: Mapping[str, Renderings], sets: Mapping[str, TestSet], epochs: int, seed: int) -> Result:
    """The U-Net that has seen all categories."""
    say("U-Net, all categories")
    return test_unet(train_unet(list(data.values()), epochs, seed), sets, CATEGORIES)


def transfer(
    data: Mapping[str, Renderings],
    sets: Mapping[str, TestSet],
    held_out: Iterable[tuple[str, ...]],
    epochs: int,
    seed: int,
) -> Result:
    """U-Nets that have seen all categories but those that they are tested on."""
    result: Result = {}
    for part in held_out:
        say(f"U-Net, without {', '.join(part)}")
        others = [each for category, each in data.items() if category not in part]
        result |= test_unet(train_unet(others, epochs, seed), sets, part)
    return {category: result[category] for category in CATEGORIES}


# ---------------------------------------------------------------- probes of the encoder


class Tokens(NamedTuple):
    """Patch tokens `(N, h * w, D)` of an encoder's blocks side by side, and their grid."""

    values: Tensor
    grid: tuple[int, int]


def _tokens(encoder: Any, images: Pixels, category: str) -> Tokens:
    blocks = sorted({encoder.n_blocks // 3 - 1, 2 * encoder.n_blocks // 3 - 1, encoder.n_blocks - 1})
    content = {hashlib.sha256(image.tobytes()).hexdigest(): image for image in images}
    keys = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    found = encoder.encode_images(ImageSet(keys, [category] * len(keys), {}, content.__getitem__), layers=blocks)
    return Tokens(torch.cat([found.tokens[block][:, 1:] for block in blocks], dim=2), found.grid)


def _fit(features: Tensor, shares: Tensor, hidden: int | None, epochs: int, seed: int) -> nn.Module:
    """A linear layer or, with a hidden layer, an MLP: features `(M, D)` to the mask's shares of patches `(M,)`."""
    torch.manual_seed(seed)
    size = features.shape[1]
    layers = [nn.Linear(size, 1)] if hidden is None else [nn.Linear(size, hidden), nn.ReLU(), nn.Linear(hidden, 1)]
    model = nn.Sequential(*layers)
    batch = 2048
    steps = epochs * -(-len(features) // batch)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps, pct_start=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(batch):
            optimiser.zero_grad(set_to_none=True)
            F.binary_cross_entropy_with_logits(model(features[rows])[:, 0], shares[rows]).backward()
            optimiser.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def _probe_maps(model: nn.Module, tokens: Tokens, shift: Tensor, scale: Tensor) -> Maps:
    """Maps `(N, S, S)`: the patches' logits, scaled up bilinearly."""
    logits = model((tokens.values - shift) / scale)[:, :, 0].unflatten(1, tokens.grid)
    size = (noise.SIZE, noise.SIZE)
    maps: Maps = F.interpolate(logits[:, None], size=size, mode="bilinear", align_corners=False)[:, 0].numpy()
    return maps


def probe(
    data: Mapping[str, Renderings],
    sets: Mapping[str, TestSet],
    held_out: Iterable[tuple[str, ...]],
    *,
    name: str,
    count: int,
    epochs: int,
    seed: int,
) -> dict[str, Result]:
    """Probes of an encoder's patch tokens, which have seen `count` renderings of each of the other categories."""
    say(f"probes of {name}: encoding")
    encoder = load_text_image(identify(name))
    inputs, shares, tests = {}, {}, {}
    for category, drawn in data.items():
        inputs[category] = _tokens(encoder, np.array(drawn.images[:count]), category)
        masks = torch.from_numpy(np.array(drawn.masks[:count])).float()[:, None]
        shares[category] = F.adaptive_avg_pool2d(masks, inputs[category].grid).flatten(1)
        tests[category] = _tokens(encoder, sets[category].images, category)
    found: dict[str, Result] = {"linear": {}, "mlp": {}}
    for part in held_out:
        say(f"probes of {name}, without {', '.join(part)}")
        others = [category for category in data if category not in part]
        features = torch.cat([inputs[category].values.flatten(0, 1) for category in others])
        targets = torch.cat([shares[category].flatten() for category in others])
        shift, scale = features.mean(0), features.std(0) + 1e-6
        features = (features - shift) / scale
        for kind, hidden in (("linear", None), ("mlp", 64)):
            model = _fit(features, targets, hidden, epochs, seed)
            for category in part:
                maps = _probe_maps(model, tests[category], shift, scale)
                found[kind][category] = measure(sets[category], image_scores(maps), maps)
    return {kind: {category: result[category] for category in CATEGORIES} for kind, result in found.items()}


# ---------------------------------------------------------------- the floor


def zero_shot(folder: Path | None, store: Path) -> dict[str, tuple[float, float]]:
    """Image and pixel AUROC of the method `clip` per category, as the harness measures them.

    Raises:
        BenchError: a trial failed, or the set has no prompts for a category.
    """
    say("zero-shot CLIP, through the harness")
    # A store of its own for each run: what another one has left would otherwise be taken for this encoder's.
    shutil.rmtree(store, ignore_errors=True)
    results = bench.run(methods="clip", dataset="pocket", data_root=folder, seeds=1, workers=0, store=store)
    if results.failures:
        raise BenchError(f"zero-shot CLIP failed: {results.failures[0].reason}")
    pairs = results.frame()[["category", "image_auroc", "pixel_auroc"]].itertuples(index=False)
    return {str(category): (float(image), float(pixel)) for category, image, pixel in pairs}


def _shrink(images: Pixels, side: int) -> Tensor:
    """Images `(N, 3, side, side)` in [0, 1], averaged."""
    return F.adaptive_avg_pool2d(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, side)


def _nearest_image(test: TestSet) -> tuple[Tensor, Tensor, Tensor]:
    """Distances `(N,)` to the nearest normal image at 16 pixels, largest differences from it, and their maps."""
    images, normal = _shrink(test.images, 16), _shrink(test.normal, 16)
    distances = torch.cdist(images.flatten(1), normal.flatten(1))
    nearest = distances.argmin(dim=1)
    differences = (_shrink(test.images, noise.SIZE) - _shrink(test.normal, noise.SIZE)[nearest]).abs().mean(dim=1)
    patches = F.avg_pool2d(differences[:, None], 8, 4)[:, 0]
    return distances.amin(dim=1), patches.amax(dim=(1, 2)), patches


def _nearest_patch(test: TestSet) -> Tensor:
    """Maps of the distance of patches of 8 pixels, at half the resolution, to a normal image's nearest one."""

    def patches(images: Pixels) -> Tensor:
        found: Tensor = F.unfold(_shrink(images, noise.SIZE // 2), 4, stride=2)
        return found.transpose(1, 2)

    images, normal = patches(test.images), patches(test.normal).flatten(0, 1)
    distances = torch.stack([torch.cdist(image, normal).amin(dim=1) for image in images])
    side = round(distances.shape[1] ** 0.5)
    return distances.view(-1, side, side)


def _contrast(test: TestSet) -> tuple[Tensor, Tensor]:
    """Maps of the standard deviation in windows of 8 pixels, and of the absolute Laplacian, of the brightness."""
    grey = _shrink(test.images, noise.SIZE).mean(dim=1, keepdim=True)
    level, square = F.avg_pool2d(grey, 8, 2), F.avg_pool2d(grey.square(), 8, 2)
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
    laplacian = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), kernel).abs()
    return (square - level.square()).clamp(min=0).sqrt()[:, 0], laplacian[:, 0]


def rules(sets: Mapping[str, TestSet]) -> dict[str, Result]:
    """Rules that know no encoder: higher distance or contrast is taken for anomalous."""
    say("rules")
    found: dict[str, Result] = {}
    for category in CATEGORIES:
        test = sets[category]
        distance, difference, differences = _nearest_image(test)
        patch = _nearest_patch(test)
        deviation, laplacian = _contrast(test)
        for rule, scores, maps in (
            ("nearest normal image", distance, differences),
            ("largest difference from it", difference, differences),
            (NEAREST_PATCH, patch.amax(dim=(1, 2)), patch),
            ("local deviation, max", deviation.amax(dim=(1, 2)), deviation),
            ("local deviation, mean", deviation.mean(dim=(1, 2)), deviation),
            ("Laplacian, max", laplacian.amax(dim=(1, 2)), laplacian),
            ("Laplacian, mean", laplacian.mean(dim=(1, 2)), laplacian),
        ):
            found.setdefault(rule, {})[category] = measure(test, scores.numpy(), maps.contiguous().numpy())
    return found


# ---------------------------------------------------------------- the report


class Column(NamedTuple):
    """Image and pixel AUROC per category of one learner or rule."""

    part: str
    title: str
    values: Mapping[str, tuple[float, float]]
    types: Mapping[str, Measured] | None = None

    def mean(self, which: int) -> float:
        return mean(pair[which] for pair in self.values.values())


def column(part: str, title: str, result: Result) -> Column:
    """The column of a result."""
    return Column(part, title, {c: (m.image, m.pixel) for c, m in result.items()}, result)


class Criterion(NamedTuple):
    """A range that a mean should lie in."""

    what: str
    value: float
    low: float = 0.0
    high: float = 1.0

    @property
    def verdict(self) -> str:
        missed = max(self.low - self.value, self.value - self.high)
        return "met" if missed <= 0 else f"missed by {missed:.3f}"

    @property
    def bound(self) -> str:
        if self.high == 1.0:
            return f"≥ {self.low:.2f}"
        return f"≤ {self.high:.2f}" if self.low == 0.0 else f"{self.low:.2f} to {self.high:.2f}"


def criteria(columns: Iterable[Column]) -> list[Criterion]:
    """Criteria for the set, with the measured means; the nearest patch, which is a detector, has none."""
    found = []
    for each in columns:
        image, pixel = each.mean(0), each.mean(1)
        if each.part == "ceiling":
            found += [
                Criterion(f"{each.title}, image", image, 0.95),
                Criterion(f"{each.title}, pixel", pixel, 0.97),
            ]
        elif each.part == "transfer":
            found.append(Criterion(f"{each.title}, image", image, 0.70))
        elif each.part == "probe":
            found += [
                Criterion(f"{each.title}, image", image, 0.85),
                Criterion(f"{each.title}, pixel", pixel, 0.92),
            ]
        elif each.part == "zero-shot":
            found.append(Criterion(f"{each.title}, image", image, 0.60, 0.80))
        elif each.title != NEAREST_PATCH:
            found.append(Criterion(f"{each.title}, image", image, high=0.65))
    return found


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown(columns: Sequence[Column], settings: Mapping[str, Any]) -> str:
    """The tables: AUROC per category, defect types of the ceiling, criteria."""
    said = ", ".join(f"{name} {value}" for name, value in settings.items())
    parts = [f"Image / pixel AUROC. {said}."]
    for chosen in (
        [each for each in columns if each.part != "rules"],
        [each for each in columns if each.part == "rules"],
    ):
        if chosen:
            rows = [[c, *(f"{e.values[c][0]:.3f} / {e.values[c][1]:.3f}" for e in chosen)] for c in CATEGORIES]
            rows.append(["**mean**", *(f"**{e.mean(0):.3f} / {e.mean(1):.3f}**" for e in chosen)])
            parts.append(_table(["category", *(each.title for each in chosen)], rows))
    for each in columns:
        if each.types is not None and each.part in ("ceiling", "transfer", "probe"):
            parts.append(
                f"{each.title}: image AUROC of each defect type against normal images (of its faintest third)"
            )
            parts.append(_type_table(each.types))
    rows = [[each.what, f"{each.value:.3f}", each.bound, each.verdict] for each in criteria(columns)]
    parts.append(_table(["criterion", "measured", "wanted", ""], rows))
    return "\n\n".join(parts) + "\n"


def _type_table(result: Mapping[str, Measured]) -> str:
    kinds = sorted({kind for each in result.values() for kind in each.types})

    def cell(measured: Iterable[Measured], kind: str) -> str:
        having = [each for each in measured if kind in each.types]
        if not having:
            return ""
        return f"{mean(e.types[kind] for e in having):.2f} ({mean(e.faintest[kind] for e in having):.2f})"

    rows = [[category, *(cell([each], kind) for kind in kinds)] for category, each in result.items()]
    rows.append(["**mean**", *(cell(result.values(), kind) for kind in kinds)])
    return _table(["category", *kinds], rows)


def as_json(columns: Iterable[Column], settings: Mapping[str, Any]) -> str:
    """All numbers."""
    columns = list(columns)
    content = {
        "settings": settings,
        "results": [
            {
                "part": each.part,
                "title": each.title,
                "mean": {"image_auroc": each.mean(0), "pixel_auroc": each.mean(1)},
                "categories": {
                    category: {"image_auroc": image, "pixel_auroc": pixel}
                    | (
                        {"types": each.types[category].types, "faintest": each.types[category].faintest}
                        if each.types
                        else {}
                    )
                    for category, (image, pixel) in each.values.items()
                },
            }
            for each in columns
        ],
        "criteria": [{**each._asdict(), "verdict": each.verdict} for each in criteria(columns)],
    }
    return json.dumps(content, indent=1) + "\n"


@click.command(help=__doc__.partition("\n")[0])
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), help="Only this part; may be repeated.")
@click.option("--images", type=click.Path(path_type=Path), help="Folder of the test images; the shipped ones.")
@click.option("--fresh-test", type=click.IntRange(12), help="Test on so many fresh renderings of each category.")
@click.option(
    "--work", type=click.Path(path_type=Path), required=True, help="Folder in which renderings are kept."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for headroom.json and headroom.md.")
@click.option(
    "--per-category", type=click.IntRange(2), default=1000, show_default=True, help="Renderings to learn from."
)
@click.option(
    "--per-probe", type=click.IntRange(2), default=500, show_default=True, help="Of these, for the probes."
)
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True, help="Of the U-Nets.")
@click.option("--probe-epochs", type=click.IntRange(1), default=10, show_default=True, help="Of the probes.")
@click.option(
    "--folds", "n_folds", type=click.IntRange(2), default=3, show_default=True, help="Folds of categories."
)
@click.option("--encoder", default=Pocket.traits.encoder, show_default=True, help="Text-image encoder to probe.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, batches and folds."
)
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes that render.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads that train.")
def main(
    parts: tuple[str, ...],
    images: Path | None,
    fresh_test: int | None,
    work: Path,
    out: Path | None,
    per_category: int,
    per_probe: int,
    epochs: int,
    probe_epochs: int,
    n_folds: int,
    encoder: str,
    seed: int,
    workers: int,
    threads: int,
) -> None:
    """Entry point of the command line."""
    if images is not None and fresh_test is not None:
        raise click.UsageError("--images and --fresh-test are two ways to say what is tested on; choose one")
    torch.set_num_threads(threads)
    renderer()  # before the code could change under a long run
    chosen = parts or PARTS
    start = time.monotonic()
    columns: list[Column] = []
    try:
        folder = images if fresh_test is None else fresh_tree(work, fresh_test, workers)
        sets = read(folder)
        data = fresh(work, per_category, workers) if {"ceiling", "transfer", "probe"} & set(chosen) else {}
        held_out = folds(n_folds, seed)
        if "ceiling" in chosen:
            columns.append(column("ceiling", "U-Net, all categories", ceiling(data, sets, epochs, seed)))
        if "transfer" in chosen:
            for title, parting in (
                (f"other categories, {n_folds} folds", held_out),
                ("the other half", [*HALVES.values()]),
            ):
                columns.append(column("transfer", f"U-Net, {title}", transfer(data, sets, parting, epochs, seed)))
        if "probe" in chosen:
            found = probe(data, sets, held_out, name=encoder, count=per_probe, epochs=probe_epochs, seed=seed)
            titles = {"linear": "linear probe", "mlp": "MLP probe"}
            columns += [column("probe", f"{titles[kind]}, other categories", each) for kind, each in found.items()]
        if "zero-shot" in chosen:
            columns.append(Column("zero-shot", "zero-shot CLIP", zero_shot(folder, work / "store")))
        if "rules" in chosen:
            columns += [column("rules", rule, each) for rule, each in rules(sets).items()]
    except BenchError as error:
        raise click.ClickException(str(error)) from None
    tested = sum(len(test.types) for test in sets.values())
    settings: dict[str, Any] = {
        "tested on": f"{tested} {'shipped' if folder is None else 'fresh' if fresh_test else 'given'} images",
        "renderings per category": per_category,
        "of these for probes": per_probe,
        "epochs": epochs,
        "probe epochs": probe_epochs,
        "folds": "; ".join(", ".join(part) for part in held_out),
        "seed": seed,
        "renderer": renderer(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - start),
    }
    text = markdown(columns, settings)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "headroom.json").write_text(as_json(columns, settings), encoding="utf-8")
        (out / "headroom.md").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
