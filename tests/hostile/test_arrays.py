"""Anomaly maps and masks as arrays: broken, huge, of another kind, or with something to run in them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hostile import Hostile
from hypothesis import given

import bench
from bench.metrics.files import Images, load_images
from bench.tools.arrays import MAX_UNPACKED, load_archive, load_array, read_map

KIND = "maps and masks (.npy, .npz, .safetensors, pictures)"

MAP = np.arange(12, dtype=np.float32).reshape(3, 4)


class Payload:
    """Something that a pickle would run: it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def head(text: str, version: int = 1) -> bytes:
    """A .npy file whose head is ``text``, and which holds nothing."""
    size = struct.pack("<H" if version == 1 else "<I", len(text) + 1)
    return b"\x93NUMPY" + bytes([version, 0]) + size + text.encode("latin1") + b"\n"


def says(shape: str, kind: str = "<f4") -> bytes:
    return head(f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}") + b"\x00" * 64


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="zero bytes"),
        pytest.param(b"\x93NUMPY", id="the first six bytes"),
        pytest.param(npy(MAP)[:-5], id="cut"),
        pytest.param(npy(MAP)[:40], id="cut head"),
        pytest.param(says("(100000, 100000)"), id="says 40 GB"),
        pytest.param(says("(1000000, 1000000, 1000000)"), id="says exabytes"),
        pytest.param(says("(9223372036854775807, 2)"), id="more than 64 bits"),
        pytest.param(says("(" + "9" * 400 + ", 2)"), id="400 digits"),
        pytest.param(says("(-1, 4)"), id="negative shape"),
        pytest.param(says("(1.5, 4)"), id="half a row"),
        pytest.param(says("'many'"), id="a word as shape"),
        pytest.param(says("(4, 4)", "<f9"), id="no such type"),
        pytest.param(says("(4, 4)", "|O"), id="objects"),
        pytest.param(head("{'descr': '<f4'}"), id="half a head"),
        pytest.param(head("__import__('os').getcwd()"), id="code as head"),
        pytest.param(head("[" * 5000), id="deep head"),
        pytest.param(head("(" * 60_000, 2), id="deeper head"),
        pytest.param(npy(np.array([{"a": 1}], dtype=object)), id="pickled objects"),
        pytest.param(pickle.dumps(MAP), id="a pickle"),
        pytest.param(npz(a=MAP)[:-30], id="cut archive"),
        pytest.param(npz(a=np.array([None])), id="archive of objects"),
    ],
)
def test_files_that_are_no_arrays(hostile: Hostile, tmp_path: Path, content: bytes) -> None:
    for name, read in (("a.npy", load_array), ("b.npz", load_archive)):
        path = tmp_path / name
        path.write_bytes(content)
        if content[:2] == b"PK" and name == "a.npy":
            continue
        assert str(path) in hostile.refused(lambda read=read, path=path: read(path), "cannot be read")  # type: ignore[misc]


def test_pickles_are_not_run(hostile: Hostile, tmp_path: Path) -> None:
    target = tmp_path / "was-run"
    array = np.empty(1, dtype=object)
    array[0] = Payload(target)
    (tmp_path / "a.npy").write_bytes(npy(array))
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Payload(target)))
    (tmp_path / "c.npz").write_bytes(npz(maps=array))
    hostile.refused(lambda: load_array(tmp_path / "a.npy"))
    hostile.refused(lambda: load_array(tmp_path / "b.npy"))
    hostile.refused(lambda: load_archive(tmp_path / "c.npz"))
    assert not target.exists()
    pickle.loads(pickle.dumps(Payload(target)))  # what it would have done
    assert target.exists()


def test_a_small_archive_that_unpacks_to_gigabytes(hostile: Hostile, tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("maps.npy", says("(8, 8)"))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):  # it says that it is larger
        at = content.index(mark) + place
        content[at : at + 4] = struct.pack("<I", MAX_UNPACKED - 1)
    path.write_bytes(content)
    hostile.refused(lambda: load_archive(path), "cannot be read")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in range(6):
            info = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(info, "w", force_zip64=True) as stream:
                stream.write(b"x")
            info.file_size = 1 << 30
    hostile.refused(lambda: load_archive(path), "without compression")


@pytest.mark.parametrize(
    ("array", "word"),
    [
        pytest.param(np.zeros(4), "(h, w)", id="a row"),
        pytest.param(np.zeros((2, 3, 4)), "(h, w)", id="a stack in a folder"),
        pytest.param(np.zeros((0, 4)), "1 to", id="no row"),
        pytest.param(np.float32(1), "(h, w)", id="one number"),
        pytest.param(np.zeros((3, 4), complex), "complex", id="complex"),
        pytest.param(np.full((3, 4), "a"), "<U1", id="text"),
        pytest.param(np.zeros((3, 4), "datetime64[s]"), "datetime64", id="dates"),
        pytest.param(np.zeros((3, 4), [("a", "f4")]), "(h, w)", id="records"),
        pytest.param(np.broadcast_to(np.zeros(1, bool), (20_000, 5000)), "1 to", id="a hundred million pixels"),
    ],
)
def test_arrays_that_are_no_map(hostile: Hostile, tmp_path: Path, array: Any, word: str) -> None:
    np.save(tmp_path / "a.npy", array)
    hostile.refused(lambda: read_map(tmp_path / "a.npy"), word)


def stacks(tmp_path: Path, maps: dict[str, Any], masks: dict[str, Any]) -> Images:
    np.savez(tmp_path / "maps.npz", **maps)
    np.savez(tmp_path / "masks.npz", **masks)
    found = load_images(tmp_path / "maps.npz", tmp_path / "masks.npz")
    bench.evaluate([*found.maps], [*found.masks], image_scores=found.image_scores, labels=found.labels)
    return found


STACK = np.random.default_rng(0).random((4, 6, 6), dtype=np.float32)
MASKS = np.zeros((4, 6, 6), np.uint8)
MASKS[:2, 2:4, 2:4] = 1


@pytest.mark.parametrize(
    ("maps", "masks", "word"),
    [
        pytest.param({"maps": STACK[:3]}, {"maps": MASKS}, "as many maps", id="too few maps"),
        pytest.param({"maps": STACK[:0]}, {"maps": MASKS}, "(N, h, w)", id="no maps"),
        pytest.param({"maps": STACK[..., :0]}, {"maps": MASKS}, "1 to", id="maps of no pixel"),
        pytest.param({"maps": STACK.astype(complex)}, {"maps": MASKS}, "complex", id="complex maps"),
        pytest.param({"maps": STACK.astype("U4")}, {"maps": MASKS}, "<U4", id="maps of text"),
        pytest.param({"maps": STACK}, {"maps": MASKS.astype("U1")}, "<U1", id="masks of text"),
        pytest.param({"maps": STACK}, {"maps": MASKS * np.nan}, "NaN", id="masks of NaN"),
        pytest.param({"maps": STACK, "image": np.zeros(3)}, {"maps": MASKS}, "image scores", id="scores too few"),
        pytest.param({"maps": STACK, "ids": ["a", "b"]}, {"maps": MASKS}, "different names", id="names too few"),
        pytest.param({"maps": STACK, "ids": ["a"] * 4}, {"maps": MASKS}, "different names", id="one name"),
        pytest.param(
            {"../../a": STACK[0], "b": STACK[1]}, {"a": MASKS[0]}, "have no map", id="a name that climbs"
        ),
        pytest.param({"a/b": STACK[0], "a\\b": STACK[1]}, {"a/b": MASKS[0]}, "one image", id="two slashes"),
        pytest.param({}, {"maps": MASKS}, "found", id="nothing"),
        pytest.param({"a": STACK, "b": STACK}, {"maps": MASKS}, "expected an array", id="two stacks"),
    ],
)
def test_files_of_many_arrays(
    hostile: Hostile, tmp_path: Path, maps: dict[str, Any], masks: dict[str, Any], word: str
) -> None:
    hostile.refused(lambda: stacks(tmp_path, maps, masks), word)


def test_the_same_arrays_without_a_fault(hostile: Hostile, tmp_path: Path) -> None:
    found = hostile.handled(lambda: stacks(tmp_path, {"maps": STACK, "image": np.arange(4)}, {"maps": MASKS}))
    assert found.labels.tolist() == [True, True, False, False]
    assert found.image_scores is not None and found.image_scores.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        pytest.param({"ids": "["}, "cannot be read", id="cut names"),
        pytest.param({"ids": "[" * 50_000}, "cannot be read", id="deep names"),
        pytest.param({"ids": "5"}, "no list of names", id="a number as names"),
        pytest.param({"ids": "[1, 2, 3, 4]"}, "no list of names", id="numbers as names"),
        pytest.param({"ids": '{"a": 1}'}, "no list of names", id="a mapping as names"),
    ],
)
def test_names_in_safetensors(hostile: Hostile, tmp_path: Path, metadata: dict[str, str], word: str) -> None:
    from safetensors.numpy import save_file

    save_file({"maps": STACK}, tmp_path / "maps.safetensors", metadata)
    np.save(tmp_path / "masks.npy", MASKS)
    hostile.refused(lambda: load_images(tmp_path / "maps.safetensors", tmp_path / "masks.npy"), word)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="zero bytes"),
        pytest.param(struct.pack("<Q", 2**63) + b"{}", id="an endless head"),
        pytest.param(struct.pack("<Q", 2) + b"{}", id="no arrays"),
        pytest.param(struct.pack("<Q", 9) + b'{"a": 1} ', id="no description"),
        pytest.param(
            struct.pack("<Q", 64) + b'{"a":{"dtype":"F32","shape":[99999,99999],"data_offsets":[0,4]}}',
            id="too short",
        ),
        pytest.param(
            struct.pack("<Q", 60) + b'{"a":{"dtype":"F99","shape":[1,1],"data_offsets":[0,4]}}    ',
            id="no such type",
        ),
        pytest.param(pickle.dumps([1]), id="a pickle"),
    ],
)
def test_safetensors_that_are_none(hostile: Hostile, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "maps.safetensors").write_bytes(content)
    np.save(tmp_path / "masks.npy", MASKS)
    hostile.refused(lambda: load_images(tmp_path / "maps.safetensors", tmp_path / "masks.npy"), "maps.safetensors")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["NaN", "inf", "-inf"])
def test_scores_that_are_none_give_no_number(hostile: Hostile, value: float) -> None:
    maps = STACK.astype(np.float64)
    maps[2, 1, 1] = value
    with pytest.warns(UserWarning, match="non-finite"):
        found = hostile.handled(lambda: bench.evaluate(maps, MASKS, eval_size=6))
    assert not any(name.startswith("pixel") or name == "aupro" for name in found)


NPY, NPZ = npy(MAP), npz(a=MAP)


@given(place=st.integers(0, len(NPY) - 1), value=st.integers(0, 255))
def test_a_npy_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    path = tmp_path / "a.npy"
    path.write_bytes(NPY[:place] + bytes([value]) + NPY[place + 1 :])
    hostile.either(lambda: read_map(path))


@given(place=st.integers(0, len(NPZ) - 1), value=st.integers(0, 255))
def test_a_npz_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(NPZ[:place] + bytes([value]) + NPZ[place + 1 :])
    found = hostile.either(lambda: read_map(path))
    if found is not None:  # its checksum tells
        assert np.array_equal(found, MAP)


@given(content=st.binary(max_size=60))
def test_any_bytes_behind_a_head(hostile: Hostile, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(NPY[:10] + content)
    hostile.either(lambda: read_map(tmp_path / "a.npy"))
