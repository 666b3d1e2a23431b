"""Tables as CSV."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable

from bench.report.tables.model import Cell, Table

FIELDS = (
    "dataset",
    "metric",
    "protocol",
    "category",
    "shots",
    "method",
    "mean",
    "std",
    "seeds",
    "status",
    "reason",
    "metric_protocol",
    "eval_size",
)


def render(tables: Iterable[Table]) -> str:
    """One line per cell; numbers are always fractions in full, whatever the table prints."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")  # None becomes an empty field
    writer.writerow(FIELDS)
    rows = (row for table in tables for row in table.rows)
    for cell in itertools.chain.from_iterable(row.cells for row in rows):
        address = cell.address
        assert address is not None  # every cell of a table has one
        writer.writerow(
            [
                _no_formula(address.dataset),
                address.metric,
                _no_formula(address.protocol),
                _no_formula(address.category),
                address.shots,
                _no_formula(address.method),
                cell.mean,
                cell.deviation,
                None if cell.structural else cell.seeds,
                cell.status,
                _no_formula(_reason(cell)),
                address.metric_protocol,
                address.eval_size,
            ]
        )
    return stream.getvalue()


def _no_formula(name: str) -> str:
    """A name that no spreadsheet takes for a formula: behind an apostrophe if it begins like one (OWASP)."""
    return f"'{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r")) else name


def _reason(cell: Cell) -> str:
    said = [f"average of {cell.covered} of {cell.categories} categories"] if cell.incomplete else []
    said += [cell.note or ("no record" if cell.status == "missing" else "")]
    for category, measured, of in cell.pixel_images:
        where = f"{category}: " if cell.average else ""
        said.append(f"{where}on {measured} of {of} test images, without anomalous ones that have no mask")
    return "; ".join(filter(None, said))
