"""Studies: the methods, datasets, protocols, shots and seeds that a user asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError, nearest, shorten, unknown
from bench.study.sources import Sources
from bench.tools.devices import Precision
from bench.tools.spec import Spec

DEFAULT_PROTOCOL = Spec("loo")
DEFAULT_WITH_SOURCE = Spec("transfer")  # where a dataset to learn from is named and no protocol
DEFAULT_TO_FIT = "auxiliary"  # what a detector that is for no target in particular learns from
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
        source: datasets to learn from, under protocols that learn from others.
        shots: labelled anomalies per seen category.
        seeds: seeds, each a repetition.
        categories: target categories; empty for all.
        roots: dataset name -> data root; ``train:`` before the name of a dataset to learn from.
        encoder: text-image encoder that replaces the methods' own; empty for none.
        backbone: trainable backbone that replaces the methods' own; empty for none.
        weights: encoder name -> local weights file; under the name ``""`` for the only encoder in use.
        prompts: a prompt file that replaces the datasets' own.
        device: torch device, or ``auto``.
        precision: of float32 matrix products, one of :data:`bench.tools.devices.PRECISIONS`.
        allow_leak: run methods even where their weights have learned from the dataset that is tested on.
        layout: name of a layout of its tables; empty for plain tables of categories and methods. It is checked
            where tables are made.
    """

    name: str
    methods: tuple[Spec, ...]
    datasets: tuple[Spec, ...]
    protocols: tuple[Spec, ...] = (DEFAULT_PROTOCOL,)
    source: Sources | None = None
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
    allow_leak: bool = False

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
            raise BenchError("a seed or a number of shots is given twice")
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

    known = {}  # method -> its options
    for spec in methods:
        known[spec.name] = {field.name for field in dataclasses.fields(METHODS.load(spec.name).Config)}
    changed = list(methods)
    for setting in settings:
        key, equals, value = (part.strip() for part in setting.partition("="))
        name, _, option = key.rpartition(".")
        if not equals or not option or not value:
            raise BenchError(f"cannot read {setting!r}; write option=value or METHOD.option=value")
        if name and name not in known:
            raise unknown("method", name, known, "of the study")
        options = set().union(*(own for method, own in known.items() if name in ("", method)))
        if option not in options:
            near = nearest(option, options)
            question = f"; did you mean {near!r}?" if near else ""
            raise BenchError(f"no option {option!r} in {name or ', '.join(known)}{question}")
        for place, spec in enumerate(changed):
            if name in ("", spec.name) and option in known[spec.name]:
                changed[place] = Spec(spec.name, {**spec.options, option: value})
    return tuple(changed)
