"""The figures of a study in a store: its trials are found, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import BenchError
from bench.report.comparison.compare import Comparison, compare, groups
from bench.report.figures.trials import Trials, notes_of
from bench.report.tables.study import load_tables
from bench.store.store import Store
from bench.study.build import Files, read_roots
from bench.tools.spec import parse_spec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.report.repeat import Watch
    from bench.report.tables.model import Table
    from bench.store.scores import RecordedData

FIGURES = ("maps", "curves", "categories", "tsne", "cd")


@dataclass(frozen=True)
class StudyFigures:
    """Draws figures of a study.

    Attributes:
        store: holds its records and scores.
        study: its name.
        dataset: of the figure, by label or name; None if the study has one.
        methods: labels or names, in that order; None for all.
        shots: of the column group; None for that of the most shots, and for all in :meth:`by_category`.
        categories: in that order; empty for all, or as many as the figure has room for.
        roots: the datasets' folders, where they are not those that the trials were run on.
    """

    store: Store
    study: str
    dataset: str | None = None
    methods: Sequence[str] | None = None
    shots: int | None = None
    categories: Sequence[str] = ()
    roots: Files | None = None

    def maps(self, images: Sequence[str] = (), count: int = 3, seed: int | None = None) -> Figure:
        """Images, masks and anomaly maps side by side; see :func:`bench.report.figures.collect.map_rows`.

        Raises:
            BenchError: there is nothing to draw, there are several datasets, or scores or data are not there; so
                with every figure.
        """
        from bench.report.figures.collect import map_rows
        from bench.report.figures.maps import draw_maps

        trials = self._trials("pixel_auroc")
        if not (self.categories or images):
            # The first category that any method has a value for.
            trials = trials.only([c for c in trials.categories if any(trials.of(h, c) for h in trials.heads)][:1])
        found = map_rows(trials, self._data(trials), count, images, seed)
        title = trials.title("anomaly maps", found.trials)
        return draw_maps(found.rows, found.heads, title, [*found.notes, *trials.notes])

    def curves(self, metric: str) -> Figure:
        """ROC, precision-recall or PRO curves, under which the metric is the area; a panel per category."""
        from bench.report.figures.collect import curve_panels
        from bench.report.figures.curves import CURVE_TITLES, draw_curves

        trials = self._trials(metric)
        panels = curve_panels(trials, self._data(trials))
        table = trials.table
        notes = [f"Numbers: {table.metric_name} (metric protocol {table.metric_protocol})"]
        title = trials.title(CURVE_TITLES[metric])
        return draw_curves(panels, trials.heads, metric, title, [*notes, *trials.notes])

    def by_category(self, metric: str, boxes: bool = False) -> Figure:
        """A metric per category and method: bars of the means, or boxes over the seeds."""
        from bench.report.figures.categories import draw_categories
        from bench.report.figures.collect import category_values

        found = self._all_trials(metric)
        first, whole = found[0], not self.categories
        heads = list(dict.fromkeys(head for trials in found for head in trials.heads))
        return draw_categories(
            {trials.group: category_values(trials, average=whole) for trials in found},
            heads,
            [*first.categories, *["Average"] * whole],
            first.table.metric_name,
            boxes=boxes,
            title=f"{first.table.title}: {first.table.metric_name} per category",
            notes=[note for trials in found for note in trials.notes],
        )

    def tsne(
        self,
        watch: Watch,
        say: Callable[[str], None],
        seed: int | None = None,
        device: str | None = None,
        workers: int | None = None,
    ) -> Figure:
        """Test images in the methods' feature spaces.

        Trials whose features are not in the store are repeated for them, see
        :func:`bench.report.repeat.keep_features`; what the user should know of that is said.
        """
        from bench.report.figures.collect import cloud, same_scores, with_features
        from bench.report.figures.tsne import draw_tsne
        from bench.report.repeat import keep_features

        trials = self._trials("image_auroc")
        heads, notes = with_features(trials)
        if not self.categories:
            # The first four categories that all methods have values for: more panels do not fit a page.
            trials = trials.only([c for c in trials.categories if all(trials.of(h, c) for h in heads)][:4])
        places = [(head, category) for head in heads for category in trials.categories]
        chosen = {place: trials.one(*place, seed) for place in places}
        data = self._data(trials)
        keep_features([trial.record for trial in chosen.values()], self.store, data, device, workers, watch)
        said = "repeated for its features, has other scores than its record; other versions or another device?"
        for trial in chosen.values():
            if not same_scores(trial, self.store):
                say(f"note: {trial.name}, {said}")
        clouds = {place: cloud(trial, self.store, data) for place, trial in chosen.items()}
        title = trials.title("features of test images", chosen.values())
        meaning = "t-SNE of each method's features of the test images; the axes mean nothing"
        return draw_tsne(clouds, heads, trials.categories, title, [meaning, *notes, *trials.notes])

    def cd(self, metric: str) -> Figure:
        """The critical-difference diagram of the methods' mean ranks over categories."""
        table = self._table(metric)
        return diagram(compare(table, groups(table, self.shots)[-1]), self.store)

    def _table(self, metric: str) -> Table:
        """The study's table of one metric, of the chosen methods.

        Raises:
            BenchError: there are several, or none of the chosen dataset.
        """
        tables = load_tables(self.store, self.study, (metric,), methods=self.methods)
        known = ", ".join(dict.fromkeys(table.dataset for table in tables))
        # A dataset may be given with its options, or by its name alone.
        if self.dataset is not None:
            tables = [t for t in tables if self.dataset in (t.dataset, parse_spec(t.dataset).name)]
        if len(tables) > 1:
            said = "; ".join(table.heading for table in tables)
            raise BenchError(f"a figure shows one table; choose with --dataset and --study among: {said}")
        if not tables:
            raise BenchError(f"study {self.study} has no dataset {self.dataset!r}; it has {known}")
        return tables[0]

    def _trials(self, metric: str) -> Trials:
        """The trials of one column group: that of the most shots, unless another is chosen."""
        table = self._table(metric)
        return Trials(table, self.store, groups(table, self.shots)[-1], self.categories)

    def _all_trials(self, metric: str) -> list[Trials]:
        """The trials of every column group that has a value.

        Raises:
            BenchError: none has.
        """
        table = self._table(metric)
        # A column group without any value has no figure; it is an error only if none has one.
        found, refused = [], []
        for group in groups(table, self.shots):
            try:
                found.append(Trials(table, self.store, group, self.categories))
            except BenchError as error:
                refused.append(str(error))
        if not found:
            raise BenchError(refused[0])
        return found

    def _data(self, trials: Trials) -> RecordedData:
        """The data that the trials were tested on."""
        from bench.store.scores import RecordedData

        return RecordedData(self.store, read_roots(self.roots, tuple(map(parse_spec, trials.dataset_labels))))


def diagram(comparison: Comparison, store: Store) -> Figure:
    """The critical-difference diagram of a comparison, with the notes of its records.

    Raises:
        BenchError: there is no test of all methods at once.
    """
    from bench.report.figures.critical import draw_critical_differences

    if comparison.overall is None:
        raise BenchError(f"{comparison.title}: {comparison.refused[-1]}")
    heads = [method.head for method in comparison.methods]
    records = (record for key in comparison.table.keys if (record := store.record(key)) is not None)
    notes = [*notes_of(records), *(f"left out: {reason}" for reason in comparison.left_out)]
    number = len(comparison.categories)
    return draw_critical_differences(comparison.overall, heads, number, comparison.title, notes)
