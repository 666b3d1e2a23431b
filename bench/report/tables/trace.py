"""What is behind a number of a table: its trials, how they came about, and how to run them again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bench.errors import BenchError, unknown
from bench.report.tables import text
from bench.report.tables.model import METRICS, Cell, Column, Place, Row, Table
from bench.tools.groups import group
from bench.tools.spec import parse_spec, split_list

Records = Callable[[str], Mapping[str, Any] | None]  # the record of a key
_SHOWN = 8  # of the cells that an address may mean


class Found(NamedTuple):
    """A cell and where it stands."""

    table: Table
    row: Row
    column: Column
    cell: Cell
    place: Place


@dataclass(frozen=True)
class Origin:
    """What is behind one number, or behind one cell's numbers of several metrics.

    Attributes:
        title: of which cell.
        numbers: what the tables show, one per metric.
        facts: name -> what all the trials share.
        trials: one mapping per trial, with the same names in each: what it gave, and what sets it apart.
        commands: what runs the trials again, one each.
    """

    title: str
    numbers: tuple[str, ...]
    facts: Mapping[str, str]
    trials: tuple[Mapping[str, str], ...]
    commands: tuple[str, ...]


def _cells(tables: Sequence[Table]) -> Iterator[Found]:
    for table in tables:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                assert cell.place is not None  # every cell of a table has one
                yield Found(table, row, column, cell, cell.place)


def find(tables: Sequence[Table], address: str) -> list[Found]:
    """The cell that an address means; several if they are numbers of the same trials under several metrics.

    Args:
        tables: where to look.
        address: names with slashes between them, in any order, such as ``promptad/1-shot/wood``. A name is
            what the table prints of a row, column, group, section or dataset, or a label, without its options
            if that is clear, or a metric.

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
    same = group(chosen, lambda each: (each.cell.keys or each.place, each.place.category))
    if len(same) > 1:
        addresses = _addresses([own[0] for own in same.values()])
        more = f" and {len(addresses) - _SHOWN} more" if len(addresses) > _SHOWN else ""
        raise BenchError(
            f"{address!r} may be any of {', '.join(addresses[:_SHOWN])}{more}; add what tells them apart"
        )
    return chosen


def _spelled(found: Found) -> list[str]:
    """What a cell may be called by, as it is spelled."""
    table, row, column, place = found.table, found.row, found.column, found.place
    shots = f"{place.shots}-shot" if place.shots is not None else ""
    names = (row.head, row.section, column.head, column.group, place.method, place.category, shots)
    return [
        *filter(
            None, (*names, table.title, place.dataset, place.protocol, place.metric, METRICS.get(place.metric))
        )
    ]


def _names(found: Found) -> set[str]:
    return {name.casefold() for name in _spelled(found)}


def _short(found: Found) -> set[str]:
    """The labels of the cell's method, dataset and protocol without their options."""
    return {_name(label).casefold() for label in (found.place.method, found.place.dataset, found.place.protocol)}


def _name(label: str) -> str:
    return parse_spec(label.partition(" (")[0]).name


def _addresses(found: Sequence[Found]) -> list[str]:
    """An address of each cell, with what is not the same for all of them and its method and category."""
    places = [each.place for each in found]
    parts = [
        [place.method for place in places],
        ["" if place.shots is None else f"{place.shots}-shot" for place in places],
        [place.category for place in places],
    ]
    for field in ("dataset", "protocol", "metric"):
        values = [getattr(place, field) for place in places]
        parts += [values] if len(set(values)) > 1 else []
    if len(set(parts[0])) == len({_name(label) for label in parts[0]}):
        parts[0] = [_name(label) for label in parts[0]]
    return list(dict.fromkeys("/".join(filter(None, words)) for words in zip(*parts, strict=True)))


def origin(found: Sequence[Found], records: Records) -> Origin:
    """What is behind cells that have their trials in common."""
    first = found[0]
    behind = [record for key in first.cell.keys if (record := records(key)) is not None]
    facts = [_facts(record, first.place) for record in behind]
    rows = [_trial(record, found) for record in behind]
    shared = {
        name: value
        for name, value in (facts[0] if facts else {}).items()
        if all(own[name] == value for own in facts)
    }
    apart = [
        {**row, **{n: v for n, v in own.items() if n not in shared}} for row, own in zip(rows, facts, strict=True)
    ]
    commands = (str(record["provenance"].get("command", "")) for record in behind)
    return Origin(
        title=_title(first),
        numbers=tuple(dict.fromkeys(map(_number, found))),
        facts=shared,
        trials=tuple(apart),
        commands=tuple(filter(None, commands)),
    )


def _title(found: Found) -> str:
    names = [found.place.method, found.column.group, found.place.category, found.place.dataset]
    return ", ".join([*filter(None, names), f"protocol {found.place.protocol}"])


def _number(found: Found) -> str:
    cell, table, metric = found.cell, found.table, found.place.metric
    deviation = text.deviation(cell, table)
    size = f" at {found.place.eval_size}" * bool(found.place.eval_size)
    said = f"{METRICS.get(metric, metric)}: {text.number(cell, table)}"
    said += f" ± {deviation}" * bool(deviation) + f" ({found.place.metric_protocol}{size})"
    if cell.average and cell.mean is not None:
        said += f", average over {cell.covered} of {cell.categories} categories"
    return said + f"; {cell.note}" * bool(cell.note)


def _trial(record: Mapping[str, Any], found: Sequence[Found]) -> dict[str, str]:
    """What one trial gave."""
    trial = record["trial"]
    row = {"category": str(trial["category"]), "seed": "" if trial["seed"] is None else str(trial["seed"])}
    for metric, protocol in dict.fromkeys((each.place.metric, each.place.metric_protocol) for each in found):
        value = (record.get("metrics") or {}).get(protocol, {}).get("values", {}).get(metric)
        row[METRICS.get(metric, metric)] = record["status"] if value is None else f"{value:.6f}"
    return {**row, "trial": record["key"][:12], "split": str(trial["protocol"].get("manifest") or "")[:12]}


def _facts(record: Mapping[str, Any], place: Place) -> dict[str, str]:
    """How a trial came about."""
    trial, provenance = record["trial"], record.get("provenance") or {}
    method, dataset, protocol = trial["method"], trial["dataset"], trial["protocol"]
    encoders = ((encoder or {}) for encoder in (trial.get("encoders") or {}).values())
    versions = ", ".join(f"{name} {version}" for name, version in (provenance.get("versions") or {}).items())
    source = (protocol.get("source") or {}).get("name")
    return {
        "method": f"{method['label']}, version {method.get('version')}",
        "data": f"{dataset['label']}, version {dataset.get('version')}, SHA-256 {dataset.get('fingerprint')}",
        "protocol": f"{protocol['label']}{f' from {source}' if source else ''}",
        "shots": "none" if trial["shots"] is None else str(trial["shots"]),
        "encoders": ", ".join(f"{e.get('name')}, weights SHA-256 {e.get('sha256')}" for e in encoders) or "none",
        "prompts": str(trial.get("prompts") or "none"),
        "bench": f"{provenance.get('bench')}, revision {provenance.get('revision')}",
        "versions": f"{versions}, Python {provenance.get('python')}",
        "ran on": f"{provenance.get('device')}, {provenance.get('platform')}",
    }


def render(origin: Origin) -> str:
    """An origin as plain text."""
    return "\n".join(_lines(origin)) + "\n"


def _lines(origin: Origin) -> Iterator[str]:
    yield origin.title
    yield from (f"  {number}" for number in origin.numbers)
    if not origin.trials:
        yield "  no trial has been run for it"
        return
    yield ""
    names = list(origin.trials[0])
    lines = [names, *([trial[name] for name in names] for trial in origin.trials)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  " + "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
    yield ""
    width = max(map(len, origin.facts), default=0)
    yield from (f"  {name.ljust(width)}  {value}" for name, value in origin.facts.items())
    yield ""
    yield "  To run them again, with --store and another folder, since what is done is not run twice:"
    yield from (f"  {command}" for command in origin.commands)
