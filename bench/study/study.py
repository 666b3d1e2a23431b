"""Studies: the methods, datasets, protocols, shots and seeds that a user asks for."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError, shorten, unknown
from bench.tools.devices import Precision
from bench.tools.spec import Spec, parse_spec
from bench.tools.text import kind, parse_yaml, read_text

DEFAULT_PROTOCOL = Spec("loo")
DEFAULT_WITH_SOURCE = Spec("transfer")  # where a dataset to learn from is named and no protocol
PAPER_SEEDS = 10
MAX_SEEDS = 10_000  # repetitions of one study
MAX_SEED = 2**32 - 1  # of NumPy's generators
_LONGEST_NAME = 100
_NOT_IN_NAMES = set('/\\:*?"<>|')  # what no file name may have, or Windows takes for something else


@dataclass(frozen=True)
class Study:
    """A user's request, before anything is looked up.

    Attributes:
        name: under which ``bench table`` finds it again.
        methods: method specs.
        datasets: dataset specs.
        protocols: protocol specs; every trial is run under each.
        source: dataset spec to learn from, under protocols that learn from another dataset.
        shots: labelled anomalies per seen category.
        seeds: seeds, each a repetition.
        categories: target categories; empty for all.
        roots: dataset name -> data root.
        encoder: text-image encoder that replaces the methods' own; empty for none.
        backbone: trainable backbone that replaces the methods' own; empty for none.
        weights: encoder name -> local weights file; under the name ``""`` for the only encoder in use.
        prompts: a prompt file that replaces the datasets' own.
        device: torch device, or ``auto``.
        precision: of float32 matrix products, one of :data:`bench.tools.devices.PRECISIONS`.
        layout: name of a layout of its tables; empty for plain tables of categories and methods. It is checked by
            whoever makes tables.
    """

    name: str
    methods: tuple[Spec, ...]
    datasets: tuple[Spec, ...]
    protocols: tuple[Spec, ...] = (DEFAULT_PROTOCOL,)
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
    precision: Precision = "highest"
    layout: str = ""

    def __post_init__(self) -> None:
        if not self.methods:
            raise BenchError("the study names no method; add --methods NAME")
        if not self.datasets:
            raise BenchError("the study names no dataset; add --dataset NAME")
        if not self.protocols:
            raise BenchError("the study names no protocol; leave it out for leave-one-category-out")
        if not self.shots or min(self.shots) < 0:
            raise BenchError("shots must be one or more numbers, none negative: --shots 1,10")
        if not self.seeds or min(self.seeds) < 0:
            raise BenchError("seeds must be one or more numbers, none negative: --seeds 10")
        if max(self.seeds) > MAX_SEED:
            raise BenchError(f"the seed {shorten(str(max(self.seeds)))} is above {MAX_SEED}, the largest there is")
        if len(set(self.seeds)) < len(self.seeds) or len(set(self.shots)) < len(self.shots):
            raise BenchError("a seed or a number of shots stands twice")
        check_study_name(self.name)


def check_study_name(name: str) -> None:
    """See that ``name`` can name files: records of studies, pins, pages and figures are called after it.

    Raises:
        BenchError: it leads to another folder, or no system takes it as a file's name.
    """
    wrong = len(name) > _LONGEST_NAME or name.startswith(".") or not name.isprintable() or _NOT_IN_NAMES & {*name}
    if wrong or name != name.strip():
        raise BenchError(
            f"a study cannot be called {shorten(name)!r}: files are named after it; take at most {_LONGEST_NAME} "
            "letters, digits and marks, none of them a slash"
        )


def first_seeds(number: int) -> tuple[int, ...]:
    """The seeds of a study that says how many: 0, 1, 2, ...

    Raises:
        BenchError: more than :data:`MAX_SEEDS`.
    """
    if number > MAX_SEEDS:
        raise BenchError(
            f"{shorten(str(number))} seeds are more than a study has ({MAX_SEEDS}); which ones: --seeds 0,3,7"
        )
    return tuple(range(number))


_FIELDS = {f.name for f in dataclasses.fields(Study)} - {"roots", "weights", "device", "precision"}


def shipped_studies() -> dict[str, str]:
    """Name -> first comment line of the studies that come with the package."""
    folder = importlib.resources.files("bench.study.studies")
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
    if name in shipped_studies():
        text = (importlib.resources.files("bench.study.studies") / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        text = read_text(Path(name), "study")
    else:
        raise unknown("study", name, shipped_studies())
    content = parse_yaml(text, name)
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
        if key in ("methods", "datasets", "protocols"):
            return tuple(parse_spec(_text(item)) for item in _items(value))
        if key == "source":
            return parse_spec(_text(value))
        if key == "shots":
            return tuple(map(_whole, _items(value)))
        if key == "seeds":
            return tuple(map(_whole, value)) if isinstance(value, list) else first_seeds(_whole(value))
        if key == "categories":
            return tuple(map(_text, _items(value)))
        if key == "prompts":
            return Path(_text(value))
        return _text(value)
    except TypeError as error:
        raise BenchError(f"{study}: the field {key!r} cannot be read: {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        hint = "" if isinstance(value, list | dict) or value is None else "; put it in quotes"
        raise TypeError(f"expected text, found {kind(value)}{hint}")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int:  # a bool is an int, too
        raise TypeError(f"expected whole numbers, found {kind(value)}")
    return value


def set_options(methods: Sequence[Spec], settings: Sequence[str]) -> tuple[Spec, ...]:
    """The method specs with options set in all of them at once.

    Args:
        methods: of a study.
        settings: ``option=value`` for every method that has such an option, ``method.option=value`` for one
            method and its variants.

    Raises:
        BenchError: a setting is malformed, or no method of the study has its option.
    """
    from bench.tools.registry import METHODS

    known = {spec.name: {f.name for f in dataclasses.fields(METHODS.load(spec.name).Config)} for spec in methods}
    changed = list(methods)
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        name, _, option = key.rpartition(".")
        if not equals or not option or not value:
            raise BenchError(f"cannot read {setting!r}; write option=value or METHOD.option=value")
        if name and name not in known:
            raise unknown("method of the study", name, known)
        options = set().union(*(own for method, own in known.items() if name in ("", method)))
        if option not in options:
            near = difflib.get_close_matches(option, options, n=1)
            question = f"; did you mean {near[0]!r}?" if near else ""
            raise BenchError(f"no option {option!r} in {name or ', '.join(known)}{question}")
        for place, spec in enumerate(changed):
            if name in ("", spec.name) and option in known[spec.name]:
                changed[place] = Spec(spec.name, {**spec.options, option: value})
    return tuple(changed)


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list) else [value]
