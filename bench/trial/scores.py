"""A method's scores, notes and exceptions, checked and made safe to keep."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import ImageSet, Scores
from bench.errors import BenchError, printable

REASON = 500  # characters; the whole message is in the traceback
TEXT = 20_000  # of a note or a traceback
NOTES = 1_000
_KEPT = ("image", "maps", "features")  # what the store calls the rest of an answer


def checked(scores: Any, images: ImageSet) -> Scores:
    """The scores as float32 arrays of our own, which a method's next trial does not write into.

    Raises:
        BenchError: they are not what the contract says: not real numbers, of another shape, extra maps that are
            not finite or bear a name that is taken. (Image scores and maps that are not finite are for the
            metrics' guards.)
    """
    if not isinstance(scores, Scores):
        raise BenchError(f"the method gave {type(scores).__name__} instead of Scores")
    count = len(images)
    image = _real(scores.image, "image scores")
    if image.shape != (count,):
        raise BenchError(f"the method gave image scores of shape {image.shape} for {count} images")
    maps = None if scores.maps is None else _stack(scores.maps, "maps", count)
    extra = {}
    for name, stack in scores.extra.items():
        if not isinstance(name, str) or name in _KEPT:
            raise BenchError(f"the method gave extra maps the name {name!r}, which is taken or no text")
        extra[name] = _stack(stack, name, count)
        if not np.isfinite(extra[name]).all():
            raise BenchError(f"the method gave non-finite values in {name}")
    return Scores(image, maps, extra)


def _stack(stack: Any, name: str, count: int) -> NDArray[np.float32]:
    array = _real(stack, name)
    if array.ndim != 3 or len(array) != count:
        raise BenchError(f"the method gave {name} of shape {array.shape} for {count} images")
    return array


def _real(values: Any, name: str) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":  # NumPy would drop an imaginary part, and read numbers from text
        raise BenchError(f"the method gave {name} of type {array.dtype}, which are no real numbers")
    return np.array(array, dtype=np.float32, order="C")


def arrays(scores: Scores) -> dict[str, NDArray[Any]]:
    """Checked scores by the names that the store keeps them under."""
    named: dict[str, NDArray[Any]] = {"image": scores.image, **scores.extra}
    if scores.maps is not None:
        named["maps"] = scores.maps
    return named


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def explain(error: BaseException) -> str:
    """One line for the record; what to do where that is known."""
    message = in_words(error)
    if is_out_of_memory(error):
        return f"out of memory ({message}); try fewer --workers, a smaller image size or batch, or another device"
    return f"{type(error).__name__}: {message}".splitlines()[0]


def in_words(thing: object) -> str:
    """``str`` of what a method gave, an exception or a note, which may itself fail."""
    try:
        return str(thing)
    except BaseException as error:
        return f"(a {type(thing).__name__} whose text raises {type(error).__name__})"


def notes(given: Iterable[object]) -> list[str]:
    """A method's notes as texts, also where it noted a bare number."""
    return [plain(in_words(note), TEXT) for note, _ in zip(given, range(NOTES), strict=False)]


def plain(text: str, limit: int) -> str:
    """A text of several lines as any terminal and any file can take it, cut at ``limit`` characters."""
    cut = text if len(text) <= limit else f"{text[:limit]} ... ({len(text)} characters)"
    return printable(cut, keep="\n\t")
