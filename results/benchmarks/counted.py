"""Floating-point operations of a trial, counted on tensors without numbers.

    python results/benchmarks/counted.py

The methods' own code runs on torch's ``meta`` device, where operations are dispatched and nothing is computed, and
:mod:`torch.utils.flop_counter` counts those of matrix products and convolutions, forwards and backwards: two for a
multiplication and an addition. What works on single values, sorts, pools, normalises or resamples is left out.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.contracts import Context, ImageSet, TextImageEncoder, TrainingSet
from bench.encoders import identify, load_backbone, load_text_image
from bench.methods.devnet import DevNet
from bench.methods.dra import DRA
from bench.methods.mlep import MLEP
from bench.methods.promptad import PromptADConfig
from bench.methods.promptad.loss import objective
from bench.methods.promptad.net import BranchDecoder
from bench.methods.regad import RegAD

NORMALS, TEST = 3629 * 14 // 15, 1725 // 15  # MVTec AD: the seen categories' training normals, the target's tests
SUPPORT = 4  # normal images of the target, for RegAD
BACKBONE, ENCODER = "torchvision/resnet18[weights=random]", "random/ViT-B-16"
BASELINES: dict[str, type[Any]] = {"devnet": DevNet, "dra": DRA, "mlep": MLEP, "regad": RegAD}
METHODS = (*BASELINES, "promptad")


def step_operations(method: str) -> float:
    """Return the operations of one training step of a method with its own options, forwards and backwards."""
    return _promptad()[0] if method == "promptad" else _baseline(method)[0]


def operations(method: str) -> float:
    """Return the operations of one trial, fit and score, of Table 1 on MVTec AD, one category left out.

    ``regad`` is not in that table: four normal images, as in Table 3. ``promptad`` encodes all its images once, as
    its first trial does, and those of 1 shot; its sentences are left out.
    """
    if method == "promptad":
        step, image, encoding = _promptad()
        return encoding * (NORMALS + 14 + TEST) + step * PromptADConfig().iters + image * TEST
    step, rest = _baseline(method)
    config = BASELINES[method].Config()
    # RegAD takes every normal image once in an epoch, in batches of which some are smaller
    steps_per_epoch = NORMALS / config.batch_size if method == "regad" else config.steps_per_epoch
    return step * config.epochs * steps_per_epoch + rest


def _count(function: Callable[[], Any]) -> float:
    with FlopCounterMode(display=False, custom_mapping=_FACTORISATIONS) as counter:
        function()
    return float(counter.get_total_flops())


def _cholesky(matrix: torch.Size, *_: Any, **__: Any) -> int:
    return matrix.numel() * matrix[-1] // 3


def _solve(matrix: torch.Size, right: torch.Size, *_: Any, **__: Any) -> int:
    return right.numel() * matrix[-1]


_FACTORISATIONS: dict[Any, Any] = {  # of RegAD's Gaussians
    torch.ops.aten.linalg_cholesky_ex: _cholesky,
    torch.ops.aten.linalg_solve_triangular: _solve,
}


# ---------------------------------------------------------------- methods


def _images(count: int) -> ImageSet:
    """Return one grey image, many times; the operations do not depend on what it shows."""
    return ImageSet(["grey"] * count, ["thing"] * count, {}, lambda key: np.full((8, 8, 3), 128, dtype=np.uint8))


def _baseline(name: str) -> tuple[float, float]:
    """Return the operations of a training step, and those of all else in a trial."""
    method = BASELINES[name]
    short = {} if name == "regad" else {"steps_per_epoch": 1}
    configs = [dataclasses.replace(method.Config(), epochs=epochs, **short) for epochs in (1, 2)]
    count = configs[0].batch_size  # one step of RegAD is an epoch of so many normal images
    labels = np.zeros(count + 1, dtype=np.int8)
    labels[-1] = 1
    train = TrainingSet(
        _images(count + 1), labels, ["good"] * count + ["dent"], lambda key: labels[:, None] > 0, 1
    )

    def fit(config: Any) -> Any:
        fitted = method(config)
        fitted.fit(train, _context())
        return fitted

    fitted = fit(configs[0])
    once, twice = (_count(lambda config=config: fit(config)) for config in configs)
    # An answer without numbers: zeros.
    with mock.patch.object(torch.Tensor, "cpu", lambda tensor: torch.zeros(tensor.shape, dtype=tensor.dtype)):
        scoring = _count(lambda: fitted.score(_images(TEST), _context()))
    return twice - once, 2 * once - twice + scoring


def _context() -> Context:
    def encoder(name: str) -> TextImageEncoder:
        raise AssertionError(name)  # none of these methods asks for one

    return Context("meta", 0, "thing", encoder, lambda _: load_backbone(identify(BACKBONE)), _images(SUPPORT))


def _promptad() -> tuple[float, float, float]:
    """Return the operations of a training step, of scoring an image's features, and of encoding an image."""
    config = PromptADConfig()
    encoder: Any = load_text_image(identify(ENCODER))
    visual = encoder.model.visual.to("meta")
    side = encoder.image_size
    # with gradients, lest attention be one operation that is not counted
    pixels = torch.zeros(1, 3, side, side, device="meta", requires_grad=True)
    encoding = _count(lambda: visual(pixels))
    decoder = BranchDecoder(config, 3, encoder.width, encoder.embed_dim, seed=0).to("meta")

    def maps(batch: int) -> torch.Tensor:
        tokens = torch.zeros(batch, len(visual.positional_embedding), encoder.width, device="meta")
        text = torch.zeros(2, batch, encoder.embed_dim, device="meta")
        found: torch.Tensor = decoder([tokens] * 3, text, text.unsqueeze(2))
        return found

    batch = config.n_query * config.episodes_per_step
    step = _count(lambda: objective(maps(batch), torch.zeros(batch, device="meta"), config).backward())
    return step, _count(lambda: maps(1)), encoding


if __name__ == "__main__":
    for name in sys.argv[1:] or METHODS:
        print(f"{name}: {step_operations(name) / 1e12:.3f} TFLOP a step, {operations(name) / 1e12:.0f} a trial")
