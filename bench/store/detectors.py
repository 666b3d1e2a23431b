"""Files of fitted detectors: one safetensors file, with everything that is not a tensor as JSON in its header.

The layout: the tensors of the method's :class:`bench.contracts.State`, and under the header's key ``zsad-bench``
the SHA-256 of a JSON text, a space, and that text: the state's plain values and a description of the fit. The same
state and description give the same bytes. Nothing in it is ever executed (no pickle).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.contracts import State
from bench.errors import BenchError, printable
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

    tensors, orders = {}, {}
    for name, tensor in state.tensors.items():
        if not isinstance(name, str) or not name.isprintable() or name == "__metadata__":
            raise BenchError(f"the method's state holds a tensor called {name!r}, which is no name for one")
        plain = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
        if not plain or tensor.is_quantized or tensor.is_meta:
            raise BenchError(f"the method's state holds no plain tensor as {name!r}")
        # A copy in the plain order of dimensions; which order they had is kept beside it, since sums depend on it.
        tensors[name] = tensor.detach().to("cpu").contiguous().clone()
        if order := _memory_order(tensor):
            orders[name] = order
    values = dict(state.values)
    content = {**description, "format": FORMAT, "values": values, "orders": orders}
    try:
        text = canonical_json({**content, "tensors": _checksum(tensors)})
        digest = hashlib.sha256(text.encode()).hexdigest()
    except (TypeError, ValueError, RecursionError) as error:
        raise BenchError(f"the method's state holds values that are no JSON: {printable(str(error))}") from None
    if json.loads(text)["values"] != values:  # JSON makes text of numbers as keys, and lists of tuples
        raise BenchError("the method's state holds values that JSON changes: keys must be strings, tuples lists")
    try:
        # One entry: several would be written in another order each time.
        return save(tensors, {_HEADER: f"{digest} {text}"})
    except KeyError as error:
        raise BenchError(
            f"the method's state holds a tensor of a type that no detector's file has: {error}"
        ) from None


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

    damaged = BenchError(f"{name} is damaged: it does not have the checksum that it was written with")
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        digest, _, text = json.loads(data[8 : 8 + size])["__metadata__"][_HEADER].partition(" ")
        if digest != hashlib.sha256(text.encode()).hexdigest():
            raise damaged
        content = json.loads(text)
        if content.pop("format") > FORMAT:
            raise BenchError(f"{name} was written by a newer version of zsad-bench; install that one to use it")
        if content.pop("tensors") != _checksum(tensors):
            raise damaged
        values, orders = content.pop("values"), content.pop("orders")
        restored = {each: _in_memory_order(tensor, orders.get(each)) for each, tensor in tensors.items()}
    except (SafetensorError, LookupError, ValueError, TypeError, AttributeError, RuntimeError):
        raise BenchError(f"{name} is not a detector, or is damaged; bench fit writes one") from None
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
