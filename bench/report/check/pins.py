"""Pinned numbers: what a study measured once, kept as ``results/pinned/STUDY.json`` to be measured again.

The file has one section per method on a dataset under a protocol: with what its numbers were measured (versions,
options, fingerprint of the data, encoders and their weights, metric protocols), and one line per trial, sorted,
so that a drift shows as changed lines. It holds every seed's own values, rounded to six decimals, never means.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchError
from bench.report.tables.naming import flat
from bench.tools.files import write_atomically
from bench.tools.groups import group
from bench.tools.text import as_numbers, as_whole, parse_json

FORMAT = 1
DECIMALS = 6

_NUMBERS = ("values", "reasons", "problems")  # of a metric block; the rest says how they were taken
_ENVIRONMENT = ("bench", "versions", "python", "platform", "device")


class Place(NamedTuple):
    """Which trial, by labels; shots and seed are None for a method that has none."""

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
        place: which trial.
        setting: what it has in common with the others of its section: ``dataset``, ``protocol``, ``method``,
            ``encoders``, ``prompts``, and ``metrics``: metric protocol -> how its numbers are taken.
        split: hash of its manifest.
        status: ``ok``, ``skipped`` (not applicable), ``failed`` or ``missing``.
        values: metric protocol -> metric -> fraction, None where the metric is not defined.
        reason: why there are no numbers; not kept in the file.
    """

    place: Place
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
        pins: by place.
        environment: versions and platform on which they were measured, of the first record.
    """

    study: str
    pins: Mapping[Place, Pin]
    environment: Mapping[str, Any] = field(default_factory=dict)


def measured(study: str, records: Iterable[Mapping[str, Any]]) -> Pins:
    """The numbers of a study's records; trials that are missing or failed stand with their reason."""
    pins = {}
    environment: dict[str, Any] = {}
    for record in records:
        trial = record["trial"]
        provenance = record.get("provenance") or {}
        environment = environment or {k: provenance[k] for k in _ENVIRONMENT if provenance.get(k)}
        blocks: Mapping[str, Any] = record.get("metrics") or {} if record["status"] == "ok" else {}
        place = Place(
            trial["dataset"]["label"],
            trial["protocol"]["label"],
            trial["method"]["label"],
            trial["category"],
            trial["shots"],
            trial["seed"],
        )
        setting = {
            "dataset": _of(trial["dataset"], "name", "label", "version", "config", "fingerprint"),
            "protocol": _of(trial["protocol"], "name", "label", "config", "source"),
            "method": _of(trial["method"], "name", "label", "version", "config"),
            "encoders": trial.get("encoders") or {},
            "prompts": trial.get("prompts"),
            "metrics": {name: _without(block, _NUMBERS) for name, block in blocks.items()},
        }
        values = {name: _rounded(block["values"]) for name, block in blocks.items()}
        reason = str(record.get("reason") or "")
        split = str(trial["protocol"].get("manifest"))
        pins[place] = Pin(place, setting, split, record["status"], values, reason)
    return Pins(study, pins, environment)


def _of(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: mapping.get(name) for name in names}


def _without(mapping: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _rounded(values: Mapping[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None else round(value, DECIMALS) for name, value in sorted(values.items())}


# ------------------------------------------------------------ the file


def write(path: Path, pins: Pins) -> None:
    """Write the pins of a study whose trials are all there.

    Raises:
        BenchError: a trial is missing or failed, or trials of one section were measured in different ways.
    """
    lacking = [pin for pin in pins.pins.values() if pin.status not in ("ok", "skipped")]
    if lacking:
        first = f"{lacking[0].place.title}: {lacking[0].status} {lacking[0].reason}".strip()
        raise BenchError(
            f"{len(lacking)} of {len(pins.pins)} trials of study {pins.study} have no numbers to pin ({first}); "
            "run the study again"
        )
    write_atomically(path, _text(pins).encode())


def _text(pins: Pins) -> str:
    ordered = sorted(pins.pins.values(), key=lambda pin: tuple(map(_sortable, pin.place)))
    sections = []
    for own in group(ordered, lambda pin: pin.place[:3]).values():
        setting = _common_setting(own)
        head = json.dumps(setting, sort_keys=True, indent=1, ensure_ascii=False).removesuffix("\n}")
        lines = ",\n".join(f"  {json.dumps(_line(pin), ensure_ascii=False)}" for pin in own)
        sections.append(textwrap.indent(f'{head},\n "trials": [\n{lines}\n ]\n}}', "  "))
    head = json.dumps(
        {"format": FORMAT, "study": pins.study, "environment": pins.environment}, indent=1, ensure_ascii=False
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
            f"{one.place.title} and {other.place.title} were measured in different ways ({differ}); "
            "run the study again in a store of its own (--store)"
        )
    return next(iter(settings.values()), pins[0]).setting


def _line(pin: Pin) -> dict[str, Any]:
    place = pin.place
    status = {} if pin.status == "ok" else {"status": pin.status}
    return {
        "category": place.category,
        "shots": place.shots,
        "seed": place.seed,
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
        if content["format"] != FORMAT:
            raise BenchError(f"{path} has format {content['format']}, not {FORMAT}; write it again: bench pin")
        pins = {pin.place: pin for section in content["sections"] for pin in _section(section)}
        return Pins(str(content["study"]), pins, content["environment"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path} is no file of pinned numbers ({error!r}); write it again: bench pin") from None


def _section(section: Mapping[str, Any]) -> Iterator[Pin]:
    setting = _without(section, ["trials"])
    dataset, protocol, method = (str(setting[name]["label"]) for name in ("dataset", "protocol", "method"))
    for line in section["trials"]:
        place = Place(
            dataset, protocol, method, str(line["category"]), as_whole(line["shots"]), as_whole(line["seed"])
        )
        values = {name: as_numbers(line[name]) for name in setting["metrics"] if name in line}
        yield Pin(place, setting, line["split"], line.get("status", "ok"), values)


# ------------------------------------------------------------ differences


def changes(old: Mapping[str, str | None], new: Mapping[str, str | None]) -> list[str]:
    """What differs between two flat identities, each in a few words; long hashes are cut."""
    names = sorted({*old, *new})
    return [f"{n}: {_short(old.get(n))} -> {_short(new.get(n))}" for n in names if old.get(n) != new.get(n)]


def _short(value: str | None) -> str:
    return "none" if value is None else value if len(value) <= 40 else f"{value[:12]}…"


def difference(old: Pins, new: Pins) -> list[str]:
    """What pinning ``new`` in place of ``old`` changes: one line per section, trial and metric protocol."""
    lines = []
    sections: set[str] = set()
    for place in [*old.pins, *(place for place in new.pins if place not in old.pins)]:
        was, now = old.pins.get(place), new.pins.get(place)
        if was is None or now is None:
            lines.append(f"{'+' if was is None else '-'} {place.title}")
            continue
        settings = changes(flat(was.setting), flat(now.setting))
        head = f"~ {place.method} on {place.dataset}: {'; '.join(settings)}"
        if settings and head not in sections:
            sections.add(head)
            lines.append(head)
        if was.split != now.split or was.status != now.status:
            what = changes({"split": was.split, "status": was.status}, {"split": now.split, "status": now.status})
            lines.append(f"~ {place.title}: {'; '.join(what)}")
        for protocol in sorted({*was.values, *now.values}):
            before, after = was.values.get(protocol, {}), now.values.get(protocol, {})
            moved = [
                f"{m} {_number(before.get(m))} -> {_number(after.get(m))}"
                for m in sorted({*before, *after})
                if before.get(m) != after.get(m)
            ]
            if moved:
                lines.append(f"~ {place.title} ({protocol}): {', '.join(moved)}")
    return lines


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.{DECIMALS}f}"
