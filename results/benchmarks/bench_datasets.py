"""Time and memory of checking and planning datasets of the size of MVTec AD and of Real-IAD's lists.

    python results/benchmarks/bench_datasets.py [--out FILE.json] [--sets mvtec,real_iad] [--side 900]
                                                [--rows 150000] [--folder DIR]

Writes MVTec AD's layout with as many images as it has, of 900 x 900 pixels (a pattern that compresses well:
files are much smaller than MVTec AD's 700 kB, so that reading costs less than there and decoding about as
much), and Real-IAD's with 30 lists of all views and as many rows in all, of small JPEGs. Then, each in a
process of its own: every file read once as bytes, by one thread; ``bench run --dry-run`` for the first time,
which checks and hashes every file; and again on unchanged data. At last a file of the first set is put in
another's place with the same size and modification time, which must be noticed.

``--folder`` keeps what was made for another run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.datasets.mvtec import OFFICIAL
from bench.tools.hashes import HashBook

OBJECTS = 30
READ = """
import pathlib, sys
for file in sorted(pathlib.Path(sys.argv[1]).rglob("*.*")):
    file.is_file() and file.read_bytes()
"""


def write_mvtec(root: Path, side: int) -> None:
    """Write MVTec AD's layout and numbers of images, no two alike."""
    pattern = np.add.outer(np.arange(side), np.arange(side)) // 8 % 200
    pixels = np.repeat(pattern[..., None], 3, axis=2).astype(np.uint8)
    mark = np.zeros((side, side), np.uint8)
    mark[side // 3 : side // 2, side // 3 : side // 2] = 255
    number = 0

    def image(path: Path, *, mask: Path | None = None) -> None:
        nonlocal number
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels[0, :4, 0] = [number >> shift & 255 for shift in (0, 8, 16, 24)]
        Image.fromarray(pixels).save(path, compress_level=1)
        number += 1
        if mask is not None:
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mark).save(mask, compress_level=1)
            number += 1

    for category, counts in OFFICIAL.items():
        for part, amount in (("train/good", counts.train), ("test/good", counts.normal)):
            for index in range(amount):
                image(root / category / part / f"{index:03d}.png")
        for type_, amount in counts.types.items():
            for index in range(amount):
                mask = root / category / "ground_truth" / type_ / f"{index:03d}_mask.png"
                image(root / category / "test" / type_ / f"{index:03d}.png", mask=mask)


def write_real_iad(root: Path, rows: int, side: int = 24) -> None:
    """Write 30 objects with five views of each specimen and their lists."""
    generator = np.random.default_rng(0)
    mark = np.zeros((side, side), np.uint8)
    mark[5:9, 5:9] = 255
    lists = root / "realiad_jsons"
    lists.mkdir(parents=True)
    for number in range(OBJECTS):
        name = f"object{number:02d}"
        content: dict[str, Any] = {"meta": {"prefix": f"{name}/"}, "train": [], "test": []}
        for specimen in range(rows // OBJECTS // 5):
            bad = specimen % 3 == 0
            folder = f"NG/AK/S{specimen:04d}" if bad else f"OK/S{specimen:04d}"
            (root / "realiad_256" / name / folder).mkdir(parents=True)
            part = "test" if bad or specimen % 3 == 1 else "train"
            for view in range(1, 6):
                stem = f"{folder}/{name}_{specimen:04d}_C{view}"
                pixels = generator.integers(0, 255, (side, side, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "realiad_256" / name / f"{stem}.jpg")
                drawn = ""
                if bad:
                    drawn = f"{stem}_mask.png"
                    Image.fromarray(mark).save(root / "realiad_256" / name / drawn)
                    entry = {
                        "anomaly_class": "AK" if bad else "OK",
                        "image_path": f"{stem}.jpg",
                        "mask_path": drawn,
                    }
                content[part].append(entry)
        (lists / f"{name}.json").write_text(json.dumps(content))


def timed(command: list[str]) -> dict[str, float]:
    """Seconds and peak memory of a command in a process of its own.

    Raises:
        SystemExit: it fails.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {process.returncode}\n{said[-2000:]}")
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }


def measure(spec: str, root: Path, store: Path) -> dict[str, Any]:
    """The three measurements of one dataset."""
    bench = str(Path(sys.executable).with_name("bench"))
    plan = [bench, "run", "--methods", "clip", "--encoder", "pocket/clip"]
    plan += ["--dataset", spec, "--data-root", str(root), "--store", str(store), "--dry-run"]
    return {
        "reading_once": timed([sys.executable, "-P", "-c", READ, str(root)]),
        "first_plan": timed(plan),
        "second_plan": timed(plan),
    }


def notices_a_replaced_file(root: Path, store: Path) -> bool:
    """True if a file with other bytes, of the same size and modification time, is read anew."""
    book = HashBook(store / "hashes.json")
    file = next((root / "bottle" / "train" / "good").iterdir())
    before, status = book[file], file.stat()
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    other = file.with_name("other.tmp")
    other.write_bytes(bytes(content))
    os.replace(other, file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    return book[file] != before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sets", default="mvtec,real_iad")
    parser.add_argument("--side", type=int, default=900)
    parser.add_argument("--rows", type=int, default=150_000)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {
        "platform": platform.platform(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        if "mvtec" in options.sets:
            if not (folder / "mvtec").is_dir():
                write_mvtec(folder / "mvtec", options.side)
            files = sum(file.is_file() for file in (folder / "mvtec").rglob("*.*"))
            results["mvtec"] = {"files": files, "side": options.side}
            results["mvtec"] |= measure("mvtec", folder / "mvtec", Path(scratch) / "store")
            results["mvtec"]["notices_a_replaced_file"] = notices_a_replaced_file(
                folder / "mvtec", Path(scratch) / "store"
            )
        if "real_iad" in options.sets:
            if not (folder / "real_iad").is_dir():
                write_real_iad(folder / "real_iad", options.rows)
            files = sum(file.is_file() for file in (folder / "real_iad").rglob("*.*"))
            results["real_iad"] = {"files": files, "rows": options.rows}
            spec = "real_iad[split=all]"
            results["real_iad"] |= measure(spec, folder / "real_iad", Path(scratch) / "store_real_iad")
    results["peak_mib_of_this_script"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    written = json.dumps(results, indent=1)
    print(written)
    if options.out:
        options.out.write_text(written + "\n")


if __name__ == "__main__":
    main()
