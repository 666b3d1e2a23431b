"""The page of a study in a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.report.page.content import make_page
from bench.report.page.gallery import Gallery
from bench.report.page.page import render
from bench.report.tables.model import Best
from bench.report.tables.study import load_tables, uncollected
from bench.store.store import Store
from bench.study.build import Files, read_roots
from bench.tools.files import write_atomically
from bench.tools.spec import parse_spec


@uncollected()
def write_page(
    store: Store,
    study: str,
    path: Path,
    metrics: Sequence[str],
    *,
    images: int = 2,
    roots: Files | None = None,
    percent: bool = False,
    best: Best | None = None,
) -> list[str]:
    """Write a study as one HTML page; see :func:`bench.report.page.content.make_page`.

    Args:
        store: holds its records and scores.
        study: its name.
        path: of the page.
        metrics: a table each.
        images: worst and best images per method, category and shots.
        roots: the datasets' folders, where they are not those that the trials were run on.
        percent, best: see :class:`bench.report.tables.table.Style`.

    Returns:
        The reasons why there are no pictures of some datasets.

    Raises:
        BenchError: none of its trials has finished.
    """
    tables = load_tables(store, study, tuple(metrics), percent=percent, best=best)
    records = store.study_records(study)
    labels = dict.fromkeys(record.dataset.label for record in records)
    gallery = Gallery(store, read_roots(roots, tuple(map(parse_spec, labels))), images)
    page = render(make_page(study, store.study(study) or {}, records, tables, gallery))
    write_atomically(path, page.encode())
    return gallery.refused
