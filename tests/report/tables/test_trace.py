"""From a number to its trials: addresses, what is told, and links in HTML."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import pytest
from trial_records import record

from bench.errors import BenchError
from bench.report.tables.formats import render_all
from bench.report.tables.paper import build_layout
from bench.report.tables.table import Table, build_tables
from bench.report.tables.trace import Origin, find, origin, render

LONG = "promptad[encoder=pocket/clip,iters=60]"


def records() -> dict[str, dict[str, Any]]:
    """Two methods, two categories, two numbers of shots, three seeds; and one without seeds."""
    found = [
        record(method, category, shots, seed, 0.5 + seed / 10 + shots / 100)
        for method in ("dra", LONG)
        for category in ("weave", "tile & <co>")
        for shots in (1, 10)
        for seed in range(3)
    ]
    found += [record("clip", category, None, None, 0.7) for category in ("weave", "tile & <co>")]
    for number, each in enumerate(found):
        each["provenance"] = {
            "bench": "0.1.0",
            "revision": "abc",
            "versions": {"numpy": "2.0", "torch": "2.4"},
            "python": "3.11",
            "platform": "Linux",
            "device": f"machine {number % 2}",
            "command": f"bench run --seeds {each['trial']['seed']}, # {number}",
        }
    return {each["key"]: each for each in found}


def tables(**options: Any) -> list[Table]:
    return build_tables(records().values(), metrics=["image_auroc", "aupro"], **options)


def behind(address: str) -> Origin:
    return origin(find(tables(), address), records().get)


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "address",
    ["promptad/1-shot/weave", "weave/PromptAD/1-shot", f"{LONG}/weave/1-shot/pocket", "PROMPTAD/ 1-Shot /Weave"],
)
def test_an_address_is_names_in_any_order(address: str) -> None:
    found = find(tables(), address)
    assert [(each.place.metric, each.place.category, each.place.shots) for each in found] == [
        ("image_auroc", "weave", 1),
        ("aupro", "weave", 1),
    ]
    assert {each.place.method for each in found} == {LONG}


def test_a_metric_chooses_among_numbers_of_the_same_trials() -> None:
    (found,) = find(tables(), "dra/10-shot/average/AUPRO@0.3")
    assert (found.place.metric, found.place.category) == ("aupro", "Average")
    assert len(found.cell.keys) == 6


def test_a_method_without_shots_stands_in_every_group() -> None:
    assert {each.cell.keys for each in find(tables(), "clip/weave")} == {
        find(tables(), "clip/1-shot/weave")[0].cell.keys
    }


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("dra/1-shot/waeve", r"unknown name 'waeve' in the table. Did you mean 'weave'"),
        ("dar/1-shot/weave", r"Did you mean 'dra'"),
        ("dra/weave", r"may be any of dra/1-shot/weave, dra/10-shot/weave; add what tells them apart"),
        ("weave/average", r"no number is at 'weave/average'; name a row and a column, as in dra/1-shot/"),
        ("", "no number is at ''"),
        ("1-shot", r" and \d more; add"),
    ],
)
def test_what_is_no_address_is_told_with_a_way_out(address: str, message: str) -> None:
    with pytest.raises(BenchError, match=message):
        find(tables(), address)


def test_a_label_is_meant_before_a_name_that_several_variants_share() -> None:
    made = build_tables([record("promptad"), record("promptad[cmi=off]")])
    assert find(made, "promptad/weave")[0].place.method == "promptad"
    assert find(made, "promptad[cmi=off]/weave")[0].place.method == "promptad[cmi=off]"
    variants = build_tables([record("promptad[ccl=off]"), record("promptad[cmi=off]")])
    with pytest.raises(
        BenchError, match=r"any of promptad\[ccl=off\]/1-shot/weave, promptad\[cmi=off\]/1-shot/weave"
    ):
        find(variants, "promptad/weave")


def test_rows_and_columns_of_a_layout_are_names_too() -> None:
    steps = ("promptad[ccl=off,cmi=off]", "promptad")
    made = build_layout("table4", [record(step, c) for step in steps for c in ("tile", "weave")])
    (found,) = find(made, "abn + nor/1-shot")
    assert found.place.method == steps[0]
    (missing,) = find(made, "nor/1-shot")
    assert "no trial has been run for it" in render(origin([missing], {}.get))


# ---------------------------------------------------------------- what is told


def test_trials_with_seeds_values_splits_and_commands() -> None:
    found = behind("promptad/1-shot/weave")
    assert [(trial["seed"], trial["image AUROC"], trial["ran on"]) for trial in found.trials] == [
        ("0", "0.510000", "machine 0, Linux"),
        ("1", "0.610000", "machine 1, Linux"),
        ("2", "0.710000", "machine 0, Linux"),
    ]
    known = records()
    keys = {each["key"][:12]: each for each in known.values()}
    for trial, command in zip(found.trials, found.commands, strict=True):
        itself = keys[trial["trial"]]
        assert trial["split"] == itself["trial"]["protocol"]["manifest"][:12]
        assert command == itself["provenance"]["command"]
    assert found.facts["method"] == f"{LONG}, version 1"
    assert found.facts["versions"] == "numpy 2.0, torch 2.4, Python 3.11"
    assert found.facts["encoders"] == f"pocket/clip, weights SHA-256 {'e' * 64}"
    assert found.facts["data"].endswith("f" * 64)
    assert "ran on" not in found.facts  # not the same for all
    assert found.numbers[0] == "image AUROC: 0.610 ± 0.100 (exact at 64 px)"


def test_an_average_lists_the_trials_of_all_categories() -> None:
    found = behind("dra/1-shot/average/image_auroc")
    assert Counter(trial["category"] for trial in found.trials) == {"weave": 3, "tile & <co>": 3}
    assert "average over 2 of 2 categories" in found.numbers[0]


def test_a_failed_trial_is_told_as_such() -> None:
    failed = record(seed=1, status="failed", reason="out of memory")
    made = [record(seed=0), failed]
    found = origin(find(build_tables(made), "promptad/weave"), {each["key"]: each for each in made}.get)
    assert [trial["image AUROC"] for trial in found.trials] == ["0.500000", "failed"]
    assert "failed (1 of 2 seeds): out of memory" in found.numbers[0]


def test_the_text_aligns_and_names_everything() -> None:
    text = render(behind("dra/10-shot/weave"))
    lines = text.splitlines()
    (head,) = [line for line in lines if line.lstrip().startswith("category")]
    first = lines[lines.index(head) + 1]
    assert first.index("0.600000") == head.index("image AUROC")
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert sum("bench run --seeds" in line for line in lines) == 3


# ---------------------------------------------------------------- HTML


class _Page(HTMLParser):
    """Collects the links, the names and the open tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.names: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.links += [given["href"] or ""] if "href" in given else []
        self.names += [given["id"] or ""] if "id" in given else []
        assert "src" not in given
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_number_in_html_leads_to_its_trials() -> None:
    page = render_all(tables(), "html", records=records().get)
    parsed = _Page(page)
    assert parsed.open == []
    assert len(parsed.names) == len(set(parsed.names)) == 2 * 6 * 3
    assert parsed.links == [f"#{name}" for name in parsed.names]
    assert "tile &amp; &lt;co&gt;" in page
    assert "<co>" not in page
    assert page.count("bench run --seeds") == 2 * (2 * 4 * 3 * 2 + 2 * 2 * 2)


def test_html_without_records_has_no_links() -> None:
    parsed = _Page(render_all(tables(), "html"))
    assert (parsed.open, parsed.links, parsed.names) == ([], [], [])


def test_html_shows_best_second_sections_and_notes() -> None:
    made = [
        record(m, c, value=v)
        for m, v in (("clip", 0.9), ("dra", 0.8), ("promptad", 0.7))
        for c in ("tile", "weave")
    ]
    page = render_all(build_tables(made, second=True), "html")
    assert page.count('class="best">0.900') == 3
    assert page.count("<u>0.800</u>") == 3
    assert re.search(r'<tr class="average"><th scope="row">Average', page)
    assert "Encoders: pocket/clip" in page
    both = build_layout("table1", [*made, record(dataset="mvtec", category="wood")])
    page = render_all(both, "html")
    assert '<th class="section" colspan="11" scope="rowgroup">Mvtec</th>' in page
    assert 'class="none">missing' in page
