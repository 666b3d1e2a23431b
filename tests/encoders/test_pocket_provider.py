"""The shipped encoders, through the same door as all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from bench.encoders import identify, load_backbone, load_network, load_text_image
from bench.errors import BenchError
from bench.tools.hashes import hash_file


def test_clip() -> None:
    found = identify("pocket/clip")
    assert found.file is not None
    assert found.sha256 == hash_file(found.file)
    encoder = load_text_image(found)
    assert (encoder.name, encoder.image_size) == ("pocket/clip", 96)
    assert all(parameter.dtype == torch.float32 for parameter in encoder.model.parameters())
    images = tiny.image_set(tiny.noise(2, side=70))
    features = encoder.encode_images(images, layers=(0, encoder.n_blocks - 1))
    assert features.grid == (8, 8)
    assert features.tokens[0].shape == (2, 65, encoder.width)
    assert features.embedding.shape == encoder.encode_text(["a washer", "a broken gear"]).shape
    assert features.embedding.isfinite().all()


def test_resnet() -> None:
    backbone = load_backbone(identify("pocket/resnet"))
    assert (backbone.image_size, backbone.frozen_norm) == (96, False)
    features = backbone.module(torch.zeros(2, 3, 96, 96))
    side = 96 // backbone.stride
    assert features.shape == (2, backbone.channels, side, side)
    with torch.no_grad():
        next(iter(backbone.module.parameters())).zero_()
    again = load_backbone(identify("pocket/resnet[frozen_norm=on,image_size=128]"))
    assert (again.image_size, again.frozen_norm) == (128, True)
    assert next(iter(again.module.parameters())).abs().max() > 0


def test_loading_spends_no_draw() -> None:
    drawn = []
    for name, load in (("pocket/clip", load_text_image), ("pocket/resnet", load_backbone)):
        torch.manual_seed(4)
        load(identify(name))
        drawn.append(torch.rand(2))
    torch.manual_seed(4)
    expected = torch.rand(2)
    assert all(torch.equal(values, expected) for values in drawn)


def test_own_weights_must_fit(tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    save_file({"a": torch.zeros(1)}, file)
    for name, load in (("pocket/clip", load_text_image), ("pocket/resnet", load_backbone)):
        with pytest.raises(BenchError, match=f"does not hold weights of {name}"):
            load(identify(name, file))


def test_mistakes() -> None:
    with pytest.raises(BenchError, match="Did you mean 'pocket/clip'"):
        identify("pocket/clp")
    with pytest.raises(BenchError, match="the text-image encoder is pocket/clip"):
        load_text_image(identify("pocket/resnet"))
    with pytest.raises(BenchError, match="the trainable backbone is pocket/resnet"):
        load_backbone(identify("pocket/clip"))
    with pytest.raises(BenchError, match="unknown option"):
        identify("pocket/clip[image_size=32]")


def test_its_network_for_other_libraries_is_the_same() -> None:
    """With timm's interface and a resnet18's names, with its weights or without them."""
    weights = identify("pocket/resnet")
    network = load_network(weights)
    assert (network.architecture, network.image_size) == ("resnet18", 96)
    images = torch.rand(2, 3, 96, 96)
    features: Any = network.create(pretrained=True, features_only=True, out_indices=[1, 4], exportable=True)
    assert features.feature_info.module_name() == ["layer1", "layer4"]
    backbone = load_backbone(weights).module
    with torch.no_grad():
        first, last = features.eval()(images)
        assert torch.equal(last, backbone.eval()(images))
        assert features.feature_info.channels() == [first.shape[1], last.shape[1]]
        drawn: Any = network.create(pretrained=False)
        assert not torch.equal(drawn.eval().forward_features(images), last)
    with pytest.raises(BenchError, match="pocket/clip is a frozen text-image encoder"):
        load_network(identify("pocket/clip"))
