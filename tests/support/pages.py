"""A study in a store, made of records with known numbers, and its page, read as a browser would read it."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from trial_records import record

from bench.cli.main import main
from bench.data.catalogue import Catalogue, open_catalogue
from bench.store.store import Store
from bench.tools.spec import parse_spec

NOTE = "pocket is a rendered smoke-and-regression set; its numbers say nothing about MVTec AD."
CATEGORIES = ("chip", "mesh", "wood")
SEEDS, SHOTS = (0, 1, 2), (1, 10)
PROVENANCE = {
    "bench": "0.1.0",
    "revision": "c0ffee" * 6,
    "versions": {"numpy": "2.0.0", "torch": "2.5.1"},
    "python": "3.12.1",
    "platform": "Linux x86_64",
    "device": "cpu (4 cores)",
    "finished": "2026-01-02T03:04:05+00:00",
    "peak_memory_mib": 900,
    "encoder_passes": 40,
    "traceback": None,
}


def keep(store: Store, records: Sequence[dict[str, Any]], name: str = "mine") -> None:
    """Write records as a study into a store."""
    for each in records:
        if each["status"] != "missing":
            store.write(each, None)
    labels = list(dict.fromkeys(each["trial"]["method"]["label"] for each in records))
    missing = [each for each in records if each["status"] == "missing"]
    content = {"hash": "5" * 64, "keys": [each["key"] for each in records], "methods": labels, "missing": missing}
    store.write_study(name, content)


def trial(*place: Any, seconds: float = 2.0, **options: Any) -> dict[str, Any]:
    """A record with its provenance."""
    made = record(*place, **{"note": NOTE, **options})
    if made["status"] == "missing":
        return made
    words = " ".join(str(word) for word in place[:4])
    made["provenance"] = {
        **PROVENANCE,
        "command": f"bench run {words}",
        "seconds": {"data": 0.5, "fit": seconds - 1, "score": 0.25, "metrics": 0.25, "total": seconds},
    }
    return made


def study() -> list[dict[str, Any]]:
    """CLIP without seeds, PromptAD and DevNet with three; one failed, one was skipped, one is not run."""
    records = []
    for i, category in enumerate(CATEGORIES):
        records.append(trial("clip", category, None, None, 0.9 - i / 10))
        for shots in SHOTS:
            for seed in SEEDS:
                value = 0.5 + i / 20 + seed / 100 + shots / 100
                records.append(trial("promptad[cmi=off]", category, shots, seed, value, seconds=10.0 + seed))
                status, reason = "ok", None
                if category == "mesh" and shots == 1:
                    status = ("failed", "skipped", "missing")[seed]
                    reason = ("out of memory at 3 < 4", "no anomaly to learn from", None)[seed]
                options = {"status": status, "reason": reason}
                records.append(trial("devnet", category, shots, seed, 0.7 - i / 50 - seed / 100, **options))
    return records


def pocket() -> Catalogue:
    return open_catalogue(parse_spec("pocket"), None)


def scored(
    store: Store, catalogue: Catalogue, made: dict[str, Any], image: NDArray[np.float32]
) -> tuple[str, ...]:
    """Write a record with image scores and maps of its category's test images, in the order of their ids."""
    ids = tuple(sample.id for sample in catalogue.select(made["trial"]["category"], "test"))
    maps = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 4, 4).repeat(len(ids), 0)
    store.write(made, {"image": image, "maps": maps}, ids)


def report(store: Store, path: Path, *words: str) -> Result:
    """Call ``bench report``."""
    return CliRunner().invoke(main, ["report", "--store", str(store.root), "--output", str(path), *words])


VOID = {"br", "img", "input", "meta", "wbr"}


class Node:
    """An element of a page: its tag, attributes, children and text."""

    def __init__(self, tag: str = "", attributes: dict[str, str] | None = None) -> None:
        self.tag, self.attributes = tag, attributes or {}
        self.children: list[Node | str] = []

    @property
    def text(self) -> str:
        return " ".join("".join(c if isinstance(c, str) else c.text for c in self.children).split())

    def all(self, tag: str = "", **attributes: str) -> list[Node]:
        """All elements below of that tag, in which each attribute holds the words given."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                wanted = {name.strip("_").replace("_", "-"): value for name, value in attributes.items()}
                if tag in ("", child.tag) and all(
                    name in child.attributes and set(value.split()) <= set(child.attributes[name].split())
                    for name, value in wanted.items()
                ):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def one(self, tag: str = "", **attributes: str) -> Node:
        (found,) = self.all(tag, **attributes)
        return found


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.stack = [Node()]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        node = Node(tag, {name: value or "" for name, value in attributes})
        self.stack[-1].children.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self.stack[-1].children.append(data)


def read(path: Path) -> Node:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert len(reader.stack) == 1, "every element is closed"
    return reader.stack[0]
