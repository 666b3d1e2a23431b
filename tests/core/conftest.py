from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_data import write_toy_data
from toy_plugin import build_wheel, forget_plugins, install


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
