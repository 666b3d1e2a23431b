"""What is installed is whole, and nothing of ours stands at top level under somebody else's name."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import bench

REPOSITORY = Path(__file__).parents[1]
INSTALLED = Path(bench.__file__).parent
# folder -> folder inside the package
MAPPED = {"bench": "", "methods": "methods", "datasets": "datasets", "results/reported": "reported"}
NOT_INSTALLED = {REPOSITORY / "datasets/pocket/make"}  # scripts that made what is installed


def test_every_package_of_the_tree_is_declared() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set()
    for folder, inside in MAPPED.items():
        for init in (REPOSITORY / folder).rglob("__init__.py"):
            if init.parent in NOT_INSTALLED:
                continue
            parts = init.parent.relative_to(REPOSITORY / folder).parts
            found.add(".".join(("bench", *filter(None, inside.split("/")), *parts)))
    assert set(settings["packages"]) == found


def test_every_file_of_the_tree_is_installed() -> None:
    missing = []
    for folder, inside in MAPPED.items():
        for file in sorted((REPOSITORY / folder).rglob("*")):
            relative = file.relative_to(REPOSITORY / folder)
            if NOT_INSTALLED & {*file.parents} or "__pycache__" in relative.parts:
                continue
            if file.is_file():
                names = [INSTALLED / inside / relative, REPOSITORY / folder / relative]
                # An editable installation leaves the files where they are.
                if not (names[0].exists() or (REPOSITORY in INSTALLED.parents and names[1].exists())):
                    missing.append(str(relative))
    assert not missing


def test_nothing_is_installed_at_top_level_but_bench() -> None:
    files = distribution("zsad-bench").files or []
    tops = {file.parts[0] for file in files if ".dist-info" not in file.parts[0]}
    assert not tops & {"methods", "datasets", "tests", "results"}


def test_docstrings_name_their_thing() -> None:
    """They begin with a noun or a verb, so that the thing can be searched for."""
    vague = re.compile(r'"""(What|Whether|Why|Where|How|Which|As) ')
    found = []
    for folder in ("bench", "methods", "datasets", "results"):
        for file in sorted((REPOSITORY / folder).rglob("*.py")):
            for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                if vague.search(line):
                    found.append(f"{file.relative_to(REPOSITORY)}:{number}: {line.strip()}")
    assert not found
