"""The typed view of records, of today's and of earlier versions."""

from __future__ import annotations

import copy
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from trial_records import record

import bench
from bench.errors import BenchError
from bench.metrics import blocks
from bench.store.record import Inputs, Record, as_records

INPUTS = {
    "roots": {"target": "/data/a", "source": "/data/b"},
    "weights": {"openclip/ViT-B-32": "/weights/clip.pt", "pocket/clip": None},
    "prompts": "/prompts.yaml",
    "options": {"epochs": 5},
}
COMMAND = (
    "bench run --methods clip --dataset mvtec --data-root '/data/my mvtec' --train-dataset visa "
    "--train-root /visa --prompts p.yaml --weights openclip/ViT-B-32=/weights/clip.pt"
)


def changed(**parts: Any) -> dict[str, Any]:
    """A record with parts of its description replaced; None removes one."""
    document = copy.deepcopy(record())
    for name, fields in parts.items():
        if fields is None:
            del document["trial"][name]
        else:
            document["trial"][name] = fields
    return document


def test_every_field_has_its_place() -> None:
    source = {"name": "visa", "version": "1", "config": {}, "fingerprint": "a" * 64}
    document = record(
        "promptad[iters=60]",
        "wood",
        10,
        3,
        0.75,
        protocol="transfer",
        source=source,
        prompts="c" * 64,
        note="a note",
    )
    document["notes"] = ["slow"]
    document["provenance"] = {"seconds": {"fit": 2.0, "total": 3.5}, "device": "cpu", "encoder_passes": 7}
    found = Record.of(document)
    assert (found.key, found.status, found.reason) == (document["key"], "ok", "")
    assert (found.category, found.shots, found.seed, found.prompts) == ("wood", 10, 3, "c" * 64)
    assert (found.method.name, found.method.label, found.method.title) == (
        "promptad",
        "promptad[iters=60]",
        "PromptAD",
    )
    assert (found.dataset.label, found.dataset.fingerprint, found.dataset.note) == ("pocket", "f" * 64, "a note")
    assert (found.protocol.title, found.protocol.manifest) == (
        "transfer from visa",
        document["trial"]["protocol"]["manifest"],
    )
    assert found.protocol.source is not None and found.protocol.source.identity == source
    assert {role: each.name for role, each in found.encoders.items()} == {"encoder": "pocket/clip"}
    assert found.value("image_auroc") == 0.75
    assert found.value("image_auroc", "grid200") is None and found.value("of nothing") is None
    assert found.blocks["exact"].eval_size == 64
    assert found.blocks["exact"].settings == {"version": blocks.METRICS_VERSION, "eval_size": 64}
    assert (found.seconds, found.notes) == ({"fit": 2.0, "total": 3.5}, ("slow",))
    assert (found.provenance.device, found.provenance.encoder_passes) == ("cpu", 7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.status = "failed"  # type: ignore[misc]


def test_records_of_earlier_versions_lack_fields() -> None:
    document = {
        "key": "k",
        "status": "ok",
        "trial": {
            "method": {"label": "clip[variant=probe]"},
            "dataset": {"label": "folder"},
            "protocol": {"label": "loo[k=2]"},
            "category": "a",
            "shots": None,
            "seed": None,
        },
    }
    found = Record.of(document)
    assert (found.method.name, found.method.title, found.method.version) == ("clip", "clip[variant=probe]", None)
    assert (found.method.zero_shot, found.method.trained, found.method.config) == (None, None, {})
    assert (found.dataset.name, found.dataset.fingerprint, found.protocol.name) == ("folder", None, "loo")
    assert (found.encoders, found.blocks, found.prompts, found.notes) == ({}, {}, None, ())
    assert (found.provenance.device, found.seconds, found.inputs) == ("", {}, Inputs())


def test_numbers_of_another_metrics_version_are_not_shown() -> None:
    document = record(value=0.75)
    document["metrics"]["exact"]["version"] = "0"
    found = Record.of(document)
    assert found.value("image_auroc") is None
    assert "bench rescore" in found.blocks["exact"].reasons["image_auroc"]
    assert found.stored_blocks["exact"].values["image_auroc"] == 0.75


def test_inputs_are_read_as_data_and_not_from_the_command() -> None:
    document = record()
    document["provenance"] = {"inputs": INPUTS, "command": COMMAND}
    assert Record.of(document).inputs == Inputs(
        target=Path("/data/a"),
        sources={"": Path("/data/b")},
        weights={"openclip/ViT-B-32": Path("/weights/clip.pt"), "pocket/clip": None},
        prompts=Path("/prompts.yaml"),
        options={"epochs": 5},
    )
    document["provenance"]["inputs"] = {"roots": {"target": None, "source": None}}
    assert Record.of(document).inputs == Inputs()


def test_inputs_of_earlier_versions_are_recovered() -> None:
    document = record()
    document["provenance"] = {"command": COMMAND}
    found = Record.of(document).inputs
    assert (found.target, found.sources, found.prompts) == (
        Path("/data/my mvtec"),
        {"": Path("/visa")},
        Path("p.yaml"),
    )
    assert found.weights == {"openclip/ViT-B-32": Path("/weights/clip.pt")}
    document["provenance"] = {"command": "bench run --train-dataset pocket --train-root DIR"}
    assert Record.of(document).inputs == Inputs()
    document["provenance"] = {"command": "bench run --data-root 'no end"}
    assert Record.of(document).inputs == Inputs()


@pytest.mark.parametrize(
    "document",
    [
        pytest.param([], id="a list"),
        pytest.param({"key": "k", "status": "ok"}, id="no trial"),
        pytest.param(changed(method=None), id="no method"),
        pytest.param(changed(method="clip"), id="a name as method"),
        pytest.param(changed(seed="0"), id="text as seed"),
        pytest.param(changed(shots=True), id="true shots"),
        pytest.param(changed(encoders=["clip"]), id="a list of encoders"),
        pytest.param({**record(), "status": "great"}, id="no such status"),
        pytest.param({**record(), "provenance": 5}, id="a number as provenance"),
        pytest.param({**record(), "metrics": {"exact": {"values": {"auroc": "0.5"}}}}, id="text as value"),
    ],
)
def test_what_is_no_record_is_refused(document: Any) -> None:
    with pytest.raises(BenchError, match=r"is not a trial record.*; delete it and run the study again"):
        Record.of(document)


def test_documents_and_records_are_read_alike() -> None:
    first, second = as_records([record(seed=0), Record.of(record(seed=1))])
    assert (first.seed, second.seed) == (0, 1)


def test_no_other_code_reads_the_keys_of_a_record() -> None:
    """Outside the store, and the trial that writes records, nothing looks into a record's JSON."""
    keys = (
        "trial|provenance|metrics|status|reason|dataset|protocol|method|shots|seed|encoders|manifest|fingerprint"
    )
    subscript = re.compile(rf'\b(record|trial|provenance|each|r)\w*(\.get\(|\[)"({keys})"|\.provenance\.get\(')
    folder = Path(bench.__file__).parent
    found = []
    for path in folder.rglob("*.py"):
        part = path.relative_to(folder).parts[0]
        if part not in ("store", "trial"):
            found += [f"{path.name}: {line}" for line in path.read_text().splitlines() if subscript.search(line)]
    assert found == []
