"""The method that CONTRIBUTING.md walks through, taken from its text, installed and checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from toy_plugin import build_wheel, forget_plugins, install

from bench.testing import check_method

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def test_the_guides_method_conforms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    (module,) = (block for block in blocks if "class Nearest" in block)
    entry = "[bench.methods]\nnearest = zsad_guide:Nearest\n"
    install(build_wheel(tmp_path, "zsad_guide", module, entry), tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    forget_plugins()
    try:
        check_method("nearest[k=2]")
    finally:
        forget_plugins()
