"""A frozen CLIP with a plain vision transformer, seen through :class:`bench.contracts.TextImageEncoder`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from bench.contracts import ImageFeatures, ImageSet
from bench.encoders.features import CACHE, FeatureCache, in_fixed_batches
from bench.errors import BenchError
from bench.tools.devices import full_precision
from bench.tools.stopwatch import timed

_TEXT_BATCH = 8  # sentences per pass; usually two are asked for, and a larger batch would be mostly padding
_ROWS = 1024  # tokens per product in `project`, whose results are not kept
_KEEP_ALL = 2**20  # bytes per image up to which all blocks are kept, for methods that will ask for others
_CLIPSEG = (3, 7, 9)  # blocks of 12 that CLIPSeg reads


def clipseg_blocks(n_blocks: int) -> list[int]:
    """The blocks that CLIPSeg reads, counted from 0; of an encoder of other depth those nearest in depth."""
    return [max(0, int((block + 1) * n_blocks / 12 + 0.5) - 1) for block in _CLIPSEG]


class FrozenClip:
    """Any ``open_clip`` model with a plain ViT image tower, in eval mode and without gradients.

    A feature depends on its image, the weights and the device alone: images go through the tower in batches of
    one fixed size (see :func:`bench.encoders.features.in_fixed_batches`), so neither the order nor the number of
    images asked for together changes a bit of it. The number of CPU threads may.

    Args:
        name: as the user wrote it, e.g. ``openai/ViT-B-16``.
        weights_hash: SHA-256 of the weights.
        model: the open_clip module; moved to ``device`` and frozen.
        tokenizer: sentences -> ``(N, L)`` token numbers.
        mean, std: the model's own per-channel normalisation of images in [0, 1].
        device: torch device.
        cache: where features are kept; the process's own by default.
        batch_size: images per pass; 8 on a CPU, where more gains nothing, else 64.

    Raises:
        BenchError: the image tower is no plain ViT with a CLS token.
    """

    def __init__(
        self,
        name: str,
        weights_hash: str,
        model: torch.nn.Module,
        tokenizer: Callable[[Sequence[str]], torch.Tensor],
        mean: Sequence[float],
        std: Sequence[float],
        device: str = "cpu",
        cache: FeatureCache | None = None,
        batch_size: int | None = None,
    ) -> None:
        visual: Any = model.visual
        if not (
            hasattr(getattr(visual, "transformer", None), "resblocks")
            and getattr(visual, "attn_pool", None) is None
            and getattr(visual, "pool_type", "tok") == "tok"
            and getattr(visual, "proj", None) is not None
        ):
            raise BenchError(
                f"the image tower of {name} is no plain vision transformer with a CLS token, so it has no patch "
                "tokens of the kind that methods use here; choose a ViT, e.g. openai/ViT-B-16"
            )
        self.name = name
        self.weights_hash = weights_hash
        self.model = model.to(device).float().eval().requires_grad_(False)
        self.device = device
        self.image_size = int(_square(visual.image_size, name))
        self.patch_size = int(_square(visual.patch_size, name))
        self.n_blocks = len(visual.transformer.resblocks)
        self.width = int(visual.positional_embedding.shape[1])
        self.embed_dim = int(visual.proj.shape[1])
        self.batch_size = batch_size or (8 if device == "cpu" else 64)
        self._visual = visual
        self._tokenizer = tokenizer
        self._mean = torch.tensor(mean, dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(std, dtype=torch.float32).view(3, 1, 1)
        self._cache = CACHE if cache is None else cache
        self._texts: dict[str, torch.Tensor] = {}
        self._positions: dict[int, torch.Tensor] = {}
        self._lock = threading.RLock()

    # ------------------------------------------------------------ images

    def encode_images(
        self, images: ImageSet, *, layers: Sequence[int] = (), image_size: int | None = None
    ) -> ImageFeatures:
        """Raw embeddings, and the outputs of the residual blocks ``layers`` (0-based; negative from the end).

        Args:
            images: N images.
            layers: blocks whose outputs are wanted.
            image_size: side that images are scaled to; the native one by default. The positional embedding is
                interpolated to other ones.

        Returns:
            Float32 tensors on the CPU, the caller's own to change. ``tokens`` is keyed as ``layers`` was written.

        Raises:
            BenchError: no such block, or a size that is no multiple of the patch size.
        """
        size = self._side(image_size)
        grid = size // self.patch_size
        blocks = {layer: self._block(layer) for layer in layers}
        shapes: dict[str, tuple[int, ...]] = {"embedding": (self.embed_dim,)}
        for block in blocks.values():
            shapes[f"block{block}"] = (1 + grid * grid, self.width)

        # Whoever comes first keeps what the next will ask for: of a large encoder, and on disk alone, what methods
        # read by default (PromptAD what CLIPSeg does, CLIP the last block).
        also: list[str] = []
        if self.n_blocks * (1 + grid * grid) * self.width * 4 <= _KEEP_ALL:
            also = [f"block{block}" for block in range(self.n_blocks)]
        elif self._cache.store is not None:
            also = [f"block{block}" for block in {*clipseg_blocks(self.n_blocks), self.n_blocks - 1}]

        def forward(pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
            return in_fixed_batches(lambda batch: self._forward(batch, {*shapes, *also}), pixels, self.batch_size)

        found = self._cache.encode(
            images,
            shapes,
            weights=self.weights_hash,
            preprocessing=self._describe(size),
            prepare=lambda image: self.preprocess(image, size),
            forward=forward,
            batch_size=self.batch_size,
            also=also,
        )
        tokens = {layer: found[f"block{block}"] for layer, block in blocks.items()}
        return ImageFeatures(found["embedding"], tokens, (grid, grid))

    def preprocess(self, image: NDArray[np.uint8], image_size: int | None = None) -> torch.Tensor:
        """``(3, S, S)`` normalised float32 of one ``(H, W, 3)`` uint8 image.

        Scaled to a square without cropping, bicubically and with Pillow's antialiasing, as CLIP's own
        preprocessing scales; a defect at the border of an oblong image would be lost by its crop.
        """
        from PIL import Image

        side = self._side(image_size)
        scaled = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(scaled)).permute(2, 0, 1).float() / 255
        return (pixels - self._mean) / self._std

    @timed("encode")
    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Final layer norm and projection of ``(..., W)`` last-block tokens into the joint space ``(..., E)``."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        if not len(rows):
            return tokens.new_zeros((*tokens.shape[:-1], self.embed_dim))

        parts = []
        with torch.no_grad():
            for batch in rows.split(_ROWS):
                projected = self._visual.ln_post(batch.to(self.device, torch.float32)) @ self._visual.proj
                parts.append(projected.to(tokens.device))
        return torch.cat(parts).reshape(*tokens.shape[:-1], self.embed_dim)

    def _forward(self, pixels: torch.Tensor, parts: Collection[str]) -> dict[str, torch.Tensor]:
        """One batch through the image tower: the embedding, and the outputs of the blocks named in ``parts``."""
        outputs: dict[str, torch.Tensor] = {}
        transformer = self._visual.transformer
        batch_first = getattr(transformer, "batch_first", False)  # open_clip had sequences first once

        def keep(part: str) -> Callable[[object, object, torch.Tensor], None]:
            def hook(module: object, inputs: object, output: torch.Tensor) -> None:
                outputs[part] = output if batch_first else output.transpose(0, 1)

            return hook

        # The lock: hooks and the exchanged positional embedding are the module's state while it runs.
        with self._lock, torch.no_grad():
            hooks = [
                transformer.resblocks[int(part.removeprefix("block"))].register_forward_hook(keep(part))
                for part in parts
                if part != "embedding"
            ]
            try:
                positions = {"positional_embedding": self._positional_embedding(pixels.shape[-1])}
                inputs = (pixels.to(self.device),)
                embedding = torch.func.functional_call(self._visual, positions, inputs)
            finally:
                for hook in hooks:
                    hook.remove()
        outputs["embedding"] = embedding[0] if isinstance(embedding, tuple) else embedding
        return outputs

    def _positional_embedding(self, size: int) -> torch.Tensor:
        """``(1 + g*g, W)`` for inputs of side ``size``: CLS as it is, the grid interpolated bicubically.

        Plain bicubic, as CLIPSeg interpolates (open_clip's own resizing at loading time adds antialiasing).
        """
        own: torch.Tensor = self._visual.positional_embedding
        if size == self.image_size:
            return own
        if size not in self._positions:
            side, new = self.image_size // self.patch_size, size // self.patch_size
            grid = own[1:].T.reshape(1, self.width, side, side)
            grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
            self._positions[size] = torch.cat([own[:1], grid[0].flatten(1).T])
        return self._positions[size]

    def _side(self, image_size: int | None) -> int:
        size = self.image_size if image_size is None else image_size
        if size != self.image_size and (size < self.patch_size or size % self.patch_size):
            raise BenchError(
                f"image size {size} is no multiple of the patch size {self.patch_size} of {self.name} "
                f"(its own is {self.image_size})"
            )
        return size

    def _block(self, layer: int) -> int:
        if not -self.n_blocks <= layer < self.n_blocks:
            raise BenchError(f"{self.name} has no block {layer}: it has {self.n_blocks}, counted from 0")
        return layer % self.n_blocks

    def _describe(self, size: int) -> str:
        mean = " ".join(f"{value:.8g}" for value in self._mean.flatten().tolist())
        std = " ".join(f"{value:.8g}" for value in self._std.flatten().tolist())
        kind = torch.device(self.device).type  # CPU and GPU round differently, so they do not share features
        return f"RGB, Pillow bicubic to {size}x{size}, mean {mean}, std {std}, float32 on {kind}"

    # ------------------------------------------------------------ text

    @timed("encode")
    def encode_text(self, sentences: Sequence[str]) -> torch.Tensor:
        """``(N, E)`` raw text embeddings, float32, on the CPU; each sentence is encoded once."""
        with self._lock, torch.no_grad(), full_precision():
            new = [sentence for sentence in dict.fromkeys(sentences) if sentence not in self._texts]
            if new:
                model: Any = self.model
                numbers = self._tokenizer(new)
                # Fixed batches, since texts are kept for trials that ask for others beside them.
                rows = in_fixed_batches(
                    lambda batch: {"text": model.encode_text(batch.to(self.device))}, numbers, _TEXT_BATCH
                )["text"]
                self._texts.update(zip(new, rows.to("cpu", torch.float32), strict=True))
            found = [self._texts[sentence] for sentence in sentences]
        return torch.stack(found) if found else torch.empty((0, self.embed_dim))


def _square(size: int | Sequence[int], name: str) -> int:
    if isinstance(size, int):
        return size
    height, width = size
    if height != width:
        raise BenchError(f"{name} takes images of {height}x{width}; only square ones are supported")
    return height
