"""RegAD as a method: what it learns, what changes its scores, and when it cannot run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
import trees
from agreement import assert_agree
from numpy.typing import NDArray

from bench.contracts import Context, ImageSet, Scores, TrainingSet
from bench.errors import BenchError, NotApplicable
from bench.methods.regad import RegAD
from bench.methods.regad import net as net
from bench.methods.shared.pixels import load_pixels
from bench.tools.spec import build_config, parse_spec

QUICK = RegAD.Config(epochs=2, batch_size=3)


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
        network, support = tiny.backbone(tiny.Convolution(norm=True)), support or self.support
        return tiny.context(network=network, seed=seed, support=support, n_support=len(support))

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

    def test_number_and_order_of_test_images_change_nothing_but_rounding(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = world.run()
        order = [7, 2, 11, 0]
        part = world.run(test=world.test.subset(order))
        assert_agree(part, whole, order)
        monkeypatch.setattr("bench.methods.regad._GROUP", 4)
        assert_agree(world.run(), whole, range(len(whole.image)))

    def test_the_network_sees_each_image_once_in_batches(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = []
        aligned = net.RegistrationNet.aligned

        def spy(network: net.RegistrationNet, images: torch.Tensor) -> list[torch.Tensor]:
            seen.append(len(images))
            return aligned(network, images)

        monkeypatch.setattr(net.RegistrationNet, "aligned", spy)
        world.run(test=world.test.subset([3]))
        assert max(seen) == 16
        assert sum(seen) == 22 * len(world.support) + 1  # the support's variants, and the test image

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
            network=tiny.backbone(tiny.Convolution(norm=True), frozen_norm=True), n_support=len(world.support)
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
        found = load_pixels(world.test, 9, resampling="lanczos")[0]
        np.testing.assert_array_equal(found.permute(1, 2, 0), np.asarray(expected))
        assert not torch.equal(load_pixels(world.test, 9)[0], found)

    def test_the_images_side(self, world: World) -> None:
        for own, option, expected in ((448, 0, 224), (64, 0, 64), (64, 96, 96)):
            method = RegAD(RegAD.Config(img_size=option))
            method._backbone = tiny.backbone(image_size=own)
            assert method._size == expected


class TestReasons:
    def test_without_support(self, world: World) -> None:
        context = tiny.context(network=tiny.backbone())
        lacks = r"K normal images of the target; use --protocol loo\[k=4\]"
        with pytest.raises(NotApplicable, match=lacks):
            RegAD(QUICK).fit(world.train, context)
        method = RegAD(replace(QUICK, supports=2))  # it can learn without knowing of a target
        method.fit(world.train, context)
        with pytest.raises(NotApplicable, match=lacks):
            method.score(world.test, context)

    def test_a_zero_shot_study_skips_it_and_says_why(self, tmp_path: Path) -> None:
        from bench.store.store import Store
        from bench.study.plan import prepare
        from bench.study.study import Study
        from bench.trial.trial import run_trial

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
