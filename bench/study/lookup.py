"""Looking up a study's methods and the weights of the encoders that they use."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts import Method, Traits, Weights
from bench.errors import BenchError, unknown
from bench.study.study import Study
from bench.tools.registry import DATASETS, METHODS
from bench.tools.spec import Spec, build_config, label, parse_spec

ENCODER_TRAITS = {"encoder": "text", "backbone": "backbone"}  # config field -> the trait that needs it
_SHIPPED = "pocket/"  # encoders whose weights come with the package


@dataclass(frozen=True)
class ChosenMethod:
    """A method of a study on one dataset, with its encoders settled.

    Attributes:
        cls: the method.
        config: its options.
        traits: of the method with these options.
        encoders: config field -> name of the encoder in use.
    """

    cls: type[Method]
    config: Any
    traits: Traits
    encoders: Mapping[str, str]

    @functools.cached_property
    def label(self) -> str:
        """The method as people write it."""
        return label(self.cls.name, self.config)

    @property
    def once(self) -> bool:
        """Nothing is learned and nothing drawn: one trial per category stands for all shots and seeds."""
        return not (self.traits.trained or self.traits.seeded)


def choose_method(spec: Spec, dataset: Spec | None, study: Study) -> ChosenMethod:
    """A method with the study's encoders, or the dataset's, where the user wrote none behind its name.

    Args:
        spec: the method.
        dataset: whose encoders are chosen; None for none.
        study: whose encoders go before the dataset's.

    Raises:
        BenchError: unknown method or option.
    """
    cls = METHODS.load(spec.name)
    data_traits = None if dataset is None else DATASETS.load(dataset.name).traits
    fields = {f.name for f in dataclasses.fields(cls.Config)}
    for name in ENCODER_TRAITS:
        chosen = getattr(study, name) or getattr(data_traits, name, "")
        if chosen and name in fields:
            spec = spec.with_options(**{name: chosen})
    config = build_config(cls.Config, spec)
    traits = cls.traits(config)
    used = {name: getattr(config, name) for name, trait in ENCODER_TRAITS.items() if getattr(traits, trait)}
    return ChosenMethod(cls, config, traits, used)


def check_used(study: Study, methods: Iterable[ChosenMethod]) -> None:
    """Refuse a choice for all methods (encoder, backbone, prompts) that none of them uses.

    Raises:
        BenchError: there is one.
    """
    methods = list(methods)
    for name in ENCODER_TRAITS:
        chosen = getattr(study, name)
        if chosen and not any(method.encoders.get(name) == chosen for method in methods):
            raise BenchError(f"none of the methods uses the {name} {chosen}; leave --{name} out")
    if study.prompts is not None and not any(method.traits.text for method in methods):
        raise BenchError(f"none of the methods uses prompts; leave --prompts {study.prompts} out")


def find_weights(study: Study, methods: Iterable[ChosenMethod]) -> dict[str, Weights]:
    """The weights of every encoder in use, found and hashed: by the encoder's name.

    Raises:
        BenchError: they cannot be had, or a file was given for an encoder that is not in use.
    """
    from bench.encoders import identify

    names = sorted({name for method in methods for name in method.encoders.values()})
    files = dict(study.weights)
    only = files.pop("", None)  # a file without a name belongs to the only encoder that loads one
    if only is not None:
        loadable = [name for name in names if not name.startswith(_SHIPPED)]
        if len(loadable) != 1:
            using = ", ".join(loadable) or "none that loads weights"
            raise BenchError(f"--weights {only}: say for which encoder, --weights NAME={only} (in use: {using})")
        files[loadable[0]] = only
    found, used = {}, set()
    for name in names:
        given = next((key for key in (name, parse_spec(name).name) if key in files), None)
        file = files[given] if given is not None else None
        used.add(given)
        if file is not None and not file.is_file():
            raise BenchError(f"weights of {name}: there is no file {file}")
        found[name] = identify(name, file)
    for key in files:
        if key not in used:  # one file may serve several variants of an encoder
            raise unknown("encoder", key, names, "given to --weights")
    return found


def weights_file(weights: Weights) -> Path | None:
    """The file that a user would have to give for these weights; None for those that come with the package."""
    return None if weights.name.startswith(_SHIPPED) else weights.file
