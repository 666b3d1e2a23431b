"""The reported numbers that ship, and what is said of a folder that breaks the schema."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

import bench.reported
from bench.errors import BenchError

TABLES = "table,paper,place,kind,runs,metric_protocol,source\nt1,A 2024,Table 1,paper,10,,https://example.org\n"
HEAD = "table,method,dataset,category,shots,k,protocol,trained_on,metric,value\n"
ROW = "t1,PromptAD,mvtec,wood,1,0,loo,,image_auroc,0.991\n"


def folder(path: Path, rows: str = ROW, head: str = HEAD, tables: str = TABLES) -> Path:
    (path / "tables.csv").write_text(tables)
    (path / "a.csv").write_text(head + rows)
    return path


def test_what_ships_is_sound_and_whole() -> None:
    rows = bench.reported.load()
    assert len(rows) == 3332
    assert Counter(row.table.partition("-")[0] for row in rows)["promptad"] == 170 + 15 + 12 + 10
    assert all(0 <= row.value <= 1 for row in rows)
    second_hand = [row for row in rows if row.kind == "second_hand"]
    assert len(second_hand) == 27
    assert all(row.source.startswith("https://") for row in rows if row not in second_hand)


def test_numbers_are_those_that_the_paper_prints() -> None:
    table = {
        (row.method, row.category, row.shots): row for row in bench.reported.load() if row.table == "promptad-1"
    }
    row = table["PromptAD", "metal_nut", 10]
    assert (row.value, row.decimals, row.paper, row.place, row.runs) == (
        0.845,
        3,
        "PromptAD-WACV2024",
        "Table 1",
        10,
    )
    assert (row.protocol, row.k, row.metric, row.deviation) == ("loo", 0, "image_auroc", None)
    assert table["MLEP", "wood", 10].value == 0.893
    assert (table["MLEP", "grid", 10].value, table["MLEP", "grid", 10].decimals) == (0.860, 3)


def test_numbers_of_one_table_have_the_same_number_of_decimals() -> None:
    found: dict[str, set[int]] = {}
    for row in bench.reported.load():
        found.setdefault(row.table, set()).add(row.decimals)
    assert all(len(decimals) == 1 for decimals in found.values()), found


def test_no_number_is_ours() -> None:
    """Means that were computed from a paper's rows are an audit's business."""
    assert not any("recomputed" in row.category or "computed" in row.note for row in bench.reported.load())


def test_a_folder_of_ones_own(tmp_path: Path) -> None:
    (row,) = bench.reported.load(folder(tmp_path, ROW, HEAD))
    assert (row.method, row.value, row.encoder, row.note, row.file, row.row) == (
        "PromptAD",
        0.991,
        "",
        "",
        "a.csv",
        2,
    )
    rows = ROW.replace("\n", ",0.012\n")
    (row,) = bench.reported.load(folder(tmp_path, rows, HEAD.replace("\n", ",deviation\n")))
    assert row.deviation == 0.012


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0.991", "99.1", "value 99.1 is above 1; numbers are fractions, so that 90.8 % is 0.908"),
        ("0.991", "0,991", "11 fields under 10 columns"),
        ("0.991", "-0.1", "value '-0.1' is not a number such as 0.908"),
        ("0.991", "nan", "value 'nan' is not a number"),
        ("0.991", "", "the field 'value' is missing"),
        ("image_auroc", "image_auc", "unknown metric 'image_auc'. Did you mean 'image_auroc'?"),
        ("loo", "lopo", "protocol: unknown value 'lopo'. Did you mean 'loo'?"),
        ("t1", "t2", "unknown table 't2'"),
        (",1,0,", ",one,0,", "shots: expected a whole number, found the text 'one'"),
        (",1,0,", ",1,,", "the field 'k' is missing"),
        ("loo", "transfer", "protocol transfer without trained_on"),
        ("loo,,", "loo,visa,", "trained_on 'visa' goes with protocol transfer"),
        ("loo", "training_free", "1 labelled anomalies under protocol training_free"),
        ("wood", "", "the field 'category' is missing"),
    ],
)
def test_every_fault_is_one_line_with_its_row(tmp_path: Path, old: str, new: str, said: str) -> None:
    root = folder(tmp_path, ROW + ROW.replace(old, new, 1) + ROW)
    rows, faults = bench.reported.read(root)
    assert [row.row for row in rows] == [2, 4]
    (fault,) = faults
    assert str(fault).startswith("a.csv row 3: ")
    assert said in str(fault)
    assert "\n" not in str(fault)
    with pytest.raises(BenchError, match=r"1 faulty row\n  a\.csv row 3: "):
        bench.reported.load(root)


def test_faults_of_several_rows_are_all_named(tmp_path: Path) -> None:
    root = folder(tmp_path, ROW.replace("0.991", "2").replace(",1,0,", ",x,0,") + ROW.replace("0.991", "3"))
    with pytest.raises(BenchError) as error:
        bench.reported.load(root)
    assert "2 faulty rows\n  a.csv row 2: shots: expected a whole number, found the text 'x'\n" in str(error.value)
    assert "row 3: value 3 is above 1" in str(error.value)


def test_faulty_columns_and_files(tmp_path: Path) -> None:
    root = folder(tmp_path, head=HEAD.replace("value", "auroc"))
    assert [fault.row for fault in bench.reported.read(root)[1]] == [1]
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe")
    assert "UTF-8" in str(bench.reported.read(root)[1][0])
    (tmp_path / "a.csv").write_text(HEAD + 't1,"Prompt"AD,mvtec\n')
    assert "is not CSV" in str(bench.reported.read(root)[1][0])
    root = folder(tmp_path, tables=TABLES + TABLES.splitlines()[1] + "\n")
    assert "is given twice" in str(bench.reported.read(root)[1][0])
    root = folder(tmp_path, tables=TABLES.replace("paper,10,,", "paper,10,grid20,"))
    faults = bench.reported.read(root)[1]
    assert "tables.csv row 2: metric_protocol: unknown metric protocol 'grid20'" in str(faults[0])
    with pytest.raises(BenchError, match=r"expected tables\.csv"):
        bench.reported.load(tmp_path / "nowhere")
