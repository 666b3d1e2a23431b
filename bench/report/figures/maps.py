"""Anomaly maps beside their images and masks (PromptAD, WACV 2024, Fig. 5)."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.metrics import pixel_metrics, resize_bilinear
from bench.report.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = "inferno"  # of rising lightness, the same to the colour-blind and in grey
PERCENTILES = (1.0, 99.9)  # of all test maps of a category: the ends of its scale
_MINUS = "\N{MINUS SIGN}"
_TITLE_LINES = 3
_PIXELS = 256  # longest side of an image in the file: 300 to the inch, as printed


@dataclass(frozen=True)
class Scale:
    """The scores at both ends of the colours; what lies beyond has the colour of the end."""

    low: float
    high: float


@dataclass(frozen=True)
class ImageRow:
    """One test image with its maps.

    Attributes:
        image: ``(H, W, 3)`` uint8.
        mask: ``(H, W)`` bool; None for an anomalous image without one.
        maps: head of the column -> ``(h, w)`` scores; a method without a map of this image is left out.
        scales: head of the column -> the scale of that map.
        label: text beside the row, in one or two lines.
        below: head of the column -> text below the map; may lack any.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    maps: Mapping[str, NDArray[np.float32]]
    scales: Mapping[str, Scale]
    label: str
    below: Mapping[str, str]


def colour_scale(maps: NDArray[np.float32]) -> Scale:
    """The scale of one method's ``(N, h, w)`` maps of all test images of a category, normal ones too.

    So colours can be compared between images, and no image is stretched to its own extremes.
    """
    low, high = np.percentile(maps, PERCENTILES)
    return Scale(float(low), float(high))


def localisation(
    maps: NDArray[np.float32], masks: Sequence[NDArray[np.bool_]], eval_size: int | tuple[int, int] | None
) -> list[float | None]:
    """The pixel AUROC within each image, on the grid of the metrics; None where that is not defined."""
    pairs = zip(maps, masks, strict=True)
    return [pixel_metrics([map_], [mask], eval_size=eval_size)["pixel_auroc"] for map_, mask in pairs]


def spread(values: Sequence[float | None], count: int) -> list[int]:
    """Places of ``count`` values from the largest to the smallest, evenly spread over their ranks.

    Three are the best, the median and the worst. Ties go by place; None is never chosen. There may be fewer
    than ``count``.
    """
    order = sorted((-value, place) for place, value in enumerate(values) if value is not None)
    ranks = np.linspace(0, len(order) - 1, min(count, len(order)))
    return [order[int(rank + 0.5)][1] for rank in ranks]


def show_image(axes: Axes, image: NDArray[Any]) -> AxesImage:
    """Draw an image or a mask without axes, reduced to what print can show."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = min(1.0, _PIXELS / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    mask = image.dtype == np.bool_
    pixels = image.astype(np.uint8) * np.uint8(255) if mask else image
    # A thin region of a mask must not vanish; box averages every pixel in.
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    bare(axes)
    return axes.imshow(small, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect="auto")


def show_map(axes: Axes, map_: NDArray[np.float32], size: tuple[int, int], scale: Scale) -> AxesImage:
    """Draw one anomaly map over an image's ``(H, W)``, enlarged as the metrics enlarge it.

    Args:
        axes: where.
        map_: ``(h, w)`` scores.
        size: of the image.
        scale: its colours.
    """
    height, width = size
    factor = min(1.0, _PIXELS / max(size))
    large = resize_bilinear(map_, (max(1, round(height * factor)), max(1, round(width * factor))))
    bare(axes)
    return axes.imshow(
        large,
        cmap=COLOURS,
        vmin=scale.low,
        vmax=scale.high,
        extent=(0, width, height, 0),
        aspect="auto",
        interpolation="nearest",
    )


def bare(axes: Axes) -> None:
    """Take ticks and frame away."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_maps(
    rows: Sequence[ImageRow], heads: Sequence[str], title: str = "", notes: Sequence[str] = ()
) -> Figure:
    """One row per image: the image, its mask, and a map per column.

    Below each column of maps is its scale: in scores if all rows share it, else in percentiles of the
    category's own test maps.

    Args:
        rows: at least one.
        heads: of the columns of maps.
        title: a line above.
        notes: sentences below, after the one on the colours.
    """
    shared = all(len({row.scales[head] for row in rows if head in row.maps}) < 2 for head in heads)
    with style.printed():
        count = 2 + len(heads)
        wide, gap = 0.30, 0.04  # inches beside the rows, and between the panels
        side = min((style.WIDTH - wide) / count - gap, 1.30)
        width = wide + count * (side + gap)
        height = side * float(np.median([row.image.shape[0] / row.image.shape[1] for row in rows]))
        limit = max(4, int(side * 15))
        key: list[str] = []
        titles = ["image", "mask", *(_column_title(head, limit, key) for head in heads)]
        above = 0.11 * max(text.count("\n") + 1 for text in titles) + 0.06 + style.title_height(title)
        step = height + gap + 0.11 * any(row.below for row in rows)
        remarks = style.note_text([_colours(shared), *key, *notes], width)
        foot = 0.22 + style.note_height(remarks)
        whole = above + step * len(rows) + foot
        figure = style.new_figure(whole, width, layout=None)

        def axes_at(row: float, column: int, tall: float) -> Axes:
            left, top = wide + column * (side + gap), above + row * step
            box = (left / width, 1 - (top + tall) / whole, side / width, tall / whole)
            return figure.add_axes(box)

        for place, row in enumerate(rows):
            panels = [axes_at(place, column, height) for column in range(count)]
            if not place:
                for axes, text in zip(panels, titles, strict=True):
                    axes.set_title(text, fontsize=style.SMALL, color=style.INK)
            show_image(panels[0], row.image)
            if row.mask is None:
                _show_words(panels[1], "no mask")
            else:
                show_image(panels[1], row.mask)
            panels[0].set_ylabel(_beside(row.label, int(step * 23)), fontsize=style.TINY, linespacing=1.1)
            for axes, head in zip(panels[2:], heads, strict=True):
                _show_cell(axes, row, head)
        for column, head in enumerate(heads, 2):
            below = axes_at(len(rows), column, 0.07)
            _show_scale(below, [row.scales[head] for row in rows if head in row.maps], shared)
        style.add_texts(figure, title, remarks)
    return figure


def _show_cell(axes: Axes, row: ImageRow, head: str) -> None:
    if head not in row.maps:
        _show_words(axes, "no map")
        return
    height, width = row.image.shape[:2]
    show_map(axes, row.maps[head], (height, width), row.scales[head])
    axes.set_xlabel(row.below.get(head, ""), fontsize=style.TINY, color=style.INK, labelpad=1.0)


def _show_words(axes: Axes, words: str) -> None:
    bare(axes)
    axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=style.TINY, color=style.SOFT)


def _column_title(head: str, limit: int, key: list[str]) -> str:
    """The head in lines, or, if there were too many, its name with a letter that ``key`` then explains."""
    text = style.wrapped(head, limit)
    if text.count("\n") < _TITLE_LINES:
        return text
    mark = f"({string.ascii_lowercase[len(key) % 26]})"
    key.append(f"{mark} {head}")
    return style.wrapped(f"{head.partition('[')[0]} {mark}", limit)


def _beside(label: str, limit: int) -> str:
    """A row's label, broken at slashes where it is too long."""
    lines = [line if len(line) <= limit else line.replace("/", "/\n") for line in label.split("\n")]
    return "\n".join(style.wrapped(line, limit) for line in "\n".join(lines).split("\n"))


def _show_scale(axes: Axes, scales: Sequence[Scale], shared: bool) -> None:
    """A bar of the colours with its ends named; nothing if there is no map."""
    bare(axes)
    if not scales:
        return
    axes.imshow(np.linspace(0, 1, 128)[None], cmap=COLOURS, aspect="auto", extent=(0.04, 0.96, 0, 1))
    axes.set_xlim(0, 1)
    numbers = (scales[0].low, scales[0].high)
    ends = [f"{x:.3g}" for x in numbers] if shared else [f"{p:g} %" for p in PERCENTILES]
    for x, end, ha in ((0.04, ends[0], "left"), (0.96, ends[1], "right")):
        axes.text(x, -0.35, end.replace("-", _MINUS), ha=ha, va="top", fontsize=style.TINY, color=style.INK)


def _colours(shared: bool) -> str:
    apart = "column by column" if shared else "column by column and category by category"
    low, high = PERCENTILES
    return f"Colours: from the {low:g}st to the {high:g}th percentile of the maps of all test images, {apart}"
