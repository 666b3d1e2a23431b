"""One number per category and method: bars of the means, or boxes over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.report.figures import style
from bench.report.tables.text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CHARACTERS = 110  # of the categories' names side by side
_MOST_WITH_DOTS = 60  # bars or boxes; narrower ones would be hidden by the dots of their seeds
_ROOM = 0.8  # share of a category's place that its bars take


@dataclass(frozen=True)
class Value:
    """A method on a category.

    Attributes:
        mean: over the seeds.
        seeds: the number of each seed; one for a method without seeds.
        deviation: sample standard deviation over the seeds, None with fewer than two.
    """

    mean: float
    seeds: Sequence[float]
    deviation: float | None = None


Values = Mapping[tuple[str, str], Value]  # (method, category) -> its value; what has none is left out


def draw_bars(
    axes: Axes, values: Values, heads: Sequence[str], categories: Sequence[str], *, dots: bool = True
) -> None:
    """Means as bars from 0, with the deviation over seeds and a dot per seed; a cross where there is no value."""
    for number, (head, colour) in enumerate(zip(heads, style.colours(len(heads)), strict=True)):
        places, width = _places(number, len(heads), len(categories))
        found = [(x, values[head, c]) for x, c in zip(places, categories, strict=True) if (head, c) in values]
        x = [place for place, _ in found]
        bars = axes.bar(
            x,
            [value.mean for _, value in found],
            width * 0.92,
            color=colour,
            hatch=style.hatch(number),
            edgecolor="white" if style.hatch(number) else colour,
            linewidth=0,
            label=head,
        )
        bars.set_label(head)
        spread = [(place, v.mean, v.deviation) for place, v in found if v.deviation is not None]
        if spread:
            at, mean, deviation = zip(*spread, strict=True)
            axes.errorbar(
                at, mean, deviation, fmt="none", ecolor=style.INK, elinewidth=0.7, capsize=1.2, capthick=0.7
            )
            if dots:
                _dots(axes, found, width)
        _crosses(axes, values, head, places, categories)
    top = axes.get_ylim()[1]
    axes.set_ylim(0, max(1.0, top) if top > 0.6 else top)
    _finish(axes, categories)


def draw_boxes(
    axes: Axes, values: Values, heads: Sequence[str], categories: Sequence[str], *, dots: bool = True
) -> None:
    """Quartiles over the seeds as boxes with whiskers to the extremes, a dot per seed.

    A method without seeds, or with one, is a line.
    """
    for number, (head, colour) in enumerate(zip(heads, style.colours(len(heads)), strict=True)):
        places, width = _places(number, len(heads), len(categories))
        found = [(x, values[head, c]) for x, c in zip(places, categories, strict=True) if (head, c) in values]
        several = [(place, value) for place, value in found if len(value.seeds) > 1]
        if several:
            drawn = axes.boxplot(
                [list(value.seeds) for _, value in several],
                positions=[place for place, _ in several],
                widths=width * 0.8,
                whis=(0, 100),
                manage_ticks=False,
                patch_artist=True,
                boxprops={"facecolor": (*colour, 0.45), "edgecolor": colour, "hatch": style.hatch(number)},
                medianprops={"color": style.INK, "linewidth": 1.0},
                whiskerprops={"color": colour},
                capprops={"color": colour},
            )
            for name in ("boxes", "whiskers", "caps"):
                for artist in drawn[name]:
                    artist.set_linewidth(0.7)
            if dots:
                _dots(axes, several, width)
        single = [(place, value) for place, value in found if len(value.seeds) == 1]
        for place, value in single:
            axes.hlines(value.mean, place - 0.4 * width, place + 0.4 * width, color=colour, linewidth=2.0)
        axes.plot([], [], color=colour, linewidth=5, solid_capstyle="butt", label=head)
        _crosses(axes, values, head, places, categories)
    _finish(axes, categories)


def draw_categories(
    panels: Mapping[str, Values],
    heads: Sequence[str],
    categories: Sequence[str],
    metric: str,
    *,
    boxes: bool = False,
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """A panel per column group (number of shots), with each category's methods side by side.

    Args:
        panels: head of the column group -> the values.
        heads: the methods, in their order.
        categories: in their order; a last one called ``Average`` is set apart.
        metric: as printed.
        boxes: boxes over seeds instead of bars of means.
        title: a line above.
        notes: sentences below.
    """
    dots = len(heads) * len(categories) <= _MOST_WITH_DOTS
    longest = max(len(short(category)) for category in categories)
    slanted = longest * len(categories) > _CHARACTERS
    with style.printed():
        figure = style.new_figure(0.2 + 1.6 * len(panels) + slanted * 0.035 * longest)
        grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        for axes, (group, values) in zip(grid, panels.items(), strict=True):
            (draw_boxes if boxes else draw_bars)(axes, values, heads, categories, dots=dots)
            axes.set_title(group, loc="left")
            axes.set_ylabel(metric)
        if slanted:
            grid[-1].tick_params(axis="x", rotation=40)
            for label in grid[-1].get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
        handles, labels = grid[0].get_legend_handles_labels()
        style.finish(figure, title, [_legend(panels, heads, categories, boxes, dots), *notes], handles, labels)
    return figure


def _legend(
    panels: Mapping[str, Values], heads: Sequence[str], categories: Sequence[str], boxes: bool, dots: bool
) -> str:
    """The meaning of the marks that are there."""
    values = [value for panel in panels.values() for value in panel.values()]
    several = any(len(value.seeds) > 1 for value in values)
    said = []
    if several:
        said.append("Boxes: quartiles over seeds; whiskers: extremes" if boxes else "Bars: means over seeds")
        if not boxes:
            said.append("error bars: sample standard deviation")
        if dots:
            said.append("dots: seeds")
    if len(values) < len(panels) * len(heads) * len(categories):
        said.append("cross: no value")
    return "; ".join(said)


def _places(number: int, methods: int, categories: int) -> tuple[Any, float]:
    """Positions of the bars of one method, and their width."""
    width = _ROOM / methods
    return np.arange(categories) + (number - (methods - 1) / 2) * width, width


def _dots(axes: Axes, found: Sequence[tuple[float, Value]], width: float) -> None:
    """A dot per seed, side by side in the order of the seeds."""
    x, y = [], []
    for place, value in found:
        if len(value.seeds) > 1:
            x += list(place + np.linspace(-0.28, 0.28, len(value.seeds)) * width)
            y += list(value.seeds)
    axes.plot(x, y, linestyle="none", marker="o", markersize=1.6, color=style.INK, markeredgewidth=0, alpha=0.7)


def _crosses(axes: Axes, values: Values, head: str, places: Any, categories: Sequence[str]) -> None:
    """A cross on the axis where a method has no value, so that none is taken for 0."""
    lacking = [x for x, category in zip(places, categories, strict=True) if (head, category) not in values]
    if not lacking:  # an empty line without clipping would take room in the layout
        return
    axes.plot(
        lacking,
        [0.02] * len(lacking),
        linestyle="none",
        marker="x",
        markersize=3,
        markeredgewidth=0.8,
        color=style.SOFT,
        transform=axes.get_xaxis_transform(),
        clip_on=False,
    )


def _finish(axes: Axes, categories: Sequence[str]) -> None:
    axes.set_xticks(range(len(categories)), list(map(short, categories)))
    axes.set_xlim(-0.55, len(categories) - 0.45)
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.5)
    axes.set_axisbelow(True)
    if categories[-1] == "Average":
        axes.axvline(len(categories) - 1.5, color=style.SOFT, linewidth=0.6)
