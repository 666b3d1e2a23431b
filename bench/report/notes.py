"""The footnotes of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bench.report.model import INCOMPLETE, NO_SEEDS, NOT_ZERO_SHOT, Note, Table
from bench.report.naming import Thing, group
from bench.report.records import Grid


def footnotes(table: Table, grid: Grid) -> Iterator[Note]:
    """The footnotes, from what concerns the whole table to what concerns single methods."""
    methods = {method: own[0].trial["method"] for method, own in grid.of_method.items()}

    def heads(chosen: Iterable[Thing]) -> str:
        return ", ".join(grid.names[method].head for method in chosen)

    for text in _distinct(e.trial["dataset"].get("note") for e in grid.entries):
        yield Note(_sentence(text))
    if table.has_deviations:
        text = "in the Average row the deviation is that of the per-seed average over categories."
        yield Note(f"Mean ± sample standard deviation over seeds; {text}")
    if grid.shots != [None]:
        yield Note("k-shot: k labelled anomalies per seen category.")
    if seedless := heads(method for method in methods if grid.seedless(method)):
        text = "no training and no seeds, so one value per category"
        text += ", the same in every column group" * (len(grid.shots) > 1)
        text += f"; the missing deviation ({NO_SEEDS}) is structural" * table.has_deviations
        yield Note(f"{seedless}: {text}.")
    none_labelled = [
        m for m, own in grid.of_method.items() if all(e.shots is None for e in own) and not grid.seedless(m)
    ]
    if len(grid.shots) > 1 and none_labelled:
        yield Note(f"{heads(none_labelled)}: no labelled anomalies, so the same in every column group.")
    incomplete = ", ".join(
        f"{column.head}{' at ' * bool(column.group)}{column.group} {cell.covered} of {cell.categories}"
        for column, cell in zip(table.columns, table.rows[-1].cells, strict=True)
        if cell.incomplete
    )
    if incomplete:
        text = f"average over the categories that have a value: {incomplete}; not compared with the others."
        yield Note(text, INCOMPLETE)
    if foreign := heads(method for method, facts in methods.items() if not facts.get("zero_shot", True)):
        yield Note(f"not zero-shot, but given images of the target category: {foreign}.", NOT_ZERO_SHOT)
    marked = [cell for row in table.rows for cell in row.cells if cell.mark]
    for text, mark in dict.fromkeys((cell.note, cell.mark) for cell in marked):
        yield Note(_sentence(text), mark)
    if any(cell.status == "missing" and not cell.note for row in table.rows for cell in row.cells):
        yield Note("missing: there is no record of such a trial.")
    for text, adapted in group(methods, lambda method: methods[method].get("adapted")).items():
        if text:
            yield Note(f"{heads(adapted)}, adapted: {_sentence(text)}")
    if encoders := _encoders(grid):
        yield Note(f"Encoders: {encoders}.")
    yield from _unpaired(grid)


def _encoders(grid: Grid) -> str:
    users: dict[str, list[str]] = {}
    for method, own in grid.of_method.items():
        encoders: Mapping[str, Any] = own[0].trial.get("encoders") or {}
        for name in _distinct((encoder or {}).get("name") for encoder in encoders.values()):
            users.setdefault(name, []).append(grid.names[method].head)
    return "; ".join(f"{name} ({', '.join(used)})" for name, used in users.items())


def _unpaired(grid: Grid) -> Iterator[Note]:
    """A warning if methods that stand side by side were not given the same splits."""
    # A method that learns from nothing has no training images, so its split is another one.
    same = group(grid.entries, lambda e: (e.category, e.shots, e.seed, e.trial["method"].get("trained"))).values()
    mixed = [own for own in same if len(set(_distinct(e.trial["protocol"].get("manifest") for e in own))) > 1]
    if mixed:
        names = ", ".join(_distinct(grid.names[e.method].head for own in mixed for e in own))
        text = f"Not the same splits: {names} differ in {len(mixed)} of {len(same)} splits"
        yield Note(f"{text}, so that their numbers are not paired.")


def _distinct(texts: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(text) for text in texts if text))


def _sentence(text: str) -> str:
    text = " ".join(str(text).split())
    return text if text.endswith((".", "!", "?", "…")) else text + "."
