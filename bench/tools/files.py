"""Files: names that can be used, and writing so that a reader finds the old one or the new one, never half."""

from __future__ import annotations

import glob
import os
import tempfile
import unicodedata
from pathlib import Path


def name_fault(name: str) -> str:
    """The reason why a file's name cannot be printed and stored; empty if it can."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "the name is not valid Unicode; rename it"
    control = any(unicodedata.category(character) == "Cc" for character in name)
    return "the name holds a control character; rename it" if control else ""


def allow_many_open_files() -> None:
    """Let this process open as many files at a time as it may, up to 65536; a shell's 1024 are soon used up."""
    try:
        import resource
    except ImportError:  # a system without such limits
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2**16 if hard == resource.RLIM_INFINITY else min(hard, 2**16)
    if soft not in (resource.RLIM_INFINITY, wanted) and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write to a temporary name in ``path``'s folder, flush to the disk, rename.

    Args:
        path: of the file; its folder is made.
        content: of the file.
        durable: wait until the disk has it. Without that a file may be damaged if the machine loses its power.

    Raises:
        OSError: the disk is full or the folder cannot be written; no temporary file is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files of writers of ``path`` that were killed; no process may be writing it now."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*"):
        temporary.unlink(missing_ok=True)
