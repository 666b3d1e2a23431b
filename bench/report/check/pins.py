"""Pinned numbers: what a study measured once, kept as ``results/pinned/STUDY.json`` to be measured again.

The file has one section per method on a dataset under a protocol: with what its numbers were measured (versions,
options, fingerprint of the data, encoders and their weights, metric protocols), and one line per trial, sorted,
so that a drift shows as changed lines. It holds every seed's own values, rounded to six decimals, never means.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.report.tables.naming import flat
from bench.store.record import AnyRecord, MetricBlock, Record, as_records
from bench.tools.files import write_atomically
from bench.tools.groups import group
from bench.tools.text import as_numbers, as_whole, count, parse_json

PINS_FORMAT = 1
DECIMALS = 6


class PinKey(NamedTuple):
    """The address of a trial, by labels; shots and seed are None for a method that has none."""

    dataset: str
    protocol: str
    method: str
    category: str
    shots: int | None
    seed: int | None

    @property
    def title(self) -> str:
        """In words."""
        parts = [self.method, self.dataset, self.category]
        parts += [f"{self.shots}-shot"] if self.shots is not None else []
        parts += [f"seed {self.seed}"] if self.seed is not None else []
        return ", ".join(parts)


@dataclass(frozen=True)
class Pin:
    """One trial's numbers, pinned or just measured.

    Attributes:
        key: of the trial.
        setting: shared with the others of its section: ``dataset``, ``protocol``, ``method``,
            ``encoders``, ``prompts``, and ``metrics``: metric protocol -> how its numbers are taken.
        split: hash of its manifest.
        status: ``ok``, ``skipped`` (not applicable), ``failed`` or ``missing``.
        values: metric protocol -> metric -> fraction, None where the metric is not defined.
        reason: of missing numbers; not kept in the file.
    """

    key: PinKey
    setting: Mapping[str, Any]
    split: str
    status: str
    values: Mapping[str, Mapping[str, float | None]]
    reason: str = ""

    @property
    def identity(self) -> dict[str, str | None]:
        """Everything that must be equal for two trials' numbers to be comparable, but for the metrics."""
        return {**flat({k: v for k, v in self.setting.items() if k != "metrics"}), "split": self.split}


@dataclass(frozen=True)
class Pins:
    """The numbers of a study.

    Attributes:
        study: its name.
        pins: by key.
        environment: versions and platform on which they were measured, of the first record.
    """

    study: str
    pins: Mapping[PinKey, Pin]
    environment: Mapping[str, Any] = field(default_factory=dict)


def measured(study: str, records: Iterable[AnyRecord], metrics: Container[str] | None = None) -> Pins:
    """The numbers of a study's records under some metrics, or all.

    Trials that are missing or failed have their reason instead.
    """
    pins = {}
    environment: dict[str, Any] = {}
    for record in as_records(records):
        environment = environment or _environment(record)
        pin = _pin(record, metrics)
        pins[pin.key] = pin
    return Pins(study, pins, environment)


def _environment(record: Record) -> dict[str, Any]:
    """The versions and the machine of a trial, without what is not known."""
    ran = record.provenance
    found = {
        "bench": ran.bench,
        "versions": dict(ran.versions),
        "python": ran.python,
        "platform": ran.platform,
        "device": ran.device,
    }
    return {name: value for name, value in found.items() if value}


def _pin(record: Record, metrics: Container[str] | None) -> Pin:
    method, dataset, protocol = record.method, record.dataset, record.protocol
    # Also blocks of an older version of the metrics: that they are is what a check has to report.
    blocks: Mapping[str, MetricBlock] = record.stored_blocks if record.status == "ok" else {}
    setting = {
        "dataset": {**dataset.identity, "label": dataset.label},
        "protocol": {
            "name": protocol.name,
            "label": protocol.label,
            "config": protocol.config,
            "source": None if protocol.source is None else protocol.source.identity,
        },
        "method": method.identity,
        "encoders": {role: encoder.identity for role, encoder in record.encoders.items()},
        "prompts": record.prompts,
        "metrics": {name: block.settings for name, block in blocks.items()},
    }
    return Pin(
        key=PinKey(dataset.label, protocol.label, method.label, record.category, record.shots, record.seed),
        setting=setting,
        split=str(record.protocol.manifest),
        status=record.status,
        values={name: _rounded(block.values, metrics) for name, block in blocks.items()},
        reason=record.reason,
    )


def _rounded(values: Mapping[str, float | None], metrics: Container[str] | None) -> dict[str, float | None]:
    chosen = ((name, value) for name, value in sorted(values.items()) if metrics is None or name in metrics)
    return {name: None if value is None else round(value, DECIMALS) for name, value in chosen}


# ------------------------------------------------------------ the file


def write(path: Path, pins: Pins) -> None:
    """Write the pins of a study whose trials are all there.

    Raises:
        BenchError: a trial is missing or failed, or trials of one section were measured in different ways.
    """
    lacking = [pin for pin in pins.pins.values() if pin.status not in ("ok", "skipped")]
    if lacking:
        first = f"{lacking[0].key.title}: {lacking[0].status} {lacking[0].reason}".strip()
        raise BenchError(
            f"study {pins.study} lacks numbers to pin: "
            f"{len(lacking)} of {count(len(pins.pins), 'trial')} ({first}); run the study again"
        )
    write_atomically(path, _text(pins).encode())


def _text(pins: Pins) -> str:
    ordered = sorted(pins.pins.values(), key=lambda pin: tuple(map(_sortable, pin.key)))
    sections = []
    # A section per dataset, protocol and method, with the settings once and a line per trial: small diffs.
    for own in group(ordered, lambda pin: pin.key[:3]).values():
        setting = _common_setting(own)
        head = json.dumps(setting, sort_keys=True, indent=1, ensure_ascii=False).removesuffix("\n}")
        lines = ",\n".join(f"  {json.dumps(_line(pin), ensure_ascii=False)}" for pin in own)
        sections.append(textwrap.indent(f'{head},\n "trials": [\n{lines}\n ]\n}}', "  "))
    head = json.dumps(
        {"format": PINS_FORMAT, "study": pins.study, "environment": pins.environment}, indent=1, ensure_ascii=False
    ).removesuffix("\n}")
    return f'{head},\n "sections": [\n' + ",\n".join(sections) + "\n ]\n}\n"


def _sortable(value: str | int | None) -> tuple[bool, str | int]:
    return (value is not None, 0 if value is None else value)


def _common_setting(pins: list[Pin]) -> Mapping[str, Any]:
    """The setting that all trials of a section share; a skipped one has no metrics of its own."""
    settings = {json.dumps(pin.setting, sort_keys=True): pin for pin in pins if pin.status == "ok"}
    if len(settings) > 1:
        one, other = (settings[text] for text in sorted(settings)[:2])
        differ = "; ".join(changes(flat(one.setting), flat(other.setting)))
        raise BenchError(
            f"{one.key.title} and {other.key.title} were measured in different ways ({differ}); "
            "run the study again in a store of its own (--store)"
        )
    return next(iter(settings.values()), pins[0]).setting


def _line(pin: Pin) -> dict[str, Any]:
    key = pin.key
    status = {} if pin.status == "ok" else {"status": pin.status}
    return {
        "category": key.category,
        "shots": key.shots,
        "seed": key.seed,
        **status,
        "split": pin.split,
        **pin.values,
    }


def read(path: Path) -> Pins:
    """The pins of a file.

    Raises:
        BenchError: it is no such file, or of another format.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if content["format"] != PINS_FORMAT:
            raise BenchError(
                f"{path} has format {content['format']}, not {PINS_FORMAT}; write it again: bench pin"
            )
        pins = {pin.key: pin for section in content["sections"] for pin in _section(section)}
        return Pins(str(content["study"]), pins, content["environment"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} is no file of pinned numbers ({error!r}); write it again: bench pin") from None


def _section(section: Mapping[str, Any]) -> Iterator[Pin]:
    setting = {name: value for name, value in section.items() if name != "trials"}
    dataset, protocol, method = (str(setting[name]["label"]) for name in ("dataset", "protocol", "method"))
    for line in section["trials"]:
        key = PinKey(
            dataset, protocol, method, str(line["category"]), as_whole(line["shots"]), as_whole(line["seed"])
        )
        values = {name: as_numbers(line[name]) for name in setting["metrics"] if name in line}
        yield Pin(key, setting, line["split"], line.get("status", "ok"), values)


# ------------------------------------------------------------ differences


def changes(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> list[str]:
    """The differences of two flat identities, each in a few words; long hashes are cut."""
    names = sorted({*old, *new})
    return [f"{n}: {_short(old.get(n))} -> {_short(new.get(n))}" for n in names if old.get(n) != new.get(n)]


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= 40 else f"{value[:12]}…"


def difference(old: Pins, new: Pins) -> list[str]:
    """The changes of pinning ``new`` in place of ``old``: one line per section, trial and metric protocol."""
    lines = []
    sections: set[str] = set()
    for key in [*old.pins, *(key for key in new.pins if key not in old.pins)]:
        was, now = old.pins.get(key), new.pins.get(key)
        if was is None or now is None:
            lines.append(f"{'+' if was is None else '-'} {key.title}")
            continue
        settings = changes(flat(was.setting), flat(now.setting))
        head = f"~ {key.method} on {key.dataset}: {'; '.join(settings)}"
        # The settings are a section's: they are reported once, not for each of its trials.
        if settings and head not in sections:
            sections.add(head)
            lines.append(head)
        if was.split != now.split or was.status != now.status:
            what = changes({"split": was.split, "status": was.status}, {"split": now.split, "status": now.status})
            lines.append(f"~ {key.title}: {'; '.join(what)}")
        for protocol in sorted({*was.values, *now.values}):
            before, after = was.values.get(protocol, {}), now.values.get(protocol, {})
            moved = [
                f"{m} {_number(before.get(m))} -> {_number(after.get(m))}"
                for m in sorted({*before, *after})
                if before.get(m) != after.get(m)
            ]
            if moved:
                lines.append(f"~ {key.title} ({protocol}): {', '.join(moved)}")
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.{DECIMALS}f}"
