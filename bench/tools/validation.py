"""Values from YAML and CSV, read by msgspec as a struct with declared fields; a wrong one ends in one line.

msgspec is imported when a value is read: ``bench --help`` and ``bench list`` read none.
"""

from __future__ import annotations

import re
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from bench.errors import BenchError, unknown
from bench.tools.text import kind

if TYPE_CHECKING:
    import msgspec

T = TypeVar("T", bound="msgspec.Struct")

_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "a truth value",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
}
_TEXT_WITHOUT_QUOTES = {"bool", "int", "float"}

# msgspec's messages: "Expected `int | array`, got `str` - at `$.seeds`", "Expected `int` >= 0 - at `$.seeds[1]`",
# "Expected `str` - at `key` in `$.names`", "Object missing required field `k`", "Invalid enum value 'x'".
_PLACE = re.compile(r"(?P<reason>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>[^`]*)`)?", re.DOTALL)
_EXPECTED = re.compile(r"Expected `(?P<types>[^`]+)`(?P<limit> [^,]*?)?(?:, got `(?P<found>\w+)`)?")
_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`")
_NO_CHOICE = "Invalid enum value "


def read_as(value: object, cls: type[T], where: str = "", *, strict: bool = True) -> T:
    """``value`` as an instance of ``cls``.

    Args:
        value: plain values from YAML, or the cells of a CSV row by column.
        cls: a :class:`msgspec.Struct`.
        where: file and place, with which an error begins.
        strict: take no text for a number. CSV has nothing but text.

    Raises:
        BenchError: a field is unknown, is missing, or is of a wrong type or size; the message names it and what
            was expected.
    """
    import msgspec

    fields = cls.__struct_fields__
    begin = f"{where}: " if where else ""
    if not isinstance(value, dict):
        raise BenchError(f"{begin}expected {', '.join(fields)}; found {kind(value)}")
    for name in value:
        if name not in fields:
            raise BenchError(f"{begin}{unknown('field', str(name), fields)}")
    try:
        return msgspec.convert(value, cls, strict=strict)
    except msgspec.ValidationError as error:
        match = _PLACE.fullmatch(str(error))
        assert match is not None  # every text matches
        path, is_key = match["path"] or "", match["key"] is not None
        declared = typing.get_type_hints(cls, include_extras=True).get(path.removeprefix("."))
        found = None if is_key else _value_at(value, path)
        reason = _reason(match["reason"], declared, found)
        place = ", ".join(part for part in (where, _place(path, is_key)) if part)
        raise BenchError(f"{place}: {reason}" if place else reason) from None


def _place(path: str, is_key: bool) -> str:
    """A path of msgspec's for people: ``.shots[0]`` is ``shots, item 1``."""
    place = path.replace("[...]", "").removeprefix(".")
    place = re.sub(r"\[(\d+)\]", lambda index: f", item {int(index[1]) + 1}", place).removeprefix(", ")
    if is_key:
        return f"a name in {place}" if place else "a name"
    return place


def _value_at(value: Any, path: str) -> str | None:
    """A short description of the value at a path of msgspec's; None inside a mapping, whose key it leaves out."""
    if "[...]" in path:
        return None
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        value = value[name] if name else list(value)[int(index)]
    return kind(value)


def _reason(reason: str, declared: object, found: str | None) -> str:
    """A reason of msgspec's in plain words.

    Args:
        declared: the type of the field, where it is one of the struct's own.
        found: description of the value; None to name its type alone.
    """
    if match := _MISSING.fullmatch(reason):
        return f"the field {match['field']!r} is missing"
    if reason.startswith(_NO_CHOICE):
        return str(unknown("value", reason.removeprefix(_NO_CHOICE).strip("'"), _choices(declared)))
    match = _EXPECTED.fullmatch(reason)
    if match is None:
        return reason
    types = [name for name in match["types"].split(" | ") if name != "null"]
    expected = " or ".join(_WORDS.get(name, name) for name in types)
    limit = match["limit"] or ""
    if limit.startswith(" matching regex"):  # the only pattern in use asks for a character that is no space
        return f"expected {expected}, found an empty text"
    if found is None:
        found = _WORDS.get(match["found"], match["found"] or "something else")
    hint = "; put it in quotes" if "str" in types and match["found"] in _TEXT_WITHOUT_QUOTES else ""
    return f"expected {expected}{limit}, found {found}{hint}"


def _choices(declared: object) -> list[str]:
    """The values of the literal type in a declared type, which may be optional or annotated."""
    if typing.get_origin(declared) is typing.Literal:
        return [str(choice) for choice in typing.get_args(declared)]
    found = []
    for part in typing.get_args(declared):
        found += _choices(part)
    return found
