"""Prompt files: YAML that holds no prompts, or more than prompts."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hostile import Hostile
from hypothesis import given

from bench.contracts import Prompts
from bench.data.prompts import default_prompts, load_prompts, prompt_hash, read_prompt_file
from bench.tools.text import MAX_BYTES

KIND = "prompt files (YAML)"

ENTRY = "{normality: fine, descriptions: [dent]}"


def read(tmp_path: Path, content: str | bytes) -> dict[str, dict[str, Prompts]]:
    file = tmp_path / "prompts.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_prompt_file(file)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        pytest.param("", "found nothing", id="empty"),
        pytest.param("[]", "found an empty list", id="a list"),
        pytest.param("\x00", "not valid YAML", id="NUL"),
        pytest.param(b"\xff\xfea\x00", "save it as UTF-8", id="UTF-16"),
        pytest.param("bolt: é".encode("latin1"), "save it as UTF-8", id="Latin 1"),
        pytest.param(" " * (MAX_BYTES + 1), "are not read", id="too large"),
        pytest.param(
            "a: &a [x,x]\n"
            + "".join(f"b{i}: &b{i} [{','.join([f'*b{i - 1}' if i else '*a'] * 9)}]\n" for i in range(9)),
            "expected label",
            id="aliases",
        ),
        pytest.param("a: &a {b: *a}", "unknown field 'b'", id="within itself"),
        pytest.param("bolt: " + "[" * 9999, "nested too deeply", id="deep"),
        pytest.param("bolt: !!python/object/apply:os.system [id]", "not valid YAML", id="python object"),
        pytest.param(f"bolt: {ENTRY}\nbolt: {ENTRY}", "is given twice", id="a category twice"),
        pytest.param("bolt: {normality: fine, normality: good}", "is given twice", id="a field twice"),
        pytest.param("bolt: {normality: !!binary aGk=, descriptions: [x]}", "found a bytes", id="bytes"),
        pytest.param(f"1: {ENTRY}", "put the name in quotes", id="a number as category"),
        pytest.param(f"true: {ENTRY}", "put the name in quotes", id="true as category"),
        pytest.param(f"null: {ENTRY}", "expected a name", id="null as category"),
        pytest.param(f"' ': {ENTRY}", "expected a name", id="a space as category"),
        pytest.param("bolt: {normality: ' ', descriptions: [x]}", "empty", id="a space as text"),
        pytest.param("template: '{label}'\nbolt: " + ENTRY, "lacks {descriptions}", id="half a template"),
    ],
)
def test_what_is_no_prompt_file(hostile: Hostile, tmp_path: Path, content: str | bytes, word: str) -> None:
    hostile.refused(lambda: read(tmp_path, content), word)


def test_files_that_are_none(hostile: Hostile, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "pipe", ".", "x" * 300, "a\x00b"):
        hostile.refused(lambda name=name: load_prompts(tmp_path / name, "folder"))  # type: ignore[misc]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(f"\ufeffbolt: {ENTRY}", id="byte order mark"),
        pytest.param(f"bolt: {ENTRY}\r\n", id="CRLF"),
        pytest.param("bolt:\n  <<: &a {normality: fine}\n  descriptions: [dent]\n", id="a merged mapping"),
        pytest.param(f"folder: {{bolt: {ENTRY}}}", id="a section"),
        pytest.param("bolt: {normality: fine, descriptions: &d [dent], label: bolt}", id="an anchor"),
    ],
)
def test_odd_but_right(hostile: Hostile, tmp_path: Path, content: str) -> None:
    (sections,) = hostile.handled(lambda: read(tmp_path, content)).values()
    assert sections["bolt"].abnormality == "abnormality of bolt is dent"


@pytest.mark.parametrize(
    "name", ["../..", "a/b", "$x^{2}$", "{label}", "%s %(x)s", "\\input{x}", "<b>", "螺丝", "__"]
)
def test_names_of_categories_are_words(hostile: Hostile, tmp_path: Path, name: str) -> None:
    found = hostile.handled(lambda: read(tmp_path, f"'{name}': {ENTRY}"))[""]
    assert list(found) == [name]
    assert hostile.handled(lambda: default_prompts(name)).abnormality.startswith("abnormality of ")
    assert len(prompt_hash(found)) == 64


def test_a_name_that_no_dataset_has(hostile: Hostile, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for name in ("../../etc", "\x1b[31m", "x" * 5000):
        file.write_text(f'? "{name}"\n: {ENTRY}\n'.replace("\x1b", "\\e"))
        hostile.command("run", "--methods", "clip", "--prompts", file, "--dry-run", "--store", tmp_path / "store")


@given(content=st.text("ab:{}[]-&*!|>'\"# \n\tnormalitydescriptions0.", max_size=90))
def test_any_text(hostile: Hostile, tmp_path: Path, content: str) -> None:
    hostile.either(lambda: read(tmp_path, content))


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
FIELD = st.sampled_from(["label", "normality", "descriptions", "abnormality", "template", "bolt"])


@given(
    content=st.recursive(
        LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELD, inner), max_leaves=9
    )
)
def test_any_well_formed_value(hostile: Hostile, tmp_path: Path, content: object) -> None:
    import yaml

    hostile.either(lambda: read(tmp_path, yaml.safe_dump(content)))
