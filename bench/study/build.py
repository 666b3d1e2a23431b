"""From what a user asks for, on the command line or in Python, to a :class:`~bench.study.study.Study`."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bench.errors import BenchError, unknown
from bench.study.files import load_study
from bench.study.sources import Sources, parse_sources
from bench.study.study import Study, first_seeds, set_options
from bench.tools.devices import PRECISIONS
from bench.tools.spec import Spec, parse_spec, split_list, split_specs

QUICK = "quick"  # the study that runs where none is asked for
_DEFAULT_METHODS = "clip,devnet,promptad"

Names: TypeAlias = "str | Iterable[str]"
"""One name, several with commas, or a list of them."""

Files: TypeAlias = "str | os.PathLike[str] | Mapping[str, str | os.PathLike[str]] | Sequence[str]"
"""A path; paths by name; or a list of ``PATH`` and ``NAME=PATH``, as the command line has them."""


def build_study(
    study: str | os.PathLike[str] | None = None,
    *,
    name: str | None = None,
    methods: Names | None = None,
    settings: Names | Mapping[str, object] = (),
    dataset: Names | None = None,
    data_root: Files | None = None,
    protocol: Names | None = None,
    train_dataset: str | Mapping[str, str] | None = None,
    train_root: Files | None = None,
    categories: Names | None = None,
    shots: int | Iterable[int] | None = None,
    seeds: int | Iterable[int] | None = None,
    encoder: str | None = None,
    backbone: str | None = None,
    weights: Files | None = None,
    prompts: str | os.PathLike[str] | None = None,
    device: str | None = None,
    precision: str | None = None,
    allow_leak: bool = False,
) -> tuple[Study, str]:
    """The study that is asked for: a named one, changed by whatever else is given; see :func:`bench.run`.

    Returns:
        The study, and a note for the user who may expect another one; empty if there is nothing to say.

    Raises:
        BenchError: what is asked for is unknown or contradicts itself.
    """
    # What makes other trials; device, weights and so on make the same ones elsewhere or otherwise.
    data = (dataset, protocol, train_dataset, train_root, categories, prompts)
    own = (methods, settings or None, *data, shots, seeds, encoder, backbone, allow_leak or None)
    changed = any(value is not None for value in own)
    # Without a study and with anything else, that is the whole study; alone it is the quick one.
    alone = study is None and (changed or data_root is not None)
    fields: dict[str, Any] = {} if alone else load_study(os.fspath(study or QUICK))
    own_name = fields.pop("name", "")
    fields.setdefault("methods", tuple(split_specs(_DEFAULT_METHODS)))
    if methods is not None:
        fields["methods"] = read_specs(methods)
    # After the methods, so that settings change what is run, whichever of the two named it.
    fields["methods"] = set_options(fields["methods"], _settings(settings))
    if dataset is not None:
        fields["datasets"] = read_specs(dataset)
    if protocol is not None:
        fields["protocols"] = read_specs(protocol)
    if train_dataset is not None:
        fields["source"] = parse_sources(_written(train_dataset))
    if categories is not None:
        fields["categories"] = tuple(read_names(categories))
    if shots is not None:
        fields["shots"] = _numbers("shots", shots)
    if seeds is not None:
        numbers = _numbers("seeds", seeds)
        # One number says how many seeds, a list says which.
        fields["seeds"] = numbers if isinstance(seeds, Iterable) else first_seeds(numbers[0])
    given: dict[str, Any] = {"encoder": encoder, "backbone": backbone, "device": device, "precision": precision}
    given["allow_leak"] = allow_leak
    fields |= {key: value for key, value in given.items() if value}
    if precision and precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if prompts is not None:
        fields["prompts"] = Path(prompts)
    # Nothing to download: pocket ships with the package.
    fields.setdefault("datasets", (parse_spec("pocket"),) if alone else ())
    fields["roots"] = read_roots(data_root, fields["datasets"]) if fields["datasets"] else {}
    fields["roots"] |= read_train_roots(train_root, fields.get("source"))
    fields["weights"] = read_weights(weights)
    # The name of a study stands for exactly its trials: one that was changed gets a name of its own later.
    chosen = Study(name=name or ("" if changed else own_name), **fields)
    if shots is not None:
        check_shots(chosen.protocols)
    # Whoever names both methods and data does not think of the quick study.
    unlike = alone and (methods is None or dataset is None)
    return chosen, _not_quick(chosen.methods, methods is not None) if unlike else ""


def _not_quick(methods: Sequence[Spec], chosen: bool) -> str:
    """A note that this is not the quick study, which shortens training, and how to get that one."""
    quick = {spec.name: spec for spec in load_study(QUICK)["methods"]}
    shortened = [quick[s.name] for s in methods if s.name in quick and quick[s.name].options and not s.options]
    if not shortened:
        return ""
    said = f"this is not the quick study, which shortens training: {', '.join(map(str, shortened))}"
    return said if chosen else f"{said}; for that one add --study {QUICK}"


def check_shots(protocols: Sequence[Spec]) -> None:
    """Refuse a number of shots where no protocol heeds it.

    Raises:
        BenchError: it would change nothing.
    """
    from bench.tools.registry import PROTOCOLS

    if not any(PROTOCOLS.load(spec.name).traits.shots for spec in protocols):
        names = ", ".join(spec.name for spec in protocols)
        raise BenchError(
            f"{names} learns from all labelled anomalies, whatever --shots says: leave it out; fewer for each "
            "category are an option of the protocol, auxiliary[anomalies=1]"
        )


def read_names(names: Names) -> list[str]:
    """The names in a list, or in a text with commas."""
    found = names.split(",") if isinstance(names, str) else list(names)
    return [part.strip() for part in found if part.strip()]


def read_specs(names: Names) -> tuple[Spec, ...]:
    """The specs in a list, or in a text with commas.

    Raises:
        BenchError: one of them cannot be read.
    """
    return tuple(split_specs(names) if isinstance(names, str) else map(parse_spec, names))


def _settings(settings: Names | Mapping[str, object]) -> list[str]:
    if isinstance(settings, Mapping):
        return [f"{key}={value}" for key, value in settings.items()]
    texts = [settings] if isinstance(settings, str) else settings
    return [part for text in texts for part in split_list(text)]


def _written(sources: str | Mapping[str, str]) -> str:
    """Datasets to learn from as :func:`bench.study.sources.parse_sources` reads them."""
    if isinstance(sources, str):
        return sources
    return ",".join(f"{target}={names}" for target, names in sources.items())


def _numbers(what: str, given: int | Iterable[int]) -> tuple[int, ...]:
    try:
        # NumPy's whole numbers are as good as Python's.
        numbers = tuple(map(operator.index, given if isinstance(given, Iterable) else [given]))
    except TypeError:
        numbers = ()
    if not numbers:
        raise BenchError(f"{what} {given!r}: expected whole numbers, such as 1,10")
    return numbers


def read_roots(given: Files | None, datasets: Sequence[Spec], option: str = "--data-root") -> dict[str, Path]:
    """Name of a dataset -> its folder.

    Raises:
        BenchError: it is not said of which dataset, or the folder of one is given twice.
    """
    names = [spec.name for spec in datasets]
    roots: dict[str, Path] = {}
    for text, name, folder in _named_files(given, names):
        if not name:
            if len(set(names)) > 1:
                raise BenchError(f"{option} {text}: say of which dataset, {names[0]}=DIR")
            name = names[0]
        elif name not in names:
            raise unknown("dataset", name, names, "of the study")
        if name in roots:
            raise BenchError(f"{option} {text}: the folder of {name} is given already, {roots[name]}")
        roots[name] = Path(folder).expanduser()
    return roots


def read_train_roots(given: Files | None, sources: Sources | None) -> dict[str, Path]:
    """The folders of the datasets to learn from, as a study has them.

    Raises:
        BenchError: there is no such dataset, or as :func:`read_roots`.
    """
    if given is None:
        return {}
    if sources is None:
        raise BenchError("--train-root goes with --train-dataset")
    return {f"train:{name}": root for name, root in read_roots(given, sources.all, "--train-root").items()}


def read_weights(given: Files | None) -> dict[str, Path]:
    """Encoder -> its file of weights; under the name ``""`` for the only encoder in use.

    Raises:
        BenchError: the file of one is given twice.
    """
    weights: dict[str, Path] = {}
    for text, name, file in _named_files(given, None):
        if name in weights:
            which = f"those of {name} are given already" if name else "a file without a name is given already"
            raise BenchError(f"--weights {text}: {which}, {weights[name]}")
        weights[name] = Path(file).expanduser()
    return weights


def _named_files(given: Files | None, names: Sequence[str] | None) -> list[tuple[str, str, str]]:
    """Each file as it was given, its name or nothing, and its path; ``names`` are those it may have, if known."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return [(f"{name}={path}", name, os.fspath(path)) for name, path in given.items()]
    if isinstance(given, str | os.PathLike):
        path = os.fspath(given)
        return [(path, "", path)]
    found = []
    for text in given:
        if names is None:
            # A file may have an equals sign in its name; one that exists as it is written is meant so.
            name, equals, path = text.rpartition("=")
            whole = not equals or Path(text).exists()
        else:
            name, equals, path = text.partition("=")
            whole = not (equals and name in names)
        found.append((text, "", text) if whole else (text, name, path))
    return found
