"""Results of a study: its tables, figures and page, from the records in its store."""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from bench.api.progress import ProgressListener, say, terminal
from bench.api.run import open_store
from bench.errors import BenchError, unknown
from bench.metrics.blocks import DEFAULT
from bench.metrics.registry import MEASURED, METRICS
from bench.report.figures.study import FIGURES, StudyFigures
from bench.report.tables.study import PLAIN, chosen_study, load_tables
from bench.study.build import Files, Names, read_names, read_specs
from bench.tools.spec import parse_spec
from bench.tools.text import count

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from bench.report.tables.model import Best, Table
    from bench.report.tables.table import Style
    from bench.store.record import Record

_SHOWN = ("image_auroc", "pixel_auroc")  # of a study that a notebook shows, as bench run prints them
_MOST_FAILURES = 10


class Results:
    """A study that was run, or is running: everything is read from its store when it is asked for.

        >>> results = bench.run("quick")                     # doctest: +SKIP
        >>> results = bench.Results("quick")                 # as it is in the store  # doctest: +SKIP
        >>> results.table("image_auroc")                     # doctest: +SKIP

    Attributes:
        name: the study's, and ``store``, which holds it.

    Args:
        study: its name (``bench list runs``); the latest by default.
        store: folder of the records; by default the environment's BENCH_STORE, or ``results/runs``.

    Raises:
        BenchError: there is no such study.
    """

    def __init__(self, study: str | None = None, *, store: str | os.PathLike[str] | None = None) -> None:
        self.store = open_store(store)
        self.name = chosen_study(self.store, study)

    def __repr__(self) -> str:
        from bench.report.status import in_words, study_status

        return f"<study {self.name}: {in_words(study_status(self.store, self.name).counts)}>"

    def _repr_html_(self) -> str:
        """The study as a notebook shows it: its tables, after a line on what failed or is missing."""
        from markupsafe import escape

        lines = [f"<p>{escape(repr(self)[1:-1])}</p>"]
        failures = self.failures
        for record in failures[:_MOST_FAILURES]:
            where = f"{record.method.label} on {record.category}"
            lines.append(f"<div>failed: {escape(where)}: {escape(record.reason)}</div>")
        if len(failures) > _MOST_FAILURES:
            lines.append(f"<div>and {len(failures) - _MOST_FAILURES} more: results.failures</div>")
        with contextlib.suppress(BenchError):  # nothing has finished yet
            lines += [table._repr_html_() for table in self.tables(_SHOWN, layout=None)]
        return "\n".join(lines)

    # ------------------------------------------------------------ trials

    @property
    def records(self) -> list[Record]:
        """The records of all trials; those that have not run have the status ``missing``."""
        return self.store.study_records(self.name)

    @property
    def counts(self) -> Counter[str]:
        """State (done, running, failed, skipped, missing) -> number of trials, as ``bench status`` counts them."""
        from bench.report.status import study_status

        return study_status(self.store, self.name).counts

    @property
    def failures(self) -> list[Record]:
        """The records of the trials that failed; ``record.reason`` says why."""
        return [record for record in self.records if record.status == "failed"]

    def frame(self) -> DataFrame:
        """One line per trial and metric protocol, one column per metric; see :func:`bench.results`."""
        from bench.report.frame import frame

        return frame(self.records)

    # ------------------------------------------------------------ tables

    def table(
        self,
        metric: str = "image_auroc",
        *,
        dataset: str | None = None,
        protocol: str | None = None,
        methods: Names | None = None,
        metric_protocol: str = DEFAULT,
        **style: Unpack[Style],
    ) -> Table:
        """The table of one metric: rows are categories, columns are methods.

        A notebook shows it as HTML, ``print`` as text; :func:`bench.report.tables.formats.render` gives LaTeX,
        Markdown and CSV.

        Args:
            metric: ``image_auroc``, ``pixel_auroc``, ``aupro``, ...
            dataset: label or name; needed where the study has several.
            protocol: label or name; needed where the study has several.
            methods: labels or names, in the order of the columns; all by default.
            metric_protocol: ``exact``, or one that ``bench rescore`` has added.
            style: see :class:`bench.report.tables.table.Style`.

        Raises:
            BenchError: no trial has finished; the metric, dataset, protocol or method is unknown; there are
                several such tables.
        """
        found = self.tables(metric, methods=methods, metric_protocol=metric_protocol, **style)
        known = "; ".join(f"{each.dataset} under {each.protocol}" for each in found)
        if dataset is not None:
            found = [each for each in found if dataset in (each.dataset, parse_spec(each.dataset).name)]
        if protocol is not None:
            found = [each for each in found if protocol in (each.protocol, parse_spec(each.protocol).name)]
        if len(found) != 1:
            problem = "there are several tables; choose by dataset= and protocol=" if found else "no such table"
            raise BenchError(f"study {self.name}: {problem} among: {known}")
        return found[0]

    def tables(
        self,
        metrics: Names = _SHOWN,
        *,
        layout: str | None = PLAIN,
        methods: Names | None = None,
        metric_protocol: str = DEFAULT,
        **style: Unpack[Style],
    ) -> list[Table]:
        """All tables: one per dataset, protocol and metric, or those of a paper's layout.

        Args:
            metrics: of plain tables.
            layout: ``plain``, ``table1`` to ``table4``, or None for the study's own.
            methods, metric_protocol, style: see :meth:`table`.

        Raises:
            BenchError: see :meth:`table`.
        """
        return load_tables(
            self.store,
            self.name,
            _known_metrics(metrics),
            layout=layout,
            methods=None if methods is None else [str(spec) for spec in read_specs(methods)],
            metric_protocol=metric_protocol,
            **style,
        )

    # ------------------------------------------------------------ figures and page

    def figure(
        self,
        kind: Literal["maps", "curves", "categories", "tsne", "cd"],
        *,
        metric: str | None = None,
        dataset: str | None = None,
        methods: Names | None = None,
        shots: int | None = None,
        categories: Names = (),
        data_root: Files | None = None,
        **options: Any,
    ) -> Figure:
        """A figure, as ``bench figure`` draws it.

        Args:
            kind: ``maps`` (images, masks and anomaly maps), ``curves`` (ROC, precision-recall, per-region
                overlap), ``categories`` (a metric per category), ``tsne`` (features of test images, for which
                trials may be repeated) or ``cd`` (critical differences).
            metric: of ``curves``, ``categories`` and ``cd``; image AUROC by default.
            dataset: label or name; needed where the study has several.
            methods: labels or names, in that order; all by default.
            shots: labelled anomalies per seen category; the most by default, and all in ``categories``.
            categories: in that order; by default all, or as many as there is room for.
            data_root: folder of the dataset, where it was moved; of several, a mapping.
            options: ``count``, ``images`` (their names) and ``seed`` of maps, ``boxes=True`` of categories,
                ``seed``, ``device`` and ``workers`` of tsne.

        Returns:
            A :class:`matplotlib.figure.Figure`; ``figure.savefig("maps.pdf")`` writes it.

        Raises:
            BenchError: an unknown kind or name, nothing to draw, or data that are not where the trials found them.
            TypeError: an option that this kind of figure does not have.
        """
        if kind not in FIGURES:
            raise unknown("figure", kind, FIGURES)
        chosen = None if methods is None else [str(spec) for spec in read_specs(methods)]
        names = tuple(read_names(categories))
        figures = StudyFigures(self.store, self.name, dataset, chosen, shots, names, data_root)
        if kind in ("maps", "tsne"):
            if metric is not None:
                raise BenchError(f"the figure {kind} shows no metric; leave metric out")
        else:
            (options["metric"],) = _known_metrics(metric or "image_auroc")
        draw: dict[str, Callable[..., Figure]] = {
            "maps": figures.maps,
            "curves": figures.curves,
            "categories": figures.by_category,
            "tsne": functools.partial(figures.tsne, _watch, say),
            "cd": figures.cd,
        }
        figure = draw[kind](**options)
        # Matplotlib's own way to show a figure in a notebook is there only after pyplot was imported.
        setattr(figure, "_repr_png_", functools.partial(_png, figure))  # noqa: B010
        return figure

    def save_page(
        self,
        path: str | os.PathLike[str],
        *,
        metrics: Names = MEASURED,
        images: int = 2,
        data_root: Files | None = None,
        percent: bool = False,
        best: Best | None = None,
    ) -> Path:
        """Write the study as one HTML page, as ``bench report`` does, and give its path.

        Args:
            path: of the page.
            metrics: a table each.
            images: worst and best images per method, category and shots; 0 for none.
            data_root: folder of the dataset, where it was moved; of several, a mapping.
            percent: print percentages instead of fractions.
            best: rule for bold numbers: ``tested`` or ``maximum``.

        Raises:
            BenchError: no trial has finished, or a metric is unknown.
            OSError: the page cannot be written.
        """
        from bench.report.page.study import write_page

        page = Path(path)
        chosen = _known_metrics(metrics)
        refused = write_page(
            self.store, self.name, page, chosen, images=images, roots=data_root, percent=percent, best=best
        )
        for reason in refused:
            say(f"note: {reason}")
        return page


def _known_metrics(metrics: Names) -> tuple[str, ...]:
    names = read_names(metrics)
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    return tuple(names)


def _watch(number: int) -> ProgressListener:
    say(f"repeating {count(number, 'trial')} for the features")
    return ProgressListener(terminal(), number, 0)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120, facecolor="white", bbox_inches="tight")
    return content.getvalue()
