"""Values read as a struct: what is accepted, and the line that names what is not."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from bench.errors import BenchError
from bench.tools.validation import read_as


class Cup(Struct, kw_only=True):
    name: Annotated[str, Meta(pattern=r"\S")]
    handles: Annotated[int, Meta(ge=0)] | list[int] = 1
    colour: Literal["white", "blue"] | None = None
    words: dict[str, str] | list[str] = []
    price: float = 0.0


def test_values_become_fields() -> None:
    assert read_as({"name": "mug", "handles": [1, 2]}, Cup) == Cup(name="mug", handles=[1, 2])
    assert read_as({"name": "7", "handles": "2", "price": "0.5"}, Cup, strict=False).handles == 2


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], ": expected name, handles, colour, words, price; found an empty list"),
        ({}, ": the field 'name' is missing"),
        (
            {"nam": "mug"},
            ": unknown field 'nam'. Did you mean 'name'? Known: colour, handles, name, price, words.",
        ),
        ({"name": None}, ", name: expected text, found nothing"),
        ({"name": True}, ", name: expected text, found the truth value True; put it in quotes"),
        ({"name": 7}, ", name: expected text, found the number 7; put it in quotes"),
        ({"name": " "}, ", name: expected text, found an empty text"),
        ({"name": "a", "handles": "2"}, ", handles: expected a whole number or a list, found the text '2'"),
        (
            {"name": "a", "handles": True},
            ", handles: expected a whole number or a list, found the truth value True",
        ),
        ({"name": "a", "handles": -1}, ", handles: expected a whole number >= 0, found the number -1"),
        ({"name": "a", "handles": [1, 2.5]}, ", handles, item 2: expected a whole number, found the number 2.5"),
        (
            {"name": "a", "colour": "bleu"},
            ", colour: unknown value 'bleu'. Did you mean 'blue'? Known: blue, white.",
        ),
        ({"name": "a", "words": {"x": 1}}, ", words: expected text, found a whole number; put it in quotes"),
        (
            {"name": "a", "words": {1: "x"}},
            ", a name in words: expected text, found a whole number; put it in quotes",
        ),
    ],
)
def test_one_line_names_the_place_and_what_was_expected(value: object, said: str) -> None:
    with pytest.raises(BenchError) as caught:
        read_as(value, Cup, "cups.yaml")
    assert str(caught.value) == "cups.yaml" + said
    with pytest.raises(BenchError) as caught:
        read_as(value, Cup)
    assert str(caught.value) == said[2:]
