"""Contents of the store's files: JSON with a checksum of itself, and arrays with the ids of their images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.tools.text import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays: TypeAlias = "dict[str, NDArray[Any]]"

CHECKSUM = "sha256"  # field with the SHA-256 of the file's bytes, taken with zeros in its own place
_ZEROS = "0" * 64


# ------------------------------------------------------------ JSON


def readable_json(content: Any) -> bytes:
    """Sorted, indented UTF-8.

    Raises:
        ValueError: there is a NaN in it.
    """
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False)
    return (text + "\n").encode()


def dump_with_checksum(content: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file with ``content`` and its checksum."""
    unsigned = readable_json({**content, CHECKSUM: _ZEROS})
    return unsigned.replace(_line(_ZEROS), _line(hashlib.sha256(unsigned).hexdigest()), 1)


def load_with_checksum(data: bytes, required: str = "") -> dict[str, Any] | None:
    """The content of a JSON file, without its checksum; None if the file is damaged.

    Args:
        data: the file. One without a checksum, as earlier versions wrote them, is taken as it is.
        required: a field that files without a checksum do not have.
    """
    try:
        content = parse_json(data.decode())
    except ValueError:  # not UTF-8, or not JSON
        return None
    if not isinstance(content, dict):
        return None
    checksum = content.pop(CHECKSUM, None)
    if checksum is None:
        return None if required in content else content
    unsigned = data.replace(_line(checksum), _line(_ZEROS), 1)  # much quicker than to write the content anew
    return content if checksum == hashlib.sha256(unsigned).hexdigest() else None


def _line(checksum: object) -> bytes:
    """The checksum's line in a file; deeper fields of that name are indented by more than one blank."""
    return f'\n "{CHECKSUM}": "{checksum}"'.encode()


# ------------------------------------------------------------ arrays


def dump_arrays(arrays: Mapping[str, NDArray[Any]], ids: Sequence[str]) -> bytes:
    """The bytes of a safetensors file; ``ids`` names the images in the order of the arrays' rows."""
    import numpy as np
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {"ids": json.dumps(list(ids))})


def load_arrays(data: bytes) -> tuple[Arrays, tuple[str, ...]] | None:
    """The arrays and ids that :func:`dump_arrays` was given; None if the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = dict(load(data))
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
        return arrays, tuple(map(str, parse_json(header["__metadata__"]["ids"])))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
