"""``bench figure``: a paper's figures, from the records and stored scores of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli._options import read_metrics, read_roots, store_option
from bench.cli.table import chosen_study, load_tables
from bench.errors import BenchError
from bench.metrics import registry
from bench.metrics.registry import MEASURED
from bench.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.report.figures.trials import Trials
    from bench.report.tables.model import Table
    from bench.store.scores import RecordedData


@click.group("figure")
def command() -> None:
    """Draw a figure of a study that was run: PDF, SVG or PNG by the file's ending.

    The same records give the same file, byte for byte.
    """


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    options: list[Callable[..., Any]] = [
        click.option("--study", help="A study that was run here.  [default: the latest]"),
        click.option("--dataset", help="Which, if the study has several."),
        click.option("--methods", help="Only these, with commas, in that order.  [default: all]"),
        click.option("--shots", type=click.IntRange(min=0), help="Only this column group."),
        click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="FILE.pdf, .svg or .png."),
        store_option,
    ]
    for decorate in reversed(options):
        function = decorate(function)
    return function


def _metric_option(known: tuple[str, ...]) -> Callable[..., Any]:
    return click.option("--metric", default=known[0], show_default=True, help=f"One of {', '.join(known)}.")


_categories = click.option("--categories", help="Only these, with commas, in that order.")
_seed = click.option("--seed", type=click.IntRange(min=0), help="Which seed.  [default: the first]")
_data_root = click.option(
    "--data-root", "roots", multiple=True, help="The dataset's folder.  [default: where the study found it]"
)


class _Request:
    """The study that a figure is made of, and the file that it becomes."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        from bench.report.figures.critical import check_suffix

        self.options = options
        self.store = Store(options["store"])
        self.study = chosen_study(self.store, options["study"])
        self.output: Path = options["output"] or Path(f"{self.study}-{name}.pdf")
        check_suffix(self.output)

    def table(self, metric: str) -> Table:
        """The study's table of one metric, of the chosen methods.

        Raises:
            BenchError: there are several, or none of the chosen dataset.
        """
        from bench.tools.spec import parse_spec, split_specs

        metrics = read_metrics(metric)
        if len(metrics) != 1:
            raise BenchError(f"--metric {metric}: one metric at a time")
        given, dataset = self.options["methods"], self.options["dataset"]
        methods = [str(spec) for spec in split_specs(given)] if given else None
        tables = load_tables(self.store, self.study, metrics, methods=methods)
        known = ", ".join(dict.fromkeys(table.dataset for table in tables))
        # A dataset may be given with its options, or by its name alone.
        if dataset is not None:
            tables = [t for t in tables if dataset in (t.dataset, parse_spec(t.dataset).name)]
        if len(tables) > 1:
            said = "; ".join(table.heading for table in tables)
            raise BenchError(f"a figure shows one table; choose with --dataset and --study among: {said}")
        if not tables:
            raise BenchError(f"study {self.study} has no dataset {dataset!r}; it has {known}")
        return tables[0]

    def trials(self, metric: str) -> Trials:
        """The trials of one column group: that of the most shots, unless --shots says another."""
        from bench.report.comparison.compare import groups
        from bench.report.figures.trials import Trials

        table = self.table(metric)
        return Trials(table, self.store, groups(table, self.options["shots"])[-1], self.categories)

    def all_trials(self, metric: str) -> list[Trials]:
        """The trials of every column group that has a value.

        Raises:
            BenchError: none has.
        """
        from bench.report.comparison.compare import groups
        from bench.report.figures.trials import Trials

        table = self.table(metric)
        # A column group without any value has no figure; it is an error only if none has one.
        found, refused = [], []
        for group in groups(table, self.options["shots"]):
            try:
                found.append(Trials(table, self.store, group, self.categories))
            except BenchError as error:
                refused.append(str(error))
        if not found:
            raise BenchError(refused[0])
        return found

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that were named."""
        return _parts(self.options["categories"])

    def data(self, trials: Trials) -> RecordedData:
        """The data that the trials were tested on."""
        from bench.store.scores import RecordedData
        from bench.tools.spec import parse_spec

        datasets = tuple(map(parse_spec, trials.dataset_labels))
        return RecordedData(self.store, read_roots(self.options["roots"], datasets))

    def save(self, figure: Figure) -> None:
        from bench.report.figures.critical import save_figure

        save_figure(figure, self.output)
        click.echo(f"written: {self.output}", err=True)


@command.command("maps")
@_shared
@_categories
@click.option("--images", help="Test images, with commas: scratch/004.  [default: --count of them]")
@click.option("--count", type=click.IntRange(min=1), default=3, show_default=True, help="Images per category.")
@_seed
@_data_root
def maps(images: str | None, count: int, seed: int | None, **options: Any) -> None:
    """Images, masks and anomaly maps side by side.

    One method is shown with the maps of its branches (--methods promptad), several with a map each. Without
    --images they are anomalous images from the best-localised one to the worst, and without --categories those
    of the first category.
    """
    from bench.report.figures.collect import map_rows
    from bench.report.figures.maps import draw_maps

    request = _Request("maps", options)
    trials = request.trials("pixel_auroc")
    if not (request.categories or images):
        # The first category that any method has a value for.
        trials = trials.only([c for c in trials.categories if any(trials.of(h, c) for h in trials.heads)][:1])
    found = map_rows(trials, request.data(trials), count, _parts(images), seed)
    title = trials.title("anomaly maps", found.trials)
    request.save(draw_maps(found.rows, found.heads, title, [*found.notes, *trials.notes]))


@command.command("curves")
@_shared
@_categories
@_metric_option(tuple(metric.name for metric in registry.METRICS.values() if metric.curve))
@_data_root
def curves(metric: str, **options: Any) -> None:
    """ROC, precision-recall or PRO curves, a panel per category: those under which the metric is the area."""
    from bench.report.figures.collect import curve_panels
    from bench.report.figures.curves import CURVE_TITLES, draw_curves

    request = _Request("curves", options)
    trials = request.trials(metric)
    panels = curve_panels(trials, request.data(trials))
    table = trials.table
    notes = [f"Numbers: {table.metric_name} (metric protocol {table.metric_protocol})"]
    title = trials.title(CURVE_TITLES[metric])
    request.save(draw_curves(panels, trials.heads, metric, title, [*notes, *trials.notes]))


@command.command("categories")
@_shared
@_categories
@_metric_option(MEASURED)
@click.option("--kind", type=click.Choice(["bar", "box"]), default="bar", show_default=True)
def categories(metric: str, kind: str, **options: Any) -> None:
    """A metric per category and method: bars of the means, or boxes over the seeds.

    The means are those of bench table; a cross marks what has no value.
    """
    from bench.report.figures.categories import draw_categories
    from bench.report.figures.collect import category_values

    request = _Request("categories", options)
    groups = request.all_trials(metric)
    first, whole = groups[0], not request.categories
    heads = list(dict.fromkeys(head for trials in groups for head in trials.heads))
    figure = draw_categories(
        {trials.group: category_values(trials, average=whole) for trials in groups},
        heads,
        [*first.categories, *["Average"] * whole],
        first.table.metric_name,
        boxes=kind == "box",
        title=f"{first.table.title}: {first.table.metric_name} per category",
        notes=[note for trials in groups for note in trials.notes],
    )
    request.save(figure)


@command.command("tsne")
@_shared
@_categories
@_seed
@_data_root
@click.option("--device", help="Where trials are repeated.  [default: the best there is]")
@click.option("--workers", type=click.IntRange(min=0), help="Trials repeated side by side; 0: in this process.")
def tsne(seed: int | None, device: str | None, workers: int | None, **options: Any) -> None:
    """Test images in the methods' feature spaces by t-SNE, a row per method and a panel per category.

    Trials whose features are not in the store yet are repeated for them. Without --categories it shows the
    first four.
    """
    from bench.cli._repeat import keep_features
    from bench.report.figures.collect import cloud, same_scores, with_features
    from bench.report.figures.tsne import draw_tsne

    request = _Request("tsne", options)
    trials = request.trials("image_auroc")
    heads, notes = with_features(trials)
    if not request.categories:
        # The first four categories that all methods have values for: more panels do not fit a page.
        trials = trials.only([c for c in trials.categories if all(trials.of(h, c) for h in heads)][:4])
    places = [(head, category) for head in heads for category in trials.categories]
    chosen = {place: trials.one(*place, seed) for place in places}
    data = request.data(trials)
    records = [trial.record for trial in chosen.values()]
    keep_features(records, request.store, data, device, workers)
    for trial in chosen.values():
        if not same_scores(trial, request.store):
            said = "repeated for its features, has other scores than its record; other versions or another device?"
            click.echo(f"note: {trial.name}, {said}", err=True)
    clouds = {place: cloud(trial, request.store, data) for place, trial in chosen.items()}
    title = trials.title("features of test images", chosen.values())
    notes = ["t-SNE of each method's features of the test images; the axes mean nothing", *notes, *trials.notes]
    request.save(draw_tsne(clouds, heads, trials.categories, title, notes))


@command.command("cd")
@_shared
@_metric_option(MEASURED)
def cd(metric: str, **options: Any) -> None:
    """The critical-difference diagram of the methods' mean ranks over categories, as bench compare has it."""
    from bench.cli.compare import diagram
    from bench.report.comparison.compare import compare, groups

    request = _Request("cd", options)
    table = request.table(metric)
    request.save(diagram(compare(table, groups(table, options["shots"])[-1]), request.store))


def _parts(text: str | None) -> tuple[str, ...]:
    """The parts between the commas, each once."""
    return tuple(dict.fromkeys(part for part in map(str.strip, (text or "").split(",")) if part))
