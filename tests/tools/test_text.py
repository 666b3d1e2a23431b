"""Text and YAML that somebody wrote."""

from __future__ import annotations

import pytest

from bench.errors import BenchError
from bench.tools.text import count, kind, one_line, parse_yaml


def test_only_what_looks_like_a_number_is_one() -> None:
    text = "[0, 12, -3, 1.5, .5, 2.0e-3, true, FALSE, null, ~, "
    text += "00, 010, 0x1F, 1:30, 1_000, on, off, yes, no, 2024-01-01]"
    values = [0, 12, -3, 1.5, 0.5, 0.002, True, False, None, None]
    words = ["00", "010", "0x1F", "1:30", "1_000", "on", "off", "yes", "no", "2024-01-01"]
    found = parse_yaml(text, "x")
    assert found == values + words
    assert list(map(type, found)) == list(map(type, values + words))


def test_a_key_may_stand_once() -> None:
    with pytest.raises(BenchError, match=r"^x, line 2, column 1: not valid YAML: 'a' is given twice$"):
        parse_yaml("a: 1\na: 2", "x")
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}", "x")["b"] == {"x": 2}


def test_words_of_messages() -> None:
    assert [count(n, "trial") for n in (0, 1, 2)] == ["0 trials", "1 trial", "2 trials"]
    assert [kind(value) for value in (None, [], [1], {}, 3)] == [
        "nothing",
        "an empty list",
        "a list",
        "an empty mapping",
        "the number 3",
    ]
    assert one_line("a\n  b") == "a b"
    assert len(one_line("x" * 999)) == 200
