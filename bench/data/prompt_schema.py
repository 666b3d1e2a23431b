"""Fields of a prompt file, as msgspec reads them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(pattern=r"\S")]
Phrases = Annotated[list[Text], Meta(min_length=1)]
PhrasesByType = Annotated[dict[Text, Text], Meta(min_length=1)]


class PromptSettings(Struct):
    """Settings of a prompt file beside its categories."""

    template: Text = ""  # of the abnormality sentence
    generic_descriptions: Phrases = []  # of a category of which nothing else is known


class PromptEntry(Struct, kw_only=True):
    """The prompts of one category; it needs descriptions or an abnormality sentence."""

    label: Text = ""
    normality: Text
    descriptions: Phrases | PhrasesByType = []
    abnormality: Text = ""
