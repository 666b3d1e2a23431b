"""``bench prompts``."""

from __future__ import annotations

from pathlib import Path

import click

from bench.errors import BenchError


@click.command("prompts")
@click.argument("dataset", default="mvtec")
def command(dataset: str) -> None:
    """Print the prompts of DATASET as a file to edit and give back with --prompts."""
    import yaml

    from bench.tools.registry import DATASETS

    cls = DATASETS.load(dataset)
    dataset_ = cls(Path() if cls.traits.needs_root else None, cls.Config())  # prompts need no files
    content = {
        category: {
            "label": prompt.label,
            "normality": prompt.normality,
            "abnormality": prompt.abnormality,
            "descriptions": dict(prompt.descriptions),
        }
        for category, prompt in sorted(dataset_.prompts().items())
    }
    if not content:
        raise BenchError(f"{dataset} ships no prompts; write a file of the form that `bench prompts mvtec` prints")
    click.echo(yaml.safe_dump({dataset: content}, sort_keys=False, allow_unicode=True, width=100), nl=False)
