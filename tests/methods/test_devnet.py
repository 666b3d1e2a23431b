"""DevNet against the same computation in plain NumPy, and the parts that it shares with other baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from agreement import assert_agree
from by_hand import SIDE, Array, blots
from numpy.typing import NDArray
from parity import Parity
from PIL import Image
from sklearn.metrics import roc_auc_score

from bench.contracts import ImageSet, TrainingSet
from bench.encoders import identify, load_backbone
from bench.encoders.features import CACHE
from bench.errors import BenchError, NotApplicable
from bench.methods.devnet import DevNet, DevNetNetwork
from bench.methods.shared import finetune
from bench.methods.shared.pixels import load_pixels
from bench.tools.spec import build_config, parse_spec


def network(**options: Any) -> DevNetNetwork:
    config = DevNet.Config(**{"topk": 0.1, **options})
    generator = torch.Generator().manual_seed(5)
    return DevNetNetwork(config, tiny.context(network=tiny.backbone()), generator)


# ------------------------------------------------------------ the network in NumPy


class ByHand:
    """Convolution, head, absolute scores, top-k and pyramid with their gradients, in double precision."""

    def __init__(self, net: DevNetNetwork) -> None:
        state = {name: value.double().numpy().copy() for name, value in net.modules.state_dict().items()}
        self.p: dict[str, Array] = {
            "kernel": state["backbone.convolution.weight"].reshape(3, 27),
            "weight": state["head.weight"].reshape(3),
            "bias": state["head.bias"],
        }

    @staticmethod
    def patches(images: Array) -> Array:
        """``(B, h * w, 27)`` inputs of a 3x3 convolution with stride 2 and padding 1."""
        padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
        count, _, side, _ = images.shape
        cells = [
            padded[:, :, y : y + 3, x : x + 3].reshape(count, 27)
            for y in range(0, side, 2)
            for x in range(0, side, 2)
        ]
        return np.stack(cells, axis=1)

    def forward(self, images: Array) -> tuple[Array, list[tuple[Array, Array, Array]]]:
        """Scores ``(B,)``; per scale the patches, the signed map and the chosen positions."""
        scores, scales = [], []
        for step in (1, 2):
            patches = self.patches(images[:, :, ::step, ::step])
            signed = patches @ self.p["kernel"].T @ self.p["weight"] + self.p["bias"]
            k = max(int(0.1 * signed.shape[1]), 1)
            chosen = np.argsort(-np.abs(signed), axis=1)[:, :k]
            scores.append(np.take_along_axis(np.abs(signed), chosen, axis=1).mean(axis=1))
            scales.append((patches, signed, chosen))
        return np.mean(scores, axis=0), scales

    def gradients(self, images: Array, slope: Array) -> dict[str, Array]:
        """Of a loss whose derivative with respect to the scores is ``slope``."""
        total = {name: np.zeros_like(value) for name, value in self.p.items()}
        _, scales = self.forward(images)
        for patches, signed, chosen in scales:
            flow = np.zeros_like(signed)
            sign = np.sign(np.take_along_axis(signed, chosen, axis=1))
            np.put_along_axis(flow, chosen, sign * slope[:, None] / chosen.shape[1] / len(scales), axis=1)
            total["bias"] += flow.sum()
            total["weight"] += np.einsum("bn,bnp,cp->c", flow, patches, self.p["kernel"])
            total["kernel"] += np.einsum("bn,bnp,c->cp", flow, patches, self.p["weight"])
        return total


def batch(seed: int, count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, SIDE, SIDE, generator=generator)
    return images, (torch.arange(count) % 2).float()


def test_forward_equals_numpy(parity: Parity) -> None:
    net = network()
    images, _ = batch(0)
    scores, maps = net(images)
    expected, scales = ByHand(net).forward(images.double().numpy())
    parity.equal("DevNet: scores", "NumPy", scores, expected, 1e-6)
    for found, (_, signed, _) in zip(maps, scales, strict=True):
        assert (signed < 0).any()  # so that leaving out the absolute value would show
        parity.equal("DevNet: maps", "NumPy", found.flatten(1), np.abs(signed), 1e-6)


def test_strongly_negative_positions_count_as_anomalous() -> None:
    values = torch.tensor([[0.0] * 18 + [-9.0, 1.0]]).abs()
    assert finetune.top_k_mean(values, 0.1).item() == 5.0
    assert finetune.top_k_mean(values, 0.01).item() == 9.0  # at least one position
    assert finetune.top_k_mean(torch.zeros(3, 196), 0.1).shape == (3,)


def test_loss_equals_numpy(parity: Parity) -> None:
    scores, targets = torch.tensor([0.3, 2.0, 1.0, 7.5]), torch.tensor([0, 0, 1, 1])
    loss = finetune.deviation_loss(scores, targets, torch.Generator().manual_seed(2), margin=5, n_references=50)
    references = torch.randn(50, generator=torch.Generator().manual_seed(2)).double().numpy()
    deviations = (scores.double().numpy() - references.mean()) / references.std(ddof=1)
    expected = np.mean([*np.abs(deviations[:2]), *np.maximum(0, 5 - deviations[2:])])
    parity.equal("DevNet: loss", "NumPy", loss, expected, 1e-6)


def test_two_steps_of_training_equal_numpy(parity: Parity) -> None:
    """Gradients, clipping, weight decay, Adam's moments, and the rate that falls after the first epoch."""
    net = network()
    hand = ByHand(net)
    prior = torch.Generator().manual_seed(3)

    def loss_of_step(step: int) -> torch.Tensor:
        images, targets = batch(step)
        return finetune.deviation_loss(net(images)[0], targets, prior, n_references=100)

    recipe = {"lr": 0.02, "weight_decay": 0.1, "lr_gamma": 0.5, "clip": 0.05}
    finetune.optimise(
        net.modules.parameters(), loss_of_step, epochs=2, steps_per_epoch=1, lr_step=1,
        track=lambda steps, description: steps, **recipe,
    )  # fmt: skip

    prior = torch.Generator().manual_seed(3)
    first = {name: np.zeros_like(value) for name, value in hand.p.items()}
    second = {name: np.zeros_like(value) for name, value in hand.p.items()}
    for step in range(2):
        tensors, targets = batch(step)
        images = tensors.double().numpy()
        references = torch.randn(100, generator=prior).double().numpy()
        mean, spread = references.mean(), references.std(ddof=1)
        deviations = (hand.forward(images)[0] - mean) / spread
        slope = np.where(targets.numpy() > 0, -(deviations < 5).astype(float), np.sign(deviations)) / spread / 6
        gradients = hand.gradients(images, slope)
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        assert norm > recipe["clip"]
        for name, gradient in gradients.items():
            g = gradient * recipe["clip"] / (norm + 1e-6) + recipe["weight_decay"] * hand.p[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g**2
            m, v = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            hand.p[name] = hand.p[name] - recipe["lr"] * recipe["lr_gamma"] ** step * m / (np.sqrt(v) + 1e-8)
    after = ByHand(net).p
    for name, expected in hand.p.items():
        parity.equal("DevNet: parameters after two steps", "NumPy", after[name], expected, 1e-5)


# ------------------------------------------------------------ parts


def test_rotation_is_torchvisions_but_for_pixels_on_a_border() -> None:
    from torchvision.transforms import functional

    image = np.random.default_rng(0).integers(1, 256, (40, 40, 3), dtype=np.uint8)
    degrees = torch.tensor([0.0, 90.0, 180.0, -90.0, 13.7, -121.3, 45.0])
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()
    rotated = finetune.rotate(tensor.expand(len(degrees), -1, -1, -1), degrees)
    for found, angle in zip(rotated, degrees.tolist(), strict=True):
        expected = np.asarray(functional.rotate(Image.fromarray(image), angle)).transpose(2, 0, 1)
        assert (found.numpy() == expected).mean() > 0.995, angle
    assert torch.equal(rotated[0], tensor)
    assert torch.equal(rotated[1], tensor.rot90(1, (1, 2)))
    assert (rotated[6][:, 0, 0] == 0).all()  # black outside


def test_oblong_images_rotate_without_shear() -> None:
    from torchvision.transforms import functional

    image = np.random.default_rng(0).integers(1, 256, (20, 50, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()[None]
    found = finetune.rotate(tensor, torch.tensor([30.0]))[0].numpy()
    assert (found == np.asarray(functional.rotate(Image.fromarray(image), 30.0)).transpose(2, 0, 1)).mean() > 0.99


def test_endless_passes_hold_every_item_once() -> None:
    sampler = finetune.Endless([10, 20, 30], torch.Generator().manual_seed(0))
    drawn = torch.cat([sampler.take(2), sampler.take(5), sampler.take(5)]).tolist()
    for start in range(0, 12, 3):
        assert sorted(drawn[start : start + 3]) == [10, 20, 30]
    assert len({tuple(drawn[start : start + 3]) for start in range(0, 12, 3)}) > 1
    with pytest.raises(ValueError, match="nothing to draw from"):
        finetune.Endless([], torch.Generator())


def test_preparation_turns_before_it_normalises() -> None:
    prepare = finetune.Preparation(tiny.backbone(), "cpu")
    pixels = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    turned = prepare(pixels, torch.tensor([45.0]))
    white = (1 - torch.tensor(tiny.MEAN)) / torch.tensor(tiny.STD)
    black = -torch.tensor(tiny.MEAN) / torch.tensor(tiny.STD)
    torch.testing.assert_close(turned[0, :, 4, 4], white)
    torch.testing.assert_close(turned[0, :, 0, 0], black)


def test_pixels_are_decoded_once() -> None:
    reads = []
    image = tiny.noise(1, side=30, seed=77)[0]

    def read(key: str) -> NDArray[np.uint8]:
        reads.append(key)
        return image

    images = ImageSet([tiny.key(image)], ["thing"], {}, read)
    passes = CACHE.passes
    pixels = load_pixels(images, 12)
    expected = np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(pixels[0].permute(1, 2, 0), expected)
    assert torch.equal(load_pixels(images, 12), pixels)
    assert len(reads) == 1
    assert CACHE.passes == passes  # no encoder was at work
    load_pixels(images, 8)
    assert len(reads) == 2


# ------------------------------------------------------------ the method


def train(count: int = 24, seed: int = 0) -> TrainingSet:
    return tiny.training_set(*blots(count, seed))


def fitted(module: torch.nn.Module, seed: int = 1, frozen_norm: bool = False, **options: Any) -> DevNet:
    defaults = {"epochs": 2, "steps_per_epoch": 3, "batch_size": 8}
    method = DevNet(DevNet.Config(**{**defaults, **options}))
    backbone = tiny.backbone(module, channels=4, frozen_norm=frozen_norm)
    method.fit(train(), tiny.context(network=backbone, seed=seed))
    return method


def test_it_learns_to_find_blots() -> None:
    method = fitted(tiny.Convolution(4, norm=True), epochs=40, lr=5e-3, lr_step=30)
    images, labels = blots(30, 1)
    scores = method.score(images, tiny.context())
    assert roc_auc_score(labels, scores.image) > 0.9
    assert scores.maps is not None
    assert scores.maps.shape == (30, 8, 8)
    pixels = np.stack([image.mean(-1) > 150 for image in images])[:, ::2, ::2]
    assert roc_auc_score(pixels.ravel(), scores.maps.ravel()) > 0.8


@pytest.mark.parametrize("pixel_map", ["head", "grad"])
def test_number_and_order_of_images_change_nothing_but_rounding(pixel_map: str) -> None:
    method = fitted(tiny.Convolution(4, norm=True), pixel_map=pixel_map)
    images, _ = blots(20, 1)
    whole = method.score(images, tiny.context())
    assert whole.maps is not None
    assert whole.maps.shape == ((20, 8, 8) if pixel_map == "head" else (20, 4, 4))
    for order in ([*range(19, -1, -1)], [7], [3, 18, 4]):
        some = method.score(images.subset(order), tiny.context())
        assert_agree(some, whole, order)


def test_features_are_what_the_head_scores() -> None:
    """Of averaged features the linear head gives the average of its signed scores, over positions and scales."""
    method = fitted(tiny.Convolution(4, norm=True))
    images, _ = blots(20, 1)
    features = method.features(images, tiny.context())
    assert method._network is not None
    net = method._network.modules
    pixels = method._network.prepare(load_pixels(images, SIDE))
    with torch.no_grad():
        signed = [
            net["head"](net["backbone"](scaled)).mean((1, 2, 3)) for scaled in (pixels, pixels[:, :, ::2, ::2])
        ]
        whole = net["head"](torch.from_numpy(features)[:, :, None, None])[:, 0, 0, 0]
    np.testing.assert_allclose(whole, torch.stack(signed).mean(0), rtol=1e-5, atol=1e-6)


def test_it_is_repeatable_and_depends_on_its_seed() -> None:
    images, _ = blots(5, 1)

    def scores(seed: int) -> NDArray[np.float32]:
        return fitted(tiny.Convolution(4, norm=True), seed).score(images, tiny.context()).image

    first = scores(1)
    torch.manual_seed(99)
    assert np.array_equal(scores(1), first)
    assert not np.array_equal(scores(2), first)


def test_gradient_maps_are_gradients(parity: Parity) -> None:
    net = network(grad_sigma=0.0, pixel_map="grad")
    net.modules.eval()
    pixels = torch.randint(0, 256, (3, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).byte()
    found = net.score_with_gradients(pixels)["maps"].double().numpy()
    images = net.prepare(pixels).double().numpy()
    hand, small = ByHand(net), 1e-5
    slopes = np.zeros_like(images[1])
    for index in np.ndindex(slopes.shape):
        ends = []
        for sign in (1, -1):
            moved = images[[1]].copy()
            moved[(0, *index)] += sign * small
            ends.append(hand.forward(moved)[0][0])
        slopes[index] = (ends[0] - ends[1]) / (2 * small)
    expected = np.abs(slopes).sum(axis=0).reshape(4, 4, 4, 4).mean(axis=(1, 3))
    parity.equal("DevNet: gradient map", "finite differences in NumPy", found[1], expected, 1e-6)


def test_smoothing_is_scipys() -> None:
    from scipy.ndimage import gaussian_filter

    maps = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    for row, expected in zip(finetune.smooth(maps, 2.0), maps, strict=True):
        np.testing.assert_allclose(row[0], gaussian_filter(expected[0].numpy(), 2.0, mode="mirror"), atol=1e-5)
    assert torch.equal(finetune.smooth(maps, 0.0), maps)


def test_batch_norm_learns_its_statistics_unless_frozen() -> None:
    for frozen in (False, True):
        module = tiny.Convolution(4, norm=True)
        fitted(module, frozen_norm=frozen)
        assert isinstance(module.norm, torch.nn.BatchNorm2d)
        assert torch.equal(module.norm.running_mean, torch.zeros(4)) == frozen  # type: ignore[arg-type]
        assert not torch.equal(module.norm.weight, torch.ones(4))  # scale and shift are trained all the same


def test_the_real_imagenet_backbone_keeps_its_statistics(real_weights: Path) -> None:
    name = "timm/mobilenetv2_100[pad_type=same,mean=0.5+0.5+0.5,std=0.5+0.5+0.5,frozen_norm=on,image_size=64]"
    network = load_backbone(identify(name, real_weights))
    before = {k: v.clone() for k, v in network.module.state_dict().items()}
    method = DevNet(DevNet.Config(epochs=1, steps_per_epoch=1, batch_size=4))
    context = tiny.context(network=network)
    method.fit(train(), context)
    for key, value in network.module.state_dict().items():
        assert torch.equal(value, before[key]) == ("running" in key or "num_batches" in key), key
    scores = method.score(blots(2, 1)[0], context)
    assert np.isfinite(scores.image).all()
    assert scores.maps is not None
    assert scores.maps.shape == (2, 2, 2)


def test_progress_is_shown_step_by_step() -> None:
    seen: list[tuple[list[int], str]] = []

    def track(steps: Any, description: str) -> Any:
        seen.append((list(steps), description))
        return steps

    context = tiny.context(network=tiny.backbone(), track=track)
    DevNet(DevNet.Config(epochs=2, steps_per_epoch=3, batch_size=4)).fit(train(), context)
    assert seen == [(list(range(6)), "train")]


def test_it_needs_both_kinds() -> None:
    images, _ = blots(4, 0)
    for labels in ([0] * 4, [1] * 4):
        with pytest.raises(NotApplicable, match="normal and anomalous"):
            DevNet(DevNet.Config()).fit(tiny.training_set(images, labels), tiny.context())


@pytest.mark.parametrize(
    "spec", ["devnet[batch_size=1]", "devnet[topk=0]", "devnet[epochs=0]", "devnet[lr_step=0]"]
)
def test_options_that_are_refused(spec: str) -> None:
    with pytest.raises(BenchError, match=r"at least|above 0"):
        build_config(DevNet.Config, parse_spec(spec))


def test_the_default_recipe_is_the_official_one() -> None:
    config = DevNet.Config()
    recipe = (config.epochs, config.steps_per_epoch, config.batch_size, config.lr, config.weight_decay)
    assert recipe == (50, 20, 48, 2e-4, 1e-5)
    prior = (config.margin, config.n_references, config.topk, config.n_scales, config.rotation)
    assert prior == (5, 5000, 0.1, 2, 180)
    assert (config.lr_step, config.lr_gamma, config.clip, config.backbone) == (10, 0.1, 1, "torchvision/resnet18")


# ------------------------------------------------------------ memory


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Conv2d(4, 4, 3, padding=1),
            torch.nn.BatchNorm2d(4),
            torch.nn.ReLU(inplace=True),
            torch.nn.Dropout(0.2),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values + self.inner(values)


def trained(frozen: bool) -> tuple[dict[str, torch.Tensor], int]:
    """The state after three steps over two scales, and the largest number of values kept for gradients."""
    torch.manual_seed(0)
    cumulative = torch.nn.BatchNorm2d(4, momentum=None)
    layers = [torch.nn.Conv2d(3, 4, 3), Residual(), Residual(), torch.nn.Sequential(Residual(), cumulative)]
    module = torch.nn.Sequential(*layers)
    optimiser = torch.optim.Adam(module.parameters())
    images = torch.randn(4, 3, 32, 32)
    finetune.training_mode(module, frozen)
    kept = 0

    def count(values: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += values.numel()
        return values

    for _ in range(3):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda values: values):
            outputs = [finetune.forward(module, scaled) for scaled in finetune.pyramid(images, 2)]
        optimiser.zero_grad()
        sum(output.abs().mean() for output in outputs).backward()  # type: ignore[union-attr]
        optimiser.step()
    return {name: value.clone() for name, value in module.state_dict().items()}, kept


@pytest.mark.parametrize("frozen", [False, True])
def test_training_in_little_memory_gives_the_same_bits(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, kept = trained(frozen)
    monkeypatch.setattr(finetune, "LARGE", 0)
    frugal, kept_then = trained(frozen)
    assert plain.keys() == frugal.keys()
    assert all(torch.equal(plain[name], frugal[name]) for name in plain)  # BatchNorm's statistics, too
    assert kept_then < kept / 2


def test_the_blocks_of_a_network_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "LARGE", 0)
    block, stem = Residual(), torch.nn.Conv2d(3, 4, 3)
    module = torch.nn.Sequential(stem, torch.nn.Sequential(block))
    assert finetune.blocks(module) == [block]
    finetune.forward(module.train(), torch.randn(1, 3, 8, 8))
    assert "forward" not in vars(block)
