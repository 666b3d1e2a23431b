"""The page of predictions: pictures with their anomaly maps, the most anomalous first."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING
from urllib.parse import quote

import jinja2
import numpy as np

import bench
from bench.errors import printable
from bench.predict.pictures import short_names
from bench.report.page.pictures import data_uri, plain, scale
from bench.tools.text import count

if TYPE_CHECKING:
    from bench.predict.predictions import Predictions

_INLINE = 24  # pictures that a notebook shows
_INLINE_SIDE = 160


def page(predictions: Predictions, stems: tuple[str, ...]) -> str:
    """The HTML page; it shows ``pictures/STEM.jpg`` beside it, and needs no network."""
    sources = [f"pictures/{quote(stem)}.jpg" for stem in stems]
    return _rendered("gallery.html", predictions, sources)


def inline(predictions: Predictions) -> str:
    """HTML for a notebook: the most anomalous pictures, inside the text."""
    shown = _order(predictions)[:_INLINE]
    sources = [""] * len(predictions)
    for index in shown:
        if predictions.maps is None:
            picture = plain(predictions.pictures[index].pixels(), _INLINE_SIDE)
        else:
            picture = predictions.overlay(index, _INLINE_SIDE)
        stream = io.BytesIO()
        picture.save(stream, "WEBP", quality=80)
        sources[index] = data_uri("webp", stream)
    return _rendered("cards.html", predictions, sources)


def _order(predictions: Predictions) -> list[int]:
    """Indices, the most anomalous first; among equals as they were given."""
    return [int(index) for index in np.argsort(-predictions.image, kind="stable")]


def _number(score: float) -> str:
    """Four digits, with zeros at the end: ``17.40``."""
    return f"{score:#.4g}".rstrip(".")


def _rendered(template: str, predictions: Predictions, sources: list[str]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.predict"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    verdicts = predictions.anomalous
    names, met = short_names(predictions.pictures), set(predictions.met)
    cards = []
    for index in _order(predictions):
        if sources[index]:
            cards.append(
                {
                    "source": sources[index],
                    "name": printable(names[index]),
                    "score": _number(predictions.image[index]),
                    "anomalous": None if verdicts is None else bool(verdicts[index]),
                    "met": predictions.names[index] in met,
                }
            )
    ends = None
    if predictions.maps is not None:
        ends = [f"{end:.3g}" for end in predictions.colour_ends]
    return environment.get_template(template).render(
        predictions=predictions,
        said=count(len(predictions), "picture"),
        threshold=None if predictions.threshold is None else _number(predictions.threshold),
        cards=cards,
        left_out=len(predictions) - len(cards),
        ends=ends,
        colours=scale(),
        unreadable=[printable(reason) for reason in (predictions.unreadable or {}).values()],
        version=bench.__version__,
    )
