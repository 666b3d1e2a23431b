"""``bench fit``: a detector, trained on a dataset and written to a file."""

from __future__ import annotations

from pathlib import Path

import click

from bench.cli._options import store_option
from bench.errors import BenchError
from bench.study.study import DEFAULT_TO_FIT
from bench.tools.devices import PRECISIONS, Precision


@click.command("fit")
@click.option("--method", required=True, help="Method with options: promptad[cmi=off].")
@click.option("--train-dataset", help="The dataset to learn from, with options; several as one: A+B.")
@click.option("--train-root", "train_roots", multiple=True, help="Its folder: DIR, or DATASET=DIR.")
@click.option(
    "--protocol", default=DEFAULT_TO_FIT, show_default=True, help="Decides which of its images are learned from."
)
@click.option("--shots", type=click.IntRange(min=0), help="Labelled anomalies per category, where some are drawn.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seeds everything random.")
@click.option("--encoder", default="", help="Text-image encoder in place of the method's own.")
@click.option("--backbone", default="", help="Trainable backbone in place of the method's own.")
@click.option("--weights", multiple=True, help="Local weights file: FILE, or NAME=FILE.")
@click.option("--prompts", type=click.Path(path_type=Path), help="Prompt file (bench prompts shows one).")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="highest", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@store_option
def command(
    method: str,
    train_dataset: str | None,
    train_roots: tuple[str, ...],
    protocol: str,
    shots: int | None,
    seed: int,
    encoder: str,
    backbone: str,
    weights: tuple[str, ...],
    prompts: Path | None,
    device: str,
    precision: Precision,
    output: Path,
    store: Path,
) -> None:
    """Train a detector and write it to a file, for bench predict.

    \b
    bench fit --method promptad --train-dataset mvtec --train-root DIR --output promptad.zsad
    bench predict promptad.zsad photo.jpg folder/ --category "metal nut" --output out/
    """
    from bench.cli._steps import steps
    from bench.predict.detector import fit

    if output.exists():
        raise BenchError(f"{output} is there already; remove it, or choose another name")
    if not output.absolute().parent.is_dir():
        raise BenchError(f"the folder of {output} does not exist")
    detector = fit(
        method,
        train_dataset=train_dataset or "",
        train_root=train_roots or None,
        protocol=protocol,
        shots=shots,
        seed=seed,
        encoder=encoder,
        backbone=backbone,
        weights=weights,
        prompts=prompts,
        device=device,
        precision=precision,
        store=store,
        track=steps,
    )
    detector.save(output)
    click.echo(f"{output}: {detector!r}, {output.stat().st_size / 2**20:.1f} MiB", err=True)
