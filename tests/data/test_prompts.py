"""The prompt file: what ships, and what a user's edit may get wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.contracts import Prompts
from bench.data.prompts import (
    FILE,
    default_prompts,
    generic_descriptions,
    load_prompts,
    prompt_hash,
    read_prompt_file,
)
from bench.errors import BenchError
from bench.tools.registry import DATASETS

BOTTLE = "bottle: {label: bottle, normality: a bottle, descriptions: {crack: crack, hole: small hole}}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prompts.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_ships() -> None:
    assert list(read_prompt_file(FILE)) == [
        "mvtec",
        "aitex",
        "visa",
        "btad",
        "mpdd",
        "ksdd2",
        "ksdd",
        "dagm",
        "dtd_synthetic",
    ]
    assert len(load_prompts(None, "mvtec")) == 15
    assert len(load_prompts(None, "visa")) == 12
    assert list(load_prompts(None, "aitex")) == ["00", "01", "02", "03", "04", "05", "06", "AITEX"]
    assert generic_descriptions() == ("scratch", "tear", "crack", "cut", "defect")
    nut = load_prompts(None, "mvtec")["metal_nut"]
    assert nut.label == "metal nut"
    assert nut.abnormality == "abnormality of metal nut is bent edge, colour stain, flipped upside down, scratch"
    assert nut.descriptions["flip"] == "flipped upside down"
    fabrics = load_prompts(None, "aitex")
    assert set(map(prompt_hash, ({"": entry} for entry in fabrics.values()))) == {
        prompt_hash({"": fabrics["AITEX"]})
    }
    assert fabrics["03"].label == "fabric"


def test_what_ships_is_the_specification(real_data: Path) -> None:
    path = real_data.parent / "specs" / "prompts.json"
    if not path.is_file():
        pytest.skip(f"no specification: {path} does not exist")
    spec = json.loads(path.read_text(encoding="utf-8"))

    def plain(entry: Prompts) -> dict[str, str]:
        return {"label": entry.label, "normality": entry.normality, "abnormality": entry.abnormality}

    mvtec = load_prompts(None, "mvtec")
    assert {
        name: {**plain(entry), "descriptions": dict(entry.descriptions)} for name, entry in mvtec.items()
    } == spec["mvtec"]
    fabrics = load_prompts(None, "aitex")
    codes = {code["folder"]: code["description"] for code in spec["aitex"]["defect_codes"].values()}
    for code, fabric in spec["aitex"]["fabrics"].items():
        assert (fabrics[code].label, fabrics[code].normality) == (fabric["label"], fabric["normality"])
        assert fabrics[code].abnormality == spec["aitex"]["abnormality"]
        assert fabrics[code].descriptions == codes
    assert list(generic_descriptions()) == spec["generic_descriptions"]


def test_prompts_of_the_fields_datasets_are_the_specification(real_data: Path) -> None:
    path = real_data.parent / "specs" / "prompts_new.json"
    if not path.is_file():
        pytest.skip(f"no specification: {path} does not exist")
    fields = ("label", "normality", "abnormality", "descriptions")
    for name, section in json.loads(path.read_text(encoding="utf-8")).items():
        if isinstance(section, dict):
            found = {c: {f: getattr(entry, f) for f in fields} for c, entry in load_prompts(None, name).items()}
            assert found == {c: {f: entry[f] for f in fields} for c, entry in section.items()}, name


def test_shipped_prompts_are_of_the_datasets_categories() -> None:
    """And, where the release names types, of all of its types."""
    for name, section in read_prompt_file(FILE).items():
        counts = DATASETS.load(name).traits.counts
        if not counts:
            continue
        assert set(section) >= set(counts), name
        for category, official in counts.items():
            assert {*official.types} - {""} <= {*section[category].descriptions}, (name, category)


def test_a_file_with_categories_alone_serves_every_dataset(tmp_path: Path) -> None:
    path = write(tmp_path, BOTTLE)
    assert load_prompts(path, "mvtec") == load_prompts(path, "folder")
    descriptions = {"crack": "crack", "hole": "small hole"}
    expected = Prompts("bottle", "a bottle", "abnormality of bottle is crack, small hole", descriptions)
    assert load_prompts(path, "mvtec") == {"bottle": expected}


def test_a_file_with_sections(tmp_path: Path) -> None:
    path = write(tmp_path, f"folder:\n  {BOTTLE}")
    assert list(load_prompts(path, "folder")) == ["bottle"]
    with pytest.raises(BenchError, match="no prompts for 'mvtec'; its sections are folder"):
        load_prompts(path, "mvtec")


def test_abnormality_may_be_written_out(tmp_path: Path) -> None:
    path = write(tmp_path, "metal_nut: {normality: fine, abnormality: a nut that is not}")
    assert load_prompts(path, "any")["metal_nut"] == Prompts("metal nut", "fine", "a nut that is not", {})


def test_descriptions_may_be_a_list(tmp_path: Path) -> None:
    path = write(tmp_path, "cup: {normality: fine, descriptions: [chip, crack]}")
    entry = load_prompts(path, "any")["cup"]
    assert entry.abnormality == "abnormality of cup is chip, crack"
    assert entry.descriptions == {"chip": "chip", "crack": "crack"}


def test_own_template(tmp_path: Path) -> None:
    path = write(tmp_path, 'template: "a {label} with {descriptions} in {the} {label}"\n' + BOTTLE)
    assert load_prompts(path, "any")["bottle"].abnormality == "a bottle with crack, small hole in {the} bottle"


def test_text_over_several_lines_is_joined(tmp_path: Path) -> None:
    path = write(tmp_path, "cup:\n  normality: >\n    a cup\n    for tea\n  abnormality: broken\n")
    assert load_prompts(path, "any")["cup"].normality == "a cup for tea"


@pytest.mark.parametrize("name", ["00", "010", "no", "2024-01-01"])
def test_names_and_phrases_need_quotes_only_where_they_are_numbers(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, f"{name}: {{normality: {name}, descriptions: {{{name}: {name}}}}}")
    entry = load_prompts(path, "any")[name]
    assert (entry.label, entry.normality, entry.descriptions) == (name, name, {name: name})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected category -> prompts at the top level, found nothing"),
        ("just words", "found the text 'just words'"),
        ("- a\n- b", "found a list"),
        ("a: [", "line 1"),
        ("a: b: c", "line 1, column 5: not valid YAML"),
        ("template: '{label} {descriptions}'", "holds no prompts"),
        ("template: '{label}'\n" + BOTTLE, "template: '{label}' lacks {descriptions}"),
        ("template: 3\n" + BOTTLE, "template: expected text, found the number 3"),
        ("generic_descriptions: {}\n" + BOTTLE, "generic_descriptions"),
        (BOTTLE + BOTTLE, "'bottle' is given twice"),
        ("bottle:", "bottle: expected label, normality, descriptions, abnormality; found nothing"),
        (
            "bottle: a bottle",
            "descriptions, abnormality; found the text 'a bottle'",
        ),
        ("bottle: {label: bottle}", "bottle: the field 'normality' is missing"),
        ("bottle: {normality: fine}", "bottle: the field 'descriptions' is missing"),
        ("bottle: {lable: b, normality: fine, descriptions: [x]}", "Did you mean 'label'"),
        ("bottle: {lable: b, normalty: fine}", "bottle: unknown field 'lable'. Did you mean 'label'"),
        (
            "bottle: {label: '', normality: a, descriptions: [x]}",
            "bottle, label: expected text, found an empty",
        ),
        ("bottle: {label: 7, normality: a, descriptions: [x]}", "label: expected text, found the number 7"),
        ("bottle: {label: true, normality: a, descriptions: [x]}", "the truth value True; put it in quotes"),
        ("bottle: {normality: [a], descriptions: [x]}", "bottle, normality: expected text, found a list"),
        (
            "bottle: {normality: a, descriptions: crack}",
            "bottle, descriptions: expected a mapping or a list",
        ),
        ("bottle: {normality: a, descriptions: []}", "bottle, descriptions: expected a list of length >= 1"),
        ("bottle: {normality: a, descriptions: {}}", "bottle, descriptions: expected a mapping of length >= 1"),
        ("bottle: {normality: a, descriptions: [x, 3]}", "bottle, descriptions, item 2: expected text"),
        ("bottle: {normality: a, descriptions: {crack: }}", "bottle, descriptions: expected text, found nothing"),
        (
            "bottle: {normality: a, descriptions: {1: x}}",
            "a name in descriptions: expected text, found a whole",
        ),
        ("aitex: {0: {normality: a, descriptions: [x]}}", "category 0: expected a name, found the number 0"),
        ("mvtec: {bottle: , cup: {normality: a, descriptions: [x]}}", "mvtec/bottle: expected label"),
        (f"mvtec: {{{BOTTLE.strip()}}}\ncup: {{normality: a}}", "'cup': expected a dataset's section"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("? [a, b]\n: c", "not valid YAML"),
        ("a: &a {b: *a}", "prompts"),
        ("a: " + "[" * 5000, "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BenchError) as caught:
        read_prompt_file(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="does not exist"):
        read_prompt_file(tmp_path / "none.yaml")
    with pytest.raises(BenchError, match="cannot be read"):
        read_prompt_file(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchError, match="UTF-8"):
        read_prompt_file(tmp_path / "binary")


def test_default_prompts() -> None:
    entry = default_prompts("steel_plate")
    assert entry.label == "steel plate"
    assert entry.normality == "a photo of a flawless steel plate"
    assert entry.abnormality == "abnormality of steel plate is scratch, tear, crack, cut, defect"
    assert default_prompts("__").label


def test_prompt_hash() -> None:
    prompts = load_prompts(None, "mvtec")
    value = prompt_hash(prompts)
    assert len(value) == 64
    assert prompt_hash(dict(reversed(prompts.items()))) == value
    changed = dict(prompts, bottle=Prompts("bottle", "x", "y", {}))
    assert prompt_hash(changed) != value
    assert prompt_hash({}) != value


def test_importing_the_datasets_is_cheap() -> None:
    datasets = ("layout", "mvtec", "folder", "aitex", "pocket")
    modules = ["data.prompts", *(f"datasets.{name}" for name in datasets)]
    code = "import sys\n" + "".join(f"import bench.{name}\n" for name in modules)
    code += "print(*{'torch', 'PIL', 'yaml', 'pandas', 'sklearn'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
