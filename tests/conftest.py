"""Fixtures that all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# One thread per process, as trials run: on a busy machine more of them mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The user's own features are neither read nor written.
os.environ["BENCH_CACHE"] = tempfile.mkdtemp(prefix="zsad-bench-features-")
atexit.register(shutil.rmtree, os.environ["BENCH_CACHE"], ignore_errors=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", metavar="FILE", help="write the table of what the parity tests reached")
    parser.addoption("--hostile", metavar="FILE", help="write the table of what hostile input was tried")
    parser.addoption("--faults", metavar="FILE", help="write the table of what the fault tests survived")
    parser.addoption("--faults-kills", metavar="N", type=int, default=6, help="processes to kill  [default: 6]")
    parser.addoption("--faults-trials", metavar="N", type=int, default=150, help="trials of a long study")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real images (``mvtec/``, ``aitex/``); the test is skipped where there is none."""
    given = os.environ.get("ZSAD_SHARED_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist (set ZSAD_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The real ImageNet backbone, mobilenetv2_100 in timm's format; the test is skipped where it is not."""
    given = os.environ.get("ZSAD_SHARED_WEIGHTS")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "weights"
    file = folder / "mobilenetv2_100.tf_in1k.safetensors"
    if not file.is_file():
        pytest.skip(f"no real weights: {file} does not exist (set ZSAD_SHARED_WEIGHTS)")
    return file
