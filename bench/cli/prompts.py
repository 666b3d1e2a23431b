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
    import tempfile

    import yaml

    from bench.data.prompts import default_prompts
    from bench.tools.registry import DATASETS
    from bench.tools.spec import build_config, parse_spec

    spec = parse_spec(dataset)
    cls = DATASETS.load(spec.name)
    config = build_config(cls.Config, spec, "dataset")
    if data_root is not None and not data_root.is_dir():
        raise BenchError(f"the data root {data_root} is not a folder")
    if data_root is None and cls.traits.needs_root:
        # Most datasets know their categories without any file; one that does not finds none in an empty folder.
        with tempfile.TemporaryDirectory() as empty:
            try:
                prompts = cls(Path(empty), config).prompts()
            except BenchError:
                message = f"the categories of {spec.name} are those of its files; add --data-root DIR"
                raise BenchError(message) from None
    else:
        prompts = cls(data_root, config).prompts()
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
