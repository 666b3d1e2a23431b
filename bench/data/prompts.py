"""Prompts: the two views of a category in words, from a file that a user may edit or replace.

The shipped file is ``prompts.yaml`` beside this module; its head explains the form. The sentences follow
PromptAD (WACV 2024), section 4.1: a dictionary definition for normality, and for abnormality the template
``abnormality of {label} is {descriptions}``.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.contracts import Prompts
from bench.errors import BenchError
from bench.tools.text import kind, parse_yaml, read_text
from bench.tools.validation import read_as

if TYPE_CHECKING:
    from bench.data.prompt_schema import PromptSettings

FILE = Path(__file__).with_name("prompts.yaml")
TEMPLATE = "abnormality of {label} is {descriptions}"
DIRECT = ""  # the section name under which a file without sections is read

_FIELDS = ("label", "normality", "descriptions", "abnormality")
_SETTINGS = ("template", "generic_descriptions")


def load_prompts(path: Path | None, section: str) -> dict[str, Prompts]:
    """The prompts of one dataset by category.

    Args:
        path: the file; None for the one that ships with the package.
        section: the dataset's name. A file that holds categories without sections serves every dataset.

    Raises:
        BenchError: the file cannot be read, is malformed, or has no such section.
    """
    path = FILE if path is None else path
    sections = read_prompt_file(path)
    if DIRECT in sections:
        return sections[DIRECT]
    if section not in sections:
        raise BenchError(
            f"{path} has no prompts for {section!r}; its sections are {', '.join(sections) or 'none'}. "
            f"Add a section {section!r}, or write the categories at the top level"
        )
    return sections[section]


def read_prompt_file(path: Path) -> dict[str, dict[str, Prompts]]:
    """All prompts of a file: section -> category -> prompts; ``""`` is the section of a file without any.

    Raises:
        BenchError: naming file, category and field of the first thing that is malformed.
    """
    settings, body = _read(path)
    if not body:
        raise BenchError(f"{path} holds no prompts; write CATEGORY: {{label, normality, descriptions}}")
    if not any(_is_section(value) for value in body.values()):
        return {DIRECT: _section(path, "", body, settings.template)}
    sections = {}
    for name, value in body.items():
        name = _name(path, "section", name)
        if not _is_section(value):
            raise BenchError(
                f"{path}, {name!r}: expected a dataset's section (category -> prompts) as elsewhere in this "
                f"file, found {kind(value)}"
            )
        sections[name] = _section(path, f"{name}/", value, settings.template)
    return sections


@functools.cache
def generic_descriptions() -> tuple[str, ...]:
    """Anomalies that anything may have: the five words that PromptAD (section 4.1) prints for screw."""
    settings, _ = _read(FILE)
    return tuple(settings.generic_descriptions)


def default_prompts(category: str) -> Prompts:
    """Prompts for a category of which nothing is known but its name."""
    label = " ".join(category.replace("_", " ").split()) or category
    words = generic_descriptions()
    return Prompts(
        label=label,
        normality=f"a photo of a flawless {label}",
        abnormality=_fill(TEMPLATE, label, words),
        descriptions={word: word for word in words},
    )


def prompt_hash(prompts: Mapping[str, Prompts]) -> str:
    """SHA-256 of the prompts' canonical JSON: the same words give the same hash, in whatever order."""
    plain = {
        category: {
            "abnormality": entry.abnormality,
            "descriptions": dict(entry.descriptions),
            "label": entry.label,
            "normality": entry.normality,
        }
        for category, entry in prompts.items()
    }
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


# ---------------------------------------------------------------- reading and validating


def _read(path: Path) -> tuple[PromptSettings, dict[Any, Any]]:
    """The settings of a file, and its sections or categories as they are written."""
    from bench.data.prompt_schema import PromptSettings

    content = parse_yaml(read_text(path, "prompt file"), str(path))
    if not isinstance(content, dict):
        raise BenchError(f"{path}: expected category -> prompts at the top level, found {kind(content)}")
    written = {name: content.pop(name) for name in _SETTINGS if name in content}
    settings = read_as(written, PromptSettings, str(path))
    settings.template = _on_one_line(settings.template) or TEMPLATE
    for placeholder in ("{label}", "{descriptions}"):
        if placeholder not in settings.template:
            raise BenchError(f"{path}, template: {settings.template!r} lacks {placeholder}")
    return settings, content


def _is_section(value: object) -> bool:
    """True for a top-level value that holds categories, and is not a category's prompts itself."""
    if not isinstance(value, dict) or not any(isinstance(entry, dict) for entry in value.values()):
        return False
    for key, entry in value.items():
        mistyped = not isinstance(entry, dict) and difflib.get_close_matches(str(key), _FIELDS, n=1, cutoff=0.8)
        if key in _FIELDS or mistyped:
            return False
    return True


def _section(path: Path, where: str, entries: Mapping[Any, Any], template: str) -> dict[str, Prompts]:
    result = {}
    for key, value in entries.items():
        category = _name(path, "category", key)
        result[category] = _entry(path, f"{where}{category}", category, value, template)
    return result


def _entry(path: Path, where: str, category: str, value: object, template: str) -> Prompts:
    from bench.data.prompt_schema import PromptEntry

    entry = read_as(value, PromptEntry, f"{path}, {where}")
    if not entry.descriptions and not entry.abnormality:
        raise BenchError(f"{path}, {where}: the field 'descriptions' is missing")
    descriptions = {}
    if isinstance(entry.descriptions, list):
        for phrase in map(_on_one_line, entry.descriptions):
            descriptions[phrase] = phrase
    else:
        for anomaly_type, phrase in entry.descriptions.items():
            descriptions[unicodedata.normalize("NFC", anomaly_type)] = _on_one_line(phrase)
    label = _on_one_line(entry.label) or category.replace("_", " ")
    return Prompts(
        label=label,
        normality=_on_one_line(entry.normality),
        abnormality=_on_one_line(entry.abnormality) or _fill(template, label, descriptions.values()),
        descriptions=descriptions,
    )


def _on_one_line(text: str) -> str:
    """A text that may be written over several lines."""
    return " ".join(text.split())


def _name(path: Path, what: str, key: object) -> str:
    if isinstance(key, str) and key.strip():
        return unicodedata.normalize("NFC", key)
    hint = '; put the name in quotes, e.g. "00"' if isinstance(key, (bool, int, float)) else ""
    raise BenchError(f"{path}, {what} {key!r}: expected a name, found {kind(key)}{hint}")


def _fill(template: str, label: str, descriptions: Any) -> str:
    """The template with its two placeholders replaced; other braces are left alone."""
    before, _, after = template.partition("{descriptions}")
    phrases = ", ".join(descriptions)
    return before.replace("{label}", label) + phrases + after.replace("{label}", label)
