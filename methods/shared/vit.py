"""A CLIP's image tower from inside: what methods need that neither its tokens nor its embedding give.

For open_clip's plain vision transformers, the ones that :class:`bench.encoders.towers.FrozenClip` admits. Nothing
here changes the model or hooks into it, so that it may serve others at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.contracts import TextImageEncoder

_PIECE = 512  # tokens that go through a CPU's blocks together; what lies between them then stays in its cache


def tower(encoder: TextImageEncoder) -> Any:
    """The encoder's image tower.

    Raises:
        BenchError: its attention is not the plain one whose parameters this module reads.
    """
    visual: Any = encoder.model.visual
    attention = visual.transformer.resblocks[0].attn
    if not isinstance(attention, torch.nn.MultiheadAttention) or attention.in_proj_weight is None:
        raise BenchError(
            f"{encoder.name} has attention of its own kind, which cannot be taken apart here; choose a plain "
            "CLIP, e.g. openai/ViT-B-16"
        )
    return visual


def embed(visual: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Patch embeddings with their positions, before the first layer norm.

    Args:
        pixels: ``(B, 3, S, S)`` normalised images; the positional embedding is interpolated to other sides than
            the tower's own, as :class:`~bench.encoders.towers.FrozenClip` does it.

    Returns:
        ``(B, 1 + h*w, W)``, CLS token first.
    """
    patches = visual.conv1(pixels)
    side = patches.shape[-1]
    patches = patches.flatten(2).transpose(1, 2)
    cls = visual.class_embedding.expand(len(patches), 1, -1)
    return torch.cat([cls, patches], dim=1) + _positions(visual, side)


def _positions(visual: Any, side: int) -> torch.Tensor:
    own: torch.Tensor = visual.positional_embedding
    old = round((len(own) - 1) ** 0.5)
    if side == old:
        return own
    grid = own[1:].T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([own[:1], grid[0].flatten(1).T])


def pooled(visual: Any, tokens: torch.Tensor) -> torch.Tensor:
    """``(B, T, W)`` last-block tokens -> the CLS token's place in the joint space, ``(B, E)``."""
    embedding: torch.Tensor = visual.ln_post(tokens[:, 0]) @ visual.proj
    return embedding


def project_in(block: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries, keys and values of a residual block's attention, ``(B, T, W)`` each, heads side by side."""
    attention = block.attn
    projected = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = projected.chunk(3, dim=-1)
    return query, key, value


def feed_forward(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The second half of a residual block, with its residual: ``(B, T, W)`` -> ``(B, T, W)``."""
    output: torch.Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return output


def explicit_block(block: Any, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A residual block with its attention written out, so that gradients reach the attention's probabilities.

    Args:
        tokens: ``(B, T, W)``.

    Returns:
        The block's output ``(B, T, W)``, and the probabilities ``(B, heads, T, T)`` that it was computed from:
        part of its graph, or the graph's beginning where ``tokens`` need no gradient.
    """
    attention = block.attn
    heads = attention.num_heads
    query, key, value = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in project_in(block, tokens))
    logits = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    probabilities = logits.softmax(dim=-1)
    if not probabilities.requires_grad:
        probabilities.requires_grad_()
    mixed = (probabilities @ value).transpose(1, 2).flatten(2)
    tokens = tokens + block.ls_1(attention.out_proj(mixed))
    return feed_forward(block, tokens), probabilities


# ---------------------------------------------------------------- many short sequences


def embed_sequences(visual: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Sequences through all blocks, and their CLS tokens' places in the joint space; without gradients.

    The transformer's own numbers but for rounding, in half its time on some CPUs, see :func:`_linear`.

    Args:
        tokens: ``(B, T, W)`` after the first layer norm, CLS token first; T is small.

    Returns:
        ``(B, E)``.
    """
    pieces = -(-tokens.shape[0] * tokens.shape[1] // _PIECE) if tokens.device.type == "cpu" else 1
    return torch.cat([pooled(visual, _through_blocks(visual, piece)) for piece in tokens.chunk(pieces)])


def _through_blocks(visual: Any, tokens: torch.Tensor) -> torch.Tensor:
    """``(B, T, W)`` -> ``(B, T, W)``."""
    rows = tokens.flatten(0, 1)
    for block in visual.transformer.resblocks:
        attention, mlp = block.attn, block.mlp
        projected = _linear(block.ln_1(rows), attention.in_proj_weight, attention.in_proj_bias)
        heads = projected.view(*tokens.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).reshape(rows.shape)
        rows = rows + block.ls_1(_linear(mixed, attention.out_proj.weight, attention.out_proj.bias))
        hidden = mlp.gelu(_linear(block.ln_2(rows), mlp.c_fc.weight, mlp.c_fc.bias))
        rows = rows + block.ls_2(_linear(hidden, mlp.c_proj.weight, mlp.c_proj.bias))
    return rows.view(tokens.shape)


def _linear(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """``F.linear``; on a CPU by oneDNN.

    torch gives products in float32 to MKL, which on AMD's CPUs does without AVX-512.
    """
    if rows.device.type == "cpu" and torch.backends.mkldnn.is_available():
        return F.linear(rows.to_mkldnn(), weight, bias).to_dense()
    return F.linear(rows, weight, bias)
