"""One thread for all tests of methods; and parity tests name the figure they reached.

All of them stand at the end of a run, and in a file if asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from parity import Parity, Reached, table

ROWS = pytest.StashKey[dict[tuple[str, str], Reached]]()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As trials run. How sums are split between threads changes their last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def parity(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Parity:
    return Parity(request.config.stash.setdefault(ROWS, {}), record_property)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, {})
    if rows:
        terminalreporter.section("parity: largest differences reached")
        for (what, against), found in sorted(rows.items()):
            terminalreporter.line(f"{what}, {against}: {found}")
    if file := config.getoption("--parity"):
        Path(file).write_text(table(rows), encoding="utf-8")
