"""``bench figure``: a paper's figures, from the records and stored scores of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli._options import read_metrics, store_option, study_option
from bench.errors import BenchError
from bench.metrics import registry
from bench.metrics.registry import MEASURED
from bench.report.tables.study import chosen_study
from bench.store.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@click.group("figure")
def command() -> None:
    """Draw a figure of a study that was run: PDF, SVG or PNG by the file's ending.

    The same records give the same file, byte for byte.
    """


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    options: list[Callable[..., Any]] = [
        study_option,
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
        from bench.report.figures.study import StudyFigures
        from bench.tools.spec import split_specs

        store = Store(options["store"])
        study = chosen_study(store, options["study_name"])
        self.output: Path = options["output"] or Path(f"{study}-{name}.pdf")
        check_suffix(self.output)
        methods = options["methods"]
        self.figures = StudyFigures(
            store,
            study,
            options["dataset"],
            [str(spec) for spec in split_specs(methods)] if methods else None,
            options["shots"],
            _parts(options.get("categories")),
            options.get("roots"),
        )

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
    request = _Request("maps", options)
    request.save(request.figures.maps(_parts(images), count, seed))


@command.command("curves")
@_shared
@_categories
@_metric_option(tuple(metric.name for metric in registry.METRICS.values() if metric.curve))
@_data_root
def curves(metric: str, **options: Any) -> None:
    """ROC, precision-recall or PRO curves, a panel per category: those under which the metric is the area."""
    request = _Request("curves", options)
    request.save(request.figures.curves(_one_metric(metric)))


@command.command("categories")
@_shared
@_categories
@_metric_option(MEASURED)
@click.option("--kind", type=click.Choice(["bar", "box"]), default="bar", show_default=True)
def categories(metric: str, kind: str, **options: Any) -> None:
    """A metric per category and method: bars of the means, or boxes over the seeds.

    The means are those of bench table; a cross marks what has no value.
    """
    request = _Request("categories", options)
    request.save(request.figures.by_category(_one_metric(metric), kind == "box"))


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
    from bench.api.progress import ProgressListener, terminal
    from bench.tools.text import count

    def say(text: str) -> None:
        click.echo(text, err=True)

    def watch(number: int) -> ProgressListener:
        say(f"repeating {count(number, 'trial')} for the features")
        return ProgressListener(terminal(), number, 0)

    request = _Request("tsne", options)
    request.save(request.figures.tsne(watch, say, seed, device, workers))


@command.command("cd")
@_shared
@_metric_option(MEASURED)
def cd(metric: str, **options: Any) -> None:
    """The critical-difference diagram of the methods' mean ranks over categories, as bench compare has it."""
    request = _Request("cd", options)
    request.save(request.figures.cd(_one_metric(metric)))


def _one_metric(text: str) -> str:
    metrics = read_metrics(text)
    if len(metrics) != 1:
        raise BenchError(f"--metric {text}: one metric at a time")
    return metrics[0]


def _parts(text: str | None) -> tuple[str, ...]:
    """The parts between the commas, each once."""
    return tuple(dict.fromkeys(part for part in map(str.strip, (text or "").split(",")) if part))
