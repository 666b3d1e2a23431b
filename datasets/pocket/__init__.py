"""Pocket: a small rendered dataset in MVTec AD's layout that ships with the package.

It is for smoke and regression runs with no download. Its images, prompts and weights lie beside this file,
with the scripts that made them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from bench.contracts import DatasetTraits, Prompts
from bench.datasets.layout import FileDataset, Tree, read_tree
from bench.errors import BenchError, unknown
from bench.tools.spec import ADDED

HERE = Path(__file__).parent


@dataclass(frozen=True)
class PocketConfig:
    """Options.

    Attributes:
        categories: the only ones that are there, so that one part of the set can be learned from and another
            tested on; empty for all.
    """

    categories: tuple[str, ...] = field(default=(), metadata=ADDED)


class Pocket(FileDataset):
    """The shipped images, read by the very loader that reads MVTec AD.

    Args:
        root: another folder of the same layout; None for the shipped one.
        config: an instance of ``Config``.
    """

    name: ClassVar[str] = "pocket"
    version: ClassVar[str] = "1"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="pocket",
        source="rendered by datasets/pocket/make/render.py",
        eval_size=64,
        needs_root=False,
        encoder="pocket/clip",
        backbone="pocket/resnet",
        note="pocket is a rendered smoke-and-regression set; its numbers say nothing about MVTec AD.",
    )
    Config: ClassVar[type[Any]] = PocketConfig

    def __init__(self, root: Path | None, config: Any) -> None:
        super().__init__(HERE / "images" if root is None else root, config)

    def _read(self) -> Tree:
        if self.root == HERE / "images" and not self.root.is_dir():
            raise BenchError(
                f"the images of pocket are missing from this installation ({self.root}); reinstall it"
            )
        tree = read_tree(self.root, self.traits.title)
        chosen = self.config.categories
        if not chosen:
            return tree
        known = {sample.category for sample in tree.samples}
        for category in chosen:
            if category not in known:
                raise unknown("category", category, known, "of pocket")
        return dataclasses.replace(tree, samples=tuple(s for s in tree.samples if s.category in chosen))

    def prompts(self) -> Mapping[str, Prompts]:
        """The prompts that ship beside the images."""
        from bench.data.prompts import load_prompts

        return load_prompts(HERE / "prompts.yaml", self.name)
