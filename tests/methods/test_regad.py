"""RegAD: transforms, Gaussians and augmentations by hand, the network against the official code's numbers.

Against the official modules (``models/stn.py``, ``models/siamese.py``, ``utils/funcs.py`` at 5e2c1f8, run on a CPU
with the weights and images of :func:`fill` and :func:`smooth_images`), the largest differences found were 0 for
the features, 1e-5 for the features warped back (of up to 24), 3e-6 for the augmentations, 9e-6 relative for the
56x56 distances (which the official code takes with float32 inverses), 0 for the loss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import trees
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from bench.config import build_config, parse_spec
from bench.contracts import Context, ImageSet, Scores, TrainingSet
from bench.encoders import identify, load_backbone
from bench.errors import BenchError, NotApplicable
from bench.methods import _regad_net as net
from bench.methods.regad import RegAD, draw_epoch, load_pixels

ALL = ("rotation", "translation", "flip", "grey", "turn")
MODES = sorted(set(net.TRANSFORMS) - {"none"})
QUICK = RegAD.Config(epochs=2, batch_size=3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    def test_a_new_transformer_is_the_identity(self, mode: str) -> None:
        transformer = net.SpatialTransformer(2, (12, 10), mode)
        features = torch.randn(3, 2, 12, 10)
        warped, theta = transformer(features)
        assert theta is not None
        assert torch.equal(theta, torch.eye(2, 3).expand(3, 2, 3))
        torch.testing.assert_close(warped, features, atol=1e-5, rtol=0)

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
    def test_an_inverse_composes_to_the_identity(self, mode: str) -> None:
        theta = net.affine(values_of(mode), mode).double().numpy()
        undo = net.inverse(net.affine(values_of(mode), mode)).double().numpy()
        for forth, back in zip(theta, undo, strict=True):
            whole = np.vstack([forth, [0, 0, 1]]) @ np.vstack([back, [0, 0, 1]])
            np.testing.assert_allclose(whole, np.eye(3), atol=1e-6)

    @pytest.mark.parametrize("mode", MODES)
    def test_warping_back_gives_the_inside_again(self, mode: str) -> None:
        """Inside: what stays on the map both ways. Largest error of two resamplings measured: 0.0012."""
        image = waves().expand(2, -1, -1, -1)
        theta = net.affine(values_of(mode), mode)
        warped = net.warp(image, theta)
        inside = slice(20, 44)
        again = net.warp(warped, net.inverse(theta))
        assert float((warped - image)[..., inside, inside].abs().max()) > 0.05
        torch.testing.assert_close(again[..., inside, inside], image[..., inside, inside], atol=0.002, rtol=0)

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
    def test_the_loss_by_hand(self) -> None:
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

        assert loss.item() == pytest.approx(-0.5 * cosine(p[0], z[1]) - 0.5 * cosine(p[1], z[0]), rel=1e-9)

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

    def test_distances_by_numpy(self) -> None:
        """More features than images, as always. Largest relative error measured: 1e-7, of the float32 result."""
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
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)

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


# ------------------------------------------------------------ the official code's numbers


def fill(network: nn.Module) -> None:
    """Weights that any implementation can be given: draws in the order of the state dict."""
    rng = np.random.RandomState(0)
    for name, value in network.state_dict().items():
        if not value.is_floating_point():
            continue
        draws = rng.randn(*value.shape)
        draws *= (2 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.1
        if name.endswith("running_var"):
            draws = np.abs(draws) + 1
        if value.ndim == 1 and name.endswith("weight"):
            draws += 1
        if value.shape[0] == 3 and value.ndim <= 2:  # a transformer's last layer: not far from the identity
            draws = draws * 0.05 + (np.array([0, 1, 1]) if value.ndim == 1 else 0)
        value.copy_(torch.from_numpy(draws))


@pytest.fixture(scope="module")
def network() -> net.RegistrationNet:
    backbone = load_backbone(identify("torchvision/resnet18[weights=random]"))
    network = net.RegistrationNet(backbone.module, 224, "rotation_scale")
    fill(network)
    return network


@pytest.fixture(scope="module")
def images() -> dict[str, torch.Tensor]:
    rng = np.random.RandomState(1)
    return {name: smooth_images(rng, n) for name, n in (("query", 2), ("support", 4), ("test", 3), ("few", 1))}


class TestOfficialNumbers:
    """Numbers that the official modules gave; see the module's head."""

    def test_features_warped_back(self, network: net.RegistrationNet, images: dict[str, torch.Tensor]) -> None:
        network.eval()
        with torch.no_grad():
            levels = network.aligned(images["test"])
        for level, mean, points in zip(
            levels,
            (0.8916477933726642, 1.4720250304235802, 2.8156473193863345),
            (
                (0.7954109311103821, 0.5997690558433533, 0.5117504000663757),
                (3.6589279174804688, 0.0, 3.073969841003418),
                (1.3296092748641968, 4.681312561035156, 1.2635760307312012),
            ),
            strict=True,
        ):
            channels, height, width = level.shape[1:]
            where = ((0, 0, 0), (5, height // 2, width // 3), (channels - 1, height - 2, 1))
            found = [float(level[0, c, y, x]) for c, y, x in where]
            np.testing.assert_allclose(found, points, rtol=1e-4, atol=1e-4)
            assert float(level.double().mean()) == pytest.approx(mean, rel=1e-5)

    def test_distances(self, network: net.RegistrationNet, images: dict[str, torch.Tensor]) -> None:
        network.eval()
        positions = torch.tensor([0, 55, 1600, 3135])
        with torch.no_grad():
            normal = net.at_positions(network.aligned(net.augment(images["few"], ALL)), positions)
            seen = net.at_positions(network.aligned(images["test"]), positions)
        found = net.mahalanobis(seen.double(), *net.gaussians(normal.double(), 0.01))
        expected = [
            [55.259246826171875, 59.333255767822266, 81.16493225097656, 71.91654968261719],
            [69.76112365722656, 37.63105392456055, 59.21609115600586, 71.43065643310547],
            [60.38057327270508, 61.62605285644531, 65.73811340332031, 69.7727279663086],
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-4)

    def test_the_loss_and_its_gradient(
        self, network: net.RegistrationNet, images: dict[str, torch.Tensor]
    ) -> None:
        network.train()
        loss = network.loss(images["query"], images["support"].unflatten(0, (2, 2)))
        assert loss.item() == pytest.approx(0.00528264045715332, rel=1e-3)
        loss.backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        for name, norm in (
            ("transformers.0.regression.3.weight", 21.339534759521484),
            ("stem.0.weight", 0.7613543272018433),
            ("transformers.2.regression.3.bias", 0.020429765805602074),
            ("predictor.3.weight", 0.24310614168643951),
        ):
            gradient = gradients[name]
            assert gradient is not None
            assert float(gradient.norm()) == pytest.approx(norm, rel=5e-3), name


# ------------------------------------------------------------ the method


class World:
    """Two seen categories and a target, of noise in a category's colour; an anomaly is a bright square."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.train = self._training(240)
        self.labels = [0, 1] * 6
        self.test = tiny.image_set([self._image(2, y) for y in self.labels])
        self.support = tiny.image_set([self._image(2, 0) for _ in range(3)])

    def _training(self, brightness: int) -> TrainingSet:
        labels = [0] * 4 + [1] * 2
        images = [self._image(c, y) for c in (0, 1) for y in labels]
        return tiny.training_set(tiny.image_set(images, ["red"] * 6 + ["green"] * 6), labels * 2)

    def _image(self, channel: int, anomalous: int) -> NDArray[np.uint8]:
        image = self.rng.integers(60, 100, (20, 20, 3), dtype=np.uint8)
        image[:, :, channel] += 80
        if anomalous:
            y, x = self.rng.integers(2, 12, 2)
            image[y : y + 6, x : x + 6] = 240
        return image

    def context(self, seed: int = 1, support: ImageSet | None = None) -> Context:
        return tiny.context(
            network=tiny.backbone(tiny.Convolution(norm=True)), seed=seed, support=support or self.support
        )

    def run(
        self, config: RegAD.Config = QUICK, seed: int = 1, test: ImageSet | None = None, **given: Any
    ) -> Scores:
        context = self.context(seed, given.pop("support", None))
        torch.manual_seed(given.pop("global_seed", 0))
        method = RegAD(config)
        method.fit(given.pop("train", self.train), context)
        return method.score(test or self.test, context)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class TestMethod:
    def test_anomalies_score_higher_where_they_are(self, world: World) -> None:
        scores = world.run()
        labels = np.array(world.labels, dtype=bool)
        assert scores.maps is not None
        assert scores.maps.shape == (12, 8, 8)
        assert scores.image[labels].min() > scores.image[~labels].max()
        brightest = [np.asarray(image).min(axis=2) for image in world.test]
        for index in np.flatnonzero(labels):
            y, x = np.unravel_index(scores.maps[index].argmax(), (8, 8))
            cell = brightest[index][int(y * 2.5) : int(y * 2.5 + 3), int(x * 2.5) : int(x * 2.5 + 3)]
            assert cell.max() == 240

    def test_the_same_seed_gives_the_same_bits_whatever_was_drawn_before(self, world: World) -> None:
        first, second = world.run(global_seed=0), world.run(global_seed=5)
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.maps, second.maps)
        assert not np.array_equal(first.image, world.run(seed=2).image)

    def test_number_and_order_of_test_images_change_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = world.run()
        order = [7, 2, 11, 0]
        part = world.run(test=world.test.subset(order))
        np.testing.assert_array_equal(part.image, whole.image[order])
        assert whole.maps is not None
        np.testing.assert_array_equal(part.maps, whole.maps[order])
        monkeypatch.setattr("bench.methods.regad._GROUP", 4)
        np.testing.assert_array_equal(world.run().image, whole.image)

    def test_the_network_sees_batches_of_one_size(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """Since what it computes for an image may otherwise round differently for other numbers of images."""
        seen = set()
        aligned = net.RegistrationNet.aligned

        def spy(network: net.RegistrationNet, images: torch.Tensor) -> list[torch.Tensor]:
            seen.add(len(images))
            return aligned(network, images)

        monkeypatch.setattr(net.RegistrationNet, "aligned", spy)
        world.run(test=world.test.subset([3]))
        assert seen == {16}

    def test_it_learns_from_normals_alone(self, world: World) -> None:
        normal = np.flatnonzero(world.train.labels == 0)
        without = tiny.training_set(world.train.images.subset(normal), [0] * len(normal))
        np.testing.assert_array_equal(world.run(train=without).image, world.run().image)

    def test_the_rate_reaches_zero_in_the_last_epoch(self, world: World) -> None:
        """So one epoch moves BatchNorm's statistics alone, and two epochs move the weights."""
        after = {}
        for epochs in (1, 2):
            method = RegAD(replace(QUICK, epochs=epochs))
            method.fit(world.train, world.context())
            assert method._net is not None
            after[epochs] = {name: value.clone() for name, value in method._net.state_dict().items()}
        start = tiny.Convolution(norm=True).state_dict()
        assert torch.equal(after[1]["stages.0.convolution.weight"], start["convolution.weight"])
        assert not torch.equal(after[2]["stages.0.convolution.weight"], start["convolution.weight"])
        assert not torch.equal(after[1]["stages.0.norm.running_mean"], start["norm.running_mean"])

    def test_a_frozen_norm_stays(self, world: World) -> None:
        context = tiny.context(
            network=tiny.backbone(tiny.Convolution(norm=True), frozen_norm=True), support=world.support
        )
        method = RegAD(QUICK)
        method.fit(world.train, context)
        assert method._net is not None
        assert torch.equal(method._net.state_dict()["stages.0.norm.running_mean"], torch.zeros(3))
        assert method._net.state_dict()["encoder.1.running_mean"].any()

    @pytest.mark.parametrize(
        "option",
        [
            "lr=0.1", "momentum=0.5,lr=0.1", "batch_size=2,lr=0.1", "supports=1,lr=0.1", "normalise=on",
            "augment=flip", "augment=none", "shrinkage=0.1", "gauss_sigma=20", "stn=none,lr=0.1", "img_size=12",
            "epochs=3,lr=0.1",
        ],
    )  # fmt: skip
    def test_every_option_does_something(self, world: World, option: str) -> None:
        config = build_config(RegAD.Config, parse_spec(f"regad[{option}]"))
        base = RegAD.Config(epochs=2, batch_size=3, lr=0.1 if "lr=" in option else 1e-4)
        kept = {"epochs": 2, "batch_size": 3}
        changed = replace(config, **{k: v for k, v in kept.items() if k not in option})
        before, after = world.run(base), world.run(changed)
        if option == "lr=0.1":
            before = world.run()
        assert not np.array_equal(before.image, after.image)

    def test_images_are_scaled_by_lanczos(self, world: World) -> None:
        from PIL import Image

        expected = Image.fromarray(world.test[0]).resize((9, 9), Image.Resampling.LANCZOS)
        np.testing.assert_array_equal(load_pixels(world.test, 9)[0].permute(1, 2, 0), np.asarray(expected))

    def test_the_images_side(self, world: World) -> None:
        for own, option, expected in ((448, 0, 224), (64, 0, 64), (64, 96, 96)):
            method = RegAD(RegAD.Config(img_size=option))
            method._backbone = tiny.backbone(image_size=own)
            assert method._size == expected


class TestReasons:
    def test_without_support(self, world: World) -> None:
        context = tiny.context(network=tiny.backbone())
        for config in (QUICK, replace(QUICK, supports=2)):
            with pytest.raises(NotApplicable, match=r"K normal images of the target; use --protocol loo\[k=4\]"):
                RegAD(config).fit(world.train, context)

    def test_a_zero_shot_study_skips_it_and_says_why(self, tmp_path: Path) -> None:
        from bench.plan import prepare
        from bench.store import Store
        from bench.study import Study
        from bench.trial import run_trial

        for name in ("bolt", "cloth"):
            trees.category(tmp_path / "data", name, {"dent": 2})
        for number, path in enumerate(sorted((tmp_path / "data").glob("*/t*/*/*.png"))):
            trees.picture(path, value=50 + 5 * number)  # no image a copy of another
        spec = parse_spec("regad[epochs=1,backbone=pocket/resnet]")
        study = Study(
            "s", (spec,), (parse_spec("folder"),), roots={"folder": tmp_path / "data"}, shots=(1,), seeds=(0,)
        )
        outcome = run_trial(prepare(study, Store(tmp_path / "store")).tasks[0])
        assert outcome.record["status"] == "skipped", outcome.record["reason"]
        assert outcome.record["reason"] == "RegAD needs K normal images of the target; use --protocol loo[k=4]"
        assert not outcome.record["trial"]["method"]["zero_shot"]

    def test_one_support_image_without_variants(self, world: World) -> None:
        one = world.support.subset([0])
        assert np.isfinite(world.run(support=one).image).all()
        with pytest.raises(NotApplicable, match="two support images"):
            world.run(replace(QUICK, augment=("none",)), support=one)

    def test_nothing_to_register(self, world: World) -> None:
        single = tiny.training_set(world.train.images.subset([0, 6]), [0, 0])
        with pytest.raises(NotApplicable, match="no seen category has two"):
            RegAD(QUICK).fit(single, world.context())

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ("epochs=0", "epochs must be at least 1"),
            ("lr=-1", "lr must not be below 0"),
            ("shrinkage=0", "singular"),
            ("augment=none+flip", "augment is none, or"),
            ("augment=blur", "choose one of"),
            ("stn=twist", "choose one of"),
        ],
    )
    def test_options_that_make_no_sense(self, option: str, message: str) -> None:
        with pytest.raises(BenchError, match=message):
            build_config(RegAD.Config, parse_spec(f"regad[{option}]"))

    def test_the_tables_mark(self) -> None:
        traits = RegAD.traits(RegAD.Config())
        assert traits.support and traits.backbone and traits.trained and not traits.zero_shot
        assert "last epoch" in traits.adapted
