"""The tables of the PromptAD paper (WACV 2024), with its rows and columns, from whatever records there are.

And the field's cross-dataset table (:mod:`bench.report.tables.cross`).

A layout says which metrics, methods, categories and numbers of shots the paper's table has. What the records
lack is shown as missing; what they have beyond the paper's comes after it. Numbers, tests and footnotes are
those of every table (:mod:`bench.report.tables.table`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Unpack

from bench.data.splits import is_zero_shot
from bench.errors import BenchError, unknown
from bench.metrics.registry import TITLES
from bench.report.tables.best import by_column, by_row
from bench.report.tables.cells import Measure
from bench.report.tables.cross import cross_tables, learns_elsewhere
from bench.report.tables.model import AVERAGE, CHECK, Column, Row, Table
from bench.report.tables.naming import Identity, Name
from bench.report.tables.paper_cells import SHOTS, LayoutRecords, MissingMethod
from bench.report.tables.records import Grid, TableRecord, check_names, read
from bench.report.tables.table import Style
from bench.store.record import AnyRecord
from bench.tools.groups import group
from bench.tools.hashes import canonical_json
from bench.tools.spec import Spec, parse_spec

CLIP = MissingMethod("clip", "CLIP")
DEVNET = MissingMethod("devnet", "DevNet")
MLEP = MissingMethod("mlep", "MLEP")
DRA = MissingMethod("dra", "DRA")
PROMPTAD = MissingMethod("promptad", "PromptAD")
REGAD = MissingMethod("regad", "RegAD")
TRANSMM = MissingMethod("transmm", "Trans-MM")
MASKCLIP = MissingMethod("maskclip", "MaskCLIP")
WINCLIP = MissingMethod("winclip", "WinCLIP")
NORMALS = (8, 4, 2)  # K of Table 3
PARTS = {"train_good": "K from the training part", "test_good": "K from the test part"}
COMPONENTS = ("abn", "nor", "ccl", "cmi")  # PromptAD's options in Table 4, and those that are on in its rows
STEPS = (("abn",), ("nor",), ("abn", "nor"), ("abn", "nor", "ccl"), COMPONENTS)


def build_layout(
    name: str, records: Iterable[AnyRecord], *, protocol: str = "exact", **style: Unpack[Style]
) -> list[Table]:
    """The tables of a layout: for each dataset and protocol, but of ``table1`` and ``cross`` one for all.

    Args:
        name: a key of :data:`LAYOUTS`.
        records: as for :func:`bench.report.tables.table.build_tables`.
        protocol: one of the records' metric protocols.
        style: see :class:`bench.report.tables.table.Style`.

    Raises:
        BenchError: an unknown layout, or no record that belongs into it; records that contradict each other.
    """
    if name not in LAYOUTS:
        raise unknown("layout", name, LAYOUTS)
    layout, entries = LAYOUTS[name], read(records)
    check_names(entries, (), protocol)
    chosen = [entry for entry in entries if layout.belongs(entry)]
    if not chosen:
        there = ", ".join(dict.fromkeys(f"{e.method.label} under {e.protocol.label}" for e in entries))
        raise BenchError(
            f"{name} is made of {layout.trials} (bench run --study {name}); there is {there or 'none'}"
        )
    return list(layout.tables(LayoutRecords(name, chosen, protocol, style, layout.shots)))


# ---------------------------------------------------------------- the four tables


def _table1(sources: LayoutRecords) -> Iterator[Table]:
    """Categories by methods: MVTec AD first; AITEX last, and in one row."""
    order = {"mvtec": 0, "aitex": 2}
    chosen = sorted(sources.all, key=lambda source: order.get(source.name, 1))
    methods = sources.methods(chosen, (CLIP, DEVNET, MLEP, DRA, PROMPTAD))
    columns = [(shots, method) for shots in sources.shots for method in methods]
    rows, notes = [], []
    for source in chosen:
        title, measure = sources.title(source), sources.measure(source, "image_auroc")
        lines = list(zip(*(sources.cells(measure, method, shots) for shots, method in columns), strict=True))
        categories = source.grid.categories
        if source.name == "aitex":
            rows.append(Row(title, lines[-1], average=True))
            if len(categories) > 1:
                notes.append(f"{title}: average over its categories {', '.join(categories)}")
            continue
        section = title if len(chosen) > 1 else ""
        rows += [Row(head, line, section=section) for head, line in zip(categories, lines[:-1], strict=True)]
        rows.append(Row(AVERAGE, lines[-1], average=True, section=section))
    heads = [sources.column(method, shots, chosen) for shots, method in columns]
    yield sources.finished(chosen, heads, rows, "image_auroc", by_row, notes=notes)


def _table2(sources: LayoutRecords) -> Iterator[Table]:
    """Methods by pixel metrics, averaged over categories."""
    metrics = ("pixel_auroc", "aupro", "pixel_f1max")
    columns = [(shots, metric) for shots in sources.shots for metric in metrics]
    heads = [Column(TITLES[metric], "", f"{shots}-shot", shots) for shots, metric in columns]
    for source in sources.all:
        for size in sources.sizes(source, metrics[0]):
            measures = {metric: sources.measure(source, metric, size) for metric in metrics}
            rows = []
            for method in sources.methods([source], (TRANSMM, MASKCLIP, DRA, WINCLIP, PROMPTAD)):
                cells = (sources.cells(measures[metric], method, shots)[-1] for shots, metric in columns)
                rows.append(Row(sources.head(method), tuple(cells)))
            what = "pixel metrics, averaged over categories"
            yield sources.finished([source], heads, rows, what, by_column, stub=("Method",))


def _table3(sources: LayoutRecords) -> Iterator[Table]:
    """Numbers of normal images by methods, averaged over categories; a section for each part they come from."""
    for (_, rules), chosen in group(sources.all, lambda s: (s.dataset, _rules(s.protocol))).items():
        methods = sources.methods(chosen, (CLIP, REGAD, DRA, PROMPTAD))
        columns = [(shots, method) for shots in sources.shots for method in methods]
        measures = {_normals(source.protocol): sources.measure(source, "image_auroc") for source in chosen}
        rows = []
        for part, section in PARTS.items():
            found = {k: measure for (k, each), measure in measures.items() if each == part}
            for k in [*NORMALS, *sorted(found.keys() - {*NORMALS}, reverse=True)] if found else ():
                measure = found[k] if k in found else _not_run(next(iter(found.values())), k)
                cells = (sources.cells(measure, method, shots)[-1] for shots, method in columns)
                rows.append(Row(str(k), tuple(cells), section=section))
        heads = []
        for shots, method in columns:
            anomalies = f"{shots} labelled {'anomaly' if shots == 1 else 'anomalies'}"
            heads.append(replace(sources.column(method, shots, chosen), group=anomalies, mark=""))
        notes = [
            "K: normal images of the target category that the methods are given, so that no number is zero-shot",
            "Labelled anomalies: of each seen category",
        ]
        yield sources.finished(
            chosen,
            heads,
            rows,
            "image AUROC, averaged over categories",
            by_row,
            stub=("K",),
            protocol=f"{rules[0]} with K normal images of the target",
            notes=notes,
        )


def _table4(sources: LayoutRecords) -> Iterator[Table]:
    """Components of PromptAD by shots, averaged over categories."""
    for source in sources.all:
        measure = sources.measure(source, "image_auroc")
        variants = group(source.grid.of_method, lambda method: _components(method.label))
        several = any(len(own) > 1 for own in variants.values())
        rows = []
        for parts in dict.fromkeys([*STEPS, *variants]):
            for method in variants.get(parts, [PROMPTAD]):
                cells = tuple(sources.cells(measure, method, shots)[-1] for shots in sources.shots)
                stub = tuple(CHECK if part in parts else "" for part in COMPONENTS)
                if several:
                    stub += (sources.head(method),)
                rows.append(Row(" + ".join(parts).upper(), cells, stub=stub))
        heads = [Column(f"{shots}-shot", "", "", shots) for shots in sources.shots]
        stub = tuple(part.upper() for part in COMPONENTS)
        if several:
            stub += ("Variant",)
        what = "image AUROC of PromptAD's components, averaged over categories"
        yield sources.finished([source], heads, rows, what, by_column, stub=stub)


# ---------------------------------------------------------------- records of a layout


def _normals(protocol: Identity) -> tuple[int, str]:
    """K, the number of normal images of the target that a protocol gives, and the part that they are from."""
    options = protocol.spec.options
    return int(options.get("k", 0)), options.get("k_source", "train_good")


def _rules(protocol: Identity) -> tuple[str, str]:
    """The label without normal images, and the data learned from: equal for protocols that differ in K alone."""
    spec = protocol.spec
    options = {name: value for name, value in spec.options.items() if name not in ("k", "k_source")}
    return str(Spec(spec.name, options)), canonical_json(protocol.properties.get("source"))


def _not_run(measure: Measure, k: int) -> Measure:
    """The measure of the same protocol with another K, of which there are no records."""
    spec = parse_spec(measure.protocol.label)
    label = str(Spec(spec.name, {**spec.options, "k": str(k)}))
    return replace(measure, protocol=Name(label, label), grid=Grid([], measure.grid.categories))


def _components(label: str) -> tuple[str, ...]:
    """The components of PromptAD that a variant's label leaves on."""
    options = parse_spec(label).options
    return tuple(part for part in COMPONENTS if options.get(part, "on") == "on")


def _zero_shot(entry: TableRecord) -> bool:
    return is_zero_shot(entry.record.protocol.name, entry.record.protocol.zero_shot) and not _few_shot(entry)


def _few_shot(entry: TableRecord) -> bool:
    return _normals(entry.protocol)[0] > 0


def _ablation(entry: TableRecord) -> bool:
    return _zero_shot(entry) and entry.record.method.name == "promptad"


@dataclass(frozen=True)
class Layout:
    """One table of the paper, or the field's.

    Attributes:
        title: its content, in a few words.
        trials: the trials that it is made of, in words.
        belongs: true of the record of such a trial.
        tables: makes its tables.
        shots: numbers of labelled anomalies that it has, whatever the records have.
    """

    title: str
    trials: str
    belongs: Callable[[TableRecord], bool]
    tables: Callable[[LayoutRecords], Iterator[Table]]
    shots: tuple[int, ...] = SHOTS


LAYOUTS = {
    "table1": Layout("image AUROC by category", "zero-shot trials", _zero_shot, _table1),
    "table2": Layout("pixel metrics by method", "zero-shot trials", _zero_shot, _table2),
    "table3": Layout("image AUROC by K", "trials with K normal images of the target", _few_shot, _table3),
    "table4": Layout("image AUROC by components", "zero-shot trials of promptad", _ablation, _table4),
    "cross": Layout(
        "averages by target, method and training set",
        "trials under protocols that learn from another dataset",
        learns_elsewhere,
        cross_tables,
        shots=(),
    ),
}
