"""Checkpoints: weights of a method's own that it does not learn here, such as those its authors published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bench.contracts import Checkpoint, Weights
from bench.encoders.weights import find_by_url, find_on_hub, read_state, require_file
from bench.errors import BenchError, nearest
from bench.tools.hashes import hash_file

if TYPE_CHECKING:
    import torch


def identify_checkpoint(role: str, name: str, known: Mapping[str, Checkpoint], file: Path | None) -> Weights:
    """The weights of a checkpoint, found and hashed.

    Args:
        role: config field of the method that names the checkpoint.
        name: its value: one of ``known``, or ``ORGANISATION/REPOSITORY:FILE`` on the Hugging Face hub; anything
            where a file is given.
        known: those that the method declares.
        file: local file in place of what would be downloaded.

    Raises:
        BenchError: there is no such checkpoint, it cannot be had, or it is not the declared one.
    """
    declared = known.get(name)
    instead = f"--weights {role}=FILE"
    if file is not None:
        require_file(file, name)
    elif declared is not None and declared.url:
        file = find_by_url(name, declared.url, "")
    else:
        repository, colon, path = (declared.hub if declared is not None else name).partition(":")
        if not colon or "/" not in repository:
            near = nearest(name, known)
            question = f" (did you mean {near!r}?)" if near else ""
            raise BenchError(
                f"no checkpoint {name!r} is known{question}; give its file with {instead}, or name it as "
                "ORGANISATION/REPOSITORY:FILE on the Hugging Face hub"
            )
        file = find_on_hub(name, repository, [path], "")
    sha256 = hash_file(file)
    if declared is not None and declared.sha256 not in ("", sha256):
        raise BenchError(
            f"{file} is not the checkpoint {name!r}: its SHA-256 begins with {sha256[:12]}, and that of the "
            f"published one with {declared.sha256[:12]}"
        )
    if declared is None:  # a published file under another name has learned from the same data
        declared = next((each for each in known.values() if each.sha256 == sha256), None)
    return Weights(name, sha256, file, () if declared is None else declared.trained_on)


def load_checkpoint(weights: Weights) -> dict[str, torch.Tensor]:
    """Name -> tensor, on the CPU; no pickle is executed.

    Raises:
        BenchError: the file does not hold tensors alone.
    """
    assert weights.file is not None
    return read_state(weights.file, weights.name)
