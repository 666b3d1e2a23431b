from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.trial.isolation import isolated


def state() -> dict[str, object]:
    return {
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "numpy": np.geterr(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "precision": torch.get_float32_matmul_precision(),
        "collecting": gc.isenabled(),
        "depth": sys.getrecursionlimit(),
        "stdout": sys.stdout,
    }


def disturb(folder: Path) -> None:
    os.chdir(folder)
    os.environ["PATH"] = ""
    del os.environ["HOME"]
    warnings.simplefilter("error")
    np.seterr(all="raise")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_float32_matmul_precision("medium")
    gc.disable()
    sys.setrecursionlimit(4321)
    sys.stdout = None  # type: ignore[assignment]


def test_everything_is_put_back_also_after_an_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home")
    before = state()
    with contextlib.suppress(GeneratorExit), isolated():
        disturb(tmp_path)
        changed = state()
        raise GeneratorExit
    assert state() == before
    assert all(changed[name] != value for name, value in before.items())
    torch.zeros(1) + 1


STREAMS = """
import os, sys
from bench.trial.isolation import isolated
with isolated():
    {harm}
    open({file!r}, "w")
print("sound")
print("sound too", file=sys.stderr)
"""


@pytest.mark.parametrize(
    "harm",
    [
        "sys.stdout.close(); sys.stderr.close()",
        "os.close(1); os.close(2)",
        "sys.stdout = sys.stderr = open(os.devnull, 'w')",
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
        "os.fork()",
    ],
)
def test_standard_streams_are_as_before(harm: str, tmp_path: Path) -> None:
    code = STREAMS.format(harm=harm, file=str(tmp_path / "other"))
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "sound\n", "sound too\n")
    assert (tmp_path / "other").read_text() == ""
