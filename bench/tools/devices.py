"""Devices, seeds and threads."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from bench.errors import BenchError

if TYPE_CHECKING:
    import torch

Precision = Literal["highest", "high", "medium"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def choose_device(name: str = "auto") -> str:
    """The torch device that ``name`` means here.

    Args:
        name: ``auto`` (cuda if there is one, else cpu), ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.

    Raises:
        BenchError: no such device on this machine.
    """
    if name == "cpu":  # without the seconds that importing torch takes
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cuda", "mps") or (index and not index.isdigit()) or (index and kind != "cuda"):
        raise BenchError(f"unknown device {name!r}; choose auto, cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise BenchError(f"device {name!r} is not on this machine ({count} CUDA devices); try --device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BenchError("device 'mps' is not on this machine; try --device cpu")
    return name


def seed_everything(seed: int, precision: Precision = "highest") -> None:
    """Seed Python's, NumPy's and torch's global generators, and prefer deterministic algorithms.

    Where an operation has no deterministic form torch warns and goes on: a third party's method must not fail
    for it.

    Args:
        precision: ``highest`` keeps products and convolutions of float32 numbers in float32. ``high`` lets a GPU
            round their factors to TF32 (10 bits). ``medium`` does the same, lets a CPU round them to bfloat16
            (7 bits) if it can multiply these, and baselines train their networks in bfloat16 on a GPU
            (:func:`mixed_precision`). See ``torch.set_float32_matmul_precision``.
    """
    # cuBLAS reads this when it starts, so it must be set before the first CUDA product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third parties' methods draw from the global generator
    torch.manual_seed(seed)
    # As use_deterministic_algorithms(True, warn_only=True), which also loads torch's compiler: a second and more.
    torch.set_deterministic_debug_mode("warn")
    # a debugging aid of deterministic mode, which costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    set_precision(precision)


def set_precision(precision: Precision) -> None:
    """Say how exactly float32 numbers are multiplied; see :func:`seed_everything`."""
    import torch

    backends: Any = torch.backends
    # torch's newer switches go before the older ones below, which raise errors while the two contradict each other
    for owner in (backends, backends.cudnn, backends.cuda.matmul, backends.mkldnn):
        for part in (owner, *(getattr(owner, name, None) for name in ("conv", "rnn", "matmul"))):
            if hasattr(part, "fp32_precision"):
                part.fp32_precision = "none"
    torch.set_float32_matmul_precision(precision)
    backends.cudnn.allow_tf32 = precision != "highest"


def get_precision() -> Precision:
    """The precision that :func:`set_precision` has set; ``highest`` where other switches were used since."""
    import torch

    try:
        found: Any = torch.get_float32_matmul_precision()
    except RuntimeError:
        return "highest"
    return found if found in PRECISIONS else "highest"


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 numbers are float32 meanwhile: for what trials of any precision share."""
    before = get_precision()
    set_precision("highest")
    try:
        yield
    finally:
        set_precision(before)


def uses_bfloat16(device: torch.device) -> bool:
    """True if networks are trained in mixed precision: on a GPU, where ``medium`` precision was asked for."""
    return device.type == "cuda" and get_precision() == "medium"


def mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Convolutions and products run in bfloat16 meanwhile, where :func:`uses_bfloat16` says so."""
    import torch

    if not uses_bfloat16(device):
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def limit_threads(count: int = 1) -> None:
    """Let this process compute with ``count`` CPU threads.

    One by default: the last bits of a sum depend on how it is shared out among threads, so with one thread
    per process a result does not depend on the machine's number of cores; more cores serve more processes.
    """
    import torch

    if count < 1:
        raise BenchError(f"{count} threads: at least 1 is needed")
    torch.set_num_threads(count)


def resident(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """``tensor`` on ``device``, to stay there while a method is trained; on the CPU if it takes too much room.

    On a GPU too much is a quarter of what is free now: the network and its gradients want the rest. What torch
    holds back of earlier trials' memory is free.
    """
    import torch

    if device.type == "cuda":
        held_back = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        if tensor.nbytes > 0.25 * (torch.cuda.mem_get_info(device)[0] + held_back):
            return tensor
    return tensor.to(device)


def sent(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """``tensor`` on ``device``, without waiting until a GPU has done what it was given before.

    For what goes from the CPU to a device. The other way around nothing would wait for the numbers.
    """
    import torch

    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from elsewhere CUDA copies when it is idle
    return tensor.to(device, non_blocking=True)
