"""From a number to its trials: addresses, values and settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from trial_records import record

from bench.errors import BenchError
from bench.report.tables.paper import build_layout
from bench.report.tables.table import Table, build_tables
from bench.report.tables.trace import CellTrace, RecordOf, find, render, trace
from bench.store.record import Record

LONG = "promptad[encoder=pocket/clip,iters=60]"


def records() -> dict[str, dict[str, Any]]:
    """Two methods, two categories, two numbers of shots, three seeds; and one without seeds."""
    found = [
        record(method, category, shots, seed, 0.5 + seed / 10 + shots / 100)
        for method in ("dra", LONG)
        for category in ("weave", "tile & <co>")
        for shots in (1, 10)
        for seed in range(3)
    ]
    found += [record("clip", category, None, None, 0.7) for category in ("weave", "tile & <co>")]
    for number, each in enumerate(found):
        each["provenance"] = {
            "bench": "0.1.0",
            "revision": "abc",
            "versions": {"numpy": "2.0", "torch": "2.4"},
            "python": "3.11",
            "platform": "Linux",
            "device": f"machine {number % 2}",
            "command": f"bench run --seeds {each['trial']['seed']}, # {number}",
        }
    return {each["key"]: each for each in found}


def tables(**options: Any) -> list[Table]:
    return build_tables(records().values(), metrics=["image_auroc", "aupro"], **options)


def record_of(documents: Iterable[dict[str, Any]]) -> RecordOf:
    return {each["key"]: Record.of(each) for each in documents}.get


def behind(address: str) -> CellTrace:
    return trace(find(tables(), address), record_of(records().values()))


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    ["promptad/1-shot/weave", "weave/PromptAD/1-shot", f"{LONG}/weave/1-shot/pocket", "PROMPTAD/ 1-Shot /Weave"],
)
def test_an_address_is_names_in_any_order(address: str) -> None:
    found = find(tables(), address)
    assert [(each.key.metric, each.key.category, each.key.shots) for each in found] == [
        ("image_auroc", "weave", 1),
        ("aupro", "weave", 1),
    ]
    assert {each.key.method for each in found} == {LONG}


def test_a_metric_chooses_among_numbers_of_the_same_trials() -> None:
    (found,) = find(tables(), "dra/10-shot/average/AUPRO@0.3")
    assert (found.key.metric, found.key.category) == ("aupro", "Average")
    assert len(found.cell.keys) == 6


def test_a_method_without_shots_stands_in_every_group() -> None:
    assert {each.cell.keys for each in find(tables(), "clip/weave")} == {
        find(tables(), "clip/1-shot/weave")[0].cell.keys
    }


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("dra/1-shot/waeve", r"unknown name 'waeve' in the table. Did you mean 'weave'"),
        ("dar/1-shot/weave", r"Did you mean 'dra'"),
        ("dra/weave", r"may be any of dra/1-shot/weave, dra/10-shot/weave; add the names in which they differ"),
        ("weave/average", r"no number is at 'weave/average'; name a row and a column, as in dra/1-shot/"),
        ("", "no number is at ''"),
        ("1-shot", r" and \d more; add"),
    ],
)
def test_what_is_no_address_is_told_with_a_way_out(address: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        find(tables(), address)


def test_a_label_is_meant_before_a_name_that_several_variants_share() -> None:
    made = build_tables([record("promptad"), record("promptad[cmi=off]")])
    assert find(made, "promptad/weave")[0].key.method == "promptad"
    assert find(made, "promptad[cmi=off]/weave")[0].key.method == "promptad[cmi=off]"
    variants = build_tables([record("promptad[ccl=off]"), record("promptad[cmi=off]")])
    with pytest.raises(
        BenchError, match=r"any of promptad\[ccl=off\]/1-shot/weave, promptad\[cmi=off\]/1-shot/weave"
    ):
        find(variants, "promptad/weave")


def test_rows_and_columns_of_a_layout_are_names_too() -> None:
    steps = ("promptad[ccl=off,cmi=off]", "promptad")
    made = build_layout("table4", [record(step, c) for step in steps for c in ("tile", "weave")])
    (found,) = find(made, "abn + nor/1-shot")
    assert found.key.method == steps[0]
    (missing,) = find(made, "nor/1-shot")
    assert "no trial has been run for it" in render(trace([missing], {}.get))


# ---------------------------------------------------------------- what is told


def test_trials_with_seeds_values_splits_and_commands() -> None:
    found = behind("promptad/1-shot/weave")
    assert [(trial["seed"], trial["image AUROC"], trial["ran on"]) for trial in found.trials] == [
        ("0", "0.510000", "machine 0, Linux"),
        ("1", "0.610000", "machine 1, Linux"),
        ("2", "0.710000", "machine 0, Linux"),
    ]
    known = records()
    keys = {each["key"][:12]: each for each in known.values()}
    for trial, command in zip(found.trials, found.commands, strict=True):
        itself = keys[trial["trial"]]
        assert trial["split"] == itself["trial"]["protocol"]["manifest"][:12]
        assert command == itself["provenance"]["command"]
    assert found.facts["method"] == f"{LONG}, version 1"
    assert found.facts["versions"] == "numpy 2.0, torch 2.4, Python 3.11"
    assert found.facts["encoders"] == f"pocket/clip, weights SHA-256 {'e' * 64}"
    assert found.facts["data"].endswith("f" * 64)
    assert "ran on" not in found.facts  # not the same for all
    assert found.numbers[0] == "image AUROC: 0.610 ± 0.100 (exact at 64 px)"


def test_an_average_lists_the_trials_of_all_categories() -> None:
    found = behind("dra/1-shot/average/image_auroc")
    assert Counter(trial["category"] for trial in found.trials) == {"weave": 3, "tile & <co>": 3}
    assert "average over 2 of 2 categories" in found.numbers[0]


def test_a_failed_trial_is_told_as_such() -> None:
    failed = record(seed=1, status="failed", reason="out of memory")
    made = [record(seed=0), failed]
    found = trace(find(build_tables(made), "promptad/weave"), record_of(made))
    assert [trial["image AUROC"] for trial in found.trials] == ["0.500000", "failed"]
    assert "failed (1 of 2 seeds): out of memory" in found.numbers[0]


def test_the_text_aligns_and_names_everything() -> None:
    text = render(behind("dra/10-shot/weave"))
    lines = text.splitlines()
    (head,) = [line for line in lines if line.lstrip().startswith("category")]
    first = lines[lines.index(head) + 1]
    assert first.index("0.600000") == head.index("image AUROC")
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert sum("bench run --seeds" in line for line in lines) == 3
