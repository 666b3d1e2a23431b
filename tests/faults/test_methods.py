"""Third parties' methods that do harm, in real runs: contained, named, counted, the rest of the study finished."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from drivers import Driver
from faults import Faults

# What the method does -> what its record says.
FAILS = {
    "raise": "RuntimeError: boom",
    "memory": "out of memory .99 GiB.",
    "base": "Strange: strange",
    "keyboard": "KeyboardInterrupt: not the user",
    "generator": "GeneratorExit",
    "mute": "Mute: .a Mute whose text raises SystemExit.",
    "cancelled": "CancelledError: task",
    "stop": "StopIteration: 3",
    "unpicklable": "Locked: has a lock",
    "huge": r"ValueError: x{400,} \.\.\. .10000012 characters.$",
    "escapes": r"ValueError: \\x1b\[2J\\x00\\udc80\\u202e$",
    "lines": "ValueError: first$",
    "exit": "SystemExit: 0",
    "recursion": "RecursionError",
    "nan": "non-finite image scores",
    "nan-map": "non-finite maps",
    "infinite": "non-finite image scores",
    "shape": r"image scores of shape \(17,\) for 18 images",
    "map-shape": r"maps of shape \(18, 4\) for 18 images",
    "constant": "constant image scores",
    "complex": "image scores of type complex",
    "objects": "image scores of type object",
    "text": "image scores of type <U",
    "ragged": "ValueError",
    "none": "NoneType instead of Scores",
    "tuple": "tuple instead of Scores",
    "extra-nan": "non-finite values in more",
    "extra-name": "the name 'image'",
    "extra-number": "the name 7",
    "device": "TypeError|NotImplementedError",
}
PASSES = ("float64", "strided", "integers", "tensor", "read-only", "notes", "leak")
# They change what the next trial of the same process would find.
DISTURBS = (
    "folder",
    "environment",
    "dtype",
    "default-device",
    "gradients",
    "threads",
    "algorithms",
    "numpy",
    "warnings",
    "generators",
    "collector",
    "close",
    "descriptors",
    "garbage",
    "thread",
    "kill-threads",
    "fork",
    "images",
)
KILLS = ("abort", "segfault")


def study(hows: tuple[str, ...]) -> tuple[str, ...]:
    """Each fault, and a witness after each; the first witness finds a process with nothing imported yet."""
    pairs = (f"toy-hostile[how={how}],toy-witness[after={how}]" for how in hows)
    first = "toy-witness[after=start],toy-witness[after=nothing]"
    return "--methods", f"{first},{','.join(pairs)}", "--categories", "bolt"


def by_config(driver: Driver) -> tuple[dict[str, Any], dict[str, Any]]:
    """The records of the faults, and of the witnesses."""
    hostile, witnesses = {}, {}
    for path in driver.store.glob("records/*/*.json"):
        record = json.loads(path.read_text())
        config = record["trial"]["method"]["config"]
        if "how" in config:
            hostile[config["how"]] = record
        else:
            witnesses[config["after"]] = record
    return hostile, witnesses


def scores_of(driver: Driver, records: Mapping[str, Any]) -> dict[str, bytes]:
    keys = {name: record["key"] for name, record in records.items()}
    return {
        name: (driver.store / f"scores/{key[:2]}/{key}.safetensors").read_bytes() for name, key in keys.items()
    }


def test_what_fails_is_contained_and_leaves_nothing_behind(driver: Driver, faults: Faults) -> None:
    hows = (*FAILS, *PASSES, *DISTURBS)
    code, output, said = driver.run(*study(hows), workers=1)
    hostile, witnesses = by_config(driver)
    assert code == 1
    assert "Traceback" not in said
    assert hostile.keys() == set(hows)
    assert witnesses.keys() == {"start", "nothing", *hows}
    wrong = {}
    for how, reason in FAILS.items():
        record = hostile[how]
        named = (
            record["status"] == "failed" and re.search(reason, record["reason"]) and len(record["reason"]) < 600
        )
        named = named and f"failed: toy-hostile[how={how}] · bolt: {record['reason']}" in said
        faults.add(f"method: {how}", 1, int(bool(named)))
        wrong |= {} if named else {how: record["reason"]}
    for how in PASSES:
        faults.add(f"method: {how}", 1, int(hostile[how]["status"] == "ok"))
        wrong |= {} if hostile[how]["status"] == "ok" else {how: hostile[how]["reason"]}
    states = {name: record["notes"] for name, record in witnesses.items()}
    scores = scores_of(driver, witnesses)
    for how in DISTURBS:
        same = states[how] == states["nothing"] and scores[how] == scores["nothing"]
        same = same and hostile[how]["status"] == "ok"
        faults.add(f"method that changes its process: {how}", 1, int(same))
        wrong |= {} if same else {how: (hostile[how]["reason"], states["nothing"], states[how])}
    assert not wrong
    assert set(scores.values()) == {scores["nothing"]}
    assert all(record["status"] == "ok" for record in witnesses.values())
    assert "Hostile" in output  # the table
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", said)


@pytest.mark.parametrize("how", KILLS)
def test_what_kills_its_process_costs_itself_alone(
    how: str, driver: Driver, faults: Faults, request: pytest.FixtureRequest
) -> None:
    if how != "segfault":
        request.getfixturevalue("thorough")
    code, _, said = driver.run(*study((how, "none")), workers=1)
    hostile, witnesses = by_config(driver)
    named = code == 1 and "the worker process died" in hostile[how]["reason"]
    survived = named and [record["status"] for record in witnesses.values()] == ["ok"] * 4
    faults.add(f"method that kills its process: {how}", 1, int(survived))
    assert survived, said
    assert set(scores_of(driver, witnesses).values()) == {scores_of(driver, witnesses)["nothing"]}


def test_what_hangs_is_ended(driver: Driver, faults: Faults) -> None:
    if "--time-limit" not in driver.call(driver.start("run", "--help"))[1]:
        pytest.skip("bench run has no --time-limit")
    code, _, said = driver.run(*study(("hang", "none")), "--time-limit", "2", workers=1)
    hostile, witnesses = by_config(driver)
    named = code == 1 and "--time-limit" in hostile["hang"]["reason"]
    survived = named and [record["status"] for record in witnesses.values()] == ["ok"] * 4
    faults.add("method that hangs", 1, int(survived))
    assert survived, said


def test_without_workers_only_ctrl_c_ends_the_study(new_driver: Callable[[], Driver], faults: Faults) -> None:
    """In the driver's own process a method's KeyboardInterrupt cannot be told from the user's."""
    hows = ("close", "descriptors", "folder", "environment", "exit", "base", "fork")
    driver = new_driver()
    driver.store = driver.store.parent / "relative"
    code, output, said = driver.run(*study(hows), workers=0)
    hostile, witnesses = by_config(driver)
    survived = code == 1 and len(witnesses) == len(hows) + 2 and "Hostile" in output
    faults.add("methods that change or end their process, in the driver's own", len(hows), len(hows) * survived)
    assert survived, said
    assert {how for how, record in hostile.items() if record["status"] == "failed"} == {"exit", "base"}
