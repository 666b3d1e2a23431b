"""Study files: YAML that names methods, datasets, protocols, shots and seeds.

The fields are declared in :mod:`bench.study.schema`. A file sets no folder, weights or device: those are a
machine's, and are given to ``bench run``.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any

from bench.errors import unknown
from bench.study.sources import parse_sources
from bench.study.study import first_seeds
from bench.tools.spec import parse_spec
from bench.tools.text import parse_yaml, read_text


def shipped_studies() -> dict[str, str]:
    """Name -> first comment line of the studies that come with the package."""
    folder = importlib.resources.files("bench.study.studies")
    studies = {}
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            first = entry.read_text(encoding="utf-8").split("\n")[0]
            studies[entry.name.removesuffix(".yaml")] = first.lstrip("# ")
    return studies


def load_study(name: str) -> dict[str, Any]:
    """The fields that a study sets, as :class:`bench.study.study.Study` takes them.

    Args:
        name: of a shipped study, or the path of a YAML file; also the study's name, unless the file sets one.

    Raises:
        BenchError: there is no such study, the YAML is malformed, or a field is unknown or of a wrong type.
    """
    from bench.study.schema import StudyFile
    from bench.tools.validation import read_as

    if name in shipped_studies():
        text = (importlib.resources.files("bench.study.studies") / f"{name}.yaml").read_text(encoding="utf-8")
    elif name.endswith((".yaml", ".yml")):
        text = read_text(Path(name), "study")
    else:
        raise unknown("study", name, shipped_studies())
    content = parse_yaml(text, name)
    study = read_as(content, StudyFile, name)
    fields: dict[str, Any] = {"name": Path(name).stem}
    for key in content:
        value = getattr(study, key)
        if key in ("methods", "datasets", "protocols"):
            fields[key] = tuple(map(parse_spec, _items(value)))
        elif key in ("shots", "categories"):
            fields[key] = tuple(_items(value))
        elif key == "seeds":
            fields[key] = tuple(value) if isinstance(value, list) else first_seeds(value)
        elif key == "source":
            written = (
                value if isinstance(value, str) else ",".join(f"{name}={each}" for name, each in value.items())
            )
            fields[key] = parse_sources(written)
        elif key == "prompts":
            fields[key] = Path(value)
        else:
            fields[key] = value
    return fields


def study_schema() -> dict[str, Any]:
    """The JSON Schema of a study file, with a description of each field: editors check and complete by it."""
    import msgspec

    from bench.study.schema import StudyFile

    return msgspec.json.schema(StudyFile)


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
