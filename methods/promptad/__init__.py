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

On pocket's first version ``promptad[supervision=pixel,prompt_set=shared,cmi_where=final_only]`` localised far
better than the paper's choices; ``results/promptad`` has the study of the open choices, and what it cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Context, ImageSet, Scores, State, TrainingSet, Traits
from bench.methods.promptad.config import PromptADConfig
from bench.methods.promptad.text import Support, Texts, resolve_layers

__all__ = ["PromptAD", "PromptADConfig"]

if TYPE_CHECKING:
    import torch

    from bench.methods.promptad.net import BranchDecoder

    # of each block the tokens of each branch and the maps; see BranchDecoder.passes
    Pass = Iterator[tuple[list[torch.Tensor], torch.Tensor]]


BATCH = 32  # images that are scored at a time


class PromptAD:
    """The method; see the module's head and :class:`PromptADConfig`."""

    name: ClassVar[str] = "promptad"
    version: ClassVar[str] = "2"
    Config: ClassVar[type[Any]] = PromptADConfig

    def __init__(self, config: PromptADConfig) -> None:
        self.config = config
        self._decoder: BranchDecoder | None = None

    @classmethod
    def traits(cls, config: PromptADConfig) -> Traits:
        return Traits(
            title="PromptAD",
            source="Li et al., WACV 2024, sections 3 and 4.1 (no official code)",
            text=True,
            adapted="trained with masks of the labelled anomalies" if config.supervision != "image" else "",
        )

    @classmethod
    def work(cls, config: PromptADConfig, n_images: int) -> float:
        """Images over all steps, see :class:`bench.contracts.HasWork`."""
        return config.iters * config.episodes_per_step * config.n_query

    # ---------------------------------------------------------------- training

    def fit(self, train: TrainingSet, context: Context) -> None:
        self.fit_together([self], [train], [context])

    @classmethod
    def fit_together(
        cls, methods: Sequence[PromptAD], trains: Sequence[TrainingSet], contexts: Sequence[Context]
    ) -> None:
        """Fit several trials as one, see :class:`bench.contracts.FitsTogether`."""
        from bench.methods.promptad.fit import fit

        for method, decoder in zip(methods, fit(methods[0].config, trains, contexts), strict=True):
            method._decoder = decoder

    def state(self) -> State:
        """The weights of both branches; the encoder is frozen."""
        from bench.methods.shared.learned import state_of

        if self._decoder is None:
            raise RuntimeError("fit PromptAD before asking for its state")
        return state_of(self._decoder.state_dict())

    def restore(self, state: State, context: Context) -> None:
        """Take the weights of both branches instead of training them."""
        from bench.methods.promptad.fit import new_decoder
        from bench.methods.shared.learned import restore_module

        decoder = new_decoder(self.config, context)
        restore_module(decoder, state)
        self._decoder = decoder.requires_grad_(False)

    # ---------------------------------------------------------------- scoring

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores, the fused maps, and each branch's map as an extra."""
        import torch

        passes, grid, side = self._passes(images, context)
        image_scores, maps = [], []
        with torch.inference_mode():
            for batch in passes:
                blocks = torch.stack([block_maps for _, block_maps in batch])  # (3, V, B, N)
                image_scores.append(image_score(blocks, self.config).cpu())
                maps.append(blocks[-1].transpose(0, 1).cpu())
        return self._scores(torch.cat(image_scores).numpy(), torch.cat(maps), grid, side)

    def features(self, images: ImageSet, context: Context) -> NDArray[np.float32]:
        """``(N, V * D)``: of each branch the last block's patch tokens, whence the map is taken, averaged."""
        import torch

        passes, _, _ = self._passes(images, context)
        averages = []
        with torch.inference_mode():
            for batch in passes:
                *_, (tokens, _) = batch
                averages.append(torch.cat([q[:, 1:].mean(1) for q in tokens], 1).cpu())
        return torch.cat(averages).numpy()

    def _passes(self, images: ImageSet, context: Context) -> tuple[Iterator[Pass], tuple[int, int], int]:
        """The network's pass over each batch of images; the patch grid; the images' scaled side."""
        import torch

        config, decoder = self.config, self._decoder
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

        def in_batches() -> Iterator[Pass]:
            for start in range(0, len(images), BATCH):
                here = slice(start, start + BATCH)
                rows = [texts.categories.index(category) for category in images.categories[here]]
                own, prototypes = self._prompts(texts.normality[rows], texts.abnormality[rows], support)
                yield decoder.passes(
                    [features.tokens[layer][here].to(device) for layer in layers],
                    [text.to(device) for text in own],
                    [text.to(device) for text in prototypes],
                )

        return in_batches(), features.grid, config.img_size or encoder.image_size

    def _prompts(
        self, normality: torch.Tensor, abnormality: torch.Tensor, support: Support | None
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Per branch its own prompts ``(B, E)`` and its prototypes ``(B or 1, M, E)``, of prompts ``(B, E)`` each.

        Normal images of the target, if there are any, take the normality prompt's place.
        """
        config = self.config
        visual, phi_nor = normality, normality.unsqueeze(1)
        if support is not None:
            phi_nor = support.bank.unsqueeze(0)  # the same M for all images
            if config.few_shot_film == "visual":
                visual = support.mean.expand_as(normality)
        own, prototypes = [], []
        if config.abn:
            own.append(abnormality)
            prototypes.append(phi_nor)
        if config.nor:
            own.append(visual)
            prototypes.append(abnormality.unsqueeze(1))
        return own, prototypes

    def _scores(self, image: NDArray[np.float32], maps: torch.Tensor, grid: tuple[int, int], side: int) -> Scores:
        """Image scores ``(N,)`` and the branches' maps ``(N, V, h * w)`` with their sum, the anomaly map."""
        import torch

        config = self.config
        branches = maps.unflatten(-1, grid)
        names = []
        if config.abn:
            names.append("map_abnormality")
        if config.nor:
            names.append("map_normality")
        shown = torch.cat([branches.sum(1, keepdim=True), branches], 1)
        if config.gauss_sigma:
            shown = _smoothed(shown, config.gauss_sigma, side)
        fused, *extra = shown.transpose(0, 1).contiguous().numpy()
        return Scores(image, fused, dict(zip(names, extra, strict=True)))


# ---------------------------------------------------------------- parts without state


def image_score(blocks: torch.Tensor, config: PromptADConfig) -> torch.Tensor:
    """The scores ``(B,)`` of images from their maps ``(3, V, B, N)``; see ``image_score``."""
    from bench.methods.promptad.loss import top_mean

    branches = blocks[-1]
    if config.image_score == "branches":
        return top_mean(branches, config.topk).sum(0)
    if config.image_score == "max":
        return branches.sum(0).amax(-1)
    fused = blocks.sum((0, 1)) if config.image_score == "blocks" else branches.sum(0)
    return top_mean(fused, config.topk)


def _smoothed(maps: torch.Tensor, sigma: float, side: int) -> torch.Tensor:
    """Maps ``(N, V, h, w)`` scaled to the side of the images and smoothed there, one by one."""
    import torch
    import torch.nn.functional as F
    from scipy.ndimage import gaussian_filter

    large = [F.interpolate(m[None], size=(side, side), mode="bilinear", align_corners=False)[0] for m in maps]
    smooth = [gaussian_filter(m.numpy(), sigma, axes=(1, 2)) for m in large]
    return torch.from_numpy(np.stack(smooth))
