"""Backbones of timm and torchvision: weights, feature maps, options, and the messages when that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision import models

from bench.contracts import Backbone
from bench.encoders import identify, load_backbone, load_network, load_text_image, weights
from bench.errors import BenchError
from bench.tools.hashes import hash_file

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, filename: None)
    monkeypatch.setattr(weights, "unreachable", lambda url: "no connection")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))


def load(name: str, file: Path | None = None) -> Backbone:
    return load_backbone(identify(name, file))


def features(backbone: Backbone) -> torch.Tensor:
    backbone.module.eval()
    with torch.no_grad():
        result: torch.Tensor = backbone.module(IMAGES)
    return result


def test_timm_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model("resnet10t", pretrained=False).eval()
    file = tmp_path / "resnet.safetensors"
    save_file(whole.state_dict(), file)
    last = load("timm/resnet10t", file)
    assert last.weights_hash == hash_file(file)
    assert (last.channels, last.stride, last.image_size, last.frozen_norm) == (512, 32, 448, False)
    assert last.mean == (0.485, 0.456, 0.406)
    with torch.no_grad():
        torch.testing.assert_close(features(last), whole.forward_features(IMAGES))
    third = load("timm/resnet10t[layer=3,image_size=64]", file)
    assert (third.channels, third.stride, third.image_size) == (256, 16, 64)
    torch.testing.assert_close(third.module.network.layer3[0].conv1.weight, whole.layer3[0].conv1.weight)


def test_torchvision_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = models.resnet18(weights=None).eval()
    file = tmp_path / "resnet.pth"
    torch.save({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")}, file)
    found = load("torchvision/resnet18", file)
    assert (found.channels, found.stride) == (512, 32)
    expected: list[torch.Tensor] = []
    whole.layer4.register_forward_hook(lambda module, inputs, output: expected.append(output))
    with torch.no_grad():
        whole(IMAGES)
    torch.testing.assert_close(features(found), expected[0])
    second = load("torchvision/resnet18[layer=1]", file)
    assert (second.channels, second.stride) == (128, 8)


def test_a_network_for_libraries_that_build_theirs_through_timm(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model("mobilenetv2_050", pretrained=False, pad_type="same").eval()
    file = tmp_path / "mobilenet.safetensors"
    save_file(whole.state_dict(), file)
    found = identify("timm/mobilenetv2_050[pad_type=same,mean=0.5+0.5+0.5,std=0.1+0.2+0.3]", file)
    network = load_network(found)
    assert (network.name, network.architecture) == (found.name, "mobilenetv2_050")
    assert (network.mean, network.std, network.image_size) == ((0.5,) * 3, (0.1, 0.2, 0.3), 448)
    maps: Any = network.create(pretrained=True, features_only=True, out_indices=[1, 4]).eval()
    with torch.no_grad():
        assert torch.equal(maps(IMAGES)[-1], features(load_backbone(found)))
        assert torch.equal(network.create(pretrained=True, num_classes=0).eval().forward_features(IMAGES),
                           whole.forward_features(IMAGES))  # fmt: skip
        assert not torch.equal(network.create(pretrained=False).eval()(IMAGES), whole(IMAGES))
    with pytest.raises(BenchError, match="does not hold weights of timm/resnet18"):
        load_network(identify("timm/resnet18", file))
    for other in ("torchvision/resnet18[weights=random]", "random/ViT-B-32"):
        with pytest.raises(BenchError, match="cannot be built through timm"):
            load_network(identify(other))


def test_each_trial_gets_a_copy_and_no_draw_is_spent(tmp_path: Path) -> None:
    torch.manual_seed(3)
    file = tmp_path / "resnet.safetensors"
    save_file(timm.create_model("resnet10t", pretrained=False).state_dict(), file)
    torch.manual_seed(1)
    first = load("timm/resnet10t", file)
    drawn = torch.rand(3)
    with torch.no_grad():
        for parameter in first.module.parameters():
            parameter.zero_()
    torch.manual_seed(1)
    second = load("timm/resnet10t", file)
    assert torch.equal(torch.rand(3), drawn)
    assert second.module.training
    assert features(second).abs().max() > 0


def test_random_weights_follow_the_trials_seed() -> None:
    def first_weight(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return next(iter(load("timm/resnet10t[weights=random]").module.parameters())).detach()

    assert torch.equal(first_weight(1), first_weight(1))
    assert not torch.equal(first_weight(1), first_weight(2))
    assert identify("torchvision/resnet18[weights=random]").sha256 == "random"
    assert load("torchvision/mobilenet_v3_small[weights=random]").channels == 576


def test_the_real_imagenet_backbone(real_weights: Path) -> None:
    name = "timm/mobilenetv2_100[pad_type=same,mean=0.5+0.5+0.5,std=0.5+0.5+0.5,frozen_norm=on]"
    found = load(name, real_weights)
    assert (found.channels, found.stride, found.image_size, found.frozen_norm) == (320, 32, 448, True)
    assert found.mean == found.std == (0.5, 0.5, 0.5)
    whole = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same").eval()
    whole.load_state_dict(load_file(real_weights))
    with torch.no_grad():
        expected = whole.blocks(whole.bn1(whole.conv_stem(IMAGES)))
    torch.testing.assert_close(features(found), expected)
    with pytest.raises(BenchError, match=r"does not hold weights of timm/resnet18: 'conv1.weight' is missing"):
        load("timm/resnet18", real_weights)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet18", r"timm/resnet18.a1_in1k/model.safetensors on the Hugging Face hub .*\(no connection\)"),
        ("torchvision/resnet18", r"download.pytorch.org/models/resnet18-f37072fd.pth .*\(no connection\)"),
    ],
)
def test_weights_that_cannot_be_had(name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        identify(name)
    assert "--weights FILE" in str(caught.value)
    assert "--backbone pocket/resnet" in str(caught.value)


def test_torchvisions_weights_in_torch_hubs_folder(tmp_path: Path) -> None:
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"1")
    assert identify("torchvision/resnet18").file == file
    assert identify("torchvision/resnet18[weights=IMAGENET1K_V1]").file == file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet118", "unknown timm model 'resnet118'. Did you mean 'resnet18'"),
        ("torchvision/resnet17", "unknown torchvision model 'resnet17'. Did you mean 'resnet18'"),
        ("torchvision/resnet18[weights=IMAGENET1K_V9]", "Known: IMAGENET1K_V1, random"),
        ("timm/resnet18[weights=a1_in1k]", "weights is random or left out"),
        ("timm/resnet18[mean=0.5]", "three values, written 0.5"),
        ("timm/resnet18[layr=3]", "Did you mean 'layer'"),
    ],
)
def test_mistakes_in_a_name(name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        identify(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm/resnet10t[weights=random,pad_type=same]", "resnet10t has no option pad_type"),
        ("timm/resnet10t[weights=random,layer=9]", "resnet10t has no feature map 9"),
        ("torchvision/resnet18[weights=random,layer=4]", "no feature map 4; it has 4, counted from 0"),
        ("torchvision/vit_b_32[weights=random]", "no network with a convolutional feature map"),
        ("timm/vit_tiny_patch16_224[weights=random]", "is no convolutional network for images of any size"),
    ],
)
def test_options_that_do_not_fit_the_model(name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        load(name)


def test_no_text_and_no_file_for_random() -> None:
    with pytest.raises(BenchError, match="has no text tower"):
        load_text_image(identify("timm/resnet10t[weights=random]"))
    with pytest.raises(BenchError, match="draws its weights and takes no file"):
        identify("timm/resnet10t[weights=random]", Path("any"))
