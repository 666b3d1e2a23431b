"""Streamed pixel metrics: the exact ones lie within the bounds, whatever is added."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from bench.metrics import pixel_metrics, streaming
from bench.metrics.exact import rank
from bench.metrics.guards import Counts
from bench.metrics.pixels import gather
from bench.metrics.prepare import Lazy
from bench.metrics.registry import PIXEL_METRICS
from bench.metrics.streaming import PixelAccumulator, Streamed

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]
ROUNDING = 1e-10


def check(found: Streamed, maps: Any, masks: Any, limit: float = 0.3, within: float = 1.0) -> None:
    """Check that the exact metrics lie within the bounds, and the bounds below ``within``."""
    exact = pixel_metrics(maps, masks, eval_size=None, fpr_limit=limit)
    for name in PIXEL_METRICS:
        value, bound, expected = found.values[name], found.bounds[name], exact[name]
        assert value is not None
        assert bound is not None
        assert expected is not None
        assert abs(value - expected) <= bound + ROUNDING, name
        assert bound <= within, name


def blobs(number: int = 16, side: int = 128, seed: int = 0) -> tuple[Maps, Masks]:
    """Return smooth maps in [0, 1] that know something of their masks, with several regions each."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.random((number, side, side)), (0, 4, 4))
    masks = smooth > np.quantile(smooth, 0.96)
    masks[0] = False
    maps = ndimage.gaussian_filter(0.4 * masks + rng.random(masks.shape), (0, 1, 1))
    return np.clip(maps / maps.max(), 0, 1).astype(np.float32), masks


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the limits small, so that a quarter of a million pixels are many."""
    monkeypatch.setattr(streaming, "BINS", 1 << 14)
    monkeypatch.setattr(streaming, "_CHUNK", 1 << 14)


def streamed(maps: Maps, masks: Masks, parts: int = 1) -> PixelAccumulator:
    """Stream, by ``parts`` accumulators that travel as bytes and are merged."""
    whole = PixelAccumulator(None)
    if parts == 1:
        whole.add(maps, masks)
        return whole
    for ours in np.array_split(np.arange(len(maps)), parts):
        part = PixelAccumulator(None)
        part.add(maps[ours], masks[ours])
        whole.merge(PixelAccumulator.from_bytes(part.to_bytes()))
    return whole


def _coins(maps: Maps) -> NDArray[np.bool_]:
    return np.random.default_rng(1).random(maps.shape) < 0.5


ADVERSARIES: dict[str, Callable[[Maps], Any]] = {
    "smooth": lambda maps: maps,
    "twelve values": lambda maps: np.round(maps * 12),
    "a thousand values": lambda maps: np.round(maps * 1000) / 1000,
    "half of all zero": lambda maps: np.where(_coins(maps), 0, maps),
    "all equal": lambda maps: np.zeros_like(maps),
    "a range of a millionth": lambda maps: 1 + 1e-6 * maps,
    "a range of a hundred-thousandth": lambda maps: 0.5 + 1e-5 * maps,
    "76 powers of ten, both signs": lambda maps: np.where(_coins(maps), 1, -1) * 10.0 ** (76 * maps - 38),
    "sigmoid": lambda maps: 1 / (1 + np.exp(-40 * (maps - 0.5))),
    "reversed": lambda maps: -maps,
    "no better than chance": lambda maps: np.random.default_rng(2).random(maps.shape),
    "ever higher": lambda maps: np.sort(maps, axis=None).reshape(maps.shape),
    "ever lower": lambda maps: np.sort(maps, axis=None)[::-1].reshape(maps.shape),
    "ever narrower": lambda maps: 0.5 + (maps - 0.5) * 0.7 ** np.arange(len(maps))[:, None, None],
    "ever wider": lambda maps: 0.5 + (maps - 0.5) * 0.7 ** np.arange(len(maps))[::-1, None, None],
    "ties that come late": lambda maps: np.concatenate([maps[:8], np.round(7 * maps[8:]) / 7]),
}


@pytest.mark.parametrize("parts", [1, 5])
@pytest.mark.parametrize("name", ADVERSARIES)
@pytest.mark.usefixtures("small")
def test_bound_holds(name: str, parts: int) -> None:
    maps, masks = blobs()
    maps = np.asarray(ADVERSARIES[name](maps), dtype=np.float32)
    # Scores that spread over their range, or have few values, are told apart by some thousand bins. Where they
    # crowd, or a tie of many shares its bin with a few others, the bounds are wide.
    narrow = "hundred-thousandth", "narrower", "wider", "powers", "late"
    wide = 1.0 if any(word in name for word in narrow) else 5e-3
    check(streamed(maps, masks, parts).metrics(), maps, masks, within=wide)


def test_bounds_of_many_distinct_scores_are_small() -> None:
    """Four million pixels, nearly all with a score of their own."""
    maps, masks = blobs(16, 512)
    check(streamed(maps, masks).metrics(), maps, masks, within=1e-4)


@pytest.mark.usefixtures("small")
def test_something_is_approximated_in_these_tests() -> None:
    maps, masks = blobs()
    bounds = streamed(maps, masks).metrics().bounds
    assert all(bound is not None and bound > 1e-8 for bound in bounds.values())


@pytest.mark.parametrize("limit", [0.01, 0.3, 1.0])
@pytest.mark.usefixtures("small")
def test_any_limit(limit: float) -> None:
    maps, masks = blobs()
    check(streamed(maps, masks).metrics(limit), maps, masks, limit=limit, within=1e-2)


@pytest.mark.usefixtures("small")
def test_few_anomalous_pixels_among_many() -> None:
    maps, masks = blobs()
    masks[:] = False
    masks[3, 5, 7] = masks[9, 100:104, 100:103] = True  # one region of a pixel, one of twelve
    maps[3, 5, 7] = np.quantile(maps, 0.5)
    maps[9, 100:104, 100:103] = np.quantile(maps, 0.999)
    for parts in (1, 4):
        check(streamed(maps, masks, parts).metrics(), maps, masks, within=1e-2)


@pytest.mark.usefixtures("small")
def test_most_pixels_anomalous() -> None:
    maps, masks = blobs()
    check(streamed(maps, ~masks).metrics(), maps, ~masks, within=1e-2)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[Maps], list[Masks], list[int]]:
    """Draw tiny images with scores from few numbers, some of them neighbours, and who adds which."""
    number = draw(st.integers(2, 12))
    numbers = [np.float32(value) for value in (-2, -1e-30, 0, 0.25, 0.5, 0.75, 1, 3e38)]
    numbers += [np.nextafter(value, np.float32(9)) for value in numbers[:6]]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = np.array(numbers)[rng.permutation(len(numbers))[: draw(st.integers(1, len(numbers)))]]
    narrow = draw(st.booleans())
    maps, masks = [], []
    for i in range(number):
        side = int(rng.integers(3, 9))
        scores = rng.choice(values, (side, side)) if draw(st.booleans()) else rng.random((side, side))
        maps.append(np.asarray(scores * (0.5**i if narrow else 1), dtype=np.float32))
        masks.append(rng.random((side, side)) < draw(st.sampled_from([0.05, 0.3, 0.9])))
    masks[0][0, :2] = [True, False]
    return maps, masks, [draw(st.integers(0, 2)) for _ in range(number)]


@given(streams(), st.sampled_from([1, 2, 8, 1 << 20]), st.booleans())
@settings(deadline=None, max_examples=200)
def test_bound_holds_whatever_is_added(
    case: tuple[list[Maps], list[Masks], list[int]], bins: int, double: bool
) -> None:
    maps, masks, owners = case
    given = maps
    if double:  # scores that float32 cannot tell apart
        given = [scores * (1 + 1e-12 * np.arange(scores.size).reshape(scores.shape)) for scores in maps]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BINS", bins)
        patch.setattr(streaming, "_CHUNK", 20)
        parts = [PixelAccumulator(None) for _ in range(3)]
        for scores, mask, owner in zip(given, masks, owners, strict=True):
            parts[owner].add([scores], [mask])
        parts[0].merge(parts[1])
        parts[2].merge(PixelAccumulator.from_bytes(parts[0].to_bytes()))
        check(parts[2].metrics(), given, masks)


@given(streams())
@settings(deadline=None, max_examples=50)
def test_few_pixels_are_exact(case: tuple[list[Maps], list[Masks], list[int]]) -> None:
    maps, masks, _ = case
    whole = PixelAccumulator(None)
    whole.add(maps, masks)
    check(whole.metrics(), maps, masks, within=ROUNDING)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5)
def test_increasing_functions_of_the_scores_stay_within_the_bounds(seed: int) -> None:
    maps, masks = blobs(8, 64, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "BINS", 1 << 12)
        plain = streamed(maps, masks).metrics()
        for moved in (1000 * maps + 3, np.exp(9 * maps.astype(np.float64)), maps**3):
            found = streamed(np.asarray(moved, np.float32), masks).metrics()
            for name in PIXEL_METRICS:
                values = found.values[name], plain.values[name]
                bounds = found.bounds[name], plain.bounds[name]
                assert None not in (*values, *bounds)
                # Rounding to float32 ties a few scores that were not tied.
                assert abs(values[0] - values[1]) <= bounds[0] + bounds[1] + 1e-5  # type: ignore[operator]


def test_a_hundred_million_pixels() -> None:
    """The same images ten times have the same metrics, so the exact ones are known from a tenth of them."""
    maps, masks = blobs(40, 512)
    whole = PixelAccumulator(None)
    for _ in range(10):
        whole.add(maps, masks)
    assert whole.extent.maps == 400
    assert masks.size * 10 > 1e8
    check(whole.metrics(), maps, masks, within=1e-2)


@pytest.mark.usefixtures("small")
def test_memory_does_not_depend_on_the_number_of_maps() -> None:
    maps, masks = blobs(8)

    def peak(number: int) -> int:
        rng = np.random.default_rng(0)
        drawn = Lazy(lambda i: maps[i % 8] + 0.1 * rng.random(maps[0].shape, dtype=np.float32), number)
        tracemalloc.start()
        whole = PixelAccumulator(None)
        whole.add(drawn, Lazy(lambda i: masks[i % 8], number))
        whole.metrics()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(8)  # imports are not the accumulator's memory
    few, many = peak(16), peak(128)
    assert many < 1.2 * few
    assert many < 128 * maps[0].nbytes  # less than the scores alone


def test_maps_are_brought_to_the_grid() -> None:
    maps, masks = blobs(6, 48)
    low = maps[:, ::4, ::4].astype(np.float16)
    for size in (None, 64, (20, 30)):
        whole = PixelAccumulator(size)
        whole.add(low, masks)
        found = pixel_metrics(low, masks, eval_size=size)
        assert whole.metrics().values == pytest.approx(found, abs=ROUNDING)


def test_more_can_be_added_after_reading() -> None:
    maps, masks = blobs(6, 48)
    whole = PixelAccumulator(None)
    whole.add(maps[:3], masks[:3])
    assert whole.metrics().values == pytest.approx(
        pixel_metrics(maps[:3], masks[:3], eval_size=None), abs=ROUNDING
    )
    whole.add(maps[3:], masks[3:])
    assert whole.metrics().values == pytest.approx(pixel_metrics(maps, masks, eval_size=None), abs=ROUNDING)


def test_zero_and_negative_zero_tie() -> None:
    scores = np.array([[[0.0, -0.0, -0.0, 0.0, -0.0, 0.0, 1.0, 1.0, -1e-45, 1e-45]]], dtype=np.float32)
    mask = np.array([[[True, True, True, False, False, False, True, False, False, False]]])
    whole = PixelAccumulator(None)
    whole.add(scores, mask)
    whole.add(scores[:, :, ::-1], mask[:, :, ::-1])
    twice = [np.concatenate([each, each[:, :, ::-1]]) for each in (scores, mask)]
    check(whole.metrics(), *twice, within=ROUNDING)


def test_scores_that_float32_cannot_tell_apart_are_no_ties() -> None:
    """In double precision the order is perfect; rounded, all scores are one."""
    scores = 1 + 1e-12 * np.arange(20.0).reshape(1, 4, 5)
    mask = scores > 1 + 1e-11
    whole = PixelAccumulator(None)
    whole.add(scores, mask)
    found = whole.metrics()
    assert pixel_metrics(scores, mask, eval_size=None)["pixel_auroc"] == 1.0
    assert (found.values["pixel_auroc"], found.bounds["pixel_auroc"]) == (0.5, 0.5)
    check(found, scores, mask)
    assert whole.extent == gather(scores, mask, eval_size=None).extent


@pytest.mark.parametrize("value", [False, True])
def test_one_class_gives_none(value: bool) -> None:
    whole, nothing = PixelAccumulator(None), dict.fromkeys(PIXEL_METRICS)
    assert whole.metrics() == Streamed(nothing, nothing, Counts())
    whole.add(np.ones((2, 4, 4)), np.full((2, 4, 4), value))
    counts = Counts(32, 0, 32, 0) if value else Counts(0, 32, 0, 32)
    assert whole.metrics() == Streamed(nothing, nothing, counts)


@pytest.mark.parametrize("bins", [1, 50, 1 << 18])
def test_guards_learn_what_they_need(bins: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BINS", bins)
    maps, masks = blobs(6, 48)
    maps = np.minimum(maps, np.quantile(maps, 0.99))
    maps[0] = maps[1].min()
    parts = [PixelAccumulator(None) for _ in range(2)]
    for i in range(6):
        parts[i % 2].add(maps[i : i + 1], masks[i : i + 1])
    parts[0].merge(PixelAccumulator.from_bytes(parts[1].to_bytes()))
    pixels = gather(maps, masks, eval_size=None)
    assert parts[0].extent == pixels.extent
    assert (pixels.extent.maps, pixels.extent.flat) == (6, 1)
    _, counts = rank(pixels)
    found = parts[0].metrics().counts
    assert (found.positives, found.negatives) == (counts.positives, counts.negatives)
    assert found.positives_at_top <= counts.positives_at_top
    if bins > 50:
        assert found == counts


@pytest.mark.parametrize("size", [None, 64, (20, 30)])
def test_bytes_hold_everything(size: int | tuple[int, int] | None) -> None:
    maps, masks = blobs(4, 32)
    whole = PixelAccumulator(size)
    whole.add(maps, masks)
    again = PixelAccumulator.from_bytes(whole.to_bytes())
    assert again.metrics() == whole.metrics()
    assert (again.eval_size, again.extent) == (size, whole.extent)
    assert whole.extent.maps == 4


def test_a_faulty_map_is_called_by_its_number_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "_CHUNK", 1)
    maps, masks = blobs(4, 32)
    with pytest.raises(ValueError, match="map 2 must be two-dimensional"):
        PixelAccumulator(None).add([maps[0], maps[1], maps[2, 0]], masks[:3])


def test_bad_input_is_refused() -> None:
    maps, masks = blobs(4, 32)
    whole = PixelAccumulator(None)
    with pytest.raises(ValueError, match="4 maps and 3 masks"):
        whole.add(maps, masks[:3])
    broken = maps.copy()
    broken[2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="map 2 holds scores that are not finite"):
        whole.add(broken, masks)
    with pytest.raises(ValueError, match="limit"):
        whole.metrics(0.0)
    with pytest.raises(ValueError, match="map 1 holds scores that are not finite in float32"):
        whole.add(np.where(np.arange(4)[:, None, None] == 1, 1e300, maps.astype(np.float64)), masks)
    with pytest.raises(ValueError, match="grids differ"):
        whole.merge(PixelAccumulator(64))
    with pytest.raises(ValueError, match="with itself"):
        whole.merge(whole)
    for content in (b"", b"nothing of the kind", PixelAccumulator(None).to_bytes()[:100]):
        with pytest.raises(ValueError, match="no accumulator"):
            PixelAccumulator.from_bytes(content)
