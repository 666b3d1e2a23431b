"""``bench prompts``."""

from __future__ import annotations

from pathlib import Path

import click

from bench.errors import BenchError, printable


@click.command("prompts")
@click.argument("dataset", default="mvtec")
@click.option("--data-root", type=click.Path(path_type=Path), help="Its folder, where that names the categories.")
def command(dataset: str, data_root: Path | None) -> None:
    """Print the prompts of DATASET as a file to edit and give back with --prompts.

    DATASET may have options: "folder[good=ok]". Categories of which nothing is known but the name get generic
    prompts; they are named on stderr.
    """
    import yaml

    from bench.data.prompts import default_prompts
    from bench.tools.registry import DATASETS
    from bench.tools.spec import build_config, parse_spec

    spec = parse_spec(dataset)
    cls = DATASETS.load(spec.name)
    if data_root is not None and not data_root.is_dir():
        raise BenchError(f"the data root {data_root} is not a folder")
    if spec.name == "folder" and data_root is None:
        raise BenchError("the categories of folder are those of your files; add --data-root DIR")
    # The prompts of every other dataset are known without its files.
    root = Path() if data_root is None and cls.traits.needs_root else data_root
    prompts = cls(root, build_config(cls.Config, spec, "dataset")).prompts()
    if not prompts:
        raise BenchError(
            f"{spec.name} ships no prompts; write a file of the form that `bench prompts mvtec` prints"
        )
    content = {
        category: {
            "label": prompt.label,
            "normality": prompt.normality,
            "abnormality": prompt.abnormality,
            "descriptions": dict(prompt.descriptions),
        }
        for category, prompt in sorted(prompts.items())
    }
    click.echo(yaml.safe_dump({spec.name: content}, sort_keys=False, allow_unicode=True, width=100), nl=False)
    generic = [category for category in sorted(prompts) if prompts[category] == default_prompts(category)]
    if generic:
        names = printable(", ".join(generic))
        click.echo(f"generic prompts, made from the name alone: {names}", err=True)
