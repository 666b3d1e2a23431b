"""The trainable part of PromptAD: two branch decoders and their scores (Eqs. 1 to 4).

Both branches have the same layers, so each layer holds the weights of both in tensors with a leading axis of
*views* (abnormality first) and computes them in one batched product. The single-branch rows of the
paper's Table 4 have one view.

The forward pass is a function of parameters, features, text and noise alone: dropout masks are drawn beforehand
(:meth:`Decoder.draw_noise`), from generators that the caller owns. So a run repeats bit for bit whatever
else draws random numbers. Several trials train as one (:meth:`Decoder.join`): theirs are further views of the
same layers, stacked trial after trial, and nothing passes from one to another.

Shapes: V views (of all J trials together), B images of each trial, T = 1 + N tokens (CLS first), W encoder width,
D decoder width, E text width.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.tools.devices import sent

if TYPE_CHECKING:
    from bench.methods.promptad import PromptADConfig

BLOCKS = 3  # "the two branches consist of three transformer blocks" (section 4.1)
HIDDEN_PIECE = 2**21  # values of the feed-forward layers' hidden units that are computed at a time on a CPU


class BlockNoise(NamedTuple):
    """What dropout does in one block: factors (0, or above 1 to make up for it); in ``hidden``, 0 = dropped."""

    attention: Tensor  # (V * B, heads, T, T)
    mixed: Tensor  # (V, B, T, D), behind the attention
    hidden: Tensor  # (V, B * T, ffn) uint8, whose product with floats is quick
    output: Tensor  # (V, B, T, D), behind the feed-forward part


# ---------------------------------------------------------------- layers


class Affine(nn.Module):
    """A linear layer per view: ``(V, R, n_in)`` to ``(V, R, n_out)``.

    Initialised as ``nn.Linear`` is, or with ``xavier`` as the input projection of ``nn.MultiheadAttention``.
    """

    def __init__(
        self, views: int, n_in: int, n_out: int, generator: torch.Generator, *, xavier: bool = False
    ) -> None:
        super().__init__()
        bound = math.sqrt(6 / (n_in + n_out)) if xavier else 1 / math.sqrt(n_in)
        self.weight = _uniform((views, n_in, n_out), bound, generator)
        self.bias = _uniform((views, n_out), 0.0 if xavier else bound, generator)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight * scale if scale != 1 else self.weight)

    def shared(self, x: Tensor, trials: int = 1) -> Tensor:
        """The same rows ``(J * R, n_in)`` for every view of a trial, in one product: ``(V, R, n_out)``."""
        weight = self.weight.unflatten(0, (trials, -1))  # (J, views of one trial, n_in, n_out)
        joined = weight.transpose(1, 2).flatten(2)
        y = torch.baddbmm(self.bias.view(trials, 1, -1), x.unflatten(0, (trials, -1)), joined)
        views: Tensor = y.unflatten(2, weight.shape[1::2]).transpose(1, 2)
        return views.flatten(0, 1)


class Norm(nn.Module):
    """A layer norm per view over the last axis of ``(V, B, T, D)``."""

    def __init__(self, views: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(views, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(views, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, F.layer_norm(x, x.shape[-1:]), self.weight)


class Film(nn.Module):
    """Text modulates visual tokens, feature by feature (section 3.3.1, as in CLIPSeg)."""

    def __init__(self, views: int, n_text: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gamma = Affine(views, n_text, width, generator)
        self.beta = Affine(views, n_text, width, generator)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return torch.addcmul(self.beta(text).unsqueeze(2), self.gamma(text).unsqueeze(2), x)


class Block(nn.Module):
    """``nn.TransformerEncoderLayer`` with ReLU, for all views at once."""

    def __init__(self, views: int, config: PromptADConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.D
        self.views = views  # of one trial
        self.heads, self.norm_first = config.nhead, config.norm_first
        self.scale = _kept_scale(config.dropout)
        self.qkv = Affine(views, width, 3 * width, generator, xavier=True)
        self.mix = Affine(views, width, width, generator)
        nn.init.zeros_(self.mix.bias)  # as nn.MultiheadAttention does
        self.up = Affine(views, width, config.ffn, generator)
        self.down = Affine(views, config.ffn, width, generator)
        self.norm1, self.norm2 = Norm(views, width), Norm(views, width)

    def forward(self, x: Tensor, noise: BlockNoise | None) -> Tensor:
        if self.norm_first:
            x = x + self._attend(self.norm1(x), noise)
            return x + self._feed(self.norm2(x), noise)
        x = self.norm1(x + self._attend(x, noise))
        y: Tensor = self.norm2(x + self._feed(x, noise))
        return y

    def _attend(self, x: Tensor, noise: BlockNoise | None) -> Tensor:
        views, batch, tokens, width = x.shape
        qkv = self.qkv(x.flatten(1, 2)).view(views * batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
        if noise is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:  # the fused kernel takes no masks of ours
            q = (q * q.shape[-1] ** -0.5).contiguous()
            weights = (q @ k.contiguous().transpose(-1, -2)).softmax(-1)
            y = (weights * noise.attention) @ v.contiguous()
        mixed: Tensor = self.mix(y.transpose(1, 2).reshape(views, batch * tokens, width)).view_as(x)
        return mixed if noise is None else mixed * noise.mixed

    def _feed(self, x: Tensor, noise: BlockNoise | None) -> Tensor:
        rows = x.flatten(1, 2)
        # On a CPU the hidden layer of many rows costs twice as much in one piece as in pieces that fit its cache.
        # Sums are taken piece by piece, so that trials trained together are cut up as each of them would be.
        size = self.views * rows.shape[1] * self.up.bias.shape[1]
        pieces = -(-size // HIDDEN_PIECE) if rows.device.type == "cpu" else 1
        kept = [None] * pieces if noise is None else noise.hidden.chunk(pieces, 1)
        parts = [self._perceive(part, keep) for part, keep in zip(rows.chunk(pieces, 1), kept, strict=False)]
        y = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).view_as(x)
        return y if noise is None else y * noise.output

    def _perceive(self, rows: Tensor, kept: Tensor | None) -> Tensor:
        hidden = self.up(rows)
        if kept is not None:
            # A unit set to zero before the ReLU stays zero behind it, and the ReLU gives it no gradient. So
            # autograd need not know of the dropout (nothing else needs the overwritten values), which
            # saves a pass over the largest tensor of the network; the weights behind make up for the zeros.
            with torch.no_grad():
                hidden.mul_(kept)
        y: Tensor = self.down(hidden.relu_(), scale=1.0 if kept is None else self.scale)
        return y


# ---------------------------------------------------------------- the two branches


class Decoder(nn.Module):
    """Both branches: from frozen features and text to anomaly maps.

    Args:
        config: the method's options.
        inputs: how many layers of the frozen encoder it reads: one per block, or one in all.
        width: W of the frozen tokens.
        n_text: E of the text embeddings.
        generator: draws the initial weights, on the CPU, so that they are the same for every device.
    """

    signs: Tensor

    def __init__(
        self, config: PromptADConfig, inputs: int, width: int, n_text: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.config = config
        self.trials = 1
        self.views = views = config.abn + config.nor  # of one trial

        def layers(kind: type[Affine | Film], count: int, n_in: int, n_out: int) -> nn.ModuleList:
            return nn.ModuleList(kind(views, n_in, n_out, generator) for _ in range(count))

        self.reduce = layers(Affine, inputs, width, config.D)
        self.film = layers(Film, {"first": 1, "every": BLOCKS, "off": 0}[config.film_at], n_text, config.D)
        self.blocks = nn.ModuleList(Block(views, config, generator) for _ in range(BLOCKS))
        self.head = layers(Affine, 1 if config.share_heads else BLOCKS, config.D, 1)
        self.proto = layers(Affine, config.ccl * (1 if config.share_protos else BLOCKS), n_text, config.D)
        signs = torch.tensor([1.0] * config.abn + [-1.0] * config.nor)
        self.register_buffer("signs", signs.view(-1, 1, 1), persistent=False)

    @classmethod
    def join(cls, decoders: Sequence[Decoder]) -> Decoder:
        """The decoders of several trials as one, which they share their weights with from now on."""
        joined = copy.deepcopy(decoders[0])
        joined.trials = len(decoders)
        joined.signs = torch.cat([decoder.signs for decoder in decoders])
        for whole, *parts in zip(*(d.parameters() for d in (joined, *decoders)), strict=True):
            whole.data = torch.cat([part.data for part in parts])
            for part, rows in zip(parts, whole.data.chunk(len(parts)), strict=True):
                part.data = rows
        return joined

    def draw_noise(
        self, batch: int, tokens: int, generators: Sequence[torch.Generator]
    ) -> list[BlockNoise] | None:
        """The dropout masks of one training step, each trial's from its own generator.

        None if nothing is dropped.
        """
        views, config = self.views, self.config
        if not _octets(config.dropout):
            return None

        def kept(*shape: int) -> Tensor:
            return sent(_kept(shape, config.dropout, generators), self.signs.device)

        def factors(*shape: int) -> Tensor:
            return kept(*shape).float().mul_(_kept_scale(config.dropout))

        return [
            BlockNoise(
                attention=factors(views * batch, config.nhead, tokens, tokens),
                mixed=factors(views, batch, tokens, config.D),
                hidden=kept(views, batch * tokens, config.ffn),
                output=factors(views, batch, tokens, config.D),
            )
            for _ in range(BLOCKS)
        ]

    def forward(
        self, tokens: Sequence[Tensor], text: Tensor, other: Tensor, noise: list[BlockNoise] | None = None
    ) -> Tensor:
        """The anomaly maps of every block and branch, ``(3, V, B, N)``, as the loss takes them.

        The method's answer is the last block's, summed over the branches.

        Args:
            tokens: ``(J * B, T, W)`` of the frozen encoder, deepest layer first.
            text: ``(V, B, E)`` the branch's own prompt, for FiLM.
            other: ``(V, B, M, E)`` the other view's prompt, or M images in its place, for the prototypes.
            noise: dropout masks; without them nothing is dropped.
        """
        return torch.stack([s for _, s in self.passes(tokens, text, other, noise)])

    def passes(
        self, tokens: Sequence[Tensor], text: Tensor, other: Tensor, noise: list[BlockNoise] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Of every block the tokens ``(V, B, T, D)`` that it gives and the maps ``(V, B, N)``; see ``forward``."""
        q: Tensor | None = None
        for block in range(BLOCKS):
            z = self._input(block, tokens, q)
            if block < len(self.film):
                z = self.film[block](z, text)
            q = self.blocks[block](z, noise[block] if noise else None)
            phi = self._prototypes(block, other)
            s = self._scores(block, q, phi)
            if self._interacts(block):
                q = self._refine(block, q, phi, s)
                if block == BLOCKS - 1:  # no block follows that could use the refined tokens but the scores
                    s = self._scores(block, q, phi)
            yield q, s

    def _input(self, block: int, tokens: Sequence[Tensor], q: Tensor | None) -> Tensor:
        """The encoder's tokens, reduced, plus what the block before made of deeper ones (as in CLIPSeg)."""
        if q is not None and block >= len(self.reduce):  # a single layer of the encoder: plainly stacked blocks
            return q
        frozen, reduce = tokens[block], self.reduce[block]
        assert isinstance(reduce, Affine)
        rows = reduce.shared(frozen.flatten(0, 1), self.trials)
        z = rows.view(len(rows), -1, frozen.shape[1], self.config.D)
        return z if q is None else z + q

    def _prototypes(self, block: int, other: Tensor) -> Tensor | None:
        """``(V, B, M, D)``: phi_nor for the abnormality branch, phi_abn for the normality branch."""
        if not self.config.ccl:
            return None
        phi: Tensor = self.proto[min(block, len(self.proto) - 1)](other.flatten(1, 2))
        return phi.view(*other.shape[:3], self.config.D)

    def _scores(self, block: int, q: Tensor, phi: Tensor | None) -> Tensor:
        """Eqs. 1 and 2 at every patch, ``(V, B, N)``: s_a = intra - cross and s_n = cross - intra."""
        head = self.head[min(block, len(self.head) - 1)]
        s: Tensor = head(q.flatten(1, 2)).view(q.shape[:3])
        if phi is not None:
            s = s - similarity(q, phi, self.config.cross_sim, self.config.tau)
        return self.signs * s[:, :, 1:]

    def _interacts(self, block: int) -> bool:
        where, last = self.config.cmi_where, block == BLOCKS - 1
        return self.config.cmi and (where == "layerwise" or last == (where == "final_only"))

    def _refine(self, block: int, q: Tensor, phi: Tensor | None, s: Tensor) -> Tensor:
        """Each branch's patch tokens times the mask made from the other branch's scores (section 3.5)."""
        q_abn, q_nor = self._branches(q)
        q_abn = self._highlight(q_abn, self._branches(s)[1])
        if self.config.cmi_order == "sequential":
            s = self._scores(block, torch.stack([q_abn, q_nor], 1).flatten(0, 1), phi)
        return torch.stack([q_abn, self._highlight(q_nor, self._branches(s)[0])], 1).flatten(0, 1)

    def _branches(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(V, ...)`` to ``(J, ...)`` of the abnormality branches and of the normality branches."""
        branches: tuple[Tensor, ...] = x.unflatten(0, (self.trials, 2)).unbind(1)
        return branches

    def _highlight(self, q: Tensor, s: Tensor) -> Tensor:
        mask = soft_mask(s.detach() if self.config.cmi_detach else s, self.config.sigma, self.config.cmi_mask)
        return q * F.pad(mask, (1, 0), value=1.0).unsqueeze(-1)  # CLS has no place in the map


def similarity(q: Tensor, phi: Tensor, kind: str, tau: float) -> Tensor:
    """Closeness of tokens ``(V, B, T, D)`` to the nearest of M prototypes ``(V, B, M, D)``: ``(V, B, T)``."""
    if kind == "cosine":
        q, phi = F.normalize(q, dim=-1) * tau, F.normalize(phi, dim=-1)
    elif kind == "scaled":
        phi = phi * phi.shape[-1] ** -0.5
    products = q @ phi.transpose(-1, -2)
    return products.squeeze(-1) if products.shape[-1] == 1 else products.amax(-1)


def soft_mask(s: Tensor, sigma: float, kind: str) -> Tensor:
    """Eqs. 3 and 4: sigmoid(ReLU(s - sigma)), which lies in [0.5, 1); and the alternatives of ``cmi_mask``."""
    mask = torch.sigmoid(F.relu(s - sigma))
    if kind == "rescaled":
        return 2 * mask - 1
    return 1 + mask if kind == "residual" else mask


# ---------------------------------------------------------------- random numbers


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))


def _octets(rate: float) -> int:
    """A dropout rate in units of 1/256, the resolution of :func:`_kept`."""
    return round(256 * rate)


def _kept_scale(rate: float) -> float:
    return 1 / (1 - _octets(rate) / 256)


def _kept(shape: tuple[int, ...], rate: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Bytes, 0 with probability ``rate`` and else 1, eight from one 64-bit draw, of J trials one after the other.

    With a draw for each, dropout would take as long as the rest of the network.

    Args:
        shape: of one trial's; the result's first axis is J times as long. It lies where the generators draw.
    """
    count = math.prod(shape)
    words = torch.empty((len(generators), -(-count // 8)), dtype=torch.int64, device=generators[0].device)
    for row, generator in zip(words, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    octets = words.view(torch.uint8)[:, :count]
    return octets.ge_(_octets(rate)).reshape(-1, *shape[1:])
