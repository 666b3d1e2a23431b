"""The HTML of a page, from the templates; everything that comes from a study is escaped."""

from __future__ import annotations

import base64
import hashlib
import math
import re
from importlib.resources import files

import jinja2
from markupsafe import Markup

import bench
from bench.metrics.registry import TITLES
from bench.report.page import pictures
from bench.report.page.content import Page
from bench.report.page.gallery import PERCENTILES
from bench.report.page.speed import PARTS
from bench.report.statistics.common import ALPHA, LEVEL
from bench.report.tables import text
from bench.report.tables.model import NO_SEEDS, Cell, Table

_STYLES = ("page.css", "tables.css", "trials.css")


def render(page: Page) -> str:
    """The page as one HTML document that needs nothing else: no server, no network, no other file.

    Its content security policy allows pictures inside the page and its own script, and nothing from
    elsewhere, so that not even a mistake in escaping could load or run anything.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.report.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": text.number, "deviation": text.deviation, "value": _value}
    environment.filters |= {"shade": _shade, "axis": _axis, "along": _along, "breakable": _breakable}
    script = _asset("page.js")
    content = environment.get_template("page.html").render(
        page=page,
        metrics=_metrics(page),
        methods={method.label: method.head for part in page.parts for method in part.methods},
        shots=_shots(page),
        notes=_notes(page),
        colours=pictures.scale(),
        version=bench.__version__,
        style=Markup("\n".join(map(_asset, _STYLES))),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        alpha=ALPHA,
        level=f"{LEVEL:.0%}",
        no_seeds=NO_SEEDS,
        timed=PARTS,
        side=pictures.SIDE,
        percentiles=PERCENTILES,
    )
    return content + "\n"


def _asset(name: str) -> str:
    return files("bench.report.page").joinpath("assets", name).read_text(encoding="utf-8").strip()


def _metrics(page: Page) -> dict[str, str]:
    """The page's metrics with their printed names."""
    found = dict.fromkeys(table.metric for part in page.parts for table in part.tables)
    return {metric: TITLES.get(metric, metric) for metric in found}


def _shots(page: Page) -> list[int]:
    columns = (column for part in page.parts for column in part.tables[0].columns)
    return sorted({column.shots for column in columns if column.shots is not None})


def _notes(page: Page) -> list[str]:
    """The datasets' own notes, and what is there of those that are not whole, each once."""
    found: dict[str, None] = {}
    for part in page.parts:
        for method in part.methods:
            if method.trial:
                record = method.trial.record
                found |= dict.fromkeys([record.dataset.note, *record.subsets])
    return [note for note in found if note]


def _breakable(name: str) -> Markup:
    """A name that may break between its options."""
    return Markup("<wbr>").join(re.findall(r"[^,\[(]+[,\[(]?|.", text.clean(name)))


def _value(value: float | None, table: Table) -> str:
    """A number in the table's print; a dash for none."""
    return NO_SEEDS if value is None else text.number(Cell("ok", mean=value), table)


def _shade(cell: Cell, table: Table) -> str:
    """The position of a number between the table's lowest and highest, from 0 to 1."""
    means = [mean for row in table.rows for other in row.cells if (mean := other.mean) is not None]
    return _along(cell.mean or 0.0, (min(means), max(means)))


def _axis(table: Table) -> tuple[float, float]:
    """The two ends of an axis that holds every value of every seed: tenths."""
    values = [value for row in table.rows for cell in row.cells for _, value in cell.by_seed]
    return math.floor(10 * min(values, default=0)) / 10, math.ceil(10 * max(values, default=1)) / 10


def _along(value: float, ends: tuple[float, float]) -> str:
    """The position of a value along an axis, from 0 to 1."""
    return f"{(value - ends[0]) / ((ends[1] - ends[0]) or 1):.3f}"
