"""Encoders of open_clip: activation, weights from files and the hub, and the messages when that fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import tiny
import torch
from open_clip.pretrained import _PRETRAINED
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from bench.encoders import identify, load_backbone, load_text_image, weights
from bench.encoders.openclip import _parse
from bench.encoders.towers import FrozenClip
from bench.errors import BenchError
from bench.tools.hashes import hash_file
from bench.tools.spec import parse_spec

ARCHITECTURE = {
    "embed_dim": 20,
    "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 24, "head_width": 12, "layers": 3},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 4, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def tiny_vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small architecture that open_clip knows, with weights on a hub that nobody can reach."""
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", list(open_clip.factory._MODEL_CONFIG_PATHS))
    file = tmp_path / "configs" / "tiny-vit.json"
    file.parent.mkdir()
    file.write_text(json.dumps(ARCHITECTURE))
    open_clip.add_model_config(file)
    openai = {"hf_hub": "nobody/tiny/", "url": "", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    plain = {"hf_hub": "nobody/tiny-plain/weights.bin", "url": ""}
    url = {"hf_hub": "", "url": "https://nowhere.invalid/tiny.pt"}
    monkeypatch.setitem(_PRETRAINED, "tiny-vit", {"openai": openai, "plain": plain, "old": url})
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, filename: None)
    monkeypatch.setattr(weights, "unreachable", lambda url: "no connection to the hub")


def state(seed: int = 5) -> dict[str, torch.Tensor]:
    model = tiny.clip_model()  # for its seed alone
    torch.manual_seed(seed)
    model = open_clip.create_model("tiny-vit")
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def load(name: str, file: Path | None = None) -> FrozenClip:
    encoder = load_text_image(identify(name, file))
    assert isinstance(encoder, FrozenClip)
    return encoder


@pytest.mark.parametrize(
    ("name", "quick"),
    [
        ("openai/ViT-B-16", True),
        ("openai/ViT-B-16-quickgelu", True),
        ("local/ViT-B-16-quickgelu", True),
        ("openai/ViT-L-14-336", True),
        ("laion2b_s34b_b88k/ViT-B-16", False),
        ("laion400m_e31/ViT-B-16-plus-240", False),
        ("random/ViT-B-16", False),
    ],
)
def test_which_models_have_quick_gelu(name: str, quick: bool) -> None:
    assert _parse(parse_spec(name)).quick_gelu == quick


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("plain", False)])
def test_the_activation_is_built_in(tag: str, quick: bool, tmp_path: Path) -> None:
    file = tmp_path / "tiny.safetensors"
    save_file(state(), file)
    encoder = load(f"{tag}/tiny-vit", file)
    activations = [module for module in encoder.model.modules() if isinstance(module, QuickGELU | torch.nn.GELU)]
    assert len(activations) == 4  # three blocks of the image tower, one of the text's
    assert all(isinstance(activation, QuickGELU) == quick for activation in activations)


def test_weights_from_a_file(tmp_path: Path) -> None:
    own = state()
    file = tmp_path / "tiny.safetensors"
    save_file({name: tensor.half() for name, tensor in own.items()}, file)
    found = identify("openai/tiny-vit", file)
    assert found.sha256 == hash_file(file)
    assert found.file == file
    encoder = load("openai/tiny-vit", file)
    for name, tensor in encoder.model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, own[name].half().float())
    assert encoder._mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert encoder.encode_text(["a photo of a screw"]).shape == (1, 20)
    assert encoder.encode_images(tiny.image_set(tiny.noise(2)), layers=(1,)).tokens[1].shape == (2, 17, 24)


def test_torch_files_wrapped_as_training_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    extra = {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in (state() | extra).items()}}, file)
    assert torch.equal(load("local/tiny-vit", file).model.state_dict()["visual.proj"], state()["visual.proj"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visual.proj": None}, r"'visual.proj' is missing \(\d+ tensors in the file\)"),
        ({"visual.proj": torch.zeros(3, 4)}, r"'visual.proj' has shape \(3, 4\), expected \(24, 20\)"),
        ({"classifier.weight": torch.zeros(2)}, "'classifier.weight' does not belong to this model"),
    ],
)
def test_weights_of_another_model(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.safetensors"
    save_file({k: v for k, v in (state() | change).items() if v is not None}, file)
    with pytest.raises(BenchError, match=f"tiny.safetensors does not hold weights of openai/tiny-vit: {message}"):
        load("openai/tiny-vit", file)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"missing.safetensors' given for openai/tiny-vit does not exist"):
        identify("openai/tiny-vit", tmp_path / "missing.safetensors")
    for name in ("broken.safetensors", "broken.pt"):
        (tmp_path / name).write_bytes(b"no weights" * 10)
        with pytest.raises(BenchError, match=f"{name}, given as weights of openai/tiny-vit, cannot be read"):
            load("openai/tiny-vit", tmp_path / name)
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    with pytest.raises(BenchError, match="holds no state dict"):
        load("openai/tiny-vit", tmp_path / "list.pt")


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was-executed"),))


def test_pickles_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"visual.proj": Malicious()}, tmp_path / "bad.pt")
    with pytest.raises(BenchError, match="holds more than tensors"):
        load("openai/tiny-vit", tmp_path / "bad.pt")
    assert not Path("was-executed").exists()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_torchscript_archives_are_to_be_converted(tmp_path: Path) -> None:
    file = tmp_path / "ViT.pt"
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(file))
    with pytest.raises(BenchError, match=r"is a TorchScript archive.*convert it once") as caught:
        load("openai/tiny-vit", file)
    command = str(caught.value).partition('python -c "')[2].rstrip('"')
    subprocess.run([sys.executable, "-c", command], check=True)
    state = weights.read_state(file.with_suffix(".safetensors"), "linear")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {"weight": (3, 2), "bias": (3,)}


def test_weights_in_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "cached.safetensors"
    save_file(state(), file)
    asked = []

    def look(repository: str, filename: str) -> str | None:
        asked.append((repository, filename))
        return str(file) if filename.endswith(".bin") else None

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look)
    assert identify("openai/tiny-vit").file == file
    assert asked == [
        ("nobody/tiny", "open_clip_model.safetensors"),
        ("nobody/tiny", "open_clip_pytorch_model.bin"),
    ]
    asked.clear()
    assert identify("plain/tiny-vit").file == file
    assert asked == [("nobody/tiny-plain", "weights.safetensors"), ("nobody/tiny-plain", "weights.bin")]


def test_weights_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "downloaded.safetensors"
    save_file(state(), file)
    monkeypatch.setattr(weights, "unreachable", lambda url: "")
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda entry: str(file))
    assert identify("openai/tiny-vit").file == file


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(entry: object) -> str:
        raise AssertionError("asked the network although the hub is out of reach")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", download)
    with pytest.raises(BenchError) as caught:
        identify("openai/tiny-vit")
    message = str(caught.value)
    assert "nobody/tiny/open_clip_model.safetensors on the Hugging Face hub" in message
    assert "no connection to the hub" in message
    assert "--weights FILE" in message
    assert "--encoder pocket/clip" in message
    with pytest.raises(BenchError, match=r"https://nowhere.invalid/tiny.pt is not in the local cache"):
        identify("old/tiny-vit")

    def fail(entry: object) -> str:
        raise OSError("404\nand a long story")

    monkeypatch.setattr(weights, "unreachable", lambda url: "")
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", fail)
    with pytest.raises(BenchError, match=r"could not be downloaded \(404\)\."):
        identify("openai/tiny-vit")


def test_an_offline_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert weights.unreachable("https://huggingface.co") == "HF_HUB_OFFLINE is set"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)

    def refuse(*args: object, **options: object) -> None:
        raise OSError(-2, "Name or service not known")

    monkeypatch.setattr("socket.create_connection", refuse)
    assert weights.unreachable("https://a.b/c") == "no connection to a.b: Name or service not known"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("opnai/ViT-B-16", "unknown encoder 'opnai/ViT-B-16'. Did you mean 'openai/ViT-B-16'"),
        ("openai/ViT-B16", "Did you mean 'openai/ViT-B-16'"),
        ("random/ViT-B16", "Did you mean 'random/ViT-B-16'"),
        ("openai", "unknown encoder 'openai'"),
        ("openai/RN50", "only CLIP models with a plain vision transformer"),
        ("webli/ViT-B-16-SigLIP", "only CLIP models with a plain vision transformer"),
        ("local/ViT-B-16", "takes its weights from a file; give it with --weights FILE"),
        ("openai/ViT-B-16[size=3]", "unknown option"),
    ],
)
def test_names_that_do_not_exist(name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message.replace("[", r"\[")):
        identify(name)


def test_a_tokenizer_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("no such file on the hub")

    monkeypatch.setattr("open_clip.get_tokenizer", fail)
    with pytest.raises(BenchError, match="tokenizer of random/tiny-vit cannot be had: no such file on the hub"):
        load("random/tiny-vit")


def test_random_weights_are_always_the_same_and_cost_no_draw() -> None:
    torch.manual_seed(1)
    one = load("random/tiny-vit")
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    two = load("random/tiny-vit")
    assert one.weights_hash == two.weights_hash != identify("random/ViT-B-16").sha256
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    with pytest.raises(BenchError, match="local/tiny-vit takes one"):
        identify("random/tiny-vit", Path("any"))


def test_it_is_no_backbone() -> None:
    with pytest.raises(BenchError, match="text-image encoder; as a trainable backbone choose"):
        load_backbone(identify("random/tiny-vit"))
