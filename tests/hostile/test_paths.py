"""Folders of images: links that climb or go round, odd names, and what is no folder at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hostile import Hostile
from hypothesis import given
from trees import aitex, category, mask, picture

from bench.contracts import Finding
from bench.data.catalogue import Catalogue, open_catalogue
from bench.datasets.aitex import Aitex
from bench.datasets.folder import Folder
from bench.datasets.mvtec import MVTec
from bench.errors import printable
from bench.store.store import Store
from bench.study.plan import check_data
from bench.tools.spec import parse_spec

KIND = "folders, links and names of files"


def tree(root: Path) -> Path:
    category(root, "bolt")
    category(root, "nut")
    return root


def errors(root: Path) -> dict[str, str]:
    found: list[Finding] = check_data(Catalogue(Folder(root, Folder.Config())))
    return {finding.path: finding.message for finding in found if finding.level == "error"}


def _outside(root: Path) -> Path:
    outside = root.parent / "outside"
    category(outside, "secret")
    return outside


def _category_out(root: Path) -> None:
    (root / "plate").symlink_to(_outside(root) / "secret")


def _images_out(root: Path) -> None:
    (root / "bolt/test/more").symlink_to(_outside(root) / "secret/test/crack")


def _file_out(root: Path) -> None:
    (root / "bolt/train/good/9.png").symlink_to(_outside(root) / "secret/train/good/000.png")


def _mask_out(root: Path) -> None:
    _outside(root)
    target = root / "bolt/ground_truth/crack/000_mask.png"
    target.unlink()
    target.symlink_to("../../../../outside/secret/ground_truth/crack/000_mask.png")


def _passwd(root: Path) -> None:
    (root / "bolt/train/good/9.png").symlink_to("/etc/passwd")


def _device(root: Path) -> None:
    (root / "bolt/train/good/9.png").symlink_to("/dev/zero")


def _itself(root: Path) -> None:
    (root / "bolt/train/good/9.png").symlink_to("9.png")


def _each_other(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")


def _up(root: Path) -> None:
    (root / "bolt/test/up").symlink_to(root)


def _nowhere(root: Path) -> None:
    (root / "bolt/train/good/9.png").symlink_to("nothing.png")


def _pipe(root: Path) -> None:
    os.mkfifo(root / "bolt/train/good/9.png")


def _folder_as_file(root: Path) -> None:
    (root / "bolt/ground_truth/crack/000_mask.png").unlink()
    (root / "bolt/ground_truth/crack/000_mask.png").mkdir()


def _file_as_folder(root: Path) -> None:
    (root / "plate/train").mkdir(parents=True)
    (root / "plate/train/good").write_bytes(b"")


def _bytes(root: Path) -> None:
    picture(root / "bolt/train/good/9.png").rename(os.fsdecode(os.fsencode(root) + b"/bolt/train/good/\xff.png"))


def _line_break(root: Path) -> None:
    picture(root / "bolt/train/good/a\nb.png")


def _escape(root: Path) -> None:
    category(root, "\x1b[31mred")


def _two_spellings(root: Path) -> None:
    picture(root / "bolt/train/good/\u00e9.png")
    picture(root / "bolt/train/good/e\u0301.png")


def _suffixes(root: Path) -> None:
    picture(root / "bolt/train/good/000.bmp")


def _mask_of_nothing(root: Path) -> None:
    mask(root / "bolt/ground_truth/crack/999_mask.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(_passwd, ("bolt/train/good/9", "cannot be read as an image"), id="a system file"),
        pytest.param(_device, ("9.png", "neither a file nor a folder"), id="an endless device"),
        pytest.param(_itself, ("9.png", "circle"), id="a link to itself"),
        pytest.param(_each_other, ("a", "circle"), id="links to each other"),
        pytest.param(_nowhere, ("9.png", "does not exist"), id="a link to nothing"),
        pytest.param(_up, ("up", "circle"), id="a link to a folder that holds it"),
        pytest.param(_pipe, ("9.png", "neither a file nor a folder"), id="a pipe"),
        pytest.param(_file_as_folder, ("plate", "no image that can be used"), id="a file called like a folder"),
        pytest.param(_bytes, (r"\udcff.png", "Unicode"), id="a name that is no text"),
        pytest.param(_line_break, (r"a\nb.png", "control character"), id="a line break in a name"),
        pytest.param(_escape, (r"\x1b[31mred", "control character"), id="an escape sequence in a name"),
        pytest.param(_two_spellings, (".png", "a second image"), id="two spellings of one name"),
        pytest.param(_suffixes, ("000.png", "a second image"), id="one name with two suffixes"),
        pytest.param(_mask_of_nothing, ("999_mask.png", "without its image"), id="a mask of nothing"),
    ],
)
def test_each_is_named_and_stops_a_study(
    hostile: Hostile, tmp_path: Path, spoil: Callable[[Path], None], words: tuple[str, str]
) -> None:
    root = tree(tmp_path / "root")
    spoil(root)
    found = hostile.handled(lambda: errors(root))
    path, message = words
    assert any(name.endswith(path) and message in text for name, text in found.items()), found
    assert all(name.isprintable() for name in found)
    run = ["run", "--methods", "clip", "--encoder", "pocket/clip", "--dry-run", "--store", tmp_path / "store"]
    result = hostile.command(*run, "--dataset", "folder", "--data-root", root)
    assert "nothing was run" in result.stderr


@pytest.mark.parametrize(
    ("link", "images"),
    [
        pytest.param(_category_out, 21, id="a category out of the root"),
        pytest.param(_images_out, 16, id="a folder of images out of it"),
        pytest.param(_file_out, 15, id="an image out of it"),
        pytest.param(_mask_out, 14, id="a mask out of it"),
    ],
)
def test_links_out_of_the_root_are_followed(
    hostile: Hostile, tmp_path: Path, link: Callable[[Path], None], images: int
) -> None:
    root = tree(tmp_path / "root")
    link(root)
    assert hostile.handled(lambda: errors(root)) == {}
    assert len(Folder(root, Folder.Config()).samples()) == images


def test_files_that_are_all_links_are_the_same_data(hostile: Hostile, tmp_path: Path) -> None:
    plain = tree(tmp_path / "plain")
    for file in sorted(plain.rglob("*.png")):
        place = tmp_path / "cache" / hashlib.sha256(str(file).encode()).hexdigest()
        place.parent.mkdir(exist_ok=True)
        shutil.copy(file, place)
        link = tmp_path / "linked" / file.relative_to(plain)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(place)
    catalogues = [Catalogue(Folder(tmp_path / name, Folder.Config())) for name in ("plain", "linked")]
    one, other = hostile.handled(lambda: [catalogue.fingerprint for catalogue in catalogues])
    assert one == other
    assert catalogues[0].samples.keys() == catalogues[1].samples.keys()


def test_a_folder_called_like_a_mask_is_no_mask(hostile: Hostile, tmp_path: Path) -> None:
    root = tree(tmp_path / "root")
    _folder_as_file(root)
    found = hostile.handled(lambda: check_data(Catalogue(Folder(root, Folder.Config()))))
    told = {(finding.level, finding.path): finding.message for finding in found}
    assert told.keys() == {("note", "bolt/ground_truth/crack/000_mask.png"), ("note", "bolt")}
    assert "1 of 2 anomalous images has no mask" in told["note", "bolt"]


def test_why_there_is_no_image(hostile: Hostile, tmp_path: Path) -> None:
    picture(tmp_path / "root/bolt/test/good/rgb/000.png")
    Path(tmp_path / "root/bolt/test/good/000.xcf").write_bytes(b"")
    dataset = Folder(tmp_path / "root", Folder.Config())
    message = hostile.refused(
        lambda: Catalogue(dataset).samples, "no image that can be used", "bolt/test/good/rgb"
    )
    assert "a folder of images inside a folder of images" in message
    result = hostile.command("data", "check", "folder", "--data-root", tmp_path / "root")
    assert "note: bolt/test/good/000.xcf: not an image (.png" in result.stdout


def _loop(root: Path) -> None:
    (root / "bolt/test/crack/up").symlink_to(root)


def _many_loops(root: Path) -> None:
    for number in range(50):
        (root / f"link{number}").symlink_to(root)
        (root / f"bolt/link{number}").symlink_to(root)


def _deep(root: Path) -> None:
    deep = root / "bolt"
    for _ in range(200):
        deep = deep / "train"
    deep.mkdir(parents=True)


def _crowd(root: Path) -> None:
    for number in range(3000):
        (root / f"bolt/notes{number}.txt").write_bytes(b"")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(_loop, id="a link up"),
        pytest.param(_many_loops, id="a hundred links up"),
        pytest.param(_deep, id="200 folders deep"),
        pytest.param(_crowd, id="3000 other files"),
    ],
)
def test_no_walk_is_endless(hostile: Hostile, tmp_path: Path, odd: Callable[[Path], None]) -> None:
    root = tree(tmp_path / "root")
    odd(root)
    hostile.either(lambda: errors(root))
    samples = hostile.handled(lambda: Folder(root, Folder.Config()).samples())
    assert {sample.category for sample in samples} == {"bolt", "nut"}


def _linked(root: Path) -> Path:
    (root.parent / "link").symlink_to(root)
    return root.parent / "link"


def _linked_twice(root: Path) -> Path:
    (root.parent / "again").symlink_to(_linked(root))
    return root.parent / "again"


def _dots(root: Path) -> Path:
    return root / ".." / "root" / "bolt" / ".."


@pytest.mark.parametrize("lead", [_linked, _linked_twice, _dots])
def test_a_root_that_is_a_link_is_a_root(hostile: Hostile, tmp_path: Path, lead: Callable[[Path], Path]) -> None:
    root = tree(tmp_path / "root")
    way = lead(root)
    assert hostile.handled(lambda: errors(way)) == {}
    assert len(hostile.handled(lambda: Folder(way, Folder.Config()).samples())) == 14


def test_roots_that_are_none(hostile: Hostile, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", "file", "loop", "empty", "pipe", "x" * 300):
        for dataset in ("folder", "mvtec", "aitex"):
            hostile.command("data", "check", dataset, "--data-root", tmp_path / name)
    for cls in (Folder, MVTec, Aitex):
        hostile.refused(lambda cls=cls: cls(Path("a\x00b"), cls.Config()).samples())  # type: ignore[misc]


@pytest.mark.parametrize(
    "name",
    ["..", "../bolt", "/etc", "bolt/..", "bolt\x00", "", "x" * 5000, "Bolt", "bolt,nut;", "*", "\x1b[2J"],
)
def test_categories_that_climb_are_unknown(hostile: Hostile, tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "root")
    catalogue = open_catalogue(parse_spec("folder"), root)
    assert name not in catalogue.categories
    data = ["--dataset", "folder", "--data-root", root]
    hostile.command("split", *data, "--category", name)


NAMES = (
    *("steel plate", "$x^2$ & 50%_#", "\\input{x}", "<b>", "螺丝 Стекло", "=1+1", "a|b", "x..", "-rf", "%s{0}"),
    *("'\"`", "x" * 200, "CON", "résistance", "a\\b", "train", "good"),
)


@pytest.mark.parametrize("name", NAMES)
def test_categories_of_any_name_are_run(hostile: Hostile, tmp_path: Path, name: str) -> None:
    root = tree(tmp_path / "root")
    category(root, name, {name: 1})
    run = ["run", "--dataset", "folder", "--data-root", root, "--methods", "clip", "--encoder", "pocket/clip"]
    run += ["--dry-run", "--store", tmp_path / "store"]
    result = hostile.command(*run, "--categories", name, exit_code=0)
    assert f"clip[encoder=pocket/clip] · {name}" in result.stdout
    assert not [path for path in Store(tmp_path / "store").root.rglob("*") if name in path.name]


def test_aitex_is_no_walk_either(hostile: Hostile, tmp_path: Path) -> None:
    root = aitex(tmp_path / "aitex", free=1)
    (root / "Defect_images/up").symlink_to(root)
    (root / "NODefect_images/2311694-2040n7u/up").symlink_to(root)
    (root / "Mask_images/0004_002_01_mask.png").unlink()
    (root / "Mask_images/0004_002_01_mask.png").symlink_to("/dev/zero")
    (root / "Defect_images/0004_002_01.png").write_bytes(b"")
    found = hostile.handled(lambda: Aitex(root, Aitex.Config()).check())
    assert any("neither a file nor a folder" in finding.message for finding in found)
    hostile.command("data", "check", "aitex", "--data-root", root, exit_code=1)


def test_a_comma_in_a_category_is_noted(hostile: Hostile, tmp_path: Path) -> None:
    category(tree(tmp_path / "root"), "a,b")
    found = hostile.handled(lambda: Folder(tmp_path / "root", Folder.Config()).check())
    assert [(finding.level, finding.path) for finding in found] == [("note", "a,b")]


@given(name=st.text(st.characters(exclude_characters="/\x00", codec="utf-8"), min_size=1, max_size=30))
def test_any_name_of_a_file(hostile: Hostile, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    if not root.exists():
        tree(root)
    path = root / "bolt/train/good" / f"{name}.png"
    if path.exists() or len(os.fsencode(path.name)) > 255:
        return
    shutil.copy(root / "bolt/train/good/000.png", path)
    found = hostile.handled(lambda: Folder(root, Folder.Config()).check())
    path.unlink()
    assert all(printable(finding.path) == finding.path for finding in found)
    hidden, controls = name.startswith("."), any(unicodedata.category(c) == "Cc" for c in name)
    assert [finding.level for finding in found] == ["error"] * (controls and not hidden)
