from __future__ import annotations

import functools
from pathlib import Path

import pytest
from latex_engine import Latex, compile_pdf, missing


@pytest.fixture
def latex(tmp_path: Path) -> Latex:
    """Compiles a document to a PDF in a folder of its own; the test is skipped where there is no LaTeX."""
    if reason := missing():
        pytest.skip(reason)
    return functools.partial(compile_pdf, tmp_path)
