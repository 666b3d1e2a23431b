"""Fixtures that all tests share."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_data import write_toy_data
from toy_plugin import build_wheel, forget_plugins, install

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


@pytest.fixture
def toy_root(tmp_path: Path) -> Path:
    """Three categories in MVTec layout, 4 + 3 normal images and two types of 12 and 3 anomalies each."""
    root = tmp_path / "toy"
    write_toy_data(root)
    return root


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the throw-away distribution."""
    folder = tmp_path_factory.mktemp("plugin")
    install(build_wheel(folder), folder / "site")
    return folder / "site"


@pytest.fixture
def plugin(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The throw-away distribution, importable here and in processes started from here."""
    monkeypatch.syspath_prepend(str(plugin_folder))
    path = os.pathsep.join(filter(None, [str(plugin_folder), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    forget_plugins()
    yield plugin_folder
    forget_plugins()
