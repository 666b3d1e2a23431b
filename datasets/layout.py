"""Reading datasets from folders: MVTec AD's layout, and what every loader of files needs.

The layout (Bergmann et al., MVTec AD, CVPR 2019)::

    <root>/<category>/train/good/NNN.png
    <root>/<category>/test/good/NNN.png
    <root>/<category>/test/<type>/NNN.png
    <root>/<category>/ground_truth/<type>/NNN_mask.png

Only names are read here, never pixels. Whatever is odd becomes a :class:`~bench.contracts.Finding`.
"""

from __future__ import annotations

import functools
import os
import stat
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from bench.contracts import GOOD, Finding, Sample
from bench.errors import BenchError, printable, unknown
from bench.tools.files import name_fault
from bench.tools.spec import ADDED

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")  # lossless: JPEG would smear a mask's edge
MASK_ENDINGS = ("_mask", "", "_gt", "_label")  # the mask of 000.png is 000_mask.png (MVTec AD), or 000.png, ...
# What macOS and Windows leave in folders and archives.
_STRAYS = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db")
_ARCHIVES = (".7z", ".zip", ".rar", ".tar", ".gz", ".tgz", ".xz", ".bz2")


@dataclass(frozen=True)
class Tree:
    """The content of a folder: images sorted by id, and findings."""

    samples: tuple[Sample, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class CategoryConfig:
    """Options of datasets of which a part can be taken.

    Attributes:
        categories: the only ones that are there, so that some can be learned from and others tested on; empty for
            all.
    """

    categories: tuple[str, ...] = field(default=(), metadata=ADDED)


class FileDataset(ABC):
    """A dataset that is read from files once, when it is first asked for something.

    Args:
        root: the folder of the files.
        config: an instance of the class's ``Config``.
    """

    name: ClassVar[str]

    def __init__(self, root: Path | None, config: Any) -> None:
        if root is None:
            raise BenchError(f"the dataset {self.name!r} needs the folder of its files: --data-root DIR")
        self.root = Path(os.path.abspath(root))
        self.config = config

    @abstractmethod
    def _read(self) -> Tree: ...

    @functools.cached_property
    def _tree(self) -> Tree:
        tree = self._read()
        chosen = getattr(self.config, "categories", ())
        if not chosen:
            return tree
        known = {sample.category for sample in tree.samples}
        for category in chosen:
            if category not in known:
                raise unknown("category", category, known, f"of {self.name}")
        samples = tuple(sample for sample in tree.samples if sample.category in chosen)
        # Nothing is to be said of the others.
        findings = tuple(f for f in tree.findings if f.path.partition("/")[0] not in known - set(chosen))
        return Tree(samples, findings)

    def samples(self) -> tuple[Sample, ...]:
        """All images, sorted by id.

        Raises:
            BenchError: the root is not this dataset.
        """
        return self._tree.samples

    def check(self) -> list[Finding]:
        """The findings about the files' layout, errors first."""
        try:
            findings = self._tree.findings
        except BenchError as error:
            return [Finding("error", ".", str(error))]
        return sorted(set(findings), key=lambda finding: (finding.level, finding.path, finding.message))


# ---------------------------------------------------------------- listing folders


class Scan:
    """Lists folders below a root and collects findings.

    Symbolic links are followed, out of the root too: a category may lie on another disk, and the files of a
    download cache are all links. One that leads nowhere, or round in a circle, is an error and is not listed.
    Names that begin with a dot are passed over. What operating systems leave behind is counted in one note.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.findings: list[Finding] = []
        self._strays: dict[Path, None] = {}

    def entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """The folders and the regular files in ``folder``, each sorted by name."""
        folders: list[Path] = []
        files: list[Path] = []
        try:
            with os.scandir(folder) as iterator:
                found = sorted(iterator, key=lambda entry: entry.name)
        except OSError as error:
            self.error(folder, f"this folder cannot be read: {error.strerror or error}")
            return folders, files
        for entry in found:
            path = folder / entry.name
            if is_stray(entry.name):
                self._strays.setdefault(path)
                continue
            if entry.name.startswith(".") or not self._usable(entry, path):
                continue
            try:
                if entry.is_dir():
                    folders.append(path)
                elif entry.is_file():
                    files.append(path)
                else:
                    self.error(path, "neither a file nor a folder")
            except OSError as error:
                self.error(path, f"cannot be read: {error.strerror or error}")
        return folders, files

    def images(self, folder: Path) -> list[Path]:
        """The images in a folder that should hold nothing else, sorted by name."""
        folders, files = self.entries(folder)
        for path in folders:
            if any(map(is_image, self.entries(path)[1])):
                self.error(path, "misplaced: a folder of images inside a folder of images; ignored")
            else:
                self.note(path, "a folder inside a folder of images; ignored")
        for file in files:
            if not is_image(file):
                self.note(file, f"not an image ({', '.join(IMAGE_SUFFIXES)}); ignored")
        return [file for file in files if is_image(file)]

    def _usable(self, entry: os.DirEntry[str], path: Path) -> bool:
        if fault := name_fault(entry.name):
            self.error(path, fault)
            return False
        if not entry.is_symlink():
            return True
        try:
            target = os.path.realpath(path, strict=True)
        except FileNotFoundError:
            self.error(path, f"a link to something that does not exist ({printable(os.readlink(path))})")
            return False
        except (OSError, RuntimeError):
            self.error(path, "a link that leads round in a circle or cannot be followed")
            return False
        if Path(os.path.realpath(path.parent)).is_relative_to(target):
            self.error(path, "a link to a folder that holds it leads round in a circle")
            return False
        return True

    def told(self) -> tuple[Finding, ...]:
        """The findings so far, with the note of what operating systems left behind."""
        if not self._strays:
            return tuple(self.findings)
        first, *others = self._strays
        more = f", and {len(others):,} more" if others else ""
        name = first.relative_to(self.root).as_posix()
        message = f"left behind by an operating system (__MACOSX, ._*, Thumbs.db and the like){more}; ignored"
        return (*self.findings, Finding("note", printable(name), message))

    def error(self, path: Path, message: str) -> None:
        self._add("error", path, message)

    def note(self, path: Path, message: str) -> None:
        self._add("note", path, message)

    def _add(self, level: Literal["error", "note"], path: Path, message: str) -> None:
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        self.findings.append(Finding(level, printable(name), message))


def text(name: str) -> str:
    """A file name as text that is the same on every system (macOS decomposes accented letters)."""
    return unicodedata.normalize("NFC", name)


def is_stray(name: str) -> bool:
    """True for files and folders that macOS and Windows leave behind; ``._000.png`` is no image."""
    return name.startswith("._") or name.lower() in _STRAYS


def is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES


def open_root(root: Path, title: str) -> Scan:
    """A scan of ``root``.

    Raises:
        BenchError: it does not exist, is no folder, or cannot be read.
    """
    try:
        mode = root.stat().st_mode
        if stat.S_ISDIR(mode):
            os.listdir(root)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise BenchError(
            f"the data root {root} does not exist; --data-root takes the folder that holds {title}"
        ) from None
    except OSError as error:
        raise BenchError(f"the data root {root} cannot be read: {error.strerror or error}") from None
    if not stat.S_ISDIR(mode):
        hint = "; unpack it first" if root.suffix.lower() in _ARCHIVES else ""
        raise BenchError(f"the data root {root} is not a folder that holds {title}, but a file{hint}")
    return Scan(root)


def wrong_root(title: str, root: Path, expected: str, parts: Callable[[Path], Collection[str]]) -> BenchError:
    """The error for a root that is not the dataset: what was expected, what was found, where it may be.

    Args:
        parts: the names in a folder by which the dataset is recognised; none if the folder is not it.
    """
    folders, files = Scan(root).entries(root)
    names = [path.name + "/" for path in folders] + [path.name for path in files]
    found = ", ".join(printable(name) for name in names[:8])
    if len(names) > 8:
        found += f" and {len(names) - 8} more"
    message = f"{root} is not {title}. Expected {expected}; found {found or 'nothing'}."
    right = next((folder for folder in folders[:200] if _safely(parts, folder)), None)
    for below, above in ((root, root.parent), (root.parent, root.parent.parent)):
        if right is None and below.name in _safely(parts, above):
            right = above
    if right is not None:
        return BenchError(f"{message} Did you mean {right}?")
    archives = [path.name for path in files if path.suffix.lower() in _ARCHIVES]
    return BenchError(f"{message} Unpack {archives[0]} first?" if archives else message)


def _safely(parts: Callable[[Path], Collection[str]], folder: Path) -> Collection[str]:
    try:
        return parts(folder)
    except OSError:
        return ()


# ---------------------------------------------------------------- MVTec AD's layout


def is_category(folder: Path) -> bool:
    """True if ``folder`` holds ``train`` or ``test``."""
    return (folder / "train").is_dir() or (folder / "test").is_dir()


def read_tree(
    root: Path,
    title: str,
    *,
    official: Collection[str] = (),
    strict: bool = True,
    good: Sequence[str] = (),
    mask_threshold: int = 0,
) -> Tree:
    """Read a folder in MVTec AD's layout.

    Args:
        root: the folder that holds the categories.
        title: the dataset's name in messages.
        official: the names that categories may have; empty means any name.
        strict: a category needs ``train/good``, ``test/good`` and an anomaly, and every anomaly a mask: it is an
            error otherwise. If not strict, what lacks is noted, and images that lack a mask have none.
        good: names of folders with images that have no anomaly, beside ``good`` itself.
        mask_threshold: see :class:`~bench.contracts.Sample`.

    Raises:
        BenchError: there is no category.
    """

    def parts(folder: Path) -> list[str]:
        names = official or sorted(os.listdir(folder))
        return [name for name in names if is_category(folder / name)]

    scan = open_root(root, title)
    folders, files = scan.entries(root)
    if official:
        categories = [folder for folder in folders if folder.name in official]
        for folder in folders:
            if folder.name not in official and is_category(folder):
                scan.note(folder, f"not a category of {title}; ignored (the dataset 'folder' reads any name)")
    else:
        categories = [folder for folder in folders if is_category(folder)]
        for folder in folders:
            if folder not in categories:
                scan.note(folder, "not a category, which has train or test in it; ignored")
    if not any(is_category(folder) for folder in categories):
        names = f"folders named after its categories ({', '.join(official)})" if official else "category folders"
        problem = wrong_root(title, root, f"{names}, each with train/good, test and ground_truth", parts)
        # A category may be there and out of reach: a broken link, a folder that cannot be read.
        unusable = [finding for finding in scan.findings if finding.level == "error"]
        if not unusable:
            raise problem
        said = "; ".join(f"{finding.path}: {finding.message}" for finding in unusable[:3])
        raise BenchError(f"{problem} Not usable: {said}.")
    for folder in categories:
        if "," in folder.name:
            scan.note(folder, "a comma in its name: --categories cannot name it, nor a trial's command repeat it")
    for file in files:
        if is_image(file):
            scan.note(file, "an image outside of the categories; ignored")
    reader = _CategoryReader(scan, frozenset({GOOD, *good}), strict, mask_threshold)
    for folder in categories:
        reader.read(folder)
    return tree_of(scan, reader.samples)


def tree_of(scan: Scan, found: Iterable[Sample]) -> Tree:
    """The images found, sorted by id, and what the scan has told; a second image of one id is an error."""
    samples: dict[str, Sample] = {}
    for sample in found:
        if samples.setdefault(sample.id, sample) is not sample:
            scan.error(sample.image, f"a second image called {sample.id}, by a name that only looks different")
    return Tree(tuple(samples[key] for key in sorted(samples)), scan.told())


@dataclass
class _CategoryReader:
    scan: Scan
    good: frozenset[str]
    strict: bool
    mask_threshold: int
    samples: list[Sample] = field(default_factory=list)

    def read(self, folder: Path) -> None:
        """Read one category folder."""
        before = len(self.samples)
        known = self._folders(folder, expected=("train", "test", "ground_truth"))
        category = text(folder.name)
        if "train" in known:
            self._train(known["train"], category)
        else:
            self._lack(folder / "train", "this folder is missing")
        if "test" in known:
            self._test(known["test"], category, known.get("ground_truth"), folder)
        else:
            self._lack(folder / "test", "this folder is missing")
        new = self.samples[before:]
        if not new:
            self.scan.error(folder, "this category has no image that can be used")
            return
        name = "/".join(sorted(self.good))
        if "train" in known and not any(sample.split == "train" for sample in new):
            self._lack(known["train"], f"no image in train/{name}: nothing to train on")
        if "test" in known and not any(s.split == "test" and not s.anomalous for s in new):
            self._lack(known["test"], f"no image in test/{name}: nothing to tell anomalies from")
        if "test" in known and not any(sample.anomalous for sample in new):
            self._lack(known["test"], "no image of an anomaly: nothing to detect")

    def _lack(self, path: Path, message: str) -> None:
        (self.scan.error if self.strict else self.scan.note)(path, message)

    def _folders(self, folder: Path, expected: Collection[str] | None) -> dict[str, Path]:
        """The folders in ``folder``; images that lie beside them and folders not expected are reported."""
        folders, files = self.scan.entries(folder)
        for file in files:
            if is_image(file):
                self.scan.error(file, "misplaced: images belong one folder deeper (…/good or …/<type>)")
        for path in folders:
            if expected is not None and path.name not in expected:
                self.scan.note(path, "not part of the layout; ignored")
        return {path.name: path for path in folders if expected is None or path.name in expected}

    def _train(self, folder: Path, category: str) -> None:
        for name, path in self._folders(folder, expected=None).items():
            if name in self.good:
                self._list(path, category, "train", GOOD, {})
            else:
                self.scan.error(path, f"misplaced: train holds {'/'.join(sorted(self.good))} only; ignored")

    def _test(self, folder: Path, category: str, truth: Path | None, parent: Path) -> None:
        types = self._folders(folder, expected=None)
        masks = self._folders(truth, expected=None) if truth is not None else {}
        if self.strict and truth is None and any(name not in self.good for name in types):
            self.scan.error(parent / "ground_truth", "this folder is missing: no anomaly has a mask")
        for name, path in types.items():
            if name in self.good:
                self._list(path, category, "test", GOOD, {})
                if name in masks and any(map(is_image, self.scan.entries(masks[name])[1])):
                    self.scan.note(masks[name], "masks of good images; ignored")
            else:
                found = self._masks(masks[name]) if name in masks else {}
                if not self._list(path, category, "test", text(name), found):
                    self.scan.note(path, "no image in this folder; ignored")
                for mask in found.values():
                    self.scan.error(mask, f"a mask without its image in test/{printable(name)}")
        for name, path in masks.items():
            if name not in types:
                for mask in self._masks(path).values():
                    self.scan.error(mask, f"a mask without its image: there is no test/{printable(name)}")

    def _masks(self, folder: Path) -> dict[str, Path]:
        """Masks by stem."""
        masks: dict[str, Path] = {}
        for file in self.scan.images(folder):
            if file.suffix.lower() not in MASK_SUFFIXES:
                self.scan.error(file, f"a mask must be lossless ({', '.join(MASK_SUFFIXES)}); ignored")
            elif text(file.stem) in masks:
                self.scan.error(file, f"a second mask of this name beside {masks[text(file.stem)].name}")
            else:
                masks[text(file.stem)] = file
        return masks

    def _list(
        self, folder: Path, category: str, split: Literal["train", "test"], type_: str, masks: dict[str, Path]
    ) -> bool:
        """Append the images of one folder; takes the masks that they use out of ``masks``."""
        files = self.scan.images(folder)
        stems = {text(file.stem) for file in files}
        seen: set[str] = set()
        for file in files:
            name = text(file.stem)
            if any(
                ending and name.endswith(ending) and name.removesuffix(ending) in stems for ending in MASK_ENDINGS
            ):
                self.scan.error(file, "misplaced: a mask among the images; it belongs into ground_truth")
                continue
            if name in seen:
                self.scan.error(file, "a second image of this name (the suffix alone differs)")
                name = text(file.name)
            seen.add(name)
            mask = None
            if type_ != GOOD:
                mask = _take_mask(masks, name)
                # Otherwise the catalogue notes once for each category how many lack one.
                if mask is None and self.strict:
                    where = f"ground_truth/{printable(folder.name)}"
                    self.scan.error(file, f"an anomaly without a mask: no {name}_mask.png in {where}")
            self.samples.append(
                Sample(
                    id=f"{category}/{split}/{text(folder.name)}/{name}",
                    category=category,
                    split=split,
                    type=type_,
                    image=file,
                    masks=() if mask is None else (mask,),
                    mask_threshold=self.mask_threshold,
                )
            )
        return bool(files)


def _take_mask(masks: dict[str, Path], name: str) -> Path | None:
    """The mask of the image called ``name``, which is taken out of ``masks``; None if there is none."""
    for ending in MASK_ENDINGS:
        if name + ending in masks:
            return masks.pop(name + ending)
    return None


def subset_note(counts: Iterable[tuple[str, int, int]]) -> str:
    """``30 of 209 train/good`` for each part that has fewer or more images than the official dataset."""
    return ", ".join(f"{have:,} of {want:,} {what}" for what, have, want in counts if have != want)
