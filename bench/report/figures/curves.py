"""ROC, precision-recall and per-region-overlap curves of several methods, a panel per category."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.metrics.curves import CURVES, Curve
from bench.metrics.registry import METRICS
from bench.report.figures import style
from bench.report.tables.text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AXES = {  # of each curve: what lies along x and y
    "ROC": ("false positive rate", "true positive rate"),
    "PR": ("recall", "precision"),
    "PRO": ("false positive rate", "per-region overlap"),
}
CURVE_TITLES = {metric.name: metric.curve_title for metric in METRICS.values() if metric.curve}
RESOLUTION = 1000  # no point that is drawn lies farther from the curve than the axis' length by this
_PER_ROW = 4
_WIDEST = 3.4  # inches of a panel
_BANDS = 4  # methods with bands


@dataclass(frozen=True)
class Line:
    """One method in one panel.

    Attributes:
        curves: one per seed, see :func:`thinned`.
        mean: of the metric over the seeds, and ``deviation``, None with fewer than two.
    """

    curves: Sequence[Curve]
    mean: float
    deviation: float | None = None


def thinned(curve: Curve) -> Curve:
    """The curve with only those vertices that fall into another cell of a fine grid than a neighbour.

    A pixel curve may have a million vertices; these are a few thousand, and look the same.
    """
    cells = np.stack([np.floor(curve.x * RESOLUTION), np.floor(curve.y * RESOLUTION)])
    moves = np.any(np.diff(cells, axis=1), axis=0)
    keep = np.concatenate([[True], moves]) | np.concatenate([moves, [True]])
    return Curve(curve.x[keep], curve.y[keep])


def averaged(curves: Sequence[Curve]) -> tuple[Curve, Curve, Curve]:
    """The mean of several curves at every x, and the lowest and the highest of them there.

    The area under the mean is the mean of the areas.
    """
    end = max(curve.x[-1] for curve in curves)
    x = np.linspace(0, end, RESOLUTION + 1)
    y = np.stack([np.interp(x, curve.x, curve.y) for curve in curves])
    return Curve(x, y.mean(axis=0)), Curve(x, y.min(axis=0)), Curve(x, y.max(axis=0))


def draw_line(axes: Axes, line: Line, colour: Any, dashes: Any = "-", *, band: bool = True) -> None:
    """Draw one method's curve, or the mean of its seeds', with a band from the lowest to the highest."""
    if len(line.curves) > 1:
        curve, low, high = averaged(line.curves)
        if band:
            axes.fill_between(low.x, low.y, high.y, color=colour, alpha=0.15, linewidth=0)
    else:
        curve = line.curves[0]
    said = f"{line.mean:.3f}" + ("" if line.deviation is None else f" ± {line.deviation:.3f}")
    axes.plot(curve.x, curve.y, color=colour, linestyle=dashes, linewidth=1.1, label=said)


def draw_curves(
    panels: Mapping[str, Mapping[str, Line]],
    heads: Sequence[str],
    metric: str,
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """One panel per category with a line per method; each panel's legend gives the metric.

    Of more than a few methods with several seeds the bands would hide each other, and are left out.

    Args:
        panels: category -> head of a method -> its line; a method without a value is left out.
        heads: the methods, in the order of the legend.
        metric: one of :data:`bench.metrics.curves.CURVES`.
        title: a line above.
        notes: sentences below.
    """
    from matplotlib.lines import Line2D

    kind = CURVES[metric]
    columns = min(len(panels), _PER_ROW)
    rows = math.ceil(len(panels) / columns)
    colours = style.colours(len(heads))
    several = {head for lines in panels.values() for head, line in lines.items() if len(line.curves) > 1}
    bands = len(several) <= _BANDS
    if several:
        said = "; bands: from the lowest to the highest seed" if bands else ""
        notes = [f"Lines: mean over seeds{said}", *notes]
    with style.printed():
        width = min(style.WIDTH, _WIDEST * columns)
        figure = style.new_figure(0.1 + rows * (0.82 * width / columns + 0.25), width)
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for place, (axes, (category, lines)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
            if kind == "ROC":
                axes.plot((0, 1), (0, 1), color=style.FAINT, linewidth=0.7, zorder=0)
            for number, head in enumerate(heads):
                if head in lines:
                    draw_line(axes, lines[head], colours[number], style.line_style(number), band=bands)
            limit = max((line.curves[0].x[-1] for line in lines.values()), default=1.0)
            axes.set(title=short(category), xlim=(0, limit), ylim=(0, 1.005))
            axes.set(xticks=np.linspace(0, limit, 4 if kind == "PRO" else 3), yticks=(0, 0.25, 0.5, 0.75, 1))
            axes.spines[["top", "right"]].set_visible(False)
            # The lowest panel of a column need not be in the last row.
            axes.tick_params(labelbottom=place + columns >= len(panels))
            if not lines:
                middle = {"ha": "center", "va": "center", "fontsize": style.TINY, "color": style.SOFT}
                axes.text(0.5, 0.5, "no value", transform=axes.transAxes, **middle)
                continue
            axes.legend(
                loc="lower right" if kind == "ROC" else "best",
                fontsize=style.TINY,
                frameon=True,
                framealpha=0.75,
                edgecolor="none",
                borderpad=0.1,
                labelspacing=0.15,
                handlelength=2.0,
                handletextpad=0.4,
            )
        for axes in grid[:, 0]:
            axes.set_ylabel(AXES[kind][1])
        for axes in grid[-1]:
            axes.set_xlabel(AXES[kind][0])
        handles = [
            Line2D([], [], color=colour, linestyle=style.line_style(i), linewidth=1.1)
            for i, colour in enumerate(colours)
        ]
        style.finish(figure, title, notes, handles, heads)
    return figure
