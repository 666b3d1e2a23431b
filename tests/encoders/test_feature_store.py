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
    return list(root.glob("*/*/*.features"))


def on_disk(root: Path, **options: Any) -> FeatureCache:
    return FeatureCache(store=FeatureStore(root, **options))


def test_what_one_run_computed_the_next_one_finds(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(IMAGES))
    expected = encode(FeatureCache(), images)["sum"]
    first, second = on_disk(tmp_path), on_disk(tmp_path)
    assert torch.equal(encode(first, images)["sum"], expected)
    assert torch.equal(encode(second, images.subset([7, 3, 3]))["sum"], expected[[7, 3, 3]])
    assert (first.passes, second.passes) == (IMAGES, 0)
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


@pytest.mark.parametrize("harm", ["truncate", "longer", "flip", "empty", "remove"])
def test_a_damaged_file_is_made_again(tmp_path: Path, harm: str) -> None:
    images = tiny.image_set(tiny.noise(IMAGES))
    expected = encode(on_disk(tmp_path), images)["sum"]
    reader = on_disk(tmp_path)
    file = max(files(tmp_path))
    content = bytearray(file.read_bytes())
    if harm == "truncate":
        file.write_bytes(content[:-3])
    elif harm == "longer":
        file.write_bytes(content + b"0")
    elif harm == "flip":
        content[-2] ^= 1
        file.write_bytes(content)
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


@pytest.mark.parametrize(("old", "new"), [(b"float32", b"int32"), (b"[3]", b"[1]"), (b'"corner"', b'"embedding"')])
def test_damage_to_the_description_in_a_file_is_found(tmp_path: Path, old: bytes, new: bytes) -> None:
    images = tiny.image_set(tiny.noise(1))
    encode(on_disk(tmp_path), images, also=["corner"])
    (file,) = files(tmp_path)
    content = file.read_bytes()
    assert old in content
    file.write_bytes(content.replace(old, new.ljust(len(old)) if len(new) <= len(old) else new))
    encode(reader := on_disk(tmp_path), images)
    assert reader.passes == 1


def test_the_file_of_another_image_is_not_taken(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(2))
    expected = encode(on_disk(tmp_path), images)["sum"]
    one, other = files(tmp_path)
    one.write_bytes(other.read_bytes())
    assert torch.equal(encode(on_disk(tmp_path), images)["sum"], expected)


def test_parts_that_are_asked_for_later_join_those_on_disk(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(4))
    both = {"sum": (1,), "corner": (3,)}
    for shapes in ({"sum": (1,)}, {"corner": (3,)}):
        encode(on_disk(tmp_path), images, shapes=shapes)
    found = encode(last := on_disk(tmp_path), images, shapes=both)
    expected = encode(FeatureCache(), images, shapes=both)
    assert last.passes == 0
    assert all(torch.equal(found[part], expected[part]) for part in both)


def test_large_features_are_read_anew_and_not_held_in_memory(tmp_path: Path) -> None:
    value = torch.arange(40_000.0)
    images = tiny.image_set(tiny.noise(2))

    def ask(cache: FeatureCache) -> torch.Tensor:
        return cache.encode(
            images,
            {"large": (40_000,)},
            weights="w",
            preprocessing="none",
            prepare=lambda image: torch.zeros(1),
            forward=lambda batch: {"large": value.expand(len(batch), -1)},
            batch_size=2,
        )["large"]

    ask(on_disk(tmp_path))
    cache = on_disk(tmp_path)
    assert all(torch.equal(row, value) for row in (*ask(cache), *ask(cache)))
    assert (cache.passes, cache.bytes) == (0, 0)


def size_of(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_the_limit_holds_while_a_job_writes_and_when_its_encoder_raises(tmp_path: Path) -> None:
    limit = 200_000
    sizes: list[int] = []

    def compute(missing: Sequence[str]) -> Features:
        for number, image in enumerate(missing):
            if number == 90:
                raise RuntimeError("the encoder fails")
            yield image, {"sum": torch.zeros(1000)}

    space = FeatureStore(tmp_path, limit).space("w", "none", "float32")
    images = [f"{number:064x}" for number in range(100)]
    shared = space.share(images, ["sum"], compute, chunk=100)
    with pytest.raises(RuntimeError, match="the encoder fails"):
        sizes.extend(size_of(tmp_path) for _ in shared)
    assert len(sizes) == 90
    assert limit / 2 < max(sizes) <= limit
    assert size_of(tmp_path) <= limit


def test_an_image_beyond_the_limit_is_not_kept(tmp_path: Path) -> None:
    encode(cache := on_disk(tmp_path, limit=10), tiny.image_set(tiny.noise(3)))
    assert cache.passes == 3 and not files(tmp_path)


def test_temporary_files_of_killed_writers_are_counted_and_removed(tmp_path: Path) -> None:
    encode(on_disk(tmp_path), tiny.image_set(tiny.noise(1)))
    (file,) = files(tmp_path)
    abandoned, live = (file.with_name(f".{file.name}.{name}") for name in ("abandoned", "live"))
    for path in (abandoned, live):
        path.write_bytes(bytes(1000))
    os.utime(abandoned, (1, 1))
    store = FeatureStore(tmp_path)
    assert sum(size for _, size, _ in store.files()) == size_of(tmp_path) > 2000
    store.evict(0)
    assert live.exists() and not abandoned.exists() and not file.exists()
    store.clear()
    assert not live.exists()


def test_clear_removes_all_that_is_ours_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(on_disk(tmp_path), tiny.image_set(tiny.noise(2)))
    (tmp_path / ("0" * 32)).mkdir()
    (tmp_path / ("0" * 32) / "a.lock").touch()  # of an earlier layout
    (foreign := tmp_path / "shipped" / "data").mkdir(parents=True)
    (foreign / "image.png").write_bytes(b"x")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert CliRunner().invoke(main, ["cache", "--clear"]).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["shipped"]
    assert (foreign / "image.png").exists()


def test_a_file_that_is_read_counts_as_used(tmp_path: Path) -> None:
    images = tiny.image_set(tiny.noise(2))
    encode(on_disk(tmp_path), images)
    for path in files(tmp_path):
        os.utime(path, (1, 1))
    encode(on_disk(tmp_path), images.subset([0]))
    assert sorted(path.stat().st_mtime > 1 for path in files(tmp_path)) == [False, True]


def test_files_whose_time_cannot_be_set_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tiny.image_set(tiny.noise(3))
    encode(on_disk(tmp_path), images)
    for path in files(tmp_path):
        os.utime(path, (1, 1))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(os, "utime", refuse)
    encode(cache := on_disk(tmp_path), images)
    assert cache.passes == 0 and len(files(tmp_path)) == 3
