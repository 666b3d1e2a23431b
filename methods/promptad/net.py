"""The trainable part of PromptAD: two branch decoders and their scores (Eqs. 1 to 4).

One :class:`BranchDecoder` is the network of one trial, in plain ``nn`` modules: a :class:`Branch` per view, the
abnormality branch first, and the masks that each makes for the other. The single-branch rows of the paper's
Table 4 have one view. Several trials train as one by ``torch.vmap`` over their stacked weights; see
:mod:`bench.methods.promptad.fit`.

The forward pass is a function of weights, features, text and dropout masks alone. The masks are drawn beforehand
(:func:`draw_dropout`), from generators that the caller owns: a run then repeats bit for bit whatever else draws
random numbers, and a trial draws the same masks alone and beside others.

Shapes: V views, B images, T = 1 + N tokens (CLS first), W encoder width, D decoder width, E text width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.tools.devices import sent

if TYPE_CHECKING:
    from bench.methods.promptad.config import PromptADConfig

BLOCKS = 3  # "the two branches consist of three transformer blocks" (section 4.1)
HIDDEN_PIECE = 2**20  # values of a feed-forward layer's hidden units that are computed at a time on a CPU


# ---------------------------------------------------------------- dropout


class DropoutFactors(NamedTuple):
    """Factors of dropout in one block: 0, or 1 / (1 - rate) to make up for what is dropped.

    The shapes are those of one branch; :func:`draw_dropout` puts trials and views in front.
    """

    attention: Tensor  # (B, heads, T, T)
    mixed: Tensor  # (B, T, D), behind the attention
    hidden: Tensor  # (B, T, ffn) bytes, the largest of all: 0 = dropped, 1 = kept
    output: Tensor  # (B, T, D), behind the feed-forward part


def draw_dropout(
    config: PromptADConfig,
    batch: int,
    tokens: int,
    generators: Sequence[torch.Generator],
    device: torch.device,
) -> list[DropoutFactors] | None:
    """The dropout factors of one training step, for each block.

    Args:
        config: the method's options.
        batch: B, images of each trial.
        tokens: T.
        generators: one of each of the J trials.
        device: where the result is to lie.

    Returns:
        For each block factors with two axes in front of their own, ``(J, V, ...)``; None if nothing is dropped.
    """
    if not _octets(config.dropout):
        return None

    def kept(*shape: int) -> Tensor:
        drawn = _draw_kept((config.abn + config.nor, batch, *shape), config.dropout, generators)
        return sent(drawn, device)

    def factors(*shape: int) -> Tensor:
        return kept(*shape).float().mul_(_scale(config.dropout))

    blocks = []
    for _ in range(BLOCKS):
        attention = factors(config.nhead, tokens, tokens)
        mixed, hidden, output = factors(tokens, config.D), kept(tokens, config.ffn), factors(tokens, config.D)
        blocks.append(DropoutFactors(attention, mixed, hidden, output))
    return blocks


def _octets(rate: float) -> int:
    """A dropout rate in units of 1/256, the resolution of :func:`_draw_kept`."""
    return round(256 * rate)


def _scale(rate: float) -> float:
    """The factor of what is kept."""
    return 256 / (256 - _octets(rate))


def _draw_kept(shape: tuple[int, ...], rate: float, generators: Sequence[torch.Generator]) -> Tensor:
    """Bytes ``(J, *shape)``, 0 with probability ``rate`` and else 1, where the generators draw.

    Eight come from one 64-bit number: with a draw for each, dropout would take as long as the rest of the network.
    """
    count = math.prod(shape)
    words = torch.empty((len(generators), -(-count // 8)), dtype=torch.int64, device=generators[0].device)
    for row, generator in zip(words, generators, strict=True):
        row.random_(-(2**63), None, generator=generator)
    octets = words.view(torch.uint8)[:, :count]
    return octets.ge_(_octets(rate)).reshape(-1, *shape)


# ---------------------------------------------------------------- one branch


class Film(nn.Module):
    """Text modulates visual tokens, feature by feature (section 3.3.1, as in CLIPSeg)."""

    def __init__(self, n_text: int, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Linear(n_text, width), nn.Linear(n_text, width)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """Tokens ``(B, T, D)`` and texts ``(B, E)`` to tokens."""
        return torch.addcmul(self.beta(text).unsqueeze(1), self.gamma(text).unsqueeze(1), x)


class MaskedEncoderLayer(nn.TransformerEncoderLayer):
    """Torch's transformer block, ReLU inside, with dropout factors that are given instead of drawn."""

    def __init__(self, config: PromptADConfig) -> None:
        super().__init__(
            config.D, config.nhead, config.ffn, dropout=0.0, norm_first=config.norm_first, batch_first=True
        )
        self.scale = _scale(config.dropout)

    def forward(self, x: Tensor, factors: DropoutFactors | None = None) -> Tensor:  # type: ignore[override]
        """Tokens ``(B, T, D)`` to tokens."""
        if self.norm_first:
            x = x + self._attend(self.norm1(x), factors)
            return x + self._feed(self.norm2(x), factors)
        x = self.norm1(x + self._attend(x, factors))
        y: Tensor = self.norm2(x + self._feed(x, factors))
        return y

    def _attend(self, x: Tensor, factors: DropoutFactors | None) -> Tensor:
        layer = self.self_attn
        qkv = F.linear(x, layer.in_proj_weight, layer.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()  # (B, heads, T, D')
        # Written out: torch's fused attention takes no factors of ours, and has no form for vmap.
        q = (q * q.shape[-1] ** -0.5).contiguous()
        weights = (q @ k.contiguous().transpose(-1, -2)).softmax(-1)
        if factors is not None:
            weights = weights * factors.attention
        y: Tensor = layer.out_proj((weights @ v.contiguous()).transpose(1, 2).flatten(2))
        return y if factors is None else y * factors.mixed

    def _feed(self, x: Tensor, factors: DropoutFactors | None) -> Tensor:
        # On a CPU the hidden layer of many rows costs more in one piece than in pieces that fit its cache.
        size = x.shape[0] * x.shape[1] * self.linear1.out_features
        pieces = min(len(x), -(-size // HIDDEN_PIECE)) if x.device.type == "cpu" else 1
        parts = []
        if factors is None:
            for part in x.chunk(pieces):
                parts.append(self.linear2(F.relu_(self.linear1(part))))
        else:
            # What is dropped before the ReLU is 0 behind it, too. So autograd keeps one copy of the hidden units,
            # the network's largest tensor, and the second layer's weights make up for what is dropped.
            weight = self.linear2.weight * self.scale
            for part, kept in zip(x.chunk(pieces), factors.hidden.chunk(pieces), strict=True):
                hidden = F.relu_(self.linear1(part) * kept)
                parts.append(F.linear(hidden, weight, self.linear2.bias))
        y = parts[0] if len(parts) == 1 else torch.cat(parts)
        return y if factors is None else y * factors.output


class Branch(nn.Module):
    """One view: transformer blocks on the encoder's tokens, modulated by the branch's prompt, and their scores.

    Args:
        config: the method's options.
        inputs: how many layers of the frozen encoder it reads: one per block, or one in all.
        width: W of the frozen tokens.
        n_text: E of the text embeddings.
        sign: 1 for the abnormality branch, -1 for the normality branch, which scores normality.
    """

    def __init__(self, config: PromptADConfig, inputs: int, width: int, n_text: int, sign: int) -> None:
        super().__init__()
        self.config, self.sign = config, sign
        films = {"first": 1, "every": BLOCKS, "off": 0}[config.film_at]
        heads = 1 if config.share_heads else BLOCKS
        protos = 1 if config.share_protos else BLOCKS
        if not config.ccl:
            protos = 0
        self.reduce = nn.ModuleList(nn.Linear(width, config.D) for _ in range(inputs))
        self.film = nn.ModuleList(Film(n_text, config.D) for _ in range(films))
        self.blocks = nn.ModuleList(MaskedEncoderLayer(config) for _ in range(BLOCKS))
        self.head = nn.ModuleList(nn.Linear(config.D, 1) for _ in range(heads))
        self.proto = nn.ModuleList(nn.Linear(n_text, config.D) for _ in range(protos))

    def tokens(
        self,
        block: int,
        frozen: Tensor | None,
        deeper: Tensor | None,
        text: Tensor,
        factors: DropoutFactors | None,
    ) -> Tensor:
        """The tokens ``(B, T, D)`` that a block gives.

        Args:
            block: its number.
            frozen: ``(B, T, W)`` of the encoder; None behind the first block if only one layer is read.
            deeper: ``(B, T, D)`` from the block before, to which the reduced ones are added, as in CLIPSeg.
            text: ``(B, E)`` the branch's own prompt.
            factors: of dropout in this block.
        """
        z = deeper
        if frozen is not None:
            reduced: Tensor = self.reduce[block](frozen)
            z = reduced if z is None else z + reduced
        if block < len(self.film):
            z = self.film[block](z, text)
        q: Tensor = self.blocks[block](z, factors)
        return q

    def prototypes(self, block: int, other: Tensor) -> Tensor | None:
        """Prototypes ``(B, M, D)`` made of the other view's prompts ``(B, M, E)``; None without ``ccl``.

        They are phi_nor for the abnormality branch, phi_abn for the normality branch.
        """
        if not self.config.ccl:
            return None
        phi: Tensor = self.proto[min(block, len(self.proto) - 1)](other)
        return phi

    def scores(self, block: int, q: Tensor, phi: Tensor | None) -> Tensor:
        """Eqs. 1 and 2 at every patch, ``(B, N)``: s_a = intra - cross and s_n = cross - intra."""
        s: Tensor = self.head[min(block, len(self.head) - 1)](q).squeeze(-1)
        if phi is not None:
            s = s - similarity(q, phi, self.config.cross_sim, self.config.tau)
        return self.sign * s[:, 1:]


def similarity(q: Tensor, phi: Tensor, kind: str, tau: float) -> Tensor:
    """Closeness of tokens ``(B, T, D)`` to the nearest of M prototypes ``(B or 1, M, D)``: ``(B, T)``."""
    if kind == "cosine":
        q, phi = F.normalize(q, dim=-1) * tau, F.normalize(phi, dim=-1)
    elif kind == "scaled":
        phi = phi * phi.shape[-1] ** -0.5
    products = q @ phi.transpose(-1, -2)
    return products.squeeze(-1) if products.shape[-1] == 1 else products.amax(-1)


# ---------------------------------------------------------------- the two branches


class BranchDecoder(nn.Module):
    """Both branches: from frozen features and text to anomaly maps.

    Args:
        config: the method's options.
        inputs: how many layers of the frozen encoder it reads: one per block, or one in all.
        width: W of the frozen tokens.
        n_text: E of the text embeddings.
        seed: of the initial weights, torch's own for each layer, which are drawn on the CPU, so that they are the
            same for every device. The global generator is left as it was.
    """

    def __init__(self, config: PromptADConfig, inputs: int, width: int, n_text: int, seed: int) -> None:
        super().__init__()
        self.config = config
        signs = [1] * config.abn + [-1] * config.nor
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.branches = nn.ModuleList(Branch(config, inputs, width, n_text, sign) for sign in signs)
        self.inputs = inputs

    def forward(
        self,
        frozen: Sequence[Tensor],
        text: Sequence[Tensor],
        other: Sequence[Tensor],
        dropout: Sequence[DropoutFactors] | None = None,
    ) -> Tensor:
        """The anomaly maps of every block and branch, ``(3, V, B, N)``, as the loss takes them.

        The method's answer is the last block's, summed over the branches.

        Args:
            frozen: ``(B, T, W)`` of the frozen encoder for each layer, deepest first.
            text: for each view ``(B, E)``, the branch's own prompt, for FiLM.
            other: for each view ``(B or 1, M, E)``, the other view's prompt, or M images in its place, for the
                prototypes.
            dropout: for each block factors ``(V, ...)``; without them nothing is dropped.
        """
        return torch.stack([maps for _, maps in self.passes(frozen, text, other, dropout)])

    def passes(
        self,
        frozen: Sequence[Tensor],
        text: Sequence[Tensor],
        other: Sequence[Tensor],
        dropout: Sequence[DropoutFactors] | None = None,
    ) -> Iterator[tuple[list[Tensor], Tensor]]:
        """Of every block the tokens that each branch gives, ``(B, T, D)``, and the maps ``(V, B, N)``."""
        branches: list[Branch] = list(self.branches)  # type: ignore[arg-type]
        q: list[Tensor | None] = [None] * len(branches)
        for block in range(BLOCKS):
            # With a single layer of the encoder the blocks are plainly stacked.
            layer = frozen[block] if block < self.inputs else None
            given, phi = [], []
            for view, branch in enumerate(branches):
                factors = None
                if dropout is not None:
                    factors = DropoutFactors(*(each[view] for each in dropout[block]))
                given.append(branch.tokens(block, layer, q[view], text[view], factors))
                phi.append(branch.prototypes(block, other[view]))

            scores = self._scores(block, given, phi)
            if self._interacts(block):
                given = self._mask_each_other(block, given, phi, scores)
                if block == BLOCKS - 1:  # no block follows that could use the masked tokens but the scores
                    scores = self._scores(block, given, phi)
            q = list(given)
            yield given, torch.stack(scores)

    def _scores(self, block: int, q: Sequence[Tensor], phi: Sequence[Tensor | None]) -> list[Tensor]:
        """The maps ``(B, N)`` of each branch."""
        maps = []
        for branch, tokens, prototypes in zip(self.branches, q, phi, strict=True):
            assert isinstance(branch, Branch)
            maps.append(branch.scores(block, tokens, prototypes))
        return maps

    def _interacts(self, block: int) -> bool:
        """Say if the branches mask each other's tokens at this block; see ``cmi_where``."""
        last = block == BLOCKS - 1
        where = {"layerwise": True, "final_only": last, "input_next_only": not last}
        return self.config.cmi and where[self.config.cmi_where]

    def _mask_each_other(
        self, block: int, q: Sequence[Tensor], phi: Sequence[Tensor | None], scores: Sequence[Tensor]
    ) -> list[Tensor]:
        """Each branch's patch tokens times the mask made from the other branch's scores (section 3.5)."""
        s_abn, s_nor = scores
        q_abn = self._masked(q[0], s_nor)
        if self.config.cmi_order == "sequential":
            s_abn = self.branches[0].scores(block, q_abn, phi[0])  # type: ignore[operator]
        return [q_abn, self._masked(q[1], s_abn)]

    def _masked(self, q: Tensor, s: Tensor) -> Tensor:
        if self.config.cmi_detach:
            s = s.detach()
        mask = soft_mask(s, self.config.sigma, self.config.cmi_mask)
        return q * F.pad(mask, (1, 0), value=1.0).unsqueeze(-1)  # CLS has no place in the map


def soft_mask(s: Tensor, sigma: float, kind: str) -> Tensor:
    """Eqs. 3 and 4: sigmoid(ReLU(s - sigma)), which lies in [0.5, 1); and the alternatives of ``cmi_mask``."""
    mask = torch.sigmoid(F.relu(s - sigma))
    if kind == "rescaled":
        return 2 * mask - 1
    if kind == "residual":
        return 1 + mask
    return mask
