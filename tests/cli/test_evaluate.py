"""``bench evaluate``, ``bench.evaluate`` and ``bench explain-gap``: anybody's maps, whatever wrote them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image

import bench
from bench.cli.main import main
from bench.errors import BenchError
from bench.metrics import evaluate, resize_bilinear
from bench.metrics.files import image_name, load_images
from bench.store.store import FORMAT, Store
from bench.tools.arrays import read_map, read_mask_file

SIDE = 32
NAMES = ["crack/000", "crack/001", "good/000", "good/001", "hole/000", "hole/001"]
Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def refused(*words: str | Path) -> str:
    """The message of a call that must end as a user's error."""
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr


def printed(*words: str | Path) -> dict[str, Any]:
    """What a call prints as JSON."""
    result = call("evaluate", *words, "--json")
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


@pytest.fixture
def images() -> tuple[Maps, Masks]:
    """Six images in the order of ``NAMES``; the normal ones have empty masks."""
    rng = np.random.default_rng(0)
    masks = np.zeros((6, SIDE, SIDE), dtype=bool)
    for i in (0, 1, 4, 5):
        masks[i, 4 + i : 14 + i, 6:20] = True
    maps = (0.2 * rng.random(masks.shape) + 0.1 * masks + 0.3).astype(np.float32)
    return maps, masks


@pytest.fixture
def dataset(tmp_path: Path, images: tuple[Maps, Masks]) -> Path:
    """A category in MVTec AD's layout."""
    root = tmp_path / "bottle"
    for name, mask in zip(NAMES, images[1], strict=True):
        picture = root / "test" / f"{name}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (200, 10, 10)).save(picture)
        if mask.any():
            truth = root / "ground_truth" / f"{name}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(truth)
    return root


def expected(maps: Any, masks: Masks, eval_size: int | None = None) -> dict[str, float | None]:
    found = evaluate(
        labels=masks.any((1, 2)),
        image_scores=[np.max(each) for each in maps],
        maps=maps,
        masks=masks,
        eval_size=eval_size,
    )
    return found.metrics


def _tiff(path: Path, array: Maps) -> None:
    Image.fromarray(array).save(path.with_suffix(".tiff"))


def _double_tiff(path: Path, array: Maps) -> None:
    pytest.importorskip("tifffile").imwrite(path.with_suffix(".tif"), array.astype(np.float64))


def _png(path: Path, array: Maps) -> None:
    Image.fromarray((array * 65535).astype(np.uint16)).save(path.with_suffix(".png"))


def _npz(path: Path, array: Maps) -> None:
    np.savez_compressed(path.with_suffix(".npz"), anomaly_map=array[None])


def _npy(path: Path, array: Maps) -> None:
    np.save(path.with_suffix(".npy"), array.astype(np.float16))


WRITERS: dict[str, tuple[Callable[[Path, Maps], None], Callable[[Maps], Any]]] = {
    "tiff": (_tiff, lambda maps: maps),
    "64-bit tiff": (_double_tiff, lambda maps: maps),
    "16-bit png": (_png, lambda maps: (maps * 65535).astype(np.uint16)),
    "npz": (_npz, lambda maps: maps),
    "npy": (_npy, lambda maps: maps.astype(np.float16)),
}


# ------------------------------------------------------------ folders


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("where", ["", "test"])
def test_a_folder_that_another_program_wrote(
    kind: str, where: str, tmp_path: Path, images: tuple[Maps, Masks], dataset: Path
) -> None:
    maps, masks = images
    write, stored = WRITERS[kind]
    for name, array in zip(NAMES, maps, strict=True):
        path = tmp_path / "out" / where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, array)
    content = printed("--maps", tmp_path / "out", "--masks", dataset, "--protocol", "exact,grid200")
    assert content["protocols"]["exact"]["metrics"] == expected(stored(maps), masks)
    assert content["protocols"]["grid200"]["metrics"]["aupro"] not in (None, expected(maps, masks)["aupro"])
    assert (content["images"], content["anomalous"]) == (6, 4)
    assert content["notes"] == ["image scores: the maximum of each map"]


def _write(folder: Path, maps: Any, names: list[str] = NAMES) -> Path:
    for name, array in zip(names, maps, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{name}.npy", array)
    return folder


def test_the_table(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    out = _write(tmp_path / "out", maps)
    result = call("evaluate", "--maps", out, "--masks", dataset, "--protocol", "exact,devnet-perimage")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "6 images, 4 anomalous"
    assert lines[1].split("  ")[0] == "protocol"
    values = [f"{value:.4f}" for value in expected(maps, masks).values() if value is not None]
    assert lines[2].split() == ["exact", *values]
    assert lines[3].split().count("-") == 5
    assert "the maximum of each map" in result.stderr


@pytest.mark.parametrize("size", ["20", "own"])
def test_eval_size(size: str, tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    out = _write(tmp_path / "out", maps[:, ::2, ::2])
    content = printed("--maps", out, "--masks", dataset, "--eval-size", size)
    wanted = expected(maps[:, ::2, ::2], masks, None if size == "own" else 20)
    assert content["protocols"] == {f"exact[eval_size={size}]": {"metrics": wanted, "reasons": {}, "problems": []}}


def test_flat_folders_and_masks_of_normal_images(tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    names = [name.replace("/", "_") for name in NAMES]
    out = _write(tmp_path / "out", maps, names)
    truth = _write(tmp_path / "masks", masks, [f"{name}_mask" for name in names])
    content = printed("--maps", out, "--masks", truth)
    assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)
    assert content["notes"] == ["image scores: the maximum of each map"]


def test_scores_and_labels_from_a_file(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    out, table = _write(tmp_path / "out", maps), tmp_path / "scores.csv"
    rows = [f"test/{name}.png,{i % 3},{int(masks[i].any())}" for i, name in enumerate(NAMES)]
    table.write_text("\n".join(["name,score,label", *reversed(rows)]))
    content = printed("--maps", out, "--masks", dataset, "--scores", table)
    wanted = evaluate(labels=masks.any((1, 2)), image_scores=np.arange(6) % 3, maps=maps, masks=masks).metrics
    assert content["protocols"]["exact"]["metrics"] == wanted
    assert "image scores: the maximum of each map" not in content["notes"]


def test_streaming(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    out = _write(tmp_path / "out", maps)
    content = printed("--maps", out, "--masks", dataset, "--stream")
    wanted = expected(maps, masks)
    found = content["protocols"]["exact"]["metrics"]
    assert set(content["bounds"]) == {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=content["bounds"].get(name, 0) + 1e-10)
    assert "goes with" in refused(
        "evaluate", "--maps", out, "--masks", dataset, "--stream", "--protocol", "grid200"
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda maps: np.full_like(maps, 0.25),
        lambda maps: np.broadcast_to(maps.max((1, 2), keepdims=True), maps.shape),
        lambda maps: np.minimum(maps, np.quantile(maps, 0.1)),
        lambda maps: maps,
    ],
)
def test_guards_of_streamed_maps(
    change: Callable[[Maps], Maps], tmp_path: Path, images: tuple[Maps, Masks], dataset: Path
) -> None:
    out = _write(tmp_path / "out", change(images[0]))
    plain, streamed = (
        printed("--maps", out, "--masks", dataset, *more)["protocols"]["exact"] for more in ((), ("--stream",))
    )
    assert streamed["problems"] == plain["problems"]
    assert streamed["reasons"] == plain["reasons"]
    assert {name for name, value in streamed["metrics"].items() if value is None} == set(plain["reasons"])


def test_aupimo(tmp_path: Path) -> None:
    from bench.metrics.pimo import aupimo
    from bench.metrics.protocols import resolve

    rng = np.random.default_rng(0)
    masks = np.zeros((5, 256, 256), dtype=bool)
    masks[:2, 50:90, 50:90] = True
    maps = (rng.normal(size=masks.shape) + 3.5 * masks).astype(np.float32)
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "masks.npy", masks)
    words = ("--maps", tmp_path / "maps.npy", "--masks", tmp_path / "masks.npy", "--aupimo")
    found = printed(*words, "--protocol", "exact,grid200[eval_size=256]")["protocols"]
    wanted, reason = aupimo(maps, masks, resolve("exact"))
    assert reason is None
    assert 0.1 < (wanted or 0) < 0.99
    for protocol in ("exact", "grid200[eval_size=256]"):
        assert found[protocol]["metrics"]["aupimo"] == pytest.approx(wanted, abs=1e-12)
    line = call("evaluate", *words).stdout.splitlines()[-1]
    assert line.endswith(f" {wanted:.4f}")
    assert bench.evaluate(maps, masks, aupimo=True)["aupimo"] == pytest.approx(wanted, abs=1e-12)
    # At half the size there are too few normal pixels for rates of 1e-5: no number, and why.
    small = printed(*words, "--eval-size", "64")["protocols"]["exact[eval_size=64]"]
    assert small["metrics"]["aupimo"] is None
    assert "12288 pixels are too few" in small["reasons"]["aupimo"]


def test_streaming_without_anomalous_pixels(tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    np.save(tmp_path / "maps.npy", images[0])
    np.save(tmp_path / "masks.npy", np.zeros_like(images[1]))
    content = printed("--maps", tmp_path / "maps.npy", "--masks", tmp_path / "masks.npy", "--stream")
    assert set(content["protocols"]["exact"]["metrics"].values()) == {None}
    assert content["protocols"]["exact"]["reasons"]["aupro"] == "one class only: no anomalous pixel"
    assert content["bounds"] == {}


# ------------------------------------------------------------ which images count


def test_an_anomaly_without_a_mask_is_never_normal(
    tmp_path: Path, images: tuple[Maps, Masks], dataset: Path
) -> None:
    maps, masks = images
    out = _write(tmp_path / "out", maps)
    (dataset / "ground_truth/crack/001_mask.png").unlink()
    for listed in (True, False):
        if not listed:  # the folders of the maps tell the same
            (dataset / "test").rename(tmp_path / "elsewhere")
        content = printed("--maps", out, "--masks", dataset, "--protocol", "exact,ader50")
        assert content["anomalous"] == 4
        assert "1 anomalous image without a mask: crack/001; so no pixel metrics" in content["notes"]
        found = content["protocols"]["exact"]
        wanted = expected(maps, masks)
        for name, value in found["metrics"].items():
            assert value == (wanted[name] if name.startswith("image") else None)
        assert found["reasons"]["aupro"] == "1 anomalous image without a mask: crack/001"
        assert set(content["protocols"]["ader50"]["metrics"].values()) == {None}  # its image scores are the maps'
    streamed = printed("--maps", out, "--masks", dataset, "--stream")
    assert streamed["protocols"]["exact"] == found


def test_the_listing_of_the_dataset_decides(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    out = _write(tmp_path / "out", images[0])
    (out / "good/000.npy").unlink()
    message = refused("evaluate", "--maps", out, "--masks", dataset)
    assert "no map for 1 of its 6 images: good/000" in message
    _write(tmp_path / "out", images[0])
    _write(tmp_path / "out", images[0][:2], ["crack/000_heat", "extra/000"])
    assert "no image for 2 maps: crack/000_heat, extra/000" in refused(
        "evaluate", "--maps", out, "--masks", dataset
    )


def test_categories_are_evaluated_alone(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    """The same images twice, at other scores: pooled they would give other numbers."""
    maps, masks = images
    root = tmp_path / "data"
    root.mkdir()
    dataset.rename(root / "bottle")
    shutil.copytree(root / "bottle", root / "screw")
    both = {"bottle": maps, "screw": 10 - 3 * maps}
    for layout in ("listed", "masks alone", "flat"):
        names = NAMES if layout != "flat" else [name.replace("/", "_") for name in NAMES]
        for category, own in both.items():
            _write(tmp_path / "out" / layout / category, own, names)
            if layout == "masks alone":
                shutil.rmtree(root / category / "test")
        truth = root
        if layout == "flat":
            truth = tmp_path / "flat"
            for category in both:
                _write(truth / category, masks, names)
        words = ("--maps", tmp_path / "out" / layout, "--masks", truth)
        content = printed(*words)
        assert content["categories"].keys() == both.keys()
        for category, own in both.items():
            alone = content["categories"][category]
            assert (alone["images"], alone["anomalous"]) == (6, 4)
            assert alone["protocols"]["exact"]["metrics"] == expected(own, masks)
        pair = [expected(own, masks) for own in both.values()]
        mean = {name: ((pair[0][name] or 0) + (pair[1][name] or 0)) / 2 for name in pair[0]}
        assert content["mean"]["exact"] == pytest.approx(mean)
        lines = call("evaluate", *words, "--stream").stdout.splitlines()
        assert [line.split()[0] for line in lines[1:5]] == ["exact", "bottle", "screw", "mean"]
        assert lines[5].startswith("bottle: pixel_auroc is within")
        assert "2 categories" in refused("explain-gap", *words)


def test_scores_alone_give_image_metrics(tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    table = tmp_path / "scores.csv"
    rows = [f"{name},{own.max()},{int(mask.any())}" for name, own, mask in zip(NAMES, maps, masks, strict=True)]
    table.write_text("\n".join(["name,score,label", *rows]))
    out = _write(tmp_path / "out", maps)
    for words in (("--scores", table), ("--scores", table, "--maps", out)):
        found = printed(*words)["protocols"]["exact"]
        wanted = expected(maps, masks)
        for name, value in found["metrics"].items():
            assert value == (pytest.approx(wanted[name]) if name.startswith("image") else None)
    assert found["reasons"]["aupro"] == "no masks were given"
    table.write_text("\n".join(["name,score", *(row.rpartition(",")[0] for row in rows)]))
    assert "column label" in refused("evaluate", "--scores", table)
    assert "--masks goes with --maps" in refused("evaluate", "--scores", table, "--masks", out)


@pytest.mark.parametrize("kind", ["jpg", "png", "16-bit png", "float"])
def test_grey_masks_are_cut_in_the_middle(kind: str, tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    out, truth = _write(tmp_path / "out", maps), tmp_path / "masks"
    noise = np.random.default_rng(0).integers(0, 8, masks.shape)
    grey = np.where(masks, 255 - noise, noise).astype(np.uint8)
    for name, array in zip(NAMES, grey, strict=True):
        path = truth / f"{name}.{kind[-3:]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "float":
            np.save(path.with_suffix(".npy"), array / 255)
        elif kind == "16-bit png":
            Image.fromarray(array.astype(np.uint16) * 257).save(path)
        else:
            Image.fromarray(array).save(path, quality=95)
    content = printed("--maps", out, "--masks", truth)
    assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)
    assert "grey values; those above" in content["notes"][0]


def test_class_numbers_in_masks_are_no_grey_values(tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    for top in (1, 7, 255):  # classes 1, 2, ...; or 255, 254, ...
        classes = np.arange(6)[:, None, None] + (1 if top < 255 else 249)
        np.save(tmp_path / "maps.npy", maps)
        np.save(tmp_path / "masks.npy", np.where(masks, np.minimum(classes, top), 0).astype(np.uint8))
        content = printed("--maps", tmp_path / "maps.npy", "--masks", tmp_path / "masks.npy")
        assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)
        assert not any("grey" in note for note in content["notes"])


# ------------------------------------------------------------ one file


@pytest.mark.parametrize("shape", [(6, 1, SIDE, SIDE), (6, SIDE, SIDE, 1)])
def test_a_channel_of_one(shape: tuple[int, ...], tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    np.save(tmp_path / "maps.npy", maps.reshape(shape))
    np.savez(tmp_path / "masks.npz", **{f"{i:06d}": mask[None] for i, mask in enumerate(masks)})
    content = printed("--maps", tmp_path / "maps.npy", "--masks", tmp_path / "masks.npz")
    assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)


def test_bfloat16_in_safetensors(tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    import torch
    from safetensors.torch import save_file

    maps, masks = images
    narrow = torch.from_numpy(maps).bfloat16()
    save_file({"maps": narrow[:, None]}, tmp_path / "maps.safetensors")
    np.save(tmp_path / "masks.npy", masks)
    content = printed("--maps", tmp_path / "maps.safetensors", "--masks", tmp_path / "masks.npy")
    assert content["protocols"]["exact"]["metrics"] == expected(narrow.float().numpy(), masks)


def test_one_npz_with_an_array_for_each_image(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    np.savez(tmp_path / "maps.npz", **dict(zip(NAMES, maps, strict=True)))
    content = printed("--maps", tmp_path / "maps.npz", "--masks", dataset)
    assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)


def test_one_npz_with_a_stack_and_names(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    order = [3, 0, 5, 2, 1, 4]
    scores = np.array([3.0, 1, 2, 6, 5, 4])
    np.savez(tmp_path / "maps.npz", maps=maps[order], ids=np.array(NAMES)[order], image=scores[order])
    content = printed("--maps", tmp_path / "maps.npz", "--masks", dataset)
    wanted = evaluate(labels=masks.any((1, 2)), image_scores=scores, maps=maps, masks=masks).metrics
    assert content["protocols"]["exact"]["metrics"] == pytest.approx(wanted, abs=1e-14)


def test_one_safetensors_with_names(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    from safetensors.numpy import save_file

    maps, masks = images
    save_file({"maps": maps}, tmp_path / "maps.safetensors", {"ids": json.dumps(NAMES)})
    content = printed("--maps", tmp_path / "maps.safetensors", "--masks", dataset)
    assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)


def test_stacks_without_names_are_matched_by_their_order(tmp_path: Path, images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    np.save(tmp_path / "maps.npy", maps)
    np.save(tmp_path / "masks.npy", masks)
    content = printed("--maps", tmp_path / "maps.npy", "--masks", tmp_path / "masks.npy")
    assert content["protocols"]["exact"]["metrics"] == expected(maps, masks)
    assert "matched by their order" in content["notes"][0]
    np.save(tmp_path / "masks.npy", masks[:4])
    message = refused("evaluate", "--maps", tmp_path / "maps.npy", "--masks", tmp_path / "masks.npy")
    assert "as many maps (6) as masks (4)" in message


# ------------------------------------------------------------ what is refused


def test_a_mask_without_a_map_is_named(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    out = _write(tmp_path / "out", images[0][1:], NAMES[1:])
    message = refused("evaluate", "--maps", out, "--masks", dataset)
    assert "1 of 4 masks have no map" in message
    assert "crack/000_mask.png" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,value\n", "name,score[,label]"),
        ("name,score\ncrack/000,1\n", "no score for crack/001, good/000"),
        ("name,score\n" + "\n".join(f"{name},1" for name in [*NAMES, "hole/002"]), "no map for hole/002"),
        (
            "name,score\n" + "\n".join(f"{name},1" for name in [*NAMES, NAMES[0]]),
            "line 8: crack/000 is given twice",
        ),
        ("name,score\ncrack/000,high\n", "line 2: expected name,number"),
        ("name,score,label\ncrack/000,1,2\n", "line 2: expected name,number[,0 or 1]"),
        ("name,score,label\n" + "\n".join(f"{name},1,1" for name in NAMES), "labelled anomalous without"),
    ],
)
def test_bad_scores(text: str, message: str, tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    out = _write(tmp_path / "out", images[0])
    (tmp_path / "scores.csv").write_text(text)
    assert message in refused("evaluate", "--maps", out, "--masks", dataset, "--scores", tmp_path / "scores.csv")


def test_nothing_is_unpickled(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    out = _write(tmp_path / "out", images[0])
    np.save(out / "crack/000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    message = refused("evaluate", "--maps", out, "--masks", dataset)
    assert "crack/000.npy: cannot be read" in message
    np.savez(tmp_path / "maps.npz", maps=np.array([{"a": 1}], dtype=object))
    assert "cannot be read" in refused("evaluate", "--maps", tmp_path / "maps.npz", "--masks", dataset)


def test_bad_files_are_named(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    out = _write(tmp_path / "out", images[0])
    for content, message in (
        (np.zeros((4, 4, 3)), "good/000.npy: a map has one number for each pixel"),
        (np.full((4, 4), np.nan), ""),
    ):
        np.save(out / "good/000.npy", content)
        if message:
            assert message in refused("evaluate", "--maps", out, "--masks", dataset)
        else:
            found = printed("--maps", out, "--masks", dataset)["protocols"]["exact"]
            assert found["metrics"]["aupro"] is None
            assert "non-finite maps" in found["reasons"]["aupro"]
            message = refused("evaluate", "--maps", out, "--masks", dataset, "--stream")
            assert "(good/000)" in message
    (out / "good/000.npy").unlink()
    Image.new("RGB", (4, 4)).save(out / "good/000.png")
    assert "colour picture" in refused("evaluate", "--maps", out, "--masks", dataset)
    (out / "good/000.png").write_bytes(b"nothing")
    assert "good/000.png: cannot be read" in refused("evaluate", "--maps", out, "--masks", dataset)
    np.savez(out / "good/000.npz", a=images[0][2], b=images[0][2])
    (out / "good/000.png").unlink()
    assert "expected one array, the map; found a, b" in refused("evaluate", "--maps", out, "--masks", dataset)
    np.save(out / "good/000.npy", images[0][2])
    assert "two maps of one image, good/000" in refused("evaluate", "--maps", out, "--masks", dataset)


def test_bad_options(tmp_path: Path, dataset: Path, images: tuple[Maps, Masks]) -> None:
    out = _write(tmp_path / "out", images[0])
    assert "needs --maps and --masks, or --scores" in refused("evaluate", "--maps", out)
    assert "no such file or folder" in refused("evaluate", "--maps", tmp_path / "none", "--masks", dataset)
    assert "Did you mean 'grid200'" in refused("evaluate", "--maps", out, "--masks", dataset, "--protocol", "grid")
    assert "or own" in refused("evaluate", "--maps", out, "--masks", dataset, "--eval-size", "big")
    (tmp_path / "empty").mkdir()
    assert "file lies there" in refused("evaluate", "--maps", tmp_path / "empty", "--masks", dataset)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("test/crack/000.png", "crack/000"),
        ("ground_truth/crack/000_mask.png", "crack/000"),
        ("bottle/test/crack/000.tiff", "bottle/crack/000"),
        ("000.NPY", "000"),
        ("a.b/0.5.npz", "a.b/0.5"),
        ("crack/000", "crack/000"),
        (r"test\crack\000.png", "crack/000"),
    ],
)
def test_image_name(path: str, name: str) -> None:
    assert image_name(path) == name


def test_masks_in_colour_and_maps_with_a_channel(tmp_path: Path) -> None:
    mask = np.zeros((4, 5), dtype=np.uint8)
    mask[1, 2] = 3
    for mode, image in (
        ("RGB", np.stack([mask, 0 * mask, 0 * mask], -1)),
        ("LA", np.stack([mask, np.full_like(mask, 255)], -1)),
        ("RGBA", np.stack([mask, mask, mask, np.full_like(mask, 255)], -1)),
        ("L", mask),
    ):
        Image.fromarray(image, mode=mode).save(tmp_path / "mask.png")
        np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png") > 0, mask > 0)
    np.save(tmp_path / "map.npy", mask[..., None])
    np.testing.assert_array_equal(read_map(tmp_path / "map.npy"), mask)


def test_maps_are_read_when_they_are_needed(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    out = _write(tmp_path / "out", images[0])
    found = load_images(out, dataset)
    np.save(out / "crack/001.npy", np.ones((3, 3)))
    assert found.maps[1].shape == (3, 3)
    (out / "crack/001.npy").unlink()
    with pytest.raises(BenchError, match=r"001\.npy"):
        found.maps[1]


# ------------------------------------------------------------ from Python


def test_from_python(images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    assert bench.evaluate(maps, masks) == expected(maps, masks)
    assert bench.evaluate(list(maps), list(masks), protocol="exact[eval_size=own]") == expected(maps, masks, None)
    given = bench.evaluate(maps, masks, image_scores=[1, 2, 3, 4, 5, 6], labels=masks.any((1, 2)), eval_size=16)
    wanted = evaluate(
        labels=masks.any((1, 2)), image_scores=[1, 2, 3, 4, 5, 6], maps=maps, masks=masks, eval_size=16
    )
    assert given == wanted.metrics
    assert all(isinstance(value, float) for value in given.values())


def test_own_arrays_are_measured_as_they_are() -> None:
    """Forty maps of 128 x 128: the numbers are scikit-learn's, and no monotone function moves them."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    masks = np.zeros((40, 128, 128), dtype=bool)
    masks[:20, 30:60, 40:90] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    wanted = {
        "pixel_auroc": roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel_ap": average_precision_score(masks.ravel(), maps.ravel()),
    }
    for moved in (maps, np.exp(maps), 1 / (1 + np.exp(-maps)), maps + 1e6, maps.astype(np.float32)):
        found = bench.evaluate(moved, masks)
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
        if moved.dtype == np.float64:
            assert {name: found[name] for name in wanted} == pytest.approx(wanted, abs=1e-12)
    assert bench.evaluate(maps, masks, eval_size=256)["pixel_auroc"] != pytest.approx(
        wanted["pixel_auroc"], abs=1e-3
    )
    # Maps of another size are brought to the masks'; published protocols keep the grid that is part of them.
    low = maps[:, ::4, ::4]
    assert bench.evaluate(low, masks) == bench.evaluate(low, masks, eval_size=128)
    assert bench.evaluate(low, masks, protocol="grid200") == bench.evaluate(
        low, masks, protocol="grid200", eval_size=518
    )


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_double_precision_is_ranked_as_it_is(offset: float, images: tuple[Maps, Masks]) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    maps, masks = images
    wide = maps.astype(np.float64) + offset  # float32 would leave eight numbers apart at 1e8
    found = bench.evaluate(wide, masks)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), wide.ravel()), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(masks.ravel(), wide.ravel()), abs=1e-12)
    # A wide map behind narrow ones, and integers that float32 rounds.
    mixed = [*maps[:3], *(maps[3:].astype(np.float64))]
    assert bench.evaluate(mixed, masks) == bench.evaluate(maps, masks)
    whole = np.round(maps * 1000).astype(np.int64) + 2**40
    assert bench.evaluate(whole, masks) == bench.evaluate(np.round(maps * 1000), masks)


@pytest.mark.filterwarnings("ignore:one class only")
def test_double_precision_of_zero_and_on_a_grid() -> None:
    scores = np.array([[[0.0, -0.0, 1e-300, 2e-300, -1e-300, 1.0]]])
    mask = np.array([[[True, False, False, True, False, True]]])
    found = evaluate(labels=[1], image_scores=None, maps=scores, masks=mask)
    assert found.metrics["pixel_auroc"] == pytest.approx((1.5 + 3 + 3) / 9)
    # Interpolated in double precision: the constant part changes nothing.
    rng = np.random.default_rng(0)
    masks, low = rng.random((3, 20, 20)) < 0.3, rng.integers(0, 50, (3, 7, 5)) / 64
    assert bench.evaluate(low + 2.0**20, masks) == pytest.approx(bench.evaluate(low, masks), abs=1e-3)


def test_what_programs_give(images: tuple[Maps, Masks]) -> None:
    import torch

    maps, masks = images
    wanted = bench.evaluate(maps, masks)
    tensor = torch.from_numpy(maps)
    labels, scores = torch.from_numpy(masks.any((1, 2))), tensor.amax((1, 2))
    narrow = tensor.bfloat16()
    for own, truth, more in (
        (maps[:, None], masks[:, None], {}),
        (maps[..., None], masks, {}),
        ([each[None, None] for each in maps], list(masks), {}),
        (tensor.requires_grad_(), torch.from_numpy(masks), {}),
        (list(tensor[:, None]), masks, {"labels": labels, "image_scores": list(scores)}),
        (tensor, masks, {"image_scores": scores[:, None].requires_grad_()}),
        (maps, [mask if mask.any() else None for mask in masks], {}),
    ):
        assert bench.evaluate(own, truth, **more) == wanted
    assert bench.evaluate(narrow, masks) == bench.evaluate(narrow.float().numpy(), masks)
    with pytest.raises(ValueError, match="map 0 must be two-dimensional"):
        bench.evaluate(np.stack([maps, maps, maps], 1), masks)
    with pytest.raises(ValueError, match="map 0 must hold real numbers"):
        bench.evaluate(np.full(maps.shape, "a"), masks)


def test_masks_that_are_none(images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    # Empty masks have the size of the others, or of the map where these differ.
    low = maps[:, ::2, ::2]
    given = [mask if mask.any() else None for mask in masks]
    assert bench.evaluate(low, given) == bench.evaluate(low, masks)
    given[0] = masks[0][:30]
    assert bench.evaluate(low, given) == bench.evaluate(
        low, [given[0], *masks[1:2], *masks[2:4, :16, :16], *masks[4:]]
    )
    # An anomalous image whose mask is not known leaves pixel metrics undefined.
    found = bench.evaluate(maps, given, labels=[1, 1, 0, 1, 1, 1])
    assert not any(name.startswith("pixel") or name == "aupro" for name in found)
    assert "image_auroc" in found
    with pytest.raises(ValueError, match="numbers must agree"):
        evaluate(labels=[1, 0], image_scores=None, maps=maps, masks=[None] * 6)


def test_from_python_with_sizes_that_differ() -> None:
    rng = np.random.default_rng(0)
    sizes = [(20, 30), (15, 9), (33, 33)]
    masks = [rng.random(size) < 0.2 for size in sizes]
    masks[1][:] = False
    maps = [rng.random((7, 5)), rng.random((15, 9)), rng.random((40, 12))]
    own = bench.evaluate(maps, masks, protocol="grid200[eval_size=own]")
    large = [resize_bilinear(m.astype(np.float32), size) for m, size in zip(maps, sizes, strict=True)]
    scores = [each.max() for each in maps]
    assert own == bench.evaluate(large, masks, image_scores=scores, protocol="grid200[eval_size=own]")
    assert set(bench.evaluate(maps, masks)) == {*own, "image_fpr95"}


@pytest.mark.filterwarnings("ignore:constant image scores")
def test_from_python_nothing_is_made_up(images: tuple[Maps, Masks]) -> None:
    maps, masks = images
    with pytest.warns(UserWarning, match="one class only"):
        assert bench.evaluate(maps, np.zeros_like(masks)) == {}
    with pytest.warns(UserWarning, match="constant maps"):
        assert bench.evaluate(np.ones_like(maps), masks) == {}
    assert set(bench.evaluate(maps, masks, protocol="devnet-perimage")) == {
        "image_auroc",
        "image_ap",
        "pixel_auroc",
    }
    with pytest.raises(ValueError, match="6 maps and 2 masks"):
        bench.evaluate(maps, masks[:2])


def test_importing_bench_imports_no_numpy() -> None:
    script = (
        "import sys, bench; assert 'numpy' not in sys.modules; bench.evaluate; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        bench.evalute  # type: ignore[attr-defined]  # noqa: B018


# ------------------------------------------------------------ explain-gap


def test_gap_of_files(tmp_path: Path, images: tuple[Maps, Masks], dataset: Path) -> None:
    maps, masks = images
    out = _write(tmp_path / "out", maps)
    result = call("explain-gap", "--maps", out, "--masks", dataset)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    for name in ("exact", "grid200", "ader50", "openiad", "devnet-perimage", "winclip-cy"):
        assert sum(line.startswith(name) for line in lines) == 2  # its numbers, and what differs
    whole = json.loads(call("explain-gap", "--maps", out, "--masks", dataset, "--json").stdout)
    (rows,) = whole["results"].values()
    assert rows["exact"] == expected(maps, masks)
    aupro = [row["aupro"] for row in rows.values() if row["aupro"] is not None]
    spread = next(line for line in lines if line.startswith("spread"))
    assert spread.split()[-1] == f"{max(aupro) - min(aupro):.4f}"
    assert all(each["sources"] and each["differs"] for each in whole["protocols"].values())


@pytest.fixture
def study(toy_root: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A store with a study of one method on two categories, two seeds each; and its metrics by category."""
    from bench.data.catalogue import open_catalogue
    from bench.tools.spec import parse_spec

    catalogue = open_catalogue(parse_spec("folder"), toy_root)
    store, keys, metrics = Store(tmp_path / "store"), [], {}
    for number, (category, seed) in enumerate([("bolt", 0), ("bolt", 1), ("cloth", 0), ("cloth", 1)]):
        ids = catalogue.in_neutral_order([sample.id for sample in catalogue.select(category, "test")])
        masks = np.stack(catalogue.masks(ids))
        rng = np.random.default_rng(number)
        maps = (rng.random((len(ids), 8, 8)) + 0.4 * masks[:, 2::4, 2::4]).astype(np.float32)
        image = rng.random(len(ids), dtype=np.float32)
        key = f"{number}" * 64
        found = evaluate(labels=catalogue.labels(ids), image_scores=image, maps=maps, masks=masks, eval_size=24)
        metrics[category, seed] = found.metrics
        record = {
            "format": FORMAT,
            "key": key,
            "status": "ok",
            "reason": None,
            "trial": {
                "method": {"name": "toy", "label": "toy"},
                "dataset": {"name": "folder", "label": "folder", "fingerprint": catalogue.fingerprint},
                "protocol": {"name": "loo", "label": "loo"},
                "category": category,
                "shots": 1,
                "seed": seed,
            },
            "metrics": {"exact": {"eval_size": 24, "values": found.metrics}},
            "provenance": {
                "command": f"bench run --dataset folder --data-root '{toy_root}' --categories {category}"
            },
        }
        store.write(record, {"image": image, "maps": maps}, ids)
        keys.append(key)
    store.write_study("mine", {"name": "mine", "keys": keys})
    return store.root, metrics


def test_gap_of_a_study(study: tuple[Path, Any]) -> None:
    store, metrics = study
    words = ("explain-gap", "--store", store, "--json", "--protocol", "exact,grid200,ader50")
    result = call(*words)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    rows = content["results"]["toy on folder, 1-shot: mean of 4 trials"]
    # On the grid on which the trials were measured, so the very numbers of their records.
    for name, value in rows["exact[eval_size=24]"].items():
        assert value == pytest.approx(np.mean([each[name] for each in metrics.values()]), abs=1e-12)
    assert rows["grid200"]["aupro"] is not None
    assert rows["grid200"]["aupro"] != rows["exact[eval_size=24]"]["aupro"]
    only = json.loads(call(*words, "--study", "mine", "--category", "cloth").stdout)["results"]
    (rows,) = only.values()
    wanted = np.mean([metrics["cloth", seed]["aupro"] for seed in (0, 1)])
    assert rows["exact[eval_size=24]"]["aupro"] == pytest.approx(wanted, abs=1e-12)


def test_gap_of_a_study_whose_data_moved_or_changed(study: tuple[Path, Any], toy_root: Path) -> None:
    store, _ = study
    moved = toy_root.rename(toy_root.with_name("moved"))
    words = ("explain-gap", "--store", store, "--protocol", "exact")
    assert "is not a folder" in refused(*words)
    before = call(*words, "--data-root", moved)
    assert before.exit_code == 0, before.output
    assert call(*words, "--data-root", f"folder={moved}").stdout == before.stdout
    next(iter((moved / "bolt/test/good").iterdir())).unlink()
    assert "is not the data that the trial was planned with" in refused(*words, "--data-root", moved)


def test_gap_of_a_method_as_tables_or_users_call_it(tmp_path: Path, toy_root: Path, plugin: Path) -> None:
    data = ("--dataset", "folder", "--data-root", toy_root, "--workers", "0", "--store", tmp_path)
    methods = "toy-brightness[sign=-1],toy-learner"
    assert call("run", "--methods", methods, "--categories", "bolt", "--shots", "1", *data).exit_code == 0

    def title(*methods: str) -> list[str]:
        words = ("explain-gap", "--store", tmp_path, "--protocol", "exact", "--json")
        result = call(*words, *(word for method in methods for word in ("--method", method)))
        assert result.exit_code == 0, result.output
        return [each.partition(" on ")[0] for each in json.loads(result.stdout)["results"]]

    both = ["toy-brightness[sign=-1]", "toy-learner"]
    assert title() == both
    for name in ("toy-brightness[sign=-1]", "toy-brightness", "Brightness"):
        assert title(name) == both[:1]
    assert "Did you mean 'Brightness'" in refused("explain-gap", "--store", tmp_path, "--method", "Brightnes")


def test_gap_is_refused(study: tuple[Path, Any], tmp_path: Path) -> None:
    store, _ = study
    assert "Did you mean 'mine'" in refused("explain-gap", "--store", store, "--study", "mime")
    assert "Did you mean 'toy'" in refused("explain-gap", "--store", store, "--method", "tooy")
    assert "Did you mean 'bolt'" in refused("explain-gap", "--store", store, "--category", "bold")
    assert "--maps and --masks go together" in refused("explain-gap", "--maps", tmp_path)
    assert "not both" in refused("explain-gap", "--maps", tmp_path, "--masks", tmp_path, "--study", "mine")
    assert "no study was run" in refused("explain-gap", "--store", tmp_path / "none")
