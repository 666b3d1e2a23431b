"""Figures of features: the same points every time, neighbours together, labels only as colours."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bench.errors import BenchError
from bench.report.figures.style import ANOMALOUS, NORMAL
from bench.report.figures.tsne import Cloud, draw_tsne, embed


def test_neighbours_stay_together_and_nothing_is_random() -> None:
    rng = np.random.default_rng(0)
    side = np.arange(40) % 2
    features = (rng.normal(size=(40, 12)) + 8 * side[:, None]).astype(np.float32)
    points = embed(features)
    assert np.array_equal(points, embed(features))
    far = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(far, np.inf)
    assert np.array_equal(side[far.argmin(axis=1)], side)


def test_too_few_images_are_refused() -> None:
    with pytest.raises(BenchError, match="at least 5 images; there are 4"):
        embed(np.zeros((4, 3), dtype=np.float32))


def test_a_panel_per_method_and_category() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, 1, 0, 1], dtype=np.int8)
    heads, categories = ["DRA", "PromptAD"], ["wood", "mesh", "chip"]
    clouds = {
        (head, category): Cloud(rng.normal(size=(5, 2)).astype(np.float32), labels, f"{head} {category}")
        for head in heads
        for category in categories
    }
    figure = draw_tsne(clouds, heads, categories, "title", ["a note"])
    assert [axes.get_xlabel() for axes in figure.axes] == [f"{h} {c}" for h in heads for c in categories]
    assert [axes.get_title() for axes in figure.axes[:3]] == categories
    assert [axes.get_ylabel() for axes in figure.axes[::3]] == heads
    for axes, cloud in zip(figure.axes, clouds.values(), strict=True):
        normal, anomalous = axes.collections
        assert np.array_equal(normal.get_offsets(), cloud.points[labels == 0])
        assert np.array_equal(anomalous.get_offsets(), cloud.points[labels == 1])
        assert to_hex(normal.get_facecolor()[0]) == NORMAL
        assert to_hex(anomalous.get_facecolor()[0]) == ANOMALOUS
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["normal", "anomalous"]
