"""The trials behind a number of a table: their values, settings, and the commands that repeat them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.errors import BenchError, unknown
from bench.metrics.registry import TITLES
from bench.report.tables import text
from bench.report.tables.model import Cell, CellKey, Column, Row, Table
from bench.store.record import Record
from bench.tools.groups import group
from bench.tools.spec import parse_spec, split_list

RecordOf = Callable[[str], Record | None]  # the record of a key
_SHOWN = 8  # addresses in the message that one is ambiguous


class FoundCell(NamedTuple):
    """A cell with its table, row and column."""

    table: Table
    row: Row
    column: Column
    cell: Cell
    key: CellKey


@dataclass(frozen=True)
class CellTrace:
    """The trials behind one number, or behind one cell's numbers of several metrics.

    Attributes:
        title: of the cell.
        numbers: as the tables show them, one per metric.
        facts: name -> value that all the trials share.
        trials: one mapping per trial, with the same names in each: its values, and its own facts.
        commands: command lines that repeat the trials, one each.
    """

    title: str
    numbers: tuple[str, ...]
    facts: Mapping[str, str]
    trials: tuple[Mapping[str, str], ...]
    commands: tuple[str, ...]


def _cells(tables: Sequence[Table]) -> Iterator[FoundCell]:
    for table in tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                assert cell.address is not None  # every cell of a table has one
                yield FoundCell(table, row, column, cell, cell.address)


def find(tables: Sequence[Table], address: str) -> list[FoundCell]:
    """The cell at an address; several if they are numbers of the same trials under several metrics.

    Args:
        tables: to look in.
        address: names with slashes between them, in any order, such as ``promptad/1-shot/wood``. A name is
            the printed name of a row, column, group, section or dataset, or a label, without its options if that
            is unique, or a metric.

    Raises:
        BenchError: a name that is nowhere (with the nearest one), no such cell, or several.
    """
    chosen = every = list(_cells(tables))
    parts = split_list(address, "/")
    for part in parts:
        word = part.casefold()
        found = [each for each in every if word in _names(each)] or [
            each for each in every if word in _short(each)
        ]
        if not found:
            known = {name for each in every for name in _spelled(each)}
            raise unknown("name", part, known, "in the table")
        chosen = [each for each in chosen if each in found]
    if not parts or not chosen:
        raise BenchError(f"no number is at {address!r}; name a row and a column, as in {_addresses(every)[0]}")
    same = group(chosen, lambda each: (each.cell.keys or each.key, each.key.category))
    if len(same) > 1:
        addresses = _addresses([own[0] for own in same.values()])
        more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
        raise BenchError(
            f"{address!r} may be any of {', '.join(addresses[:_SHOWN])}{more}; add the names in which they differ"
        )
    return chosen


def _spelled(found: FoundCell) -> list[str]:
    """The names of a cell, as they are spelled."""
    table, row, column, key = found.table, found.row, found.column, found.key
    shots = f"{key.shots}-shot" if key.shots is not None else ""
    names = [row.head, row.section, column.head, column.group, key.method, key.category, shots]
    names += [table.title, key.dataset, key.protocol, key.metric, TITLES.get(key.metric, "")]
    return [name for name in names if name]


def _names(found: FoundCell) -> set[str]:
    return {name.casefold() for name in _spelled(found)}


def _short(found: FoundCell) -> set[str]:
    """The labels of the cell's method, dataset and protocol without their options."""
    return {_name(label).casefold() for label in (found.key.method, found.key.dataset, found.key.protocol)}


def _name(label: str) -> str:
    return parse_spec(label.partition(" (")[0]).name


def _addresses(found: Sequence[FoundCell]) -> list[str]:
    """An address of each cell: method, shots and category, and the names in which the cells differ."""
    keys = [each.key for each in found]
    parts = [
        [key.method for key in keys],
        ["" if key.shots is None else f"{key.shots}-shot" for key in keys],
        [key.category for key in keys],
    ]
    for field in ("dataset", "protocol", "metric"):
        values = [getattr(key, field) for key in keys]
        if len(set(values)) > 1:
            parts.append(values)
    if len(set(parts[0])) == len({_name(label) for label in parts[0]}):
        parts[0] = [_name(label) for label in parts[0]]
    return list(dict.fromkeys("/".join(filter(None, words)) for words in zip(*parts, strict=True)))


def trace(found: Sequence[FoundCell], record_of: RecordOf) -> CellTrace:
    """The trials behind cells that have their trials in common."""
    records = [record for key in found[0].cell.keys if (record := record_of(key)) is not None]
    facts = [_facts(record) for record in records]
    shared: dict[str, str] = {}
    for name in facts[0] if facts else ():
        if len({own[name] for own in facts}) == 1:
            shared[name] = facts[0][name]
    trials = []
    for record, own in zip(records, facts, strict=True):
        differing = {name: value for name, value in own.items() if name not in shared}
        trials.append({**_values(record, found), **differing})
    return CellTrace(
        title=_title(found[0]),
        numbers=tuple(dict.fromkeys(map(_number, found))),
        facts=shared,
        trials=tuple(trials),
        commands=tuple(record.provenance.command for record in records if record.provenance.command),
    )


def _title(found: FoundCell) -> str:
    names = [found.key.method, found.column.group, found.key.category, found.key.dataset]
    return ", ".join([*filter(None, names), f"protocol {found.key.protocol}"])


def _number(found: FoundCell) -> str:
    cell, table, key = found.cell, found.table, found.key
    said = f"{TITLES.get(key.metric, key.metric)}: {text.number(cell, table)}"
    if deviation := text.deviation(cell, table):
        said += f" ± {deviation}"
    size = f" at {key.eval_size}" if key.eval_size else ""
    said += f" ({key.metric_protocol}{size})"
    if cell.average and cell.mean is not None:
        said += f", average over {cell.covered} of {cell.categories} categories"
    return f"{said}; {cell.note}" if cell.note else said


def _values(record: Record, found: Sequence[FoundCell]) -> dict[str, str]:
    """The values of one trial, with its category and seed before them and its key and split after them."""
    row = {"category": record.category, "seed": "" if record.seed is None else str(record.seed)}
    for each in found:
        metric, protocol = each.key.metric, each.key.metric_protocol
        value = record.value(metric, protocol)
        if value is not None:
            row[TITLES.get(metric, metric)] = f"{value:.6f}"
        elif (
            record.status == "ok"
        ):  # the metric is not defined, or was not measured; the head of the list says why
            row[TITLES.get(metric, metric)] = "n/a"
        else:
            row[TITLES.get(metric, metric)] = record.status
    return {**row, "trial": record.key[:12], "split": (record.protocol.manifest or "")[:12]}


def _facts(record: Record) -> dict[str, str]:
    """The settings and the environment of a trial."""
    method, dataset, protocol, provenance = record.method, record.dataset, record.protocol, record.provenance
    source = f" from {protocol.source.name}" if protocol.source is not None else ""
    encoders = (f"{each.name}, weights SHA-256 {each.sha256}" for each in record.encoders.values())
    versions = [f"{name} {version}" for name, version in provenance.versions.items()]
    return {
        "method": f"{method.label}, version {method.version}",
        "data": f"{dataset.label}, version {dataset.version}, SHA-256 {dataset.fingerprint}",
        "protocol": f"{protocol.label}{source}",
        "shots": "none" if record.shots is None else str(record.shots),
        "encoders": ", ".join(encoders) or "none",
        "prompts": record.prompts or "none",
        "bench": f"{provenance.bench}, revision {provenance.revision}",
        "versions": ", ".join([*versions, f"Python {provenance.python}"]),
        "ran on": f"{provenance.device or 'unknown device'}, {provenance.platform}",
    }


def render(cell: CellTrace) -> str:
    """The trace of a cell as plain text."""
    return "\n".join(_lines(cell)) + "\n"


def _lines(cell: CellTrace) -> Iterator[str]:
    yield cell.title
    yield from (f"  {number}" for number in cell.numbers)
    if not cell.trials:
        yield "  no trial has been run for it"
        return
    yield ""
    names = list(cell.trials[0])
    lines = [names, *([trial[name] for name in names] for trial in cell.trials)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  " + "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
    yield ""
    width = max(map(len, cell.facts), default=0)
    yield from (f"  {name.ljust(width)}  {value}" for name, value in cell.facts.items())
    yield ""
    yield "  To run them again, in another folder (--store), since the trials in this one are done:"
    yield from (f"  {command}" for command in cell.commands)
