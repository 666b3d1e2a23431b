"""Trans-MM: which patches the abnormality text's logit rests on, from attention and its gradients.

Implements "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers"
(Chefer, Gur, Wolf; ICCV 2021) in the form for CLIP of ``hila-chefer/Transformer-MM-Explainability``
(commit 58eaea8), CLIP_explainability.ipynb (``interpret``). Training-free; the text takes the abnormality prompt's
place.

With A the attention probabilities of a block and G the gradient of the image's logit with the text with respect
to them, a block's relevance is the mean over heads of the positive part of G * A. From R = 1, each used block adds
its relevance times R; the map is R's row of the CLS token at the patches. By default the last block alone is used.

How it differs: no map is scaled to [0, 1] per image (the notebook does it to show them; ``per_image_minmax``), and
maps stay at the patch grid. A map's size says nothing of the image, so the image score is zero-shot CLIP's: the
log-odds of the abnormality text against the normality text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from bench.contracts import Context, ImageSet, Scores, TextImageEncoder, TrainingSet, Traits
from bench.errors import BenchError
from bench.methods.shared.cosines import along, unit
from bench.methods.shared.prompts import text_pairs

if TYPE_CHECKING:
    import torch

_ATTENTIONS = 16  # images times blocks whose attention and its gradient are held at once: of a ViT-B/16, 60 MB


@dataclass(frozen=True)
class TransMMConfig:
    """Options; the defaults are the notebook's unless noted.

    Attributes:
        encoder: text-image encoder; ViT-B/16 with OpenAI's weights is PromptAD's (the notebook: ViT-B/32;
            WinCLIP's setting: laion400m_e31/ViT-B-16-plus-240).
        img_size: side that images are scaled to; ``none`` = the encoder's own.
        prompts: ``promptad``: the category's normality and abnormality sentences; ``damaged``: "a photo of a ..."
            and "a photo of a damaged ..."; both ours, for the notebook's plain sentences.
        target: what is explained: the ``abnormal`` text's logit (the notebook, given that text), its ``diff`` to
            the normal text's, or its ``prob`` beside the normal text's.
        start_layer: first image block that is used, counted from 0; -1 = the last alone, 0 = all.
        per_image_minmax: scale each map to [0, 1], as published figures do; then maps of different images cannot
            be compared.
    """

    encoder: str = "openai/ViT-B-16"
    img_size: int | None = None
    prompts: Literal["promptad", "damaged"] = "promptad"
    target: Literal["abnormal", "diff", "prob"] = "abnormal"
    start_layer: int = -1
    per_image_minmax: bool = False


class TransMM:
    """The method; see the module's head and :class:`TransMMConfig`."""

    name: ClassVar[str] = "transmm"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[Any]] = TransMMConfig

    def __init__(self, config: TransMMConfig) -> None:
        self.config = config

    @classmethod
    def traits(cls, config: TransMMConfig) -> Traits:
        return Traits(
            title="Trans-MM",
            source="Chefer et al., ICCV 2021; hila-chefer/Transformer-MM-Explainability (CLIP)",
            trained=False,
            seeded=False,
            text=True,
            adapted="maps explain the abnormality prompt's logit; image scores are zero-shot CLIP's",
        )

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Nothing is learned."""

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Zero-shot CLIP's image scores, and relevance maps on the encoder's grid of patches.

        Raises:
            BenchError: the encoder has no block ``start_layer``.
        """
        import torch

        from bench.methods.shared import vit

        config, encoder = self.config, context.encoder(self.config.encoder)
        texts = text_pairs(images, encoder, config.prompts)
        visual, model = vit.tower(encoder), cast(Any, encoder.model)
        scale = float(model.logit_scale.exp())
        start = self._start(encoder)
        # What enters the first used block; nothing before it matters to the gradients.
        layers = (start - 1,) if start else ()
        features = encoder.encode_images(images, layers=layers, image_size=config.img_size)
        pairs = np.stack([texts[category] for category in images.categories])  # (N, 2, E)
        image_scores = scale * along(unit(features.embedding.numpy()), pairs[:, 1] - pairs[:, 0])

        parts = []
        size = max(_ATTENTIONS // (encoder.n_blocks - start), 1)
        for numbers in np.split(np.arange(len(images)), range(size, len(images), size)):
            if start:
                tokens = features.tokens[start - 1][numbers].to(visual.proj.device)
            else:
                pixels = torch.stack([encoder.preprocess(images[i], config.img_size) for i in numbers])
                with torch.no_grad():
                    tokens = visual.ln_pre(vit.embed(visual, pixels.to(visual.proj.device)))
            with torch.enable_grad():
                text = torch.from_numpy(pairs[numbers]).to(tokens)
                logits, attentions = explicit_logits(visual, tokens, text, scale, start)
                # No image's target depends on another's attention: the sum's gradient holds that of each.
                gradients = torch.autograd.grad(target_of(logits, config.target).sum(), attentions)
            relevance = propagate([attention.detach() for attention in attentions], gradients)
            parts.append(relevance[:, 0, 1:].cpu().numpy())
        maps = np.concatenate(parts).reshape(-1, *features.grid)
        if config.per_image_minmax:
            low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
            maps = (maps - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
        return Scores(image_scores.astype(np.float32), maps)

    def _start(self, encoder: TextImageEncoder) -> int:
        """The first block that is used, counted from 0."""
        start, blocks = self.config.start_layer, encoder.n_blocks
        if not -blocks <= start < blocks:
            raise BenchError(f"start_layer={start}: {encoder.name} has {blocks} blocks, counted from 0")
        return start % blocks


def explicit_logits(
    visual: Any, tokens: torch.Tensor, texts: torch.Tensor, scale: float, start: int
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """CLIP's logits of images with texts, computed with explicit attention from block ``start`` on.

    Args:
        tokens: ``(B, T, W)`` input of that block.
        texts: ``(C, E)`` normalised text embeddings for all images, or ``(B, C, E)`` for each.

    Returns:
        ``(B, C)``, and the attention probabilities ``(B, heads, T, T)`` of each block, whose graph ends in them.
    """
    import torch

    from bench.methods.shared import vit

    probabilities = []
    for block in visual.transformer.resblocks[start:]:
        tokens, attention = vit.explicit_block(block, tokens)
        probabilities.append(attention)
    embedding = torch.nn.functional.normalize(vit.pooled(visual, tokens), dim=-1)
    return scale * (texts @ embedding[:, :, None])[:, :, 0], probabilities


def target_of(logits: torch.Tensor, target: str) -> torch.Tensor:
    """The explained number of each image, ``(B,)``, from the logits ``(B, 2)`` with both texts, normal first."""
    if target == "abnormal":
        return logits[:, 1]
    if target == "diff":
        return logits[:, 1] - logits[:, 0]
    return logits.softmax(dim=1)[:, 1]


def propagate(attentions: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The relevance ``(..., T, T)`` of an image's tokens for each other.

    Args:
        attentions: of each used block the probabilities ``(..., heads, T, T)``.
        gradients: the target's gradients with respect to them.
    """
    import torch

    size = attentions[0].shape[-1]
    relevance = torch.eye(size, dtype=attentions[0].dtype, device=attentions[0].device)
    for attention, gradient in zip(attentions, gradients, strict=True):
        relevance = relevance + (gradient * attention).clamp(min=0).mean(dim=-3) @ relevance
    return relevance
