"""Study files: YAML that is no study, or would be a bomb, a climb or another number than was meant."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hostile import Hostile
from hypothesis import given

from bench.study.files import load_study
from bench.study.study import Study
from bench.tools.spec import parse_spec
from bench.tools.text import MAX_BYTES, parse_yaml

KIND = "study files (YAML)"

# Short files that stand for a billion values, which nothing may write out.
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


def load(tmp_path: Path, content: str | bytes) -> dict[str, object]:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return load_study(str(file))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param("", "expected name, methods", id="empty"),
        pytest.param("42", "expected name, methods", id="a number"),
        pytest.param("- clip", "expected name, methods", id="a list"),
        pytest.param("methods: [clip", "not valid YAML", id="unclosed"),
        pytest.param("methods: clip\nmethods: dra", "is given twice", id="a field twice"),
        pytest.param("--- {methods: clip}\n--- {methods: dra}", "not valid YAML", id="two documents"),
        pytest.param(LAUGHS + "methods: *j", "unknown field 'a'", id="billion laughs"),
        pytest.param("methods: &m [*m]", "item 1: expected text, found a list", id="a list within itself"),
        pytest.param("methods: " + "[" * 20_000, "nested too deeply", id="deep lists"),
        pytest.param("methods: " + "{a: " * 20_000, "nested too deeply", id="deep mappings"),
        pytest.param("methods: " + "- " * 20_000, "not valid YAML", id="deep dashes"),
        pytest.param("methods: !!python/object/apply:os.system [id]", "not valid YAML", id="python object"),
        pytest.param("methods: !!python/name:os.system", "not valid YAML", id="python name"),
        pytest.param("methods: !!python/object/new:os.system [id]", "not valid YAML", id="python new"),
        pytest.param("methods: !include /etc/passwd", "not valid YAML", id="include"),
        pytest.param("methods: !!int ''", "not valid YAML", id="int of nothing"),
        pytest.param("methods: !!float many", "not valid YAML", id="float of a word"),
        pytest.param("methods: !!bool perhaps", "not valid YAML", id="bool of a word"),
        pytest.param("methods: !!timestamp today", "not valid YAML", id="timestamp of a word"),
        pytest.param("methods: !!binary '%'", "expected text", id="binary of no base64"),
        pytest.param("? [a, b]\n: c", "not valid YAML", id="a list as key"),
        pytest.param("methods: clip\n\x00", "not valid YAML", id="NUL"),
        pytest.param("methods: \x1b[31mclip", "not valid YAML", id="escape sequence"),
        pytest.param("methods: \ud800", "UTF-8", id="encoded surrogate"),
        pytest.param(b"methods: \xff\xfe", "save it as UTF-8", id="no UTF-8"),
        pytest.param("methods: clip".encode("utf-16"), "save it as UTF-8", id="UTF-16"),
        pytest.param(b"\x1f\x8b\x08\x00" * 9, "save it as UTF-8", id="gzip"),
        pytest.param("#" * (MAX_BYTES + 1), "are not read", id="too large"),
        pytest.param("method: clip", "Did you mean 'methods'", id="unknown field"),
        pytest.param(f"? {'x' * 100_000}\n: clip", "unknown field", id="a long field"),
        pytest.param("__class__: clip", "unknown field", id="dunder field"),
        pytest.param("roots: {mvtec: /}", "unknown field", id="a field that no file sets"),
        pytest.param("null: clip", "unknown field", id="null as field"),
        pytest.param("methods:", "methods: expected text or a list, found nothing", id="nothing as methods"),
        pytest.param("methods: [null]", "expected text, found nothing", id="null in methods"),
        pytest.param("methods: [[clip]]", "expected text, found a list", id="list in methods"),
        pytest.param("methods: {clip: 1}", "expected text or a list, found a mapping", id="mapping as methods"),
        pytest.param("methods: true", "the truth value True; put it in quotes", id="true as a method"),
        pytest.param("methods: !!binary aGk=", "found a bytes", id="bytes as a method"),
        pytest.param("methods: 'clip['", "write NAME", id="open bracket"),
        pytest.param("methods: 'clip[a=1,a=2]'", "is given twice", id="an option twice"),
        pytest.param(
            "categories: [0]",
            "item 1: expected text, found the number 0; put it in quotes",
            id="0 as a category",
        ),
        pytest.param("categories: [1.0]", "the number 1.0; put it in quotes", id="a number as category"),
        pytest.param("encoder: {a: b}", "expected text", id="mapping as encoder"),
        pytest.param("layout: ../table1", "Did you mean 'table1'", id="a layout that climbs"),
        pytest.param("encoder: ' '", "encoder: expected text, found an empty text", id="a space as encoder"),
        pytest.param("shots: [1, -1]", "shots, item 2: expected a whole number >= 0", id="negative shots"),
        pytest.param("seeds: true", "a whole number or a list, found the truth value True", id="true as seeds"),
        pytest.param("seeds: 1000000000", "are more than a study has", id="a billion seeds"),
        pytest.param("seeds: 1e12", "expected a whole number", id="1e12 as text"),
        pytest.param("seeds: 1.0e+12", "expected a whole number", id="1e12 as float"),
        pytest.param("seeds: 2.5", "expected a whole number", id="half a seed"),
        pytest.param("seeds: .nan", "expected a whole number", id="NaN seeds"),
        pytest.param("seeds: [0, 1.5]", "expected a whole number", id="half a seed in a list"),
        pytest.param("seeds: [false]", "expected a whole number", id="false as a seed"),
        pytest.param("seeds: ['0']", "expected a whole number", id="text as a seed"),
        pytest.param("seeds: 010", "found the text '010'", id="octal seeds"),
        pytest.param("seeds: 0x10", "found the text '0x10'", id="hexadecimal seeds"),
        pytest.param("seeds: 0b11", "found the text '0b11'", id="binary seeds"),
        pytest.param("seeds: 1_0", "found the text '1_0'", id="an underscore in seeds"),
        pytest.param("shots: [1:30]", "found the text '1:30'", id="a time as shots"),
        pytest.param("seeds: 2024-01-01", "expected a whole number", id="a date as seeds"),
        pytest.param("seeds: " + "9" * 5000, "not valid YAML", id="5000 digits"),
        pytest.param("shots: [1.5]", "expected a whole number", id="1.5 shots"),
        pytest.param("shots: [true]", "expected a whole number", id="true shots"),
        pytest.param("shots: {1: 10}", "expected a whole number", id="mapping as shots"),
        pytest.param("shots: [.inf]", "expected a whole number", id="infinite shots"),
    ],
)
def test_what_is_no_study(hostile: Hostile, tmp_path: Path, content: str | bytes, word: str) -> None:
    hostile.refused(lambda: load(tmp_path, content), word)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        pytest.param({"name": "../../evil"}, "cannot be called", id="climbing name"),
        pytest.param({"name": "/etc/cron.d/evil"}, "cannot be called", id="absolute name"),
        pytest.param({"name": "a\\b"}, "cannot be called", id="backslash"),
        pytest.param({"name": ".."}, "cannot be called", id="two dots"),
        pytest.param({"name": ".hidden"}, "cannot be called", id="hidden"),
        pytest.param({"name": "a\x00b"}, "cannot be called", id="NUL in the name"),
        pytest.param({"name": "a\nb"}, "cannot be called", id="line break in the name"),
        pytest.param({"name": "C:evil"}, "cannot be called", id="drive"),
        pytest.param({"name": "what?*"}, "cannot be called", id="Windows' reserved characters"),
        pytest.param({"name": "x" * 300}, "cannot be called", id="long name"),
        pytest.param({"name": " padded "}, "cannot be called", id="spaces around"),
        pytest.param({"seeds": (-1,)}, "none negative", id="negative seed"),
        pytest.param({"seeds": ()}, "one or more", id="no seeds"),
        pytest.param({"seeds": (2**32,)}, "above", id="a seed beyond 32 bits"),
        pytest.param({"seeds": (10**400,)}, "above", id="a seed of 400 digits"),
        pytest.param({"seeds": (0, 0)}, "twice", id="a seed twice"),
        pytest.param({"shots": (-1,)}, "none negative", id="negative shots"),
        pytest.param({"shots": ()}, "one or more", id="no shots"),
    ],
)
def test_what_no_study_is(hostile: Hostile, fields: dict[str, object], word: str) -> None:
    base = {"name": "mine", "methods": (parse_spec("clip"),), "datasets": (parse_spec("pocket"),)}
    hostile.refused(lambda: Study(**{**base, **fields}), word)  # type: ignore[arg-type]


def test_files_that_are_none(hostile: Hostile, tmp_path: Path) -> None:
    hostile.refused(lambda: load_study(str(tmp_path / "none.yaml")), "does not exist")
    (tmp_path / "folder.yaml").mkdir()
    hostile.refused(lambda: load_study(str(tmp_path / "folder.yaml")), "not a file")
    os.mkfifo(tmp_path / "pipe.yaml")
    hostile.refused(lambda: load_study(str(tmp_path / "pipe.yaml")), "not a file")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    hostile.refused(lambda: load_study(str(tmp_path / "loop.yaml")))
    hostile.refused(lambda: load_study(f"{tmp_path}/{'x' * 300}.yaml"), "cannot be read")
    hostile.refused(lambda: load_study("a\x00b.yaml"))
    hostile.refused(lambda: load_study("../../etc/passwd"), "unknown study")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("\ufeffmethods: [clip]\nseeds: 3\n", id="byte order mark"),
        pytest.param("methods: [clip]\r\nseeds: 3\r\n", id="CRLF"),
        pytest.param("methods: &m [clip]\nseeds: 3\n", id="an anchor"),
        pytest.param("methods: clip\nseeds: 3\n", id="one method, no list"),
        pytest.param('{"methods": ["clip"], "seeds": 3}', id="JSON"),
    ],
)
def test_odd_but_right(hostile: Hostile, tmp_path: Path, content: str) -> None:
    fields = hostile.handled(lambda: load(tmp_path, content))
    assert (fields["methods"], fields["seeds"]) == ((parse_spec("clip"),), (0, 1, 2))


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--seeds", "1000000000"], id="a billion seeds"),
        pytest.param(["--seeds", "9" * 5000], id="5000 digits"),
        pytest.param(["--seeds", "-3"], id="negative seeds"),
        pytest.param(["--seeds", "4294967296,"], id="a seed beyond 32 bits"),
        pytest.param(["--seeds", "nan"], id="NaN seeds"),
        pytest.param(["--seeds", "1,1"], id="a seed twice"),
        pytest.param(["--shots", "1.5"], id="1.5 shots"),
        pytest.param(["--shots", "-1"], id="negative shots"),
        pytest.param(["--categories", "../../etc"], id="a category that climbs"),
        pytest.param(["--categories", "\x1b[31mred"], id="a category of control characters"),
        pytest.param(["--protocol", "loo[k=1e400]"], id="k beyond floats"),
        pytest.param(["--protocol", "loo[k=" + "9" * 400 + "]"], id="k of 400 digits"),
        pytest.param(["--protocol", "loo[k=-1]"], id="negative k"),
        pytest.param(["--set", "temperature=nan"], id="an option that none has"),
        pytest.param(["--methods", "promptad[lr=nan]"], id="a learning rate of NaN"),
        pytest.param(["--methods", "promptad[lr=inf]"], id="an infinite learning rate"),
        pytest.param(["--methods", "x" * 100_000], id="a method of a megabyte"),
        pytest.param(["--methods", "clip[" * 1000], id="a thousand brackets"),
        pytest.param(["--device", "cuda:99999999999999999999"], id="no such device"),
    ],
)
def test_options_of_bench_run(hostile: Hostile, tmp_path: Path, words: list[str]) -> None:
    hostile.command("run", "--methods", "clip", *words, "--dry-run", "--store", tmp_path / "store")


YAML = st.text("abz01.-:[]{}&*!|>?,#'\"%@ \n\t<=é\u2028\x00", max_size=80)


@given(content=YAML)
def test_any_text(hostile: Hostile, tmp_path: Path, content: str) -> None:
    hostile.either(lambda: load(tmp_path, content))


@given(content=st.binary(max_size=80))
def test_any_bytes(hostile: Hostile, tmp_path: Path, content: bytes) -> None:
    hostile.either(lambda: load(tmp_path, content))


@given(field=st.sampled_from(["methods", "seeds", "shots", "categories", "name", "source", "layout"]), value=YAML)
def test_any_value(hostile: Hostile, tmp_path: Path, field: str, value: str) -> None:
    hostile.either(lambda: load(tmp_path, f"{field}: {value}"))


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_well_formed_value(hostile: Hostile, tmp_path: Path, value: object) -> None:
    import yaml

    for field in ("methods", "seeds"):
        text = yaml.safe_dump({field: value})
        hostile.either(lambda text=text: load(tmp_path, text))  # type: ignore[misc]


def test_aliases_are_read(hostile: Hostile) -> None:
    assert hostile.handled(lambda: parse_yaml("a: &a [1, 2]\nb: *a", "x")) == {"a": [1, 2], "b": [1, 2]}
    assert hostile.handled(lambda: parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}", "x"))["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "word", ["00", "010", "0x10", "1_000", "1:30", "on", "off", "yes", "NO", "2024-01-01", "1e3"]
)
def test_what_yaml_1_1_takes_for_something_else_stays_as_it_is_written(
    hostile: Hostile, tmp_path: Path, word: str
) -> None:
    content = f"methods: [clip]\ncategories: [{word}]\nencoder: {word}\n"
    fields = hostile.handled(lambda: load(tmp_path, content))
    assert (fields["categories"], fields["encoder"]) == ((word,), word)
