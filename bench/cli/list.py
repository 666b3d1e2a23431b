"""``bench list``; imports the plugins, which import no torch until they are used."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from bench.cli._options import store_option
from bench.contracts import MethodSource
from bench.errors import BenchError
from bench.metrics.registry import METRICS
from bench.tools.registry import DATASETS, ENCODERS, EXECUTORS, METHODS, PROTOCOLS

_WIDTH = 98


_SECTIONS = ("methods", "datasets", "protocols", "metrics", "encoders", "executors", "studies")


@click.command("list")
@click.argument("what", type=click.Choice([*_SECTIONS, "runs"]), required=False)
@store_option
def command(what: str | None, store: Path) -> None:
    """List names to choose from: methods, datasets, protocols, metrics, encoders, executors, studies.

    "studies" are those that can be run, "runs" those that were run in the store, the latest first, with the
    numbers of their trials.
    """
    if what == "runs":
        _print_runs(store)
        return
    for each in [what] if what else _SECTIONS:
        click.echo("\n".join(section(each)))


def _print_runs(store: Path) -> None:
    from bench.report.status import all_runs, in_words
    from bench.store.store import Store

    runs = list(all_runs(Store(store)))
    if not runs:
        raise BenchError(f"no study was run in {store} yet; start with: bench run")
    width = max(len(name) for name, _ in runs)
    for name, counts in runs:
        said = in_words(counts) if counts else "its file cannot be read; run the study again"
        click.echo(f"{name:{width}}  {said}")


def section(what: str) -> list[str]:
    """The lines of one section, its heading first."""
    own = {
        "methods": _methods,
        "datasets": _datasets,
        "protocols": _protocols,
        "metrics": _metrics,
        "studies": _studies,
    }
    lines = own[what]() if what in own else _plain(what)
    return [what, *lines, ""]


def _methods() -> Iterator[str]:
    for name in METHODS.names():
        try:
            plugin = METHODS.plugin(name)
            if isinstance(plugin, MethodSource):
                yield f"  {name}/MODEL: {plugin.description}"
                yield from _wrapped(", ".join(plugin.models()))
                continue
            traits = plugin.traits(plugin.Config())
        except BenchError as error:
            yield f"  {name}: {error}"
            continue
        kinds = [
            "trained" if traits.trained else "not trained",
            *(word for word, holds in _KINDS if holds(traits)),
        ]
        yield f"  {name:13} {traits.title}: {', '.join(kinds)}"
        yield from _wrapped(traits.source)
        if traits.adapted:
            yield from _wrapped(f"adapted: {traits.adapted}")


_KINDS = (
    ("text prompts", lambda traits: traits.text),
    ("own backbone", lambda traits: traits.backbone),
    ("needs K normals", lambda traits: traits.support),
    ("maps", lambda traits: traits.maps),
    ("NOT zero-shot", lambda traits: not traits.zero_shot),
)


def _datasets() -> Iterator[str]:
    for name in DATASETS.names():
        try:
            traits = DATASETS.load(name).traits
        except BenchError as error:
            yield f"  {name}: {error}"
            continue
        known = [
            "" if traits.needs_root else "ships with the package",
            f"{len(traits.counts)} categories" if len(traits.counts) > 1 else "",
            traits.licence,
        ]
        yield f"  {name:13} {', '.join(filter(None, (traits.title, *known)))}"
    yield ""
    yield "  bench data show NAME tells more of one: citation, page, official numbers of images"


def _protocols() -> Iterator[str]:
    for name in PROTOCOLS.names():
        try:
            traits = PROTOCOLS.load(name).traits
        except BenchError as error:
            yield f"  {name}: {error}"
            continue
        kinds = ["zero-shot" if traits.zero_shot else "NOT zero-shot"]
        if traits.needs_source:
            kinds.append("needs --train-dataset")
        yield f"  {name:13} {traits.title}: {', '.join(kinds)}"
        yield from _wrapped(f"learns from {traits.learns}; tested on {traits.tests}")
        yield from _wrapped(traits.source)


def _metrics() -> Iterator[str]:
    for name, metric in METRICS.items():
        asked = ", on request" if metric.on_request else ""
        yield f"  {name:13} {metric.title}: {metric.level}{asked}"


def _studies() -> Iterator[str]:
    from bench.study.files import shipped_studies

    for name, line in shipped_studies().items():
        yield f"  {name:13} {line}"


def _plain(what: str) -> Iterator[str]:
    registry = {"encoders": ENCODERS, "executors": EXECUTORS}[what]
    for name in registry.names():
        yield f"  {name:13} {registry.origin(name)}"


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, _WIDTH, initial_indent=" " * 16, subsequent_indent=" " * 16)
