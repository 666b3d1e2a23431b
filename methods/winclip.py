"""WinCLIP and WinCLIP+: windows of an image against sentences, and against K normal images.

Implements "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation" (Jeong, Zou, Kim, Zhang, Ravichandran,
Dabeer; CVPR 2023). No official code exists; what the paper leaves open follows the public re-implementations,
named in the options by these letters:

- [A] ``open-edge-platform/anomalib``, src/anomalib/models/image/winclip
- [Z] ``zqhang/Accurate-WinCLIP-pytorch``, reproduce_WinCLIP.py
- [C] ``caoyunkang/WinClip``, WinCLIP/model.py
- [M] ``mala-lab/WinCLIP``, main.py (image scores only; its authors asked WinCLIP's)

The parts:

- Compositional prompt ensemble: an image's or window's score is the softmax over its cosine similarity to the mean
  of 154 normal and of 88 anomalous sentences. The image score is that of the whole image; no map enters it.
- Windows of 2x2 and 3x3 patches at every position: their patch embeddings, with the positions that they have in
  the image, go through the transformer alone with the CLS token. A patch's score is the harmonic mean over the
  windows that cover it, the map the harmonic mean over both sizes and the image score.
- WinCLIP+ (``few_shot=on``), with K normal images: half the cosine distance of each window and patch to the
  closest of theirs; the mean of the three maps joins the zero-shot map, its largest value the image score.

How it differs: maps stay at the patch grid (all of [A], [Z] and [C] scale them bilinearly, which is left to the
metric). [A] of version 2.7 computes something else with open_clip 2.26.1 and
later: it hands windows to the transformer with the sequence first, where that now takes the batch first, so that
CLS tokens of different windows attend to each other, and all windows get one score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np

from bench.contracts import Context, ImageSet, Scores, TextImageEncoder, TrainingSet, Traits
from bench.errors import BenchError, NotApplicable
from bench.methods.shared.cosines import Floats, along, distance, probability, unit
from bench.methods.shared.prompts import TEMPLATES, ensemble, mean_text

if TYPE_CHECKING:
    import torch

# The list of [A] and [Z], with one template twice and two lost.
TYPO_TEMPLATES = tuple(
    "a jpeg corrupted photo of the {}." if template == "a jpeg corrupted photo of a {}." else template
    for template in TEMPLATES
    if template != "a cropped photo of a {}."
)


@dataclass(frozen=True)
class WinClipConfig:
    """Options; letters as in the module's head.

    Attributes:
        encoder: text-image encoder; the paper's, with the weights of [A], [Z] and [M] ([C]: laion400m_e32).
        few_shot: WinCLIP+, with all normal images that the protocol gives, in one trial per seed, since each seed
            draws others.
        k: WinCLIP+ with the first k of them; 0: see ``few_shot``.
        temperature: of the softmax: 0.07 ([A], [Z]) or 0.01 ([C], [M]). Maps depend on it, through the harmonic
            means; the order of zero-shot image scores does not. 0.07 because [Z] alone comes near the paper's
            pixel metrics.
        averaging: mean of ``normalised`` sentence embeddings ([M]) or of ``raw`` ones ([A], [Z], [C]).
        templates: all 22 of the ``paper``, or the ``typo`` list of [A] and [Z], with 21 of which two are the same.
        name: what stands in the sentences: the category's ``label`` in words, or the raw ``category`` as the
            dataset spells it, e.g. metal_nut ([A], [Z]).
        windows: sides of the windows in patches; the paper's.
        aggregation: ``harmonic`` means of anomaly scores ([A], [Z]), or of ``normality``, one less the score, and
            without the whole image ([C]; its results are far lower).
        image_score: of the whole image against the ``text`` ([A], [Z], [M]), or the zero-shot ``map``'s largest
            value ([C]).
        patch_tokens: WinCLIP+'s last-block patch tokens ``after`` ([A]) or ``before`` ([Z]) the last layer norm.
    """

    encoder: str = "laion400m_e31/ViT-B-16-plus-240"
    few_shot: bool = False
    k: int = 0
    temperature: float = 0.07
    averaging: Literal["normalised", "raw"] = "normalised"
    templates: Literal["paper", "typo"] = "paper"
    name: Literal["label", "category"] = "label"
    windows: tuple[int, ...] = (2, 3)
    aggregation: Literal["harmonic", "normality"] = "harmonic"
    image_score: Literal["text", "map"] = "text"
    patch_tokens: Literal["after", "before"] = "after"

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ValueError("k must not be negative")
        if self.temperature <= 0:
            raise ValueError("temperature must be above 0")
        if not self.windows or min(self.windows) < 1 or len(set(self.windows)) != len(self.windows):
            raise ValueError("windows takes different sides in patches, such as 2+3")

    @property
    def plus(self) -> bool:
        """True for WinCLIP+."""
        return self.few_shot or self.k > 0


class Views(NamedTuple):
    """Embeddings of N images, normalised, in single precision.

    Attributes:
        whole: ``(N, E)`` of the whole images.
        windows: window side -> ``(N, M, E)``.
        patches: ``(N, h * w, W)`` patch tokens; ``(N, 0, W)`` where they are not needed.
    """

    whole: Floats
    windows: Mapping[int, Floats]
    patches: Floats


class WinClip:
    """WinCLIP, and WinCLIP+ with normal images; see the module's head and :class:`WinClipConfig`."""

    name: ClassVar[str] = "winclip"
    version: ClassVar[str] = "1"
    Config: ClassVar[type[Any]] = WinClipConfig

    def __init__(self, config: WinClipConfig) -> None:
        self.config = config

    @classmethod
    def traits(cls, config: WinClipConfig) -> Traits:
        few = config.plus
        return Traits(
            title="WinCLIP+" if few else "WinCLIP",
            source="Jeong et al., CVPR 2023 (no official code; as in anomalib and its peers)",
            trained=False,
            seeded=few,  # the K images are drawn anew for each seed
            zero_shot=not few,
            text=True,
            support=few,
        )

    def fit(self, train: TrainingSet, context: Context) -> None:
        """Nothing is learned."""

    def score(self, images: ImageSet, context: Context) -> Scores:
        """Image scores, and maps on the encoder's grid of patches.

        Raises:
            NotApplicable: WinCLIP+ without normal images, or with fewer than ``k``.
            BenchError: a window is larger than the grid.
        """
        config, encoder = self.config, context.encoder(self.config.encoder)
        support = self._support(context)
        views, grid = self._views(images, encoder, patches=support is not None)
        directions = self._directions(images, encoder) / config.temperature
        whole = probability(along(views.whole, directions))
        scores = {side: probability(along(rows, directions[:, None])) for side, rows in views.windows.items()}
        maps = zero_shot_maps(scores, whole, grid, config)
        image_scores = whole if config.image_score == "text" else maps.max(axis=(1, 2))
        if support is not None:
            normal, _ = self._views(support, encoder, patches=True)
            few = few_shot_maps(views, normal, grid)
            maps = (maps + few) / 2
            image_scores = (image_scores + few.max(axis=(1, 2))) / 2
        return Scores(image_scores.astype(np.float32), maps.astype(np.float32))

    # ---------------------------------------------------------------- what is compared

    def _support(self, context: Context) -> ImageSet | None:
        """The normal images for WinCLIP+, or None."""
        k, given = self.config.k, context.support
        if not self.config.plus:
            return None
        if given is None or len(given) < k:
            count = 0 if given is None else len(given)
            raise NotApplicable(f"WinCLIP+ needs {k or 'K'} normal images of the target and has {count}")
        return given.subset(range(k or len(given)))

    def _directions(self, images: ImageSet, encoder: TextImageEncoder) -> Floats:
        """``(N, E)``: the anomalous sentences' mean less the normal ones', of each image's category."""
        config = self.config
        templates = TEMPLATES if config.templates == "paper" else TYPO_TEMPLATES
        raw = config.averaging == "raw"
        found = {}
        for category in dict.fromkeys(images.categories):
            prompts = images.prompts.get(category)
            if config.name == "category":
                label = category
            elif prompts is not None:
                label = prompts.label
            else:
                label = category.replace("_", " ")
            normal, anomalous = ensemble(label, templates)
            found[category] = mean_text(anomalous, encoder, raw=raw) - mean_text(normal, encoder, raw=raw)
        return np.stack([found[category] for category in images.categories])

    def _views(
        self, images: ImageSet, encoder: TextImageEncoder, *, patches: bool
    ) -> tuple[Views, tuple[int, int]]:
        """Embeddings of whole images, windows and, for WinCLIP+, patches; and the grid of patches."""
        last = encoder.n_blocks - 1
        features = encoder.encode_images(images, layers=(last,) if patches else ())
        tokens = features.embedding.new_empty(len(images), 0, encoder.width)
        if patches:
            tokens = features.tokens[last][:, 1:]
            if self.config.patch_tokens == "after":
                tokens = _normed(tokens, encoder)
        windows = encode_windows(images, encoder, self.config.windows, features.grid)
        normalised = {side: unit(rows.numpy()) for side, rows in windows.items()}
        return Views(unit(features.embedding.numpy()), normalised, unit(tokens.numpy())), features.grid


def _normed(tokens: torch.Tensor, encoder: TextImageEncoder) -> torch.Tensor:
    """``(N, T, W)`` tokens after the last layer norm."""
    import torch

    visual: Any = encoder.model.visual
    with torch.no_grad():
        normed: torch.Tensor = visual.ln_post(tokens.to(visual.proj.device)).cpu()
    return normed


# ---------------------------------------------------------------- windows


def encode_windows(
    images: ImageSet, encoder: TextImageEncoder, sides: Sequence[int], grid: tuple[int, int]
) -> dict[int, torch.Tensor]:
    """Encode all windows: side -> raw embeddings ``(N, M, E)``, row by row; kept like other features.

    Raises:
        BenchError: a window is larger than the grid of patches.
    """
    import torch

    from bench.encoders.features import CACHE, in_fixed_batches
    from bench.methods.shared import vit

    if max(sides) > min(grid):
        raise BenchError(f"windows of {max(sides)} patches do not fit into {encoder.name}'s {grid[0]}x{grid[1]}")
    visual = vit.tower(encoder)
    device = visual.proj.device
    places = {side: window_patches(grid, side) for side in sides}
    # An image's windows are hundreds of sequences, so that a CPU gains nothing from more images. The size is fixed
    # and batches are filled up, since windows are kept: see in_fixed_batches.
    batch_size = 1 if device.type == "cpu" else 16

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = visual.ln_pre(vit.embed(visual, pixels.to(device)))
        found = {}
        for side, patches in places.items():
            # Each window is a sequence of its own: the CLS token, which is number 0, and the window's patches.
            cls = np.zeros((len(patches), 1), dtype=np.int64)
            rows = torch.from_numpy(np.hstack([cls, 1 + patches])).to(device)
            embedded = vit.embed_sequences(visual, tokens[:, rows].flatten(0, 1))
            found[f"windows{side}"] = embedded.unflatten(0, (len(pixels), len(patches)))
        return found

    with torch.no_grad():
        found = CACHE.encode(
            images,
            {f"windows{side}": (len(patches), encoder.embed_dim) for side, patches in places.items()},
            weights=encoder.weights_hash,
            preprocessing=f"{encoder.name} at {encoder.image_size}, windows in pieces, float32 on {device.type}",
            prepare=encoder.preprocess,
            forward=lambda pixels: in_fixed_batches(forward, pixels, batch_size),
            batch_size=batch_size,
        )
    return {side: found[f"windows{side}"] for side in sides}


def window_patches(grid: tuple[int, int], side: int) -> np.typing.NDArray[np.int64]:
    """``(M, side * side)``: the patches of each window at stride 1, both row by row."""
    numbers = np.arange(grid[0] * grid[1]).reshape(grid)
    windows = np.lib.stride_tricks.sliding_window_view(numbers, (side, side))
    return windows.reshape(-1, side * side)


# ---------------------------------------------------------------- scores to maps


def zero_shot_maps(
    windows: Mapping[int, Floats], whole: Floats, grid: tuple[int, int], config: WinClipConfig
) -> Floats:
    """The maps ``(N, h, w)`` from the images' own scores ``(N,)`` and those of windows, side -> ``(N, M)``."""
    if config.aggregation == "normality":
        return 1 - harmonic_mean([spread(1 - scores, side, grid) for side, scores in windows.items()])
    maps = [np.broadcast_to(whole[:, None, None], (len(whole), *grid))]
    maps += [spread(scores, side, grid) for side, scores in windows.items()]
    return harmonic_mean(maps)


def few_shot_maps(views: Views, normal: Views, grid: tuple[int, int]) -> Floats:
    """The mean ``(N, h, w)`` of the association maps of windows and patches with those of normal images."""
    maps = [distance(views.patches, normal.patches).reshape(-1, *grid)]
    for side, rows in views.windows.items():
        maps.append(spread(distance(rows, normal.windows[side]), side, grid))
    mean: Floats = np.mean(maps, axis=0)
    return mean


def spread(scores: Floats, side: int, grid: tuple[int, int]) -> Floats:
    """From windows ``(..., M)`` to patches ``(..., h, w)``: the harmonic mean over windows that cover a patch."""
    # `rows` times `columns` windows fit; window (y, x) covers the patches from (y, x) to (y + side, x + side).
    rows, columns = grid[0] - side + 1, grid[1] - side + 1
    terms = _inverse(scores).reshape(*scores.shape[:-1], rows, columns)
    inverse, count = np.zeros((*scores.shape[:-1], *grid)), np.zeros(grid)
    for down in range(side):
        for right in range(side):
            covered = np.s_[..., down : down + rows, right : right + columns]
            inverse[covered] += terms
            count[covered] += 1
    harmonic: Floats = count / inverse
    return harmonic


def harmonic_mean(maps: Sequence[Floats]) -> Floats:
    """The harmonic mean over equally shaped maps."""
    mean: Floats = len(maps) / np.sum([_inverse(each) for each in maps], axis=0)
    return mean


def _inverse(scores: Floats) -> Floats:
    """1 / score, endless at 0: one score of 0 makes the harmonic mean 0."""
    with np.errstate(divide="ignore"):
        inverse: Floats = 1 / scores
    return inverse
