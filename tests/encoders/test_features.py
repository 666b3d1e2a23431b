"""The feature cache: what it counts, what it keeps, and that a hit equals a miss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray

from bench.contracts import ImageSet
from bench.encoders.features import FeatureCache, FeatureKey, ahead, batches, in_fixed_batches

SHAPES = {"sum": (1,), "corner": (3,)}


def encode(cache: FeatureCache, images: ImageSet, **options: Any) -> dict[str, torch.Tensor]:
    def prepare(image: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32))

    def forward(batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"sum": batch.sum(dim=(1, 2, 3))[:, None] / 7, "corner": batch[:, 0, 0] / 7}

    fields = {"weights": "w", "preprocessing": "none", "shapes": SHAPES, "batch_size": 2, **options}
    return cache.encode(images, prepare=prepare, forward=forward, **fields)


def key(name: str) -> FeatureKey:
    return FeatureKey("w", "none", "part", "torch.float32", name)


def test_each_distinct_image_is_encoded_once() -> None:
    cache = FeatureCache()
    a, b, c = tiny.noise(3)
    first = encode(cache, tiny.image_set([a, b, a, c]))
    assert cache.passes == 3
    for row, image in zip(first["corner"], (a, b, a, c), strict=True):
        torch.testing.assert_close(row, torch.from_numpy(image[0, 0] / np.float32(7)))
    second = encode(cache, tiny.image_set([c, a]))
    assert cache.passes == 3
    assert torch.equal(second["sum"], first["sum"][[3, 0]])
    encode(cache, tiny.image_set([c, a]), weights="other")
    encode(cache, tiny.image_set([c, a]), preprocessing="other")
    assert cache.passes == 7


def test_what_is_returned_is_the_callers_own() -> None:
    cache = FeatureCache()
    images = tiny.image_set(tiny.noise(2))
    first = encode(cache, images)
    expected = first["sum"].clone()
    first["sum"].zero_()
    assert torch.equal(encode(cache, images)["sum"], expected)


def test_half_precision_rounds_a_miss_as_it_does_a_hit() -> None:
    cache = FeatureCache(dtype=torch.float16)
    images = tiny.image_set(tiny.noise(3))
    miss, hit = (encode(cache, images)["corner"] for _ in range(2))
    assert cache.passes == 3
    assert torch.equal(miss, hit)
    assert miss.dtype == torch.float32
    assert torch.equal(miss, miss.half().float())


def test_memory_is_bounded_and_the_oldest_goes_first() -> None:
    cache = FeatureCache(limit=3 * 40)
    for name in "abc":
        cache.begin()
        cache.put(key(name), torch.zeros(10))
    cache.begin()
    assert cache.get(key("a")) is not None
    cache.put(key("d"), torch.zeros(10))
    assert cache.get(key("b")) is None
    assert cache.get(key("a")) is not None
    assert (len(cache), cache.bytes) == (3, 120)
    cache.put(key("huge"), torch.zeros(1000))
    assert cache.get(key("huge")) is None
    assert len(cache) == 3
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


def test_a_scan_larger_than_the_cache_does_not_flush_it() -> None:
    images = tiny.image_set(tiny.noise(10))
    cache = FeatureCache(limit=6 * 16)  # features of six images
    encode(cache, images)
    assert cache.passes == 10
    encode(cache, images)
    assert cache.passes == 14  # the six that fit were found again; a plain LRU would find none


def test_rows_do_not_keep_their_batch_in_memory() -> None:
    cache = FeatureCache()
    batch = torch.zeros(1000, 10)
    cache.put(key("a"), batch[3])
    held = cache.get(key("a"))
    assert held is not None
    assert held.untyped_storage().nbytes() == 40


def test_a_broken_image_is_reported() -> None:
    def read(name: str) -> NDArray[np.uint8]:
        raise ValueError(f"cannot read {name}")

    images = ImageSet(["x"], ["thing"], {}, read)
    with pytest.raises(ValueError, match="cannot read x"):
        encode(FeatureCache(), images)


def test_ahead_keeps_the_order_and_the_window() -> None:
    started: list[int] = []

    def function(item: int) -> int:
        started.append(item)
        return item * item

    results = ahead(function, range(100), window=5)
    assert next(results) == 0
    assert len(started) <= 5
    assert list(results) == [i * i for i in range(1, 100)]
    assert list(ahead(function, [], window=5)) == []


def test_fixed_batches_fill_up_and_cut_off() -> None:
    sizes = []

    def function(batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        sizes.append(len(batch))
        return {"double": batch * 2}

    rows = torch.arange(14.0).view(7, 2)
    assert torch.equal(in_fixed_batches(function, rows, 3)["double"], rows * 2)
    assert sizes == [3, 3, 3]
    assert list(batches(range(5), 2)) == [[0, 1], [2, 3], [4]]
