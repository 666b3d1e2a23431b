"""Lists of images: formats, and every way in which a list and the files differ."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import picture

from bench.datasets.layout import Scan
from bench.datasets.manifest import Listing, read_manifest
from bench.errors import BenchError


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_csv_with_a_byte_order_mark_crlf_quotes_and_empty_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", '\ufeffimage , label\r\na.png,"bent,melt"\r\n\r\nb.png,\r\n')
    rows = read_manifest(file, ("image", "label"))
    assert [(row.text("image"), row.text("label"), row.place) for row in rows] == [
        ("a.png", "bent,melt", "a.csv, line 2"),
        ("b.png", "", "a.csv, line 4"),
    ]


def test_json_of_objects_of_lists_and_json_lines(tmp_path: Path) -> None:
    entries = {"train": {"cup": [{"image": "a.png"}]}, "test": [{"image": "b.png"}], "meta": {"prefix": "x"}}
    file = write(tmp_path / "a.json", json.dumps(entries))
    rows = read_manifest(file, ("image",), ("train", "test"))
    assert [(row.text("image"), row.keys) for row in rows] == [("a.png", ("train", "cup")), ("b.png", ("test",))]
    assert rows[0].place == "a.json, train/cup, entry 0"
    lines = write(tmp_path / "a.jsonl", '{"image": "a.png", "label": null}\n\n{"image": 3}\n')
    assert [(row.text("image"), row.text("label")) for row in read_manifest(lines, ("image",))] == [
        ("a.png", ""),
        ("3", ""),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.csv",
            "image,label\na.png\nb.png,1,2\n",
            "line 2: 1 fields, the header has 2; a.csv, line 3: 3",
        ),
        ("a.csv", "picture\na.png\n", "line 2: no image; found picture"),
        ("a.csv", "", "lists nothing"),
        ("a.csv", 'image\n"a.png\n', "unexpected end of data"),
        ("a.json", "{", "no JSON"),
        ("a.json", '{"train": 3}', "neither a list of entries"),
        ("a.json", "[3]", "entry 0: no object"),
        ("a.json", "[" * 100_000, "no JSON"),
        ("a.jsonl", '{"image": 1}\n[]\n{', "line 2: no object with fields; a.jsonl, line 3: no JSON"),
        ("a.txt", "a.png", "a list of images is .csv"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(BenchError) as caught:
        read_manifest(write(tmp_path / name, text), ("image",))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        read_manifest(tmp_path / "a.csv", ())
    (tmp_path / "a.csv").write_bytes(b"image\n\xff\xfe\n")
    with pytest.raises(BenchError, match="not UTF-8"):
        read_manifest(tmp_path / "a.csv", ())


def test_every_difference_from_the_files_is_told_at_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("in/a.png", "in/b.png", "in/unlisted.png", "in/c.png"):
        picture(root / name)
    picture(tmp_path / "outside.png")
    written = [
        "in/a.png", "in/./a.png", "in/gone.png", "../outside.png", str(tmp_path / "outside.png"), "",
        str(root / "in/b.png"), "in\\c.png", "in/a\0.png",
    ]  # fmt: skip
    file = write(tmp_path / "a.json", json.dumps([{"image": path, "mask": "in/m.png"} for path in written]))
    scan = Scan(root)
    listing = Listing(scan, root)
    rows = read_manifest(file, ("image",))
    found = [listing.image(row, "image") for row in rows]
    assert [path and path.name for path in found] == ["a.png", *[None] * 5, "b.png", "c.png", None]
    assert listing.mask(rows[0], "mask") == ()
    listing.finish([root / "in"])
    said = {(f.level, f.path): f.message for f in scan.findings}
    messages = " | ".join(f"{f.level}: {f.path}: {f.message}" for f in scan.findings)
    assert "listed twice: a.json, entry 0, and a.json, entry 1" in said["error", "in/a.png"]
    assert "1 image is listed and missing: in/gone.png (a.json, entry 2)" in messages
    assert messages.count("lies outside of") == 2
    assert "entry 5: image is empty" in messages
    assert "is no path" in messages
    assert said["error", "in/m.png"] == "a mask that is listed and missing (a.json, entry 0)"
    assert said["note", "in"] == "1 there and not listed; ignored: unlisted.png"
    assert len(scan.findings) == 8


def test_missing_images_of_a_part_are_left_to_the_dataset(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "image\n" + "".join(f"{i}.png\n" for i in range(9)))
    listing = Listing(scan := Scan(tmp_path), tmp_path, partial=True)
    for row in read_manifest(file, ("image",)):
        assert listing.image(row, "image") is None
    listing.finish()
    assert scan.findings == []
    assert len(listing.missing) == 9


def test_many_missing_images_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "image\n" + "".join(f"{i}.png\n" for i in range(1200)))
    listing = Listing(scan := Scan(tmp_path), tmp_path)
    for row in read_manifest(file, ("image",)):
        listing.image(row, "image")
    listing.finish()
    (finding,) = scan.findings
    assert finding.message.startswith("1,200 images are listed and missing: 0.png (a.csv, line 2); ")
    assert finding.message.endswith("and 1,195 more")
