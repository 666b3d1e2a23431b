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

ENCODER_FIELDS = ("encoder", "backbone")  # config fields that a study or a dataset may set for all methods
_SHIPPED = "pocket/"  # encoders whose weights come with the package


@dataclass(frozen=True)
class ChosenMethod:
    """A method of a study on one dataset, with its encoders settled.

    Attributes:
        cls: the method.
        config: its options.
        traits: of the method with these options.
        encoders: role of weights -> their name, of those in use.
    """

    cls: type[Method]
    config: Any
    traits: Traits
    encoders: Mapping[str, str]

    @functools.cached_property
    def label(self) -> str:
        """The method as people write it."""
        return label(self.cls.name, self.config)

    def weights_key(self, role: str) -> str:
        """The key of a role's weights among those of a study; methods share encoders, and no checkpoints."""
        return weights_key(self.cls.name, self.traits, role, self.encoders[role])

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
    for name in ENCODER_FIELDS:
        chosen = getattr(study, name) or getattr(data_traits, name, "")
        if chosen and name in fields:
            spec = spec.with_options(**{name: chosen})
    config = build_config(cls.Config, spec)
    traits = cls.traits(config)
    return ChosenMethod(cls, config, traits, used_weights(config, traits))


def used_weights(config: Any, traits: Traits) -> dict[str, str]:
    """Role of weights -> their name, of those that a method loads with these options."""
    return {role: name for role in traits.roles if (name := getattr(config, role))}


def weights_key(method: str, traits: Traits, role: str, name: str) -> str:
    """The key of weights among those of a study, see :meth:`ChosenMethod.weights_key`."""
    return f"{method}:{role}:{name}" if traits.roles[role] == "checkpoint" else name


def check_used(study: Study, methods: Iterable[ChosenMethod]) -> None:
    """Refuse a choice for all methods (encoder, backbone, prompts) that none of them uses.

    Raises:
        BenchError: there is one.
    """
    methods = list(methods)
    for name in ENCODER_FIELDS:
        chosen = getattr(study, name)
        if chosen and not any(method.encoders.get(name) == chosen for method in methods):
            raise BenchError(f"none of the methods uses the {name} {chosen}; leave --{name} out")
    if study.prompts is not None and not any(method.traits.text for method in methods):
        raise BenchError(f"none of the methods uses prompts; leave --prompts {study.prompts} out")


def find_weights(study: Study, methods: Iterable[ChosenMethod]) -> dict[str, Weights]:
    """The weights that the methods load, found and hashed, by their keys (:meth:`ChosenMethod.weights_key`).

    Raises:
        BenchError: they cannot be had, or a file was given for weights that are not in use.
    """
    from bench.encoders import identify
    from bench.encoders.checkpoints import identify_checkpoint

    uses = {method.weights_key(role): (method, role) for method in methods for role in method.encoders}
    files = dict(study.weights)
    only = files.pop("", None)  # a file without a name belongs to the only weights that are loaded from one
    if only is not None:
        loadable = [key for key in sorted(uses) if not key.startswith(_SHIPPED)]
        if len(loadable) != 1:
            words = [key.replace(":", ".", 1).partition(":")[0] for key in loadable]
            using = ", ".join(words) or "none that loads weights"
            raise BenchError(f"--weights {only}: say for which, --weights NAME={only} (in use: {using})")
        files[loadable[0]] = only
    chosen = {}  # key -> what its file was given under
    for key, (method, role) in uses.items():
        name = method.encoders[role]
        ways = [key, f"{method.cls.name}.{role}", name, role]
        if method.traits.roles[role] != "checkpoint":
            ways.append(parse_spec(name).name)  # one file may serve several variants of an encoder
        chosen[key] = next((way for way in ways if way in files), None)
    for each in files:
        if each not in chosen.values():
            names = sorted({name for method, _ in uses.values() for name in method.encoders.values()})
            raise unknown("weights", each, names, "given to --weights")
    found = {}
    for key, (method, role) in sorted(uses.items()):
        name, given = method.encoders[role], chosen[key]
        file = None if given is None else files[given]
        if file is not None and not file.is_file():
            raise BenchError(f"weights of {name}: there is no file {file}")
        if method.traits.roles[role] == "checkpoint":
            found[key] = identify_checkpoint(role, name, getattr(method.cls, "checkpoints", {}), file)
        else:
            found[key] = identify(name, file)
    return found


def leak(weights: Iterable[Weights], dataset: str) -> str:
    """A sentence if some weights have learned from the dataset that is tested on; else the empty text.

    Args:
        weights: of one method.
        dataset: name of the dataset.
    """
    met = [each for each in weights if dataset.lower() in map(str.lower, each.trained_on)]
    return f"{met[0].name} was trained on {dataset}, the dataset tested on" if met else ""


def weights_file(weights: Weights) -> Path | None:
    """The file that a user would have to give for these weights; None for those that come with the package."""
    return None if weights.name.startswith(_SHIPPED) else weights.file
