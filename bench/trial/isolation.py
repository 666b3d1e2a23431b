"""Isolation of trials: a method's changes to the process that it runs in are undone before the next one.

A fresh worker after such a change would do for worker processes alone: trials also run inside the driver's process
(``--workers 0``), which has to go on with the settings that it had.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator

import numpy as np

from bench.tools.devices import get_precision, set_precision


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """Put back what third parties' code may have changed for everything that runs after it in this process.

    That is: working directory, environment, standard streams (closed, replaced, or with their descriptors taken by
    another file), warning filters, NumPy's handling of floating-point errors, torch's default dtype and device,
    gradients, precision of products and number of threads, garbage collection, recursion limit. A child that was
    forked and comes out here ends. (:func:`bench.tools.devices.seed_everything` sets generators and deterministic
    algorithms at each trial's start.) What is not put back: modules that were patched, ``sys.path``, logging,
    locale, torch's autocast and anomaly modes, memory, threads, signal handlers and other processes.
    """
    pid = os.getpid()
    try:
        with _process(), _streams(), np.errstate(), _torch():
            yield
    finally:
        if os.getpid() != pid:
            os._exit(0)


@contextlib.contextmanager
def _process() -> Iterator[None]:
    folder: str | None = None
    with contextlib.suppress(OSError):  # it was removed before
        folder = os.getcwd()
    environment = dict(os.environ)
    filters = list(warnings.filters)
    collecting, depth = gc.isenabled(), sys.getrecursionlimit()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # it was removed meanwhile
            if folder is not None:
                os.chdir(folder)
        if dict(os.environ) != environment:
            os.environ.clear()
            os.environ.update(environment)
        if warnings.filters != filters:
            warnings.filters[:] = filters  # type: ignore[index]
        (gc.enable if collecting else gc.disable)()
        sys.setrecursionlimit(depth)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    streams = sys.stdin, sys.stdout, sys.stderr
    kept: dict[int, int] = {}
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):  # a daemon may have none
            kept[descriptor] = os.dup(descriptor)
    try:
        yield
    finally:
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
        sys.stdin, sys.stdout, sys.stderr = streams
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            if getattr(getattr(sys, name), "closed", False) and descriptor in kept:
                stream = open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
                setattr(sys, name, stream)


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    import torch

    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    gradients, threads = torch.is_grad_enabled(), torch.get_num_threads()
    precision = get_precision()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)
        torch.set_grad_enabled(gradients)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        set_precision(precision)
