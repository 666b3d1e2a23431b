"""Files of detectors: every tensor comes back as it was, and what is no sound file is refused with one line."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bench.contracts import State
from bench.errors import BenchError
from bench.store import detectors
from bench.store.detectors import dump_detector, is_detector_of, load_detector

DRAW = torch.Generator().manual_seed(0)
SPECIAL = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45])


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=DRAW)


TENSORS = {
    "float32": drawn(3, 4),
    "float64": drawn(3).double(),
    "bfloat16": drawn(3, 5).bfloat16(),
    "float16": drawn(3).half(),
    "bool": torch.tensor([True, False, True]),
    "int64": torch.tensor([-(2**63), 2**63 - 1]),
    "uint8": torch.arange(5, dtype=torch.uint8),
    "special numbers": SPECIAL,
    "empty": torch.zeros(0, 4),
    "empty bfloat16": torch.zeros(2, 0).bfloat16(),
    "a single number": torch.tensor(3.5),
    "a single int64": torch.tensor(7),
    "channels last": drawn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "transposed": drawn(3, 4).T,
    "every other": drawn(4, 6)[:, ::2],
    "expanded": drawn(3, 1).expand(3, 4),
    "with gradient": drawn(2).requires_grad_(),
    "été.0": drawn(1),
}


def through_a_file(tensors: dict[str, torch.Tensor], values: Any = None) -> State:
    _, state = load_detector(dump_detector({}, State(tensors, values or {})), "detector.zsad")
    return state


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_comes_back_bit_by_bit(name: str) -> None:
    tensor = TENSORS[name]
    found = through_a_file({name: tensor}).tensors[name]
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert raw(found) == raw(tensor)
    assert not found.requires_grad


@pytest.mark.parametrize("name", ["channels last", "transposed", "float32"])
def test_the_order_of_memory_comes_back(name: str) -> None:
    tensor = TENSORS[name]
    assert through_a_file({name: tensor}).tensors[name].stride() == tensor.stride()


def test_tensors_that_shared_memory_come_back_apart() -> None:
    tensor = drawn(4)
    found = through_a_file({"whole": tensor, "again": tensor, "part": tensor[1:3]}).tensors
    found["whole"].zero_()
    assert torch.equal(found["again"], tensor)
    assert torch.equal(found["part"], tensor[1:3])
    found["part"].zero_()
    assert torch.equal(found["again"], tensor)


def test_values_and_description_come_back() -> None:
    values = {"numbers": [0.1, 10**30, -1], "nested": {"ü": None, "yes": True}, "empty": []}
    data = dump_detector({"key": "abc", "options": {"k": 1}}, State({}, values))
    description, state = load_detector(data, "detector.zsad")
    assert description == {"key": "abc", "options": {"k": 1}}
    assert state == State({}, values)
    assert is_detector_of(data, "abc")
    assert not is_detector_of(data, "abd")
    assert not is_detector_of(data[:-1] + b"x", "abc")


def test_the_same_state_gives_the_same_bytes() -> None:
    backwards = dict(reversed(TENSORS.items()))
    values = {"a": 1, "b": 2}
    files = {dump_detector({"key": "k"}, State(TENSORS, values)) for _ in range(5)}
    files.add(dump_detector({"key": "k"}, State(backwards, {"b": 2, "a": 1})))
    assert len(files) == 1


# ------------------------------------------------------------ what a state cannot hold


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"rate": float("nan")}, "no JSON: Out of range"),
        ({"rate": float("-inf")}, "no JSON: Out of range"),
        ({"names": {"a", "b"}}, "no JSON: Object of type set"),
        ({"tensor": torch.zeros(2)}, "no JSON: Object of type Tensor"),
        ({"text": "\ud800"}, "no JSON"),
        ({"counts": {1: 2}}, "that JSON changes"),
        ({"size": (1, 2)}, "that JSON changes"),
    ],
)
def test_values_that_would_not_come_back_are_refused(values: Any, complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint) as refusal:
        dump_detector({}, State({}, values))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "tensor", "complaint"),
    [
        ("list", [1.0, 2.0], "no plain tensor as 'list'"),
        ("sparse", torch.eye(3).to_sparse(), "no plain tensor as 'sparse'"),
        ("meta", torch.zeros(3, device="meta"), "no plain tensor as 'meta'"),
        ("double complex", torch.zeros(2, dtype=torch.complex128), "torch.complex128"),
        ("__metadata__", torch.zeros(2), "no name"),
        ("two\nlines", torch.zeros(2), "no name"),
        (7, torch.zeros(2), "no name"),
    ],
)
def test_tensors_that_would_not_come_back_are_refused(name: Any, tensor: Any, complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint) as refusal:
        dump_detector({}, State({name: tensor}))
    assert "\n" not in str(refusal.value)


# ------------------------------------------------------------ files that are no detector


def sound() -> bytes:
    return dump_detector({"key": "k"}, State({"a": drawn(8), "b": drawn(2, 2).half()}, {"size": 64}))


def refusal(data: bytes) -> str:
    with pytest.raises(BenchError) as refused:
        load_detector(data, "detector.zsad")
    message = str(refused.value)
    assert message.startswith("detector.zsad ")
    assert "\n" not in message
    return message


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02}q\x00.")
    return stream.getvalue()


def pickled() -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 8,
        b"no detector at all",
        b"\xff" * 64,
        zipped(),
        pickled(),
        save({"weight": torch.zeros(3)}),
        save({"weight": torch.zeros(3)}, {"format": "pt"}),
        save({"weight": torch.zeros(3)}, {"zsad-bench": ""}),
    ],
    ids=["empty", "zeros", "text", "ones", "zip", "pickle", "safetensors", "safetensors of torch", "blank"],
)
def test_another_file_is_refused(data: bytes) -> None:
    message = refusal(data)
    assert "is not a detector" in message or "is damaged" in message


def test_a_file_cut_anywhere_is_refused() -> None:
    data = sound()
    for length in range(len(data)):
        refusal(data[:length])
    refusal(data + b"\x00")


def test_a_change_of_any_byte_is_refused() -> None:
    data = sound()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1
        refusal(bytes(changed))


def test_a_changed_tensor_is_called_damaged() -> None:
    data = bytearray(sound())
    data[-1] ^= 1
    assert "is damaged" in refusal(bytes(data))


def test_tensors_that_changed_places_are_refused() -> None:
    data = dump_detector({}, State({"a": drawn(4), "b": drawn(4)}))
    assert "is damaged" in refusal(data.replace(b'"a":', b'"c":'))


def test_a_file_of_a_newer_version_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(detectors, "FORMAT", detectors.FORMAT + 1)
        data = sound()
    assert "newer version" in refusal(data)


@pytest.mark.parametrize(
    "content", [[], "text", None, {}, {"format": "1"}, {"format": 1}, {"format": 1, "tensors": 3}, "[" * 100_000]
)
def test_a_header_made_by_hand_is_refused(content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    refusal(save({"a": torch.zeros(2)}, {"zsad-bench": f"{digest} {text}"}))
