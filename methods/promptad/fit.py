"""How PromptAD is trained: what each step sees, and the steps, of one trial or of several as one.

Trials of one target differ in seed and shots alone, so that they share the encoder's features of their images, of
which there is one copy (on the device, where :func:`bench.tools.devices.resident` finds room), and train as
further views of the same layers (:meth:`bench.methods.promptad.net.Decoder.join`). Whatever is random in
a trial comes from generators of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import optim

from bench.contracts import Context, ImageSet, TrainingSet
from bench.errors import NotApplicable
from bench.methods.promptad import net as net
from bench.methods.promptad.loss import draw_reference, objective
from bench.methods.promptad.text import Ints, Texts, resolve_layers, views
from bench.tools.devices import resident, sent

if TYPE_CHECKING:
    from bench.methods.promptad import PromptADConfig


def fit(config: PromptADConfig, trains: Sequence[TrainingSet], contexts: Sequence[Context]) -> list[net.Decoder]:
    """The decoders trained on ``trains[i]`` under ``contexts[i]``; each as if it were trained alone.

    Raises:
        NotApplicable: a training set lacks normal images or labelled anomalies.
    """
    for train in trains:
        if not train.labels.any() or train.labels.all():
            raise NotApplicable("PromptAD learns from normal images and labelled anomalies; one kind is missing")
    device = torch.device(contexts[0].device)
    encoder = contexts[0].encoder(config.encoder)
    layers = resolve_layers(config.clip_layers, encoder.n_blocks)
    images = ImageSet.union([train.images for train in trains])
    features = encoder.encode_images(images, layers=layers, image_size=config.img_size)
    tokens = [resident(features.tokens[layer], device) for layer in layers]
    regions = None
    if config.supervision != "image":
        regions = torch.cat([_regions(train, features.grid) for train in trains]).to(device)
    texts = Texts(trains[0].images, config, encoder)
    normality, abnormality = texts.normality.to(device), texts.abnormality.to(device)
    drawn = _schedule(config, trains, contexts, images, texts)
    # to the device once, and to where the features are: a step that looked rows up elsewhere would wait for it
    schedule = drawn.to(device)
    rows_at = {t.device: drawn[:, 0].flatten(1).to(t.device) for t in tokens}

    # mps, for one, cannot draw all 64 bits of a number
    draws_at = device if device.type == "cuda" else torch.device("cpu")
    noises_of = [torch.Generator(draws_at).manual_seed(context.seed) for context in contexts]
    decoders = []
    for context in contexts:
        weights_of = torch.Generator().manual_seed(context.seed)
        decoder = net.Decoder(config, len(layers), encoder.width, encoder.embed_dim, weights_of)
        decoders.append(decoder.to(device))
    joined = net.Decoder.join(decoders)
    optimiser, scheduler = _optimiser(joined, config)
    count = joined.views + config.loss_sum
    title = "train" if len(trains) == 1 else f"train {len(trains)} together"
    for step in contexts[0].track(range(config.iters), title):
        _, own_places, nor_rows, abn_rows, labels = schedule[step]
        own, other = (v.flatten(0, 1) for v in views(normality[nor_rows], abnormality[abn_rows], config))
        noise = joined.draw_noise(labels.shape[1], tokens[0].shape[1], noises_of)
        looked_up = [sent(t[rows_at[t.device][step]], device) for t in tokens]
        maps = joined(looked_up, own, other.unsqueeze(2), noise)
        sampled = config.ref_scores == "sampled"
        loss = objective(
            maps,
            labels.flatten().float(),
            config,
            regions=None if regions is None else regions[own_places.flatten()],
            reference=draw_reference((net.BLOCKS, count), noises_of, device) if sampled else None,
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if config.grad_clip:
            _clip(joined, config.grad_clip)
        optimiser.step()
        scheduler.step()
    return [decoder.requires_grad_(False) for decoder in decoders]


def _schedule(
    config: PromptADConfig,
    trains: Sequence[TrainingSet],
    contexts: Sequence[Context],
    images: ImageSet,
    texts: Texts,
) -> torch.Tensor:
    """All that the steps look up, ``(iters, 5, J, B)``.

    Rows of ``images``, of all trials' images one after the other, of the texts' normality and abnormality; labels.
    """
    place = {key: row for row, key in enumerate(images.keys)}
    trials, before = [], 0
    for train, context in zip(trains, contexts, strict=True):
        rng = np.random.default_rng(context.seed)
        steps = draw_steps(train.images.categories, train.labels, config, rng)
        normality, abnormality = texts.rows(train, steps, rng)
        places = np.array([place[key] for key in train.images.keys])
        trials.append([places[steps], before + steps, normality, abnormality, train.labels[steps]])
        before += len(train)
    return torch.as_tensor(np.array(trials).transpose(2, 1, 0, 3))


def _clip(joined: net.Decoder, limit: float) -> None:
    """Scale down each trial's gradient to a norm of ``limit``, as ``torch.nn.utils.clip_grad_norm_`` does."""
    gradients = [p.grad.chunk(joined.trials) for p in joined.parameters() if p.grad is not None]
    for own in zip(*gradients, strict=True):
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(own)))
        torch._foreach_mul_(own, (limit / (norm + 1e-6)).clamp(max=1.0))


def draw_steps(
    categories: Sequence[str], labels: NDArray[np.int8], config: PromptADConfig, rng: np.random.Generator
) -> Ints:
    """The images of each training step, ``(iters, episodes_per_step * n_query)`` indices.

    Each run of ``n_query`` is an episode and has one category.
    """
    of, anomalous = np.asarray(categories), np.asarray(labels) == 1
    names = sorted(set(categories))
    if config.base == "single":
        names = [str(rng.choice(sorted(set(of[anomalous]))))]
    pools = [(np.flatnonzero((of == c) & ~anomalous), np.flatnonzero((of == c) & anomalous)) for c in names]
    share = np.array([_anomaly_share(len(good), len(bad), config.sampling) for good, bad in pools])

    shape = (config.iters, config.episodes_per_step)
    category = np.repeat(rng.integers(len(names), size=shape), config.n_query, axis=1)
    positive = rng.random(category.shape) < share[category]
    if config.ensure_anomaly:
        with_anomaly = np.flatnonzero(share > 0)
        for step in np.flatnonzero(~positive.any(1)):
            places = np.flatnonzero(share[category[step]] > 0)
            if not len(places):  # no category of this step has any: its first episode moves to one that has
                places = np.arange(config.n_query)
                category[step, places] = rng.choice(with_anomaly)
                positive[step, places] = share[category[step, places]] == 1
            positive[step, rng.choice(places)] = True

    steps = np.empty(category.shape, dtype=np.int64)
    for c, pool in enumerate(pools):
        for kind in (0, 1):
            here = (category == c) & (positive == kind)
            if here.any():
                steps[here] = rng.choice(pool[kind], size=int(here.sum()))
    return steps


def _anomaly_share(good: int, bad: int, sampling: str) -> float:
    """How likely a query is an anomaly, in a category with so many of each."""
    if not (good and bad):
        return float(bad > 0)
    return {"x10": 10 * bad / (10 * bad + good), "balanced": 1 / 2, "2:1": 1 / 3}[sampling]


def _regions(train: TrainingSet, grid: tuple[int, int]) -> torch.Tensor:
    """``(N, h * w)``: 1 where a patch holds an anomalous pixel. Only anomalies' masks are read."""
    regions = torch.zeros(len(train), *grid)
    for i in np.flatnonzero(train.labels):
        mask = torch.from_numpy(np.ascontiguousarray(train.mask(int(i)))).float()
        regions[i] = F.adaptive_max_pool2d(mask[None], grid)[0]
    return regions.flatten(1)


def _optimiser(
    decoder: net.Decoder, config: PromptADConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if config.optim == "adamw":
        adamw = optim.AdamW(decoder.parameters(), lr=config.lr, weight_decay=config.wd, fused=True)
        return adamw, optim.lr_scheduler.CosineAnnealingLR(adamw, config.iters, eta_min=config.lr_end)
    adam = optim.Adam(decoder.parameters(), lr=config.lr, weight_decay=config.wd, fused=True)
    return adam, optim.lr_scheduler.StepLR(adam, -(-config.iters // 3), gamma=0.1)
