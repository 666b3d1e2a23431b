"""Values that the figures draw, collected from records, stored scores and data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.contracts import HasFeatures
from bench.data.catalogue import Catalogue
from bench.errors import BenchError
from bench.metrics import binary_metrics
from bench.metrics.blocks import DEFAULT
from bench.metrics.curves import CURVES, Curve, image_curve, pixel_curve
from bench.report.figures.categories import Value, Values
from bench.report.figures.curves import Line, thinned
from bench.report.figures.maps import ImageRow, Scale, colour_scale, localisation, spread
from bench.report.figures.trials import FigureTrial, Trials
from bench.report.figures.tsne import Cloud, embed
from bench.store.scores import RecordedData
from bench.store.store import Store
from bench.tools.registry import METHODS

# ---------------------------------------------------------------- categories


def category_values(trials: Trials, *, average: bool = False) -> Values:
    """The cells that have a value, and with ``average`` those of the Average row that cover all categories."""
    table, cells = trials.table, dict(trials.cells)
    if average:
        (row,) = (row for row in table.rows if row.average)
        for column, cell in zip(table.columns, row.cells, strict=True):
            if column.group == trials.group and not cell.incomplete:
                cells[column.head, row.head] = cell
    return {
        place: Value(cell.mean, [value for _, value in cell.by_seed], cell.deviation)
        for place, cell in cells.items()
        if cell.mean is not None
    }


# ---------------------------------------------------------------- curves


def curve_panels(trials: Trials, data: RecordedData) -> dict[str, dict[str, Line]]:
    """Category -> method -> its curves, one per seed, under which the table's metric is the area.

    Raises:
        BenchError: a metric that is no area; scores or data that are not there.
    """
    metric = trials.table.metric
    if metric not in CURVES:
        raise BenchError(f"{metric} is the area under no curve; curves are drawn of {', '.join(CURVES)}")
    panels = {}
    for category in trials.categories:
        truth = _Truth(metric, data)
        lines = {}
        for head in trials.heads:
            cell = trials.cells[head, category]
            if cell.mean is not None:
                own = trials.of(head, category).values()
                curves = [thinned(truth.curve(trial, trials.store)) for trial in own]
                lines[head] = Line(curves, cell.mean, cell.deviation)
        panels[category] = lines
    return panels


class _Truth:
    """Labels or masks of one category, read once for all methods and seeds that were tested on them.

    Anomalous images without a mask are in no curve of pixels, as they are in no pixel metric.
    """

    def __init__(self, metric: str, data: RecordedData) -> None:
        self.metric, self.data = metric, data
        self._known: dict[tuple[str, ...], Any] = {}

    def curve(self, trial: FigureTrial, store: Store) -> Curve:
        ids, scores = store.score_ids(trial.key), store.scores(trial.key)
        pixels = not self.metric.startswith("image_")
        if ids not in self._known:
            self._known[ids] = self._truth(self.data.of(trial.record), ids, pixels)
        places, truth = self._known[ids]
        if pixels:
            return pixel_curve(self.metric, scores["maps"][places], truth, eval_size=_eval_size(trial))
        return image_curve(self.metric, scores["image"], truth)

    def _truth(self, catalogue: Catalogue, ids: tuple[str, ...], pixels: bool) -> tuple[Any, Any]:
        """The places of the images that count, and their masks or labels."""
        if not pixels:
            return slice(None), catalogue.labels(ids)
        unmasked = {*catalogue.unmasked(ids)}
        if not unmasked:
            return slice(None), catalogue.masks(ids)
        places = [place for place in range(len(ids)) if place not in unmasked]
        return places, catalogue.masks([ids[place] for place in places])


def _eval_size(trial: FigureTrial) -> Any:
    return trial.record.stored_blocks[DEFAULT].eval_size


# ---------------------------------------------------------------- maps

_BRANCHES = {"map_abnormality": "abnormality branch", "map_normality": "normality branch"}


@dataclass(frozen=True)
class _Stack:
    """One column of maps: those of all test images of a trial."""

    maps: NDArray[np.float32]
    place: Mapping[str, int]
    scale: Scale
    eval_size: Any

    def of(self, ids: Sequence[str]) -> NDArray[np.float32]:
        return self.maps[[self.place[id_] for id_ in ids]]


@dataclass(frozen=True)
class Maps:
    """The content of the figure of maps.

    Attributes:
        rows: its rows, and ``heads``, those of its columns of maps.
        trials: that the maps are from.
        notes: on the choice of images.
    """

    rows: list[ImageRow]
    heads: list[str]
    trials: list[FigureTrial]
    notes: list[str]


def map_rows(
    trials: Trials, data: RecordedData, count: int = 3, images: Sequence[str] = (), seed: int | None = None
) -> Maps:
    """The rows of the figure of maps.

    One method alone is shown with its further maps (PromptAD's branches), then its own; several with one each.
    Without ``images`` it takes ``count`` anomalous test images per category, from that on which the first
    method's map is best to that on which it is worst, evenly spread over their ranks.

    Args:
        trials: of a table of a pixel metric.
        data: images and masks.
        count: images per category.
        images: ids of test images, or their ends (``scratch/004``), in the order of the rows.
        seed: of methods that have seeds; by default each one's first.

    Raises:
        BenchError: an image that was not tested; scores or data that are not there.
    """
    rows: list[ImageRow] = []
    shown: list[FigureTrial] = []
    heads, tested = dict[str, None](), set[str]()
    alone = len(trials.heads) == 1
    for category in trials.categories:
        chosen = [trials.one(head, category, seed) for head in trials.heads if trials.of(head, category)]
        stacks: dict[str, _Stack] = {}
        for trial in chosen:
            stacks |= _stacks(trial, trials.store, alone=alone)
        if not stacks:  # the trials' remarks say why
            continue
        shown += chosen
        heads |= dict.fromkeys(stacks)
        catalogue = data.of(chosen[0].record)
        leading = list(stacks.values())[-1 if alone else 0]
        tested |= set(leading.place)
        ids = _named(images, leading.place) if images else _spread_images(leading, catalogue, count)
        rows += [_row(id_, catalogue, stacks) for id_ in ids]
    for image in images:
        if not _named([image], tested):
            some = ", ".join(sorted(map(_short, tested))[:2])
            raise BenchError(f"no test image is called {image}; there are {some} and {len(tested) - 2} others")
    notes = ["Below each map: its pixel AUROC within the image"]
    if not images:
        best = f"by this AUROC of {trials.heads[0]}"
        notes.append(f"Rows: anomalous images, evenly spread from the best to the worst {best}")
    return Maps(rows, list(heads), shown, notes)


def _stacks(trial: FigureTrial, store: Store, *, alone: bool) -> dict[str, _Stack]:
    scores, size = store.scores(trial.key), _eval_size(trial)
    place = {id_: i for i, id_ in enumerate(store.score_ids(trial.key))}
    further = {name: maps for name, maps in scores.items() if name not in ("image", "maps")} if alone else {}
    columns = {_BRANCHES.get(name, name.replace("_", " ")): maps for name, maps in sorted(further.items())}
    columns["fused map" if further else trial.head] = scores["maps"]
    return {head: _Stack(maps, place, colour_scale(maps), size) for head, maps in columns.items()}


def _short(id_: str) -> str:
    """``wood/test/scratch/004`` -> ``wood/scratch/004``."""
    return id_.replace("/test/", "/", 1)


def _named(images: Iterable[str], ids: Iterable[str]) -> list[str]:
    """The ids that are meant, in the order of ``images``."""

    def meant(id_: str, image: str) -> bool:
        return image in (id_, _short(id_)) or id_.endswith(f"/{image}")

    return [id_ for image in images for id_ in sorted(ids) if meant(id_, image)]


def _spread_images(leading: _Stack, catalogue: Catalogue, count: int) -> list[str]:
    ids = sorted(id_ for id_ in leading.place if catalogue.samples[id_].masks)
    values = localisation(leading.of(ids), catalogue.masks(ids), leading.eval_size)
    return [ids[place] for place in spread(values, count)]


def _row(id_: str, catalogue: Catalogue, stacks: Mapping[str, _Stack]) -> ImageRow:
    from bench.data.images import read_image

    mask = None if catalogue.samples[id_].lacks_mask else catalogue.masks([id_])[0]
    here = {head: stack for head, stack in stacks.items() if id_ in stack.place}
    within: dict[str, float | None] = {}
    if mask is not None:
        within = {head: localisation(stack.of([id_]), [mask], stack.eval_size)[0] for head, stack in here.items()}
    category, _, rest = _short(id_).partition("/")
    return ImageRow(
        image=read_image(catalogue.samples[id_]),
        mask=mask,
        maps={head: stack.of([id_])[0] for head, stack in here.items()},
        scales={head: stack.scale for head, stack in here.items()},
        label=f"{category}\n{rest}",
        below={head: f"{value:.3f}" for head, value in within.items() if value is not None},
    )


# ---------------------------------------------------------------- features


def with_features(trials: Trials) -> tuple[list[str], list[str]]:
    """The methods that have features to show, and a note on those that have none.

    Raises:
        BenchError: none has.
    """
    heads: list[str] = []
    without: list[str] = []
    for head in trials.heads:
        trial = next(trials.one(head, c) for c in trials.categories if trials.of(head, c))
        offers = issubclass(METHODS.load(trial.record.method.name), HasFeatures)
        (heads if offers else without).append(head)
    if not heads:
        raise BenchError(f"{', '.join(without)}: no features to show; a method offers them by a method features()")
    return heads, [f"Without features, so not shown: {', '.join(without)}"] if without else []


def cloud(trial: FigureTrial, store: Store, data: RecordedData) -> Cloud:
    """The test images of a trial whose features are in the store, as points.

    Raises:
        BenchError: they are not there; too few images.
    """
    stored = store.features(trial.key)
    if stored is None:
        raise BenchError(f"{trial.name}: its features are not in the store")
    labels = data.of(trial.record).labels(store.score_ids(trial.key))
    auroc = binary_metrics(stored["image"], labels)["auroc"]
    return Cloud(embed(stored["features"]), labels, f"image AUROC {auroc:.3f}")


def same_scores(trial: FigureTrial, store: Store) -> bool:
    """True if the trial, repeated for its features, gave the scores that are in the store, to the last bit."""
    stored = store.features(trial.key)
    return stored is not None and np.array_equal(stored["image"], store.scores(trial.key)["image"])
