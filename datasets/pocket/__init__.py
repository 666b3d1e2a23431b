"""Pocket: a small rendered dataset in MVTec AD's layout that ships with the package.

It is for smoke and regression runs with no download. Its images, prompts and weights lie beside this file,
with the scripts that made them. Its categories form two halves that share no rendering family, so that one
half can teach what is tested on the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from bench.contracts import DatasetTraits, Prompts
from bench.datasets.layout import CategoryConfig, FileDataset, Tree, read_tree
from bench.errors import BenchError, unknown
from bench.tools.spec import ADDED

HERE = Path(__file__).parent

HALVES: Mapping[str, tuple[str, ...]] = {
    "a": ("button", "chip", "fabric", "knit", "washer", "wood"),
    "b": ("biscuit", "capsule", "gear", "mesh", "terrazzo", "tile"),
}
"""The halves' categories."""


@dataclass(frozen=True)
class PocketConfig(CategoryConfig):
    """Options of pocket.

    Attributes:
        half: a or b, for the categories of that half; empty for both halves.
    """

    half: str = field(default="", metadata=ADDED)


class Pocket(FileDataset):
    """The shipped images, read by the very loader that reads MVTec AD.

    Args:
        root: another folder of the same layout; None for the shipped one.
        config: an instance of ``Config``.

    Raises:
        BenchError: there is no such half.
    """

    name: ClassVar[str] = "pocket"
    version: ClassVar[str] = "2"
    traits: ClassVar[DatasetTraits] = DatasetTraits(
        title="pocket",
        source="rendered by datasets/pocket/make/render.py",
        eval_size=96,
        needs_root=False,
        encoder="pocket/clip",
        backbone="pocket/resnet",
        note="pocket is a rendered smoke-and-regression set; its numbers say nothing about MVTec AD.",
    )
    Config: ClassVar[type[Any]] = PocketConfig

    def __init__(self, root: Path | None, config: Any) -> None:
        if config.half and config.half not in HALVES:
            raise unknown("half", config.half, HALVES, "of pocket")
        super().__init__(HERE / "images" if root is None else root, config)

    def _read(self) -> Tree:
        if self.root == HERE / "images" and not self.root.is_dir():
            raise BenchError(
                f"the images of pocket are missing from this installation ({self.root}); reinstall it"
            )
        tree = read_tree(self.root, self.traits.title)
        if not self.config.half:
            return tree
        half = HALVES[self.config.half]
        return replace(tree, samples=tuple(sample for sample in tree.samples if sample.category in half))

    def prompts(self) -> Mapping[str, Prompts]:
        """The prompts that ship beside the images."""
        from bench.data.prompts import load_prompts

        return load_prompts(HERE / "prompts.yaml", self.name)
