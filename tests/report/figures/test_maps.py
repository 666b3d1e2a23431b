"""Figures of maps: which images, on which scale, in which place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from bench.metrics import resize_bilinear
from bench.report.figures.maps import PERCENTILES, ImageRow, Scale, colour_scale, draw_maps, localisation, spread


def row(seed: int = 0, heads: tuple[str, ...] = ("A", "B")) -> ImageRow:
    rng = np.random.default_rng(seed)
    mask = np.zeros((40, 60), dtype=bool)
    mask[5:15, 20:30] = True
    return ImageRow(
        image=rng.integers(0, 255, (40, 60, 3), dtype=np.uint8),
        mask=mask,
        maps={head: rng.normal(size=(4, 6)).astype(np.float32) for head in heads},
        scales={head: Scale(-1.0, 2.5) for head in heads},
        label=f"wood\nscratch/00{seed}",
        below=dict.fromkeys(heads, "0.912"),
    )


def test_every_row_shows_image_mask_and_maps_on_their_scale() -> None:
    rows = [row(0), row(1)]
    figure = draw_maps(rows, ["A", "B"], "title", ["a note"])
    panels, bars = figure.axes[:8], figure.axes[8:]
    assert [axes.get_title() for axes in panels] == ["image", "mask", "A", "B", "", "", "", ""]
    assert [axes.get_ylabel() for axes in panels[::4]] == ["wood\nscratch/000", "wood\nscratch/001"]
    for place, shown in enumerate(rows):
        image, mask, *maps = (axes.get_images()[0] for axes in panels[4 * place : 4 * place + 4])
        assert np.array_equal(image.get_array(), shown.image)
        assert np.array_equal(mask.get_array() > 127, shown.mask)
        for drawn, head in zip(maps, "AB", strict=True):
            assert np.array_equal(drawn.get_array(), resize_bilinear(shown.maps[head], (40, 60)))
            assert drawn.get_clim() == (-1.0, 2.5)
    assert [axes.get_xlabel() for axes in panels[:4]] == ["", "", "0.912", "0.912"]
    assert [[text.get_text() for text in axes.texts] for axes in bars] == [["\N{MINUS SIGN}1", "2.5"]] * 2
    assert figure.texts[0].get_text() == "title"
    assert figure.texts[1].get_text().endswith("a note.")


def test_scales_that_differ_are_named_in_percentiles() -> None:
    other = replace(row(1), scales={"A": Scale(0, 1), "B": Scale(-1.0, 2.5)})
    figure = draw_maps([row(0), other], ["A", "B"])
    ends = [[text.get_text() for text in axes.texts] for axes in figure.axes[8:]]
    assert ends == [["1 %", "99.9 %"]] * 2
    assert "category by category" in figure.texts[1].get_text()


def test_a_missing_map_says_so() -> None:
    figure = draw_maps([row(0), row(1, ("A",))], ["A", "B"])
    assert not figure.axes[7].get_images()
    assert [text.get_text() for text in figure.axes[7].texts] == ["no map"]


def test_long_heads_get_a_letter_and_a_key() -> None:
    head = "PromptAD[ccl=off,clip_layers=3+7+9,cmi=off,prompt_set=generic]"
    heads = (head, *"abcdefg")
    figure = draw_maps([row(0, heads)], heads)
    assert figure.axes[2].get_title().replace("\n", " ") == "PromptAD (a)"
    assert f"(a) {head}" in figure.texts[1].get_text().replace("\n", "")


def test_the_scale_is_that_of_all_test_images() -> None:
    maps = np.random.default_rng(0).normal(size=(50, 8, 8)).astype(np.float32)
    scale = colour_scale(maps)
    assert (scale.low, scale.high) == pytest.approx(np.percentile(maps, PERCENTILES))


def test_images_are_spread_from_the_best_to_the_worst() -> None:
    values = [0.3, None, 0.9, 0.5, 0.7, 0.1]
    assert spread(values, 3) == [2, 3, 5]  # best, median, worst
    assert spread(values, 1) == [2]
    assert spread(values, 9) == [2, 4, 3, 0, 5]
    assert spread([0.5, 0.5], 2) == [0, 1]
    assert spread([None], 3) == []


def test_localisation_is_the_auroc_within_an_image() -> None:
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(3, 8, 8)).astype(np.float32)
    masks: list[NDArray[np.bool_]] = [rng.random((8, 8)) < 0.3, np.zeros((8, 8), bool), rng.random((8, 8)) < 0.3]
    first, none, last = localisation(maps, masks, None)
    assert none is None
    assert first == pytest.approx(roc_auc_score(masks[0].ravel(), maps[0].ravel()))
    assert last == pytest.approx(roc_auc_score(masks[2].ravel(), maps[2].ravel()))
