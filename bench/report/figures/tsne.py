"""Test images of unseen categories in the methods' feature spaces (PromptAD, WACV 2024, Fig. 4).

Labels colour the points and are used for nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.report.figures import style
from bench.report.tables.text import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 5  # images, of which a picture of neighbourhoods can be made
PERPLEXITY = 30.0
_EXACT = 2000  # images up to which no approximation is needed


@dataclass(frozen=True)
class Cloud:
    """The test images of one category as one method sees them.

    Attributes:
        points: ``(N, 2)`` of :func:`embed`.
        labels: ``(N,)`` 1 = anomalous.
        below: text below the panel.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int8]
    below: str = ""


def embed(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """``(N, F)`` features as ``(N, 2)`` points by t-SNE: the same features, the same points.

    It starts from the principal components, with a perplexity of 30 or, for fewer than 91 images, a third of
    their number.

    Raises:
        BenchError: too few images.

    Source:
        ``sklearn.manifold.TSNE``; van der Maaten and Hinton, JMLR 9, 2008.
    """
    from sklearn.manifold import TSNE

    count = len(features)
    if count < FEWEST:
        raise BenchError(f"t-SNE needs at least {FEWEST} images; there are {count}")
    method = "exact" if count <= _EXACT else "barnes_hut"
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", random_state=0, method=method, n_jobs=1)
    points: NDArray[np.float32] = model.fit_transform(features.astype(np.float64)).astype(np.float32)
    return points


def draw_cloud(axes: Axes, cloud: Cloud) -> None:
    """Draw one cloud: normal images as blue dots, anomalous ones as vermilion crosses. Axes mean nothing."""
    for label, colour, marker, size, width in (
        (0, style.NORMAL, "o", 7, 0.0),
        (1, style.ANOMALOUS, "x", 9, 0.8),
    ):
        points = cloud.points[cloud.labels == label]
        axes.scatter(points[:, 0], points[:, 1], s=size, c=colour, marker=marker, linewidths=width, alpha=0.85)
    axes.set(xticks=[], yticks=[])
    axes.margins(0.06)
    axes.set_xlabel(cloud.below, fontsize=style.TINY, labelpad=2.0)


def draw_tsne(
    clouds: Mapping[tuple[str, str], Cloud],
    heads: Sequence[str],
    categories: Sequence[str],
    title: str = "",
    notes: Sequence[str] = (),
) -> Figure:
    """A row per method and a column per category.

    Args:
        clouds: (method, category) -> its cloud; every one must be there.
        heads: the methods, from top to bottom.
        categories: from left to right.
        title: a line above.
        notes: sentences below.
    """
    from matplotlib.lines import Line2D

    with style.printed():
        side = min(style.WIDTH / len(categories), 2.2)
        figure = style.new_figure(0.15 + side * len(heads), max(side * len(categories), 3.5))
        grid = figure.subplots(len(heads), len(categories), squeeze=False)
        for row, head in zip(grid, heads, strict=True):
            for axes, category in zip(row, categories, strict=True):
                draw_cloud(axes, clouds[head, category])
            row[0].set_ylabel(style.wrapped(head, int(side * 16)), fontsize=style.SIZE)
        for axes, category in zip(grid[0], categories, strict=True):
            axes.set_title(short(category))
        handles = [
            Line2D([], [], linestyle="none", marker="o", markersize=3.5, color=style.NORMAL, markeredgewidth=0),
            Line2D([], [], linestyle="none", marker="x", markersize=3.5, color=style.ANOMALOUS),
        ]
        style.finish(figure, title, notes, handles, ("normal", "anomalous"))
    return figure
