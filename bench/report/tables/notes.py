"""The footnotes of a table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bench.report.tables.model import AVERAGE, INCOMPLETE, LEAKED, NO_SEEDS, NOT_ZERO_SHOT, Note, Table
from bench.report.tables.naming import Identity
from bench.report.tables.records import Grid, TableRecord
from bench.report.tables.text import sentence
from bench.tools.groups import group

ENCODER_FIELDS = ("encoder", "backbone")  # options whose values have a note of their own
_FEW = 3  # so many methods or numbers are told one by one


def footnotes(table: Table, grids: Sequence[Grid], own: Iterable[str] = ()) -> Iterator[Note]:
    """The footnotes, from what concerns the whole table to what concerns single methods; ``own`` are its own."""
    known = _Methods(grids)
    for text in _distinct(e.record.dataset.note for grid in grids for e in grid.entries):
        yield Note(sentence(text))
    for text in _distinct(text for grid in grids for e in grid.entries for text in e.record.subsets):
        yield Note(sentence(text))
    yield from (Note(sentence(text)) for text in own)
    if table.has_deviations:
        averages = all(cell.average for row in table.rows for cell in row.cells)
        text = " of the" if averages else "; in the Average row the deviation is that of the"
        yield Note(f"Mean ± sample standard deviation over seeds{text} per-seed average over categories.")
    groups = {column.group for column in table.columns}
    if any(name.endswith("-shot") for name in groups):
        yield Note("k-shot: k labelled anomalies per seen category.")
    told = ((e.record.protocol, e.record.method.trained) for grid in grids for e in grid.entries)
    for label, learned in dict.fromkeys((p.label, p.learned) for p, trained in told if p.learned and trained):
        yield Note(f"{label}: learned from {learned}.")
    # Methods without shots have the same numbers in every column group; some of them draw, and have seeds.
    alike, drawn = [], []
    for method in known.recorded:
        own_grids = [grid for grid in grids if method in grid.of_method]
        if all(e.record.shots is None for grid in own_grids for e in grid.of_method[method]):
            alike.append(method)
            if not all(grid.seedless(method) for grid in own_grids):
                drawn.append(method)
    if seedless := known.heads(method for method in alike if method not in drawn):
        text = "no training and no seeds, so one value per category"
        if len(groups) > 1:
            text += ", the same in every column group"
        if table.has_deviations:
            text += f"; the missing deviation ({NO_SEEDS}) is structural"
        yield Note(f"{seedless}: {text}.")
    if drawn and len(groups) > 1:
        yield Note(f"{known.heads(drawn)}: no labelled anomalies, so the same in every column group.")
    if incomplete := _incomplete(table):
        text = f"average over the categories that have a value: {incomplete}; not compared with the others."
        yield Note(text, INCOMPLETE)
    if lacking := _lacking(table):
        yield Note(f"Left out of averages: {lacking}.")
    if partly := _partly_measured(table):
        yield Note(f"Pixel metrics without the anomalous images that have no mask: {partly}.")
    if any(column.mark == NOT_ZERO_SHOT for column in table.columns):
        foreign = known.heads(m for m, own in known.recorded.items() if own.zero_shot is False)
        yield Note(f"not zero-shot, but given images of the target category: {foreign}.", NOT_ZERO_SHOT)
    for text in _distinct(e.record.leak for grid in grids for e in grid.entries):
        yield Note(f"{LEAKED}: {text}; these are no zero-shot numbers.")
    marked = [cell for row in table.rows for cell in row.cells if cell.mark]
    for text, mark in dict.fromkeys((cell.note, cell.mark) for cell in marked):
        yield Note(sentence(text), mark)
    if any(cell.status == "missing" and not cell.note for row in table.rows for cell in row.cells):
        yield Note("missing: there is no record of such a trial.")
    for text, adapted in group(known.recorded, lambda method: known.recorded[method].adapted).items():
        if text:
            yield Note(f"{known.heads(adapted)}, adapted: {sentence(text)}")
    if options := known.options():
        yield Note(f"Non-default options: {options}.")
    if encoders := known.encoders():
        yield Note(f"Encoders: {encoders}.")
    yield from dict.fromkeys(note for grid in grids for note in _unpaired(grid))


class _Methods:
    """The methods of a table with their names in it.

    Attributes:
        recorded: each method as one of its records describes it.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        self._own = {method: own for grid in reversed(grids) for method, own in grid.of_method.items()}
        self._heads = {method: name.head for grid in grids for method, name in grid.names.items()}
        order = dict.fromkeys(method for grid in grids for method in grid.of_method)
        self.recorded = {method: self._own[method][0].record.method for method in order}

    def heads(self, chosen: Iterable[Identity]) -> str:
        """The printed names of the chosen methods."""
        heads = [self._heads[method] for method in chosen]
        return "all methods" if len(heads) == len(self.recorded) > _FEW else ", ".join(heads)

    def options(self) -> str:
        """The options that differ from the defaults, without encoders and those that the heads show."""
        told: dict[Identity, str] = {}
        for method in self.recorded:
            options = method.spec.options.items()
            words = [f"{name}={value}" for name, value in options if name not in ENCODER_FIELDS]
            told[method] = ", ".join(word for word in words if word not in self._heads[method])
        users = group((method for method in self.recorded if told[method]), told.__getitem__)
        return "; ".join(f"{self.heads(own)} with {text}" for text, own in users.items())

    def encoders(self) -> str:
        """The encoders with the methods that use them."""
        users: dict[str, list[Identity]] = {}
        for method in self.recorded:
            encoders = self._own[method][0].record.encoders
            for name in _distinct(encoder.name for encoder in encoders.values()):
                users.setdefault(name, []).append(method)
        return "; ".join(f"{name} ({self.heads(own)})" for name, own in users.items())


def _incomplete(table: Table) -> str:
    """The averages over some categories, each with how many: row by row, where a row's are all alike."""
    told: dict[str, list[str]] = {}
    for row in table.rows:
        numbers = [
            (column, cell) for column, cell in zip(table.columns, row.cells, strict=True) if cell.mean is not None
        ]
        counts = [f"{cell.covered} of {cell.categories}" if cell.incomplete else "" for _, cell in numbers]
        alike = len({*counts}) == 1 and len(counts) > 1
        for (column, _), count in zip(numbers[:1] if alike else numbers, counts, strict=False):
            names = [] if row.head == AVERAGE and not alike else [row.head]
            if not alike:
                names += [column.head, column.group]
            told.setdefault(count, []).append(" at ".join(filter(None, names)))
    if len(told) == 1:
        return next(iter(told))
    told.pop("", None)
    return ", ".join(f"{where} {count}" for count, places in told.items() for where in places)


def _lacking(table: Table) -> str:
    """The categories that averages do not cover, and why, if the table has no row that says so."""
    shown = {row.head for row in table.rows}
    categories: dict[str, dict[str, None]] = {}  # reason -> its categories, each once
    for row in table.rows:
        for cell in row.cells:
            for category, why in cell.lacking if cell.incomplete else ():
                if why and category not in shown:
                    # The number of seeds is the same for all that learn, and others have none.
                    reason = re.sub(r" \(all \d+ seeds\)", "", why)
                    categories.setdefault(reason, {})[category] = None
    return "; ".join(f"{', '.join(own)} ({reason})" for reason, own in categories.items())


def _partly_measured(table: Table) -> str:
    """The categories whose pixel metrics are of some of their test images, and of how many."""
    told: dict[str, dict[str, None]] = {}
    for row in table.rows:
        for cell in row.cells:
            for category, measured, of in cell.pixel_images:
                told.setdefault(category, {})[f"{measured} of {of}"] = None
    return ", ".join(f"{category} on {' or '.join(own)} test images" for category, own in told.items())


def _unpaired(grid: Grid) -> Iterator[Note]:
    """A warning if methods of one table were not given the same splits."""
    # A method that learns from nothing has no training images, so its split is another one.
    paired: dict[tuple[Any, ...], list[TableRecord]] = {}
    for entry in grid.entries:
        record = entry.record
        place = record.category, record.shots, record.seed, record.method.trained
        paired.setdefault(place, []).append(entry)
    mixed: list[TableRecord] = []  # of all splits that differ
    differing = 0
    for own in paired.values():
        if len(_distinct(entry.record.protocol.manifest for entry in own)) > 1:
            differing += 1
            mixed += own
    if mixed:
        names = ", ".join(_distinct(grid.names[entry.method].head for entry in mixed))
        text = f"Not the same splits: {names} differ in {differing} of {len(paired)} splits"
        yield Note(f"{text}, so that their numbers are not paired.")


def _distinct(texts: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text))
