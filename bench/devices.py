"""Devices, seeds and threads."""

from __future__ import annotations

import os
import random

import numpy as np

from bench.errors import BenchError


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


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators, and prefer deterministic algorithms.

    Where an operation has no deterministic form torch warns and goes on: a third party's method must not fail
    for it. On CUDA, float32 convolutions and products stay float32 (no TF32).
    """
    # cuBLAS reads this when it starts, so it must be set before the first CUDA product.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third parties' methods draw from the global generator
    torch.manual_seed(seed)
    # As use_deterministic_algorithms(True, warn_only=True), which also loads torch's compiler: a second and more.
    torch.set_deterministic_debug_mode("warn")
    # a debugging aid of deterministic mode, which costs time
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def limit_threads(count: int = 1) -> None:
    """Let this process compute with ``count`` CPU threads.

    One by default: the last bits of a sum depend on how it is shared out among threads, so with one thread
    per process a result does not depend on the machine's number of cores; more cores serve more processes.
    """
    import torch

    if count < 1:
        raise BenchError(f"{count} threads: at least 1 is needed")
    torch.set_num_threads(count)
