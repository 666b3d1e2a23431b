"""Imports of the package run downwards only: a folder knows those below it, never those above."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# From the ground floor up; CONTRIBUTING.md says what each holds. Plugins (methods, datasets) are loaded by name.
LAYERS = [
    "errors",
    "contracts",
    "tools",
    "metrics",
    "data",
    "encoders",
    "store",
    "study",
    "trial",
    "executors",
    "reported",
    "report",
    "predict",
    "testing",
    "api",
    "cli",
]
FACES = {"__init__", "__main__", "stopwatch"}  # lead to what lies below under a public name
FILES = {
    layer: sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    for layer in LAYERS
    for folder in [REPOSITORY / ("results" if layer == "reported" else "bench") / layer]
}


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and folder of everything that a file imports from the package, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            package, _, rest = name.partition(".")
            if package == "bench" and rest:
                yield node.lineno, rest.partition(".")[0]


def test_every_part_of_the_package_has_a_layer() -> None:
    found = {path.stem for path in (REPOSITORY / "bench").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert found - {"__pycache__"} - FACES == set(LAYERS) - {"reported"}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_run_downwards(layer: str) -> None:
    allowed = {*LAYERS[: LAYERS.index(layer) + 1], "__version__"}
    above = [
        f"{file.relative_to(REPOSITORY)}:{line} imports bench.{name}"
        for file in FILES[layer]
        for line, name in imported(file)
        if name not in allowed
    ]
    assert not above
