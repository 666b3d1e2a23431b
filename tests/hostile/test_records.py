"""Stores and folders of pins after somebody or something has changed them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hostile import Hostile
from hypothesis import given
from safetensors.numpy import save
from studies import keep
from trial_records import record

from bench.report.check.pins import measured, read, write
from bench.store.store import Store
from bench.tools.hashes import HashBook

KIND = "records, studies and pins (JSON)"

RECORDS = [record(category=category, seed=seed) for category in ("weave", "ring") for seed in (0, 1)]
DEEP = "[" * 100_000
TEXTS = [
    pytest.param("", id="empty"),
    pytest.param("{", id="cut"),
    pytest.param("[]", id="a list"),
    pytest.param("null", id="null"),
    pytest.param("\x00", id="NUL"),
    pytest.param("{}", id="nothing in it"),
    pytest.param(DEEP, id="deep lists"),
    pytest.param('{"a":' * 100_000, id="deep mappings"),
    pytest.param('{"format": 1, "key": "KEY"}', id="no status"),
    pytest.param('{"format": 1, "key": "KEY", "status": 5}', id="a number as status"),
    pytest.param('{"format": 1, "key": "KEY", "status": ["ok"]}', id="a list as status"),
    pytest.param('{"format": 1, "key": "KEY", "status": "ok", "x": NaN}', id="NaN"),
    pytest.param('{"format": 1, "key": "KEY", "status": "ok", "x": Infinity}', id="infinity"),
    pytest.param('{"format": 1, "key": "../../etc", "status": "ok"}', id="another key"),
    pytest.param('{"format": 99, "key": "KEY", "status": "ok"}', id="another format"),
    pytest.param('{"format": 1, "key": "KEY", "status": "ok", "x": ' + "9" * 5000 + "}", id="5000 digits"),
    pytest.param("\ufeff{}", id="byte order mark"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_records_are_put_aside(hostile: Hostile, tmp_path: Path, text: str) -> None:
    store = keep(Store(tmp_path), copy.deepcopy(RECORDS))
    key = RECORDS[0]["key"]
    store.record_path(key).write_text(text.replace("KEY", key), encoding="utf-8")
    assert hostile.handled(lambda: store.document(key)) is None
    assert not hostile.handled(lambda: store.done(key))
    assert len(list(store.record_path(key).parent.glob(f"{key}.*.corrupt"))) == 1
    assert len(hostile.handled(lambda: [*store.documents()])) == len(RECORDS) - 1


def test_records_of_no_text(hostile: Hostile, tmp_path: Path) -> None:
    store = keep(Store(tmp_path), RECORDS)
    store.record_path(RECORDS[0]["key"]).write_bytes(b"\xff\xfe{}")
    assert hostile.handled(lambda: store.document(RECORDS[0]["key"])) is None


def changed(place: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        for name in place[:-1]:
            content = content[name]
        if value is ...:
            del content[place[-1]]
        else:
            content[place[-1]] = value

    return change


VALUE = ("metrics", "exact", "values", "image_auroc")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed(("trial",), ...), id="no trial"),
        pytest.param(changed(("trial",), []), id="a list as trial"),
        pytest.param(changed(("trial", "method"), "promptad"), id="a name as method"),
        pytest.param(changed(("trial", "method", "label"), ...), id="no label"),
        pytest.param(changed(("trial", "seed"), "0"), id="text as seed"),
        pytest.param(changed(("trial", "seed"), 0.5), id="half a seed"),
        pytest.param(changed(("trial", "seed"), [0]), id="a list as seed"),
        pytest.param(changed(("trial", "shots"), True), id="true shots"),
        pytest.param(changed(("status",), "great"), id="no such status"),
        pytest.param(changed(("provenance",), 5), id="a number as provenance"),
        pytest.param(changed(("metrics",), [1]), id="a list as metrics"),
        pytest.param(changed(("metrics", "exact"), 0.5), id="a number as block"),
        pytest.param(changed(("metrics", "exact", "values"), [0.5]), id="a list as values"),
        pytest.param(changed(VALUE, "0.5"), id="text as value"),
        pytest.param(changed(VALUE, True), id="true as value"),
        pytest.param(changed(VALUE, {"mean": 0.5}), id="a mapping as value"),
    ],
)
def test_a_table_of_such_records(
    hostile: Hostile, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    every = copy.deepcopy(RECORDS)
    change(every[0])
    store = Store(tmp_path)
    keep(store, RECORDS)
    store.record_path(every[0]["key"]).write_text(json.dumps(every[0]))
    for command in ("table", "report", "compare", "check", "pin", "rescore", "explain-gap"):
        result = hostile.command(command, "--store", tmp_path)
        assert "is not a trial record" in result.stderr, command


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed(("keys",), 5), id="a number as keys"),
        pytest.param(changed(("keys",), "abc"), id="text as keys"),
        pytest.param(changed(("keys",), ["../../../etc/passwd"]), id="keys that climb"),
        pytest.param(changed(("keys",), [None]), id="null as key"),
        pytest.param(changed(("keys",), [["a"]]), id="a list as key"),
        pytest.param(changed(("missing",), {"a": 1}), id="a mapping as missing"),
        pytest.param(changed(("missing",), [5]), id="a number as missing"),
        pytest.param(changed(("missing",), [{"key": "../a"}]), id="missing that climbs"),
        pytest.param(changed(("methods",), [5]), id="a number as method"),
        pytest.param(changed(("methods",), "promptad"), id="text as methods"),
        pytest.param(changed(("keys",), []), id="no keys"),
        pytest.param(changed(("layout",), "../table1"), id="no such layout"),
        pytest.param(changed(("layout",), 5), id="a number as layout"),
        pytest.param(changed(("methods",), ["another"]), id="another method"),
    ],
)
def test_a_table_of_such_a_study(
    hostile: Hostile, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    store = keep(Store(tmp_path), RECORDS)
    path = tmp_path / "studies/mine.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    hostile.command("table", "--store", store.root)


@pytest.mark.parametrize("text", TEXTS)
def test_studies_that_are_none(hostile: Hostile, tmp_path: Path, text: str) -> None:
    keep(Store(tmp_path), RECORDS)
    (tmp_path / "studies/mine.json").write_text(text, encoding="utf-8")
    hostile.command("table", "--store", tmp_path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\x00b", "x" * 300, "", ".", "\x1b[31m"])
def test_names_of_studies(hostile: Hostile, tmp_path: Path, name: str) -> None:
    keep(Store(tmp_path), RECORDS)
    hostile.command("table", "--store", tmp_path, "--study", name)


@pytest.mark.parametrize("text", TEXTS)
def test_remembered_hashes_are_made_again(hostile: Hostile, tmp_path: Path, text: str) -> None:
    (tmp_path / "hashes.json").write_text(text, encoding="utf-8")
    image = tmp_path / "a.png"
    image.write_bytes(b"abc")
    assert hostile.handled(lambda: HashBook(tmp_path / "hashes.json")[image]).startswith("ba7816bf")


# ---------------------------------------------------------------- scores

KEY = "ab" + "0" * 62
ARRAYS = {"image": np.arange(3, dtype=np.float32), "maps": np.zeros((3, 2, 2), np.float32)}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="zero bytes"),
        pytest.param(save(ARRAYS, {"ids": "[]"})[:-4], id="cut"),
        pytest.param(save(ARRAYS), id="no names"),
        pytest.param(save(ARRAYS, {"ids": "["}), id="cut names"),
        pytest.param(save(ARRAYS, {"ids": "5"}), id="a number as names"),
        pytest.param(save(ARRAYS, {"ids": "[" * 50_000}), id="deep names"),
        pytest.param(save(ARRAYS, {"id": "[]"}), id="names called otherwise"),
        pytest.param(pickle.dumps(ARRAYS), id="a pickle"),
    ],
)
def test_scores_that_are_none(hostile: Hostile, tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path)
    path = store.scores_path(KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    hostile.refused(lambda: (store.scores(KEY), store.score_ids(KEY)), "run the study again")


# ---------------------------------------------------------------- pins


@pytest.mark.parametrize("text", TEXTS)
def test_pins_that_are_none(hostile: Hostile, tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text, encoding="utf-8")
    hostile.refused(lambda: read(path), "bench pin")


TRIAL = ("sections", 0, "trials", 0)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed(("sections",), 5), id="a number as sections"),
        pytest.param(changed(("sections",), [[]]), id="a list as section"),
        pytest.param(changed(("sections", 0, "method"), "x"), id="a name as method"),
        pytest.param(changed((*TRIAL, "seed"), "0"), id="text as seed"),
        pytest.param(changed((*TRIAL, "shots"), 1.5), id="1.5 shots"),
        pytest.param(changed((*TRIAL, "split"), ...), id="no split"),
        pytest.param(changed((*TRIAL, "exact"), 0.5), id="a number as values"),
        pytest.param(changed((*TRIAL, "exact", "image_auroc"), "0.5"), id="text as value"),
        pytest.param(changed((*TRIAL, "exact", "image_auroc"), True), id="true as value"),
        pytest.param(changed(("format",), 99), id="another format"),
        pytest.param(changed(("study",), ...), id="no study"),
        pytest.param(changed(("environment",), ...), id="no environment"),
    ],
)
def test_pins_that_were_changed(
    hostile: Hostile, tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    path = tmp_path / "mine.json"
    write(path, measured("mine", RECORDS))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    hostile.refused(lambda: read(path), "bench pin")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(value=JSON, place=st.sampled_from(["sections", "format", "study", "environment"]))
def test_any_pins(hostile: Hostile, tmp_path: Path, value: object, place: str) -> None:
    path = tmp_path / "mine.json"
    write(path, measured("mine", RECORDS))
    path.write_text(json.dumps({**json.loads(path.read_text()), place: value}))
    hostile.either(lambda: read(path))


@given(value=JSON, place=st.sampled_from(["trial", "metrics", "status", "reason", "provenance"]))
def test_a_table_of_any_record(hostile: Hostile, tmp_path: Path, value: object, place: str) -> None:
    from bench.report.tables.study import load_tables

    store = keep(Store(tmp_path), RECORDS)
    first = RECORDS[0]
    store.record_path(first["key"]).write_text(json.dumps({**first, place: value}))
    hostile.either(lambda: load_tables(store, "mine", ("image_auroc",)))
