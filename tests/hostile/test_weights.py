"""Weights files: what is in them is never run, and what does not fit is named."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hostile import Hostile
from hypothesis import given
from safetensors.torch import save

from bench.encoders import identify, load_backbone, load_text_image
from bench.encoders.weights import check_state, read_state, require_file

KIND = "weights files"

WEIGHT = torch.arange(12, dtype=torch.float32).reshape(3, 4)
EXPECTED = {"w": torch.zeros(3, 4)}


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call, self.arguments


def saved(content: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def load(file: Path) -> dict[str, torch.Tensor]:
    state = read_state(file, "tiny")
    check_state(state, EXPECTED, "tiny", file)
    return state


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda p: saved({"w": p}), id="among tensors"),
        pytest.param(lambda p: saved({"state_dict": {"w": WEIGHT}, "args": p}), id="beside the state dict"),
        pytest.param(lambda p: saved(p, _use_new_zipfile_serialization=False), id="old format"),
        pytest.param(lambda p: pickle.dumps(p), id="a bare pickle"),
        pytest.param(lambda p: pickle.dumps(p, protocol=0), id="a pickle of protocol 0"),
        pytest.param(lambda p: pickle.dumps({"w": [p]}, protocol=5), id="a pickle of protocol 5"),
    ],
)
def test_nothing_is_run(hostile: Hostile, tmp_path: Path, make: Callable[[Any], bytes], suffix: str) -> None:
    target = tmp_path / "was-run"
    for number, payload in enumerate(
        (
            Payload(Path.touch, target),
            Payload(os.system, f"touch {target}"),
            Payload(exec, f"open({str(target)!r}, 'w')"),
        )
    ):
        file = tmp_path / f"{number}{suffix}"
        file.write_bytes(make(payload))
        hostile.refused(lambda file=file: load(file), f"{number}{suffix}")  # type: ignore[misc]
        assert not target.exists()
    pickle.loads(pickle.dumps(Payload(Path.touch, target)))  # what it would have done
    assert target.exists()


def _bomb() -> bytes:
    """An archive as torch writes it, whose tensor unpacks to a gigabyte."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved({"w": WEIGHT}))) as plain,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, bytes(1 << 26) if "/data/" in name else plain.read(name))
    return stream.getvalue()


GOOD = saved({"w": WEIGHT})
SAFE = save({"w": WEIGHT})


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        pytest.param("a.pt", b"", "cannot be read", id="zero bytes"),
        pytest.param("a.safetensors", b"", "cannot be read", id="zero bytes as safetensors"),
        pytest.param("a.pt", GOOD[: len(GOOD) // 2], "cannot be read", id="cut"),
        pytest.param("a.pt", GOOD[:-100], "cannot be read", id="cut end"),
        pytest.param("a.safetensors", SAFE[:-10], "cannot be read", id="cut safetensors"),
        pytest.param("a.safetensors", SAFE[:4], "cannot be read", id="cut head"),
        pytest.param("a.safetensors", b"\xff" * 64, "cannot be read", id="an endless head"),
        pytest.param("a.pt", b"<html>404</html>", "cannot be read", id="a web page"),
        pytest.param(
            "a.pt", b"version https://git-lfs.github.com/spec/v1\n", "cannot be read", id="a Git LFS pointer"
        ),
        pytest.param("a.pt", SAFE, "cannot be read", id="safetensors called pt"),
        pytest.param("a.safetensors", GOOD, "cannot be read", id="pt called safetensors"),
        pytest.param("a.pt", _bomb(), "unpacks to", id="an archive bomb"),
        pytest.param("a.pt", saved([WEIGHT]), "no state dict", id="a list"),
        pytest.param("a.pt", saved(WEIGHT), "no state dict", id="a tensor"),
        pytest.param("a.pt", saved({"w": 3}), "no state dict", id="a number"),
        pytest.param("a.pt", saved({"w": {"w": WEIGHT}}), "no state dict", id="nested"),
        pytest.param("a.pt", saved({"state_dict": 3}), "no state dict", id="a number as state dict"),
        pytest.param("a.pt", saved({}), "is missing", id="nothing"),
        pytest.param("a.pt", saved({"v": WEIGHT}), "is missing", id="another name"),
        pytest.param("a.pt", saved({"w": WEIGHT, "v": WEIGHT}), "does not belong", id="one too many"),
        pytest.param("a.pt", saved({"w": WEIGHT.T}), "has shape", id="another shape"),
        pytest.param(
            "a.pt", saved({"w": torch.zeros(1).expand(10**6, 10**6)}), "has shape", id="a terabyte of views"
        ),
        pytest.param("a.pt", saved({"w": WEIGHT.int()}), "torch.int32", id="whole numbers"),
        pytest.param("a.pt", saved({"w": WEIGHT.bool()}), "torch.bool", id="truth values"),
        pytest.param("a.pt", saved({"w": WEIGHT + 0j}), "torch.complex64", id="complex numbers"),
        pytest.param("a.pt", saved({"w": WEIGHT.to_sparse()}), "sparse", id="sparse"),
        pytest.param("a.pt", saved({"w": torch.zeros(3, 4, device="meta")}), "empty", id="no numbers at all"),
        pytest.param("a.pt", saved(torch.nn.Linear(4, 3)), "more than tensors", id="a module"),
        pytest.param("a.safetensors", save({"w": WEIGHT.to(torch.int8)}), "torch.int8", id="int8 safetensors"),
    ],
)
def test_what_is_no_weights(hostile: Hostile, tmp_path: Path, name: str, content: bytes, word: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert str(tmp_path / name) in hostile.refused(lambda: load(tmp_path / name), word)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.pt", GOOD, id="pt"),
        pytest.param("a.pt", saved({"w": WEIGHT}, _use_new_zipfile_serialization=False), id="old format"),
        pytest.param("a.pt", saved({"state_dict": {"module.w": WEIGHT}, "epoch": 3}), id="a checkpoint"),
        pytest.param("a.pt", saved({"w": WEIGHT.T.contiguous().T}), id="not contiguous"),
        pytest.param("a.pt", saved({"w": WEIGHT.double()}), id="float64"),
        pytest.param("a.safetensors", SAFE, id="safetensors"),
        pytest.param("a.safetensors", save({"w": WEIGHT.half()}), id="float16"),
        pytest.param("a.safetensors", save({"w": WEIGHT}, {"__proto__": "x" * 9999}), id="much metadata"),
    ],
)
def test_odd_but_right(hostile: Hostile, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert torch.equal(hostile.handled(lambda: load(tmp_path / name))["w"].float(), WEIGHT)


def test_no_file_at_all(hostile: Hostile, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    for name in ("none.pt", ".", "pipe.pt", "loop.pt", "x" * 300):
        hostile.refused(lambda name=name: require_file(tmp_path / name, "tiny"), "does not exist")  # type: ignore[misc]


@pytest.mark.parametrize(
    "name",
    [
        *("../clip", "pocket/../clip", "pocket/clip[a=b]", "pocket/clip[", "timm/../../etc/passwd", "local/.."),
        *("hf-hub:evil/model", "local-dir:/etc", "timm/hf-hub:evil/model", "timm/local-dir:/etc", "openai/", "/"),
        *("x" * 10_000, "a\x00b"),
    ],
)
def test_names_of_encoders(hostile: Hostile, tmp_path: Path, name: str) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(GOOD)
    hostile.refused(lambda: load_text_image(identify(name, file)))


@pytest.mark.parametrize("content", [pytest.param(GOOD, id="another model's"), pytest.param(b"", id="zero bytes")])
def test_encoders_of_such_files(hostile: Hostile, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(content)
    hostile.refused(lambda: load_text_image(identify("pocket/clip", file)), "a.pt")
    hostile.refused(lambda: load_backbone(identify("pocket/resnet", file)), "a.pt")
    hostile.refused(lambda: load_backbone(identify("torchvision/resnet18", file)), "a.pt")


@given(place=st.integers(0, len(SAFE) - 1), value=st.integers(0, 255))
def test_safetensors_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(SAFE[:place] + bytes([value]) + SAFE[place + 1 :])
    hostile.either(lambda: load(file))


OLD = saved({"w": WEIGHT}, _use_new_zipfile_serialization=False)


@given(place=st.integers(0, len(OLD) - 1), value=st.integers(0, 255))
def test_an_old_file_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(OLD[:place] + bytes([value]) + OLD[place + 1 :])
    hostile.either(lambda: load(file))


@given(place=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_an_archive_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(GOOD[:place] + bytes([value]) + GOOD[place + 1 :])
    hostile.either(lambda: load(file))
