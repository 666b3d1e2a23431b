"""Findings of an audit in the reported numbers, and in made-up ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import bench.reported
from bench.cli.main import main
from bench.reported import Reported
from bench.reported.audit import Audit, audit


@pytest.fixture(scope="module")
def shipped() -> Audit:
    return audit(bench.reported.load())


def test_promptads_own_averages_are_off_and_all_baselines_agree(shipped: Audit) -> None:
    table = {
        (each.printed.method, each.printed.shots): each
        for each in shipped.averages
        if each.printed.table == "promptad-1" and each.printed.dataset == "mvtec"
    }
    assert len(table) == 10
    assert {key for key, each in table.items() if each.verdict == "off"} == {("PromptAD", 1), ("PromptAD", 10)}
    assert table["PromptAD", 1].printed.value == 0.908
    assert table["PromptAD", 1].mean == pytest.approx(0.9064, abs=1e-12)
    assert table["PromptAD", 10].printed.value == 0.912
    assert table["PromptAD", 10].mean == pytest.approx(0.9198, abs=1e-12)
    agree = {key: each.verdict for key, each in table.items() if each.verdict != "off"}
    assert len(agree) == 8
    truncated = {("DRA", 1), ("CLIP", 10), ("DevNet", 10), ("MLEP", 10)}
    assert {key for key, verdict in agree.items() if verdict == "truncated"} == truncated
    assert set(agree.values()) == {"rounded", "truncated"}


def test_other_groupings_of_an_average_that_is_off_are_tried(shipped: Audit) -> None:
    found = {(each.printed.table, each.printed.shots, each.printed.metric): each.groupings for each in shipped.off}
    assert found["promptad-1", 1, "image_auroc"] == ("the mean of the rows and aitex (0.9077)",)
    assert found["promptad-1", 10, "image_auroc"] == ()


def test_what_else_does_not_add_up(shipped: Audit) -> None:
    """Found by the audit, not told to it; the digits are those of the sources."""
    others = {
        (e.printed.table, e.printed.metric, e.printed.k, e.printed.value, round(e.mean or 0, 4))
        for e in shipped.off
        if e.printed.table != "promptad-1"
    }
    assert others == {
        ("musc-detailed", "pixel_auroc", 0, 0.9871, 0.9884),
        ("regad-paper", "pixel_auroc", 8, 0.968, 0.9667),
    }
    assert not shipped.faults and not shipped.contradictions and not shipped.repeated


def test_two_papers_that_differ_are_no_error(shipped: Audit) -> None:
    same = next(
        rows
        for rows in shipped.different
        if rows[0].average and (rows[0].method, rows[0].dataset, rows[0].k) == ("WinCLIP", "mvtec", 0)
    )
    assert {row.value for row in same if row.table == "winclip-caoyunkang"} <= {0.7017, 0.8067, 0.2292, 0.8623}
    assert len({row.paper for row in same}) > 1
    assert not any(len({row.paper for row in rows}) == 1 for rows in shipped.different)


BASE = next(row for row in bench.reported.load() if row.table == "promptad-1")


def column(values: list[float], average: float, decimals: int = 3, **fields: Any) -> list[Reported]:
    names = [*(f"c{number}" for number in range(len(values))), "average"]
    return [
        replace(BASE, category=name, value=value, decimals=decimals, **fields)
        for name, value in zip(names, [*values, average], strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "average", "verdict"),
    [
        ([0.100, 0.201], 0.150, "rounded"),  # 0.1505: half to even
        ([0.100, 0.201], 0.151, "rounded"),  # 0.1505: half up
        ([0.100, 0.201, 0.152], 0.151, "rounded"),
        ([0.100, 0.200, 0.156], 0.152, "rounded"),
        ([0.100, 0.200, 0.155], 0.151, "truncated"),  # 0.15167
        ([0.100, 0.200, 0.151], 0.151, "within"),  # 0.15033; unrounded rows may reach 0.1505
        ([0.100, 0.200, 0.151], 0.152, "off"),
        ([0.100, 0.200, 0.151], 0.149, "off"),
        ([0.151], 0.151, "no rows"),
    ],
)
def test_rounding_is_told_from_truncation(values: list[float], average: float, verdict: str) -> None:
    (found,) = audit(column(values, average)).averages
    assert found.verdict == verdict


def test_swapped_columns_are_recognised() -> None:
    one = column([0.5, 0.6, 0.7], 0.9, method="A")
    other = column([0.8, 0.9, 1.0], 0.6, method="B")
    found = {each.printed.method: each.groupings for each in audit([*one, *other]).averages}
    assert found["A"] == ("the mean of the rows of B on mvtec, 1-shot: image_auroc (0.9000)",)
    assert found["B"] == ("the mean of the rows of A on mvtec, 1-shot: image_auroc (0.6000)",)


def test_contradictions_repetitions_and_differences() -> None:
    found = audit([BASE, replace(BASE, row=3), replace(BASE, paper="B", table="b")])
    assert [len(same) for same in found.repeated] == [2]
    assert not found.contradictions and not found.different and not found.sound
    found = audit([BASE, replace(BASE, table="promptad-9", value=BASE.value + 0.001)])
    assert [len(same) for same in found.contradictions] == [2]
    assert not found.repeated and not found.sound
    finer = replace(BASE, table="promptad-9", value=round(BASE.value + 0.0004, 4), decimals=4)
    assert audit([BASE, finer]).sound  # the same number with more digits
    found = audit([BASE, replace(BASE, paper="B", table="b", value=BASE.value + 0.001)])
    assert [len(same) for same in found.different] == [2]
    assert found.sound
    other = replace(BASE, paper="B", table="b", value=0.1, shots=10)
    assert not audit([BASE, other]).different  # another number of shots is another quantity


def call(*words: str) -> Result:
    return CliRunner().invoke(main, ["audit", *words])


def test_the_command_says_what_does_not_add_up() -> None:
    result = call()
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert lines[0] == "3332 numbers from 25 papers and repositories"
    assert "  promptad-1: 10 columns: 4 rounded, 4 truncated, 2 off" in lines
    said = "  PromptAD-WACV2024 Table 1: PromptAD on mvtec, 1-shot: image_auroc: printed 0.908, mean of 15 "
    assert any(line.startswith(said) for line in lines)
    assert lines[-1] == "some checks failed"
    columns = call("--paper", "PromptAD-WACV2024", "--columns").stdout
    assert (
        "truncated: DRA on mvtec, 1-shot: image_auroc: printed 0.815, mean of 15 rows 0.8156 (+0.0006)" in columns
    )
    assert "RegAD-ECCV2022" not in columns


def test_the_command_as_json() -> None:
    content = json.loads(call("--json").stdout)
    off = [each for each in content["averages"] if each["verdict"] == "off"]
    assert content["numbers"] == 3332 and not content["sound"] and len(off) == 4
    assert {(each["table"], each["shots"]) for each in off} >= {("promptad-1", 1), ("promptad-1", 10)}


def test_the_command_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "tables.csv").write_text(
        "table,paper,place,kind,runs,metric_protocol,source\nt1,A 2024,Table 1,paper,,,https://example.org\n"
    )
    head = "table,method,dataset,category,shots,k,protocol,trained_on,metric,value\n"
    row = "t1,Mine,mvtec,{},1,0,loo,,image_auroc,{}\n".format
    rows = [row("wood", "0.9"), row("grid", "0.7"), row("average", "0.8")]
    (tmp_path / "a.csv").write_text(head + "".join(rows))
    result = call("--reported", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "all checks passed"
    (tmp_path / "a.csv").write_text(head + "".join(rows) + row("tile", "88.1"))
    result = call("--reported", str(tmp_path))
    assert result.exit_code == 1
    assert "a.csv row 5: value 88.1 is above 1" in result.stdout
    assert call("--paper", "B").exit_code == 2
