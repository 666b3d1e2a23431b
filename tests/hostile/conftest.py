"""Hostile input is counted by kind; the counts stand at the end of a run, and in a file if asked for."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest
from hostile import Counts, Hostile, table

KINDS = pytest.StashKey[dict[str, Counts]]()

# The same inputs every time, few enough for every run; function-scoped fixtures only count here.
hypothesis.settings.register_profile(
    "hostile",
    derandomize=True,
    max_examples=60,
    deadline=None,
    database=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
    ],
)
hypothesis.settings.load_profile("hostile")


@pytest.fixture
def hostile(request: pytest.FixtureRequest) -> Hostile:
    """Counts for the ``KIND`` of the test's module."""
    kinds = request.config.stash.setdefault(KINDS, {})
    file = request.path.relative_to(request.config.rootpath).as_posix()
    return Hostile(kinds.setdefault(request.module.KIND, Counts(file)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    kinds = config.stash.get(KINDS, {})
    if kinds:
        terminalreporter.section("hostile input: tried, clear errors, handled rightly")
        for kind, counts in sorted(kinds.items()):
            tried = counts.errors + counts.handled
            terminalreporter.line(f"{kind}: {tried} tried, {counts.errors} errors, {counts.handled} handled")
    if file := config.getoption("--hostile"):
        Path(file).write_text(table(kinds), encoding="utf-8")
