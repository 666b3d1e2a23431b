"""Studies: which methods, datasets, protocol, shots and seeds; and the trials they expand into."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.config import Spec, build_config, parse_spec
from bench.errors import BenchError, unknown

PAPER_SEEDS = 10


@dataclass(frozen=True)
class Study:
    """What a user asks for, before anything is looked up.

    Attributes:
        name: under which ``bench table`` finds it again.
        methods: method specs.
        datasets: dataset specs.
        protocol: protocol spec, ``loo``, ``transfer`` or ``oneclass``, with options.
        source: dataset spec to learn from under ``transfer``.
        shots: labelled anomalies per seen category.
        seeds: seeds, each a repetition.
        categories: target categories; empty for all.
        roots: dataset name -> data root.
        encoder: text-image encoder that replaces the methods' own; empty for none.
        backbone: trainable backbone that replaces the methods' own; empty for none.
        weights: encoder name -> local weights file; under the name ``""`` for the only encoder in use.
        prompts: a prompt file that replaces the datasets' own.
        device: torch device, or ``auto``.
    """

    name: str
    methods: tuple[Spec, ...]
    datasets: tuple[Spec, ...]
    protocol: Spec = dataclasses.field(default_factory=lambda: Spec("loo"))
    source: Spec | None = None
    shots: tuple[int, ...] = (1, 10)
    seeds: tuple[int, ...] = (0,)
    categories: tuple[str, ...] = ()
    roots: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    encoder: str = ""
    backbone: str = ""
    weights: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    prompts: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.methods:
            raise BenchError("the study names no method; add --methods NAME")
        if not self.datasets:
            raise BenchError("the study names no dataset; add --dataset NAME")
        if not self.shots or min(self.shots) < 0:
            raise BenchError("shots must be one or more numbers, none negative: --shots 1,10")
        if not self.seeds or min(self.seeds) < 0:
            raise BenchError("seeds must be one or more numbers, none negative: --seeds 10")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.shots)) < len(self.shots):
            raise BenchError("a seed or a number of shots stands twice")


_FIELDS = {f.name for f in dataclasses.fields(Study)} - {"roots", "weights", "device"}


def shipped_studies() -> dict[str, str]:
    """Name -> first comment line of the studies that come with the package."""
    folder = importlib.resources.files("bench.studies")
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8").split("\n")[0].lstrip("# ")
        for entry in sorted(folder.iterdir(), key=lambda e: e.name)
        if entry.name.endswith(".yaml")
    }


def load_study(name: str) -> dict[str, Any]:
    """The fields of a study: a shipped one by name, or a YAML file by path.

    Raises:
        BenchError: there is no such study, the YAML is malformed, or a field is unknown or of a wrong type.
    """
    import yaml

    if name in shipped_studies():
        text = (importlib.resources.files("bench.studies") / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BenchError(f"cannot read the study {name}: {error}") from None
    else:
        raise unknown("study", name, shipped_studies())
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BenchError(f"{name} is no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise BenchError(f"{name}: a study is a mapping of fields such as methods, datasets, shots and seeds")
    fields: dict[str, Any] = {"name": Path(name).stem}
    for key, value in content.items():
        if key not in _FIELDS:
            raise unknown(f"field of the study {name}:", str(key), _FIELDS)
        fields[key] = _read_field(name, key, value)
    return fields


def _read_field(study: str, key: str, value: Any) -> Any:
    if value is None:
        raise BenchError(f"{study}: the field {key!r} is empty; leave it out instead")
    try:
        if key in ("methods", "datasets"):
            return tuple(parse_spec(str(item)) for item in _items(value))
        if key in ("protocol", "source"):
            return parse_spec(str(value))
        if key == "shots":
            return tuple(int(item) for item in _items(value))
        if key == "seeds":
            return tuple(range(value)) if isinstance(value, int) else tuple(int(item) for item in _list(value))
        if key == "categories":
            return tuple(str(item) for item in _items(value))
        if key == "prompts":
            return Path(str(value))
    except (TypeError, ValueError) as error:
        raise BenchError(f"{study}: the field {key!r} cannot be read: {error}") from None
    return str(value)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a number or a list")
    return value


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]


@dataclass(frozen=True)
class Task:
    """One trial, as plain values that travel to any process.

    ``identity`` is what makes the trial what it is; its hash is the trial's key. Everything else says how to
    carry it out here. ``source_prompts`` are those of the dataset learned from, where it is not the target's.
    """

    key: str
    identity: Mapping[str, Any]
    method: str
    dataset: str
    root: str
    source: str | None
    source_root: str | None
    protocol: str
    category: str
    shots: int | None
    seed: int | None
    prompts: Mapping[str, Any]
    weights: Mapping[str, Any]
    device: str
    hashes: str
    command: str
    source_prompts: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """A short name for progress lines and messages."""
        parts = [self.method, self.category]
        if self.shots is not None:
            parts.append(f"{self.shots}-shot")
        if self.seed is not None:
            parts.append(f"seed {self.seed}")
        return " · ".join(parts)


def method_config(spec: Spec, cls: Any) -> Any:
    """The config of a method spec; see :func:`bench.config.build_config`."""
    return build_config(cls.Config, spec)
