"""Files of fitted detectors: one safetensors file, with everything that is not a tensor as JSON in its header.

The layout: the tensors of the method's :class:`bench.contracts.State`, and under the header's key ``zsad-bench`` a
checksum and a JSON text with the state's plain values and a description of the fit. Nothing in it is ever
executed: there is no pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.contracts import State
from bench.errors import BenchError
from bench.tools.hashes import canonical_json

if TYPE_CHECKING:
    import torch

FORMAT = 1  # a reader refuses files of a higher one
_HEADER = "zsad-bench"


def dump_detector(description: Mapping[str, Any], state: State) -> bytes:
    """The content of a detector's file.

    Args:
        description: JSON that tells what was fitted, and on what.
        state: the method's learned state.

    Raises:
        BenchError: the state is not what its contract says.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, tensor in state.tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise BenchError(f"the method's state holds {type(tensor).__name__} as tensor {name!r}")
        # A copy in the plain order of dimensions; which order they had is kept beside it, since sums depend on it.
        tensors[name] = tensor.detach().to("cpu").contiguous().clone()
    orders = {name: list(order) for name, t in state.tensors.items() if (order := _memory_order(t))}
    content = {**description, "format": FORMAT, "values": dict(state.values), "orders": orders}
    try:
        text = canonical_json({**content, "tensors": _checksum(tensors)})
    except (TypeError, ValueError) as error:
        raise BenchError(f"the method's state holds values that are no JSON: {error}") from None
    # In one entry: the library writes several in a random order.
    return save(tensors, {_HEADER: f"{hashlib.sha256(text.encode()).hexdigest()} {text}"})


def load_detector(data: bytes, name: str) -> tuple[dict[str, Any], State]:
    """The description and the state in the content of a detector's file.

    Args:
        data: the file's bytes.
        name: of the file, for messages.

    Raises:
        BenchError: it is no detector, is damaged, or was written by a newer version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        written, _, text = json.loads(data[8 : 8 + size])["__metadata__"][_HEADER].partition(" ")
        content = json.loads(text)
        sound = written == hashlib.sha256(text.encode()).hexdigest()
        number, checksum = content.pop("format"), content.pop("tensors")
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError):
        raise BenchError(f"{name} is not a detector, or is damaged; bench fit writes one") from None
    if sound and number > FORMAT:
        raise BenchError(f"{name} was written by a newer version of zsad-bench; install that one to use it")
    if not sound or checksum != _checksum(tensors):
        raise BenchError(f"{name} is damaged: it does not have the checksum that it was written with")
    values, orders = content.pop("values"), content.pop("orders")
    restored = {each: _in_memory_order(tensor, orders.get(each)) for each, tensor in tensors.items()}
    return content, State(restored, values)


def is_detector_of(data: bytes, key: str) -> bool:
    """True if a file's content is the sound detector of the fit with this key."""
    try:
        description, _ = load_detector(data, "it")
    except BenchError:
        return False
    return description.get("key") == key


def _checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _memory_order(tensor: torch.Tensor) -> list[int]:
    """The dimensions from the slowest to the fastest in memory; empty where that is the plain order."""
    if tensor.is_contiguous():
        return []
    strides = tensor.stride()
    return sorted(range(tensor.dim()), key=lambda d: -strides[d])


def _in_memory_order(tensor: torch.Tensor, order: list[int] | None) -> torch.Tensor:
    if order is None:
        return tensor
    back = [order.index(d) for d in range(tensor.dim())]
    return tensor.permute(order).contiguous().permute(back)
