"""Training steps on tensors without numbers, in which nothing may wait for a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

MADE_FROM_NUMBERS = (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)


def no_waiting(steps: Iterable[Any], description: str) -> Iterator[Any]:
    """A ``Context.track`` for a method on the device ``meta``: a step that would wait for a GPU fails.

    Numbers cannot be had from meta tensors anyway. Nor may numbers be sent there in a way for which CUDA would
    wait: a copy that is not ``non_blocking``, or a tensor made there from numbers.
    """
    for step in steps:
        with _Making(), _Copying():
            yield step


class _Making(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func in MADE_FROM_NUMBERS and answer.is_meta:
            raise AssertionError(f"a GPU would be waited for: {func.__name__} of numbers on the device")
        return answer


class _Copying(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = func(*args, **(kwargs or {}))
        if func in COPIES and answer.is_meta:
            source = args[1] if func is COPIES[1] else args[0]
            asynchronous = (kwargs or {}).get("non_blocking") or (func is COPIES[1] and args[2:3] == (True,))
            if not source.is_meta and not asynchronous:
                raise AssertionError("a GPU would be waited for: a copy to the device that is not non_blocking")
        return answer
