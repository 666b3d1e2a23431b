"""Devices, seeds and threads."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

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
            round their factors to TF32 (10 bits), ``medium`` to bfloat16 (7 bits), a CPU too if it can multiply
            these; sums stay float32. See ``torch.set_float32_matmul_precision`` and :func:`mixed_precision`.
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
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 numbers are float32 meanwhile: for what trials of any precision share."""
    import torch

    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def uses_bfloat16(device: torch.device) -> bool:
    """Whether networks are trained in mixed precision: on a GPU, where ``medium`` precision was asked for."""
    import torch

    return device.type == "cuda" and torch.get_float32_matmul_precision() == "medium"


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

    On a GPU too much is a quarter of what is free now: the network and its gradients want the rest.
    """
    import torch

    if device.type == "cuda" and tensor.nbytes > 0.25 * torch.cuda.mem_get_info(device)[0]:
        return tensor
    return tensor.to(device)
