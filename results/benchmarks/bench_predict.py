"""Images per second of ``bench predict`` beside anomalib's ``Engine.predict``, with the same model in one run.

    python results/benchmarks/bench_predict.py --images DIR --normals DIR --weights FILE

Both have PaDiM on the same backbone, fitted on the same normal pictures. The fit is timed apart on anomalib's
side; it is part of ours, which fits a few-shot model each time it is used. Both give an anomaly map for every
picture; ours is also timed with its files, pictures and page. The fastest of alternating rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import bench

LAYERS = ["blocks.1", "blocks.2", "blocks.4"]
FEATURES = 100  # of those layers, drawn at random


def photographs(folder: Path, number: int, into: Path) -> list[Path]:
    """``number`` pictures made of those in a folder: turned and mirrored copies, so that no two are alike."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".png", ".jpg"))
    made = []
    for index in range(number):
        with Image.open(files[index % len(files)]) as image:
            copy = image.convert("RGB").rotate(index // len(files))
        path = into / f"{index:03}.jpg"
        copy.save(path, quality=95)
        made.append(path)
    return made


def anomalib_model(backbone_file: Path) -> Any:
    """PaDiM with the layers and sizes that ours has, and weights from a file."""
    from anomalib.models import Padim

    from bench.encoders import identify, load_network
    from bench.methods.anomalib import run

    network = load_network(identify("timm/mobilenetv2_100", backbone_file))
    with run.building("anomalib/padim", network):
        return Padim(backbone="mobilenetv2_100", layers=LAYERS, n_features=FEATURES, visualizer=False)


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="Pictures to copy photographs from.")
    parser.add_argument("--normals", type=Path, required=True, help="Normal pictures of the same thing.")
    parser.add_argument("--weights", type=Path, required=True, help="mobilenetv2_100 in timm's format.")
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")

    from anomalib.data import Folder, PredictDataset
    from anomalib.engine import Engine

    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "photos").mkdir()
        photos = photographs(given.images, given.number, folder / "photos")
        detector = bench.fit(
            f"anomalib/padim[layers={'+'.join(LAYERS)},n_features={FEATURES}]",
            backbone="timm/mobilenetv2_100",
            weights={"backbone": given.weights},
        )
        engine = Engine(default_root_dir=folder / "anomalib", accelerator="cpu", devices=1, logger=False)
        model = anomalib_model(given.weights)
        sizes = {"train_batch_size": 32, "eval_batch_size": 32, "num_workers": 0}
        # Its data module wants pictures to validate on, too; two of each are enough.
        shutil.copytree(given.normals, folder / "good")
        for name in ("bad", "good_test"):
            (folder / name).mkdir()
            for photo in photos[:2]:
                shutil.copy(photo, folder / name)
        folders = {"normal_dir": "good", "abnormal_dir": "bad", "normal_test_dir": "good_test"}
        data = Folder("normals", root=folder, val_split_mode="same_as_test", **folders, **sizes)
        fitting = timed(lambda: engine.fit(model, datamodule=data))

        def theirs() -> None:
            engine.predict(model, dataset=PredictDataset(folder / "photos", image_size=(256, 256)))

        def ours() -> None:
            detector.predict(photos, normals=given.normals)

        def ours_of_one() -> None:
            detector.predict(photos[:1], normals=given.normals)

        def ours_with_files() -> None:
            detector.predict(photos, normals=given.normals).save(folder / "out")

        sides = {
            "anomalib Engine.predict": theirs,
            "bench predict": ours,
            "bench predict --output": ours_with_files,
            "bench predict of one": ours_of_one,
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(given.rounds + 1):
            for name, call in sides.items():
                seconds[name].append(timed(call))
        best = {name: min(each[1:]) for name, each in seconds.items()}  # other work on the machine only adds
        rest = best["bench predict"] - best["bench predict of one"]
        found = {
            "images": given.number,
            "images_per_second": {
                "anomalib Engine.predict": round(given.number / best["anomalib Engine.predict"], 2),
                "bench predict, with its fit": round(given.number / best["bench predict"], 2),
                "bench predict, beyond its fit and first picture": round((given.number - 1) / rest, 2),
                "bench predict --output, with its fit": round(given.number / best["bench predict --output"], 2),
            },
            "seconds": {name: [round(s, 2) for s in each[1:]] for name, each in seconds.items()},
            "anomalib_fit_seconds": round(fitting, 2),
            "normals": len(list(given.normals.iterdir())),
            "cores": os.cpu_count(),
            "numpy": np.__version__,
        }
        print(json.dumps(found, indent=1))
        if given.out:
            given.out.write_text(json.dumps(found, indent=1) + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
