"""PromptAD: zero-shot anomaly detection with two prompted branches on a frozen CLIP.

Implements "PromptAD: Zero-shot Anomaly Detection using Text Prompts" (Li, Goodge, Liu, Foo; WACV 2024),
sections 3 and 4.1; not the normal-only "PromptAD" of CVPR 2024, which shares nothing but the name.

- Section 3.3: an abnormality and a normality branch, each three transformer blocks on patch tokens that the
  branch's own prompt modulates (FiLM), with a linear score at every patch. Wiring as in CLIPSeg, which the
  paper follows: the deepest of three encoder layers enters the first block, shallower ones the next.
- Section 3.4 (CCL, Eqs. 1-2): the other view's prompt, as a prototype, is a second score of each branch.
- Section 3.5 (CMI, Eqs. 3-4): each branch's scores mask the other branch's tokens.
- Section 3.6 (Eq. 5): symmetric deviation loss on the top-10 % mean, at every block, per branch; s = s_n + s_a.
- Section 4.2, few shots: images of normal examples take the place of the normality prototype.
- Table 4's rows: ``promptad[nor=off,ccl=off,cmi=off]`` (ABN), ``promptad[abn=off,ccl=off,cmi=off]`` (NOR),
  ``promptad[ccl=off,cmi=off]``, ``promptad[cmi=off]``, ``promptad``.

How it differs: no code was published and the paper leaves much open (width, layers, optimiser, schedule, where
the masks apply, prompts but one). Each open choice is an option of :class:`PromptADConfig`, with the source of its
default. Where text and equations contradict each other, the equations hold: section 3.5 says that what scores
below sigma is masked out, but Eqs. 3-4 halve it (``cmi_mask`` has the other reading). Dropout rates are
rounded to 1/256.

On pocket, ``promptad[supervision=pixel,prompt_set=shared,cmi_where=final_only]`` localises far better than the
paper's choices; the study of the open choices, with what it cannot tell, is in ``results/promptad``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Context, ImageSet, Prompts, Scores, TextImageEncoder, TrainingSet, Traits
from bench.errors import BenchError, NotApplicable

if TYPE_CHECKING:
    import torch

    from bench.methods._promptad_net import Decoder

Ints = NDArray[np.int64]

GENERIC = ("scratch", "tear", "crack", "cut", "defect")  # the paper's example words (section 4.1)
SHARED = Prompts("thing", "a flawless thing", f"abnormality of thing is {', '.join(GENERIC)}")
LAYERS_OF_12 = (3, 7, 9)  # CLIPSeg's, of ViT-B/16's 12 blocks


@dataclass(frozen=True)
class PromptADConfig:
    """Options. STATED: in the paper. INHERITED: from code that the paper names. OPEN: neither; our default.

    Encoder and text:
        encoder: text-image encoder; ViT-B/16 is STATED, OpenAI's weights INHERITED.
        img_size: side that images are scaled to; OPEN, ``none`` = the encoder's own (224 for ViT-B/16).
        prompt_set: ``dataset_types``: each category's sentences, whose defect words are the dataset's own types
            (STATED, though it tells a zero-shot method what to look for); ``generic``: the five words that the
            paper prints for screw, for every category; ``shared``: one pair of sentences for all categories.
        prompt_pool: OPEN. ``one_sentence`` with all words; ``mean_of_types``: mean embedding of a sentence per
            word; ``sample_type``: in training, the sentence of the image's own type (a normal image takes a type
            of its category's labelled anomalies, lest the text tell the label), in scoring the mean.
        text_norm: ``raw`` embeddings (INHERITED from CLIPSeg) or ``l2``-normalised ones (support images too).
    Network:
        clip_layers: encoder blocks (0-based) that are read: three, or one for three plainly stacked blocks.
            Empty: 3+7+9 of 12 (INHERITED from CLIPSeg), in another encoder those at the same depth: block i of
            n with (i + 1) / n nearest to 4/12, 8/12, 10/12, so 1+3+4 of 6.
        D: decoder width; OPEN, CLIPSeg's. The paper only says that it is below the text's.
        nhead, ffn, dropout, norm_first: of the transformer blocks; INHERITED, torch's defaults in CLIPSeg.
        film_at: ``first`` block's input (INHERITED), ``every`` block's, or ``off``.
        share_heads, share_protos: one 1x1 convolution for all blocks instead of one each; OPEN.
    Components (STATED; off for the rows of Table 4):
        abn, nor: the two branches.
        ccl: cross-view scores, Eqs. 1-2. Off: s_a = intra_abn, s_n = -intra_nor.
        cmi: mutual masks, Eqs. 3-4.
    Scores and masks:
        cross_sim: ``dot`` product (STATED), ``scaled`` by 1/sqrt(D), or ``cosine`` times ``tau``.
        tau: see ``cross_sim``; OPEN.
        cmi_where: OPEN, the least determined. ``layerwise``: at each block, masked tokens enter the next block,
            and the last block's scores are taken again from masked tokens; ``final_only``: the latter alone;
            ``input_next_only``: the former alone.
        cmi_order: both masks from unmasked scores (``simultaneous``), or ``sequential``: the abnormality branch
            first, its new scores mask the normality branch; OPEN.
        cmi_detach: no gradient through a mask into the branch that made it; OPEN.
        cmi_mask: ``sigmoid_relu`` (STATED, in [0.5, 1)); ``rescaled`` to [0, 1), which removes what is below
            sigma, as the text has it; ``residual``: 1 + mask.
        sigma: threshold of the masks; STATED.
    Loss:
        topk: share of patches whose mean is an image's score; STATED.
        alpha: margin of Eq. 5; STATED.
        ref_scores: mean 0 and deviation 1 (``constants``, STATED) or of 5000 ``sampled`` scores (DevNet's code).
        supervision: Eq. 5 on ``image`` scores (STATED), on each patch (``pixel``: masks of the labelled
            anomalies, max-pooled to the patch grid), or ``both``, added.
        deep_weights: of the three blocks' losses; OPEN ("training is performed on each transformer layer").
        loss_sum: add Eq. 5 on s_a + s_n; OPEN (the paper has the two separately).
    Training:
        base: the seen categories used: ``all`` (STATED, section 4.1) or a random ``single`` one (section 3.1).
        n_query, episodes_per_step: an episode is n_query labelled images of one random seen category with its
            two prompts (STATED but for the numbers); a step has several episodes; OPEN.
        sampling: ``x10``: images drawn from the category's, each anomaly listed ten times (STATED); ``balanced``
            and ``2:1``: one half, one third anomalies on average, as DevNet's and DRA's batches.
        ensure_anomaly: put an anomaly into each step that drew none; OPEN.
        optim: ``adamw`` with lr falling to ``lr_end`` on a cosine (INHERITED from CLIPSeg), or ``adam``, lr times
            0.1 after each third (INHERITED from DevNet and DRA, with lr=2e-4 and wd=1e-5).
        lr, lr_end, wd: rates of ``adamw`` (INHERITED from CLIPSeg, but wd is ours).
        iters: steps; OPEN (CLIPSeg 20000, DevNet 1000, DRA 600).
        grad_clip: largest gradient norm, 0 = any; from DevNet and DRA.
    Scoring:
        image_score: top-10 % mean of the ``map`` s_n + s_a; of the two ``branches``' maps, added; the ``max``
            of the map; or the top-10 % mean of the map summed over ``blocks``; OPEN.
        gauss_sigma: smoothing of the anomaly map in pixels of the scaled image; 0 = none, and maps stay at the
            patch grid; OPEN.
        few_shot_proto: what K normal images give in place of phi_nor (STATED: "the visual embeddings"): their
            mean embedding (``cls``), or all K (``nearest``) or all their patch tokens (``patches``), of which
            each patch meets the closest; OPEN.
        few_shot_film: the normality branch is modulated by its prompt (``text``) or by the images' mean embedding
            (``visual``); OPEN.
    """

    encoder: str = "openai/ViT-B-16"
    img_size: int | None = None
    prompt_set: Literal["dataset_types", "generic", "shared"] = "dataset_types"
    prompt_pool: Literal["one_sentence", "mean_of_types", "sample_type"] = "one_sentence"
    text_norm: Literal["raw", "l2"] = "raw"
    clip_layers: tuple[int, ...] = ()
    D: int = 64
    nhead: int = 4
    ffn: int = 2048
    dropout: float = 0.1
    norm_first: bool = False
    film_at: Literal["first", "every", "off"] = "first"
    share_heads: bool = False
    share_protos: bool = False
    abn: bool = True
    nor: bool = True
    ccl: bool = True
    cmi: bool = True
    cross_sim: Literal["dot", "scaled", "cosine"] = "dot"
    tau: float = 10.0
    cmi_where: Literal["layerwise", "final_only", "input_next_only"] = "layerwise"
    cmi_order: Literal["simultaneous", "sequential"] = "simultaneous"
    cmi_detach: bool = True
    cmi_mask: Literal["sigmoid_relu", "rescaled", "residual"] = "sigmoid_relu"
    sigma: float = 0.5
    topk: float = 0.1
    alpha: float = 5.0
    ref_scores: Literal["constants", "sampled"] = "constants"
    supervision: Literal["image", "pixel", "both"] = "image"
    deep_weights: tuple[float, ...] = (1.0, 1.0, 1.0)
    loss_sum: bool = False
    base: Literal["all", "single"] = "all"
    n_query: int = 8
    episodes_per_step: int = 4
    sampling: Literal["x10", "balanced", "2:1"] = "x10"
    ensure_anomaly: bool = True
    optim: Literal["adamw", "adam"] = "adamw"
    lr: float = 1e-3
    lr_end: float = 1e-4
    wd: float = 1e-4
    iters: int = 2000
    grad_clip: float = 1.0
    image_score: Literal["map", "branches", "max", "blocks"] = "map"
    gauss_sigma: float = 0.0
    few_shot_proto: Literal["cls", "nearest", "patches"] = "cls"
    few_shot_film: Literal["text", "visual"] = "text"

    def __post_init__(self) -> None:
        if not (self.abn or self.nor):
            raise ValueError("abn and nor cannot both be off")
        if not (self.abn and self.nor) and (self.ccl or self.cmi or self.loss_sum):
            raise ValueError("ccl, cmi and loss_sum need both branches; with one, add ccl=off,cmi=off")
        if len(self.clip_layers) not in (0, 1, 3) or len(set(self.clip_layers)) != len(self.clip_layers):
            raise ValueError("clip_layers takes one or three different blocks, such as 3+7+9")
        if min(self.clip_layers, default=0) < 0:
            raise ValueError("clip_layers counts from 0")
        if len(self.deep_weights) != 3:
            raise ValueError("deep_weights takes three numbers, one per block, such as 1+1+1")
        positive = ("D", "nhead", "ffn", "tau", "topk", "n_query", "episodes_per_step", "lr", "iters")
        if low := [name for name in positive if getattr(self, name) <= 0]:
            raise ValueError(f"{', '.join(low)} must be above 0")
        if low := [n for n in ("dropout", "wd", "lr_end", "grad_clip", "gauss_sigma") if getattr(self, n) < 0]:
            raise ValueError(f"{', '.join(low)} must not be below 0")
        if self.D % self.nhead:
            raise ValueError(f"D={self.D} cannot be divided into nhead={self.nhead} heads")
        if self.topk > 1 or self.dropout > 0.99:
            raise ValueError("topk is at most 1, dropout at most 0.99")


class PromptAD:
    """The method; see the module's head and :class:`PromptADConfig`."""

    name: ClassVar[str] = "promptad"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[Any]] = PromptADConfig

    def __init__(self, config: PromptADConfig) -> None:
        self.config = config
        self._net: Decoder | None = None

    @classmethod
    def traits(cls, config: PromptADConfig) -> Traits:
        return Traits(
            title="PromptAD",
            source="Li et al., WACV 2024, sections 3 and 4.1 (no official code)",
            text=True,
            adapted="trained with masks of the labelled anomalies" if config.supervision != "image" else "",
        )

    # ---------------------------------------------------------------- training

    def fit(self, train: TrainingSet, context: Context) -> None:
        import torch

        from bench.methods import _promptad_net as net

        config, device = self.config, torch.device(context.device)
        if not train.labels.any() or train.labels.all():
            raise NotApplicable("PromptAD learns from normal images and labelled anomalies; one kind is missing")
        encoder = context.encoder(config.encoder)
        rng = np.random.default_rng(context.seed)
        noise_of = torch.Generator(device).manual_seed(context.seed)
        layers = resolve_layers(config.clip_layers, encoder.n_blocks)
        features = encoder.encode_images(train.images, layers=layers, image_size=config.img_size)
        tokens = [features.tokens[layer].to(device) for layer in layers]
        labels = torch.as_tensor(train.labels, dtype=torch.float32, device=device)
        regions = None
        if config.supervision != "image":
            regions = _regions(train, features.grid).to(device)

        texts = Texts(train.images, config, encoder)
        normality, abnormality = texts.normality.to(device), texts.abnormality.to(device)
        steps = draw_steps(train.images.categories, train.labels, config, rng)
        nor_rows, abn_rows = texts.rows(train, steps, rng)
        # to the device once, not at every step
        schedule = torch.as_tensor(np.stack([steps, nor_rows, abn_rows], 1)).to(device)

        weights_of = torch.Generator().manual_seed(context.seed)
        decoder = net.Decoder(config, len(layers), encoder.width, encoder.embed_dim, weights_of).to(device)
        optimiser, scheduler = _optimiser(decoder, config)
        count = decoder.signs.shape[0] + config.loss_sum
        for step in context.track(range(config.iters), "train"):
            images, nor_row, abn_row = schedule[step]
            own, other = self._views(normality[nor_row], abnormality[abn_row])
            noise = decoder.draw_noise(len(images), tokens[0].shape[1], noise_of)
            maps = decoder([t[images] for t in tokens], own, other.unsqueeze(2), noise)
            sampled = config.ref_scores == "sampled"
            loss = net.objective(
                maps,
                labels[images],
                config,
                regions=None if regions is None else regions[images],
                reference=net.draw_reference((net.BLOCKS, count), noise_of) if sampled else None,
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if config.grad_clip:
                torch.nn.utils.clip_grad_norm_(decoder.parameters(), config.grad_clip)
            optimiser.step()
            scheduler.step()
        self._net = decoder.requires_grad_(False)

    def _views(self, normality: torch.Tensor, abnormality: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Per branch its own prompt and the other view's, ``(V, B, E)`` each; abnormality branch first."""
        import torch

        pairs = [(abnormality, normality)] * self.config.abn + [(normality, abnormality)] * self.config.nor
        own, other = zip(*pairs, strict=True)
        return torch.stack(own), torch.stack(other)

    # ---------------------------------------------------------------- scoring

    def score(self, images: ImageSet, context: Context) -> Scores:
        import torch

        passes, grid, side = self._passes(images, context)
        image_scores, maps = [], []
        with torch.inference_mode():
            for i in range(len(images)):
                blocks = torch.stack([s for _, s in passes(i)])[:, :, 0]
                image_scores.append(image_score(blocks, self.config).item())
                maps.append(blocks[-1].cpu())
        return self._scores(image_scores, torch.stack(maps), grid, side)

    def features(self, images: ImageSet, context: Context) -> NDArray[np.float32]:
        """``(N, V * D)``: of each branch the last block's patch tokens, whence the map is taken, averaged."""
        import torch

        passes, _, _ = self._passes(images, context)
        with torch.inference_mode():
            last = [list(passes(i))[-1][0] for i in range(len(images))]  # (V, 1, T, D) each
            return torch.stack([q[:, 0, 1:].mean(1).flatten() for q in last]).cpu().numpy()

    def _passes(
        self, images: ImageSet, context: Context
    ) -> tuple[Callable[[int], Iterator[tuple[torch.Tensor, torch.Tensor]]], tuple[int, int], int]:
        """The network's pass over image *i*, see :meth:`Decoder.passes`; the patch grid; the images' scaled side.

        One image at a time: its score then depends on nothing else, to the last bit. Batches would save little,
        since the network is small beside the encoder.
        """
        import torch

        config, decoder = self.config, self._net
        if decoder is None:
            raise RuntimeError("fit PromptAD before scoring")
        device = torch.device(context.device)
        encoder = context.encoder(config.encoder)
        layers = resolve_layers(config.clip_layers, encoder.n_blocks)
        features = encoder.encode_images(images, layers=layers, image_size=config.img_size)
        texts = Texts(images, config, encoder)
        support = Support.of(context.support, config, encoder) if context.support else None
        if support is not None and not config.ccl and config.few_shot_film == "text":
            context.notes.append("PromptAD without ccl has no normality prototype: the support images went unused")

        def one(i: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            row = [texts.categories.index(images.categories[i])]
            own, other = self._views(texts.normality[row], texts.abnormality[row])
            prototypes = other.unsqueeze(2)
            if support is not None:
                own, prototypes = self._with_support(own, prototypes, support)
            tokens = [features.tokens[layer][[i]].to(device) for layer in layers]
            return decoder.passes(tokens, own.to(device), prototypes.to(device))

        return one, features.grid, config.img_size or encoder.image_size

    def _with_support(
        self, own: torch.Tensor, prototypes: torch.Tensor, support: Support
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts ``(V, 1, E)`` and prototypes ``(V, 1, M, E)``, with normal images in the normality's place."""
        import torch

        config = self.config
        if config.nor and config.few_shot_film == "visual":
            own = torch.cat([own[:-1], support.mean[None, None]])
        if config.ccl:
            # phi_abn stays the prompt; repeated, since both branches take equally many prototypes
            phi_nor = support.bank[None, None]
            prototypes = torch.cat([phi_nor, prototypes[1:].expand(-1, -1, len(support.bank), -1)])
        return own, prototypes

    def _scores(self, image: Sequence[float], maps: torch.Tensor, grid: tuple[int, int], side: int) -> Scores:
        """What the engine takes: image scores, and from the branches' maps ``(N, V, h * w)`` their sum."""
        import torch

        config = self.config
        branches = maps.unflatten(-1, grid)
        names = ["map_abnormality"] * config.abn + ["map_normality"] * config.nor
        shown = torch.cat([branches.sum(1, keepdim=True), branches], 1)
        if config.gauss_sigma:
            shown = _smoothed(shown, config.gauss_sigma, side)
        fused, *extra = shown.transpose(0, 1).contiguous().numpy()
        return Scores(np.asarray(image, dtype=np.float32), fused, dict(zip(names, extra, strict=True)))


# ---------------------------------------------------------------- parts without state


def resolve_layers(layers: Sequence[int], n_blocks: int) -> tuple[int, ...]:
    """The encoder's blocks that are read, deepest first; see ``clip_layers``."""
    if not layers:
        layers = [max(0, int((i + 1) * n_blocks / 12 + 0.5) - 1) for i in LAYERS_OF_12]
    if max(layers) >= n_blocks:
        raise BenchError(f"clip_layers={'+'.join(map(str, layers))}: this encoder has blocks 0 to {n_blocks - 1}")
    return tuple(sorted(layers, reverse=True))


def image_score(blocks: torch.Tensor, config: PromptADConfig) -> torch.Tensor:
    """The score of one image from its maps ``(3, V, N)``; see ``image_score``."""
    from bench.methods._promptad_net import top_mean

    branches = blocks[-1]
    if config.image_score == "branches":
        return top_mean(branches, config.topk).sum()
    if config.image_score == "max":
        return branches.sum(0).amax()
    return top_mean(blocks.sum((0, 1)) if config.image_score == "blocks" else branches.sum(0), config.topk)


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


class Texts:
    """The prompts' embeddings of the categories among ``images``.

    Attributes:
        categories: their names, sorted; row i of the embeddings belongs to the i-th.
        normality: ``(C, E)``.
        abnormality: ``(C + R, E)``; for ``sample_type``, R rows of single types follow.
    """

    def __init__(self, images: ImageSet, config: PromptADConfig, encoder: TextImageEncoder) -> None:
        import torch

        self.categories = sorted(set(images.categories))
        if missing := [c for c in self.categories if c not in images.prompts]:
            raise NotApplicable(f"PromptAD needs prompts; there are none for {', '.join(missing)}")
        norm = config.text_norm
        pairs = [sentences(images.prompts[c], config) for c in self.categories]
        self.normality = _normalised(encoder.encode_text([normality for normality, _ in pairs]), norm)
        types = [_normalised(encoder.encode_text(list(words.values())), norm) for _, words in pairs]
        pooled = torch.stack([_normalised(each.mean(0), norm) for each in types])
        self._type_rows: dict[str, dict[str, int]] = {c: {} for c in self.categories}
        if config.prompt_pool == "sample_type":
            first = len(pooled)
            for category, (_, words) in zip(self.categories, pairs, strict=True):
                self._type_rows[category] = {word: first + k for k, word in enumerate(words)}
                first += len(words)
            pooled = torch.cat([pooled, *types])
        self.abnormality = pooled

    def rows(self, train: TrainingSet, steps: Ints, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """For each image of each step, its row of ``normality`` and of ``abnormality``."""
        category = np.array([self.categories.index(c) for c in train.images.categories])
        normality = category[steps]
        abnormality = normality.copy()
        own = np.full(len(train), -1)
        for i in np.flatnonzero(train.labels):
            own[i] = self._type_rows[train.images.categories[i]].get(train.types[i], -1)
        for c, name in enumerate(self.categories):
            if not (described := list(self._type_rows[name].values())):
                continue
            labelled = sorted(set(own[(category == c) & (own >= 0)]))
            here = normality == c
            abnormality[here] = rng.choice(labelled or described, size=int(here.sum()))
        return normality, np.where(own[steps] >= 0, own[steps], abnormality)


def sentences(prompts: Prompts, config: PromptADConfig) -> tuple[str, Mapping[str, str]]:
    """A category's normality prompt, and its abnormality prompts by anomaly type ("" = all in one)."""
    if config.prompt_set == "shared":
        prompts = SHARED
    whole, descriptions = prompts.abnormality, prompts.descriptions
    if config.prompt_set != "dataset_types":
        descriptions = {word: word for word in GENERIC}
        whole = f"abnormality of {prompts.label} is {', '.join(GENERIC)}"
    if config.prompt_pool == "one_sentence" or not descriptions:
        return prompts.normality, {"": whole}
    return prompts.normality, {t: f"abnormality of {prompts.label} is {d}" for t, d in descriptions.items()}


@dataclass(frozen=True)
class Support:
    """What K normal images give: a bank ``(M, E)`` of prototypes and their mean embedding ``(E,)``."""

    bank: torch.Tensor
    mean: torch.Tensor

    @classmethod
    def of(cls, images: ImageSet, config: PromptADConfig, encoder: TextImageEncoder) -> Support:
        last = encoder.n_blocks - 1
        wanted = (last,) if config.few_shot_proto == "patches" else ()
        features = encoder.encode_images(images, layers=wanted, image_size=config.img_size)
        each = _normalised(features.embedding, config.text_norm)
        mean = _normalised(each.mean(0), config.text_norm)
        if config.few_shot_proto == "patches":
            patches = encoder.project(features.tokens[last][:, 1:]).flatten(0, 1)
            return cls(_normalised(patches, config.text_norm), mean)
        return cls(each if config.few_shot_proto == "nearest" else mean[None], mean)


def _normalised(x: torch.Tensor, norm: str) -> torch.Tensor:
    return x / x.norm(dim=-1, keepdim=True) if norm == "l2" else x


def _regions(train: TrainingSet, grid: tuple[int, int]) -> torch.Tensor:
    """``(N, h * w)``: 1 where a patch holds an anomalous pixel. Only anomalies' masks are read."""
    import torch
    import torch.nn.functional as F

    regions = torch.zeros(len(train), *grid)
    for i in np.flatnonzero(train.labels):
        mask = torch.from_numpy(np.ascontiguousarray(train.mask(int(i)))).float()
        regions[i] = F.adaptive_max_pool2d(mask[None], grid)[0]
    return regions.flatten(1)


def _optimiser(
    decoder: Decoder, config: PromptADConfig
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    from torch import optim

    if config.optim == "adamw":
        adamw = optim.AdamW(decoder.parameters(), lr=config.lr, weight_decay=config.wd, fused=True)
        return adamw, optim.lr_scheduler.CosineAnnealingLR(adamw, config.iters, eta_min=config.lr_end)
    adam = optim.Adam(decoder.parameters(), lr=config.lr, weight_decay=config.wd, fused=True)
    return adam, optim.lr_scheduler.StepLR(adam, -(-config.iters // 3), gamma=0.1)


def _smoothed(maps: torch.Tensor, sigma: float, side: int) -> torch.Tensor:
    """Maps ``(N, V, h, w)`` scaled to the side of the images and smoothed there, one by one."""
    import torch
    import torch.nn.functional as F
    from scipy.ndimage import gaussian_filter

    large = [F.interpolate(m[None], size=(side, side), mode="bilinear", align_corners=False)[0] for m in maps]
    smooth = [gaussian_filter(m.numpy(), sigma, axes=(1, 2)) for m in large]
    return torch.from_numpy(np.stack(smooth))
