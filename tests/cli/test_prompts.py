"""``bench prompts``: the categories are those of the data that is named, and generic prompts are told."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from bench.cli.main import main


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_own_categories_come_from_the_data_root(toy_root: Path) -> None:
    result = call("prompts", "folder", "--data-root", toy_root)
    assert result.exit_code == 0, result.output
    assert list(yaml.safe_load(result.stdout)["folder"]) == ["bolt", "cloth", "plate"]
    assert result.stderr == "generic prompts, made from the name alone: bolt, cloth, plate\n"


def test_options_of_the_dataset_count(toy_root: Path) -> None:
    shutil.move(toy_root / "bolt", toy_root / "nut")
    for part in ("train", "test"):
        (toy_root / "nut" / part / "good").rename(toy_root / "nut" / part / "ok")
    result = call("prompts", "folder[good=ok]", "--data-root", toy_root)
    assert list(yaml.safe_load(result.stdout)["folder"]) == ["cloth", "nut", "plate"]


def test_the_current_folder_is_not_taken_for_the_data(toy_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy_root)
    for dataset in ("folder", "folder[good=ok]"):
        result = call("prompts", dataset)
        assert result.exit_code == 2
        assert result.stderr == "Error: the categories of folder are those of its files; add --data-root DIR\n"


@pytest.mark.parametrize("dataset", ["mvtec", "aitex", "aitex[classes=one]", "pocket"])
def test_shipped_prompts_need_no_files(dataset: str) -> None:
    result = call("prompts", dataset)
    assert result.exit_code == 0, result.output
    assert yaml.safe_load(result.stdout)[dataset.partition("[")[0]]
    assert result.stderr == ""


def test_a_run_names_the_categories_without_prompts_in_the_file(toy_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("bolt: {label: bolt, normality: a bolt, descriptions: {crack: crack}}\n")
    run = ["run", "--methods", "clip", "--encoder", "pocket/clip", "--dry-run", "--store", tmp_path / "store"]
    result = call(*run, "--dataset", "folder", "--data-root", toy_root, "--prompts", file)
    assert result.exit_code == 0, result.output
    assert f"{file} has no prompts for cloth, plate: generic ones are used" in result.stderr
    pocket = call(*run, "--dataset", "pocket", "--prompts", _pocket(tmp_path))
    assert "generic" not in pocket.stderr  # the file lacks categories, and the dataset has prompts for them


def _pocket(folder: Path) -> Path:
    file = folder / "pocket.yaml"
    file.write_text("gear: {label: gear, normality: a gear, descriptions: {crack: crack}}\n")
    return file
