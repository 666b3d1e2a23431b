"""Opening the data that a trial was planned with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.data.catalogue import open_as_recorded, open_catalogue
from bench.errors import BenchError
from bench.tools.spec import Spec


def test_the_same_data_are_opened_wherever_they_are(toy_root: Path, tmp_path: Path) -> None:
    planned = open_catalogue(Spec("folder"), toy_root).fingerprint
    moved = shutil.copytree(toy_root, tmp_path / "moved")
    assert open_as_recorded("folder", {}, moved, planned).fingerprint == planned


def test_other_data_are_refused(toy_root: Path) -> None:
    planned = open_catalogue(Spec("folder"), toy_root).fingerprint
    (toy_root / "bolt/test/good/002.png").unlink()
    with pytest.raises(
        BenchError, match=r"folder at .* is not the data that the trial was planned with; give the"
    ):
        open_as_recorded("folder", {}, toy_root, planned)
    with pytest.raises(BenchError, match="is not the data"):
        open_as_recorded("folder", {}, toy_root, None)  # of a record that does not say


def test_a_folder_that_is_gone_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"gone is not a folder; say where it is now: --data-root folder=DIR"):
        open_as_recorded("folder", {}, tmp_path / "gone", "0" * 64)
    with pytest.raises(BenchError, match="add --data-root DIR"):
        open_as_recorded("folder", {}, None, "0" * 64)
