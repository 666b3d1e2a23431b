"""Provenance of a number: versions, revision, device."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bench

PACKAGES = ("numpy", "torch", "torchvision", "open_clip_torch", "timm", "anomalib", "scipy", "pillow")


@functools.lru_cache(maxsize=4)
def environment(device: str, precision: str = "highest") -> dict[str, Any]:
    """Versions, source revision, platform and device of this process, and how exactly it multiplies matrices."""
    return {
        "bench": bench.__version__,
        "revision": revision(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": _device_name(device) + ("" if precision == "highest" else f", {precision} precision"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@functools.cache
def revision() -> str | None:
    """The git revision of the source tree, ``+`` behind it if it was changed; None for an installed package."""
    folder = Path(bench.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        # A package installed inside somebody else's repository must not report that repository's revision.
        if not git("ls-files", "__init__.py"):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "") or None
    except (OSError, subprocess.TimeoutExpired):
        return None


def _device_name(device: str) -> str:
    from bench.tools.devices import choose_device

    chosen = choose_device(device)
    if chosen.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(chosen)
    return f"{chosen} ({os.cpu_count()} cores)"
