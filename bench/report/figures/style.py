"""Sizes, fonts, colours and notes of all figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

from bench.report.tables.text import sentence, short, wrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.0  # inches: the two columns of a conference paper
INK, SOFT, FAINT = "#1a1a1a", "#6b6b6b", "#c8c8c8"
SIZE, SMALL, TINY = 8.0, 7.0, 6.0  # points, at which the figure is printed
NORMAL, ANOMALOUS = "#0173b2", "#d55e00"  # blue and vermilion of seaborn's colour-blind safe palette
_PER_INCH = 24  # characters of the smallest font

_LINES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1.2, 1)), (0, (8, 1.5)))
_HATCHES = ("", "////", "....", "xxxx")


def printed() -> AbstractContextManager[None]:
    """Fonts and lines as they are printed in a paper's column; wrap drawing in it."""
    import matplotlib

    return matplotlib.rc_context(
        {
            "font.size": SIZE,
            "axes.titlesize": SIZE,
            "axes.labelsize": SMALL,
            "axes.linewidth": 0.6,
            "axes.edgecolor": SOFT,
            "axes.labelcolor": INK,
            "axes.titlepad": 4.0,
            "axes.labelpad": 2.0,
            "xtick.labelsize": TINY,
            "ytick.labelsize": TINY,
            "xtick.color": SOFT,
            "ytick.color": SOFT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.0,
            "ytick.major.size": 2.0,
            "xtick.major.pad": 2.0,
            "ytick.major.pad": 2.0,
            "legend.fontsize": SMALL,
            "legend.frameon": False,
            "legend.handlelength": 2.4,
            "hatch.linewidth": 0.5,
            "text.parse_math": False,  # a dollar sign in a name is a dollar sign
        }
    )


def new_figure(
    height: float, width: float = WIDTH, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure of ``width`` by ``height`` inches, whose panels are laid out by Matplotlib or by hand."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    if layout:
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03)  # type: ignore[union-attr,call-arg]
    return figure


def colours(count: int) -> list[Any]:
    """Colours of seaborn's colour-blind safe palette; the two that are too light for a line come last."""
    from seaborn import color_palette

    palette = color_palette("colorblind")
    order = (0, 1, 2, 4, 3, 5, 7, 9, 6, 8)
    return [palette[order[i % len(order)]] for i in range(count)]


def line_style(place: int) -> Any:
    """The dashes of the line at that place, so that no line is told by its colour alone."""
    return _LINES[place % len(_LINES)]


def hatch(place: int) -> str:
    """The hatching of the bar at that place: none until the colours begin again."""
    return _HATCHES[place // 10 % len(_HATCHES)]


def wrapped(text: str, limit: int) -> str:
    """``text`` in lines of at most ``limit`` characters, broken at spaces, brackets and commas if possible."""
    return "\n".join(wrap(text, limit))


def finish(
    figure: Figure,
    title: str,
    notes: Iterable[str],
    handles: Sequence[Any] = (),
    heads: Sequence[str] = (),
) -> None:
    """Give a figure that Matplotlib lays out a title above, and a legend and small print below.

    The figure grows by what they take.
    """
    width, height = figure.get_size_inches()
    heads = list(map(short, heads))
    small = note_text(notes, width)
    columns = _legend_columns(heads, width)
    key = 0.06 + 0.16 * -(-len(heads) // columns) if heads else 0.0
    above, below = title_height(title), note_height(small)
    whole = above + height + key + below
    figure.set_size_inches(width, whole)
    # A legend that Matplotlib itself puts outside would lie upon the small print.
    room = (0.0, (below + key) / whole, 1.0, height / whole)
    figure.get_layout_engine().set(rect=room)  # type: ignore[union-attr,call-arg]
    if heads:
        place = (0.5, below / whole)
        figure.legend(handles, heads, loc="lower center", bbox_to_anchor=place, ncols=columns, borderaxespad=0.2)
    add_texts(figure, title, small)


def _legend_columns(heads: Sequence[str], width: float) -> int:
    """The number of columns that fit side by side, filled as Matplotlib fills them."""
    import numpy as np

    for columns in range(len(heads), 1, -1):
        parts = np.array_split([len(head) + 9 for head in heads], columns)
        if sum(max(part) for part in parts) < 0.8 * _PER_INCH * width:
            return columns
    return 1


def title_height(title: str) -> float:
    """Inches that a title takes."""
    return 0.21 if title else 0.0


def note_height(small: str) -> float:
    """Inches that small print takes."""
    return 0.05 + 0.1 * (small.count("\n") + 1) if small else 0.0


def add_texts(figure: Figure, title: str, small: str) -> None:
    """A title along the upper edge and small print along the lower one; the caller leaves room for them."""
    width, height = figure.get_size_inches()
    figure.text(0.5, 1 - 0.03 / height, short(title, 160), ha="center", va="top", fontsize=SIZE + 0.5, color=INK)
    figure.text(0.03 / width, 0.02 / height, small, va="bottom", fontsize=TINY, color=SOFT, linespacing=1.15)


def note_text(sentences: Iterable[str], width: float = WIDTH) -> str:
    """Sentences, each once, as lines of small print for a figure of ``width`` inches."""
    text = " ".join(dict.fromkeys(sentence(each) for each in sentences if each))
    return wrapped(text, int(width * _PER_INCH)) if text else ""
