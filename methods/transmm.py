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
from bench.methods.shared.prompts import text_pairs, unit

if TYPE_CHECKING:
    import torch


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
        embeddings = unit(features.embedding.double().numpy())

        image_scores, maps = [], []
        for i, category in enumerate(images.categories):  # one by one: more rows would round differently
            image_scores.append(scale * float(embeddings[i] @ (texts[category][1] - texts[category][0])))
            if start:
                tokens = features.tokens[start - 1][i : i + 1].to(visual.proj.device)
            else:
                pixels = encoder.preprocess(images[i], config.img_size)[None]
                with torch.no_grad():
                    tokens = visual.ln_pre(vit.embed(visual, pixels.to(visual.proj.device)))
            pair = torch.from_numpy(texts[category]).to(tokens)
            with torch.enable_grad():
                logits, probabilities = explicit_logits(visual, tokens, pair, scale, start)
                gradients = torch.autograd.grad(target_of(logits, config.target)[0], probabilities)
            relevance = propagate([p.detach()[0] for p in probabilities], [g[0] for g in gradients])
            maps.append(relevance[0, 1:].reshape(features.grid).cpu().numpy())
        stacked = np.stack(maps)
        if config.per_image_minmax:
            low, high = (f(stacked, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
            stacked = (stacked - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
        return Scores(np.asarray(image_scores, dtype=np.float32), stacked)

    def _start(self, encoder: TextImageEncoder) -> int:
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
        texts: ``(C, E)`` normalised text embeddings.

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
    return scale * embedding @ texts.T, probabilities


def target_of(logits: torch.Tensor, target: str) -> torch.Tensor:
    """What is explained, ``(B,)``, from the logits ``(B, 2)`` with the normal and the abnormal text."""
    if target == "abnormal":
        return logits[:, 1]
    if target == "diff":
        return logits[:, 1] - logits[:, 0]
    return logits.softmax(dim=1)[:, 1]


def propagate(attentions: Sequence[torch.Tensor], gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """The relevance ``(T, T)`` of one image's tokens for each other, from ``(heads, T, T)`` of each used block."""
    import torch

    size = attentions[0].shape[-1]
    relevance = torch.eye(size, dtype=attentions[0].dtype, device=attentions[0].device)
    for attention, gradient in zip(attentions, gradients, strict=True):
        relevance = relevance + (gradient * attention).clamp(min=0).mean(dim=0) @ relevance
    return relevance
