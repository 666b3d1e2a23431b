"""Figures of curves: what is drawn is what was computed, thinned and averaged without a change of area."""

from __future__ import annotations

import numpy as np
import pytest

from bench.metrics.curves import Curve, image_curve
from bench.report.figures.curves import RESOLUTION, Line, averaged, draw_curves, thinned


def roc(seed: int, count: int = 200, gap: float = 1.0) -> Curve:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return image_curve("image_auroc", rng.normal(size=count) + gap * labels, labels)


def test_a_thinned_curve_is_short_and_has_the_same_area() -> None:
    fine = roc(0, 200_000)
    thin = thinned(fine)
    assert len(thin.x) < 4 * RESOLUTION + 10 < len(fine.x) / 10
    assert thin.area() == pytest.approx(fine.area(), abs=1 / RESOLUTION)
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    # No vertex that was left out is farther from the line than a cell.
    assert np.abs(np.interp(fine.x, thin.x, thin.y) - fine.y).max() <= 2 / RESOLUTION


def test_steps_survive_thinning() -> None:
    coarse = roc(1, 24)
    thin = thinned(coarse)
    assert thin.area() == coarse.area()
    corners = set(zip(coarse.x, coarse.y, strict=True))
    assert corners == set(zip(thin.x, thin.y, strict=True))


def test_the_mean_curve_has_the_mean_area() -> None:
    curves = [roc(seed, 60) for seed in range(5)]
    mean, low, high = averaged(curves)
    assert mean.area() == pytest.approx(np.mean([curve.area() for curve in curves]), abs=1 / RESOLUTION)
    assert np.all(low.y <= mean.y) and np.all(mean.y <= high.y)


def test_panels_lines_and_numbers() -> None:
    one, several = roc(0, 40), [roc(seed, 40) for seed in (1, 2)]
    panels = {
        "wood": {"A": Line([one], one.area()), "B": Line(several, 0.7654, 0.0123)},
        "mesh": {"B": Line(several[:1], 0.5)},
        "chip": {},
    }
    figure = draw_curves(panels, ["A", "B"], "image_auroc", "title", ["a note", "a $note$"])
    wood, mesh, chip = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["wood", "mesh", "chip"]
    numbers = [text.get_text() for text in wood.get_legend().get_texts()]
    assert numbers == [f"{one.area():.3f}", "0.765 ± 0.012"]
    _, first, second = wood.get_lines()  # after the diagonal of chance
    assert np.array_equal(first.get_xydata(), np.stack(one, axis=1))
    assert np.array_equal(second.get_ydata(), averaged(several)[0].y)
    assert len(wood.collections) == 1 and not mesh.collections  # a band where there are several seeds
    assert second.get_color() == mesh.get_lines()[1].get_color() != first.get_color()
    assert second.get_linestyle() == mesh.get_lines()[1].get_linestyle() != first.get_linestyle()
    assert [text.get_text() for text in chip.texts] == ["no value"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["A", "B"]
    said = figure.texts[-1].get_text()
    assert "mean over seeds; bands" in said and said.endswith("a note. a $note$.")
    assert wood.get_xlim() == (0, 1)


def test_many_methods_have_no_bands() -> None:
    lines = {name: Line([roc(0, 20), roc(1, 20)], 0.5, 0.1) for name in "abcde"}
    figure = draw_curves({"wood": lines}, list("abcde"), "image_auroc")
    assert not figure.axes[0].collections
    assert "bands" not in figure.texts[-1].get_text()
