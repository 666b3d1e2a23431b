"""Columns of the CSVs of reported numbers, as msgspec reads them; an empty cell takes its field's default."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Whole = Annotated[int, Meta(ge=0)]


class TableRow(Struct, kw_only=True):
    """One row of ``tables.csv``: a table, log or list in a source."""

    table: str
    paper: str
    place: str
    kind: Literal["paper", "repository", "quotation", "rerun", "second_hand"]
    runs: Whole | None = None
    metric_protocol: str = ""
    source: str


class NumberRow(Struct, kw_only=True):
    """One row of any other CSV: a number; ``value`` and ``deviation`` are text, since their digits count."""

    table: str
    method: str
    dataset: str
    category: str
    shots: Whole | None = None
    k: Whole
    protocol: Literal["loo", "transfer", "training_free", "transductive", "unstated"]
    trained_on: str = ""
    metric: str
    value: str
    encoder: str = ""
    deviation: str = ""
    note: str = ""
