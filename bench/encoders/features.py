"""Frozen features, computed once per image and shared by every method, seed, fold and run.

They are kept on disk (:mod:`bench.encoders.feature_store`), where every process of this machine finds them
again, and in this process's memory: all where the disk is turned off, else small ones. A feature is found by what
it was made from: the weights' hash, the preprocessing, which part of the encoder it is, its number format, and the
hash of the image's content. Never by a path or a position, so two copies of one image share their features, and a
renamed file keeps them.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from bench.encoders.feature_store import Features, FeatureStore, default_limit, default_root
from bench.tools.devices import full_precision
from bench.tools.stopwatch import timed

if TYPE_CHECKING:
    from bench.contracts import ImageSet

GIB = 2**30
_SMALL = 2**16  # bytes of a feature up to which opening its file takes longer than copying it

A = TypeVar("A")
B = TypeVar("B")


class FeatureKey(NamedTuple):
    """Everything that one tensor was made from.

    Attributes:
        weights: SHA-256 of the encoder's weights; a word such as ``pixels`` where there is no encoder.
        preprocessing: everything done to the pixels, in words.
        part: ``embedding``, or ``block3`` for the output of block 3.
        dtype: number format in which it is kept.
        image: SHA-256 of the image's content.
    """

    weights: str
    preprocessing: str
    part: str
    dtype: str
    image: str


class FeatureCache:
    """Tensors by :class:`FeatureKey` in bounded memory, the least recently used thrown out first.

    A job that needs more than fits keeps what it stored first instead of chasing its own tail: what was used
    since :meth:`begin` is not thrown out for more of the same job. So every fold of a large dataset finds
    most of it here, where a plain LRU would always have just dropped what comes next.

    Args:
        limit: bytes that may be held.
        store: where encoders' features are kept on disk. Large ones are then not held in memory as well: what is
            read from disk again and again the system holds already, once for all processes.
        dtype: number format of cached features. With ``torch.float16`` twice as many images fit; what is
            returned went through that format even the first time, so a hit and a miss give the same numbers.

    Attributes:
        passes: images put through an encoder so far.
    """

    def __init__(
        self, limit: int = 6 * GIB, dtype: torch.dtype = torch.float32, store: FeatureStore | None = None
    ) -> None:
        self.limit = limit
        self.dtype = dtype
        self.store = store
        self.passes = 0
        self._held: OrderedDict[FeatureKey, tuple[torch.Tensor, int]] = OrderedDict()
        self._bytes = 0
        self._job = 0
        self._lock = threading.RLock()

    def begin(self) -> None:
        """A new job starts: from now on, what earlier jobs used may be thrown out."""
        with self._lock:
            self._job += 1

    def get(self, key: FeatureKey) -> torch.Tensor | None:
        """The tensor, not to be written to, or None."""
        with self._lock:
            found = self._held.get(key)
            if found is None:
                return None
            self._held[key] = (found[0], self._job)
            self._held.move_to_end(key)
            return found[0]

    def put(self, key: FeatureKey, value: torch.Tensor) -> None:
        """Keep a copy of ``value`` if there is room or room can be made."""
        with self._lock:
            size = value.nelement() * value.element_size()
            if key in self._held or size > self.limit:
                return
            while self._bytes + size > self.limit:
                oldest, (tensor, job) = next(iter(self._held.items()))
                if job == self._job:
                    return
                del self._held[oldest]
                self._bytes -= tensor.nelement() * tensor.element_size()
            # a copy, lest one row keep its whole batch in memory
            self._held[key] = (value.detach().clone(), self._job)
            self._bytes += size

    def clear(self) -> None:
        """Throw everything out; ``passes`` stays."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Bytes held."""
        return self._bytes

    @timed("encode")
    def encode(
        self,
        images: ImageSet,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        weights: str,
        preprocessing: str,
        prepare: Callable[[NDArray[np.uint8]], torch.Tensor],
        forward: Callable[[torch.Tensor], Mapping[str, torch.Tensor]],
        batch_size: int,
        also: Collection[str] = (),
    ) -> dict[str, torch.Tensor]:
        """Features of all ``images``: those held, and the rest computed.

        Each distinct image whose features are not all held is encoded once. Decoding and preparing run in
        threads, ahead of the encoder.

        Args:
            shapes: which parts are wanted, and the shape of each for one image.
            weights, preprocessing: for the keys.
            prepare: one ``(H, W, 3)`` uint8 image -> the encoder's input.
            forward: ``(b, ...)`` stacked inputs, b <= ``batch_size`` -> part -> ``(b, *shape)``.
            batch_size: how many images go through ``forward`` at once.
            also: further parts that ``forward`` gives, kept for later calls.

        Returns:
            part -> ``(N, *shape)`` float32 on the CPU, the caller's own.
        """
        self.begin()
        places: dict[str, list[int]] = {}
        for position, image in enumerate(images.keys):
            places.setdefault(image, []).append(position)
        result = {part: torch.empty((len(images), *shape)) for part, shape in shapes.items()}

        def compute(missing: Sequence[str]) -> Features:
            ready = ahead(lambda image: prepare(images[places[image][0]]), missing, 3 * batch_size)
            for batch in batches(zip(missing, ready, strict=True), batch_size):
                with full_precision():
                    outputs = forward(torch.stack([tensor for _, tensor in batch]))
                self.passes += len(batch)
                kept = {part: outputs[part].to("cpu", self.dtype) for part in {*shapes, *also}}
                for row, (image, _) in enumerate(batch):
                    yield image, {part: tensor[row] for part, tensor in kept.items()}

        find = compute
        if self.store is not None:
            space = self.store.space(weights, preprocessing, str(self.dtype))
            find = functools.partial(space.share, parts=shapes, compute=compute, chunk=4 * batch_size)
        arrays = {part: rows.numpy() for part, rows in result.items()}  # NumPy copies small rows faster
        for image, row in self._share(list(places), weights, preprocessing, list(shapes), find):
            for part, array in arrays.items():
                for position in places[image]:
                    array[position] = row[part].numpy()
        return result

    def _share(
        self,
        images: list[str],
        weights: str,
        preprocessing: str,
        parts: list[str],
        find: Callable[[Sequence[str]], Features],
    ) -> Features:
        """Features held in memory, and the rest, which ``find`` reads from disk or computes."""

        def key(part: str, image: str) -> FeatureKey:
            return FeatureKey(weights, preprocessing, part, str(self.dtype), image)

        missing = []
        for image in images:
            held = {part: tensor for part in parts if (tensor := self.get(key(part, image))) is not None}
            if len(held) == len(parts):
                yield image, held
            else:
                missing.append(image)
        for image, row in find(missing):
            for part, value in row.items():
                if self.store is None or value.nbytes <= _SMALL:
                    self.put(key(part, image), value)
            yield image, row


def ahead(function: Callable[[A], B], items: Iterable[A], window: int) -> Iterator[B]:
    """``map`` in threads, in order, at most ``window`` results ahead of the consumer.

    For decoding and resizing images, which leave Python's lock to others. An exception comes out where its
    item's result would have.
    """
    pending: deque[Future[B]] = deque()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="decode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= window:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def batches(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """Consecutive lists of ``size`` items; the last may be shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def in_fixed_batches(
    function: Callable[[torch.Tensor], Mapping[str, torch.Tensor]], rows: torch.Tensor, size: int
) -> dict[str, torch.Tensor]:
    """Apply ``function`` to ``rows`` in batches of exactly ``size``, the last filled up with zeros.

    For what is kept and found again by its image or sentence alone. Matrix products round differently for
    different numbers of rows, so without one fixed number the bits of a kept feature would depend on the batch in
    which it was first computed, and those of a trial on the trials before it, in this process or another.

    Args:
        function: ``(size, ...)`` -> name -> ``(size, ...)``.
        rows: ``(N, ...)``, N > 0.

    Returns:
        name -> ``(N, ...)``.
    """
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        count = len(batch)
        if count < size:
            batch = torch.cat([batch, batch.new_zeros((size - count, *batch.shape[1:]))])
        for name, output in function(batch).items():
            parts.setdefault(name, []).append(output[:count])
    return {name: outputs[0] if len(outputs) == 1 else torch.cat(outputs) for name, outputs in parts.items()}


def _default_store() -> FeatureStore | None:
    root = default_root()
    return None if root is None else FeatureStore(root, default_limit())


CACHE = FeatureCache(store=_default_store())
"""The process's own cache; its ``passes`` go into every record."""
