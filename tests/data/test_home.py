"""The data home: datasets under their usual names in one folder."""

from __future__ import annotations

import os
from pathlib import Path

import field_trees
import pytest
from click.testing import CliRunner, Result

import bench
from bench.cli.main import main
from bench.data.catalogue import open_catalogue
from bench.data.home import VARIABLE, data_home
from bench.errors import BenchError
from bench.tools.spec import parse_spec


@pytest.fixture(autouse=True)
def _no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("folder", ["mpdd", "MPDD", "Mpdd"])
def test_a_dataset_is_found_under_its_usual_names_in_any_case(folder: str, tmp_path: Path) -> None:
    field_trees.mpdd(tmp_path / folder)
    with data_home(tmp_path):
        assert open_catalogue(parse_spec("mpdd"), None).dataset.root == tmp_path / folder
    assert VARIABLE not in os.environ
    result = call("data", "check", "mpdd", "--data-home", tmp_path)
    assert result.exit_code == 0, result.output
    assert VARIABLE not in os.environ  # the option is of this command alone


def test_a_root_goes_before_the_home_and_the_option_before_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = field_trees.mpdd(tmp_path / "a" / "mpdd"), field_trees.mpdd(tmp_path / "b" / "mpdd")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "a"))
    assert open_catalogue(parse_spec("mpdd"), None).dataset.root == first
    assert open_catalogue(parse_spec("mpdd"), second).dataset.root == second
    with data_home(tmp_path / "b"):
        assert open_catalogue(parse_spec("mpdd"), None).dataset.root == second
    assert open_catalogue(parse_spec("mpdd"), None).dataset.root == first


def test_what_is_not_there_is_told_with_the_names_that_were_looked_for(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with (
        data_home(tmp_path),
        pytest.raises(BenchError, match=r"mpdd needs .* has none of MPDD, mpdd\): add --data-root"),
    ):
        open_catalogue(parse_spec("mpdd"), None)
    with data_home(tmp_path / "gone"), pytest.raises(BenchError, match=r"data home .*gone .*No such file"):
        open_catalogue(parse_spec("mpdd"), None)
    with pytest.raises(BenchError, match="or --data-home DIR for a folder of many datasets"):
        open_catalogue(parse_spec("mpdd"), None)


def test_a_study_of_two_datasets_needs_no_root(tmp_path: Path) -> None:
    """And its records keep the roots, of whatever came of the trials on such pictures."""
    roots = {field_trees.mpdd(tmp_path / "MPDD"), field_trees.visa(tmp_path / "VisA")}
    results = bench.run(
        methods="clip",
        dataset="mpdd,visa",
        encoder="pocket/clip",
        data_home=tmp_path,
        store=tmp_path / "store",
        workers=0,
    )
    assert {record.inputs.target for record in results.store.records()} == roots
    assert VARIABLE not in os.environ
