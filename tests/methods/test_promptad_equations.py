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
from torch.func import stack_module_state

from bench.methods.promptad import PromptADConfig, net
from bench.methods.promptad.fit import clip_gradients, joined_losses
from bench.methods.promptad.loss import deviation_loss, draw_reference, objective, top_mean

W, E, B, N = 12, 10, 3, 9
CPU = torch.device("cpu")
SMALL = PromptADConfig(D=8, nhead=2, ffn=16, dropout=0.0)

Array = NDArray[np.float64]


def make(config: PromptADConfig, seed: int = 0) -> net.BranchDecoder:
    inputs = 1 if len(config.clip_layers) == 1 else 3
    decoder = net.BranchDecoder(config, inputs, W, E, seed).double()
    generator = torch.Generator().manual_seed(seed)
    for norm in [
        m for m in decoder.modules() if isinstance(m, nn.LayerNorm)
    ]:  # so that a swap of norms would show
        norm.weight.data.uniform_(0.5, 1.5, generator=generator)
        norm.bias.data.uniform_(-0.5, 0.5, generator=generator)
    return decoder


def make_inputs(views: int = 2, m: int = 1, seed: int = 1) -> tuple[list[Tensor], Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    draw = {"generator": g, "dtype": torch.float64}
    tokens = [torch.randn(B, 1 + N, W, **draw) for _ in range(3)]
    return tokens, torch.randn(views, B, E, **draw), torch.randn(views, B, m, E, **draw)


def draw_dropout(config: PromptADConfig, batch: int = B, tokens: int = 1 + N) -> list[net.DropoutFactors]:
    """The factors of one trial, without the axis of trials."""
    drawn = net.draw_dropout(config, batch, tokens, [torch.Generator().manual_seed(3)], CPU)
    assert drawn is not None
    return [net.DropoutFactors(*(each[0] for each in block)) for block in drawn]


def run(config: PromptADConfig, **kwargs: Any) -> tuple[net.BranchDecoder, Tensor, Array]:
    """The network's maps and those of :func:`reference`."""
    decoder = make(config)
    inputs = make_inputs(config.abn + config.nor, **kwargs)
    maps = decoder(*inputs)
    return decoder, maps, reference(decoder, config, *inputs)


# ---------------------------------------------------------------- the paper in NumPy, branch by branch


def affine(layer: Any, x: Array) -> Array:
    return np.asarray(x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())


def normed(norm: Any, x: Array) -> Array:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * norm.weight.detach().numpy() + norm.bias.detach().numpy())


def attention(layer: Any, x: Array, heads: int) -> Array:
    products = x @ layer.in_proj_weight.detach().numpy().T + layer.in_proj_bias.detach().numpy()
    q, k, v = np.split(products, 3, axis=-1)
    out = []
    for part in np.split(np.arange(q.shape[-1]), heads):
        weights = np.exp(q[..., part] @ k[..., part].swapaxes(-1, -2) / np.sqrt(len(part)))
        out.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    return affine(layer.out_proj, np.concatenate(out, -1))


def transformer(block: Any, x: Array, config: PromptADConfig) -> Array:
    def feed(y: Array) -> Array:
        return affine(block.linear2, np.maximum(affine(block.linear1, y), 0))

    if config.norm_first:
        x = x + attention(block.self_attn, normed(block.norm1, x), config.nhead)
        return x + feed(normed(block.norm2, x))
    x = normed(block.norm1, x + attention(block.self_attn, x, config.nhead))
    return normed(block.norm2, x + feed(x))


def soft(s: Array, config: PromptADConfig) -> Array:
    m = 1 / (1 + np.exp(-np.maximum(s - config.sigma, 0)))  # Eqs. 3 and 4
    return {"sigmoid_relu": m, "rescaled": 2 * m - 1, "residual": 1 + m}[config.cmi_mask]


def score(decoder: Any, config: PromptADConfig, l: int, view: int, q: Array, other: Array) -> Array:  # noqa: E741
    """Eq. 1 for the abnormality branch, Eq. 2 for the normality branch."""
    branch, patches = decoder.branches[view], q[:, 1:]
    intra = affine(branch.head[0 if config.share_heads else l], patches)[..., 0]
    cross = np.zeros_like(intra)
    if config.ccl:
        phi = affine(branch.proto[0 if config.share_protos else l], other)  # (B, M, D)
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
            branch, z = decoder.branches[v], q[v]
            if l == 0 or len(branch.reduce) == 3:
                z = z + affine(branch.reduce[l], tokens[l].numpy())
            if config.film_at == "every" or (config.film_at == "first" and l == 0):
                film = branch.film[l]
                z = affine(film.gamma, t[v])[:, None] * z + affine(film.beta, t[v])[:, None]
            q[v] = transformer(branch.blocks[l], z, config)
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
        block = make(config).branches[0].blocks[1]
        layer = nn.TransformerEncoderLayer(
            config.D, config.nhead, config.ffn, 0.1, batch_first=True, norm_first=norm_first
        )
        layer = layer.double().eval()
        layer.load_state_dict(block.state_dict())
        x = torch.randn(B, 1 + N, config.D, dtype=torch.float64)
        parity.equal("PromptAD: transformer block", "torch's own", block(x), layer(x), 1e-12)
        ones = draw_dropout(replace(config, dropout=0.01))[0]
        factors = net.DropoutFactors(*(torch.ones_like(each[0]) for each in ones))
        parity.equal(
            "PromptAD: transformer block with dropout factors", "torch's own", block(x, factors), layer(x), 1e-12
        )


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
    for branch, weight, bias, phi in zip(
        decoder.branches, ([1.0, 2.0], [3.0, -1.0]), (0.5, 0.25), ([2.0, 1.0], [-1.0, 4.0]), strict=True
    ):
        branch.head[0].weight.data = torch.tensor([weight]).double()
        branch.head[0].bias.data = torch.tensor([bias]).double()
        branch.proto[0].weight.data.zero_()
        branch.proto[0].bias.data = torch.tensor(phi).double()  # phi_nor, then phi_abn
    tokens = torch.tensor([[[9.0, 9.0], [1.0, 3.0]], [[9.0, 9.0], [2.0, 5.0]]]).double()  # CLS, then the patch
    text = torch.zeros(1, 1, E).double()
    s_a, s_n = (
        branch.scores(0, q[None], branch.prototypes(0, text)).item()
        for branch, q in zip(decoder.branches, tokens, strict=True)
    )
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
    reference = (mean, std)
    got = objective(maps, labels, config, regions=regions, reference=reference)
    parity.equal("PromptAD: objective, Eq. 5", "NumPy", got, expected, 1e-12)
    plain = objective(maps, labels, config, regions=regions)
    same = (torch.zeros_like(reference[0]), torch.ones_like(reference[1]))
    torch.testing.assert_close(plain, objective(maps, labels, config, regions=regions, reference=same))


def test_sampled_reference_scores() -> None:
    mean, std = draw_reference((3, 2), [torch.Generator().manual_seed(seed) for seed in (0, 1)], CPU)
    assert mean.shape == std.shape == (2, 3, 2, 1)
    assert torch.equal(mean[1:], draw_reference((3, 2), [torch.Generator().manual_seed(1)], CPU)[0])
    assert mean.abs().max() < 0.1
    assert (std - 1).abs().max() < 0.1


# ---------------------------------------------------------------- section 10 of the specification: Table 4's rows


def test_without_components_the_scores_are_the_intra_view_ones(parity: Parity) -> None:
    """ABN: s = intra_abn; NOR: s = -intra_nor; both: their sum; the rest is covered by the NumPy reference."""
    config = replace(SMALL, ccl=False, cmi=False)
    decoder, maps, _ = run(config)
    tokens, text, other = make_inputs()
    intra = []
    for branch, own in zip(decoder.branches, text, strict=True):
        assert not len(branch.proto)
        q = branch.blocks[0](branch.film[0](branch.reduce[0](tokens[0]), own))
        intra.append(branch.head[0](q)[:, 1:, 0])
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
    into_abn, into_nor = (
        max((float(p.grad.abs().max()) for p in branch.parameters() if p.grad is not None), default=0.0)
        for branch in decoder.branches
    )
    assert into_abn > 0
    if detach:
        parity.reached("PromptAD: gradient through a detached mask", "zero", into_nor, 0)
    else:
        assert into_nor > 0


# ---------------------------------------------------------------- dropout


def test_dropout_by_hand() -> None:
    """The factors do what torch's dropout does with the same draws, in value and gradient."""
    config = replace(SMALL, dropout=0.25)
    block = make(config).branches[0].blocks[0]
    first = net.DropoutFactors(*(each[0] for each in draw_dropout(config)[0]))
    x = torch.randn(B, 1 + N, config.D, dtype=torch.float64, requires_grad=True)

    def plain(x: Tensor) -> Tensor:
        layer = block.self_attn
        q, k, v = (x @ layer.in_proj_weight.T + layer.in_proj_bias).view(B, 1 + N, 3, 2, 4).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / 2).softmax(-1) * first.attention
        mixed = layer.out_proj((weights @ v).transpose(1, 2).reshape(B, 1 + N, config.D))
        x = block.norm1(x + mixed * first.mixed)
        hidden = block.linear1(x).relu() * first.hidden / 0.75
        return block.norm2(x + block.linear2(hidden) * first.output)

    inputs = [x, *block.parameters()]
    target = torch.randn_like(x)
    ours, theirs = block(x, first), plain(x)
    torch.testing.assert_close(ours, theirs)
    mine = torch.autograd.grad((ours * target).sum(), inputs)
    for a, b in zip(mine, torch.autograd.grad((theirs * target).sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_each_branch_and_block_has_factors_of_its_own() -> None:
    config = replace(SMALL, dropout=0.25)
    decoder, inputs, factors = make(config), make_inputs(), draw_dropout(config)
    expected = decoder(*inputs, factors)
    for block in range(3):
        for view in range(2):
            changed = [net.DropoutFactors(*(each.clone() for each in one)) for one in factors]
            changed[block].output[view].zero_()
            maps = decoder(*inputs, changed)
            assert not torch.equal(maps[block, view], expected[block, view])
            assert torch.equal(maps[block, 1 - view], expected[block, 1 - view]) or block == 2
            assert torch.equal(maps[:block], expected[:block])


def test_feed_forward_in_pieces_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(SMALL, dropout=0.25)
    decoder, factors = make(config), draw_dropout(config)
    whole = decoder(*make_inputs(), factors), decoder(*make_inputs())
    monkeypatch.setattr(net, "HIDDEN_PIECE", 100)
    torch.testing.assert_close(decoder(*make_inputs(), factors), whole[0])
    torch.testing.assert_close(decoder(*make_inputs()), whole[1])


def test_dropout_rate_and_scale() -> None:
    factors = draw_dropout(replace(SMALL, dropout=0.1), 40, 50)
    assert len(factors) == 3
    assert abs((factors[0].hidden == 0).float().mean() - 26 / 256) < 0.01
    assert abs(float(factors[1].attention.mean()) - 1) < 0.01  # what is kept makes up for what is dropped
    assert set(factors[2].mixed.unique().tolist()) == {0.0, np.float32(256 / 230)}
    assert not torch.equal(factors[0].hidden, factors[1].hidden)
    assert not torch.equal(factors[0].hidden[0], factors[0].hidden[1])
    assert net.draw_dropout(SMALL, 4, 5, [torch.Generator()], CPU) is None


def test_initial_weights_are_torchs_own_and_draw_nothing_globally() -> None:
    before = torch.random.get_rng_state()
    decoder = net.BranchDecoder(SMALL, 3, W, E, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    same, other = (net.BranchDecoder(SMALL, 3, W, E, seed) for seed in (5, 6))
    weight = decoder.branches[0].reduce[0].weight
    assert torch.equal(weight, same.branches[0].reduce[0].weight)
    assert not torch.equal(weight, other.branches[0].reduce[0].weight)
    assert not torch.equal(weight, decoder.branches[1].reduce[0].weight)


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
    labels = [torch.tensor(y) for y in ([0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0])]
    inputs = []
    for seed in range(3):
        tokens, own, other = make_inputs(views, seed=5 + seed)
        regions = torch.rand(B, N, generator=torch.Generator().manual_seed(seed)).round()
        inputs.append((tokens, own, other, labels[seed], regions))

    def random_parts(chosen: range) -> tuple[Any, Any]:
        generators = [torch.Generator().manual_seed(i) for i in chosen]
        dropout = net.draw_dropout(config, B, 1 + N, generators, CPU)
        return dropout, draw_reference((3, views + config.loss_sum), generators, CPU)

    # each alone: the plain module, with neither stacked weights nor vmap
    alone = []
    for row, (decoder, (tokens, own, other, y, regions)) in enumerate(zip(decoders, inputs, strict=True)):
        dropout, (mean, std) = random_parts(range(row, row + 1))
        factors = [net.DropoutFactors(*(each[0] for each in block)) for block in dropout]
        loss = objective(decoder(tokens, own, other, factors), y, config, regions, (mean[0], std[0]))
        alone.append(torch.autograd.grad(loss, list(decoder.parameters())))

    weights, _ = stack_module_state(decoders)
    tokens, own, other, y, regions = zip(*inputs, strict=True)
    frozen = [torch.stack(layer) for layer in zip(*tokens, strict=True)]
    dropout, reference = random_parts(range(3))
    stacked = [torch.stack(each) for each in (own, other, y, regions)]
    losses = joined_losses(decoders[0], config)
    loss = losses(weights, frozen, *stacked[:2], dropout, *stacked[2:], reference).sum()
    farthest = 0.0
    for together, *apart in zip(torch.autograd.grad(loss, list(weights.values())), *alone, strict=True):
        torch.testing.assert_close(together, torch.stack(apart), rtol=1e-10, atol=1e-12)
        farthest = max(farthest, float((together - torch.stack(apart)).abs().max()))
    parity.reached("PromptAD: gradients of joined trials", "each alone", farthest, 1e-10)


def test_each_trials_gradient_is_clipped_by_its_own_norm() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(2, 3, generator=generator), torch.randn(2, 4, 5, generator=generator)]
    gradients[0][1] /= 1000  # the second trial's is below the limit and stays
    gradients[1][1] /= 1000
    weights = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    clip_gradients(weights, 1.0)
    for row in range(2):
        alone = [nn.Parameter(torch.zeros_like(gradient[row])) for gradient in gradients]
        for weight, gradient in zip(alone, gradients, strict=True):
            weight.grad = gradient[row].clone()
        nn.utils.clip_grad_norm_(alone, 1.0)
        for weight, expected in zip(weights, alone, strict=True):
            assert weight.grad is not None
            torch.testing.assert_close(weight.grad[row], expected.grad)
