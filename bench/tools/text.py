"""Text, YAML and JSON that somebody else wrote: read as data alone, within bounds, with one clear error."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 20  # of a text that a person writes: seconds for the YAML parser
MAX_NODES = 100_000  # of a YAML document, with what its aliases stand for


def read_text(path: Path, what: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Args:
        path: the file.
        what: it is, for messages: ``prompt file``.

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

    Aliases may stand for what is written elsewhere, but not without end; a key may not stand twice.

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
        """The safe loader; a name written twice is a mistake and not a silent replacement."""

        def get_single_node(self) -> yaml.Node | None:
            node = super().get_single_node()
            # What aliases stand for is written out in messages and merged keys: lines can stand for gigabytes.
            if node is not None and (number := _expanded(node, {})) > MAX_NODES:
                raise yaml.YAMLError(f"it stands for {number:.1e} values, aliases included; {MAX_NODES} are read")
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = self.construct_object(key_node, deep=True)
                if isinstance(key, Hashable):
                    if key in seen:
                        mark = key_node.start_mark
                        raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands twice", mark)
                    seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader


def _expanded(node: Any, known: dict[int, float]) -> float:
    """How many nodes a node stands for, those of aliases counted each time; endless for one that holds itself."""
    if isinstance(node.value, str):
        node.value.encode()  # an escape may have made half of a surrogate pair, which no file can hold
        if node.tag == "tag:yaml.org,2002:int":
            _check_digits(node.value)
        return 1.0
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = (part for item in node.value for part in (item if isinstance(item, tuple) else (item,)))
        known[id(node)] = 1.0 + sum(_expanded(part, known) for part in parts)
    return known[id(node)]


def _check_digits(number: str) -> None:
    """Refuse what YAML reads otherwise than it looks (010 is 8, 1:30 is 90), and what Python will not print."""
    if len(number) > 40:
        raise ValueError(f"a whole number of {len(number)} digits")
    if not re.fullmatch(r"[-+]?(0+|[1-9][0-9]*)", number):
        raise ValueError(f"{number} is read as another number than it looks like; write it plainly or in quotes")


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
    """What a value from YAML or JSON is, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {value[:40]!r}"
    if isinstance(value, bool):
        return f"the truth value {value}"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return "a list" if isinstance(value, list) else f"a {type(value).__name__}"


def one_line(reason: object) -> str:
    """A reason without line breaks, cut off where it is long."""
    return " ".join(str(reason).split())[:200]
