"""A trial's record, typed: the only code that knows the keys of a record's JSON.

:mod:`bench.trial` writes a record as a JSON document and the store keeps it; all readers of records (tables, page,
figures, pins, estimates) read them through :class:`Record`. Records of earlier versions lack some of the fields
and are read all the same.
"""

from __future__ import annotations

import functools
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from bench.errors import BenchError
from bench.metrics.blocks import DEFAULT, readable, version
from bench.tools.text import as_numbers, as_whole

RecordStatus = Literal["ok", "failed", "skipped", "missing"]
_STATUSES = ("ok", "failed", "skipped", "missing")

_OF_CATEGORY = ("values", "reasons", "problems", "pixel_images")  # parts of a metric block

# The parts of a record are named tuples: a table of ten thousand records makes fifty thousand of them, and a
# frozen dataclass takes twice as long to make.


class RecordedMethod(NamedTuple):
    """The method of a trial.

    Attributes:
        name: without options.
        label: the spec: name and non-default options.
        title: as printed.
        version: of the method's code; None if it was not recorded.
        config: all options.
        trained, zero_shot: of its traits; None if they were not recorded.
        adapted: a sentence on how it differs from its source; empty if it does not.
    """

    name: str
    label: str
    title: str
    version: str | None
    config: Mapping[str, Any]
    trained: bool | None
    zero_shot: bool | None
    adapted: str

    @property
    def identity(self) -> dict[str, Any]:
        """JSON of what sets it apart from other methods."""
        return {"name": self.name, "label": self.label, "version": self.version, "config": self.config}


class RecordedDataset(NamedTuple):
    """The dataset that a trial was tested on, or learned from.

    Attributes:
        name: without options.
        label: the spec: name and non-default options; the name where the label was not recorded.
        title: as printed.
        version: of the dataset's code; None if it was not recorded.
        config: all options.
        fingerprint: SHA-256 of its content; None if it was not recorded.
        note: a sentence for every table of its numbers; empty if there is none.
        subset: what is there of it, where that is not all of the published dataset; else empty.
    """

    name: str
    label: str
    title: str
    version: str | None
    config: Mapping[str, Any]
    fingerprint: str | None
    note: str
    subset: str = ""

    @property
    def remark(self) -> str:
        """A sentence that says what is there of the published dataset; empty if all is, or it is not known."""
        return f"{self.title}, a subset: {self.subset}" if self.subset else ""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON of what sets it apart from other datasets."""
        return {
            "name": self.name,
            "version": self.version,
            "config": self.config,
            "fingerprint": self.fingerprint,
        }


class RecordedProtocol(NamedTuple):
    """The protocol of a trial.

    Attributes:
        name: without options.
        label: the spec: name and non-default options.
        title: as printed, with the dataset that is learned from.
        config: all options.
        source: the dataset that is learned from, where it is not the target's.
        manifest: hash of the split; None if it was not recorded.
        zero_shot: no image of the target is learned from; None if it was not recorded.
        learned: what is learned, in words, under a protocol without shots; else empty.
    """

    name: str
    label: str
    title: str
    config: Mapping[str, Any]
    source: RecordedDataset | None
    manifest: str | None
    zero_shot: bool | None = None
    learned: str = ""


class RecordedEncoder(NamedTuple):
    """An encoder that a method used, and the SHA-256 of its weights."""

    name: str
    sha256: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """JSON of what sets it apart from other encoders."""
        return {"name": self.name, "sha256": self.sha256}


class MetricBlock(NamedTuple):
    """The metrics of a trial under one metric protocol.

    Attributes:
        version: of the metrics code.
        eval_size: pixels of the grid on which pixel metrics were taken; None for the masks' own size.
        values: metric -> fraction; None where it is undefined.
        reasons: metric -> why it is undefined.
        problems: found by the guards in the scores.
        document: the block's JSON.
        pixel_images: number of test images that pixel metrics were taken on, and of all, where anomalous ones
            without a mask were left out; else None.
    """

    version: str
    eval_size: int | tuple[int, ...] | None
    values: Mapping[str, float | None]
    reasons: Mapping[str, str]
    problems: tuple[str, ...]
    document: Mapping[str, Any]
    pixel_images: tuple[int, int] | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """JSON of how the numbers were taken, the same for all categories."""
        return {k: v for k, v in self.document.items() if k not in _OF_CATEGORY}


class SharedFit(NamedTuple):
    """A fit that serves several trials: its key, and the seconds that training took."""

    key: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where, when and with what a trial ran; what was not recorded is None or empty.

    Attributes:
        command: a command line that repeats the trial, for people.
        device: the torch device, with the hardware's name.
        finished: ISO 8601, UTC.
        seconds: part of the trial -> its duration, with ``total``.
        bench, revision: version of this package, and the commit.
        python, platform: the interpreter's version and the system.
        versions: package -> version.
        encoder_passes: images put through a frozen encoder.
        peak_memory_mib: peak of resident memory of the process.
        traceback: of a trial that failed.
        fit: the fit whose detector the trial loaded; None if it was trained within the trial, or not at all.
    """

    command: str
    device: str
    finished: str
    seconds: Mapping[str, float]
    bench: str | None
    revision: str | None
    python: str | None
    platform: str | None
    versions: Mapping[str, str]
    encoder_passes: int | None
    peak_memory_mib: int | None
    traceback: str
    fit: SharedFit | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files that a trial was run on, by their paths on the machine that ran it.

    Attributes:
        target: data root of the dataset tested on; None for one that needs none.
        sources: name -> data root of the datasets learned from, where those are others; of a single one under the
            empty name.
        weights: encoder -> weights file; None for an encoder that needs none.
        prompts: the prompt file that replaced the datasets' own prompts; None if there was none.
        options: all options of the method, as JSON.
    """

    target: Path | None = None
    sources: Mapping[str, Path | None] = field(default_factory=dict)
    weights: Mapping[str, Path | None] = field(default_factory=dict)
    prompts: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Record:
    """One trial: what was run, what came out, and how.

    Attributes:
        document: the record's JSON, as it was written.
        key: the trial's key; empty in a document without one.
        status: ``ok``, ``failed``, ``skipped`` (not applicable), or ``missing``: planned, and not run yet.
        reason: of a status that is not ``ok``; else empty.
        category: of the target.
        shots: labelled anomalies per seen category; None for a method that learns from none.
        seed: None for a method that draws nothing.
        leak: a sentence if the method's weights have learned from the dataset tested on; else empty.
        prompts: hash of the prompts; None for a method that reads none.
        encoders: role (``encoder``, ``backbone``) -> the encoder.
        blocks: metric protocol -> metrics. Numbers that another version of the metrics code took are None here,
            with a reason that says so; see :mod:`bench.metrics.blocks`.
    """

    document: Mapping[str, Any] = field(repr=False)
    key: str
    status: RecordStatus
    reason: str
    method: RecordedMethod
    dataset: RecordedDataset
    protocol: RecordedProtocol
    category: str
    shots: int | None
    seed: int | None
    leak: str
    prompts: str | None
    encoders: Mapping[str, RecordedEncoder]
    blocks: Mapping[str, MetricBlock] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Record:
        """The record of a JSON document.

        Raises:
            BenchError: the document is not one of a trial.
        """
        try:
            return _record(document)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            key = str(document.get("key") or "") if isinstance(document, Mapping) else ""
            raise BenchError(
                f"record {key[:12] or 'without a key'} is not a trial record: {error!r}; "
                "delete it and run the study again"
            ) from None

    def value(self, metric: str, metric_protocol: str = DEFAULT) -> float | None:
        """A metric's value, a fraction; None if it was not measured or is undefined."""
        block = self.blocks.get(metric_protocol)
        return None if block is None else block.values.get(metric)

    @functools.cached_property
    def stored_blocks(self) -> Mapping[str, MetricBlock]:
        """The metrics as they were written, whatever version of the metrics code took them."""
        return _blocks(self.document.get("metrics") or {})

    @property
    def subsets(self) -> tuple[str, ...]:
        """A sentence for each dataset, tested on or learned from, that is not all of the published one."""
        source = self.protocol.source
        found = [self.dataset.remark, source.remark if source is not None else ""]
        return tuple(dict.fromkeys(filter(None, found)))

    @property
    def description(self) -> Mapping[str, Any]:
        """Everything that the record says of what was run, as JSON; for showing how two records differ."""
        trial: Mapping[str, Any] = self.document["trial"]
        return trial

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks of the method and the split on the trial."""
        return tuple(map(str, self.document.get("notes") or ()))

    @property
    def seconds(self) -> Mapping[str, float]:
        """Part of the trial -> its duration, with ``total``; empty if it did not come that far."""
        return self.provenance.seconds

    @property
    def fit_seconds(self) -> float | None:
        """Duration of training that several trials share, which is no part of ``seconds``; None if it is."""
        return None if self.provenance.fit is None else self.provenance.fit.seconds

    @functools.cached_property
    def provenance(self) -> Provenance:
        """Where, when and with what the trial ran."""
        return _provenance(self.document.get("provenance") or {})

    @functools.cached_property
    def inputs(self) -> Inputs:
        """The files that the trial was run on; empty for one that was not run."""
        provenance = self.document.get("provenance") or {}
        if isinstance(provenance.get("inputs"), Mapping):
            return _inputs(provenance["inputs"])
        return _inputs_of_command(self.provenance.command)


AnyRecord: TypeAlias = "Record | Mapping[str, Any]"


def as_records(records: Iterable[AnyRecord]) -> Iterator[Record]:
    """Records, also of those that come as JSON documents.

    Raises:
        BenchError: see :meth:`Record.of`.
    """
    for record in records:
        yield record if isinstance(record, Record) else Record.of(record)


# ------------------------------------------------------------ from JSON


def _record(document: Mapping[str, Any]) -> Record:
    trial = document["trial"]
    status = document["status"]
    # Few fields are needed; what earlier versions did not write has a default.
    if status not in _STATUSES:
        raise KeyError(f"status {status}")
    if not isinstance(document.get("provenance") or {}, Mapping):
        raise TypeError("its provenance is no mapping")
    return Record(
        document=document,
        key=str(document.get("key") or ""),
        status=status,
        reason=str(document.get("reason") or ""),
        method=_method(trial["method"]),
        dataset=_dataset(trial["dataset"]),
        protocol=_protocol(trial["protocol"]),
        category=str(trial["category"]),
        shots=as_whole(trial["shots"]),
        seed=as_whole(trial["seed"]),
        leak=str(trial.get("leak") or ""),
        prompts=_text(trial.get("prompts")),
        encoders=_encoders(trial.get("encoders") or {}),
        blocks=_blocks(readable(document.get("metrics") or {})),
    )


def _method(method: Mapping[str, Any]) -> RecordedMethod:
    # A label begins with the name, which earlier records do not have apart.
    label = str(method["label"])
    return RecordedMethod(
        name=str(method.get("name") or label.partition("[")[0]),
        label=label,
        title=str(method.get("title") or label),
        version=_text(method.get("version")),
        config=method.get("config") or {},
        trained=method.get("trained"),
        zero_shot=method.get("zero_shot"),
        adapted=str(method.get("adapted") or ""),
    )


def _dataset(dataset: Mapping[str, Any]) -> RecordedDataset:
    # Earlier versions recorded the dataset learned from without a label.
    label = str(dataset["label"] if "label" in dataset else dataset["name"])
    return RecordedDataset(
        name=str(dataset.get("name") or label.partition("[")[0]),
        label=label,
        title=str(dataset.get("title") or label),
        version=_text(dataset.get("version")),
        config=dataset.get("config") or {},
        fingerprint=_text(dataset.get("fingerprint")),
        note=str(dataset.get("note") or ""),
        subset=str(dataset.get("subset") or ""),
    )


def _protocol(protocol: Mapping[str, Any]) -> RecordedProtocol:
    label = str(protocol["label"])
    title = str(protocol.get("title") or label)
    source = _dataset(protocol["source"]) if protocol.get("source") else None
    return RecordedProtocol(
        name=str(protocol.get("name") or label.partition("[")[0]),
        label=label,
        title=title if source is None else f"{title} from {source.title}",
        config=protocol.get("config") or {},
        source=source,
        manifest=_text(protocol.get("manifest")),
        zero_shot=protocol.get("zero_shot"),
        learned=str(protocol.get("learned") or ""),
    )


def _encoders(encoders: Mapping[str, Any]) -> dict[str, RecordedEncoder]:
    found = {}
    for role, encoder in encoders.items():
        if encoder:
            found[str(role)] = RecordedEncoder(str(encoder.get("name")), _text(encoder.get("sha256")))
    return found


def _blocks(metrics: Mapping[str, Any]) -> dict[str, MetricBlock]:
    blocks = {}
    for name, block in metrics.items():
        size = block.get("eval_size")
        blocks[name] = MetricBlock(
            version=version(block),
            eval_size=tuple(size) if isinstance(size, list) else size,
            values=as_numbers(block["values"]),
            reasons=block.get("reasons") or {},
            problems=tuple(block.get("problems") or ()),
            document=block,
            pixel_images=_pixel_images(block.get("pixel_images")),
        )
    return blocks


def _pixel_images(content: Mapping[str, Any] | None) -> tuple[int, int] | None:
    return None if content is None else (int(content["measured"]), int(content["of"]))


def _provenance(content: Mapping[str, Any]) -> Provenance:
    # Parts that were not reached are null there, and are left out here.
    seconds, versions = content.get("seconds") or {}, content.get("versions") or {}
    passes, memory = content.get("encoder_passes"), content.get("peak_memory_mib")
    return Provenance(
        command=str(content.get("command") or ""),
        device=str(content.get("device") or ""),
        finished=str(content.get("finished") or ""),
        seconds={str(k): float(v) for k, v in seconds.items() if v is not None},
        bench=_text(content.get("bench")),
        revision=_text(content.get("revision")),
        python=_text(content.get("python")),
        platform=_text(content.get("platform")),
        versions={str(k): str(v) for k, v in versions.items()},
        encoder_passes=None if passes is None else int(passes),
        peak_memory_mib=None if memory is None else int(memory),
        traceback=str(content.get("traceback") or ""),
        fit=_shared_fit(content.get("fit")),
    )


def _shared_fit(content: object) -> SharedFit | None:
    if not isinstance(content, Mapping) or not isinstance(content.get("seconds"), int | float):
        return None
    return SharedFit(str(content.get("key") or ""), float(content["seconds"]))


def _inputs(content: Mapping[str, Any]) -> Inputs:
    roots, weights = content.get("roots") or {}, content.get("weights") or {}
    return Inputs(
        target=_path(roots.get("target")),
        sources=_sources(roots.get("source")),
        weights={str(name): _path(file) for name, file in weights.items()},
        prompts=_path(content.get("prompts")),
        options=content.get("options") or {},
    )


def _inputs_of_command(command: str) -> Inputs:
    """The inputs of a record that has none as data, as records had none before ``provenance.inputs``.

    There the command that repeats the trial is the only place that names its files.
    """
    try:
        words = shlex.split(command)
    except ValueError:
        return Inputs()
    given = dict[str, Path]()
    weights = dict[str, Path | None]()
    for option, value in itertools.pairwise(words):
        if option == "--weights":
            encoder, _, file = value.rpartition("=")
            weights[encoder] = Path(file)
        elif option.startswith("--") and value != "DIR":  # written for a source that needed no folder
            given[option] = Path(value)
    return Inputs(given.get("--data-root"), _sources(given.get("--train-root")), weights, given.get("--prompts"))


def _sources(root: object) -> dict[str, Path | None]:
    if isinstance(root, Mapping):
        return {str(name): _path(each) for name, each in root.items()}
    return {} if root is None else {"": _path(root)}


def _path(text: object) -> Path | None:
    return None if text is None else Path(str(text)).expanduser()


def _text(value: object) -> str | None:
    return None if value is None else str(value)
