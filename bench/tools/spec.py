"""Names with options: ``promptad[cmi=off,clip_layers=3+7+9]`` to a frozen config dataclass and back.

The same form serves methods, datasets and protocols. A tuple is written with ``+`` between its items,
since commas separate options and names.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.errors import BenchError, shorten, unknown

_TRUE, _FALSE = {"on", "true", "yes", "1"}, {"off", "false", "no", "0"}


@dataclass(frozen=True)
class Spec:
    """A name and the options that were written behind it, as text."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        inner = ",".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return f"{self.name}[{inner}]" if inner else self.name

    def with_options(self, **options: str) -> Spec:
        """A copy with ``options`` set where they were not written already."""
        return Spec(self.name, {**options, **self.options})


def parse_spec(text: str) -> Spec:
    """Read ``name`` or ``name[key=value,...]``; a value may be a spec with brackets of its own.

    Raises:
        BenchError: brackets or an option are malformed, or an option stands twice.
    """
    text = text.strip()
    shown = shorten(text)
    name, bracket, inner = text.partition("[")
    if not name or (bracket and not inner.endswith("]")) or "]" in name or text.count("[") != text.count("]"):
        raise BenchError(f"cannot read {shown!r}; write NAME or NAME[option=value,option=value]")
    options: dict[str, str] = {}
    for item in split_list(inner[:-1]):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals or not key or not value:
            raise BenchError(f"cannot read the option {shorten(item)!r} in {shown!r}; write option=value")
        if key in options:
            raise BenchError(f"the option {shorten(key)!r} stands twice in {shown!r}")
        options[key] = value
    return Spec(name.strip(), options)


def split_specs(text: str) -> list[Spec]:
    """Read a comma-separated list of specs; commas inside brackets belong to the options."""
    return [parse_spec(part) for part in split_list(text)]


def split_list(text: str, separator: str = ",") -> list[str]:
    """The parts of a separated list; separators inside brackets are a part's own."""
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == separator and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [stripped for part in parts if (stripped := part.strip())]


def build_config(cls: type[Any], spec: Spec, kind: str = "method") -> Any:
    """An instance of the config dataclass ``cls`` with the options of ``spec``.

    Raises:
        BenchError: an unknown option (with the nearest known one), a value of the wrong type, or one that
            the config's own ``__post_init__`` refuses with ``ValueError``.
    """
    hints = _hints(cls)  # type: ignore[arg-type]  # mypy takes the hash of an instance for that of its class
    names = [f.name for f in dataclasses.fields(cls)]
    values: dict[str, Any] = {}
    for key, value in spec.options.items():
        if key not in names:
            raise unknown("option", key, names, f"of {kind} {spec.name}")
        try:
            values[key] = _convert(value, hints[key])
        except ValueError as error:
            raise BenchError(f"{spec.name}[{key}={shorten(value)}]: {error}") from None
    try:
        return cls(**values)
    except ValueError as error:
        raise BenchError(f"{shorten(str(spec))}: {error}") from None


@functools.lru_cache(maxsize=64)
def _hints(cls: type[Any]) -> dict[str, Any]:
    """The types of a config's fields; Python compiles each of them anew every time it is asked."""
    return typing.get_type_hints(cls)


def config_dict(config: Any) -> dict[str, Any]:
    """All fields of a config as plain JSON values (tuples become lists)."""
    return {
        f.name: list(v) if isinstance(v := getattr(config, f.name), tuple) else v
        for f in dataclasses.fields(config)
    }


def label(name: str, config: Any, *, hide: tuple[str, ...] = ()) -> str:
    """The shortest spec that gives ``config``: only options that differ from the defaults, sorted."""
    options = {
        f.name: _text(value)
        for f in dataclasses.fields(config)
        if f.name not in hide and (value := getattr(config, f.name)) != _default(f)
    }
    return str(Spec(name, options))


def _default(field_: dataclasses.Field[Any]) -> Any:
    if field_.default_factory is not dataclasses.MISSING:
        return field_.default_factory()
    return field_.default


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "+".join(_text(item) for item in value)
    return str(value)


def _convert(text: str, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):  # only `X | None` is used
        return None if text == "none" else _convert(text, next(a for a in arguments if a is not type(None)))
    if origin is typing.Literal:
        for choice in arguments:
            if _text(choice) == text or (isinstance(choice, bool) and text in (_TRUE if choice else _FALSE)):
                return choice
        raise ValueError(f"choose one of {', '.join(_text(a) for a in arguments)}")
    if origin is tuple:
        item = arguments[0]
        return tuple(_convert(part, item) for part in text.split("+") if part)
    if hint is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise ValueError("choose on or off")
    if hint in (int, float):
        try:
            number = hint(text)
        except ValueError:
            raise ValueError(f"not a{'n int' if hint is int else ' number'}") from None
        if isinstance(number, float) and not math.isfinite(number):
            raise ValueError("not a finite number")
        return number
    if hint is str:
        return text
    raise ValueError(f"options of type {hint} cannot be set on the command line")
