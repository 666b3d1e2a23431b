"""The critical-difference diagram: what is in it, and that it is written alike every time."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.report.figures.critical import draw_critical_differences, save_figure
from bench.report.statistics import Friedman, friedman

# The first and the last of the ranks are apart by Nemenyi's test, but Friedman's finds no difference.
AT_ODDS = np.array([[1, 3, 4, 0, 2], [2, 0, 4, 1, 3], [1, 3, 4, 0, 2]])


def drawn(result: Friedman, names: list[str]) -> tuple[list[str], list[tuple[float, float]]]:
    """The texts of the diagram, and the ends of its bars."""
    figure = draw_critical_differences(result, names, 14, "a $title$")
    (axes,) = figure.axes
    bars = [line for line in axes.get_lines() if line.get_linewidth() == 3]
    ends = sorted((float(min(bar.get_xdata())), float(max(bar.get_xdata()))) for bar in bars)
    return [text.get_text() for text in axes.texts], ends


def test_diagram_names_every_method_and_joins_what_does_not_differ() -> None:
    values = np.array([0.9, 0.89, 0.5, 0.1]) + np.random.default_rng(0).normal(0, 0.02, (14, 4))
    result = friedman(values)
    texts, bars = drawn(result, ["best", "good", "fair", "poor[a=$b]"])
    words = " ".join(texts)
    assert all(name in words for name in ("best", "good", "fair", r"poor[a=\$b]"))
    assert f"critical difference {result.critical:.2f}" in words
    ranks = sorted(result.ranks)
    joined = {(i, j) for i, j in itertools.combinations(range(4), 2) if ranks[j] - ranks[i] <= result.critical}
    for low, high in bars:
        i, j = (int(np.argmin(np.abs(np.array(ranks) - end))) for end in (low, high))
        assert (i, j) in joined
    assert all(any(low <= ranks[i] and ranks[j] <= high for low, high in bars) for i, j in joined)


def test_diagram_without_a_difference_joins_all() -> None:
    result = friedman(AT_ODDS)
    assert drawn(result, list("abcde"))[1] == [(min(result.ranks), max(result.ranks))]
    with pytest.raises(ValueError, match="5 different names"):
        draw_critical_differences(result, list("abcdd"), 3)


def test_diagram_joins_nothing_where_all_differ() -> None:
    # As they come from many categories: p-values that are 0 in floating point.
    result = Friedman(600.0, 0.0, np.array([1.0, 2.0, 3.0]), np.eye(3), 0.2, ~np.eye(3, dtype=bool))
    assert drawn(result, list("abc"))[1] == []


@pytest.mark.parametrize(("suffix", "start"), [(".pdf", b"%PDF"), (".svg", b"<?xml"), (".PNG", b"\x89PNG")])
def test_figures_are_written_alike_every_time(suffix: str, start: bytes, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        save_figure(draw_critical_differences(friedman(AT_ODDS), list("abcde"), 3, "x"), file)
    first, second = (file.read_bytes() for file in files)
    assert first.startswith(start)
    assert first == second


def test_figures_of_other_kinds_or_in_no_folder_are_refused(tmp_path: Path) -> None:
    figure = draw_critical_differences(friedman(AT_ODDS), list("abcde"), 3)
    with pytest.raises(BenchError, match=r"\.pdf, \.svg, \.png"):
        save_figure(figure, tmp_path / "a.gif")
    with pytest.raises(BenchError, match="cannot write"):
        save_figure(figure, tmp_path / "none" / "a.png")


def test_a_method_that_is_always_first_is_not_cut_off() -> None:
    result = friedman(np.array([3.0, 1.0, 2.0]) + np.arange(9)[:, None])
    assert sorted(result.ranks) == [1, 2, 3]
    (axes,) = draw_critical_differences(result, list("abc"), 9).axes
    assert axes.get_xlim() == (1, 3)
    assert not any(artist.get_clip_on() for artist in (*axes.lines, *axes.collections))
