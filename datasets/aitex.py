"""AITEX (AFID) as its archives unpack: strips of fabric, 4096 x 256 pixels, cut into patches of 256 x 256.

Silvestre-Blanes, Albero-Albero, Miralles, Perez-Llorens, Moreno: "A Public Fabric Database for Defect
Detection Methods and Results", AUTEX Research Journal 19(4), 2019; https://www.aitex.es/afid/. The patches
follow ``data/convert_AITEX.py`` of Choubo/DRA, which DevNet, AHL and InCTRL use too.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.contracts import GOOD, DatasetTraits, Finding, Prompts, Sample
from bench.datasets.layout import FileDataset, Scan, Tree, is_image, open_root, subset_note, wrong_root
from bench.errors import BenchError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIZE = 256  # side of a patch, and height of a strip
WIDTH = 4096  # of a strip; 0094_027_05 is 3796 wide
ONE = "AITEX"  # the category that is all of AITEX

# Defect code -> the folder name that DRA's script gives it.
DEFECTS = {
    "002": "Broken_end",
    "006": "Broken_yarn",
    "010": "Broken_pick",
    "016": "Weft_curling",
    "019": "Fuzzyball",
    "022": "Cut_selvage",
    "023": "Crease",
    "025": "Warp_ball",
    "027": "Knots",
    "029": "Contamination",
    "030": "Nep",
    "036": "Weft_crack",
}

# Fabric code -> the folder of its defect-free strips.
FABRICS = {
    "00": "2311694-2040n7u",
    "01": "2608691-202020u",
    "02": "2306894-210033u",
    "03": "2311694-1930c7u",
    "04": "2311517-195063u",
    "05": "2306881-210020u",
    "06": "2311980-185026u",
}

# Strips of the published archives that cannot be used. (Further irregularities need no table: 0044_019_04 and
# 0097_030_03 have two masks each, 0094_027_05 is narrower, 0018_00_01 is a defect-free strip whose code has
# two digits, and some files have an alpha channel.)
_NO_MASK = {"0100_025_08": "it has no mask, and an eighth fabric code that no defect-free strip has"}
_EMPTY_MASK = {"0106_010_03": "its mask is all zero"}

# How many files the published archives hold.
_ARCHIVES = {"defective strips": 106, "defect-free strips": 141, "masks": 107}

_PARTS = ("Defect_images", "Mask_images", "NODefect_images")
_STRIP = re.compile(r"([0-9]+)_([0-9]+)_([0-9]{2})")
_MASK = re.compile(r"(.+)_mask[0-9]*")
_SPLIT_SEED = 42
_THREADS = 8

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class _Strip:
    """One file of ``Defect_images`` or ``NODefect_images``."""

    file: Path
    type: str
    fabric: str
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Cut:
    """The patches of a strip that are kept, as boxes.

    ``None`` in place of a box is the whole strip: a file that cannot be cut, left for the engine to report.
    """

    boxes: tuple[Box | None, ...] = ()
    size: tuple[int, int] = (WIDTH, SIZE)
    mask_max: int = 0
    blank: int = 0


@dataclass
class _Files:
    """The strips that can be used, and how many files of each kind there are."""

    strips: list[_Strip] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_ARCHIVES, 0))


@dataclass(frozen=True)
class AitexConfig:
    """Options.

    Attributes:
        classes: ``fabric``: the seven fabrics ``00`` to ``06`` are the categories, for leaving one out.
            ``one``: all of AITEX is the category ``AITEX``, as DRA prepares it; the target when training
            on MVTec AD.
        split: which defect-free patches are for training. ``strip``: three in four strips of each fabric,
            chosen by a hash of the strip's name, so that no strip is on both sides. ``patch``: three in
            four patches, whatever their strip, as DRA's script splits them. That is **leaky** (adjoining
            patches of one strip are on both sides) and is meant for comparison with the literature only;
            DRA's own draw also depends on the order in which the file system lists the files, so the very
            same patches cannot be had.
        drop_blank: leave out patches that are mostly flat white padding (a standard deviation below 1, or
            more than half of the pixels at 254 or above), good and anomalous ones alike. DRA's script
            does no such thing.
        mask_threshold: mask pixels above this value (0..254) are anomalous, and a patch of a defective
            strip is kept if it has such a pixel. The masks are anti-aliased, and 127 is the middle of
            their range. 0 is DRA's rule, with which the published archives give 185 anomalous patches
            instead of 184 (183 without the two strips that have two masks, on which DRA's script stops);
            it also takes in the faint rims of the defects.
    """

    classes: Literal["fabric", "one"] = "fabric"
    split: Literal["strip", "patch"] = "strip"
    drop_blank: bool = False
    mask_threshold: int = 127

    def __post_init__(self) -> None:
        if not 0 <= self.mask_threshold <= 254:
            raise ValueError("mask_threshold must be from 0 to 254")


class Aitex(FileDataset):
    """AITEX, from the folders ``Defect_images``, ``Mask_images`` and ``NODefect_images``.

    A defective strip gives the patches that its mask touches, all of them for testing; its other patches are
    discarded. A defect-free strip gives all its patches. Two masks of one strip are united. Strips without a
    usable mask (0100_025_08, 0106_010_03) are left out.
    """

    name: ClassVar[str] = "aitex"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="AITEX",
        source="Silvestre-Blanes et al., AUTEX Research Journal 19(4), 2019",
        citation="Silvestre-Blanes, Albero-Albero, Miralles, Perez-Llorens, Moreno: A Public Fabric Database for "
        "Defect Detection Methods and Results, AUTEX Research Journal 19(4), 2019",
        page="https://www.aitex.es/afid/",
        released="2019",
        files=_ARCHIVES,
        folders=("AITEX", "aitex", "AFID"),
    )
    Config: ClassVar[type[Any]] = AitexConfig

    def prompts(self) -> Mapping[str, Prompts]:
        """The prompts of the categories; fabrics have codes and no names, so all share one."""
        from bench.data.prompts import load_prompts

        names = [ONE] if self.config.classes == "one" else list(FABRICS)
        shipped = load_prompts(None, self.name)
        return {name: shipped[name] for name in names}

    def subset(self) -> str:
        """The numbers of files that differ from the published ones, in words; empty if none does."""
        self.samples()
        return self._difference

    def _read(self) -> Tree:
        scan = open_root(self.root, self.traits.title)
        files = self._find(scan)
        with ThreadPoolExecutor(_THREADS) as pool:
            cuts = dict(zip(files.strips, pool.map(self._cut, files.strips), strict=True))
        self._report(scan, cuts)
        train = self._for_training(cuts)
        samples: dict[str, Sample] = {}
        for strip, cut in cuts.items():
            for box, is_train in zip(cut.boxes, train[strip], strict=True):
                sample = self._sample(strip, box, is_train)
                if sample.id in samples:
                    scan.error(strip.file, f"a second strip of this name beside {samples[sample.id].group}")
                    break
                samples[sample.id] = sample
        self._difference = subset_note((what, files.counts[what], n) for what, n in _ARCHIVES.items())
        if self._difference:
            scan.findings.append(Finding("note", ".", f"not the published archives: {self._difference}"))
        return Tree(tuple(samples[key] for key in sorted(samples)), scan.told())

    def _sample(self, strip: _Strip, box: Box | None, is_train: bool) -> Sample:
        split: Literal["train", "test"] = "train" if is_train else "test"
        category = ONE if self.config.classes == "one" else strip.fabric
        patch = "" if box is None else f"_{box[0] // SIZE:02d}"
        return Sample(
            id=f"{category}/{split}/{strip.type}/{strip.file.stem}{patch}",
            category=category,
            split=split,
            type=strip.type,
            image=strip.file,
            masks=strip.masks,
            box=box,
            group=strip.file.relative_to(self.root).with_suffix("").as_posix(),
            mask_threshold=self.config.mask_threshold,
        )

    # ------------------------------------------------------------ files

    def _find(self, scan: Scan) -> _Files:
        folders, loose = scan.entries(self.root)
        by_name: dict[str, Path] = {}
        for folder in folders:
            if by_name.setdefault(folder.name.casefold(), folder) != folder:
                scan.error(folder, f"a second folder of this name beside {by_name[folder.name.casefold()].name}")
        defect, mask, free = (by_name.get(name.casefold()) for name in _PARTS)
        if defect is None and free is None:
            expected = "the folders Defect_images, Mask_images and NODefect_images"
            raise wrong_root(self.traits.title, self.root, expected, _parts)
        for name in _PARTS:
            if name.casefold() not in by_name:
                scan.error(self.root / name, "this folder is missing")
        for file in filter(is_image, loose):
            scan.error(file, "misplaced: an image beside the folders of AITEX; ignored")
        files = _Files()
        masks = self._masks(scan, mask) if mask is not None else {}
        files.counts["masks"] = sum(map(len, masks.values()))
        if defect is not None:
            self._defective(scan, defect, masks, files)
        if free is not None:
            self._free(scan, free, files)
        return files

    def _defective(self, scan: Scan, folder: Path, masks: Mapping[str, tuple[Path, ...]], files: _Files) -> None:
        images = scan.images(folder)
        files.counts["defective strips"] = len(images)
        for strip in self._strips(scan, images):
            if strip.type == GOOD:
                scan.error(strip.file, "misplaced: a defect-free strip (code 000) in Defect_images; ignored")
            else:
                files.strips.append(replace(strip, masks=masks.get(strip.file.stem, ())))
        stems = {file.stem for file in images}
        for stem, paths in masks.items():
            for path in paths if stem not in stems else ():
                scan.error(path, f"a mask without its image Defect_images/{stem}.png")

    def _free(self, scan: Scan, folder: Path, files: _Files) -> None:
        directories, loose = scan.entries(folder)
        for file in filter(is_image, loose):
            scan.error(file, "misplaced: defect-free strips lie in one folder per fabric; ignored")
        fabric_of = {name: code for code, name in FABRICS.items()}
        strips = []
        for directory in directories:
            known = fabric_of.get(directory.name.casefold())
            if known is None:
                scan.note(directory, "not a known fabric's folder; the file names say which fabric it is")
            images = scan.images(directory)
            files.counts["defect-free strips"] += len(images)
            for strip in self._strips(scan, images):
                if strip.type != GOOD:
                    scan.error(strip.file, "misplaced: a defect code in NODefect_images; ignored")
                elif known is not None and strip.fabric != known:
                    place = f"fabric {strip.fabric} by its name, in the folder of fabric {known}"
                    scan.error(strip.file, f"misplaced: {place}; ignored")
                else:
                    strips.append(strip)
        for code, name in FABRICS.items():
            if not any(strip.fabric == code for strip in strips):
                scan.note(folder / name, f"no defect-free strip of fabric {code}")
        files.strips += strips

    def _masks(self, scan: Scan, folder: Path) -> dict[str, tuple[Path, ...]]:
        masks: dict[str, tuple[Path, ...]] = {}
        for file in scan.images(folder):
            match = _MASK.fullmatch(file.stem)
            if match is None:
                scan.error(file, "not named like a mask (nnnn_ddd_ff_mask.png); ignored")
            else:
                masks[match[1]] = (*masks.get(match[1], ()), file)
        for stem, paths in masks.items():
            if len(paths) > 1:
                scan.note(paths[0], f"strip {stem} has {len(paths)} masks; they are united")
        return masks

    def _strips(self, scan: Scan, files: Iterable[Path]) -> list[_Strip]:
        strips: dict[str, _Strip] = {}
        for file in files:
            match = _STRIP.fullmatch(file.stem)
            if match is None:
                misplaced = _MASK.fullmatch(file.stem) is not None
                wrong = "misplaced: a mask among the strips" if misplaced else "not named nnnn_ddd_ff.png"
                scan.error(file, f"{wrong}; ignored")
                continue
            _, code, fabric = match.groups()
            if file.stem in _NO_MASK:
                scan.note(file, f"left out: {_NO_MASK[file.stem]}")
            elif int(code) and code not in DEFECTS:
                scan.error(file, f"unknown defect code {code}; ignored. Known: {', '.join(DEFECTS)}")
            elif fabric not in FABRICS:
                scan.error(file, f"unknown fabric code {fabric}; ignored. Known: {', '.join(FABRICS)}")
            elif file.stem in strips:
                scan.error(file, f"a second image of this name beside {strips[file.stem].file.name}; ignored")
            else:
                if not int(code) and code != "000":
                    scan.note(file, f"its defect code is {code}; read as 000, free of defects")
                strips[file.stem] = _Strip(file, DEFECTS[code] if int(code) else GOOD, fabric)
        return list(strips.values())

    # ------------------------------------------------------------ patches

    def _cut(self, strip: _Strip) -> _Cut:
        """The boxes of the patches to keep; reads the masks, and the image where its pixels matter."""
        from bench.data.images import brightest, rgb, size_of

        whole = _Cut(boxes=(None,))
        if strip.type != GOOD and not strip.masks:
            return whole
        try:
            size = size_of(strip.file)
            pixels = rgb(strip.file)[..., 0] if self.config.drop_blank else None  # strips are grey
            masks = [brightest(mask) for mask in strip.masks]
        except BenchError:
            return whole
        width, height = size
        if any(mask.shape != (height, width) for mask in masks):
            return whole
        boxes: list[Box | None] = []
        blank = 0
        for index in range(math.ceil(width / SIZE)):
            left, right = index * SIZE, min((index + 1) * SIZE, width)
            if masks and not any((mask[:, left:right] > self.config.mask_threshold).any() for mask in masks):
                continue
            if pixels is not None and _is_blank(pixels[:, left:right]):
                blank += 1
                continue
            boxes.append((left, 0, right, height))
        return _Cut(tuple(boxes), size, max((int(mask.max()) for mask in masks), default=0), blank)

    def _report(self, scan: Scan, cuts: Mapping[_Strip, _Cut]) -> None:
        threshold = self.config.mask_threshold
        for strip, cut in cuts.items():
            if strip.type != GOOD and not strip.masks:
                mask = f"{strip.file.stem}_mask.png"
                scan.error(strip.file, f"an anomaly without a mask: no {mask} in Mask_images")
            if cut.boxes == (None,):
                continue
            if strip.type != GOOD and cut.mask_max <= threshold:
                if strip.file.stem in _EMPTY_MASK and cut.mask_max == 0:
                    scan.note(strip.file, f"left out: {_EMPTY_MASK[strip.file.stem]}")
                elif cut.mask_max == 0:
                    scan.error(strip.file, f"left out: nothing is marked in {strip.masks[0].name}")
                else:
                    scan.note(strip.file, f"left out: no mask pixel is above mask_threshold={threshold}")
            width, height = cut.size
            if height != SIZE:
                scan.error(strip.file, f"a strip is {SIZE} pixels high, this file is {width} x {height}")
            elif width != WIDTH:
                scan.note(strip.file, f"{width} pixels wide, not {WIDTH}")
        if blank := sum(cut.blank for cut in cuts.values()):
            scan.findings.append(Finding("note", ".", f"drop_blank left out {blank} patches"))
        anomalous = {strip.fabric for strip, cut in cuts.items() if strip.type != GOOD and cut.boxes}
        for code in FABRICS if self.config.classes == "fabric" else ():
            if code not in anomalous:
                message = f"fabric {code} has no anomalous patch: there is nothing to detect in it"
                scan.findings.append(Finding("note", "Defect_images", message))

    def _for_training(self, cuts: Mapping[_Strip, _Cut]) -> dict[_Strip, list[bool]]:
        """Strip -> for each of its patches, True if it is for training."""
        free = [strip for strip in cuts if strip.type == GOOD]
        chosen = {strip: [False] * len(cut.boxes) for strip, cut in cuts.items()}
        if self.config.split == "patch":
            train = iter(_patch_split(sum(len(cuts[strip].boxes) for strip in free)))
            chosen.update({strip: [next(train) for _ in cuts[strip].boxes] for strip in free})
        else:
            test = _strip_split(free)
            chosen.update({strip: [strip not in test] * len(cuts[strip].boxes) for strip in free})
        return chosen


def _parts(folder: Path) -> list[str]:
    """The folders by which AITEX is recognised; its mask folder alone would not do."""
    known = {name.casefold() for name in _PARTS}
    names = [path.name for path in folder.iterdir() if path.name.casefold() in known and path.is_dir()]
    return names if len(names) > 1 else []


def _strip_split(strips: Iterable[_Strip]) -> set[_Strip]:
    """One in four strips of each fabric, for testing; one at least.

    The choice is a rank by hash of the names: it needs no generator and no order, and adding a strip moves
    few of the others.
    """
    by_fabric: dict[str, list[_Strip]] = {}
    for strip in strips:
        by_fabric.setdefault(strip.fabric, []).append(strip)

    def rank(strip: _Strip) -> bytes:
        return hashlib.sha256(f"{_SPLIT_SEED}/{strip.fabric}/{strip.file.stem}".encode()).digest()

    test: set[_Strip] = set()
    for members in by_fabric.values():
        test.update(sorted(members, key=rank)[: max(1, round(len(members) / 4))])
    return test


def _patch_split(n: int) -> list[bool]:
    """For each patch, True if it is for training: scikit-learn's ``train_test_split(0.25, random_state=42)``."""
    import numpy as np

    order = np.random.RandomState(_SPLIT_SEED).permutation(n)
    test = set(order[: math.ceil(0.25 * n)].tolist())
    return [index not in test for index in range(n)]


def _is_blank(pixels: NDArray[np.uint8]) -> bool:
    return bool(pixels.std() < 1 or (pixels >= 254).mean() > 0.5)
