"""JSON files that carry a checksum of their own content, so that one that was changed by accident is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench.hashing import hash_json
from bench.textfiles import parse_json

SEAL = "sha256"  # of the canonical JSON of everything else in the file


def readable_json(content: Any) -> bytes:
    """Sorted, indented UTF-8.

    Raises:
        ValueError: there is a NaN in it.
    """
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def sealed(content: Mapping[str, Any]) -> bytes:
    """A file of ``content`` and its checksum."""
    return readable_json({**content, SEAL: hash_json(content)})


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
        sound = required not in content if seal is None else seal == hash_json(content)
    except ValueError:  # not UTF-8, or not JSON
        return None
    return content if sound else None
