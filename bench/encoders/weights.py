"""Weights files: finding, hashing and reading them, and checking that they fit their model.

No pickle is ever executed: files are safetensors, or torch files read with ``weights_only=True``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import urllib.parse
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, first_line

if TYPE_CHECKING:
    import torch

_CONVERT = (
    "is a TorchScript archive (the form in which OpenAI publishes CLIP), which cannot be read without running "
    'what is in it; convert it once, where you trust it, and give the result: python -c "import torch, '
    "safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in torch.jit.load('{file}', "
    "map_location='cpu').state_dict().items()}}, '{safe}')\""
)


_OBJECTS = (
    "holds more than tensors, and loading the rest would run what is in it; where you trust it, save its "
    "state_dict() alone, as safetensors"
)


def require_file(file: Path, name: str) -> Path:
    """``file`` itself, or an error that says that the weights of ``name`` are not there."""
    if not os.path.isfile(file):  # of a name that no system takes, Path.is_file raises an error
        raise BenchError(f"the weights file {str(file)!r} given for {name} does not exist")
    return file


def find(
    name: str, what: str, instead: str, *, cached: Sequence[tuple[str, str]], site: str, fetch: Callable[[], str]
) -> Path:
    """A published weights file: from the local Hugging Face cache, or else through ``fetch``.

    Args:
        name: the encoder, as the user wrote it.
        what: the file, as a person would look for it: ``REPOSITORY/FILE on the Hugging Face hub``.
        instead: the option that makes do without it, e.g. ``--encoder pocket/clip``; empty if there is none.
        cached: (repository, file name) pairs in order of preference; looked up without network.
        site: address of the server that ``fetch`` asks.
        fetch: downloads the file and returns its path.

    Raises:
        BenchError: it is in no cache and cannot be downloaded.
    """
    from huggingface_hub import try_to_load_from_cache

    for repository, filename in cached:
        found = try_to_load_from_cache(repository, filename)
        if isinstance(found, str):
            return Path(found)
    reason = unreachable(site)
    if not reason:
        try:
            return Path(fetch())
        # Whatever a download raises (a dozen kinds of network and hub errors), the ways out are the same.
        except Exception as error:
            reason = first_line(error)
    shipped = f", or use {instead}, which ships with the package" if instead else ""
    raise BenchError(
        f"the weights of {name} cannot be had: {what} is not in the local cache and could not be downloaded "
        f"({reason}). {'Either give' if instead else 'Give'} the file with --weights FILE{shipped}. "
        "One run with network downloads it for good."
    )


def find_on_hub(
    name: str, repository: str, files: Sequence[str], instead: str, fetch: Callable[[], str] | None = None
) -> Path:
    """The first of ``files`` that is in the cache, or that ``fetch`` (by default the hub's client) can get.

    Raises:
        BenchError: see :func:`find`.
    """
    from huggingface_hub import constants, hf_hub_download

    def first() -> str:
        for file in files[:-1]:
            with contextlib.suppress(Exception):  # not in this repository; the next name may be
                return str(hf_hub_download(repository, file))
        return str(hf_hub_download(repository, files[-1]))

    return find(
        name,
        f"{repository}/{files[0]} on the Hugging Face hub",
        instead,
        cached=[(repository, file) for file in files],
        site=constants.ENDPOINT,
        fetch=fetch or first,
    )


def find_by_url(name: str, url: str, instead: str) -> Path:
    """The file at ``url``, from torch.hub's folder of checkpoints or downloaded into it.

    Raises:
        BenchError: see :func:`find`.
    """
    import torch

    target = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]

    def fetch() -> str:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), progress=False)
        return str(target)

    return target if target.is_file() else find(name, url, instead, cached=(), site=url, fetch=fetch)


def unreachable(url: str) -> str:
    """The reason why the server of ``url`` cannot be asked; empty if it seems that it can.

    The hub's client tries for the better part of a minute before it gives up, which a machine without
    network should not have to wait for.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if urllib.request.getproxies():  # a proxy looks the name up, this machine need not be able to
        return ""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or url
    try:
        socket.create_connection((host, parts.port or 443), timeout=10).close()
    except OSError as error:
        return f"no connection to {host}: {error.strerror or error}"
    return ""


def read_state(file: Path, name: str) -> dict[str, torch.Tensor]:
    """The state dict in ``file``, on the CPU.

    A training checkpoint's ``state_dict`` entry is unwrapped and the ``module.`` prefix of DistributedDataParallel
    dropped.

    Raises:
        BenchError: the file cannot be read as tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    content: object
    try:
        if file.suffix == ".safetensors":
            content = load_file(file)
        else:
            _check_packing(file)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of TorchScript archives, which then fail, as they should
                content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "TorchScript" in str(error):
            advice = _CONVERT.format(file=file, safe=file.with_suffix(".safetensors"))
            raise BenchError(f"{file} {advice}") from None
        if "Unsupported global" in str(error):
            raise BenchError(f"{file}, given as weights of {name}, {_OBJECTS}") from None
        kind = "safetensors" if isinstance(error, SafetensorError) else "torch"
        # torch's own words advise to run what is in the file.
        said = "it is damaged, or something else" if "weights_only" in str(error) else first_line(error)
        reason = f"cannot be read as a {kind} file: {said}"
        raise BenchError(f"{file}, given as weights of {name}, {reason}") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise BenchError(f"{file}, given as weights of {name}, holds no state dict (names and tensors)")
    if any(value.layout != torch.strided or value.is_quantized or value.is_meta for value in content.values()):
        raise BenchError(
            f"{file}, given as weights of {name}, holds sparse, quantized or empty tensors; save dense ones"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _check_packing(file: Path) -> None:
    """Refuse an archive that unpacks to more than its size: torch.save packs no tensors, and a bomb is made so."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > 2 * file.stat().st_size + (1 << 24):
            raise ValueError(f"it unpacks to {unpacked} bytes, and torch.save packs nothing")


def check_state(
    state: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    name: str,
    file: Path | None,
    *,
    free: tuple[str, ...] = (),
) -> None:
    """See that ``state`` has exactly the names and shapes of ``expected``.

    Args:
        free: prefixes of names that may be missing, superfluous or of another shape (a classifier's).

    Raises:
        BenchError: naming the first name that is missing, of another shape, or not the model's.
    """
    where = f"{file} does not hold weights of {name}: "
    for key, tensor in expected.items():
        if free and key.startswith(free):
            continue
        if key not in state:
            if key.endswith("num_batches_tracked"):  # files older than this counter of BatchNorm lack it
                continue
            raise BenchError(f"{where}{key!r} is missing ({len(state)} tensors in the file)")
        if state[key].shape != tensor.shape:
            raise BenchError(f"{where}{key!r} has shape {tuple(state[key].shape)}, expected {tuple(tensor.shape)}")
        if state[key].is_floating_point() != tensor.is_floating_point():
            raise BenchError(f"{where}{key!r} is of {state[key].dtype}, expected {tensor.dtype}")
    for key in state:
        if key not in expected and not (free and key.startswith(free)):
            raise BenchError(f"{where}{key!r} does not belong to this model")
