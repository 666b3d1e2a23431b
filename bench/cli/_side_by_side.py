"""Options of ``evaluate`` and ``explain-gap``, and tables of metrics under several protocols side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.errors import BenchError
from bench.metrics.registry import METRICS

if TYPE_CHECKING:
    from bench.metrics import Evaluation
    from bench.metrics.files import Images
    from bench.metrics.protocols import MetricProtocol

_FILE = click.Path(path_type=Path)
HEADS = {metric.name: metric.short for metric in METRICS.values()}


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name files, and those of the output."""
    for decorate in reversed(
        [
            click.option("--maps", type=_FILE, help="Folder of maps, or one .npz, .safetensors or .npy file."),
            click.option("--masks", type=_FILE, help="Folder of masks (a dataset's will do), or one such file."),
            click.option("--scores", type=_FILE, help="CSV: name,score[,label].  [default: each map's maximum]"),
            click.option("--eval-size", help="Side of the evaluation grid, or own.  [default: the masks' own]"),
            click.option("--aupimo", is_flag=True, help="Add AUPIMO, by anomalib (slow)."),
            click.option("--json", "as_json", is_flag=True, help="Everything, as JSON."),
        ]
    ):
        command = decorate(command)
    return command


def read_protocols(text: str, eval_size: str | None) -> list[MetricProtocol]:
    """The metric protocols of an option, for somebody's own arrays, each once.

    Raises:
        BenchError: no such protocol, or none at all.
    """
    from bench.metrics.protocols import resolve_own
    from bench.tools.spec import split_specs

    chosen = [resolve_own(str(spec), eval_size) for spec in split_specs(text)]
    if not chosen:
        raise BenchError("--protocol names no metric protocol")
    return list({protocol.name: protocol for protocol in chosen}.values())


def read_files(maps: Path | None, masks: Path | None, scores: Path | None) -> Images:
    """The images of ``--maps``, ``--masks`` and ``--scores``, with image scores; prints how they were matched."""
    from dataclasses import replace

    from bench.metrics.evaluation import maxima
    from bench.metrics.files import load_images

    images = load_images(maps, masks, scores)
    notes = images.notes
    if images.image_scores is None and images.maps is not None:
        with plain_errors(images.names):
            images = replace(images, image_scores=maxima(images.maps))
        notes = (*notes, "image scores: the maximum of each map")
    for note in notes:
        click.echo(f"note: {note}", err=True)
    return replace(images, notes=notes)


def evaluate_files(images: Images, protocols: Sequence[MetricProtocol], aupimo: bool) -> dict[str, Evaluation]:
    """The metrics of one category's images under each protocol, by its name.

    Raises:
        BenchError: arrays that do not fit, or images of several categories.
    """
    from bench.metrics.evaluation import measure

    categories = sorted(set(images.categories))
    if len(categories) > 1:
        raise BenchError(
            f"these are images of {len(categories)} categories; give the folders of one: {categories[0]}"
        )
    found = {}
    with plain_errors(images.names):
        for protocol in protocols:
            found[protocol.name] = measure(
                protocol,
                labels=images.labels,
                image_scores=images.image_scores,
                maps=images.maps,
                masks=images.masks,
                no_masks=images.no_masks,
                aupimo=aupimo,
            )
    return found


class plain_errors:  # noqa: N801 - a context manager
    """Context manager that adds an image's name to the ValueErrors of the metrics, which count images."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            number = re.search(r"\b(?:map|mask|image) (\d+)\b", str(error))
            name = f" ({self._names[int(number[1])]})" if number and int(number[1]) < len(self._names) else ""
            raise BenchError(f"{error}{name}") from None


def table(rows: Mapping[str, Mapping[str, float | None]], first: str = "protocol") -> list[str]:
    """Lines of a table with a row for each name and a column for each metric that any of them has."""
    columns = [name for name in HEADS if any(name in row for row in rows.values())]
    width = max(len(first), *map(len, rows))
    lines = ["  ".join([first.ljust(width), *(HEADS[name] for name in columns)])]
    for name, row in rows.items():
        cells = [_cell(row.get(column)).rjust(len(HEADS[column])) for column in columns]
        lines.append("  ".join([name.ljust(width), *cells]))
    return lines


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def spread(rows: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """The largest difference of each metric between the protocols."""
    result: dict[str, float | None] = {}
    for name in HEADS:
        values = [value for row in rows.values() if (value := row.get(name)) is not None]
        if any(name in row for row in rows.values()):
            result[name] = max(values) - min(values) if len(values) > 1 else None
    return result


def mean(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each metric; None where a row lacks it, since a mean over the rest would be another one."""
    result: dict[str, float | None] = {}
    for name in HEADS:
        values = [value for row in rows if (value := row.get(name)) is not None]
        if any(name in row for row in rows):
            result[name] = sum(values) / len(values) if len(values) == len(rows) else None
    return result


def print_reasons(found: Mapping[str, Evaluation]) -> None:
    """Print on standard error why metrics are missing and what is wrong with the scores, each once.

    Args:
        found: evaluations by protocol, or by category.
    """
    from bench.metrics.measurement import NOT_DEFINED

    said: dict[str, list[str]] = {}
    for name, evaluation in found.items():
        for problem in evaluation.problems:
            said.setdefault(f"problem: {problem}", []).append(name)
        for metric, reason in evaluation.reasons.items():
            # That a protocol lacks a metric is told where it is described.
            if reason not in evaluation.problems and not reason.endswith(NOT_DEFINED.format("")):
                said.setdefault(f"no {HEADS[metric]}: {reason}", []).append(name)
    for text, names in said.items():
        click.echo(f"{text} ({', '.join(names)})", err=True)
