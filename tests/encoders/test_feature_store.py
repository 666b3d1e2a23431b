"""Features on disk: computed once, the same numbers, and no harm from a bad disk."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from numpy.typing import NDArray

from bench.cli.main import main
from bench.contracts import ImageSet
from bench.encoders.feature_store import Features, FeatureStore, Space, default_limit, default_root
from bench.encoders.features import FeatureCache

IMAGES = 40


def encode(cache: FeatureCache, images: ImageSet, **options: Any) -> dict[str, torch.Tensor]:
    def prepare(image: NDArray[np.uint8]) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32))

    def forward(batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        return {"sum": batch.sum(dim=(1, 2, 3))[:, None] / 7, "corner": batch[:, 0, 0] / 7}

    fields = {"weights": "w", "preprocessing": "none", "shapes": {"sum": (1,)}, "batch_size": 4, **options}
    return cache.encode(images, prepare=prepare, forward=forward, **fields)


def files(root: Path) -> list[Path]:
    return list(root.glob("*/*/*.feature"))


def on_disk(root: Path, **options: Any) -> FeatureCache:
    return FeatureCache(store=FeatureStore(root, **options))


def test_what_one_run_computed_the_next_one_finds(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(IMAGES))
    expected = encode(FeatureCache(), images)["sum"]
    first, second = on_disk(tmp_path), on_disk(tmp_path)
    assert torch.equal(encode(first, images)["sum"], expected)
    assert torch.equal(encode(second, images.subset([7, 3, 3]))["sum"], expected[[7, 3, 3]])
    assert (first.passes, second.passes) == (IMAGES, 0)
    assert second.bytes == 0  # nothing is held twice
    for other in ({"weights": "v"}, {"preprocessing": "other"}, {"shapes": {"corner": (3,)}}):
        third = on_disk(tmp_path)
        encode(third, images, **other)
        assert third.passes == IMAGES


def test_parts_computed_beside_are_found_by_who_asks_next(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(IMAGES))
    for cache in (FeatureCache(), on_disk(tmp_path)):
        encode(cache, images, also=["corner"])
        corner = encode(cache, images, shapes={"corner": (3,)})["corner"]
        assert cache.passes == IMAGES
        assert torch.equal(corner, encode(FeatureCache(), images, shapes={"corner": (3,)})["corner"])


def test_a_second_method_with_other_blocks_costs_a_small_encoder_no_pass(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(5))
    expected = tiny.frozen_clip(cache=FeatureCache()).encode_images(images, layers=(0, 1))
    cache = on_disk(tmp_path)
    tiny.frozen_clip(cache=cache).encode_images(images, layers=(2,))
    again = tiny.frozen_clip(cache=cache).encode_images(images, layers=(0, 1))
    assert cache.passes == 5
    assert all(torch.equal(again.tokens[block], expected.tokens[block]) for block in (0, 1))


def test_processes_at_the_same_images_get_the_same_features(tmp_path: Path) -> None:
    path = os.pathsep.join(str(Path(__file__).parents[1] / folder) for folder in ("support", "encoders"))
    code = """if True:
        import sys, tiny
        from test_feature_store import IMAGES, Path, encode, on_disk
        cache = on_disk(Path(sys.argv[1]))
        found = encode(cache, tiny.image_set(tiny.noise(IMAGES)))["sum"]
        print(cache.passes, found.double().sum().item())
    """
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [worker.communicate(timeout=120)[0].split() for worker in workers]
    assert IMAGES <= sum(int(passes) for passes, _ in said) <= 3 * IMAGES, said
    assert len({total for _, total in said}) == 1
    encode(last := on_disk(tmp_path), tiny.image_set(tiny.noise(IMAGES)))
    assert last.passes == 0


def test_images_that_another_process_encodes_meanwhile_are_not_encoded_again(tmp_path: Path) -> None:
    images = [f"{number:064x}" for number in range(12)]
    computed: list[str] = []

    def compute(missing: Sequence[str]) -> Features:
        for image in missing:
            computed.append(image)
            yield image, {"sum": torch.tensor([float(int(image, 16))])}

    def space() -> Space:
        return FeatureStore(tmp_path).space("w", "none", "float32")

    ours = space().share(images, ["sum"], compute, chunk=4)
    next(ours)  # the first chunk is under way
    assert len(dict(space().share(images, ["sum"], compute, chunk=4))) == 12
    rest = dict(ours)
    assert len(rest) == 11
    assert all(features["sum"].item() == int(image, 16) for image, features in rest.items())
    assert len(computed) <= 12 + 3  # the other one did all but the first image; of ours only this chunk goes on


@pytest.mark.parametrize("harm", ["truncate", "flip", "type", "empty", "remove"])
def test_a_damaged_file_is_removed_and_made_again(tmp_path: Path, harm: str) -> None:
    images = tiny.image_set(tiny.noise(IMAGES))
    expected = encode(on_disk(tmp_path), images)["sum"]
    reader = on_disk(tmp_path)
    file = max(files(tmp_path))
    content = bytearray(file.read_bytes())
    if harm == "truncate":
        file.write_bytes(content[:-3])
    elif harm == "flip":
        content[-2] ^= 1
        file.write_bytes(content)
    elif harm == "type":  # as long, and yet another number
        assert content.count(b'"F32"') == 1
        file.write_bytes(content.replace(b'"F32"', b'"I32"'))
    elif harm == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
    assert torch.equal(encode(reader, images)["sum"], expected)
    assert reader.passes == 1
    assert torch.equal(encode(last := on_disk(tmp_path), images)["sum"], expected)
    assert last.passes == 0


def test_a_disk_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (blocked := tmp_path / "file").write_text("not a folder")
    images = tiny.image_set(tiny.noise(3))
    cache = on_disk(blocked)
    with pytest.warns(UserWarning, match="BENCH_CACHE"):
        found = encode(cache, images)["sum"]
    assert torch.equal(found, encode(FeatureCache(), images)["sum"])


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    one, two = tiny.image_set(tiny.noise(5, seed=1)), tiny.image_set(tiny.noise(5, seed=2))
    encode(on_disk(tmp_path), one)
    for path in files(tmp_path):
        os.utime(path, (1, 1))
    size = sum(path.stat().st_size for path in files(tmp_path))
    limited = on_disk(tmp_path, limit=size)
    encode(limited, two)
    kept = sum(path.stat().st_size for path in files(tmp_path))
    assert 0 < kept <= size
    last = on_disk(tmp_path)
    encode(last, one)
    assert last.passes > 0


def test_where_and_how_much_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", "off")
    assert default_root() is None
    assert "BENCH_CACHE is off" in CliRunner().invoke(main, ["cache"]).output
    refused = CliRunner().invoke(main, ["cache", "--clear"])
    assert refused.exit_code != 0 and "BENCH_CACHE is off" in str(refused.output) + str(refused.exception)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE_GIB", "2.5")
    assert default_root() == tmp_path and default_limit() == 2.5 * 2**30
    encode(on_disk(tmp_path), tiny.image_set(tiny.noise(4)))
    shown = CliRunner().invoke(main, ["cache"]).output
    assert "weights w: none" in shown and "of 2.50 GiB" in shown
    assert "removed" in CliRunner().invoke(main, ["cache", "--clear"]).output
    assert not files(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(cache := on_disk(tmp_path), tiny.image_set(tiny.noise(4)))
    assert cache.passes == 4


def test_files_of_an_earlier_layout_are_not_read_but_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "0123456789abcdef" / "a-00.safetensors"
    old.parent.mkdir()
    old.write_bytes(b"x" * 2**20)
    encode(cache := on_disk(tmp_path), tiny.image_set(tiny.noise(4)))
    assert cache.passes == 4
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert "1.0 MiB  0123456789abcdef" in CliRunner().invoke(main, ["cache"]).output
    assert "removed 1.0 MiB" in CliRunner().invoke(main, ["cache", "--clear"]).output
    assert not old.exists()


def test_the_limit_is_held_during_a_job_and_after_an_encoder_that_fails(tmp_path: Path) -> None:
    limit = 40_000
    most = 0

    def compute(missing: Sequence[str]) -> Features:
        nonlocal most
        for number, image in enumerate(missing):
            most = max(most, sum(path.stat().st_size for path in files(tmp_path)))
            if number == 90:
                raise RuntimeError("the encoder fails")
            yield image, {"sum": torch.zeros(1000)}

    space = FeatureStore(tmp_path, limit).space("w", "none", "float32")
    images = [f"{number:064x}" for number in range(100)]
    with pytest.raises(RuntimeError, match="the encoder fails"):
        list(space.share(images, ["sum"], compute, chunk=100))
    assert 0 < most <= limit * 1.25
    assert 0 < sum(path.stat().st_size for path in files(tmp_path)) <= limit


def test_what_killed_writers_left_is_counted_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(on_disk(tmp_path), tiny.image_set(tiny.noise(4)))
    fresh, stale = (files(tmp_path)[0].parent / f".{name}.feature.abc" for name in ("fresh", "stale"))
    for path in (fresh, stale):
        path.write_bytes(b"x" * 2**20)
    os.utime(stale, (1, 1))
    lock = stale.parents[1] / "old.lock"
    lock.touch()
    other = tmp_path / "mine" / "notes.txt"
    other.parent.mkdir()
    other.write_text("none of the cache's")
    store = FeatureStore(tmp_path)
    assert sum(size for _, size, _ in store.files()) > 2 * 2**20
    store.evict(0)
    assert fresh.exists() and not stale.exists()  # somebody may be writing it
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert "removed 1.0 MiB" in CliRunner().invoke(main, ["cache", "--clear"]).output
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "mine",
        "mine/notes.txt",
    ]


def test_a_file_whose_time_cannot_be_set_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tiny.image_set(tiny.noise(4))
    encode(on_disk(tmp_path), images)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "utime", refuse)
    encode(reader := on_disk(tmp_path), images)
    assert reader.passes == 0
    assert len(files(tmp_path)) == 4
