"""Arrays with the images that they belong to, as the bytes of one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from bench.tools.text import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays: TypeAlias = "dict[str, NDArray[Any]]"


def pack(arrays: Mapping[str, NDArray[Any]], ids: Sequence[str]) -> bytes:
    """The file; ``ids`` names the images in the order of the arrays' rows."""
    import numpy as np
    from safetensors.numpy import save

    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return save(contiguous, {"ids": json.dumps(list(ids))})


def unpack(data: bytes) -> tuple[Arrays, tuple[str, ...]] | None:
    """What :func:`pack` was given; None if the file is broken."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = dict(load(data))
        header = parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")].decode())
        return arrays, tuple(map(str, parse_json(header["__metadata__"]["ids"])))
    except (SafetensorError, ValueError, KeyError, TypeError):
        return None
