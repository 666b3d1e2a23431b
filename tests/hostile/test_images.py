"""Images and masks that are broken, huge, odd or something else."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hostile import Hostile
from hypothesis import given
from PIL import Image
from trees import category

from bench.contracts import Sample
from bench.data.catalogue import Catalogue, check_content
from bench.data.images import read_image, read_mask
from bench.datasets.folder import Folder
from bench.study.plan import open_catalogue
from bench.tools.pictures import MAX_PIXELS
from bench.tools.spec import parse_spec

KIND = "images and masks"

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = PIXELS[..., 0]
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turn right


def sample(image: Path, mask: Path | None = None, threshold: int = 0) -> Sample:
    masks = () if mask is None else (mask,)
    return Sample("c/test/t/0", "c", "test", "t", image, masks, mask_threshold=threshold)


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def png(width: int, height: int, data: bytes = b"", colour: int = 2) -> bytes:
    """A PNG that says how large it is, whatever is in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def huge(format_: str) -> bytes:
    """A real picture of one colour, above the limit and small as a file."""
    return encoded(Image.new("1", (MAX_PIXELS // 8000 + 1, 8000)), format_)


RGB = Image.fromarray(PIXELS)


def of(*channels: np.ndarray, mode: str | None = None, format_: str = "PNG") -> bytes:
    """A picture of some channels."""
    pixels = channels[0] if len(channels) == 1 else np.dstack(channels)
    return encoded(Image.fromarray(pixels, mode) if mode else Image.fromarray(pixels), format_)


FRAMES = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
PNG, JPEG = encoded(RGB, "PNG"), encoded(RGB, "JPEG")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        pytest.param("a.png", b"", "cannot be read as an image", id="zero bytes"),
        pytest.param("a.png", PNG[:20], "cannot be read", id="cut within the head"),
        pytest.param("a.png", PNG[: len(PNG) // 2], "cannot be read", id="cut PNG"),
        pytest.param("a.jpg", JPEG[: len(JPEG) // 2], "cannot be read", id="cut JPEG"),
        pytest.param("a.bmp", encoded(RGB, "BMP")[:60], "cannot be read", id="cut BMP"),
        pytest.param("a.tif", encoded(RGB, "TIFF")[:60], "cannot be read", id="cut TIFF"),
        pytest.param("a.webp", encoded(RGB, "WEBP")[:40], "cannot be read", id="cut WebP"),
        pytest.param("a.ppm", encoded(RGB, "PPM")[:60], "cannot be read", id="cut PPM"),
        pytest.param("a.ppm", b"P6 60000 60000 255\n", "too large", id="PPM that says 60000 squared"),
        pytest.param("a.ppm", b"P6 8 99999999999999999999 255\n", "cannot be read", id="PPM of a long number"),
        pytest.param("a.pfm", b"Pf 8 6 -1.0\n" + bytes(8 * 6 * 4), "32 bits", id="float PFM"),
        pytest.param("a.png", b"<html>not found</html>", "no PNG, JPEG", id="a web page"),
        pytest.param("a.png", b"\x00" * 1000, "no PNG, JPEG", id="zeros"),
        pytest.param(
            "a.png", b"version https://git-lfs.github.com/spec/v1\n", "no PNG, JPEG", id="a Git LFS pointer"
        ),
        pytest.param("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", "no PNG, JPEG", id="EPS"),
        pytest.param("a.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no PNG, JPEG", id="SVG"),
        pytest.param("a.png", encoded(RGB, "GIF"), "no PNG, JPEG", id="GIF"),
        pytest.param("a.png", encoded(RGB, "PDF"), "no PNG, JPEG", id="PDF"),
        pytest.param("a.png", encoded(RGB, "ICO"), "no PNG, JPEG", id="ICO"),
        pytest.param("a.png", png(2**31 - 1, 2**31 - 1), "too large", id="says 2 billion squared"),
        pytest.param("a.png", png(60_000, 60_000), "too large", id="says 60000 squared"),
        pytest.param("a.png", png(12_000, 12_000), "too large", id="says 12000 squared"),
        pytest.param("a.png", png(0, 6), "cannot be read", id="no width"),
        pytest.param("a.png", png(8, 6), "cannot be read", id="no pixels"),
        pytest.param("a.png", png(8, 6, colour=7), "cannot be read", id="no such colours"),
        pytest.param("a.png", huge("PNG"), "too large", id="PNG bomb"),
        pytest.param(
            "a.tif",
            encoded(Image.new("1", (60_000, 40_000)), "TIFF", compression="group4"),
            "too large",
            id="TIFF bomb",
        ),
        pytest.param(
            "a.bmp",
            b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 10**6, 10**6, 1, 24, *[0] * 6),
            "too large",
            id="BMP that says a million squared",
        ),
        pytest.param(
            "a.png",
            encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]),
            "holds 2 pictures",
            id="animated PNG",
        ),
        pytest.param(
            "a.webp",
            encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]),
            "holds 2 pictures",
            id="animated WebP",
        ),
        pytest.param(
            "a.tif",
            encoded(FRAMES[0], "TIFF", save_all=True, append_images=FRAMES[1:]),
            "holds 2 pictures",
            id="TIFF of two pages",
        ),
        pytest.param("a.tif", of(GREY / np.float32(255), format_="TIFF"), "32 bits", id="float TIFF"),
        pytest.param("a.tif", of(GREY.astype(np.int32), format_="TIFF"), "32 bits", id="int32 TIFF"),
        pytest.param("a.tif", encoded(RGB, "TIFF", exif=EXIF), "to be turned", id="TIFF to be turned"),
    ],
)
def test_what_is_no_picture(hostile: Hostile, tmp_path: Path, name: str, content: bytes, word: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert str(path) in hostile.refused(lambda: read_image(sample(path)), word)
    assert str(path) in hostile.refused(lambda: read_mask(sample(path, path)), word)


def test_no_file_at_all(hostile: Hostile, tmp_path: Path) -> None:
    hostile.refused(lambda: read_image(sample(tmp_path / "none.png")), "no such file")
    hostile.refused(lambda: read_image(sample(tmp_path)), "cannot be read")
    (tmp_path / "loop.png").symlink_to("loop.png")
    hostile.refused(lambda: read_image(sample(tmp_path / "loop.png")), "cannot be read")
    hostile.refused(lambda: read_image(sample(Path("a\x00.png"))), "cannot be read")


def _same(found: np.ndarray) -> bool:
    return np.array_equal(found, PIXELS)


def _grey(found: np.ndarray) -> bool:
    return np.array_equal(found, np.repeat(GREY[..., None], 3, axis=2))


def _near(found: np.ndarray) -> bool:
    return found.shape == PIXELS.shape


WIDE = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        pytest.param("a.jpg", PNG, _same, id="PNG called JPEG"),
        pytest.param("a.png", encoded(RGB, "BMP"), _same, id="BMP called PNG"),
        pytest.param("a.png", encoded(RGB, "TIFF"), _same, id="TIFF called PNG"),
        pytest.param("a.png", PNG + b"\x00" * 999, _same, id="bytes behind the end"),
        pytest.param("a.png", of(GREY), _grey, id="grey"),
        pytest.param("a.png", of(WIDE), _grey, id="16-bit PNG"),
        pytest.param("a.tif", of(WIDE, format_="TIFF"), _grey, id="16-bit TIFF"),
        pytest.param("a.ppm", encoded(RGB, "PPM"), _same, id="PPM"),
        pytest.param("a.pgm", of(GREY, format_="PPM"), _grey, id="PGM"),
        pytest.param("a.pgm", b"P5 8 6 65535\n" + WIDE.astype(">u2").tobytes(), _grey, id="16-bit PGM"),
        pytest.param("a.png", encoded(RGB.convert("RGBA"), "PNG"), _same, id="RGBA"),
        pytest.param("a.png", of(PIXELS, GREY), _same, id="translucent"),
        pytest.param("a.png", of(GREY, GREY[::-1], mode="LA"), _grey, id="LA"),
        pytest.param("a.png", encoded(RGB.quantize(48), "PNG"), _same, id="palette"),
        pytest.param("a.png", encoded(RGB.quantize(48), "PNG", transparency=0), _same, id="transparent palette"),
        pytest.param("a.png", encoded(RGB.convert("1"), "PNG"), _near, id="1 bit"),
        pytest.param("a.jpg", encoded(RGB.convert("CMYK"), "JPEG"), _near, id="CMYK JPEG"),
        pytest.param("a.tif", encoded(RGB.convert("CMYK"), "TIFF"), _near, id="CMYK TIFF"),
        pytest.param("a.tif", encoded(RGB.convert("YCbCr"), "TIFF"), _near, id="YCbCr TIFF"),
        pytest.param("a.tif", encoded(Image.new("LAB", (8, 6)), "TIFF"), _near, id="LAB TIFF"),
        pytest.param("a.jpg", encoded(RGB, "JPEG", progressive=True), _near, id="progressive JPEG"),
        pytest.param(
            "a.jpg",
            encoded(FRAMES[0], "MPO", save_all=True, append_images=FRAMES[1:]),
            _near,
            id="JPEG with a preview",
        ),
        pytest.param("a.png", encoded(RGB, "PNG", exif=EXIF), _same, id="PNG turned by EXIF"),
        pytest.param("a.jpg", encoded(RGB, "JPEG", exif=EXIF), _near, id="JPEG turned by EXIF"),
        pytest.param("a.webp", encoded(RGB, "WEBP", exif=EXIF, lossless=True), _same, id="WebP turned by EXIF"),
    ],
)
def test_odd_but_right(
    hostile: Hostile, tmp_path: Path, name: str, content: bytes, right: Callable[[np.ndarray], bool]
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    found = hostile.handled(lambda: read_image(sample(path)))
    assert found.dtype == np.uint8
    assert right(found)


MARKS = np.zeros((6, 8), np.uint8)
MARKS[2:4, 3:6] = 1


@pytest.mark.parametrize(
    ("content", "threshold"),
    [
        pytest.param(of(MARKS), 0, id="marked with 1"),
        pytest.param(of(MARKS.astype(np.uint16)), 0, id="16 bits marked with 1"),
        pytest.param(of(MARKS * np.uint16(255)), 0, id="16 bits marked with 255"),
        pytest.param(of(MARKS * np.uint16(65535)), 254, id="16 bits"),
        pytest.param(of(MARKS.astype(bool)), 254, id="1 bit"),
        pytest.param(of(0 * MARKS, 0 * MARKS, MARKS), 0, id="faint blue"),
        pytest.param(of(*[MARKS * 255] * 3, MARKS * 0 + 9), 254, id="translucent"),
        pytest.param(of(MARKS * 255, MARKS * 0 + 9, mode="LA"), 254, id="LA"),
        pytest.param(encoded(Image.fromarray(MARKS * 255).convert("P"), "PNG"), 254, id="palette"),
    ],
)
def test_masks_mark_what_is_not_black(hostile: Hostile, tmp_path: Path, content: bytes, threshold: int) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(content)
    found = hostile.handled(lambda: read_mask(sample(path, path, threshold)))
    assert np.array_equal(found, MARKS > 0)


def test_the_check_names_each_file_and_notes_what_is_turned(hostile: Hostile, tmp_path: Path) -> None:
    folder = category(tmp_path, "part", {"bad": 3})
    RGB.save(folder / "train/good/000.png", exif=EXIF)
    RGB.save(folder / "test/good/000.png", exif=EXIF)
    (folder / "test/good/001.png").write_bytes(png(60_000, 60_000))
    (folder / "test/bad/000.png").write_bytes(b"")
    Image.new("L", (4, 4)).save(folder / "ground_truth/bad/001_mask.png")
    Image.new("L", (8, 8)).save(folder / "ground_truth/bad/002_mask.png")
    findings = hostile.handled(lambda: check_content(Catalogue(Folder(tmp_path, Folder.Config()))))
    told = {finding.path: (finding.level, finding.message) for finding in findings}
    assert {path for path, (level, _) in told.items() if level == "error"} == {
        "part/test/good/001", "part/test/bad/000", "part/test/bad/001", "part/test/bad/002"
    }  # fmt: skip
    (note,) = (message for level, message in told.values() if level == "note")
    assert "EXIF orientation is ignored" in note and "2 images" in note
    result = hostile.command("data", "check", "folder", "--data-root", tmp_path, exit_code=1)
    assert "4 errors" in result.output


def _soft(path: Path, values: tuple[int, ...]) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[2, : len(values)] = values
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("values", "options", "noted"),
    [
        ((255, 255), "folder", False),
        ((1, 1), "folder", False),
        ((3, 255), "folder", True),
        ((120, 255, 248), "folder", True),
        ((3, 255), "folder[mask_threshold=127]", False),
    ],
)
def test_grey_masks_are_noted(
    hostile: Hostile, tmp_path: Path, values: tuple[int, ...], options: str, noted: bool
) -> None:
    folder = category(tmp_path, "part", {"bad": 3})
    for number in (1, 2):
        _soft(folder / f"ground_truth/bad/00{number}_mask.png", values)
    catalogue = open_catalogue(parse_spec(options), tmp_path)
    findings = hostile.handled(lambda: check_content(catalogue))
    assert [finding.path for finding in findings] == ["part/test/bad/001"] * noted
    for finding in findings:
        assert finding.level == "note"
        assert "(2 images)" in finding.message and "folder[mask_threshold=127]" in finding.message


def test_a_run_says_what_is_turned_once_per_content(hostile: Hostile, tmp_path: Path) -> None:
    for name in ("bolt", "nut"):
        RGB.save(category(tmp_path / "root", name) / "train/good/000.png", exif=EXIF)
    run = ["run", "--methods", "clip", "--encoder", "pocket/clip", "--dry-run", "--store", tmp_path / "store"]
    result = hostile.command(*run, "--dataset", "folder", "--data-root", tmp_path / "root", exit_code=0)
    assert "note: folder: bolt/train/good/000: its EXIF orientation is ignored" in result.stderr


@given(place=st.integers(0, len(PNG) - 1), value=st.integers(0, 255))
def test_a_png_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG[:place] + bytes([value]) + PNG[place + 1 :])
    hostile.either(lambda: read_image(sample(path)))


TIFF = encoded(RGB, "TIFF", compression="tiff_lzw")


@given(place=st.integers(0, len(TIFF) - 1), value=st.integers(0, 255))
def test_a_tiff_with_a_wrong_byte(hostile: Hostile, tmp_path: Path, place: int, value: int) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(TIFF[:place] + bytes([value]) + TIFF[place + 1 :])
    hostile.either(lambda: read_image(sample(path)))


@given(end=st.integers(0, len(JPEG)), rest=st.binary(max_size=40))
def test_a_jpeg_that_goes_on_otherwise(hostile: Hostile, tmp_path: Path, end: int, rest: bytes) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG[:end] + rest)
    hostile.either(lambda: read_image(sample(path)))
