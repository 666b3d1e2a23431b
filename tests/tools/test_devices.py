"""Choosing a device, seeding, threads."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import BenchError
from bench.store.store import Store
from bench.study.plan import prepare
from bench.study.study import Study
from bench.tools.devices import (
    PRECISIONS,
    choose_device,
    full_precision,
    get_precision,
    limit_threads,
    resident,
    seed_everything,
)
from bench.tools.spec import parse_spec
from bench.trial.isolation import isolated
from bench.trial.trial import run_trial


def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert choose_device() == choose_device("cpu") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert choose_device("auto") == "cuda"
    assert choose_device("cuda:1") == "cuda:1"
    with pytest.raises(BenchError, match=r"'cuda:2' is not on this machine \(2 CUDA devices\)"):
        choose_device("cuda:2")


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    for name in ("cuda", "mps"):
        with pytest.raises(BenchError, match=f"'{name}' is not on this machine.*--device cpu"):
            choose_device(name)
    for name in ("gpu", "cuda:x", "cpu:1"):
        with pytest.raises(BenchError, match="choose auto, cpu, cuda, cuda:N or mps"):
            choose_device(name)


@pytest.mark.parametrize(
    ("free", "held_back", "stays"), [(4000, 0, False), (3000, 1000, False), (3000, 900, True)]
)
def test_what_takes_too_much_room_stays_on_the_cpu(
    free: int, held_back: int, stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room is what the GPU has free and what torch holds back of it without using it."""
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 9000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 5000 + held_back)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 5000)
    tensor = torch.zeros(250)  # of 4 bytes each
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device: "moved")
    found: Any = resident(tensor, torch.device("cuda"))
    assert (found is tensor) if stays else (found == "moved")


def test_a_seed_fixes_all_generators() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        limit_threads()
        assert torch.get_num_threads() == 1
        limit_threads(2)
        assert torch.get_num_threads() == 2
        with pytest.raises(BenchError, match="at least 1"):
            limit_threads(0)
    finally:
        torch.set_num_threads(before)


def test_precision_is_set_and_left_by_features() -> None:
    try:
        seed_everything(0, "medium")
        assert torch.get_float32_matmul_precision() == "medium"
        assert torch.backends.cudnn.allow_tf32
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        seed_everything(0)
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("place", ["", "cudnn", "cudnn.conv", "cuda.matmul", "mkldnn", "mkldnn.matmul"])
def test_torchs_newer_switches_of_precision_do_not_outlive_a_trial(place: str) -> None:
    owner: Any = torch.backends
    for name in filter(None, place.split(".")):
        owner = getattr(owner, name)
    if not hasattr(owner, "fp32_precision"):
        pytest.skip("this torch has no such switch")
    with isolated():
        owner.fp32_precision = "tf32" if "mkldnn" not in place else "bf16"
        assert get_precision() in PRECISIONS  # where torch itself refuses to answer, too
        with full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
    assert get_precision() == torch.get_float32_matmul_precision() == "highest"
    seed_everything(0)
    assert not torch.backends.cudnn.allow_tf32


def test_precision_reaches_a_trial_and_its_record(tmp_path: Path) -> None:
    study = Study("s", (parse_spec("clip"),), (parse_spec("pocket"),), categories=("wood",), precision="medium")
    (task,) = prepare(study, Store(tmp_path)).tasks
    plain = prepare(dataclasses.replace(study, precision="highest"), Store(tmp_path)).tasks[0]
    assert task.key == plain.key  # how exactly a device computes is no part of what a trial is
    try:
        assert run_trial(task).record["provenance"]["device"].endswith(", medium precision")
    finally:
        seed_everything(0)
    assert "precision" not in run_trial(plain).record["provenance"]["device"]
