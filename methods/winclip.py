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

How it differs: scores are taken in double precision; maps stay at the patch grid (all of [A], [Z] and [C] scale
them bilinearly, which is left to the metric). [A] of version 2.7 computes something else with open_clip 2.26.1 and
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
from bench.methods.shared.prompts import TEMPLATES, Floats, ensemble, mean_text, probability, unit

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
        """Whether this is WinCLIP+."""
        return self.few_shot or self.k > 0


class View(NamedTuple):
    """Normalised embeddings: a whole image ``(E,)``, window side -> ``(M, E)``, and ``(P, W)`` patch tokens."""

    whole: Floats
    windows: Mapping[int, Floats]
    patches: Floats


@dataclass(frozen=True)
class Views:
    """The same of N images, not normalised: ``(N, E)``, side -> ``(N, M, E)``, ``(N, h * w, W)`` or no patches."""

    whole: torch.Tensor
    windows: Mapping[int, torch.Tensor]
    patches: torch.Tensor
    grid: tuple[int, int]

    def __getitem__(self, index: int) -> View:
        """One image's. In double precision: however a product is split up, in float32 it will be the same."""
        windows = {side: _unit(rows[index]) for side, rows in self.windows.items()}
        return View(_unit(self.whole[index]), windows, _unit(self.patches[index]))

    def pooled(self) -> View:
        """All images' windows and patches in one; ``whole`` stays ``(N, E)``."""
        windows = {side: _unit(rows.flatten(0, 1)) for side, rows in self.windows.items()}
        return View(_unit(self.whole), windows, _unit(self.patches.flatten(0, 1)))


def _unit(vectors: torch.Tensor) -> Floats:
    return unit(vectors.double().numpy())


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
        views = self._views(images, encoder, patches=support is not None)
        directions = self._directions(images, encoder) / config.temperature
        normal = None if support is None else self._views(support, encoder, patches=True).pooled()

        image_scores, maps = np.empty(len(images)), np.empty((len(images), *views.grid))
        for i, direction in enumerate(directions):  # one by one: a product with more rows would round differently
            view = views[i]
            whole = float(probability(view.whole @ direction))
            scores = {side: probability(rows @ direction) for side, rows in view.windows.items()}
            maps[i] = zero_shot_map(scores, whole, views.grid, config)
            image_scores[i] = whole if config.image_score == "text" else maps[i].max()
            if normal is not None:
                few = few_shot_map(view, normal, views.grid)
                maps[i] = (maps[i] + few) / 2
                image_scores[i] = (image_scores[i] + few.max()) / 2
        return Scores(image_scores.astype(np.float32), maps.astype(np.float32))

    # ---------------------------------------------------------------- what is compared

    def _support(self, context: Context) -> ImageSet | None:
        """The normal images that are used."""
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
        found = {}
        for category in dict.fromkeys(images.categories):
            prompts = images.prompts.get(category)
            label = category
            if config.name == "label":
                label = category.replace("_", " ") if prompts is None else prompts.label
            normal, anomalous = (
                mean_text(group, encoder, raw=config.averaging == "raw") for group in ensemble(label, templates)
            )
            found[category] = anomalous - normal
        return np.stack([found[category] for category in images.categories])

    def _views(self, images: ImageSet, encoder: TextImageEncoder, *, patches: bool) -> Views:
        """Embeddings of whole images, windows and, for WinCLIP+, patches."""
        last = encoder.n_blocks - 1
        features = encoder.encode_images(images, layers=(last,) if patches else ())
        tokens = features.embedding.new_empty(len(images), 0, encoder.width)
        if patches:
            tokens = features.tokens[last][:, 1:]
            if self.config.patch_tokens == "after":
                tokens = _normed(tokens, encoder)
        windows = encode_windows(images, encoder, self.config.windows, features.grid)
        return Views(features.embedding, windows, tokens, features.grid)


def _normed(tokens: torch.Tensor, encoder: TextImageEncoder) -> torch.Tensor:
    """``(N, T, W)`` tokens after the last layer norm, image by image."""
    import torch

    visual: Any = encoder.model.visual
    with torch.no_grad():
        return torch.stack([visual.ln_post(rows.to(visual.proj.device)).cpu() for rows in tokens])


# ---------------------------------------------------------------- windows


def encode_windows(
    images: ImageSet, encoder: TextImageEncoder, sides: Sequence[int], grid: tuple[int, int]
) -> dict[int, torch.Tensor]:
    """Window side -> raw embeddings ``(N, M, E)`` of the windows, row by row; kept like other features.

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
    # An image's windows are hundreds of sequences, so that a CPU gains nothing from more images.
    batch_size = 1 if device.type == "cpu" else 16

    def forward(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        tokens = visual.ln_pre(vit.embed(visual, pixels.to(device)))
        found = {}
        for side, patches in places.items():
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


def zero_shot_map(
    windows: Mapping[int, Floats], whole: float, grid: tuple[int, int], config: WinClipConfig
) -> Floats:
    """The map ``(h, w)`` of one image from its own score and those of its windows, side -> ``(M,)``."""
    if config.aggregation == "normality":
        return 1 - harmonic_mean([spread(1 - scores, side, grid) for side, scores in windows.items()])
    return harmonic_mean([np.full(grid, whole), *(spread(s, side, grid) for side, s in windows.items())])


def few_shot_map(view: View, normal: View, grid: tuple[int, int]) -> Floats:
    """The mean ``(h, w)`` of the association maps of one image's windows and patches with the normal ones."""
    maps = [association(view.patches, normal.patches).reshape(grid)]
    maps += [spread(association(rows, normal.windows[side]), side, grid) for side, rows in view.windows.items()]
    mean: Floats = np.mean(maps, axis=0)
    return mean


def spread(scores: Floats, side: int, grid: tuple[int, int]) -> Floats:
    """From windows ``(M,)`` to patches ``(h, w)``: the harmonic mean over the windows that cover a patch."""
    rows, columns = grid[0] - side + 1, grid[1] - side + 1
    inverse, count = np.zeros(grid), np.zeros(grid)
    for down in range(side):
        for right in range(side):
            covered = np.s_[down : down + rows, right : right + columns]
            inverse[covered] += _inverse(scores).reshape(rows, columns)
            count[covered] += 1
    harmonic: Floats = count / inverse
    return harmonic


def harmonic_mean(maps: Sequence[Floats]) -> Floats:
    """Over equally shaped maps."""
    mean: Floats = len(maps) / np.sum([_inverse(each) for each in maps], axis=0)
    return mean


def _inverse(scores: Floats) -> Floats:
    """1 / score, endless at 0: one score of 0 makes the harmonic mean 0."""
    with np.errstate(divide="ignore"):
        inverse: Floats = 1 / scores
    return inverse


def association(vectors: Floats, bank: Floats) -> Floats:
    """Half the cosine distance ``(M,)`` of ``(M, E)`` normalised vectors to the closest in ``(B, E)``."""
    closest: Floats = (vectors @ bank.T).max(axis=1)
    # An image that is among the normal ones is at distance 0, not a rounding error below.
    return np.maximum((1 - closest) / 2, 0)
