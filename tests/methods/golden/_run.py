"""What the scripts in this folder share; see README.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "support"))


def checkout() -> Path:
    """The folder given on the command line, from which the modules to run are imported."""
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        sys.exit(f"usage: python {Path(sys.argv[0]).name} FOLDER  (a checkout of the repository; see README.md)")
    folder = Path(sys.argv[1]).resolve()
    sys.path.insert(0, str(folder))
    torch.set_num_threads(1)
    return folder


def on_the_cpu() -> None:
    """Let code that moves everything to a GPU run without one."""
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self  # type: ignore[method-assign,assignment]
    torch.Tensor.get_device = lambda self: "cpu"  # type: ignore[method-assign,assignment,return-value]


def bare_package(folder: Path, name: str) -> None:
    """Let modules of a package be imported without what its own ``__init__`` asks for."""
    package = sys.modules[name] = ModuleType(name)
    package.__path__ = [str(folder / name.replace(".", "/"))]


def untrained() -> None:
    """Let ``resnet18(pretrained=True)`` load nothing; its weights are filled in afterwards."""
    from torchvision import models

    plain = models.resnet18
    models.resnet18 = lambda **_: plain()


def save(name: str, values: dict[str, Any]) -> None:
    """``NAME.json`` beside the scripts."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items()}
        if isinstance(value, torch.Tensor | np.ndarray):
            value = (value.detach() if isinstance(value, torch.Tensor) else value).tolist()
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return float(f"{value:.12g}") if isinstance(value, float) else int(value)

    lines = [f"{json.dumps(key)}: {json.dumps(plain(value))}" for key, value in values.items()]
    (HERE / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
