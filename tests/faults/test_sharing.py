"""Several processes at work on one study at once."""

from __future__ import annotations

import pytest
from drivers import STUDY, Driver, Left
from faults import Faults


@pytest.mark.parametrize("number", [2, 8])
def test_processes_share_a_study(
    number: int,
    driver: Driver,
    undisturbed: tuple[Driver, Left],
    faults: Faults,
    request: pytest.FixtureRequest,
) -> None:
    if number > 2:
        request.getfixturevalue("thorough")
    processes = [driver.start_run(*STUDY, workers=i % 2) for i in range(number)]
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    said = driver.said.read_text()
    left, reference, ends = driver.left(), undisturbed[1], driver.carried_out()
    same = left.records == reference.records and left.scores == reference.scores
    survived = number if same and len(set(outputs)) == 1 else 0
    twice = sum(ends.values()) - len(ends) + left.twice
    lost = len(reference.records.keys() - left.records.keys())
    leftovers = [*driver.store.glob("locks/*"), *driver.store.glob("*/*/.*")]
    faults.add(f"{number} processes at once on one study", number, survived, lost, left.torn, twice)
    assert (survived, lost, left.torn, twice) == (number, 0, 0, 0), said
    assert [process.returncode for process in processes] == [0] * number, said
    assert leftovers == []
