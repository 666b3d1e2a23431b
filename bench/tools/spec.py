"""Names with options: ``promptad[cmi=off,clip_layers=3+7+9]`` to a frozen config dataclass and back.

The same form serves methods, datasets and protocols. A tuple is written with ``+`` between its items,
since commas separate options and names. An option that is a file has the type ``Path`` or ``Path | None``.

A spec is for people: what they type and what tables show. Between processes a config travels as its
:func:`config_dict`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BenchError, shorten, unknown
from bench.tools.hashes import hash_file

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
        BenchError: brackets or an option are malformed, or an option is given twice.
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
            raise BenchError(f"the option {shorten(key)!r} is given twice in {shown!r}")
        options[key] = value
    return Spec(name.strip(), options)


def split_specs(text: str) -> list[Spec]:
    """Read a comma-separated list of specs; commas inside brackets belong to the options."""
    return [parse_spec(part) for part in split_list(text)]


def split_list(text: str, separator: str = ",") -> list[str]:
    """The parts of a separated list; separators inside brackets are a part's own."""
    parts, depth, start = [], 0, 0
    # The depth of brackets, in which separators are part of an option.
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


ADDED = {"added": True}
"""Metadata of a config's field that came later: ``wide: bool = field(default=False, metadata=ADDED)``."""


def config_dict(config: Any, digest: Callable[[Path], str] = hash_file) -> dict[str, Any]:
    """All fields of a config as plain JSON values.

    A field that was added to an existing config says so in its metadata (:data:`ADDED`): at its default it is left
    out, so that the keys of earlier trials hold. Tuples become lists. A file becomes ``{"path": ..., "sha256":
    ...}``, so that a hash of these values depends on its content.

    Args:
        config: an instance of a config dataclass.
        digest: gives the SHA-256 of a file.

    Raises:
        BenchError: an option names a file that is not there or cannot be read.
    """
    plain = {}
    for option in dataclasses.fields(config):
        value = getattr(config, option.name)
        if not (option.metadata.get("added") and value == option.default):
            plain[option.name] = _to_plain(value, option.name, digest)
    return plain


def _to_plain(value: Any, option: str, digest: Callable[[Path], str]) -> Any:
    if isinstance(value, tuple):
        return [_to_plain(item, option, digest) for item in value]
    if not isinstance(value, Path):
        return value
    if not os.path.isfile(value):  # of a name that no system takes, Path.is_file raises an error
        raise BenchError(f"the option {option}={shorten(str(value))} names no file; give the path of one")
    try:
        return {"path": str(value), "sha256": digest(value)}
    except OSError as error:
        raise BenchError(f"the option {option}: {value} cannot be read: {error.strerror}") from None


def config_from_dict(cls: type[Any], plain: Mapping[str, Any], files: Mapping[str, str] | None = None) -> Any:
    """The config whose :func:`config_dict` is ``plain``.

    Args:
        cls: the config dataclass.
        plain: JSON values by field; a field that is left out has its default.
        files: SHA-256 of a file -> its path on this machine; by default the path in ``plain``.

    Raises:
        BenchError: ``cls`` has no such field, or refuses a value.
    """
    hints = _hints(cls)  # type: ignore[arg-type]  # as above
    names = [f.name for f in dataclasses.fields(cls)]
    for key in plain:
        if key not in names:
            raise unknown("option", key, names)
    try:
        return cls(**{key: _from_plain(value, hints[key], files or {}) for key, value in plain.items()})
    except ValueError as error:
        raise BenchError(str(error)) from None


def _from_plain(value: Any, hint: Any, files: Mapping[str, str]) -> Any:
    # JSON knows neither tuples nor files; the types of the fields say which values were some.
    if isinstance(value, list) and _accepts(hint, tuple):
        return tuple(_from_plain(item, _item_type(hint), files) for item in value)
    if isinstance(value, Mapping) and _accepts(hint, Path):
        return Path(files.get(value["sha256"], value["path"]))
    return value


def _accepts(hint: Any, cls: type[Any]) -> bool:
    """True if ``hint`` is ``cls``, or a union with it such as ``Path | None``."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_accepts(choice, cls) for choice in typing.get_args(hint))
    return hint is cls or typing.get_origin(hint) is cls


def _item_type(hint: Any) -> Any:
    """The type of the items of a tuple, or of the tuple in a union."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(choice for choice in typing.get_args(hint) if _accepts(choice, tuple))
    return next(iter(typing.get_args(hint)), Any)


def planned_files(plain: Any) -> dict[str, str]:
    """The files in the values of :func:`config_dict`, or in what holds such values: SHA-256 -> path."""
    if isinstance(plain, Mapping):
        # No other value of a config has these two keys: options are plain values.
        if plain.keys() == {"path", "sha256"}:
            return {plain["sha256"]: plain["path"]}
        plain = plain.values()
    elif not isinstance(plain, list | tuple):
        return {}
    found: dict[str, str] = {}
    for value in plain:
        found |= planned_files(value)
    return found


def check_files(files: Mapping[str, str]) -> None:
    """See that files are still as they were planned with.

    Args:
        files: SHA-256 -> path on this machine, see :func:`planned_files`.

    Raises:
        BenchError: one is not there, or has another content.
    """
    for sha256, path in files.items():
        try:
            found = hash_file(Path(path))
        except OSError as error:
            raise BenchError(
                f"the file {path}, an option of the trial, cannot be read: {error.strerror}"
            ) from None
        if found != sha256:
            raise BenchError(f"the file {path}, an option of the trial, changed while the study ran; run it again")


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
    if hint is Path:
        return Path(text).expanduser()
    raise ValueError(f"options of type {hint} cannot be set on the command line")
