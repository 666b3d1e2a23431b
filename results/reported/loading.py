"""Reading ``results/reported/``: one CSV of tables, and CSVs of the numbers in them."""

from __future__ import annotations

import csv
import importlib.resources
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import asdict

from bench.errors import BenchError, shorten, unknown
from bench.metrics.protocols import resolve
from bench.metrics.registry import METRICS
from bench.reported.schema import NumberRow, TableRow
from bench.tools.text import count
from bench.tools.validation import read_as

DATASET_AVERAGE = "average"  # the category of a number that stands for a whole dataset
REPORTED_PROTOCOLS: tuple[str, ...] = typing.get_args(typing.get_type_hints(NumberRow)["protocol"])

_TABLES = "tables.csv"
_MOST_FAULTS = 20
_OPTIONAL = {"encoder", "deviation", "note"}  # columns that a file may leave out
_NUMBER = re.compile(r"[0-9]+(?:\.([0-9]+))?")

Row = TypeVar("Row", TableRow, NumberRow)


@dataclass(frozen=True, slots=True)
class Reported:
    """One number of one paper.

    Attributes:
        paper: who says so, e.g. ``PromptAD-WACV2024``; ``place``: where in it, e.g. ``Table 1``.
        kind: ``paper``, the authors' own ``repository``, somebody's ``quotation`` of it, or a ``rerun`` by others.
        source: its address.
        table: key of the table in ``tables.csv``; numbers of one table belong together.
        method: as the paper calls it.
        dataset: as this harness calls it, e.g. ``mvtec``.
        category: e.g. ``metal_nut``, or ``average``.
        shots: labelled anomalies per seen category; None if not stated, or no fixed number.
        k: normal images of the target category; 0 is zero-shot.
        protocol: one of :data:`REPORTED_PROTOCOLS`.
        trained_on: under ``transfer``, what was learned from.
        encoder: where it is not the method's own; ``unstated`` if that is not known; else empty.
        metric: e.g. ``image_auroc``.
        metric_protocol: the one that takes pixel metrics as the source does; empty if it does not say how.
        value: a fraction in [0, 1]; ``decimals``: how many of its decimals the source prints.
        deviation: standard deviation over runs, a fraction; None if not reported.
        runs: how many runs it is the mean of; None if not stated.
        note: what else is to be known.
        file, row: where it stands here; the header is row 1.
    """

    paper: str
    place: str
    kind: str
    source: str
    table: str
    method: str
    dataset: str
    category: str
    shots: int | None
    k: int
    protocol: str
    trained_on: str
    encoder: str
    metric: str
    metric_protocol: str
    value: float
    decimals: int
    deviation: float | None
    runs: int | None
    note: str
    file: str
    row: int

    @property
    def average(self) -> bool:
        """True for a number that stands for a whole dataset."""
        return self.category == DATASET_AVERAGE


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of a row; the header is row 1."""

    file: str
    row: int
    message: str

    def __str__(self) -> str:
        return f"{self.file} row {self.row}: {self.message}"


def load(folder: Path | None = None) -> list[Reported]:
    """All reported numbers, in the order of the files' names and their rows.

    Args:
        folder: another folder of the same form; by default the one that comes with the package.

    Raises:
        BenchError: a row breaks the schema; the message has one line per fault.
    """
    rows, faults = read(folder)
    if faults:
        shown = [f"  {fault}" for fault in faults[:_MOST_FAULTS]]
        more = [f"  and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise BenchError("\n".join([f"reported numbers: {count(len(faults), 'faulty row')}", *shown, *more]))
    return rows


def read(folder: Path | None = None) -> tuple[list[Reported], list[Fault]]:
    """The numbers whose rows are sound, and the faults of the others.

    Raises:
        BenchError: there is no such folder, or no ``tables.csv`` in it.
    """
    root: Traversable = folder or importlib.resources.files("bench.reported")
    if not (root / _TABLES).is_file():
        raise BenchError(f"{folder}: no reported numbers here; expected {_TABLES} and CSVs of numbers beside it")
    faults: list[Fault] = []
    tables: dict[str, TableRow] = {}
    for number, table in _rows(root / _TABLES, TableRow, faults):
        try:
            table.metric_protocol = resolve(table.metric_protocol).name if table.metric_protocol else ""
        except BenchError as error:
            faults.append(Fault(_TABLES, number, f"metric_protocol: {error}"))
            continue
        if table.table in tables:
            faults.append(Fault(_TABLES, number, f"the table {table.table!r} is given twice"))
        tables[table.table] = table
    numbers: list[Reported] = []
    for file in sorted(root.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".csv") or file.name == _TABLES:
            continue
        for number, row in _rows(file, NumberRow, faults):
            try:
                numbers.append(_joined(row, tables, file.name, number))
            except BenchError as error:
                faults.append(Fault(file.name, number, str(error)))
    return numbers, faults


def _joined(row: NumberRow, tables: Mapping[str, TableRow], file: str, number: int) -> Reported:
    """A number together with the facts of its table.

    Raises:
        BenchError: there is no such table or metric, or parts of the row do not go together.
    """
    if row.table not in tables:
        raise unknown("table", row.table, tables)
    if row.metric not in METRICS:
        raise unknown("metric", row.metric, METRICS)
    transfer = row.protocol == "transfer"
    if transfer and not row.trained_on:
        raise BenchError("protocol transfer without trained_on")
    if row.trained_on and not transfer:
        raise BenchError(f"trained_on {shorten(row.trained_on)!r} goes with protocol transfer")
    if row.shots and row.protocol in ("training_free", "transductive"):
        raise BenchError(f"{row.shots} labelled anomalies under protocol {row.protocol}, which uses none")
    value, decimals = _fraction("value", row.value)
    facts: dict[str, Any] = {**asdict(tables[row.table]), **asdict(row), "value": value, "decimals": decimals}
    facts["deviation"] = _fraction("deviation", row.deviation)[0] if row.deviation else None
    return Reported(**facts, file=file, row=number)


def _fraction(column: str, text: str) -> tuple[float, int]:
    """The number, and how many decimals it is printed with."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BenchError(f"{column} {shorten(text)!r} is not a number such as 0.908")
    if float(text) > 1:
        raise BenchError(f"{column} {shorten(text)} is above 1; numbers are fractions, so that 90.8 % is 0.908")
    return float(text), len(match[1] or "")


def _rows(file: Traversable, cls: type[Row], faults: list[Fault]) -> Iterator[tuple[int, Row]]:
    """The sound rows of a CSV with their numbers; the faults of the others go to ``faults``."""
    if not file.is_file():
        faults.append(Fault(file.name, 1, "is no file"))
        return
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        faults.append(Fault(file.name, 1, "is not UTF-8 text"))
        return
    except OSError as error:
        faults.append(Fault(file.name, 1, f"cannot be read: {error}"))
        return
    columns = cls.__struct_fields__
    reader = csv.reader(lines, strict=True)
    try:
        head = next(reader, [])
        missing = set(columns) - set(head) - _OPTIONAL
        if missing or len(set(head)) < len(head) or not set(head) <= set(columns):
            message = f"the columns are {', '.join(head)}; expected {', '.join(columns)}"
            faults.append(Fault(file.name, 1, message))
            return
        for cells in reader:
            if len(cells) != len(head):
                message = f"{len(cells)} fields under {len(head)} columns"
                faults.append(Fault(file.name, reader.line_num, message))
                continue
            filled = {}  # an empty cell is one that is left out
            for name, cell in zip(head, cells, strict=True):
                if cell.strip():
                    filled[name] = cell.strip()
            try:
                row = read_as(filled, cls, strict=False)
            except BenchError as error:
                faults.append(Fault(file.name, reader.line_num, str(error)))
            else:
                yield reader.line_num, row
    except csv.Error as error:
        faults.append(Fault(file.name, reader.line_num, f"is not CSV: {error}"))
