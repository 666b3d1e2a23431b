"""The registry of metrics: one file adds a metric, and everything that names metrics follows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.metrics import METRICS_VERSION, blocks, evaluate, registry
from bench.metrics.protocols import METRIC_PROTOCOLS

ADDED = """
from bench.metrics.registry import Metric


def fpr50(ranking):
    return ranking.false_positives(50) / ranking.negatives


METRICS = (
    Metric("pixel_fpr50", "pixel", "pixel FPR@50TPR", "pixel FPR50", fpr50, 7, higher_is_better=False,
           protocols=("exact",)),
)
"""
USED = """
import sys
from bench.metrics import definitions
definitions.__path__.append(sys.argv[1])
import json, numpy as np, bench
from bench.metrics.registry import MEASURED
from bench.cli._side_by_side import HEADS
from bench.metrics.registry import TITLES
rng = np.random.default_rng(0)
masks = np.zeros((4, 16, 16), bool)
masks[:2, 2:9, 3:9] = True
maps = rng.random(masks.shape) + 0.5 * masks
threshold = np.sort(maps[masks])[::-1][(masks.sum() + 1) // 2 - 1]
found = bench.evaluate(maps, masks)["pixel_fpr50"]
assert found == (maps[~masks] >= threshold).mean(), found
assert "pixel_fpr50" not in bench.evaluate(maps, masks, protocol="grid200")
print("pixel_fpr50" in MEASURED, HEADS["pixel_fpr50"], TITLES["pixel_fpr50"])
"""


def test_a_file_adds_a_metric(tmp_path: Path) -> None:
    (tmp_path / "fpr50.py").write_text(ADDED)
    run = subprocess.run([sys.executable, "-P", "-c", USED, tmp_path], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "True pixel FPR50 pixel FPR@50TPR"


def test_the_registry_is_quick() -> None:
    code = "import sys, bench.metrics.registry; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_order_and_protocols() -> None:
    assert registry.IMAGE_METRICS == ("image_auroc", "image_ap", "image_f1max", "image_fpr95")
    assert registry.PIXEL_METRICS == ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")
    assert list(registry.METRICS) == [*registry.IMAGE_METRICS, *registry.PIXEL_METRICS, "aupimo"]
    for metric in registry.METRICS.values():
        assert set(metric.protocols) <= METRIC_PROTOCOLS.keys()
    assert registry.undefined_in("exact") == []
    assert registry.undefined_in("openiad[sigma=2]") == ["image_f1max", "image_fpr95", "pixel_f1max"]
    assert [registry.sign(name) for name in ("image_auroc", "image_fpr95", "of somebody else")] == [1, -1, 1]


@pytest.fixture
def block() -> dict[str, Any]:
    """A block that was measured before ``image_fpr95`` was added."""
    masks = np.zeros((4, 8, 8), dtype=bool)
    masks[:2, 2:5, 2:5] = True
    maps = np.random.default_rng(0).random(masks.shape)
    found = evaluate(labels=[1, 1, 0, 0], image_scores=maps.max((1, 2)), maps=maps, masks=masks)
    result = blocks.block(METRIC_PROTOCOLS["exact"], found)
    del result["values"]["image_fpr95"]
    return result


def test_a_metric_that_was_added_later_invalidates_nothing(block: dict[str, Any]) -> None:
    assert METRICS_VERSION == "1"  # another version measures everything again
    assert blocks.is_current(block)
    assert not blocks.is_complete("exact", block)
    (seen,) = blocks.readable({"exact": block}).values()
    assert seen["values"] == block["values"]
    assert seen["reasons"]["image_fpr95"] == "not measured; bench rescore adds it"
    assert seen["reasons"]["aupimo"] == "not measured; bench rescore --aupimo adds it"
    assert blocks.is_complete("grid200", block)  # which does not have it
    (seen,) = blocks.readable({"grid200": block}).values()
    assert seen["reasons"]["image_fpr95"] == "grid200 does not have it"
    block["values"]["image_fpr95"] = 0.5
    assert blocks.is_complete("exact", block)
    assert not blocks.is_complete("exact", block, aupimo=True)


def test_undefined_with_the_reasons_of_the_others() -> None:
    masks = np.zeros((2, 4, 4), dtype=bool)
    for labels, scores, reason in (
        ([1, 1], [0.1, 0.2], "one class only"),
        ([0, 1], [0.1, np.nan], "non-finite"),
        ([0, 1], None, "the method gives no image scores"),
        ([0, 1], [0.1, 0.1], "constant"),
    ):
        found = evaluate(labels=labels, image_scores=scores, maps=None, masks=masks)
        assert found.metrics["image_fpr95"] is None
        assert reason in found.reasons["image_fpr95"]
