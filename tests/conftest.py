"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real images (``mvtec/``, ``aitex/``); the test is skipped where there is none."""
    given = os.environ.get("ZSAD_SHARED_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images: {folder} does not exist (set ZSAD_SHARED_DATA)")
    return folder
