"""The tables of studies in a store."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING, Unpack

from bench.errors import BenchError, unknown
from bench.metrics.blocks import DEFAULT
from bench.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.report.tables.table import Style, Table

PLAIN = "plain"  # categories and methods, as opposed to a layout


def chosen_study(store: Store, name: str | None) -> str:
    """The name of a study that was run here, by default the latest's.

    Raises:
        BenchError: there is none, or none of that name.
    """
    names = store.study_names()
    if not names:
        raise BenchError(f"no study was run in {store.root} yet; start with: bench run")
    if name is not None and name not in names:
        raise unknown("study", name, names)
    return name or names[0]


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Switch the garbage collector off while records are read and shown.

    They are a million small objects and none is garbage; looking through them again and again takes a third of the
    time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@uncollected()
def load_tables(
    store: Store,
    studies: str | Sequence[str],
    metrics: tuple[str, ...],
    *,
    layout: str | None = PLAIN,
    methods: Sequence[str] | None = None,
    metric_protocol: str = DEFAULT,
    **style: Unpack[Style],
) -> list[Table]:
    """The tables of a study, or of several together, from their records.

    Args:
        store: holds their records.
        studies: their names.
        metrics: of the plain tables; see :func:`bench.report.tables.table.build_tables`.
        layout: of :data:`bench.report.tables.paper.LAYOUTS`, ``plain``, or None for the first study's own.
        methods: of the plain tables.
        metric_protocol: one of the records' metric protocols.
        style: see :class:`bench.report.tables.table.Style`.

    Raises:
        BenchError: none of the trials has finished; an unknown layout; a method that is not in the studies.
    """
    from bench.report.tables.paper import build_layout
    from bench.report.tables.table import build_tables

    names = [studies] if isinstance(studies, str) else studies
    contents = [store.study(name) or {} for name in names]
    records = [record for name in names for record in store.study_records(name)]
    if all(record.status == "missing" for record in records):
        said = ", ".join(names)
        raise BenchError(f"study {said} has no finished trial yet; how far it is: bench status --study {names[0]}")
    hashes = (
        f"study {name}, SHA-256 of its trials {content.get('hash')}"
        for name, content in zip(names, contents, strict=True)
    )
    style = {**style, "study": "; ".join(hashes)}
    if layout is None:
        layout = contents[0].get("layout") or PLAIN
    if layout != PLAIN:
        return build_layout(layout, records, protocol=metric_protocol, **style)
    known = dict.fromkeys(method for content in contents for method in content.get("methods", ()))
    chosen = methods or list(known) or None
    return build_tables(records, metrics=metrics, protocol=metric_protocol, methods=chosen, **style)
