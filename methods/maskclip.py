"""MaskCLIP: what CLIP's last block would say of each patch without attention, against sentences.

Implements MaskCLIP of "Extract Free Dense Labels from CLIP" (Zhou, Loy, Dai; ECCV 2022) in its form for vision
transformers, ``chongzhou96/MaskCLIP`` (commit 245d31f; mmseg/models/backbones/vit.py,
mmseg/models/decode_heads/maskclip_head.py, configs/_base_/models/maskclip_vit16.py), with two classes: normal and
anomalous. Training-free.

All blocks but the last are CLIP's. In the last, a patch's features are its own value, taken through the output
projection of the attention, with no mixing of patches; then the block's residual and feed-forward half
(``resid_ffn``), the last layer norm and the projection into the joint space. A patch's score is its softmax over
the cosine similarities to the normal and the anomalous text, at CLIP's scale of 100.

How it differs: the paper describes the value and the output projection alone, the code keeps residual and
feed-forward half; ours is the code's, with ``resid_ffn=off`` for the paper's. The code runs CLIP's weights in
mmseg's transformer, whose activation, layer norm and pixel statistics are not CLIP's; ours are CLIP's, with
``mmseg_quirks`` for the code's. The classes and the image score, the map's largest value, are not from the source.
Maps are log-odds, since a confident probability is exactly 1 in single precision, and its order lost; they stay at
the patch grid.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.contracts import Context, ImageSet, Scores, TextImageEncoder, TrainingSet, Traits
from bench.errors import BenchError
from bench.methods.shared.cosines import Floats, unit
from bench.methods.shared.prompts import text_pairs

if TYPE_CHECKING:
    import torch

_BATCH = 16  # images per pass
_SCALE = 100  # of the logits, in the refinements and the softmax
_ABSENT = -100  # the logit that prompt denoising gives to a class that is not there
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, in mmseg's configurations
_EPS = 1e-6  # of mmseg's layer norms


@dataclass(frozen=True)
class MaskClipConfig:
    """Options; the defaults are the code's unless noted.

    Attributes:
        encoder: text-image encoder; ViT-B/16 with OpenAI's weights, one of the code's (WinCLIP's setting is
            laion400m_e31/ViT-B-16-plus-240).
        img_size: side that images are scaled to; ``none`` = the encoder's own (ours; the code's images are of
            512 and 520 pixels).
        resid_ffn: add the last block's residual and feed-forward half to the values (the code), or not (the
            paper's words, and later works).
        prompts: ``promptad``: the category's normality and abnormality sentences (ours); ``winclip``: WinCLIP's
            154 and 88; ``imagenet``: the code's 85 templates, of "..." and of "damaged ...".
        map: ``log_odds`` of the anomalous class, or its ``probability``, which orders patches alike until it is 1
            in single precision. With a refinement, which is defined on probabilities, always the latter.
        pd_thresh: prompt denoising: a class whose highest probability in an image is below this is taken to be
            absent; 0 = off (the code suggests 0.5 in a comment; of two classes, that removes only one that is
            nowhere the likelier).
        ks_thresh: key smoothing: where no class reaches this probability, a patch takes the sum of all patches'
            probabilities, weighted by the products of their keys; 0 = off (the code suggests 1.0). Keys as in
            the code: through the output projection, and normalised over patches, not over channels.
        gauss_sigma: smoothing of maps in pixels of the scaled image; 0 = none, and maps stay at the patch grid.
        mmseg_quirks: exact GELU, layer norms with epsilon 1e-6 and ImageNet's pixel statistics, as the code
            runs CLIP's weights; off, CLIP's own (ours).
    """

    encoder: str = "openai/ViT-B-16"
    img_size: int | None = None
    resid_ffn: bool = True
    prompts: Literal["promptad", "winclip", "imagenet"] = "promptad"
    map: Literal["log_odds", "probability"] = "log_odds"
    pd_thresh: float = 0.0
    ks_thresh: float = 0.0
    gauss_sigma: float = 0.0
    mmseg_quirks: bool = False

    def __post_init__(self) -> None:
        if low := [n for n in ("pd_thresh", "ks_thresh", "gauss_sigma") if getattr(self, n) < 0]:
            raise ValueError(f"{', '.join(low)} must not be below 0")


class MaskClip:
    """The method; see the module's head and :class:`MaskClipConfig`."""

    name: ClassVar[str] = "maskclip"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[Any]] = MaskClipConfig

    def __init__(self, config: MaskClipConfig) -> None:
        self.config = config

    @classmethod
    def traits(cls, config: MaskClipConfig) -> Traits:
        return Traits(
            title="MaskCLIP",
            source="Zhou et al., ECCV 2022; chongzhou96/MaskCLIP",
            trained=False,
            seeded=False,
            text=True,
            adapted="a segmentation method, here with two classes: normal and anomalous",
        )

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Nothing is learned."""

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Maps on the encoder's grid of patches, and their largest values as image scores."""
        import torch

        from bench.methods.shared import vit

        config, encoder = self.config, context.encoder(self.config.encoder)
        texts = text_pairs(images, encoder, config.prompts)
        visual = vit.tower(encoder)
        if config.mmseg_quirks:
            visual = mmseg_tower(visual)
        tokens, grid = self._tokens(images, encoder, visual)
        parts = []
        for start in range(0, len(images), _BATCH):
            batch = slice(start, start + _BATCH)
            with torch.no_grad():
                features, keys = values(visual, tokens[batch].to(visual.proj.device), resid_ffn=config.resid_ffn)
            # (B, E, 2). Texts are double, and so are cosines: log-odds are a hundred times their difference.
            text = np.stack([texts[category].T for category in images.categories[batch]])
            cosines = unit(features.cpu().numpy()) @ text
            scores = patch_scores(cosines, keys.cpu().numpy(), config).reshape(-1, *grid)
            if config.gauss_sigma:
                scores = _smoothed(scores, config, encoder)
            parts.append(scores.astype(np.float32))
        maps = np.concatenate(parts)
        return Scores(maps.max(axis=(1, 2)), maps)

    def _tokens(
        self, images: ImageSet, encoder: TextImageEncoder, visual: Any
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        """The last block's input ``(N, 1 + h * w, W)``, and the grid."""
        layer = encoder.n_blocks - 2
        if layer < 0:
            raise BenchError(f"{encoder.name} has a single block; MaskCLIP needs two")
        if self.config.mmseg_quirks:
            return _mmseg_tokens(images, encoder, visual, self.config.img_size)
        features = encoder.encode_images(images, layers=(layer,), image_size=self.config.img_size)
        return features.tokens[layer], features.grid


# ---------------------------------------------------------------- the value path


def values(visual: Any, tokens: torch.Tensor, *, resid_ffn: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Features that the last block gives each patch without attention.

    Args:
        visual: image tower.
        tokens: ``(..., 1 + P, W)`` input of the last block, CLS token first.

    Returns:
        Features ``(..., P, E)`` in the joint space, and the keys ``(..., P, W)``, likewise through the output
        projection.
    """
    from bench.methods.shared import vit

    block = visual.transformer.resblocks[-1]
    _, key, value = vit.project_in(block, tokens)
    value, key = block.attn.out_proj(value), block.attn.out_proj(key)
    if resid_ffn:
        value = vit.feed_forward(block, tokens + block.ls_1(value))
    features: torch.Tensor = visual.ln_post(value[..., 1:, :]) @ visual.proj
    return features, key[..., 1:, :]


def patch_scores(cosines: Floats, keys: Floats, config: MaskClipConfig) -> Floats:
    """Scores ``(..., P)`` of the patches of images.

    Args:
        cosines: ``(..., P, 2)``, to the normal and the anomalous text.
        keys: ``(..., P, W)`` for key smoothing.
    """
    if config.map == "log_odds" and not (config.pd_thresh or config.ks_thresh):
        return _SCALE * (cosines[..., 1] - cosines[..., 0])
    probabilities = _softmax(_SCALE * cosines)
    # Prompt denoising: which class reaches the threshold in no patch of its image, (..., 1, 2).
    absent = probabilities.max(axis=-2, keepdims=True) < config.pd_thresh
    if absent.any():
        probabilities = _softmax(_SCALE * np.where(absent, _ABSENT, cosines))
    if config.ks_thresh:
        # Key smoothing, where no class reaches the threshold.
        keys = keys / np.maximum(np.linalg.norm(keys, axis=-2, keepdims=True), 1e-12)
        unsure = probabilities.max(axis=-1, keepdims=True) < config.ks_thresh
        smoothed = keys @ (np.swapaxes(keys, -2, -1) @ probabilities)
        probabilities = np.where(unsure, smoothed, probabilities)
    anomalous: Floats = probabilities[..., 1]
    return anomalous


def _softmax(logits: Floats) -> Floats:
    """Over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def _smoothed(maps: Floats, config: MaskClipConfig, encoder: TextImageEncoder) -> Floats:
    """Maps ``(B, h, w)`` scaled to the side of the images and smoothed there."""
    import torch
    import torch.nn.functional as F
    from scipy.ndimage import gaussian_filter

    side = config.img_size or encoder.image_size
    large = F.interpolate(torch.from_numpy(maps)[:, None], size=(side, side), mode="bilinear")
    smooth: Floats = gaussian_filter(large[:, 0].numpy(), config.gauss_sigma, axes=(1, 2))
    return smooth


# ---------------------------------------------------------------- as mmseg runs it


def mmseg_tower(visual: Any) -> Any:
    """A copy of an image tower with mmseg's activation and layer norms around the same weights."""
    import torch

    tower = copy.deepcopy(visual)
    for module in tower.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = _EPS
    for block in tower.transformer.resblocks:
        block.mlp.gelu = torch.nn.GELU()
    return tower


def _mmseg_tokens(
    images: ImageSet, encoder: TextImageEncoder, visual: Any, image_size: int | None
) -> tuple[torch.Tensor, tuple[int, int]]:
    """The input ``(N, 1 + h * w, W)`` of the last block of a :func:`mmseg_tower`, and the grid."""
    import torch
    from PIL import Image

    from bench.encoders.features import CACHE, in_fixed_batches
    from bench.methods.shared import vit

    side, patch = image_size or encoder.image_size, visual.conv1.stride[0]
    if side % patch:
        raise BenchError(f"image size {side} is no multiple of the patch size {patch} of {encoder.name}")
    grid, width = side // patch, encoder.width
    device = visual.proj.device
    # Fixed, and batches are filled up, since tokens are kept: see in_fixed_batches.
    batch_size = 8 if device.type == "cpu" else 64

    def prepare(image: NDArray[np.uint8]) -> torch.Tensor:
        scaled = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        normalised = (np.asarray(scaled) / 255 - np.array(_MEAN)) / np.array(_STD)
        return torch.from_numpy(normalised).permute(2, 0, 1).float()

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = visual.ln_pre(vit.embed(visual, pixels.to(device)))
        for block in visual.transformer.resblocks[:-1]:
            tokens = block(tokens)
        return {"tokens": tokens}

    with torch.no_grad():
        found = CACHE.encode(
            images,
            {"tokens": (1 + grid * grid, width)},
            weights=encoder.weights_hash,
            preprocessing=f"{encoder.name} at {side} as in mmseg, before the last block, float32 on {device.type}",
            prepare=prepare,
            forward=lambda pixels: in_fixed_batches(forward, pixels, batch_size),
            batch_size=batch_size,
        )
    return found["tokens"], (grid, grid)
