"""Toy data and plugins for processes of their own, an undisturbed study, and the table of faults."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from drivers import STUDY, TRIALS, Driver, Left
from fault_plugin import ENTRY_POINTS, METHODS, SITECUSTOMIZE
from faults import Faults, Row, table
from toy_data import write_toy_data
from toy_plugin import build_wheel, install

THOROUGH = 20  # kills, from which on everything is tested
ROWS = pytest.StashKey[dict[str, Row]]()


@pytest.fixture(scope="session")
def new_driver(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Driver]:
    """Makes drivers with stores of their own on one set of toy data."""
    folder = tmp_path_factory.mktemp("faults")
    data, path = folder / "toy", folder / "site"
    write_toy_data(data)
    install(build_wheel(folder), path)
    install(build_wheel(folder, "zsad_hostile", METHODS, ENTRY_POINTS), path)
    (path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    return lambda: Driver(tmp_path_factory.mktemp("driver"), data, path)


@pytest.fixture
def driver(new_driver: Callable[[], Driver]) -> Driver:
    return new_driver()


@pytest.fixture(scope="session")
def undisturbed(new_driver: Callable[[], Driver]) -> tuple[Driver, Left]:
    """The study that the faults are done to, run without any, and what it left."""
    driver = new_driver()
    code, _, said = driver.run(*STUDY)
    assert code == 0, said
    left = driver.left()
    assert len(left.records) == TRIALS
    assert set(driver.carried_out().values()) == {1}
    return driver, left


@pytest.fixture
def thorough(pytestconfig: pytest.Config) -> None:
    """For tests that take long beside what they add."""
    if pytestconfig.getoption("--faults-kills") < THOROUGH:
        pytest.skip("left to tox -e faults")


@pytest.fixture
def faults(request: pytest.FixtureRequest) -> Faults:
    test = re.sub(r"\[.*", "", request.node.nodeid)
    return Faults(request.config.stash.setdefault(ROWS, {}), test)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small disk of its own, or changes its options; the test is skipped where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> Path:
        code = os.system(f"mount -t tmpfs -o {options} tmpfs {folder} 2> {os.devnull}")
        if code:
            pytest.skip("needs the right to mount a small disk")
        return folder

    yield mount
    while os.path.ismount(folder):
        os.system(f"umount {folder}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, {})
    if rows:
        terminalreporter.section("faults survived")
        for what, row in rows.items():
            terminalreporter.line(f"{what}: {row} (injected, survived, lost, torn, twice) {row.beside}")
    if file := config.getoption("--faults"):
        options = config.getoption("--faults-kills"), config.getoption("--faults-trials")
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(table(rows, file, *options), encoding="utf-8")
