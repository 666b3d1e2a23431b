"""JSON files that carry a checksum of themselves, so that one that was changed by accident is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from bench.tools.text import parse_json

SEAL = "sha256"  # of the file's bytes, with zeros in the place of this
_BLANK = "0" * 64


def readable_json(content: Any) -> bytes:
    """Sorted, indented UTF-8.

    Raises:
        ValueError: there is a NaN in it.
    """
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def sealed(content: Mapping[str, Any]) -> bytes:
    """A file of ``content`` and its checksum."""
    blank = readable_json({**content, SEAL: _BLANK})
    return blank.replace(_line(_BLANK), _line(hashlib.sha256(blank).hexdigest()), 1)


def opened(data: bytes, required: str = "") -> dict[str, Any] | None:
    """The content of a file, without its checksum; None if it is broken.

    Args:
        data: the file. One without a checksum, as earlier versions wrote them, is taken as it is.
        required: a field that files without a checksum do not have.
    """
    try:
        content = parse_json(data.decode())
        if not isinstance(content, dict):
            return None
        seal = content.pop(SEAL, None)
        if seal is None:
            return None if required in content else content
        blank = data.replace(_line(seal), _line(_BLANK), 1)  # much quicker than to write the content anew
        return content if seal == hashlib.sha256(blank).hexdigest() else None
    except ValueError:  # not UTF-8, or not JSON
        return None


def _line(seal: object) -> bytes:
    return f'\n "{SEAL}": "{seal}"'.encode()  # one blank: what lies deeper has more
