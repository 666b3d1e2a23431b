"""Writes small trees in the official layout of each published dataset, with the irregularities of the releases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from trees import category, mask, picture

# A mask's own pixels that are marked: rows 2 to 4, columns 2 to 4 (see trees.mask).
MARKED = 9


def ids_mask(path: Path, ids: Sequence[int], size: tuple[int, int] = (8, 8)) -> Path:
    """A grey mask of small numbers: the first marks row 2, the second row 3, ..., each two pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    for row, number in enumerate(ids, 2):
        pixels[row, 2:4] = number
    Image.fromarray(pixels).save(path)
    return path


def palette_mask(path: Path, indices: np.ndarray, colours: Sequence[int]) -> Path:
    """A palette image of ``(H, W)`` indices; each index stands for a grey colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("P", (indices.shape[1], indices.shape[0]))
    image.putdata(indices.ravel().tolist())
    # All 256 entries: of a BMP with two, black and white, Pillow makes something else.
    image.putpalette([value for colour in (*colours, *[0] * (256 - len(colours))) for value in (colour,) * 3])
    image.save(path)
    return path


def strays(folder: Path) -> None:
    """What operating systems leave in a folder."""
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "._000.png", "._000.JPG"):
        (folder / name).write_bytes(b"x")


VISA_TYPES: Mapping[str, Sequence[tuple[str, Sequence[int]]]] = {
    "capsules": [("bubble", [1]), ("scratch,discolor", [2, 3]), ("leak", [4])],
    "pcb1": [("bent", [1]), ("melt", [2])],
}


def visa(root: Path) -> Path:
    """Raw: stems used twice, .JPG, CRLF, quoted lists of types, masks of ids, rows of what is not there."""
    rows = ["object,split,label,image,mask"]
    for name, anomalies in VISA_TYPES.items():
        images = root / name / "Data" / "Images"
        anno = ["image,label,mask"]
        digits = 3 if name == "capsules" else 4
        for index in range(5):
            file = picture(images / "Normal" / f"{index:0{digits}d}.JPG", value=60 + index, mode="RGB")
            relative = file.relative_to(root).as_posix()
            rows.append(f"{name},{'train' if index < 3 else 'test'},normal,{relative},")
            anno.append(f"{relative},normal,")
        for index, (label, numbers) in enumerate(anomalies):
            file = picture(images / "Anomaly" / f"{index:03d}.JPG", value=120 + index, mode="RGB")
            drawn = ids_mask(root / name / "Data" / "Masks" / "Anomaly" / f"{index:03d}.png", numbers)
            both = f"{file.relative_to(root).as_posix()}", f"{drawn.relative_to(root).as_posix()}"
            rows.append(f"{name},test,anomaly,{both[0]},{both[1]}")
            anno.append(f'{both[0]},"{label}",{both[1]}')
        (root / name / "image_anno.csv").write_text("\n".join(anno) + "\n")
        strays(images / "Normal")
    rows.append("candle,train,normal,candle/Data/Images/Normal/0000.JPG,")
    rows.append("capsules,test,normal,capsules/Data/Images/Normal/059.JPG,")
    table = root / "split_csv" / "1cls.csv"
    table.parent.mkdir(parents=True)
    table.write_bytes("\r\n".join([*rows, ""]).encode())
    moved = "anomaly,capsules/Data/Images/Anomaly/000"
    few = [row.replace(f",test,{moved}", f",train,{moved}") for row in rows]
    (root / "split_csv" / "2cls_fewshot.csv").write_bytes("\r\n".join([*few, ""]).encode())
    return root


def visa_meta(root: Path) -> Path:
    """Raw, with the meta.json of public repositories in place of split_csv."""
    visa(root)
    (root / "split_csv" / "1cls.csv").unlink()
    (root / "split_csv" / "2cls_fewshot.csv").unlink()
    (root / "split_csv").rmdir()
    content: dict[str, dict[str, list[dict[str, object]]]] = {"train": {}, "test": {}}
    for name in VISA_TYPES:
        for file in sorted((root / name / "Data" / "Images").rglob("*.JPG")):
            if file.name.startswith("."):
                continue
            bad = file.parent.name == "Anomaly"
            drawn = f"{name}/Data/Masks/Anomaly/{file.stem}.png" if bad else ""
            part = "test" if bad or int(file.stem) >= 3 else "train"
            content[part].setdefault(name, []).append(
                {
                    "img_path": file.relative_to(root).as_posix(),
                    "mask_path": drawn,
                    "cls_name": name,
                    "specie_name": "",
                    "anomaly": int(bad),
                }
            )
    (root / "meta.json").write_text(json.dumps(content))
    return root


def visa_converted(root: Path) -> Path:
    """``1cls/<category>``, masks 0/255 without _mask, and three channels as anomalib writes them."""
    for name in VISA_TYPES:
        category(root / "1cls", name, {"bad": 3}, suffix=".JPG", mask_name="{}.png")
        mask(root / "1cls" / name / "ground_truth" / "bad" / "000.png", mode="RGB")
    return root


def ksdd(root: Path) -> Path:
    """Palette masks, one with three indices; kos21 with 7 parts; sizes that differ; kos26 a copy of kos01."""
    for item, parts in (("kos01", 8), ("kos20", 8), ("kos21", 7), ("kos26", 8)):
        for part in range(parts):
            height = 30 + part  # no multiple of 3 for most
            value = 60 + part if item in ("kos01", "kos26") else 90 + part + int(item[3:])
            picture(root / item / f"Part{part}.jpg", (20, height), value=value)
            label = root / item / f"Part{part}_label.bmp"
            if part != 5:
                mask(label, (20, height), ())
                continue
            indices = np.zeros((height, 20), int)
            indices[2:4, 5:9] = 1  # in the upper third alone
            if item == "kos20":
                indices[2:4, 5:9] = 2
                indices[2, 5] = 1
            palette_mask(label, indices, (0, 85, 255) if item == "kos20" else (0, 255))
    return root


def ksdd2(root: Path) -> Path:
    """Sizes that differ, masks for all, the copies of the archive, and its pickles."""
    for split, first in (("train", 10000), ("test", 20000)):
        for index in range(5):
            size = (9, 20 + index)
            picture(root / split / f"{first + index}.png", size, value=60 + 5 * index, mode="RGB")
            mask(root / split / f"{first + index}_GT.png", size, ((2, 3, 255),) if index == 4 else ())
    picture(root / "train" / "10001 (copy).png", (9, 21))
    mask(root / "train" / "10001_GT (copy).png", (9, 21), ())
    (root / "split_weakly_0.pyb").write_bytes(b"no pickle is read")
    strays(root / "test")
    return root


def btad(root: Path) -> Path:
    """``ok`` and ``ko`` of one name, BMP and PNG by product, no 0027 in 01/test/ko, a set that is not square."""
    for name, image, drawn, size in (
        ("01", ".bmp", ".png", (8, 8)),
        ("02", ".png", ".png", (8, 8)),
        ("03", ".bmp", ".bmp", (12, 9)),
    ):
        for index in range(3):
            picture(root / name / "train" / "ok" / f"{index:04d}{image}", size, value=60 + index)
            picture(root / name / "test" / "ok" / f"{index:04d}{image}", size, value=80 + index)
        for index in (0, 1, 28):
            picture(root / name / "test" / "ko" / f"{index:04d}{image}", size, value=120 + index)
            mask(root / name / "ground_truth" / "ko" / f"{index:04d}{drawn}", size)
    mask(root / "01" / "ground_truth" / "ko" / "0027.png")
    (root / "README.txt").write_text("x")
    return root


def mpdd(root: Path) -> Path:
    category(root, "bracket_black", {"hole": 2, "scratches": 1})
    category(root, "tubes", {"anomalous": 2})
    stray = root / "__MACOSX" / "bracket_black" / "test" / "hole" / "._001.png"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"x")
    return root


def dtd_synthetic(root: Path) -> Path:
    """Woven_068 has test images that are called mesh_000.png."""
    category(root, "Woven_001", {"bad": 2})
    folder = category(root, "Woven_068", {"bad": 2})
    for file in sorted((folder / "test" / "good").iterdir()):
        file.rename(file.with_name(f"mesh_{file.name}"))
    return root


def goodsad(root: Path) -> Path:
    category(root, "drink_can", {"surface_damage": 2, "opened": 1}, suffix=".jpg", mask_name="{}.png")
    return root


def dagm(root: Path) -> Path:
    """The same numbers in both parts, .PNG, labels for defective images alone, Labels.txt and Thumbs.db."""
    for number in (1, 10):
        for part, value in (("Train", 60), ("Test", 110)):
            folder = root / f"Class{number}" / part
            for index in range(1, 6):
                picture(folder / f"{index:04d}.PNG", value=value + 7 * index + number)
            mask(folder / "Label" / "0003_label.PNG")
            (folder / "Label" / "Labels.txt").write_text("1\t0\n")
            (folder / "Thumbs.db").write_bytes(b"x")
            (folder / "Label" / "Thumbs.db").write_bytes(b"x")
    return root


def mvtec_ad2(root: Path) -> Path:
    """Ground truth inside test_public, names with the light, private parts without labels."""
    folder = root / "can"
    for light, value in (("regular", 80), ("overexposed", 140)):
        picture(folder / "train" / "good" / f"000_{light}.png", value=value)
        picture(folder / "validation" / "good" / f"000_{light}.png", value=value + 1)
        picture(folder / "test_public" / "good" / f"000_{light}.png", value=value + 2)
        picture(folder / "test_public" / "bad" / f"000_{light}.png", value=value + 3)
        mask(folder / "test_public" / "ground_truth" / "bad" / f"000_{light}_mask.png")
        picture(folder / "test_private" / f"000_{light}.png", value=value + 4)
        picture(folder / "test_private_mixed" / f"000_{light}.png", value=value + 5)
    return root


def mvtec_loco(root: Path) -> Path:
    """A folder of masks for each image, whose values are their defects' numbers."""
    folder = root / "screw_bag"
    for index in range(2):
        picture(folder / "train" / "good" / f"{index:03d}.png", value=70 + index)
        picture(folder / "validation" / "good" / f"{index:03d}.png", value=75 + index)
        picture(folder / "test" / "good" / f"{index:03d}.png", value=80 + index)
        for kind, value in (("logical_anomalies", 100), ("structural_anomalies", 120)):
            picture(folder / "test" / kind / f"{index:03d}.png", value=value + index)
            truth = folder / "ground_truth" / kind / f"{index:03d}"
            mask(truth / "000.png", marks=((1, 1, 236),))
            if kind == "logical_anomalies":
                mask(truth / "001.png", marks=((5, 2, 3),))
    (folder / "defects_config.json").write_text("[]")
    return root


def mvtec_3d(root: Path) -> Path:
    """Masks of good images, too; depth beside the colour images."""
    for split, types in (("train", ["good"]), ("validation", ["good"]), ("test", ["good", "hole"])):
        for type_ in types:
            folder = root / "bagel" / split / type_
            for index in range(2):
                picture(folder / "rgb" / f"{index:03d}.png", value=60 + index + 9 * len(split) + 3 * len(type_))
                (folder / "xyz").mkdir(parents=True, exist_ok=True)
                (folder / "xyz" / f"{index:03d}.tiff").write_bytes(b"depth is not read")
                mask(folder / "gt" / f"{index:03d}.png", marks=((2, 3, 255),) if type_ == "hole" else ())
    return root


def real_iad(root: Path) -> Path:
    """Lists of one and of all views, at two resolutions; a view without the defect; noisy training."""
    for size in ("256", "1024"):
        for specimen, kind in (("S0001", "OK"), ("S0002", "OK"), ("S0003", "OK"), ("S0004", "NG/AK")):
            for view in (1, 2):
                stem = f"toy_{specimen[1:]}_{kind.replace('/', '_')}_C{view}_20230920"
                folder = root / f"realiad_{size}" / "toy" / kind / specimen
                picture(folder / f"{stem}.jpg", value=50 + 20 * int(specimen[4]) + view, mode="RGB")
                if kind != "OK" and view == 1:
                    mask(folder / f"{stem}_mask.png")

    def entry(specimen: str, kind: str, view: int) -> dict[str, object]:
        stem = f"{kind}/{specimen}/toy_{specimen[1:]}_{kind.replace('/', '_')}_C{view}_20230920"
        seen = kind != "OK" and view == 1
        drawn = f"{stem}_mask.png" if seen else ("" if view == 1 else None)
        return {"category": "toy", "anomaly_class": kind.partition("/")[2] or "OK", "image_path": f"{stem}.jpg",
                "mask_path": drawn}  # fmt: skip

    def write(folder: Path, train: list[tuple[str, str]], views: Sequence[int]) -> None:
        folder.mkdir(parents=True)
        test = [pair for pair in (("S0003", "OK"), ("S0004", "NG/AK")) if pair not in train]
        content = {
            "meta": {"normal_class": "OK", "prefix": "toy/"},
            "train": [entry(specimen, kind, view) for specimen, kind in train for view in views],
            "test": [entry(specimen, kind, view) for specimen, kind in test for view in views],
        }
        (folder / "toy.json").write_text(json.dumps(content))

    normal = [("S0001", "OK"), ("S0002", "OK")]
    write(root / "realiad_jsons" / "realiad_jsons", normal, (1, 2))
    write(root / "realiad_jsons" / "realiad_jsons_sv", normal, (1,))
    write(root / "realiad_jsons" / "realiad_jsons_fuiad_0.1", [*normal, ("S0004", "NG/AK")], (1, 2))
    return root


def headct(root: Path) -> Path:
    """Kaggle's: a list of labels whose header has blanks, sizes that differ."""
    lines = ["id, hemorrhage"]
    for index in range(4):
        picture(root / "head_ct" / "head_ct" / f"{index:03d}.png", (8 + index, 9), value=60 + index)
        lines.append(f"{index},{int(index < 2)}")
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


def brainmri(root: Path) -> Path:
    """Suffixes .jpg, .JPG, .jpeg and .png, names with blanks, one stem with two suffixes."""
    for name, value in (("1 no.jpeg", 60), ("N 2.JPG", 61), ("no 3.jpg", 62), ("no 3.png", 63)):
        picture(root / "no" / name, value=value)
    for name, value in (("Y1.jpg", 100), ("Y 2.JPG", 101)):
        picture(root / "yes" / name, (9, 11), value=value)
    return root


def br35h(root: Path) -> Path:
    for index in range(2):
        picture(root / "no" / f"no{index}.jpg", value=60 + index)
        picture(root / "yes" / f"y{index}.jpg", value=90 + index)
        picture(root / "pred" / f"pred{index}.jpg", value=120 + index)
    return root


def isic(root: Path) -> Path:
    for index in (3, 20):
        stem, size = f"ISIC_{index:07d}", (10 + index, 9)
        picture(root / "ISBI2016_ISIC_Part1_Test_Data" / f"{stem}.jpg", size, value=60 + index, mode="RGB")
        mask(root / "ISBI2016_ISIC_Part1_Test_GroundTruth" / f"{stem}_Segmentation.png", size)
    return root


def pairs(images: str, masks: str, image_suffix: str, mask_suffix: str) -> Callable[[Path], Path]:
    """A writer of a folder of images and one of their masks; JPEG masks are large, so that edges are smeared."""

    def write(root: Path) -> Path:
        for index in (1, 2):
            picture(root / images / f"{index}{image_suffix}", (32, 32), value=60 + index, mode="RGB")
            mask(root / masks / f"{index}{mask_suffix}", (32, 32), ((5, 10, 255),))
        return root

    return write


TREES: Mapping[str, Callable[[Path], Path]] = {
    "br35h": br35h,
    "brainmri": brainmri,
    "btad": btad,
    "clinicdb": pairs("images", "masks", ".png", ".png"),
    "colondb": pairs("images", "masks", ".png", ".png"),
    "cvc300": pairs("images", "masks", ".png", ".png"),
    "dagm": dagm,
    "dtd_synthetic": dtd_synthetic,
    "endo": pairs("images", "masks", ".jpg", ".jpg"),
    "goodsad": goodsad,
    "headct": headct,
    "isic": isic,
    "ksdd": ksdd,
    "ksdd2": ksdd2,
    "kvasir": pairs("images", "masks", ".jpg", ".jpg"),
    "mpdd": mpdd,
    "mvtec_3d": mvtec_3d,
    "mvtec_ad2": mvtec_ad2,
    "mvtec_loco": mvtec_loco,
    "real_iad[size=256]": real_iad,
    "tn3k": pairs("test-image", "test-mask", ".jpg", ".jpg"),
    "visa": visa,
}
