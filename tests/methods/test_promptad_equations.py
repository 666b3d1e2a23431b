"""PromptAD's equations, layers and loss against NumPy, on fixed tensors."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from parity import Parity
from torch import Tensor, nn

from bench.methods.promptad import PromptADConfig
from bench.methods.promptad import net as net
from bench.methods.promptad.loss import deviation_loss, draw_reference, objective, top_mean

W, E, B, N = 12, 10, 3, 9
CPU = torch.device("cpu")
SMALL = PromptADConfig(D=8, nhead=2, ffn=16, dropout=0.0)

Array = NDArray[np.float64]


def make(config: PromptADConfig, seed: int = 0) -> net.Decoder:
    inputs = 1 if len(config.clip_layers) == 1 else 3
    decoder = net.Decoder(config, inputs, W, E, torch.Generator().manual_seed(seed)).double()
    for norm in [m for m in decoder.modules() if isinstance(m, net.Norm)]:  # so that a swap of norms would show
        norm.weight.data.uniform_(0.5, 1.5)
        norm.bias.data.uniform_(-0.5, 0.5)
    return decoder


def make_inputs(views: int = 2, m: int = 1, seed: int = 1) -> tuple[list[Tensor], Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    draw = {"generator": g, "dtype": torch.float64}
    tokens = [torch.randn(B, 1 + N, W, **draw) for _ in range(3)]
    return tokens, torch.randn(views, B, E, **draw), torch.randn(views, B, m, E, **draw)


def run(config: PromptADConfig, **kwargs: Any) -> tuple[net.Decoder, Tensor, Array]:
    """The network's maps and those of :func:`reference`."""
    torch.manual_seed(7)  # for the norms
    decoder = make(config)
    inputs = make_inputs(config.abn + config.nor, **kwargs)
    maps = decoder(*inputs)
    return decoder, maps, reference(decoder, config, *inputs)


# ---------------------------------------------------------------- the paper in NumPy, branch by branch


def affine(layer: Any, view: int, x: Array) -> Array:
    return np.asarray(x @ layer.weight[view].detach().numpy() + layer.bias[view].detach().numpy())


def normed(norm: Any, view: int, x: Array) -> Array:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * norm.weight[view].detach().numpy() + norm.bias[view].detach().numpy())


def attention(block: Any, view: int, x: Array, heads: int) -> Array:
    q, k, v = np.split(affine(block.qkv, view, x), 3, axis=-1)
    out = []
    for part in np.split(np.arange(q.shape[-1]), heads):
        weights = np.exp(q[..., part] @ k[..., part].swapaxes(-1, -2) / np.sqrt(len(part)))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    return affine(block.mix, view, np.concatenate(out, -1))


def transformer(block: Any, view: int, x: Array, config: PromptADConfig) -> Array:
    def feed(y: Array) -> Array:
        return affine(block.down, view, np.maximum(affine(block.up, view, y), 0))

    if config.norm_first:
        x = x + attention(block, view, normed(block.norm1, view, x), config.nhead)
        return x + feed(normed(block.norm2, view, x))
    x = normed(block.norm1, view, x + attention(block, view, x, config.nhead))
    return normed(block.norm2, view, x + feed(x))


def soft(s: Array, config: PromptADConfig) -> Array:
    m = 1 / (1 + np.exp(-np.maximum(s - config.sigma, 0)))  # Eqs. 3 and 4
    return {"sigmoid_relu": m, "rescaled": 2 * m - 1, "residual": 1 + m}[config.cmi_mask]


def score(decoder: Any, config: PromptADConfig, l: int, view: int, q: Array, other: Array) -> Array:  # noqa: E741
    """Eq. 1 for the abnormality branch, Eq. 2 for the normality branch."""
    patches = q[:, 1:]
    intra = affine(decoder.head[0 if config.share_heads else l], view, patches)[..., 0]
    cross = np.zeros_like(intra)
    if config.ccl:
        phi = affine(decoder.proto[0 if config.share_protos else l], view, other)  # (B, M, D)
        products = np.einsum("bnd,bmd->bnm", patches, phi)
        if config.cross_sim == "scaled":
            products /= np.sqrt(config.D)
        if config.cross_sim == "cosine":
            lengths = np.linalg.norm(patches, axis=-1)[:, :, None] * np.linalg.norm(phi, axis=-1)[:, None]
            products *= config.tau / lengths
        cross = products.max(-1)
    abnormality_branch = config.abn and view == 0
    return intra - cross if abnormality_branch else cross - intra


def masked(q: Array, mask: Array) -> Array:
    return np.concatenate([q[:, :1], q[:, 1:] * mask[..., None]], 1)


def reference(decoder: Any, config: PromptADConfig, tokens: list[Tensor], text: Tensor, other: Tensor) -> Array:
    t, o = text.numpy(), other.numpy()
    views, maps, q = range(len(t)), [], [np.zeros(()) for _ in t]
    for l in range(3):  # noqa: E741
        for v in views:
            z = q[v]
            if l == 0 or len(decoder.reduce) == 3:
                z = z + affine(decoder.reduce[l], v, tokens[l].numpy())
            if config.film_at == "every" or (config.film_at == "first" and l == 0):
                film = decoder.film[l]
                z = affine(film.gamma, v, t[v])[:, None] * z + affine(film.beta, v, t[v])[:, None]
            q[v] = transformer(decoder.blocks[l], v, z, config)
        s = [score(decoder, config, l, v, q[v], o[v]) for v in views]
        applies = {"layerwise": True, "final_only": l == 2, "input_next_only": l < 2}[config.cmi_where]
        if config.cmi and applies:
            q[0] = masked(q[0], soft(s[1], config))
            s_a = score(decoder, config, l, 0, q[0], o[0]) if config.cmi_order == "sequential" else s[0]
            q[1] = masked(q[1], soft(s_a, config))
            if l == 2:
                s = [score(decoder, config, l, v, q[v], o[v]) for v in views]
        maps.append(s)
    return np.array(maps)


# ---------------------------------------------------------------- forward


def test_the_block_is_torchs_transformer_encoder_layer(parity: Parity) -> None:
    for norm_first in (False, True):
        config = replace(SMALL, norm_first=norm_first)
        block = make(config).blocks[1]
        x = torch.randn(2, B, 1 + N, config.D, dtype=torch.float64)
        ours = block(x, None)
        for view in (0, 1):
            layer = nn.TransformerEncoderLayer(
                config.D, config.nhead, config.ffn, 0.1, batch_first=True, norm_first=norm_first
            )
            layer = layer.double().eval()
            for theirs, mine in (
                (layer.self_attn.out_proj, block.mix),
                (layer.linear1, block.up),
                (layer.linear2, block.down),
            ):
                theirs.weight.data, theirs.bias.data = mine.weight[view].T, mine.bias[view]
            layer.self_attn.in_proj_weight.data = block.qkv.weight[view].T
            layer.self_attn.in_proj_bias.data = block.qkv.bias[view]
            for theirs, mine in ((layer.norm1, block.norm1), (layer.norm2, block.norm2)):
                theirs.weight.data, theirs.bias.data = mine.weight[view].flatten(), mine.bias[view].flatten()
            parity.equal("PromptAD: transformer block", "torch's own", ours[view], layer(x[view]), 1e-12)


VARIANTS: list[dict[str, Any]] = [
    {},
    {"cmi": False},
    {"ccl": False},
    {"ccl": False, "cmi": False},
    {"nor": False, "ccl": False, "cmi": False},
    {"abn": False, "ccl": False, "cmi": False},
    {"film_at": "every"},
    {"film_at": "off"},
    {"norm_first": True},
    {"share_heads": True, "share_protos": True},
    {"cross_sim": "scaled"},
    {"cross_sim": "cosine", "tau": 3.0},
    {"clip_layers": (5,)},
    {"sigma": -1.0},
    *(
        {"cmi_where": where, "cmi_order": order, "cmi_mask": mask}
        for where, order, mask in product(
            ("layerwise", "final_only", "input_next_only"),
            ("simultaneous", "sequential"),
            ("sigmoid_relu", "rescaled", "residual"),
        )
    ),
]


@pytest.mark.parametrize(
    "options", VARIANTS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()) or "default"
)
def test_forward_equals_numpy(options: dict[str, Any], parity: Parity) -> None:
    """Eqs. 1 to 4 and the wiring, in double precision."""
    _, maps, expected = run(replace(SMALL, **options))
    parity.equal("PromptAD: maps of all layers, Eqs. 1 to 4", "NumPy", maps, expected, 1e-12)


def test_several_prototypes_count_by_the_nearest(parity: Parity) -> None:
    _, maps, expected = run(SMALL, m=4)
    parity.equal("PromptAD: maps with several prototypes", "NumPy", maps, expected, 1e-12)


def test_eqs_1_and_2_on_numbers() -> None:
    """One patch, D = 2, weights by hand: s_a = h.q + b - phi.q and s_n = phi.q - (h.q + b)."""
    config = replace(SMALL, D=2, nhead=1, cmi=False)
    decoder = make(config)
    head, proto = decoder.head[0], decoder.proto[0]
    head.weight.data = torch.tensor([[[1.0], [2.0]], [[3.0], [-1.0]]]).double()
    head.bias.data = torch.tensor([[0.5], [0.25]]).double()
    proto.weight.data.zero_()
    proto.bias.data = torch.tensor([[2.0, 1.0], [-1.0, 4.0]]).double()  # phi_nor, phi_abn
    q = torch.tensor([[[[9.0, 9.0], [1.0, 3.0]]], [[[9.0, 9.0], [2.0, 5.0]]]]).double()  # CLS, then the patch
    phi = decoder._prototypes(0, torch.zeros(2, 1, 1, E).double())
    s_a, s_n = decoder._scores(0, q, phi).flatten().tolist()
    assert s_a == (1 * 1 + 2 * 3 + 0.5) - (2 * 1 + 1 * 3)
    assert s_n == (-1 * 2 + 4 * 5) - (3 * 2 - 1 * 5 + 0.25)


def test_eqs_3_and_4_on_numbers() -> None:
    s = torch.tensor([-3.0, 0.0, 0.5, 1.5, 4.5])
    mask = net.soft_mask(s, 0.5, "sigmoid_relu")
    expected = [0.5, 0.5, 0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(-4))]
    np.testing.assert_allclose(mask.numpy(), expected, rtol=1e-6)
    many = net.soft_mask(torch.randn(1000) * 10, 0.5, "sigmoid_relu")
    assert many.min() >= 0.5  # what the text calls masked out is halved
    assert net.soft_mask(s, 0.5, "rescaled")[:3].eq(0).all()
    np.testing.assert_allclose(net.soft_mask(s, 0.5, "residual"), 1 + mask)


# ---------------------------------------------------------------- pooling and loss


def test_top_mean_takes_19_of_196_and_keeps_signs() -> None:
    s = torch.arange(196.0) - 300
    assert top_mean(s, 0.1) == s[-19:].mean()
    assert top_mean(s, 0.1) < 0
    assert top_mean(torch.tensor([1.0, 5.0, 3.0]), 0.1) == 5  # at least one


def test_eq_5_on_numbers() -> None:
    scores = torch.tensor([-7.0, -5.0, 0.0, 2.0, 5.0, 8.0])
    np.testing.assert_array_equal(deviation_loss(scores, torch.zeros(6), 5.0), [0, 0, 5, 7, 10, 13])
    np.testing.assert_array_equal(deviation_loss(scores, torch.ones(6), 5.0), [12, 10, 5, 3, 0, 0])


@pytest.mark.parametrize("supervision", ["image", "pixel", "both"])
@pytest.mark.parametrize("loss_sum", [False, True])
def test_objective_equals_numpy(supervision: Any, loss_sum: bool, parity: Parity) -> None:
    config = replace(SMALL, supervision=supervision, loss_sum=loss_sum, deep_weights=(0.5, 1.0, 2.0), topk=0.3)
    maps = torch.randn(3, 2, B, N, dtype=torch.float64) * 4
    labels = torch.tensor([0.0, 1.0, 1.0])
    regions = (torch.rand(B, N) < 0.3).double() * labels[:, None]
    mean, std = torch.randn(3, 2 + loss_sum, 1), torch.rand(3, 2 + loss_sum, 1) + 0.5
    expected = 0.0
    for l, weight in enumerate((0.5, 1.0, 2.0)):  # noqa: E741
        views = [maps[l, 0].numpy(), maps[l, 1].numpy()]
        for v, s in enumerate([*views, views[0] + views[1]] if loss_sum else views):
            mu, delta = float(mean[l, v]), float(std[l, v])
            for b, y in enumerate(labels.tolist()):
                if supervision != "pixel":
                    dev = (np.sort(s[b])[-2:].mean() - mu) / delta  # int(0.3 * 9) = 2
                    expected += weight * (max(0, 5 - dev) if y else max(0, 5 + dev)) / B
                if supervision != "image":
                    dev = (s[b] - mu) / delta
                    r = regions[b].numpy()
                    per = (1 - r) * np.maximum(0, 5 + dev) + r * np.maximum(0, 5 - dev)
                    expected += weight * per.mean() / B
    reference = (mean[:, None], std[:, None])  # of one trial
    got = objective(maps, labels, config, regions=regions, reference=reference)
    parity.equal("PromptAD: objective, Eq. 5", "NumPy", got, expected, 1e-12)
    plain = objective(maps, labels, config, regions=regions)
    same = (torch.zeros_like(reference[0]), torch.ones_like(reference[1]))
    torch.testing.assert_close(plain, objective(maps, labels, config, regions=regions, reference=same))


def test_sampled_reference_scores() -> None:
    mean, std = draw_reference((3, 2), [torch.Generator().manual_seed(seed) for seed in (0, 1)], CPU)
    assert mean.shape == std.shape == (3, 2, 2, 1)
    assert torch.equal(mean[:, 1:], draw_reference((3, 2), [torch.Generator().manual_seed(1)], CPU)[0])
    assert mean.abs().max() < 0.1
    assert (std - 1).abs().max() < 0.1


# ---------------------------------------------------------------- section 10 of the specification: Table 4's rows


def test_without_components_the_scores_are_the_intra_view_ones(parity: Parity) -> None:
    """ABN: s = intra_abn; NOR: s = -intra_nor; both: their sum; the rest is covered by the NumPy reference."""
    config = replace(SMALL, ccl=False, cmi=False)
    decoder, maps, _ = run(config)
    tokens, text, other = make_inputs()
    assert not len(decoder.proto)
    reduced = decoder.reduce[0].shared(tokens[0].flatten(0, 1)).view(2, B, 1 + N, config.D)
    z = decoder.film[0](reduced, text)
    q = decoder.blocks[0](z, None)
    intra = decoder.head[0](q.flatten(1, 2)).view(2, B, 1 + N)[:, :, 1:]
    expected = torch.stack([intra[0], -intra[1]])
    parity.equal("PromptAD: maps without CCL and CMI", "the intra-view scores", maps[0], expected, 1e-12)
    # nothing of one branch reaches the other, nor does the other view's text
    torch.testing.assert_close(decoder(tokens, text, other * 2), maps)
    changed = decoder(tokens, torch.stack([text[0], text[1] + 1]), other)
    torch.testing.assert_close(changed[:, 0], maps[:, 0])
    assert not torch.equal(changed[:, 1], maps[:, 1])


def test_ccl_reaches_scores_of_its_own_branch_only_and_cmi_crosses() -> None:
    for config, crosses in ((replace(SMALL, cmi=False), False), (replace(SMALL, sigma=-2.0), True)):
        decoder, maps, _ = run(config)
        tokens, text, other = make_inputs()
        changed = decoder(tokens, text, torch.stack([other[0], other[1] + 1]))
        assert not torch.equal(changed[:, 1], maps[:, 1])
        assert torch.equal(changed[:, 0], maps[:, 0]) is not crosses


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("order", ["simultaneous", "sequential"])
@pytest.mark.parametrize("detach", [True, False])
def test_gradient_through_the_mask(detach: bool, order: Any, parity: Parity) -> None:
    config = replace(SMALL, cmi_detach=detach, cmi_order=order, sigma=-2.0)  # low, so that the ReLU is open
    decoder = make(config)
    maps = decoder(*make_inputs())
    maps[:, 0].sum().backward()  # a loss on the abnormality branch alone
    into_abn = max(float(p.grad[0].abs().max()) for p in decoder.parameters() if p.grad is not None)
    into_nor = max(float(p.grad[1].abs().max()) for p in decoder.parameters() if p.grad is not None)
    assert into_abn > 0
    if detach:
        parity.reached("PromptAD: gradient through a detached mask", "zero", into_nor, 0)
    else:
        assert into_nor > 0


# ---------------------------------------------------------------- dropout


def test_dropout_by_hand() -> None:
    """The masks do what dropout does, in value and gradient, though one of them is hidden from autograd."""
    config = replace(SMALL, dropout=0.25)
    block = make(config).blocks[0]
    noise = make(config).draw_noise(B, 1 + N, [torch.Generator().manual_seed(3)])
    assert noise is not None
    x = torch.randn(2, B, 1 + N, config.D, dtype=torch.float64, requires_grad=True)
    first = noise[0]
    keep = first.hidden.double() / 0.75

    def plain(x: Tensor) -> Tensor:
        q, k, v = block.qkv(x.flatten(1, 2)).view(2 * B, 1 + N, 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / 2).softmax(-1) * first.attention
        mixed = block.mix((weights @ v).transpose(1, 2).reshape(2, -1, config.D)).view_as(x)
        x = block.norm1(x + mixed * first.mixed)
        hidden = (block.up(x.flatten(1, 2)) * keep).relu()
        return block.norm2(x + block.down(hidden).view_as(x) * first.output)

    inputs = [x, *block.parameters()]
    target = torch.randn_like(x)
    ours, theirs = block(x, first), plain(x)
    torch.testing.assert_close(ours, theirs)
    mine = torch.autograd.grad((ours * target).sum(), inputs)
    for a, b in zip(mine, torch.autograd.grad((theirs * target).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_feed_forward_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, dropout=0.25)
    decoder = make(config)
    noise = decoder.draw_noise(B, 1 + N, [torch.Generator().manual_seed(3)])
    whole = decoder(*make_inputs(), noise)
    monkeypatch.setattr(net, "HIDDEN_PIECE", 100)
    torch.testing.assert_close(decoder(*make_inputs(), noise), whole)


def test_dropout_rate_and_scale() -> None:
    decoder = make(replace(SMALL, dropout=0.1))
    noise = decoder.draw_noise(40, 50, [torch.Generator().manual_seed(0)])
    assert noise is not None
    assert len(noise) == 3
    assert abs(1 - float(noise[0].hidden.float().mean()) - 26 / 256) < 0.01
    assert abs(float(noise[1].attention.mean()) - 1) < 0.01  # what is kept makes up for what is dropped
    assert set(noise[2].mixed.unique().tolist()) == {0.0, np.float32(256 / 230)}
    assert not torch.equal(noise[0].hidden, noise[1].hidden)
    assert make(SMALL).draw_noise(4, 5, [torch.Generator()]) is None


# ---------------------------------------------------------------- several trials at once


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"cmi_order": "sequential"},
        {"share_heads": True, "share_protos": True, "film_at": "every"},
        {"loss_sum": True, "ref_scores": "sampled"},
        {"supervision": "both"},
        {"nor": False, "ccl": False, "cmi": False},
    ],
    ids=str,
)
def test_joined_trials_have_the_gradients_of_each_alone(changes: dict[str, Any], parity: Parity) -> None:
    config = replace(SMALL, dropout=0.25, **changes)
    views = config.abn + config.nor
    decoders = [make(config, seed) for seed in range(3)]
    inputs = [make_inputs(views, seed=5 + seed) for seed in range(3)]
    labels = [torch.tensor(y) for y in ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0])]
    regions = [torch.rand(B, N, generator=torch.Generator().manual_seed(i)).round() for i in range(3)]

    def gradients(decoder: net.Decoder, chosen: range) -> list[Tensor]:
        generators = [torch.Generator().manual_seed(i) for i in chosen]
        noise = decoder.draw_noise(B, 1 + N, generators)
        tokens, text, other = zip(*(inputs[i] for i in chosen), strict=True)
        frozen = [torch.cat(layer) for layer in zip(*tokens, strict=True)]
        maps = decoder(frozen, torch.cat(text), torch.cat(other), noise)
        loss = objective(
            maps,
            torch.cat([labels[i] for i in chosen]),
            config,
            torch.cat([regions[i] for i in chosen]),
            draw_reference((3, views + config.loss_sum), generators, CPU),
        )
        return list(torch.autograd.grad(loss, list(decoder.parameters())))

    alone = [gradients(decoder, range(i, i + 1)) for i, decoder in enumerate(decoders)]
    joined = net.Decoder.join(decoders)
    farthest = 0.0
    for together, *apart in zip(gradients(joined, range(3)), *alone, strict=True):
        torch.testing.assert_close(together, torch.cat(apart), rtol=1e-10, atol=1e-12)
        farthest = max(farthest, float((together - torch.cat(apart)).abs().max()))
    parity.reached("PromptAD: gradients of joined trials", "each alone", farthest, 1e-10)


def test_joined_trials_share_their_weights() -> None:
    decoders = [make(SMALL, seed) for seed in range(3)]
    joined = net.Decoder.join(decoders)
    with torch.no_grad():
        for parameter in joined.parameters():
            parameter += 1
    for number, decoder in enumerate(decoders):
        for whole, part in zip(joined.parameters(), decoder.parameters(), strict=True):
            torch.testing.assert_close(whole.chunk(3)[number], part)
