"""Sentences of errors: names that do not exist, and text that a message can hold."""

from __future__ import annotations

import pytest

from bench.errors import first_line, nearest, printable, shorten, unknown

CATEGORIES = ("bottle", "capsule", "pill", "pocket", "wood", "zipper")
METHODS = ("clip", "devnet", "dra", "promptad", "winclip")


def test_the_name_comes_before_its_place() -> None:
    assert str(unknown("category", "foo", ("gear", "wood"), "of pocket")) == (
        "unknown category 'foo' of pocket. Known: gear, wood."
    )
    assert str(unknown("method", "promtad", METHODS)).startswith(
        "unknown method 'promtad'. Did you mean 'promptad'? Known: clip, "
    )
    assert str(unknown("study", "mine", ())) == "unknown study 'mine'. Known: none."


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *(
            ("promtad", "promptad"),
            ("clp", "clip"),
            ("wincilp", "winclip"),
            ("CLIP", "clip"),
            ("dar", "dra"),
            ("prompt", "promptad"),
            ("PromptAD", "promptad"),
        ),
        *(("bottel", "bottle"), ("bottles", "bottle"), ("Wood", "wood"), ("wodo", "wood"), ("ziper", "zipper")),
    ],
)
def test_typos_are_told(typed: str, meant: str) -> None:
    assert nearest(typed, METHODS + CATEGORIES) == meant


@pytest.mark.parametrize("typed", ["foo", "nope", "bar", "test", "x", "", "../..", "mask", "autoencoder"])
def test_names_that_are_like_none_get_no_guess(typed: str) -> None:
    assert nearest(typed, METHODS + CATEGORIES) is None


def test_long_names_are_cut() -> None:
    assert shorten("x" * 100) == "x" * 100
    assert shorten("x" * 101) == "x" * 99 + "…"
    assert shorten("abcdefgh", 4, middle=True) == "ab…gh"
    assert len(str(unknown("method", "x" * 9999, METHODS))) < 300


def test_what_steers_a_terminal_is_escaped_or_replaced() -> None:
    assert printable("Grün → 螺丝 1") == "Grün → 螺丝 1"
    assert printable("\x1b[2J\x00\udc80\u202e\n") == r"\x1b[2J\x00\udc80\u202e\n"
    assert printable("a\nb\tc\r", keep="\n\t") == "a\nb\tc\\r"
    assert printable("a\nb\x1b", instead=" ") == "a b "


def test_first_line() -> None:
    assert first_line(ValueError("\n one \ntwo")) == "one "
    assert first_line(KeyboardInterrupt()) == "KeyboardInterrupt"
