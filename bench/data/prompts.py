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
from typing import Any

from bench.contracts import Prompts
from bench.errors import BenchError, unknown
from bench.tools.text import kind, parse_yaml, read_text

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
    content = _read(path)
    template = _template(path, content)
    body = {key: value for key, value in content.items() if key not in _SETTINGS}
    if not body:
        raise BenchError(f"{path} holds no prompts; write CATEGORY: {{label, normality, descriptions}}")
    if not any(_is_section(value) for value in body.values()):
        return {DIRECT: _section(path, "", body, template)}
    sections = {}
    for name, value in body.items():
        name = _name(path, "section", name)
        if not _is_section(value):
            raise BenchError(
                f"{path}, {name!r}: expected a dataset's section (category -> prompts) as elsewhere in this "
                f"file, found {kind(value)}"
            )
        sections[name] = _section(path, f"{name}/", value, template)
    return sections


@functools.cache
def generic_descriptions() -> tuple[str, ...]:
    """What may be wrong with anything: the five words that PromptAD (section 4.1) prints for screw."""
    return tuple(_list(FILE, "generic_descriptions", _read(FILE)["generic_descriptions"]))


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


def _read(path: Path) -> dict[Any, Any]:
    content = parse_yaml(read_text(path, "prompt file"), str(path))
    if not isinstance(content, dict):
        raise BenchError(f"{path}: expected category -> prompts at the top level, found {kind(content)}")
    return content


def _template(path: Path, content: Mapping[Any, Any]) -> str:
    if "generic_descriptions" in content:
        _list(path, "generic_descriptions", content["generic_descriptions"])
    if "template" not in content:
        return TEMPLATE
    template = _text(path, "template", content["template"])
    for placeholder in ("{label}", "{descriptions}"):
        if placeholder not in template:
            raise BenchError(f"{path}, template: {template!r} lacks {placeholder}")
    return template


def _is_section(value: object) -> bool:
    """Whether a top-level value holds categories, rather than being a category's prompts itself."""
    if not isinstance(value, dict) or not any(isinstance(entry, dict) for entry in value.values()):
        return False
    return not any(
        key in _FIELDS
        or (not isinstance(entry, dict) and difflib.get_close_matches(str(key), _FIELDS, n=1, cutoff=0.8))
        for key, entry in value.items()
    )


def _section(path: Path, where: str, entries: Mapping[Any, Any], template: str) -> dict[str, Prompts]:
    result = {}
    for key, value in entries.items():
        category = _name(path, "category", key)
        result[category] = _entry(path, f"{where}{category}", category, value, template)
    return result


def _entry(path: Path, where: str, category: str, value: object, template: str) -> Prompts:
    if not isinstance(value, dict):
        raise BenchError(f"{path}, {where}: expected {', '.join(_FIELDS[:3])}; found {kind(value)}")
    for field in value:
        if field not in _FIELDS:
            problem = unknown(f"field of {where}", str(field), _FIELDS)
            raise BenchError(f"{path}: {problem}")
    for field, instead in (("normality", ("normality",)), ("descriptions", ("descriptions", "abnormality"))):
        if not any(name in value for name in instead):
            raise BenchError(f"{path}, {where}: the field {field!r} is missing")
    label = category.replace("_", " ")
    if "label" in value:
        label = _text(path, f"{where}, label", value["label"])
    descriptions: dict[str, str] = {}
    if "descriptions" in value:
        descriptions = _descriptions(path, f"{where}, descriptions", value["descriptions"])
    if "abnormality" in value:
        abnormality = _text(path, f"{where}, abnormality", value["abnormality"])
    else:
        abnormality = _fill(template, label, descriptions.values())
    normality = _text(path, f"{where}, normality", value["normality"])
    return Prompts(label=label, normality=normality, abnormality=abnormality, descriptions=descriptions)


def _descriptions(path: Path, where: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {phrase: phrase for phrase in _list(path, where, value)}
    if not value:
        raise BenchError(f"{path}, {where}: empty; give at least one anomaly type and its phrase")
    return {
        _name(path, f"{where}: anomaly type", key): _text(path, f"{where}, {key}", phrase)
        for key, phrase in value.items()
    }


def _list(path: Path, where: str, value: object) -> list[str]:
    if not isinstance(value, list) or not value:
        raise BenchError(f"{path}, {where}: expected phrases (type -> phrase, or a list), found {kind(value)}")
    return [_text(path, f"{where}, item {number}", item) for number, item in enumerate(value, 1)]


def _text(path: Path, where: str, value: object) -> str:
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise BenchError(f"{path}, {where}: expected text, found {kind(value)}{hint}")
    text = " ".join(value.split())
    if not text:
        raise BenchError(f"{path}, {where}: empty")
    return text


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
