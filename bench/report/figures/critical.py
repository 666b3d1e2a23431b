"""The critical-difference diagram: mean ranks on a line, with bars under methods that do not differ."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.report.statistics.categories import Friedman
from bench.report.statistics.common import ALPHA
from bench.report.tables.text import short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".svg", ".png")
_INK, _SOFT = "#1a1a1a", "#6b6b6b"
_DPI = 200


def draw_critical_differences(
    result: Friedman, names: Sequence[str], categories: int, title: str = "", notes: Sequence[str] = ()
) -> Figure:
    """Draw Demšar's diagram of a Friedman–Nemenyi comparison.

    The better a method, the farther left it is. A bar joins methods that do not differ; where Friedman's
    test finds no difference at all, one bar joins them all. The critical difference has its own ruler above.
    Place and name identify a method; the colours (seaborn's colour-blind safe palette) only help the
    eye along a line.

    Args:
        result: of :func:`bench.report.statistics.friedman`.
        names: of the methods, in the order of its ranks; each once.
        categories: number of categories that the ranks are the mean of.
        title: a line above.
        notes: lines below.

    Raises:
        ValueError: not as many names as methods, or a name twice.

    Source:
        ``scikit_posthocs.critical_difference_diagram``; J. Demšar, JMLR 7, 2006, figure 1.
    """
    from matplotlib.figure import Figure
    from pandas import DataFrame, Series
    from scikit_posthocs import critical_difference_diagram
    from seaborn import color_palette

    count = len(result.ranks)
    labels = [_literal(short(name)) for name in names]
    if len(labels) != count or len(set(labels)) != count:
        raise ValueError(f"expected {count} different names")
    colours = color_palette("colorblind")
    palette = [colours[i] for i in (0, 1, 2, 3, 4, 5, 7, 9)]  # not the two that are too light for a thin line
    order = np.argsort(result.ranks, kind="stable")
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    drawn = critical_difference_diagram(
        Series(result.ranks, index=labels),
        # Only what differs matters here; a p-value of exactly 0 would be taken for no difference.
        DataFrame(np.where(result.apart, ALPHA / 2, 1.0), index=labels, columns=labels),
        alpha=ALPHA,
        ax=axes,
        color_palette={labels[place]: palette[i % len(palette)] for i, place in enumerate(order)},
        label_fmt_left="{label}  {rank:.2f} ",
        label_fmt_right=" {rank:.2f}  {label}",
        label_props={"fontsize": 9},
        elbow_props={"linewidth": 1.2},
        marker_props={"s": 26, "linewidths": 0},
        crossbar_props={"color": _INK, "linewidth": 3, "solid_capstyle": "round"},
        text_h_margin=0.05 * (count - 1),
    )
    for artist in (*axes.lines, *axes.collections):  # a mean rank may be at the very end of the axis
        artist.set_clip_on(False)
    for label in drawn["labels"]:
        label.set_color(_INK)
    for (bar,) in drawn["crossbars"]:  # from end to end, not from method to method, where lines would overlap
        ends, heights = bar.get_xdata(), bar.get_ydata()
        bar.set_data((min(ends), max(ends)), heights[:2])
    lowest = min(label.get_position()[1] for label in drawn["labels"])
    axes.set(xlim=(1, count), ylim=(lowest - 0.5, 2.6), xticks=range(1, count + 1))
    axes.tick_params(labelsize=8, colors=_SOFT)
    axes.spines["top"].set_color(_SOFT)
    end = 1 + result.critical
    axes.plot((1, end), (1.7, 1.7), color=_SOFT, linewidth=1.2, marker="|", markersize=6, clip_on=False)
    axes.text(
        end + 0.015 * (count - 1),
        1.7,
        f"critical difference {result.critical:.2f}",
        va="center",
        fontsize=8,
        color=_SOFT,
    )
    figure.set_size_inches(7.0, 0.75 + 0.14 * len(notes) + 0.2 * (2.6 - lowest))
    if title:
        figure.suptitle(_literal(short(title, 160)), fontsize=9.5, color=_INK)
    p = f"= {result.p:.2g}" if result.p >= 0.001 else "< 0.001"
    said = "the methods differ" if result.holds else "no difference holds"
    ranks = f"mean rank over {categories} categories, 1 is best; Friedman p {p}: {said}"
    figure.supxlabel("\n".join([ranks, *map(_literal, notes)]), fontsize=8, color=_SOFT)
    return figure


def _literal(text: str) -> str:
    """The text as it is; Matplotlib would set text between dollar signs as mathematics."""
    return text.replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PDF, SVG or PNG, by the ending of ``path``; the same figure, the same bytes.

    Raises:
        BenchError: another ending, or a file that cannot be written.
    """
    suffix = check_suffix(path)
    import matplotlib

    # Without these the date and random names of shapes would be in the file. Text stays text, to be edited.
    dates: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
    content = io.BytesIO()
    try:
        with matplotlib.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "pdf.fonttype": 42}):
            form: dict[str, Any] = {"format": suffix[1:], "metadata": dates[suffix]}
            # "tight": long names reach beyond the axes, and belong to the picture.
            figure.savefig(content, dpi=_DPI, facecolor="white", bbox_inches="tight", **form)
        drawn = content.getvalue()
        if suffix == ".svg":  # XML has no control characters, which names may have
            drawn = re.sub(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", b"", drawn)
        path.write_bytes(drawn)
    except OSError as error:
        raise BenchError(f"cannot write {path}: {error.strerror or error}") from None


def check_suffix(path: Path) -> str:
    """The ending of a figure's file, in small letters.

    Raises:
        BenchError: not one that figures are written as.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise BenchError(f"{path}: a figure is written as {', '.join(SUFFIXES)}")
    return suffix
