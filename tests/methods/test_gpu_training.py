"""Baselines that train a network, as a GPU would run them: on tensors without numbers, and in mixed precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from waiting import no_waiting

from bench.contracts import Context, Scores
from bench.methods.devnet import DevNet
from bench.methods.dra import DRA
from bench.methods.mlep import MLEP
from bench.methods.regad import RegAD
from bench.methods.shared import finetune, pixels
from bench.tools.devices import mixed_precision, uses_bfloat16

SHORT: dict[str, Any] = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 6, "n_references": 50}
METHODS: dict[str, Callable[[], Any]] = {
    "devnet": lambda: DevNet(DevNet.Config(**SHORT)),
    "dra": lambda: DRA(DRA.Config(**SHORT)),
    "dra, references of the same class": lambda: DRA(DRA.Config(ref_train="seen_same_class", **SHORT)),
    "dra, references augmented": lambda: DRA(DRA.Config(ref_clean=False, **SHORT)),
    "dra, references of the target": lambda: DRA(DRA.Config(ref_source="target", **SHORT)),
    "mlep": lambda: MLEP(MLEP.Config(**SHORT)),
    "mlep, recon": lambda: MLEP(MLEP.Config(variant="recon", decoder_width=8, **SHORT)),
    "regad": lambda: RegAD(RegAD.Config(epochs=2, batch_size=3)),
    "regad, normalised": lambda: RegAD(RegAD.Config(epochs=2, batch_size=3, normalise=True)),
}
TRAIN = tiny.training_set(tiny.image_set(tiny.noise(12, 40), ["red"] * 6 + ["green"] * 6), [0, 0, 0, 0, 1, 1] * 2)
TEST, SUPPORT = (tiny.image_set(tiny.noise(4, 40, seed)) for seed in (1, 2))


def context(device: str = "cpu") -> Context:
    network = tiny.backbone(tiny.Convolution(8, norm=True), 8, image_size=32)
    given = tiny.context(network=network, support=SUPPORT, n_support=len(SUPPORT))
    return dataclasses.replace(given, device=device)


def fit_and_score(name: str) -> Scores:
    method = METHODS[name]()
    method.fit(TRAIN, context())
    scores: Scores = method.score(TEST, context())
    return scores


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("resident", [True, False])
def test_no_step_asks_the_device_for_a_number(name: str, resident: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would wait for a GPU (``item``, ``nonzero``, a mask as an index) cannot be had from meta tensors.

    With the images on the device, and with them on the CPU because there is no room. What is sent there in a way
    that waits is held by ``no_waiting``.
    """
    meta = torch.zeros(3, device="meta")
    for waits in (
        lambda: meta.sum().item(),
        lambda: meta[meta > 0],
        lambda: meta.cpu(),
        lambda: bool(meta[0] > 0),
    ):
        with pytest.raises((RuntimeError, NotImplementedError)):
            waits()
    if not resident:
        monkeypatch.setattr(pixels, "resident", lambda tensor, device: tensor)
    METHODS[name]().fit(TRAIN, dataclasses.replace(context("meta"), track=no_waiting))


@pytest.mark.parametrize("name", METHODS)
def test_mixed_precision_trains_nearly_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, where it is never used, but for this test."""
    plain = fit_and_score(name)
    seen = set()
    forward = finetune.forward

    def watched(module: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        with torch.autograd.graph.saved_tensors_hooks(
            lambda kept: (seen.add(kept.dtype), kept)[1], lambda kept: kept
        ):
            answer = forward(module, images)
        assert answer.dtype == torch.float32
        return answer

    monkeypatch.setattr(finetune, "forward", watched)
    np.testing.assert_array_equal(fit_and_score(name).image, plain.image)
    assert torch.bfloat16 not in seen
    monkeypatch.setattr("bench.tools.devices.uses_bfloat16", lambda device: True)
    mixed = fit_and_score(name)
    assert torch.bfloat16 in seen
    assert mixed.image.dtype == np.float32
    assert not np.array_equal(mixed.image, plain.image)
    np.testing.assert_allclose(mixed.image, plain.image, rtol=0, atol=0.03 * np.abs(plain.image).max())


def test_mixed_precision_is_for_cuda_and_only_if_asked_for() -> None:
    cuda, cpu = torch.device("cuda:1"), torch.device("cpu")
    try:
        for precision, expected in (("highest", False), ("high", False), ("medium", True)):
            torch.set_float32_matmul_precision(precision)
            assert uses_bfloat16(cuda) == expected
            assert not uses_bfloat16(cpu)
        with mixed_precision(cpu):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    finally:
        torch.set_float32_matmul_precision("highest")
