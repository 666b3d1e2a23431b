"""anomalib's WinCLIP, mended: a second opinion on :mod:`bench.methods.winclip`.

``anomalib.models.image.winclip`` of anomalib 2.7 gives maps without information with open_clip 2.26.1 and later;
see :class:`Mended`. Everything else is anomalib's, on the weights that this project's encoder has: its list of
templates (one twice, two missing), its mean of embeddings that are not normalised, its temperature. So
``winclip[averaging=raw,templates=typo]`` computes the same, and the two are tested against each other.

How it differs from running anomalib: images are scaled by the encoder as for all methods here (anomalib: by
torchvision's bicubic); the name in the sentences is the category's label in words; scores are not normalised.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import torch
from anomalib.models.image.winclip import torch_model
from anomalib.models.image.winclip.prompting import create_prompt_ensemble

from bench.contracts import Context, ImageSet, Scores, TextImageEncoder, TrainingSet, Traits
from bench.errors import BenchError, NotApplicable
from bench.methods.anomalib import identity
from bench.methods.anomalib.run import quiet, replaced


class Mended(torch_model.WinClipModel):
    """anomalib's model around an encoder's weights, for an open_clip whose transformer takes the batch first.

    anomalib hands its windows over with the sequence first, as open_clip before 2.26.1 wanted them. Since then
    attention runs over the second axis, which here are the windows: the CLS tokens of all windows, equal at the
    start, attend to each other and stay equal. Here the transformer gets windows in the order it takes.

    Args:
        encoder: whose weights, a copy of them, and text embeddings are used.
        label: what stands in the sentences.
        scales: sides of the windows in patches.
    """

    def __init__(self, encoder: TextImageEncoder, label: str, scales: Sequence[int] = (2, 3)) -> None:
        model = copy.deepcopy(encoder.model)
        created = SimpleNamespace(create_model_and_transforms=lambda *_, **__: (model, None, None))
        with replaced(torch_model, "open_clip", created):
            super().__init__(scales=tuple(scales))
        self.encode_text = encoder.encode_text
        self.setup(label)
        self.eval()

    def _collect_text_embeddings(self, class_name: str) -> None:  # type: ignore[override]
        """Tokens as anomalib makes them, with the encoder's own tokenizer."""
        means = [self.encode_text(sentences).mean(0) for sentences in create_prompt_ensemble(class_name)]
        self._text_embeddings = torch.stack(means).to(next(self.parameters()).device)

    def _get_window_embeddings(self, feature_map: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        visual = self.clip.visual
        inner = visual.transformer

        class SequenceFirst(torch.nn.Module):
            def forward(self, tokens: torch.Tensor) -> torch.Tensor:
                result: torch.Tensor = inner(tokens.transpose(0, 1)).transpose(0, 1)
                return result

        visual.transformer = SequenceFirst()
        try:
            embeddings: torch.Tensor = super()._get_window_embeddings(feature_map, masks)
            return embeddings
        finally:
            visual.transformer = inner


class AnomalibWinClip:
    """See the module's head."""

    name: ClassVar[str] = "anomalib/winclip"
    version: ClassVar[str] = identity()

    @dataclass(frozen=True)
    class Config:
        """Options, named as anomalib's.

        Attributes:
            encoder: text-image encoder; anomalib's.
            k_shot: WinCLIP+ with the first ``k_shot`` normal images that the protocol gives; 0 for none.
            scales: sides of the windows in patches.
        """

        encoder: str = "laion400m_e31/ViT-B-16-plus-240"
        k_shot: int = 0
        scales: tuple[int, ...] = (2, 3)

        def __post_init__(self) -> None:
            if self.k_shot < 0:
                raise ValueError("k_shot must not be negative")
            if not self.scales or min(self.scales) < 1:
                raise ValueError("scales takes sides in patches, such as 2+3")

    def __init__(self, config: Config) -> None:
        self.config = config

    @classmethod
    def traits(cls, config: Config) -> Traits:
        few = config.k_shot > 0
        return Traits(
            title="WinCLIP+ (anomalib)" if few else "WinCLIP (anomalib)",
            source=f"anomalib {torch_model.__name__}",
            trained=False,
            seeded=few,
            zero_shot=not few,
            text=True,
            support=few,
            adapted="windows handed to the transformer in the order that today's open_clip takes",
        )

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Nothing is learned."""

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores, and maps scaled up to the encoder's input, as anomalib gives them.

        Raises:
            NotApplicable: fewer than ``k_shot`` normal images.
            BenchError: a window is larger than the grid of patches.
        """
        encoder, k = context.encoder(self.config.encoder), self.config.k_shot
        given = 0 if context.support is None else len(context.support)
        if given < k:
            raise NotApplicable(f"{self.name} needs {k} normal images of the target and has {given}")
        support = None if context.support is None or not k else context.support.subset(range(k))
        models = {c: self._model(encoder, c, images, support) for c in dict.fromkeys(images.categories)}
        scores, maps = [], []
        for image, category in zip(images, images.categories, strict=True):  # alone, so that none affects another
            answer = models[category](encoder.preprocess(image)[None].to(context.device))
            scores.append(float(answer.pred_score))
            maps.append(answer.anomaly_map[0].cpu().numpy())
        return Scores(np.array(scores, dtype=np.float32), np.stack(maps))

    def _model(self, encoder: TextImageEncoder, category: str, images: ImageSet, support: ImageSet | None) -> Any:
        prompts = images.prompts.get(category)
        label = category.replace("_", " ") if prompts is None else prompts.label
        visual: Any = encoder.model.visual
        if max(self.config.scales) > min(visual.grid_size):
            raise BenchError(f"windows of {max(self.config.scales)} patches do not fit into {encoder.name}'s grid")
        with quiet():
            model = Mended(encoder, label, self.config.scales)
            if support is not None:
                pixels = torch.stack([encoder.preprocess(image) for image in support])
                model.setup(reference_images=pixels.to(next(model.parameters()).device))
        return model
