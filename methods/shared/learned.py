"""States of methods that learn the tensors of a network: given, and taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.contracts import State
from bench.errors import BenchError

if TYPE_CHECKING:
    import torch


def state_of(tensors: Mapping[str, torch.Tensor]) -> State:
    """The state of these tensors: copies in the same order of memory, which no later step or score changes."""
    return State({name: tensor.detach().clone() for name, tensor in tensors.items()})


def check_tensors(state: State, own: Mapping[str, torch.Tensor]) -> None:
    """Refuse a state whose tensors are not those of a method with these options.

    Args:
        state: what was given.
        own: name -> a tensor of the shape and type that it must have.

    Raises:
        BenchError: a name, shape or type differs.
    """
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state.tensors.items()}
    wanted = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in own.items()}
    different = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    if not different:
        return
    name = different[0]
    if name not in found:
        what = f"it lacks {name}"
    elif name not in wanted:
        what = f"it has {name}, which is none of theirs"
    else:
        what = f"{name} is {_described(*found[name])} in it and should be {_described(*wanted[name])}"
    raise BenchError(f"this was learned with other options, or with another encoder or backbone: {what}")


def restore_module(module: torch.nn.Module, state: State) -> None:
    """Copy a state into the parameters and buffers of ``module``, which keep their device and order of memory.

    Raises:
        BenchError: it is the state of another network.
    """
    check_tensors(state, module.state_dict())
    module.load_state_dict(dict(state.tensors))


def _described(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{'x'.join(map(str, shape)) or 'a number'} of {str(dtype).removeprefix('torch.')}"
