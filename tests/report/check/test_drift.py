"""A changed method fails the check; what must not matter does not: order, executor, workers, batch size.

A short study is run, pinned and run again, in this process, so that a method can be changed under its feet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

import bench.trial.loading
from bench.cli.main import main
from bench.encoders.features import CACHE, FeatureCache
from bench.encoders.towers import FrozenClip
from bench.methods.promptad import loss as _promptad_loss

STUDY = {
    "methods": ["clip", "promptad[iters=20,ffn=64]"],
    "datasets": ["pocket"],
    "categories": ["wood", "mesh", "chip"],
    "shots": [10],
}
pytestmark = pytest.mark.slow


def run(folder: Path, study: dict[str, Any], workers: int = 0) -> list[str]:
    """Run a study called "drift" with a store of its own; what names that store to other commands."""
    folder.mkdir()
    file, store = folder / "drift.yaml", str(folder / "store")
    file.write_text(yaml.safe_dump(study))
    words = ["run", "--study", str(file), "--store", store, "--workers", str(workers), "--device", "cpu"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return ["--store", store]


@pytest.fixture(scope="module")
def pins(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("drift")
    words = ["--pins", str(folder / "pins")]
    assert CliRunner().invoke(main, ["pin", *run(folder / "a", STUDY), *words]).exit_code == 0
    return words


def check(*words: str) -> Result:
    return CliRunner().invoke(main, ["check", "--against", "pinned", *words])


def test_a_wrong_top_k_fails_the_check(pins: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = _promptad_loss.top_mean
    monkeypatch.setattr(_promptad_loss, "top_mean", lambda scores, fraction: right(scores, 5 * fraction))
    result = check(*pins, *run(tmp_path / "b", STUDY))
    assert result.exit_code == 1, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "pinned: clip[encoder=pocket/clip]: 24 reproduced"  # the other method is what it was
    failed = [line for line in lines if line.startswith("  ") and "promptad" in line]
    assert failed
    assert lines[-1].startswith("failed: ")


def test_another_order_and_other_workers_change_no_digit(pins: list[str], tmp_path: Path) -> None:
    turned = {name: value[::-1] for name, value in STUDY.items()}
    result = check(*pins, *run(tmp_path / "b", turned, workers=2), "--exact")
    assert result.exit_code == 0, result.output


@pytest.fixture
def other_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Encoders put three images through their tower at once, and nothing is remembered from before."""
    construct = FrozenClip.__init__

    def smaller(self: FrozenClip, *args: Any, **options: Any) -> None:
        construct(self, *args, **{**options, "batch_size": 3, "cache": FeatureCache()})

    monkeypatch.setattr(FrozenClip, "__init__", smaller)
    bench.trial.loading.load_text_image.cache_clear()
    yield
    bench.trial.loading.load_text_image.cache_clear()


def test_another_batch_size_passes_the_check(pins: list[str], tmp_path: Path, other_batches: None) -> None:
    before = CACHE.passes
    result = check(*pins, *run(tmp_path / "b", STUDY))
    assert CACHE.passes == before  # the features were computed anew, elsewhere
    assert result.exit_code == 0, result.output
