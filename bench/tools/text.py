"""Text, YAML and JSON that somebody else wrote, read as data alone and with one clear error; words of messages."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError, shorten

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 20  # of a text that a person writes: seconds for the YAML parser


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: kind of the file, for messages: ``prompt file``.

    Raises:
        BenchError: there is no such file, it is no regular file, has more than :data:`MAX_BYTES`, or is not text.
    """
    try:
        if not path.exists():
            raise BenchError(f"the {what} {path} does not exist")
        if not path.is_file():  # a pipe may never end, or never begin
            raise BenchError(f"the {what} {path} cannot be read: it is not a file")
        if (size := path.stat().st_size) > MAX_BYTES:
            raise BenchError(f"the {what} {path} has {size} bytes; more than {MAX_BYTES} are not read")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BenchError(f"{path} is not a text file in UTF-8 ({error.reason}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        reason = getattr(error, "strerror", None) or error
        raise BenchError(f"the {what} {str(path)!r} cannot be read: {reason}") from None


def parse_yaml(text: str, name: str) -> Any:
    """The content of a YAML document: plain values, mappings and lists.

    Only what looks like a number is one, and only true and false are truth values: ``010``, ``1:30``, ``off`` and
    ``2024-01-01`` are text, where YAML 1.1 has 8, 90, False and a date. No key is given twice.

    Raises:
        BenchError: it is no such document; the message begins with ``name``.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = one_line(error.problem or error.context)
        raise BenchError(f"{name}{place}: not valid YAML: {reason}") from None
    except RecursionError:
        raise BenchError(f"{name}: not valid YAML: nested too deeply") from None
    except Exception as error:  # PyYAML raises many kinds for values that are not what their tag says
        raise BenchError(f"{name}: not valid YAML: {one_line(error)}") from None


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader with the values of YAML 1.2; a name written twice is a mistake, no replacement."""

        yaml_implicit_resolvers = {}  # noqa: RUF012 - as PyYAML has it; those of SafeLoader are YAML 1.1

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key_node, _ in node.value:
                # Several mappings may be merged (<<); a key that is no scalar is refused by the loader itself.
                if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                    continue
                if (key_node.tag, key_node.value) in seen:
                    problem = f"{key_node.value!r} is given twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
                seen.add((key_node.tag, key_node.value))
            return super().construct_mapping(node, deep)

    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
        ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)\.[0-9]*)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
        ("merge", r"<<", ["<"]),
    ):
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$"), first)
    return Loader


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is no JSON, is nested too deeply, or holds what no file may: NaN, infinity, half of a
            surrogate pair.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number of JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a pair, or the halves of one
        json.dumps(value, ensure_ascii=False).encode()
    return value


def as_whole(value: Any) -> int | None:
    """A whole number from JSON, or None.

    Raises:
        TypeError: it is something else.
    """
    if value is None or type(value) is int:  # a bool is an int, too
        return value
    raise TypeError(f"{kind(value)} is no whole number")


def as_numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    """Numbers from JSON by name, each may be None.

    Raises:
        TypeError: one is something else.
    """
    for name, value in values.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise TypeError(f"{name}: {kind(value)} is no number")
    return dict(values)


def kind(value: object) -> str:
    """Description of a value from YAML or JSON, for messages: ``the number 3``."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, bool):
        return f"the truth value {value}"
    if isinstance(value, (int, float)):
        return f"the number {shorten(str(value))}"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"


def one_line(reason: object) -> str:
    """A reason without line breaks, cut off where it is long."""
    return shorten(" ".join(str(reason).split()), 200)


def count(number: int, noun: str, plural: str = "") -> str:
    """A number of things: ``1 trial``, ``2 trials``, ``2 categories``."""
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"
