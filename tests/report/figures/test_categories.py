"""Bars and boxes: every number where it belongs, and nothing that is missing drawn as 0."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

from bench.report.figures.categories import Value, draw_categories

CATEGORIES = ["chip", "mesh", "Average"]
HEADS = ["CLIP", "PromptAD"]
VALUES = {
    ("CLIP", "chip"): Value(0.6, [0.6]),
    ("CLIP", "mesh"): Value(0.5, [0.5]),
    ("CLIP", "Average"): Value(0.55, [0.55]),
    ("PromptAD", "chip"): Value(0.8, [0.7, 0.8, 0.9], 0.1),
}


def crosses(axes: Axes) -> list[float]:
    """Where it is said that there is no value."""
    return [float(x) for line in axes.get_lines() if line.get_marker() == "x" for x in line.get_xdata()]


def test_bars_are_means_with_their_deviations() -> None:
    figure = draw_categories({"1-shot": VALUES, "10-shot": {}}, HEADS, CATEGORIES, "image AUROC", notes=["x"])
    first, second = figure.axes
    assert (first.get_title("left"), second.get_title("left")) == ("1-shot", "10-shot")
    assert first.get_ylabel() == "image AUROC"
    clip, promptad = [c for c in first.containers if isinstance(c, BarContainer)]
    assert [bar.get_height() for bar in clip] == [0.6, 0.5, 0.55]
    assert [bar.get_height() for bar in promptad] == [0.8]
    assert all(bar.get_y() == 0 for bar in (*clip, *promptad))
    (ends,) = first.collections[0].get_segments()  # the error bar
    assert ends[:, 1] == pytest.approx([0.7, 0.9])
    dots = [line for line in first.get_lines() if line.get_marker() == "o"]
    assert sorted(y for line in dots for y in line.get_ydata()) == [0.7, 0.8, 0.9]
    assert [tick.get_text() for tick in second.get_xticklabels()] == CATEGORIES
    assert np.round(crosses(first)).tolist() == [1, 2]
    assert len(crosses(second)) == 6
    said = figure.texts[-1].get_text()
    assert "sample standard deviation" in said and "cross: no value" in said and said.endswith("x.")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == HEADS


def test_boxes_are_of_the_seeds() -> None:
    (axes,) = draw_categories({"": VALUES}, HEADS, CATEGORIES, "AUPRO", boxes=True).axes
    assert len(axes.patches) == 1
    heights = axes.patches[0].get_path().vertices[:, 1]
    assert (min(heights), max(heights)) == pytest.approx((0.75, 0.85))  # quartiles
    flat = [segment for lines in axes.collections for segment in lines.get_segments()]
    assert [segment[0, 1] for segment in flat] == [0.6, 0.5, 0.55]  # one value is a line, not a box
    assert np.round(crosses(axes)).tolist() == [1, 2]


def test_nothing_is_said_that_is_not_there() -> None:
    values = {place: value for place, value in VALUES.items() if place[0] == "CLIP"}
    figure = draw_categories({"": values}, HEADS[:1], CATEGORIES, "image AUROC")
    assert figure.texts[-1].get_text() == ""
    assert not crosses(figure.axes[0])


def test_many_bars_go_without_dots_and_long_names_slant() -> None:
    categories = [f"a_rather_long_name_{i}" for i in range(31)]
    heads = ["a", "b"]
    values = {(head, category): Value(0.5, [0.4, 0.6], 0.14) for head in heads for category in categories}
    figure = draw_categories({"": values}, heads, categories, "image AUROC")
    (axes,) = figure.axes
    assert not [line for line in axes.get_lines() if line.get_marker() == "o"]
    assert "dots" not in figure.texts[-1].get_text()
    assert {label.get_rotation() for label in axes.get_xticklabels()} == {40}
