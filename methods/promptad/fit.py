"""Training of PromptAD: the images of each step, and the steps, of one trial or of several as one.

Trials of one target differ in seed and shots alone. So they share the encoder's features of their images, of which
there is one copy (on the device, where :func:`bench.tools.devices.resident` finds room). Their networks train as
one: ``torch.vmap`` over the stacked weights. Whatever is random in a trial comes from generators of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import optim
from torch.func import functional_call, stack_module_state

from bench.contracts import Context, ImageSet, TrainingSet
from bench.errors import NotApplicable
from bench.methods.promptad import net
from bench.methods.promptad.loss import draw_reference, objective
from bench.methods.promptad.text import Ints, Texts, resolve_layers, views
from bench.tools.devices import resident, sent

if TYPE_CHECKING:
    from bench.methods.promptad.config import PromptADConfig


def fit(
    config: PromptADConfig, trains: Sequence[TrainingSet], contexts: Sequence[Context]
) -> list[net.BranchDecoder]:
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
    draws_of = [torch.Generator(draws_at).manual_seed(context.seed) for context in contexts]
    decoders = [new_decoder(config, context) for context in contexts]
    weights, _ = stack_module_state(decoders)  # (J, ...) each
    optimiser, scheduler = _optimiser(list(weights.values()), config)
    losses = joined_losses(decoders[0], config)
    losses_per_block = config.abn + config.nor + config.loss_sum
    title = "train" if len(trains) == 1 else f"train {len(trains)} together"
    for step in contexts[0].track(range(config.iters), title):
        # where the step's images, prompts and labels are, (J, B) each
        _, own_places, nor_rows, abn_rows, labels = schedule[step]
        looked_up = []
        for layer in tokens:
            rows = sent(layer[rows_at[layer.device][step]], device)
            looked_up.append(rows.unflatten(0, labels.shape))
        own, other = views(normality[nor_rows], abnormality[abn_rows], config)
        dropout = net.draw_dropout(config, labels.shape[1], looked_up[0].shape[2], draws_of, device)
        reference = None
        if config.ref_scores == "sampled":
            reference = draw_reference((net.BLOCKS, losses_per_block), draws_of, device)
        patches = None if regions is None else regions[own_places]

        # trials share nothing: the sum's gradient is each one's own
        loss = losses(
            weights, looked_up, own, other.unsqueeze(3), dropout, labels.float(), patches, reference
        ).sum()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        if config.grad_clip:
            clip_gradients(list(weights.values()), config.grad_clip)
        optimiser.step()
        scheduler.step()
    for row, decoder in enumerate(decoders):
        decoder.load_state_dict({name: stacked.detach()[row] for name, stacked in weights.items()})
    return [decoder.requires_grad_(False) for decoder in decoders]


def new_decoder(config: PromptADConfig, context: Context) -> net.BranchDecoder:
    """The network of one trial on its device, as it is before training."""
    encoder = context.encoder(config.encoder)
    layers = resolve_layers(config.clip_layers, encoder.n_blocks)
    decoder = net.BranchDecoder(config, len(layers), encoder.width, encoder.embed_dim, context.seed)
    return decoder.to(torch.device(context.device))


def joined_losses(decoder: net.BranchDecoder, config: PromptADConfig) -> Callable[..., torch.Tensor]:
    """A function from stacked weights and inputs, an axis of J trials in front of each, to the losses ``(J,)``."""
    skeleton = copy.deepcopy(decoder).to("meta")  # of which only the shape counts

    def of_one_trial(
        weights: dict[str, torch.Tensor],
        frozen: list[torch.Tensor],
        own: torch.Tensor,
        other: torch.Tensor,
        dropout: list[net.DropoutFactors] | None,
        labels: torch.Tensor,
        regions: torch.Tensor | None,
        reference: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> torch.Tensor:
        maps = functional_call(skeleton, weights, (frozen, own, other, dropout))
        return objective(maps, labels, config, regions, reference)

    def of_all_trials(*arguments: Any) -> torch.Tensor:
        axes = tuple(None if argument is None else 0 for argument in arguments)
        losses: torch.Tensor = torch.vmap(of_one_trial, axes)(*arguments)
        return losses

    return of_all_trials


def _schedule(
    config: PromptADConfig,
    trains: Sequence[TrainingSet],
    contexts: Sequence[Context],
    images: ImageSet,
    texts: Texts,
) -> torch.Tensor:
    """Rows that the steps look up, ``(iters, 5, J, B)``.

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


def clip_gradients(weights: Sequence[torch.Tensor], limit: float) -> None:
    """Scale down each trial's gradient to a norm of ``limit``, as ``torch.nn.utils.clip_grad_norm_`` does.

    Args:
        weights: ``(J, ...)`` each.
        limit: the largest norm.
    """
    gradients = [weight.grad.unbind() for weight in weights if weight.grad is not None]
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
    # of each category its normal images and its anomalies, and the share of anomalies among its queries
    pools, shares = [], []
    for name in names:
        good, bad = np.flatnonzero((of == name) & ~anomalous), np.flatnonzero((of == name) & anomalous)
        pools.append((good, bad))
        shares.append(_anomaly_share(len(good), len(bad), config.sampling))
    share = np.array(shares)

    # first the category and the label of each place, then an image for it
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
    """The probability that a query is an anomaly, in a category with so many of each."""
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
    weights: list[torch.Tensor], config: PromptADConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    if config.optim == "adamw":
        adamw = optim.AdamW(weights, lr=config.lr, weight_decay=config.wd, fused=True)
        return adamw, optim.lr_scheduler.CosineAnnealingLR(adamw, config.iters, eta_min=config.lr_end)
    adam = optim.Adam(weights, lr=config.lr, weight_decay=config.wd, fused=True)
    return adam, optim.lr_scheduler.StepLR(adam, -(-config.iters // 3), gamma=0.1)
