"""What a study expands into, and what its trials are given."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.errors import BenchError
from bench.report.tables.table import Table, build_tables
from bench.store.store import Store
from bench.study.plan import Plan, prepare
from bench.study.sources import parse_sources
from bench.study.study import Study
from bench.tools.registry import DATASETS
from bench.tools.spec import parse_spec
from bench.trial.trial import run_trial

pytestmark = pytest.mark.usefixtures("plugin")


def plan(store: Path, methods: str, root: Path, protocol: str = "loo", **fields: Any) -> Plan:
    roots = {"folder": root, **fields.pop("roots", {})}
    specs = tuple(parse_spec(method) for method in methods.split("+"))
    study = Study("s", specs, (parse_spec("folder"),), (parse_spec(protocol),), roots=roots, **fields)
    return prepare(study, Store(store))


def records(planned: Plan) -> list[dict[str, Any]]:
    return [run_trial(task).record for task in planned.tasks]


def test_the_dataset_learned_from_keeps_its_own_prompts(toy_root: Path, tmp_path: Path) -> None:
    """A category that both datasets have is not the same thing in both."""
    shutil.copytree(toy_root / "bolt", tmp_path / "target" / "wood")
    file = tmp_path / "prompts.yaml"
    pocket = DATASETS.load("pocket")(None, DATASETS.load("pocket").Config()).prompts()
    fields: dict[str, Any] = {"source": parse_sources("pocket"), "shots": (1,)}
    ours = "folder: {wood: {normality: ours, descriptions: {dent: dent}}}\n"
    theirs = "pocket: {wood: {normality: theirs, descriptions: {dent: dent}}}\n"
    keys = set()
    for text, own, learned in (
        ("", "a photo of a flawless wood", None),
        (ours, "ours", None),
        (ours + theirs, "ours", "theirs"),
        (ours.replace("ours", "my") + theirs, "my", "theirs"),
    ):
        file.write_text(text)
        given = {"prompts": file} if text else {}
        planned = plan(tmp_path / "store", "toy-reader", tmp_path / "target", "transfer", **fields, **given)
        keys |= {task.key for task in planned.tasks}
        (record,) = records(planned)
        assert record["status"] == "ok", record["reason"]
        seen, tested = map(json.loads, record["notes"])
        assert tested == {"wood": own}
        assert seen["wood"] == (learned or pocket["wood"].normality)
        assert len(seen) == len(pocket)
    assert len(keys) == 4  # the prompts of both enter the key


def test_leaving_one_out_there_is_one_set_of_prompts(toy_root: Path, tmp_path: Path) -> None:
    planned = plan(tmp_path / "store", "toy-reader", toy_root, categories=("bolt",), shots=(1,))
    assert planned.tasks[0].source_prompts is None
    (record,) = records(planned)
    seen, tested = map(json.loads, record["notes"])
    assert sorted(seen) == ["cloth", "plate"]
    assert sorted(tested) == ["bolt"]


def test_a_method_that_uses_no_labelled_anomalies_runs_once_for_all_shots(toy_root: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"categories": ("bolt",), "shots": (1, 10), "seeds": (0, 1)}
    planned = plan(tmp_path / "store", "toy-normals+toy-learner+toy-brightness", toy_root, **fields)
    counts = [task.method for task in planned.tasks]
    assert {name: counts.count(name) for name in counts} == {
        "toy-normals": 2,
        "toy-learner": 4,
        "toy-brightness": 1,
    }
    found = records(planned)
    own = [record for record in found if record["trial"]["method"]["name"] == "toy-normals"]
    assert [(r["trial"]["shots"], r["trial"]["seed"]) for r in own] == [(None, 0), (None, 1)]
    assert all(r["notes"] == ["8 images, 0 anomalous, 0 shots"] for r in own)

    (table,) = build_tables(found)
    cells = dict(zip(((c.method, c.group) for c in table.columns), table.rows[0].cells, strict=True))
    assert cells["toy-normals", "1-shot"].mean == cells["toy-normals", "10-shot"].mean
    assert cells["toy-normals", "1-shot"].seeds == 2
    notes = _notes(table)
    assert "Normals: no labelled anomalies, so the same in every column group." in notes
    assert "Brightness: no training and no seeds" in notes
    assert "Not the same splits" not in notes


def test_methods_with_and_without_training_are_not_said_to_differ_in_their_splits(
    toy_root: Path, tmp_path: Path
) -> None:
    """With (None, seed) both: one learns from normals of seen categories, the other only draws."""
    found = records(plan(tmp_path / "store", "toy-normals", toy_root, categories=("bolt",)))
    drawn = [
        {**r, "trial": {**r["trial"], "protocol": {**r["trial"]["protocol"], "manifest": "0"}}} for r in found
    ]
    for record, trained in zip(drawn, (False, True), strict=False):
        trial = {**record["trial"], "method": {**record["trial"]["method"], "label": "other", "trained": trained}}
        (table,) = build_tables([*found, {**record, "key": "1", "trial": trial}])
        assert ("Not the same splits" in _notes(table)) == trained


def test_one_class_skips_what_learns_from_seen_categories(toy_root: Path, tmp_path: Path) -> None:
    planned = plan(tmp_path / "store", "toy-learner+toy-brightness", toy_root, "oneclass", categories=("bolt",))
    by_method = {record["trial"]["method"]["name"]: record for record in records(planned)}
    assert by_method["toy-brightness"]["status"] == "ok"
    assert by_method["toy-learner"]["status"] == "skipped"
    assert by_method["toy-learner"]["reason"] == "Learner learns from seen categories, and oneclass has none"


def test_a_third_partys_protocol_is_planned_and_run(toy_root: Path, tmp_path: Path) -> None:
    fields: dict[str, Any] = {"categories": ("bolt",), "shots": (1,)}
    next_one = plan(tmp_path / "store", "toy-normals", toy_root, "toy-next", **fields)
    other = plan(tmp_path / "store", "toy-normals", toy_root, "toy-next[step=2]", **fields)
    (record,) = records(next_one)
    assert record["status"] == "ok", record["reason"]
    assert record["notes"] == ["4 images, 0 anomalous, 0 shots"]
    assert record["trial"]["protocol"]["label"] == "toy-next"
    assert [*{m.normal[0].split("/")[0] for m in next_one.manifests.values()}] == ["cloth"]
    assert [*{m.normal[0].split("/")[0] for m in other.manifests.values()}] == ["plate"]
    assert next_one.tasks[0].key != other.tasks[0].key
    own = plan(tmp_path / "store", "toy-normals", toy_root, "toy-next[step=0]", **fields)  # the target itself
    (leaky,) = records(own)
    assert leaky["status"] == "failed"
    assert "leakage" in leaky["reason"]


def test_a_dataset_is_not_learned_from_to_be_tested_on_itself(toy_root: Path, tmp_path: Path) -> None:
    """Nor its copy, whatever is drawn; categories that the source does not have may be tested."""
    copy = shutil.copytree(toy_root, tmp_path / "copy")
    shutil.rmtree(copy / "plate")
    fields: dict[str, Any] = {"source": parse_sources("folder"), "roots": {"train:folder": copy}, "shots": (0,)}
    with pytest.raises(BenchError, match=r"leakage: transfer would learn from images of the category"):
        plan(tmp_path / "store", "toy-normals", toy_root, "transfer", **fields)
    planned = plan(tmp_path / "store", "toy-normals", toy_root, "transfer", **fields, categories=("plate",))
    assert [record["status"] for record in records(planned)] == ["ok"]


def test_an_option_that_is_a_file_is_part_of_the_trial_by_its_content(toy_root: Path, tmp_path: Path) -> None:
    file = tmp_path / "offset.txt"

    def planned() -> Plan:
        return plan(tmp_path / "store", f"toy-file[checkpoint={file}]", toy_root, categories=("bolt",))

    with pytest.raises(BenchError, match=r"checkpoint.* names no file"):
        planned()
    file.write_text("0.5")
    (first,) = planned().tasks
    assert first.method == f"toy-file[checkpoint={file}]"
    assert planned().tasks[0].key == first.key
    record = run_trial(first).record
    assert record["status"] == "ok", record["reason"]
    assert record["provenance"]["inputs"]["options"]["checkpoint"]["path"] == str(file)
    file.write_text("0.25")
    (second,) = planned().tasks
    assert second.key != first.key
    changed = run_trial(first).record
    assert (changed["status"], "changed while the study ran" in changed["reason"]) == ("failed", True)
    moved = shutil.move(file, tmp_path / "elsewhere.txt")
    gone = run_trial(second).record
    assert (gone["status"], "cannot be read" in gone["reason"]) == ("failed", True)
    here = {sha256: str(moved) for sha256 in second.files}  # as on another machine
    assert run_trial(dataclasses.replace(second, files=here)).record["status"] == "ok"
    (bare,) = plan(tmp_path / "store", "toy-file", toy_root, categories=("bolt",)).tasks
    assert bare.identity["method"]["config"] == {"checkpoint": None, "sign": 1}


def test_a_record_holds_the_inputs_as_data(toy_root: Path, tmp_path: Path) -> None:
    planned = plan(tmp_path / "store", "toy-reader[steps=2]", toy_root, categories=("bolt",), shots=(1,))
    (record,) = records(planned)
    assert record["provenance"]["inputs"] == {
        "roots": {"target": str(toy_root), "source": None},
        "weights": {"pocket/clip": None},
        "prompts": None,
        "options": {"encoder": "pocket/clip", "pause": 0.0, "steps": 2},
    }


def _notes(table: Table) -> str:
    return "\n".join(note.text for note in table.notes)
