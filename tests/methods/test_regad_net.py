"""RegAD's network by hand: transforms, registration, augmentations, Gaussians."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from parity import Parity
from torch import nn
from torch.nn import functional as F

from bench.encoders import identify, load_backbone
from bench.methods.regad import draw_epoch
from bench.methods.regad import net as net

ALL = ("rotation", "translation", "flip", "grey", "turn")
MODES = sorted(set(net.TRANSFORMS) - {"none"})


def smooth_images(rng: np.random.RandomState, count: int) -> torch.Tensor:
    """``(count, 3, 224, 224)`` in [0, 1]: noise on a grid of 14x14, scaled bilinearly."""
    coarse = torch.from_numpy(rng.rand(count, 3, 14, 14).astype(np.float32))
    return F.interpolate(coarse, size=(224, 224), mode="bilinear", align_corners=False)


def waves(side: int = 64) -> torch.Tensor:
    """One smooth image without symmetry: ``(1, 2, side, side)``."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    return torch.stack([torch.sin(2 * x + 0.5 * y + 0.3), torch.cos(1.5 * y - x)])[None]


def values_of(mode: str) -> torch.Tensor:
    """Moderate numbers for each parameter of a mode: ``(2, n)``."""
    moderate = {"angle": 0.3, "sx": 1.2, "sy": 0.9, "hx": 0.15, "hy": -0.1, "tx": 0.1, "ty": -0.15}
    one = torch.tensor([moderate[name] for name in net.TRANSFORMS[mode]])
    return torch.stack([one, one - 0.05])


# ------------------------------------------------------------ spatial transformers


class TestTransforms:
    @pytest.mark.parametrize("mode", MODES)
    def test_a_new_transformer_is_the_identity(self, mode: str, parity: Parity) -> None:
        transformer = net.SpatialTransformer(2, (12, 10), mode)
        features = torch.randn(3, 2, 12, 10)
        warped, theta = transformer(features)
        assert theta is not None
        assert torch.equal(theta, torch.eye(2, 3).expand(3, 2, 3))
        parity.equal("RegAD: new spatial transformer", "the identity", warped, features, 1e-5)

    def test_a_new_network_is_its_backbone(self) -> None:
        backbone = load_backbone(identify("pocket/resnet"))
        network = net.RegistrationNet(backbone.module, 64, "rotation_scale").eval()
        images = torch.rand(2, 3, 64, 64)
        trunk = backbone.module.trunk
        with torch.no_grad():
            expected = [trunk.maxpool(trunk.act1(trunk.bn1(trunk.conv1(images))))]
            for layer in (trunk.layer1, trunk.layer2, trunk.layer3):
                expected.append(layer(expected[-1]))
            torch.testing.assert_close(network(images), expected[-1], atol=1e-5, rtol=1e-5)
            for level, features in zip(network.aligned(images), expected[1:], strict=True):
                torch.testing.assert_close(level, features, atol=1e-5, rtol=1e-5)

    def test_rotation_scale_leaves_the_sines_unscaled(self) -> None:
        theta = net.affine(torch.tensor([[0.4, 2.0, 0.5]]), "rotation_scale")[0]
        cos, sin = np.cos(0.4), np.sin(0.4)
        np.testing.assert_allclose(theta, [[2 * cos, -sin, 0], [sin, 0.5 * cos, 0]], rtol=1e-6)

    def test_affine_is_the_matrix_itself(self) -> None:
        numbers = torch.arange(6.0)[None]
        torch.testing.assert_close(net.affine(numbers, "affine"), numbers.view(1, 2, 3))

    @pytest.mark.parametrize("mode", MODES)
    def test_an_inverse_composes_to_the_identity(self, mode: str, parity: Parity) -> None:
        theta = net.affine(values_of(mode), mode).double().numpy()
        undo = net.inverse(net.affine(values_of(mode), mode)).double().numpy()
        for forth, back in zip(theta, undo, strict=True):
            whole = np.vstack([forth, [0, 0, 1]]) @ np.vstack([back, [0, 0, 1]])
            parity.equal("RegAD: transform and its inverse", "the identity", whole, np.eye(3), 1e-6)

    @pytest.mark.parametrize("mode", MODES)
    def test_warping_back_gives_the_inside_again(self, mode: str, parity: Parity) -> None:
        """Inside: what stays on the map both ways. Two resamplings blur."""
        image = waves().expand(2, -1, -1, -1)
        theta = net.affine(values_of(mode), mode)
        warped = net.warp(image, theta)
        inside = slice(20, 44)
        again = net.warp(warped, net.inverse(theta))
        assert float((warped - image)[..., inside, inside].abs().max()) > 0.05
        parts = (each[..., inside, inside] for each in (again, image))
        parity.equal("RegAD: inverse warp of a warp, inside", "the identity", *parts, 0.002)

    def test_levels_are_warped_back_in_the_right_order(self) -> None:
        """Three transforms that do not commute, behind stages that change nothing."""
        stages = OrderedDict((f"layer{i}", nn.Identity()) for i in (1, 2, 3))
        network = net.RegistrationNet(nn.Sequential(stages), 64, "rotation_scale").eval()
        for transformer, numbers in zip(
            network.transformers, ((0.3, 1.2, 0.9), (-0.2, 0.8, 1.1), (0.1, 0.9, 1.3)), strict=True
        ):
            with torch.no_grad():
                transformer.regression[-1].bias.copy_(torch.tensor(numbers))
        image = torch.cat([waves(), waves()[:, :1]], dim=1)
        inside = slice(24, 40)
        with torch.no_grad():
            assert float((network(image) - image)[..., inside, inside].abs().max()) > 0.1
            for level in network.aligned(image):
                torch.testing.assert_close(
                    level[..., inside, inside], image[..., inside, inside], atol=0.006, rtol=0
                )


class TestStages:
    @pytest.mark.parametrize(
        ("name", "size", "shapes"),
        [
            ("pocket/resnet", 64, [(24, 16), (48, 8), (96, 8)]),
            ("torchvision/resnet18[weights=random]", 224, [(64, 56), (128, 28), (256, 14)]),
            ("timm/resnet18[weights=random]", 96, [(64, 24), (128, 12), (256, 6)]),
            ("torchvision/resnet18[weights=random,layer=1]", 64, [(64, 16), (128, 8)]),
            ("torchvision/mobilenet_v2[weights=random]", 64, [(1280, 2)]),
        ],
    )
    def test_a_resnet_has_three_and_others_one(self, name: str, size: int, shapes: list[tuple[int, int]]) -> None:
        backbone = load_backbone(identify(name)).module
        network = net.RegistrationNet(backbone, size, "rotation_scale").eval()
        with torch.no_grad():
            levels = network.aligned(torch.rand(1, 3, size, size))
        assert [tuple(level.shape[1:3]) for level in levels] == shapes
        assert network.grid == (shapes[0][1],) * 2

    def test_no_transformers(self) -> None:
        network = net.RegistrationNet(load_backbone(identify("pocket/resnet")).module, 64, "none").eval()
        assert not list(network.transformers.parameters())
        with torch.no_grad():
            images = torch.rand(1, 3, 64, 64)
            assert torch.equal(network.aligned(images)[-1], network(images))


# ------------------------------------------------------------ registration


class TestRegistration:
    def test_the_loss_by_hand(self, parity: Parity) -> None:
        """Queries against the mean of their supports, both ways, through 1x1 convolutions and BatchNorm."""
        network = net.RegistrationNet(tiny.Convolution(channels=16), 16, "none").double()
        rng = np.random.default_rng(0)
        query, support = rng.random((2, 3, 16, 16)), rng.random((2, 2, 3, 16, 16))
        network.train()
        loss = network.loss(torch.from_numpy(query), torch.from_numpy(support))
        state = {name: value.numpy() for name, value in network.state_dict().items()}

        def features(images: NDArray[Any]) -> NDArray[Any]:
            padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
            return np.einsum("bchwij,ocij->bohw", windows, state["stages.0.convolution.weight"])

        def head(x: NDArray[Any], name: str, blocks: int) -> NDArray[Any]:
            for block in range(blocks):
                x = np.einsum("bchw,oc->bohw", x, state[f"{name}.{3 * block}.weight"][..., 0, 0])
                x = x - x.mean(axis=(0, 2, 3), keepdims=True)
                x = x / np.sqrt((x**2).mean(axis=(0, 2, 3), keepdims=True) + 1e-5)
                x = np.maximum(x, 0)
            return np.einsum("bchw,oc->bohw", x, state[f"{name}.{3 * blocks}.weight"][..., 0, 0])

        one, other = features(query), np.mean([features(support[:, i]) for i in (0, 1)], axis=0)
        z = [head(x, "encoder", 2) for x in (one, other)]
        p = [head(x, "predictor", 1) for x in z]

        def cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
            return float(np.mean((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)))

        expected = -0.5 * cosine(p[0], z[1]) - 0.5 * cosine(p[1], z[0])
        parity.equal("RegAD: loss", "NumPy", loss, expected, 1e-9)

    def test_no_gradient_reaches_the_other_side(self) -> None:
        p, z = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
        net.negative_cosine(p, z).backward()
        assert p.grad is not None
        assert z.grad is None

    def test_batches_hold_one_category_and_no_query_supports_itself(self) -> None:
        categories = ["a"] * 5 + ["b"] * 7 + ["alone"]
        rng = np.random.default_rng(0)
        first, second = (draw_epoch(categories, 3, 20, rng) for _ in range(2))
        for epoch in (first, second):
            assert sorted(len(queries) for queries, _ in epoch) == [1, 2, 3, 3, 3]
            assert sorted(np.concatenate([queries for queries, _ in epoch])) == list(range(12))
            for queries, supports in epoch:
                assert supports.shape == (len(queries), 20)
                assert len({categories[i] for i in (*queries, *supports.flat)}) == 1
                for query, row in zip(queries, supports, strict=True):
                    others = {i for i in range(12) if categories[i] == categories[query]} - {query}
                    assert set(row) <= others
                    assert len(set(row)) > 1
        assert any(not np.array_equal(x[0], y[0]) for x, y in zip(first, second, strict=True))


# ------------------------------------------------------------ support images


class TestAugmentation:
    @pytest.mark.parametrize(
        ("kinds", "count"),
        [(("rotation",), 9), (("translation",), 9), (("flip",), 2), (("grey",), 2), (("turn",), 4), (ALL, 22)],
    )
    def test_the_variants_are_counted_and_differ(self, kinds: Sequence[str], count: int) -> None:
        images = smooth_images(np.random.RandomState(0), 2)
        variants = net.augment(images, kinds)
        assert variants.shape == (2 * count, 3, 224, 224)
        assert torch.equal(variants[:2], images)
        distances = torch.cdist(
            variants.flatten(1), variants.flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
        )
        assert float((distances + 1e9 * torch.eye(2 * count)).min()) > 1

    def test_none_leaves_the_images_alone(self) -> None:
        images = torch.rand(2, 3, 8, 8)
        assert torch.equal(net.augment(images, ("none",)), images)

    def test_shifts_are_a_tenth_and_a_twentieth_of_the_side(self) -> None:
        image = smooth_images(np.random.RandomState(0), 1)[..., :200, :200]
        shifts = set()
        for variant in net.augment(image, ("translation",))[1:]:
            for y in (-20, -10, 10, 20):
                for x in (-20, -10, 10, 20):
                    moved = image[0, :, 50 + y : 150 + y, 50 + x : 150 + x]
                    if torch.allclose(variant[:, 50:150, 50:150], moved, atol=1e-4):
                        shifts.add((y, x))
        assert shifts == {(y * far, x * far) for far in (10, 20) for y in (-1, 1) for x in (-1, 1)}

    def test_rotations_are_by_sixteenths_of_pi(self) -> None:
        """A bright spot right of the centre tells the angle by where it goes."""
        y, x = np.mgrid[:201, :201] - 100.0
        spot = np.exp(-((x - 60) ** 2 + y**2) / 50).astype(np.float32)
        images = torch.from_numpy(np.broadcast_to(spot, (1, 3, 201, 201)).copy())
        angles = []
        for variant in net.augment(images, ("rotation",))[1:]:
            inner = variant[0, 20:181, 20:181]  # the spot is mirrored into a corner
            top, left = np.unravel_index(int(inner.argmax()), inner.shape)
            assert np.hypot(top - 80, left - 80) == pytest.approx(60, abs=1)
            angles.append(np.arctan2(top - 80, left - 80) / np.pi * 16)
        np.testing.assert_allclose(sorted(angles), [-4, -3, -2, -1, 1, 2, 3, 4], atol=0.1)

    def test_flip_grey_and_turns_by_numpy(self) -> None:
        image = np.random.default_rng(0).random((3, 6, 6), dtype=np.float32)
        _, flip, grey, *turns = net.augment(torch.from_numpy(image)[None], ("flip", "grey", "turn")).numpy()
        np.testing.assert_array_equal(flip, image[:, :, ::-1])
        np.testing.assert_allclose(grey, np.stack([np.tensordot([0.299, 0.587, 0.114], image, 1)] * 3), rtol=1e-6)
        for quarters, turned in enumerate(turns, start=1):
            np.testing.assert_array_equal(turned, np.rot90(image, quarters, (1, 2)))


# ------------------------------------------------------------ Gaussians and maps


class TestGaussians:
    def test_the_covariance_is_unbiased_and_shrunk(self) -> None:
        samples = np.random.default_rng(0).normal(size=(7, 3, 5))
        mean, factor = net.gaussians(torch.from_numpy(samples), 0.01)
        for position in range(3):
            expected = np.cov(samples[:, position], rowvar=False) + 0.01 * np.eye(5)
            lower = factor[position].numpy()
            np.testing.assert_allclose(lower @ lower.T, expected, atol=1e-12)
            np.testing.assert_allclose(mean[position], samples[:, position].mean(0), atol=1e-12)

    def test_distances_by_numpy(self, parity: Parity) -> None:
        """More features than images, as always."""
        rng = np.random.default_rng(1)
        shapes = ((4, 6), (3, 3), (5, 2))
        support = [rng.normal(2, 1, (8, c, s, s)).astype(np.float32) for c, s in shapes]
        test = [rng.normal(2, 1, (5, c, s, s)).astype(np.float32) for c, s in shapes]

        def stacked(levels: list[NDArray[np.float32]]) -> NDArray[np.float64]:
            repeated = [np.repeat(np.repeat(x, 6 // x.shape[2], 2), 6 // x.shape[3], 3) for x in levels]
            return np.concatenate(repeated, axis=1).astype(np.float64)

        normal, seen = stacked(support), stacked(test)
        expected = np.empty((5, 6, 6))
        for y, x in np.ndindex(6, 6):
            inverse = np.linalg.inv(np.cov(normal[:, :, y, x], rowvar=False) + 0.01 * np.eye(12))
            for image in range(5):
                delta = seen[image, :, y, x] - normal[:, :, y, x].mean(0)
                expected[image, y, x] = np.sqrt(delta @ inverse @ delta)
        found = net.distance_maps(
            [torch.from_numpy(s) for s in support], [torch.from_numpy(t) for t in test], 0.01
        )
        assert found.dtype == torch.float32
        parity.equal("RegAD: Mahalanobis distances", "NumPy", found, expected, 1e-6)

    def test_positions_are_taken_a_few_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = torch.Generator().manual_seed(0)
        support, test = (
            [torch.rand(n, c, s, s, generator=generator) for c, s in ((4, 6), (3, 3))] for n in (8, 3)
        )
        whole = net.distance_maps(support, test, 0.01)
        monkeypatch.setattr(net, "_FACTOR_ENTRIES", 5 * 49)
        torch.testing.assert_close(net.distance_maps(support, test, 0.01), whole)

    def test_smoothing_has_the_variance_it_says_and_mirrors_at_the_border(self) -> None:
        point = torch.zeros(1, 17, 17)
        point[0, 8, 8] = 1
        mass = net.smooth(point, 68, 4.0)[0].astype(np.float64)
        place = np.arange(68) - 33.5
        rows = mass.sum(1) / mass.sum()
        plain = net.smooth(point, 68, 0.0)[0].astype(np.float64).sum(1)
        added = (rows * place**2).sum() - (plain / plain.sum() * place**2).sum()
        assert added == pytest.approx(16, rel=0.01)
        np.testing.assert_allclose(net.smooth(torch.ones(1, 5, 5), 20, 4.0), 1, rtol=1e-5)
