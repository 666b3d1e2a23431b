"""Predictions: scores and anomaly maps of pictures, as numbers, files and a page to look at."""

from __future__ import annotations

import csv
import functools
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.predict.pictures import Picture, short_names
from bench.tools.files import write_atomically
from bench.tools.text import count

if TYPE_CHECKING:
    import pandas as pd

_ENDS = 0.5, 99.5  # percentiles of all maps' scores at the two ends of the colours


@dataclass(frozen=True)
class Predictions:
    """Scores of a detector.

    Attributes:
        detector: its label.
        category: what is on the pictures, in words.
        pictures: those scored, N, in the order in which they were given.
        image: ``(N,)`` image scores; higher is more anomalous.
        maps: ``(N, h, w)`` anomaly maps on the method's own grid, or None for a method without any.
        threshold: image scores above it are called anomalous; None for no verdict.
        unreadable: name of a picture that was skipped -> the reason.
        met: names of pictures that the detector was trained on: their scores say nothing.
        notes: sentences of the method.
    """

    detector: str
    category: str
    pictures: tuple[Picture, ...]
    image: NDArray[np.float32]
    maps: NDArray[np.float32] | None = None
    threshold: float | None = None
    unreadable: Mapping[str, str] | None = None
    met: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the pictures: paths, or ``image 3`` for the fourth array."""
        return tuple(picture.name for picture in self.pictures)

    @property
    def anomalous(self) -> NDArray[np.bool_] | None:
        """``(N,)`` verdicts; None without a threshold."""
        return None if self.threshold is None else self.image > self.threshold

    def __len__(self) -> int:
        return len(self.pictures)

    def frame(self) -> pd.DataFrame:
        """A row per picture, as they were given: ``image``, ``score``, with a threshold also ``anomalous``."""
        import pandas as pd

        columns: dict[str, Any] = {"image": self.names, "score": self.image}
        if self.anomalous is not None:
            columns["anomalous"] = self.anomalous
        return pd.DataFrame(columns)

    def map_of(self, index: int) -> NDArray[np.float32]:
        """``(H, W)``: an anomaly map at the size of its picture (bilinear).

        Raises:
            BenchError: the method gives no maps.
        """
        from bench.metrics.resize import resize_bilinear

        if self.maps is None:
            raise BenchError(f"{self.detector} gives no anomaly maps")
        return np.asarray(resize_bilinear(self.maps[index], self.pictures[index].shape), np.float32)

    @functools.cached_property
    def colour_ends(self) -> tuple[float, float]:
        """Scores at the two ends of the colours, the same for all pictures: outliers are cut off."""
        assert self.maps is not None
        low, high = np.percentile(self.maps, _ENDS)
        return float(low), float(high)

    def overlay(self, index: int, side: int = 512) -> Any:
        """A PIL image: the anomaly map in colours over the picture, ``side`` pixels long at most.

        The colours mean the same in all pictures of one prediction.
        """
        from bench.report.page.pictures import colours_over

        assert self.maps is not None
        low, high = self.colour_ends
        return colours_over(self.pictures[index].pixels(), self.maps[index], low, high, side)

    def save(self, folder: str | Path) -> Path:
        """Write everything into a folder: ``scores.csv``, ``maps/*.npy``, ``pictures/*.jpg``, ``index.html``.

        The maps are on the method's own grid, float32 ``(h, w)``. The page shows the pictures, the most anomalous
        first.

        Returns:
            The page.

        Raises:
            BenchError: the folder cannot be written.
        """
        from bench.predict.gallery import page

        folder = Path(folder)
        stems = _file_names(self.pictures)
        try:
            for part in ("maps", "pictures"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            for index, stem in enumerate(stems):
                if self.maps is not None:
                    stream = io.BytesIO()
                    np.save(stream, self.maps[index])
                    write_atomically(folder / "maps" / f"{stem}.npy", stream.getvalue())
                write_atomically(folder / "pictures" / f"{stem}.jpg", self._picture(index))
            write_atomically(folder / "scores.csv", self._csv(stems).encode("utf-8", "surrogateescape"))
            write_atomically(folder / "index.html", page(self, stems).encode())
        except OSError as error:
            raise BenchError(f"{folder} cannot be written: {error.strerror}") from None
        return folder / "index.html"

    def _picture(self, index: int) -> bytes:
        from bench.report.page.pictures import plain

        side = 512
        picture = plain(self.pictures[index].pixels(), side) if self.maps is None else self.overlay(index, side)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=88)
        return stream.getvalue()

    def _csv(self, stems: tuple[str, ...]) -> str:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        verdicts = self.anomalous
        rows.writerow(
            ["image", "score", *([] if verdicts is None else ["anomalous"]), "trained_on", "map", "picture"]
        )
        met = set(self.met)
        for index, (name, stem) in enumerate(zip(self.names, stems, strict=True)):
            row: list[Any] = [name, f"{self.image[index]:.9g}"]
            if verdicts is not None:
                row.append(int(verdicts[index]))
            row.append(int(name in met))
            row.append("" if self.maps is None else f"maps/{stem}.npy")
            rows.writerow([*row, f"pictures/{stem}.jpg"])
        for name, reason in (self.unreadable or {}).items():
            rows.writerow([name, "", *([] if verdicts is None else [""]), "", f"unreadable: {reason}", ""])
        return text.getvalue()

    def __repr__(self) -> str:
        said = count(len(self), "picture")
        if self.anomalous is not None:
            said += f", {int(self.anomalous.sum())} above the threshold {self.threshold:.4g}"
        return f"<Predictions of {self.detector}: {said}>"

    def _repr_html_(self) -> str:
        from bench.predict.gallery import inline

        return inline(self)


def threshold_at(normal: NDArray[np.float32], false_alarms: float) -> tuple[float, str]:
    """The lowest of some normal pictures' scores above which at most the share ``false_alarms`` of them lies.

    Returns:
        The threshold, and a note if so few pictures cannot tell so small a share.

    Raises:
        BenchError: the share is not between 0 and 1.
    """
    if not 0 <= false_alarms < 1:
        raise BenchError(f"a share of false alarms is at least 0 and below 1, not {false_alarms:g}")
    ordered = np.sort(normal)[::-1]
    allowed = math.floor(false_alarms * len(ordered) + 1e-9)
    note = ""
    if false_alarms and not allowed:
        fewest = math.ceil(1 / false_alarms)
        note = (
            f"{count(len(ordered), 'normal picture')} cannot tell a false-alarm rate of {false_alarms:g}: the "
            f"threshold is the highest of their scores; give {fewest} or more"
        )
    return float(ordered[allowed]), note


def _file_names(pictures: Sequence[Picture]) -> tuple[str, ...]:
    """A file's stem for each picture: its short name, each once."""
    taken: set[str] = set()
    stems = []
    for name in short_names(pictures):
        stem = os.path.splitext(name)[0].replace("/", "-").replace(os.sep, "-").replace(" ", "_")
        # Within what a file system takes, and of characters that a page can hold.
        stem = stem.encode("utf-8", "replace").replace(b"?", b"_")[-150:].decode("utf-8", "ignore")
        free, number = stem, 2
        while free in taken:
            free, number = f"{stem}-{number}", number + 1
        taken.add(free)
        stems.append(free)
    return tuple(stems)
