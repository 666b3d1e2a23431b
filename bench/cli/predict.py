"""``bench predict``: scores, anomaly maps and a page of anybody's pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.cli._options import home_option
from bench.errors import BenchError, printable
from bench.tools.devices import PRECISIONS, Precision
from bench.tools.text import count

if TYPE_CHECKING:
    from bench.predict.detector import Detector
    from bench.predict.predictions import Predictions


@click.command("predict")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path), metavar="[DETECTOR] PICTURES...")
@click.option("--method", help="A method that needs no training, in place of a detector's file: clip, winclip.")
@click.option("--category", default="", help='What is on the pictures, in words: "metal nut".')
@click.option("--prompts", type=click.Path(path_type=Path), help="Prompt file with the category's texts.")
@click.option("--normals", type=click.Path(path_type=Path), help="Normal pictures, for few-shot methods.")
@click.option("--threshold", type=float, help="Image scores above it are called anomalous.")
@click.option("--calibrate", type=click.Path(path_type=Path), help="Normal pictures to take the threshold from.")
@click.option(
    "--false-alarms", type=float, default=0.01, show_default=True, help="Share of those that may lie above it."
)
@click.option("--dataset", help="Score a dataset's test images of --category, and print metrics.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Its folder.")
@home_option
@click.option("--allow-leak", is_flag=True, help="Print metrics even of images that the detector was trained on.")
@click.option("--encoder", default="", help="With --method: text-image encoder in place of its own.")
@click.option("--backbone", default="", help="With --method: backbone in place of its own.")
@click.option("--weights", multiple=True, help="Local weights file: FILE, or NAME=FILE.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="highest", show_default=True)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for scores, maps and a page."
)
def command(
    files: tuple[Path, ...],
    method: str | None,
    category: str,
    prompts: Path | None,
    normals: Path | None,
    threshold: float | None,
    calibrate: Path | None,
    false_alarms: float,
    dataset: str | None,
    data_root: Path | None,
    allow_leak: bool,
    encoder: str,
    backbone: str,
    weights: tuple[str, ...],
    device: str,
    precision: Precision,
    output: Path | None,
) -> None:
    """Score pictures with a detector, or with a method that needs no training.

    \b
    bench predict promptad.zsad photo.jpg folder/ --category "metal nut" --output out/
    bench predict --method winclip photo.jpg --category "metal nut"
    bench predict --method winclip[few_shot=on] folder/ --normals good/ --category "metal nut"
    bench predict promptad.zsad folder/ --category bottle --calibrate good/ --false-alarms 0.01
    bench predict promptad.zsad --dataset mvtec --data-root DIR --category bottle

    Scores are printed, the most anomalous first; with --output, scores.csv, a map (.npy) and a picture for each
    image, and index.html. A picture that cannot be read is named, and the others are scored; the exit code is
    then 1.
    """
    from bench.cli._steps import steps
    from bench.predict.detector import fit, load

    pictures = list(files)
    if output is not None:
        _check_output(output, [*pictures, *filter(None, [normals, calibrate])])
    if method is None:
        if not pictures:
            raise BenchError("name a detector's file (bench fit writes one), or a --method that needs no training")
        if encoder or backbone:
            raise BenchError("--encoder and --backbone go with --method: a detector has its own")
        detector = load(pictures.pop(0), weights=weights, device=device, precision=precision)
    else:
        detector = fit(
            method, encoder=encoder, backbone=backbone, weights=weights, device=device, precision=precision
        )
    options: dict[str, Any] = {"prompts": prompts, "normals": normals, "track": steps}
    options |= {"threshold": threshold, "calibrate": calibrate, "false_alarms": false_alarms}
    if dataset is not None:
        if pictures:
            raise BenchError("--dataset scores a dataset's own images; leave the pictures out")
        found = _on_dataset(detector, dataset, data_root, category, allow_leak, options)
    elif not pictures:
        raise BenchError("name the pictures to score: files or folders")
    else:
        found = detector.predict(pictures, category, unreadable="skip", **options)
    _print(found)
    if output is not None:
        click.echo(f"page: {found.save(output)}", err=True)
    if found.unreadable:
        raise click.exceptions.Exit(1)


def _check_output(output: Path, read: list[Path]) -> None:
    """See that the folder for the results can be written, and holds nothing that would be mixed up with them."""
    if output.exists() and any(output.iterdir()):
        raise BenchError(f"{output} is not empty; remove it, or choose another folder")
    for folder in read:
        if folder.is_dir() and output.absolute().resolve().is_relative_to(folder.resolve()):
            raise BenchError(f"{output} lies in {folder}, whose pictures are read; choose a folder outside")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"{output} cannot be made: {error.strerror}") from None


def _on_dataset(
    detector: Detector,
    dataset: str,
    root: Path | None,
    category: str,
    allow_leak: bool,
    options: dict[str, Any],
) -> Predictions:
    from bench.predict.labelled import Labelled

    labelled = Labelled.open(dataset, root, category)
    found = labelled.predict(detector, allow_leak=allow_leak, **options)
    for name, value in labelled.metrics(found).items():
        click.echo(f"{name:18}{value}")
    if found.met:
        click.echo("note: the detector was trained on some of these images: these are not test results", err=True)
    return found


def _print(found: Predictions) -> None:
    """Print a line for each picture, the most anomalous first."""
    verdicts = found.anomalous
    for index in sorted(range(len(found)), key=lambda i: -found.image[i]):
        verdict = "" if verdicts is None else ("anomalous  " if verdicts[index] else "normal     ")
        click.echo(f"{found.image[index]:12.6g}  {verdict}{printable(found.names[index])}")
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    if found.met:
        click.echo(
            f"note: {count(len(found.met), 'picture')} among those that the detector was trained on", err=True
        )
    for reason in (found.unreadable or {}).values():
        click.echo(f"not read: {printable(reason)}", err=True)
