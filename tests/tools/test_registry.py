from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.cli.list import section
from bench.errors import BenchError
from bench.tools.registry import METHODS


@pytest.mark.usefixtures("plugin")
def test_third_party_plugins_are_found_and_named() -> None:
    assert "toy-brightness" in METHODS.names()
    assert METHODS.origin("toy-brightness") == "zsad-toy 1.0"
    assert METHODS.load("toy-brightness").name == "toy-brightness"


@pytest.mark.usefixtures("plugin")
def test_a_broken_plugin_is_named_and_breaks_nothing_else() -> None:
    with pytest.raises(BenchError, match=r"toy-broken.*zsad-toy 1.0.*ModuleNotFoundError.*uninstall"):
        METHODS.load("toy-broken")
    assert METHODS.load("clip").name == "clip"


@pytest.mark.usefixtures("plugin")
def test_a_source_stands_for_many_methods() -> None:
    assert METHODS.load("toy-source/red").name == "toy-source/red"
    assert "  toy-source/MODEL: toys of all colours" in section("methods")
    with pytest.raises(BenchError, match="toy-source stands for many methods; write toy-source/MODEL"):
        METHODS.load("toy-source")
    with pytest.raises(BenchError, match="unknown method 'toy-brightness/red'"):
        METHODS.load("toy-brightness/red")


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(BenchError, match=r"unknown method 'promtad'\. Did you mean 'promptad'"):
        METHODS.load("promtad")


def test_listing_is_quick_and_imports_no_torch() -> None:
    code = (
        "import sys; from bench.cli.main import main\n"
        "try: main(['list'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'open_clip', 'anomalib', 'pandas', 'timm', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=Path("/"))
    elapsed = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr
    assert "promptad" in done.stdout
    assert elapsed < 5  # a fraction of a second in truth; this bound only has to hold on a busy machine
