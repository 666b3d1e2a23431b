"""Reading ``results/reported/``: one CSV of tables, and CSVs of the numbers in them."""

from __future__ import annotations

import csv
import importlib.resources
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from bench.errors import BenchError, shorten, unknown
from bench.metrics.registry import METRICS

AVERAGE = "average"  # the category of a number that stands for a whole dataset
PROTOCOLS = ("loo", "transfer", "training_free", "transductive", "unstated")
KINDS = ("paper", "repository", "quotation", "rerun")

_TABLES = "tables.csv"
_MOST_FAULTS = 20
_NUMBER = re.compile(r"[0-9]+(?:\.([0-9]+))?")


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
        protocol: one of :data:`PROTOCOLS`.
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
        """Whether it stands for a whole dataset."""
        return self.category == AVERAGE


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a row; the header is row 1."""

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
        raise BenchError("\n".join([f"reported numbers: {len(faults)} faulty rows", *shown, *more]))
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
    tables: dict[str, dict[str, Any]] = {}
    for number, fields in _rows(root / _TABLES, _TABLE_FIELDS, (), faults):
        if fields["table"] in tables:
            faults.append(Fault(_TABLES, number, f"the table {fields['table']!r} stands twice"))
        tables[fields.pop("table")] = fields
    rows: list[Reported] = []
    for file in sorted(root.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".csv") or file.name == _TABLES:
            continue
        for number, fields in _rows(file, _FIELDS, _OPTIONAL, faults):
            table = tables.get(fields["table"])
            message = _problem(fields) if table else str(unknown("table", fields["table"], tables))
            if table is None or message:
                faults.append(Fault(file.name, number, message))
                continue
            value, decimals = fields.pop("value")
            parts = {"encoder": "", "deviation": None, "note": "", **table, **fields}
            rows.append(Reported(value=value, decimals=decimals, file=file.name, row=number, **parts))
    return rows, faults


# ------------------------------------------------------------ one row


def _text(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{shorten(text)!r} is not a whole number")
    return int(text)


def _fraction(text: str) -> tuple[float, int]:
    """The number and how many decimals it is printed with."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(f"{shorten(text)!r} is not a number such as 0.908")
    if float(text) > 1:
        raise ValueError(f"{text} is above 1; numbers are fractions, so that 90.8 % is 0.908")
    return float(text), len(match[1] or "")


def _one_of(*known: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in known:
            raise ValueError(str(unknown("value", text, known)))
        return text

    return convert


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: convert(text) if text else None


def _metric_protocol(text: str) -> str:
    from bench.metrics.protocols import resolve

    try:
        return resolve(text).name if text else ""
    except BenchError as error:
        raise ValueError(str(error)) from None


_TABLE_FIELDS: dict[str, Callable[[str], Any]] = {
    "table": _text,
    "paper": _text,
    "place": _text,
    "kind": _one_of(*KINDS),
    "runs": _or_none(_whole),
    "metric_protocol": _metric_protocol,
    "source": _text,
}
_FIELDS: dict[str, Callable[[str], Any]] = {
    "table": _text,
    "method": _text,
    "dataset": _text,
    "category": _text,
    "shots": _or_none(_whole),
    "k": _whole,
    "protocol": _one_of(*PROTOCOLS),
    "trained_on": str,
    "metric": _one_of(*METRICS),
    "value": _fraction,
    "encoder": str,
    "deviation": _or_none(lambda text: _fraction(text)[0]),
    "note": str,
}
_OPTIONAL = ("encoder", "deviation", "note")


def _rows(
    file: Traversable, convert: Mapping[str, Callable[[str], Any]], optional: tuple[str, ...], faults: list[Fault]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The sound rows of a file with their numbers; what is wrong with the others goes to ``faults``."""
    if not file.is_file():
        faults.append(Fault(file.name, 1, "is no file"))
        return
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        text = isinstance(error, UnicodeDecodeError)
        faults.append(Fault(file.name, 1, "is not UTF-8 text" if text else f"cannot be read: {error}"))
        return
    reader = csv.reader(lines, strict=True)
    try:
        head = next(reader, [])
        missing = [name for name in convert if name not in head and name not in optional]
        if missing or len(set(head)) < len(head) or not set(head) <= set(convert):
            expected = ", ".join(convert)
            faults.append(Fault(file.name, 1, f"the columns are {', '.join(head)}; expected {expected}"))
            return
        for cells in reader:
            if len(cells) != len(head):
                message = f"{len(cells)} fields under {len(head)} columns"
                faults.append(Fault(file.name, reader.line_num, message))
                continue
            fields, wrong = {}, []
            for name, cell in zip(head, cells, strict=True):
                try:
                    fields[name] = convert[name](cell.strip())
                except ValueError as error:
                    wrong.append(f"{name} {error}")
            if wrong:
                faults.append(Fault(file.name, reader.line_num, "; ".join(wrong)))
            else:
                yield reader.line_num, fields
    except csv.Error as error:
        faults.append(Fault(file.name, reader.line_num, f"is not CSV: {error}"))


def _problem(fields: Mapping[str, Any]) -> str:
    """What does not go together in a row; empty if nothing."""
    transfer = fields["protocol"] == "transfer"
    if transfer and not fields["trained_on"]:
        return "protocol transfer without trained_on"
    if fields["trained_on"] and not transfer:
        return f"trained_on {fields['trained_on']!r} goes with protocol transfer"
    if fields["shots"] and fields["protocol"] in ("training_free", "transductive"):
        return f"{fields['shots']} labelled anomalies under protocol {fields['protocol']}, which uses none"
    return ""
