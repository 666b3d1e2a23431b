"""CSV files: scores of images, and numbers that papers report."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hostile import Hostile
from hypothesis import given

from bench import reported
from bench.metrics.files import load_images
from bench.reported.loading import read

KIND = "CSV files"

NAMES = ("a", "b", "c")
MAPS = np.random.default_rng(0).random((3, 4, 4))
MASKS = np.zeros((3, 4, 4), np.uint8)
MASKS[0, 1, 1] = 1


def scores(tmp_path: Path, content: str | bytes) -> list[float]:
    np.savez(tmp_path / "maps.npz", **dict(zip(NAMES, MAPS, strict=True)))
    np.savez(tmp_path / "masks.npz", a=MASKS[0])
    file = tmp_path / "scores.csv"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    found = load_images(tmp_path / "maps.npz", tmp_path / "masks.npz", file).image_scores
    assert found is not None
    return found.tolist()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param("", "must name the columns", id="empty"),
        pytest.param("a,1\nb,2\nc,3\n", "must name the columns", id="no head"),
        pytest.param("name;score\na;1\nb;2\nc;3\n", "must name the columns", id="semicolons"),
        pytest.param("name,score,score\na,1,9\nb,2,9\nc,3,9\n", "once", id="a column twice"),
        pytest.param("name,score\na,1\nb,2\n", "no score for c", id="too few"),
        pytest.param("name,score\na,1\nb,2\nc,3\nd,4\n", "no map for d", id="too many"),
        pytest.param("name,score\na,1\nb,2\nc,3\na,4\n", "is given twice", id="a name twice"),
        pytest.param("name,score\na,1\nb\nc,3\n", "line 3", id="a field too few"),
        pytest.param("name,score\na,1\nb,2,3\nc,3\n", "line 3", id="a field too many"),
        pytest.param("name,score\na,one\nb,2\nc,3\n", "line 2", id="a word"),
        pytest.param("name,score\na,\nb,2\nc,3\n", "line 2", id="no score"),
        pytest.param("name,score\na,'1,5'\nb,2\nc,3\n", "line 2", id="a decimal comma"),
        pytest.param("name,score,label\na,1,\nb,2,0\nc,3,0\n", "line 2", id="no label"),
        pytest.param("name,score,label\na,1,yes\nb,2,0\nc,3,0\n", "line 2", id="a word as label"),
        pytest.param("name,score,label\na,1,1\nb,2,2\nc,3,0\n", "line 3", id="a third label"),
        pytest.param("name,score,label\na,1,0\nb,2,0\nc,3,0\n", "labelled", id="a label against the mask"),
        pytest.param('name,score\n"a,1\nb,2\nc,3\n', "cannot be read as CSV", id="an open quote"),
        pytest.param("name,score\n" + "a" * 200_000 + ",1\n", "cannot be read as CSV", id="a field of 200 kB"),
        pytest.param("x" * 100_000 + "\na\n", "must name the columns", id="a head of 100 kB"),
        pytest.param("name,score\n" + "a" * 9000 + ",1\n", "no score for", id="a long name"),
        pytest.param("name,score\na,1\nb,2\nc,3\n".encode("utf-16"), "cannot be read as CSV", id="UTF-16"),
        pytest.param(b"name,score\n\xff,1\n", "cannot be read as CSV", id="no UTF-8"),
        pytest.param("name,score\n../a,1\nb,2\nc,3\n", "no map for ../a", id="a name that climbs"),
    ],
)
def test_scores_that_are_none(hostile: Hostile, tmp_path: Path, content: str | bytes, word: str) -> None:
    assert "scores.csv" in hostile.refused(lambda: scores(tmp_path, content), word).replace(
        "masks.npz", "scores.csv"
    )


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\ufeffname,score\na,1\nb,2\nc,3\n", id="byte order mark"),
        pytest.param("name,score\r\na,1\r\nb,2\r\nc,3\r\n", id="CRLF"),
        pytest.param("name,score\ra,1\rb,2\rc,3\r", id="CR"),
        pytest.param("score,name\n1,a\n2,b\n3,c", id="columns the other way round"),
        pytest.param('"name","score"\n"a","1"\n"b","2"\n"c","3"\n', id="quotes"),
        pytest.param("name,score,note\na,1,=1+1\nb,2,\nc,3,\n", id="another column"),
        pytest.param("name,score,label\na,1,1\nb,2,0\nc,3, 0 \n", id="labels"),
        pytest.param("name,score\ntest/a.png,1\nb_mask.PNG,2\nc,3e0\n", id="names as paths"),
    ],
)
def test_scores_that_are_odd_but_right(hostile: Hostile, tmp_path: Path, content: str) -> None:
    assert hostile.handled(lambda: scores(tmp_path, content)) == [1, 2, 3]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_scores_that_are_no_finite_number_give_none(hostile: Hostile, tmp_path: Path, value: str) -> None:
    scores(tmp_path, f"name,score\na,{value}\nb,2\nc,3\n")
    files = [f"--{what}={tmp_path / name}" for what, name in (("maps", "maps.npz"), ("masks", "masks.npz"))]
    result = hostile.command("evaluate", *files, f"--scores={tmp_path / 'scores.csv'}", exit_code=0)
    assert "non-finite image scores" in result.stderr


@given(content=st.text('name,scorelabel01.5"\n\r;\x00é', max_size=60))
def test_any_scores(hostile: Hostile, tmp_path: Path, content: str) -> None:
    hostile.either(lambda: scores(tmp_path, "name,score\na,1\nb,2\n" + content))


# ---------------------------------------------------------------- numbers that papers report

TABLES = "table,paper,place,kind,runs,metric_protocol,source\nt1,A 2024,Table 1,paper,10,,https://example.org\n"
HEAD = "table,method,dataset,category,shots,k,protocol,trained_on,metric,value\n"
ROW = "t1,PromptAD,mvtec,wood,1,0,loo,,image_auroc,0.991\n"


def numbers(tmp_path: Path, content: str | bytes, tables: str = TABLES) -> list[float]:
    (tmp_path / "tables.csv").write_text(tables, encoding="utf-8")
    (tmp_path / "a.csv").write_bytes(content.encode() if isinstance(content, str) else content)
    return [row.value for row in reported.load(tmp_path)]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param("", "expected table", id="empty"),
        pytest.param(HEAD.replace("value", "value,value") + ROW, "the columns are", id="a column twice"),
        pytest.param(HEAD + ROW.replace("0.991", "nan"), "not a number", id="NaN"),
        pytest.param(HEAD + ROW.replace("0.991", "inf"), "not a number", id="infinity"),
        pytest.param(HEAD + ROW.replace("0.991", "1e-1"), "not a number", id="an exponent"),
        pytest.param(HEAD + ROW.replace("0.991", "-0.5"), "not a number", id="negative"),
        pytest.param(HEAD + ROW.replace("0.991", "99.1"), "above 1", id="percent"),
        pytest.param(HEAD + ROW.replace("0.991", "\u0660.\u0669"), "not a number", id="other digits"),
        pytest.param(HEAD + ROW.replace("0.991", "0." + "9" * 9000 + "x"), "not a number", id="9000 digits"),
        pytest.param(HEAD + ROW.replace(",1,0,", ",1.5,0,"), "whole number", id="1.5 shots"),
        pytest.param(HEAD + ROW.replace(",1,0,", ",-1,0,"), "whole number", id="negative shots"),
        pytest.param(HEAD + ROW.replace(",1,0,", "," + "9" * 5000 + ",0,"), "row 2", id="5000 digits"),
        pytest.param(HEAD + ROW.replace("loo", "../loo"), "row 2", id="a protocol that climbs"),
        pytest.param(HEAD + ROW.replace("t1", "t2"), "unknown table 't2'", id="another table"),
        pytest.param(HEAD + ROW.replace("wood", ""), "is missing", id="no category"),
        pytest.param(HEAD + '"' + ROW, "row", id="an open quote"),
        pytest.param(HEAD + ROW.strip() + ",=1+1\n", "11 fields", id="a field too many"),
        pytest.param((HEAD + ROW).encode("utf-16"), "not UTF-8", id="UTF-16"),
        pytest.param(HEAD + "x" * 200_000, "a.csv", id="a field of 200 kB"),
    ],
)
def test_numbers_that_are_none(hostile: Hostile, tmp_path: Path, content: str | bytes, word: str) -> None:
    hostile.refused(lambda: numbers(tmp_path, content), word, lines=True)


def test_tables_that_are_none(hostile: Hostile, tmp_path: Path) -> None:
    hostile.refused(lambda: reported.load(tmp_path / "none"), "no reported numbers here")
    for tables in ("", TABLES + TABLES.splitlines()[1], TABLES.replace("paper,10", "gossip,10"), "\x00"):
        hostile.refused(lambda tables=tables: numbers(tmp_path, HEAD + ROW, tables), lines=True)  # type: ignore[misc]
    numbers(tmp_path, HEAD + ROW)
    (tmp_path / "b.csv").mkdir()
    hostile.refused(lambda: reported.load(tmp_path), "is no file", lines=True)
    (tmp_path / "b.csv").rmdir()
    os.mkfifo(tmp_path / "b.csv")
    hostile.refused(lambda: reported.load(tmp_path), "is no file", lines=True)
    (tmp_path / "b.csv").unlink()
    (tmp_path / "b.csv").symlink_to("b.csv")
    hostile.refused(lambda: reported.load(tmp_path), "is no file", lines=True)


@pytest.mark.parametrize("content", ["\ufeff" + HEAD + ROW, (HEAD + ROW).replace("\n", "\r\n"), HEAD + ROW + "\n"])
def test_numbers_that_are_odd_but_right(hostile: Hostile, tmp_path: Path, content: str) -> None:
    if content.endswith("\n\n"):
        hostile.refused(lambda: numbers(tmp_path, content), "0 fields", lines=True)
    else:
        assert hostile.handled(lambda: numbers(tmp_path, content)) == [0.991]


@given(content=st.text('t1,wood"\n\r0.9\x00\u2028é', max_size=60))
def test_any_numbers(hostile: Hostile, tmp_path: Path, content: str) -> None:
    (tmp_path / "tables.csv").write_text(TABLES)
    (tmp_path / "a.csv").write_text(HEAD + content, encoding="utf-8")
    hostile.handled(lambda: read(tmp_path))
