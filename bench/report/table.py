"""Tables of results: from trial records to rows, columns, cells and footnotes, whatever the output format.

A :class:`Table` is plain data. Every cell knows the keys of the records behind it, and one that has no
number says why; nothing that is missing is ever counted as zero. :mod:`bench.report.formats` prints it.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar, get_args

from bench.errors import BenchError, unknown
from bench.hashing import canonical_json

METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO@0.3",
}
AVERAGE = "Average"
INCOMPLETE = "†"  # an average over some of the categories
NOT_ZERO_SHOT = "‡"
NO_SEEDS = "\N{EN DASH}"  # the deviation of a method that has no seeds

Status = Literal["ok", "partial", "failed", "undefined", "skipped", "missing"]
_RecordStatus = Literal["ok", "failed", "skipped", "missing"]
_WORDS: dict[Status, str] = {
    "failed": "failed",
    "undefined": "no value",
    "skipped": "skipped",
    "missing": "missing",
}
_LONGEST_REASON = 200

T = TypeVar("T")


# ---------------------------------------------------------------- the model


@dataclass(frozen=True)
class Cell:
    """One number with what is behind it, or the reason why there is none.

    Attributes:
        status: ``ok``; ``partial``: a number from some of the seeds or categories only; or why there is no
            number: a trial ``failed``, the metric is ``undefined`` for it, it was ``skipped`` as not
            applicable, or it is ``missing``.
        keys: the records it was made from, whether they gave a value or not.
        mean: the number, a fraction; None if there is none.
        deviation: sample standard deviation over seeds; None with fewer than two, or without seeds.
        structural: the method has no seeds, so that there can be no deviation.
        seeds: number of seeds with a value; in the Average row, with a value in every covered category.
        expected: number of seeds in the same column group.
        covered: in the Average row, the number of categories that it covers.
        rank: 1 for the best of its row and column group, 2 for the second; None if it does not compete.
        note: what a reader must know of it; empty if nothing.
        mark: refers to the footnote that says it.
    """

    status: Status
    keys: tuple[str, ...] = ()
    mean: float | None = None
    deviation: float | None = None
    structural: bool = False
    seeds: int = 0
    expected: int = 0
    covered: int | None = None
    rank: int | None = None
    note: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """One method at one number of shots.

    Attributes:
        head: as printed; unique among the methods of the table.
        method: the method's label; unique like the head.
        group: the head of the column group, e.g. ``1-shot``; empty if shots mean nothing here.
        shots: labelled anomalies per seen category.
        mark: a sign at the head that a footnote explains.
    """

    head: str
    method: str
    group: str = ""
    shots: int | None = None
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """A category, or the average over the categories of its row group."""

    head: str
    cells: tuple[Cell, ...]
    average: bool = False


@dataclass(frozen=True)
class RowGroup:
    """Rows that belong together, under a title if the table has several groups."""

    rows: tuple[Row, ...]
    title: str = ""


@dataclass(frozen=True)
class Note:
    """A footnote; ``mark`` is what refers to it, empty if it concerns the whole table."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """One metric of one dataset under one protocol.

    Attributes:
        dataset: the dataset's label, and ``title`` as printed.
        metric: e.g. ``image_auroc``.
        metric_protocol: how the metric was taken, e.g. ``exact``.
        eval_size: the grid of the pixel metrics in words, e.g. ``64 px``; empty if records disagree and
            the metric does not depend on it.
        protocol: label of the protocol, ``protocol_title`` as printed.
        seeds: the number of seeds in words.
        columns: from left to right; those of one group stand together.
        groups: from top to bottom; every row has one cell per column.
        notes: footnotes, in order.
        percent: print percentages instead of fractions.
    """

    dataset: str
    title: str
    metric: str
    metric_protocol: str
    eval_size: str
    protocol: str
    protocol_title: str
    seeds: str
    columns: tuple[Column, ...]
    groups: tuple[RowGroup, ...]
    notes: tuple[Note, ...] = ()
    percent: bool = False

    @property
    def metric_name(self) -> str:
        """The metric as printed."""
        return METRICS.get(self.metric, self.metric)

    @property
    def heading(self) -> str:
        """One line that says what the numbers are."""
        size = f" at {self.eval_size}" if self.eval_size else ""
        unit = " in %" if self.percent else ""
        return (
            f"{self.title}: {self.metric_name}{unit} (protocol {self.protocol_title}, "
            f"metric protocol {self.metric_protocol}{size}, {self.seeds})"
        )

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all groups."""
        return tuple(row for group in self.groups for row in group.rows)

    @property
    def has_deviations(self) -> bool:
        """Whether any cell shows a deviation; if none does, its structural absence needs no sign."""
        return any(cell.deviation is not None for row in self.rows for cell in row.cells)

    @property
    def has_best(self) -> bool:
        """Whether any cell is marked as the best."""
        return any(cell.rank == 1 for row in self.rows for cell in row.cells)

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of all records behind the table, sorted."""
        return tuple(sorted({key for row in self.rows for cell in row.cells for key in cell.keys}))

    @property
    def digest(self) -> str:
        """SHA-256 of the keys, one per line: the same for the same records."""
        return hashlib.sha256("\n".join(self.keys).encode()).hexdigest()


# ---------------------------------------------------------------- from records to tables


def build_tables(
    records: Iterable[Mapping[str, Any]],
    *,
    metrics: Sequence[str] = ("image_auroc",),
    protocol: str = "exact",
    methods: Sequence[str] | None = None,
    percent: bool = False,
) -> list[Table]:
    """Tables of trial records: one for each dataset, protocol and metric.

    Rows are the categories, sorted, and their average. Columns are grouped by shots; a method that does not
    learn stands in every group. A cell is the mean over seeds with the sample standard deviation.

    **The Average row.** Its number is the mean of the column's category means, which with all trials there
    is the mean over seeds of the per-seed averages over categories. Its deviation is the sample standard
    deviation over seeds of these per-seed averages, so that it is the spread of the number it stands beside
    (not the mean of the categories' deviations, nor the spread between categories). Only seeds with a value
    in every covered category enter the deviation. An average that does not cover all categories is marked
    and does not compete for the best.

    **The best** of a row and column group is the largest number as printed; equal ones are all marked.

    **What is kept apart.** Records that differ in the method's version, config or encoders, or in the
    prompts, are different columns; in the data's fingerprint or version, or the protocol's options, different
    tables; for pixel metrics also in the grid of evaluation. A record that differs from another in anything
    else, such as the split, cannot share its cell: that is an error.

    Args:
        records: trial records; several with one key count once, the last ``ok`` one if there is any. A
            planned trial that has not run yet may stand as ``{"status": "missing", "trial": ...}``, so
            that its cell, seed or category is known to be missing.
        metrics: names as in the records, see :data:`METRICS`.
        protocol: which of the records' metric protocols.
        methods: labels, or names for all variants of a method: which ones, and their order. By default
            all, in the order of the records.
        percent: print percentages with one decimal instead of fractions with three.

    Raises:
        BenchError: an unknown metric, metric protocol or method; records that contradict each other.
    """
    entries = _read(records)
    _check_names(entries, metrics, protocol)
    if methods is not None:
        entries = _choose(entries, methods)
    datasets, protocols = _names(entries)
    tables = []
    for (data, rules), group in _group(entries, lambda e: (e.data, e.rules)).items():
        grid = _Grid(_separate_prompts(group))
        for metric in metrics:
            for size in _sizes(group, metric, protocol):
                tables.append(
                    _Builder(grid, metric, protocol, size).table(datasets[data], protocols[rules], percent)
                )
    return tables


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record with the identities that decide where it belongs."""

    key: str
    status: _RecordStatus
    reason: str
    data: str
    rules: str
    variant: str
    category: str
    shots: int | None
    seed: int | None
    trial: Mapping[str, Any] = field(repr=False)
    metrics: Mapping[str, Any] = field(repr=False)

    @property
    def label(self) -> str:
        return str(self.trial["method"]["label"])

    @property
    def where(self) -> str:
        parts = [f"{self.label} on {self.category}"]
        parts += [] if self.shots is None else [f"{self.shots}-shot"]
        parts += [] if self.seed is None else [f"seed {self.seed}"]
        return ", ".join(parts)


def _read(records: Iterable[Mapping[str, Any]]) -> list[_Entry]:
    by_key: dict[Hashable, _Entry] = {}
    for number, record in enumerate(records):
        try:
            entry = _entry(record)
        except (KeyError, TypeError, AttributeError) as error:
            key = str(record.get("key", f"number {number}"))[:12] if isinstance(record, Mapping) else number
            raise BenchError(f"record {key} is not a trial record: {error!r}; run the study again") from None
        name: Hashable = entry.key or number
        known = by_key.get(name)
        if known is None or _order(entry) >= _order(known):
            by_key[name] = entry
    return list(by_key.values())


def _order(entry: _Entry) -> int:
    return {"ok": 2, "missing": 0}.get(entry.status, 1)


def _entry(record: Mapping[str, Any]) -> _Entry:
    trial = record["trial"]
    method, dataset, protocol = trial["method"], trial["dataset"], trial["protocol"]
    status = record["status"]
    if status not in get_args(_RecordStatus):
        raise KeyError(f"status {status}")
    return _Entry(
        key=str(record.get("key") or ""),
        status=status,
        reason=_one_line(record.get("reason") or ""),
        data=canonical_json([dataset["label"], dataset.get("version"), dataset.get("fingerprint")]),
        rules=canonical_json([protocol["label"], protocol.get("config"), protocol.get("source")]),
        variant=canonical_json(
            [method["label"], method.get("version"), method.get("config"), trial.get("encoders")]
        ),
        category=str(trial["category"]),
        shots=trial["shots"],
        seed=trial["seed"],
        trial=trial,
        metrics=record.get("metrics") or {},
    )


def _one_line(text: str) -> str:
    text = " ".join(str(text).split()).removesuffix(".")
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 1].rstrip() + "…"


def _check_names(entries: Sequence[_Entry], metrics: Sequence[str], protocol: str) -> None:
    blocks = [entry.metrics for entry in entries if entry.metrics]
    protocols = {name for block in blocks for name in block}
    if protocols and protocol not in protocols:
        raise unknown("metric protocol", protocol, protocols)
    known = {*METRICS, *(name for block in blocks for name in block.get(protocol, {}).get("values", ()))}
    for metric in metrics:
        if metric not in known:
            raise unknown("metric", metric, known)


def _choose(entries: Sequence[_Entry], methods: Sequence[str]) -> list[_Entry]:
    """The entries of ``methods``, in their order: by label, or by name where no label is the same."""
    labels = {entry.label: str(entry.trial["method"].get("name", "")) for entry in entries}
    order: dict[str, int] = {}
    for method in methods:
        variants = [label for label, name in sorted(labels.items()) if name == method]
        found = [method] if method in labels else variants
        if not found:
            raise unknown("method among the records:", method, {*labels, *labels.values()})
        for label in found:
            order.setdefault(label, len(order))
    return sorted((e for e in entries if e.label in order), key=lambda e: order[e.label])


def _group(items: Iterable[T], key: Any) -> dict[Any, list[T]]:
    groups: dict[Any, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


# ---------------------------------------------------------------- names that tell things apart


def _names(
    entries: Sequence[_Entry],
) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    """For every dataset and every protocol its label and its title, both unique."""
    data = {entry.data: entry.trial["dataset"] for entry in reversed(entries)}
    rules = {entry.rules: entry.trial["protocol"] for entry in reversed(entries)}
    datasets = _unique(
        {
            identity: (
                str(dataset["label"]),
                str(dataset.get("title") or dataset["label"]),
                {"version": dataset.get("version"), "fingerprint": dataset.get("fingerprint")},
            )
            for identity, dataset in data.items()
        }
    )
    protocols = _unique(
        {
            identity: (
                str(protocol["label"]),
                _protocol_title(protocol),
                {"config": protocol.get("config"), "source": protocol.get("source")},
            )
            for identity, protocol in rules.items()
        }
    )
    return datasets, protocols


def _protocol_title(protocol: Mapping[str, Any]) -> str:
    title = str(protocol.get("title") or protocol["label"])
    source = protocol.get("source") or {}
    name = source.get("title") or source.get("label") or source.get("name")
    return f"{title} from {name}" if name else title


def _unique(things: Mapping[str, tuple[str, str, Mapping[str, Any]]]) -> dict[str, tuple[str, str]]:
    """From label, title and properties of each thing: a label and a title that no other has.

    The title serves where it belongs to one label only, else the label does. Things with one label are told
    apart by the properties in which they differ.
    """
    of_title = _group(things.values(), lambda thing: thing[1])
    heads = {
        identity: title if len({other[0] for other in of_title[title]}) == 1 else label
        for identity, (label, title, _) in things.items()
    }
    result = {}
    for label, same in _group(things, lambda identity: things[identity][0]).items():
        differences = _differences([things[identity][2] for identity in same])
        for number, (identity, difference) in enumerate(zip(same, differences, strict=True), 1):
            if len(same) == 1:
                suffix = ""
            elif differences.count(difference) == 1:
                suffix = f" ({difference})"
            else:
                suffix = f" ({difference or 'no'} {number})"
            result[identity] = (label + suffix, heads[identity] + suffix)
    return result


_SAY = {"version": "version {}", "sha256": "weights {}", "fingerprint": "data {}", "prompts": "prompts {}"}


def _differences(things: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells each thing from the others, in a few words."""
    flats = [_flat(thing) for thing in things]
    names = sorted({name for flat in flats for name in flat})
    differing = [name for name in names if len({flat.get(name) for flat in flats}) > 1]
    without_hashes = [name for name in differing if not name.endswith("sha256")]
    for chosen in (without_hashes, differing):
        told = [", ".join(_say(name, flat.get(name)) for name in chosen) for flat in flats]
        if len(set(told)) == len(told):
            break
    return told


def _say(name: str, value: str | None) -> str:
    leaf = name.rpartition(".")[2]
    text = "none" if value is None else value
    if leaf in ("sha256", "fingerprint", "prompts", "manifest"):
        text = text[:8]
    if leaf in ("name", "label", "title"):
        return text
    return _SAY.get(leaf, leaf + "={}").format(text)


def _flat(value: Any, prefix: str = "") -> dict[str, str | None]:
    if isinstance(value, Mapping):
        items = (_flat(v, f"{prefix}.{k}" if prefix else str(k)) for k, v in value.items())
        return {name: text for item in items for name, text in item.items()}
    if isinstance(value, bool):
        return {prefix: "on" if value else "off"}
    if isinstance(value, list | tuple):
        return {prefix: "+".join(str(item) for item in value)}
    return {prefix: None if value is None else str(value)}


def _separate_prompts(entries: Sequence[_Entry]) -> list[_Entry]:
    """Give records made with different prompt files columns of their own.

    A category whose prompts changed shows that several files were in use. If the hash is one per file, it
    tells the columns apart; if it is one per category, records of different categories cannot be matched.
    """
    result: list[_Entry] = []
    for same in _group(entries, lambda e: e.variant).values():
        hashes = {
            category: {prompts for e in group if (prompts := e.trial.get("prompts"))}
            for category, group in _group(same, lambda e: e.category).items()
        }
        most = max(len(found) for found in hashes.values())
        if most <= 1:
            result += same
        elif most == len(set[str]().union(*hashes.values())):
            result += [replace(e, variant=canonical_json([e.variant, e.trial.get("prompts")])) for e in same]
        else:
            category = next(name for name, found in hashes.items() if len(found) > 1)
            raise BenchError(
                f"{same[0].label} on {category}: there are records made with different prompts; make the "
                "table from the trials of one study, or delete the records of the other prompts"
            )
    return result


# ---------------------------------------------------------------- one table


def _size(block: Mapping[str, Any]) -> str:
    size = block.get("eval_size")
    if size is None:
        return "native size"
    if isinstance(size, list | tuple):
        return "\N{MULTIPLICATION SIGN}".join(str(side) for side in size) + " px"
    return f"{size} px"


def _depends_on_size(metric: str) -> bool:
    return not metric.startswith("image_")


def _sizes(entries: Iterable[_Entry], metric: str, protocol: str) -> list[str | None]:
    """The grids of evaluation that need a table each; None where the metric does not depend on it."""
    if not _depends_on_size(metric):
        return [None]
    found = {_size(e.metrics[protocol]): None for e in entries if e.status == "ok" and protocol in e.metrics}
    return list(found) or [None]


class _Grid:
    """Which record belongs where, for one dataset and protocol."""

    def __init__(self, entries: Sequence[_Entry]) -> None:
        self.entries = entries
        self.categories = tuple(sorted({entry.category for entry in entries}))
        self.of_method = _group(entries, lambda e: e.variant)
        self.heads = _unique(
            {
                variant: (
                    own[0].label,
                    str(own[0].trial["method"].get("title") or own[0].label),
                    {
                        "version": own[0].trial["method"].get("version"),
                        "config": own[0].trial["method"].get("config"),
                        "encoders": own[0].trial.get("encoders"),
                        "prompts": own[0].trial.get("prompts"),
                    },
                )
                for variant, own in self.of_method.items()
            }
        )
        shots = sorted({entry.shots for entry in entries if entry.shots is not None})
        self.shots: list[int | None] = [*shots] or [None]
        self.at = self._place()
        self.seeds = {
            shots: sorted(
                {e.seed for e in entries if e.seed is not None and (e.shots is None or e.shots == shots)}
            )
            for shots in self.shots
        }

    def _place(self) -> dict[tuple[str, str, int | None], dict[int | None, _Entry]]:
        """Variant, category and shots -> seed -> record."""
        at: dict[tuple[str, str, int | None], dict[int | None, _Entry]] = {}
        for entry in self.entries:
            cell = at.setdefault((entry.variant, entry.category, entry.shots), {})
            known = cell.get(entry.seed)
            if known is None or known.status == "missing":
                cell[entry.seed] = entry
            elif entry.status != "missing":
                raise _contradiction(known, entry)
        return at

    def find(self, variant: str, category: str, shots: int | None) -> dict[int | None, _Entry]:
        """Seed -> record; a method that does not learn has its records at every number of shots."""
        own = self.at.get((variant, category, shots), {})
        return own if shots is None else {**self.at.get((variant, category, None), {}), **own}

    def seedless(self, variant: str) -> bool:
        return all(entry.seed is None for entry in self.of_method[variant])


def _contradiction(one: _Entry, other: _Entry) -> BenchError:
    flat_one, flat_other = _flat(one.trial), _flat(other.trial)
    differ = sorted(n for n in {*flat_one, *flat_other} if flat_one.get(n) != flat_other.get(n))
    pairs = [(name, flat_one.get(name) or "none", flat_other.get(name) or "none") for name in differ]
    what = "; ".join(f"{name}: {a[:12]} and {b[:12]}" for name, a, b in pairs)
    return BenchError(
        f"{one.where}: two records cannot share a cell; they differ in {what or 'their keys alone'} "
        f"(trials {one.key[:12]} and {other.key[:12]}). Make the table from the trials of one study, or "
        "delete the records of the older one."
    )


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one trial gave for one metric."""

    status: Status
    value: float | None = None
    reason: str = ""
    problems: tuple[str, ...] = ()


class _Builder:
    """Makes the table of one metric from a grid of records."""

    def __init__(self, grid: _Grid, metric: str, protocol: str, size: str | None) -> None:
        self.grid = grid
        self.metric = metric
        self.protocol = protocol
        self.size = size

    def table(self, dataset: tuple[str, str], protocol: tuple[str, str], percent: bool) -> Table:
        grid = self.grid
        placed = [(shots, variant) for shots in grid.shots for variant in grid.of_method]
        columns = tuple(self._column(shots, variant) for shots, variant in placed)
        by_column = [self._cells(shots, variant) for shots, variant in placed]
        rows = [
            Row(category, self._ranked(columns, tuple(cells[i] for cells in by_column)))
            for i, category in enumerate(grid.categories)
        ]
        rows.append(Row(AVERAGE, self._ranked(columns, tuple(c[-1] for c in by_column)), average=True))
        marks: dict[str, str] = {}
        rows = [replace(row, cells=tuple(_marked(cell, marks) for cell in row.cells)) for row in rows]
        table = Table(
            dataset=dataset[0],
            title=dataset[1],
            metric=self.metric,
            metric_protocol=self.protocol,
            eval_size=self._eval_size(),
            protocol=protocol[0],
            protocol_title=protocol[1],
            seeds=self._seeds(),
            columns=columns,
            groups=(RowGroup(tuple(rows)),),
            percent=percent,
        )
        return replace(table, notes=tuple(self._notes(table, marks)))

    def _column(self, shots: int | None, variant: str) -> Column:
        label, head = self.grid.heads[variant]
        zero_shot = self.grid.of_method[variant][0].trial["method"].get("zero_shot", True)
        group = "" if shots is None else f"{shots}-shot"
        return Column(head, label, group, shots, "" if zero_shot else NOT_ZERO_SHOT)

    def _eval_size(self) -> str:
        if self.size is not None:
            return self.size
        blocks = (e.metrics.get(self.protocol) for e in self.grid.entries)
        sizes = {_size(block) for block in blocks if block}
        return sizes.pop() if len(sizes) == 1 else ""

    def _seeds(self) -> str:
        numbers = {shots: len(seeds) for shots, seeds in self.grid.seeds.items()}

        def say(number: int) -> str:
            return "no seeds" if not number else f"{number} seed" + "s" * (number > 1)

        if len(set(numbers.values())) == 1:
            return say(next(iter(numbers.values())))
        return ", ".join(f"{say(number)} at {shots}-shot" for shots, number in numbers.items())

    # ------------------------------------------------------------ cells

    def _outcome(self, entry: _Entry) -> _Outcome:
        if entry.status != "ok":
            return _Outcome(entry.status, reason=entry.reason)
        block = entry.metrics.get(self.protocol)
        if block is None:
            return _Outcome("missing", reason=f"not measured under the metric protocol {self.protocol}")
        if self.size is not None and _size(block) != self.size:
            return _Outcome("missing", reason=f"measured at {_size(block)}")
        value = block.get("values", {}).get(self.metric)
        reason = _one_line(block.get("reasons", {}).get(self.metric) or "the record gives no reason")
        if value is None:
            return _Outcome("undefined", reason=reason)
        if not math.isfinite(value):
            return _Outcome("undefined", reason="the record holds no finite number")
        elsewhere = ("image score",) if _depends_on_size(self.metric) else ("pixel", "maps")
        problems = tuple(
            dict.fromkeys(
                _one_line(problem.partition(":")[0])  # without the counts, which differ from trial to trial
                for problem in block.get("problems", ())
                if not any(word in problem.partition(":")[0] for word in elsewhere)
            )
        )
        return _Outcome("ok", float(value), problems=problems)

    def _cells(self, shots: int | None, variant: str) -> list[Cell]:
        """The cells of one column: the categories', then their average."""
        seedless = self.grid.seedless(variant)
        expected: list[int | None] = [None] if seedless else [*self.grid.seeds[shots]]
        cells, values = [], []
        for category in self.grid.categories:
            entries = self.grid.find(variant, category, shots)
            outcomes = {
                seed: self._outcome(entries[seed]) if seed in entries else _Outcome("missing") for seed in expected
            }
            keys = tuple(e.key for e in entries.values() if e.status != "missing" and e.key)
            cells.append(_category_cell(outcomes, keys, seedless))
            values.append({seed: o.value for seed, o in outcomes.items() if o.value is not None})
        return [*cells, _average_cell(cells, values, expected, seedless)]

    def _ranked(self, columns: Sequence[Column], cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        """The cells with their ranks; a number is only compared with others of its group."""
        ranks: dict[int, int] = {}
        whole = (None, len(self.grid.categories))
        for places in _group(range(len(columns)), lambda i: columns[i].group).values():
            numbers = {
                i: round(mean, 3)
                for i in places
                if (mean := cells[i].mean) is not None and cells[i].covered in whole
            }
            order = sorted(set(numbers.values()), reverse=True)
            if len(places) > 1:
                ranks.update({i: order.index(number) + 1 for i, number in numbers.items()})
        return tuple(replace(cell, rank=ranks.get(i)) for i, cell in enumerate(cells))

    # ------------------------------------------------------------ footnotes

    def _notes(self, table: Table, marks: Mapping[str, str]) -> list[Note]:
        grid = self.grid
        methods = {variant: own[0].trial["method"] for variant, own in grid.of_method.items()}
        heads = {variant: head for variant, (_, head) in grid.heads.items()}
        of_dataset = _distinct(e.trial["dataset"].get("note") for e in grid.entries)
        notes = [Note(_sentence(text)) for text in of_dataset]
        if table.has_deviations:
            text = "in the Average row the deviation is that of the per-seed average over categories."
            notes.append(Note(f"Mean ± sample standard deviation over seeds; {text}"))
        if grid.shots != [None]:
            notes.append(Note("k-shot: k labelled anomalies per seen category."))
        seedless = [heads[variant] for variant in grid.of_method if grid.seedless(variant)]
        if seedless:
            what = "no training and no seeds, so one value per category"
            if len(grid.shots) > 1:
                what += ", the same in every column group"
            if table.has_deviations:
                what += f"; the missing deviation ({NO_SEEDS}) is structural"
            notes.append(Note(f"{', '.join(seedless)}: {what}."))
        notes += self._incomplete(table)
        foreign = [heads[variant] for variant, method in methods.items() if not method.get("zero_shot", True)]
        if foreign:
            text = f"not zero-shot, but given images of the target category: {', '.join(foreign)}."
            notes.append(Note(text, NOT_ZERO_SHOT))
        notes += [Note(_sentence(text), mark) for text, mark in marks.items()]
        if any(cell.status == "missing" and not cell.note for row in table.rows for cell in row.cells):
            notes.append(Note("missing: there is no record of such a trial."))
        adapted = _group(
            (variant for variant, method in methods.items() if method.get("adapted")),
            lambda variant: methods[variant]["adapted"],
        )
        for text, variants in adapted.items():
            notes.append(Note(f"{', '.join(heads[v] for v in variants)}, adapted: {_sentence(text)}"))
        notes += self._encoders(heads)
        notes += self._unpaired(heads)
        return notes

    def _incomplete(self, table: Table) -> list[Note]:
        total = len(self.grid.categories)
        found = [
            f"{column.head}{f' at {column.group}' if column.group else ''} {cell.covered} of {total}"
            for row in table.rows
            if row.average
            for column, cell in zip(table.columns, row.cells, strict=True)
            if cell.covered is not None and 0 < cell.covered < total
        ]
        if not found:
            return []
        text = f"average over the categories that have a value: {', '.join(found)}"
        return [Note(f"{text}; not compared with the others.", INCOMPLETE)]

    def _encoders(self, heads: Mapping[str, str]) -> list[Note]:
        users: dict[str, list[str]] = {}
        for variant, own in self.grid.of_method.items():
            encoders = own[0].trial.get("encoders") or {}
            for name in _distinct((encoder or {}).get("name") for encoder in encoders.values()):
                users.setdefault(name, []).append(heads[variant])
        if not users:
            return []
        said = "; ".join(f"{name} ({', '.join(used)})" for name, used in users.items())
        return [Note(f"Encoders: {said}.")]

    def _unpaired(self, heads: Mapping[str, str]) -> list[Note]:
        """A warning if methods that stand side by side were not given the same splits."""
        same = _group(self.grid.entries, lambda e: (e.category, e.shots, e.seed))
        mixed = [
            group
            for group in same.values()
            if len({manifest for e in group if (manifest := e.trial["protocol"].get("manifest"))}) > 1
        ]
        if not mixed:
            return []
        names = _distinct(heads[e.variant] for group in mixed for e in group)
        text = f"Not the same splits: {', '.join(names)} differ in {len(mixed)} of {len(same)} splits"
        return [Note(f"{text}, so that their numbers are not paired.")]


def _category_cell(outcomes: Mapping[int | None, _Outcome], keys: tuple[str, ...], seedless: bool) -> Cell:
    values = [o.value for o in outcomes.values() if o.value is not None]
    number = len(outcomes)
    lacking = _group((o for o in outcomes.values() if o.value is None), lambda o: (o.status, _pattern(o.reason)))
    problems = Counter(problem for o in outcomes.values() for problem in o.problems)
    statuses = {status for status, _ in lacking}
    worst: Status = next((s for s in _WORDS if s in statuses), "missing")

    def count(times: int) -> str:
        if seedless or number <= 1:
            return ""
        return f" (all {number} seeds)" if times == number else f" ({times} of {number} seeds)"

    said = []
    for (kind, pattern), alike in lacking.items():
        reason = alike[0].reason + (" (and alike)" if len({o.reason for o in alike}) > 1 else "")
        said.append(_WORDS[kind] + count(len(alike)) + (f": {reason}" if pattern else ""))
    if not values and lacking.keys() == {("missing", "")}:
        said = []  # nothing was run: the word alone says it
    if values and lacking:
        said.insert(0, f"mean of {len(values)} of {number} seeds")
    said += [problem + count(times) for problem, times in problems.items()]
    return Cell(
        status=("partial" if lacking else "ok") if values else worst,
        keys=keys,
        mean=_mean(values),
        deviation=_deviation(values),
        structural=seedless,
        seeds=0 if seedless else len(values),
        expected=0 if seedless else number,
        note="; ".join(said),
    )


def _pattern(reason: str) -> str:
    """A reason without its numbers, which differ from seed to seed."""
    return re.sub(r"[0-9]+([.][0-9]+)?", "#", reason)


def _average_cell(
    cells: Sequence[Cell],
    values: Sequence[Mapping[int | None, float]],
    expected: Sequence[int | None],
    seedless: bool,
) -> Cell:
    """The average of one column; see :func:`build_tables` for what its two numbers are."""
    keys = tuple(dict.fromkeys(key for cell in cells for key in cell.keys))
    means = [cell.mean for cell in cells if cell.mean is not None]
    if not means:
        alike = len({(cell.status, cell.note) for cell in cells}) == 1
        status, note = (cells[0].status, cells[0].note) if alike else ("missing", "no category has a value")
        number = 0 if seedless else len(expected)
        return Cell(status, keys, structural=seedless, expected=number, covered=0, note=note)
    covered = [by_seed for by_seed in values if by_seed]
    whole = [seed for seed in expected if all(seed in by_seed for by_seed in covered)]
    per_seed = [math.fsum(by_seed[seed] for by_seed in covered) / len(covered) for seed in whole]
    note = ""
    if len(whole) < len(expected):
        note = f"seeds with a value in every averaged category: {len(whole)} of {len(expected)}; "
        note += "the deviation is theirs" if len(whole) > 1 else "so there is no deviation"
    return Cell(
        status="ok" if len(covered) == len(cells) and not note else "partial",
        keys=keys,
        mean=_mean(means),
        deviation=_deviation(per_seed),
        structural=seedless,
        seeds=0 if seedless else len(whole),
        expected=0 if seedless else len(expected),
        covered=len(covered),
        note=note,
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    """Sample standard deviation; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _marked(cell: Cell, marks: dict[str, str]) -> Cell:
    """The cell with the mark of its note; equal notes share one."""
    if not cell.note:
        return cell
    return replace(cell, mark=marks.setdefault(cell.note, _letters(len(marks))))


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    text = ""
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        text = chr(ord("a") + rest) + text
    return text


def _sentence(text: str) -> str:
    text = " ".join(str(text).split())
    return text if text.endswith((".", "!", "?", "…")) else text + "."


def _distinct(texts: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(text) for text in texts if text))
