"""Names of categories and methods, notes and reasons, in everything that is printed, written and drawn."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import hypothesis.strategies as st
import pytest
from hostile import Hostile
from hypothesis import given
from latex_engine import compile_pdf, missing
from pages import trial
from studies import keep

from bench.report.check import junit
from bench.report.check.verdicts import Check, Result
from bench.report.tables.formats import render
from bench.report.tables.table import Table, build_tables
from bench.store.store import Store

KIND = "names in tables, pages and figures"

NAMES = [
    pytest.param("steel plate", id="a space"),
    pytest.param("  ", id="spaces"),
    pytest.param("a/b/../../c", id="slashes"),
    pytest.param("..\\..\\b", id="backslashes"),
    pytest.param("50% of #1 & $x_{i}^2$ ~{a}\\", id="LaTeX specials"),
    pytest.param("\\input{/etc/passwd}", id="LaTeX input"),
    pytest.param("\\write18{touch x}\\end{tabular}", id="LaTeX commands"),
    pytest.param("$\\frac{", id="open math"),
    pytest.param("^^5cinput", id="LaTeX hexadecimal"),
    pytest.param("]{[*%", id="brackets"),
    pytest.param("a|b||c", id="pipes"),
    pytest.param("**bold** _it_ `code` [l](http://x) # h", id="Markdown"),
    pytest.param("\\|", id="an escaped pipe"),
    pytest.param("<script>alert(1)</script>", id="script"),
    pytest.param("\"'><img src=x onerror=alert(1)>", id="attribute"),
    pytest.param("</style></td></table>&lt;&#0;", id="tags that close"),
    pytest.param("]]> <!-- {{ 7*7 }} {% raw %}", id="comment and template"),
    pytest.param("=cmd|' /C calc'!A0", id="spreadsheet formula"),
    pytest.param("@SUM(1+1)*9", id="formula with @"),
    pytest.param("-1+1", id="formula with -"),
    pytest.param("+1", id="formula with +"),
    pytest.param('a,"b";c\td', id="CSV"),
    pytest.param("a\nb\r\nc", id="line breaks"),
    pytest.param("\x1b[31mred\x07\x00\x08", id="control characters"),
    pytest.param("\u202egnp.exe", id="right to left"),
    pytest.param("螺丝 Стекло Ångström 🔩 e\u0301", id="other scripts"),
    pytest.param("%s %(x)s {0} {x!r}", id="format strings"),
    pytest.param("CON", id="Windows' device"),
    pytest.param("x" * 3000, id="3000 letters"),
]
FORMULA = tuple("=+-@\t\r")


def table(name: str) -> Table:
    """Everything that may hold a name holds it."""
    records = [
        trial("promptad", name, 1, 0, 0.5, note=name, title=name),
        trial("promptad", "mesh", 1, 0, status="failed", reason=name, title=name),
        trial("devnet", name, 1, 0, None, reasons={"image_auroc": name}, adapted=name),
        trial("devnet", "mesh", 1, 0, 0.25),
    ]
    (found,) = build_tables(records)
    return found


class Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def check_markdown(content: str) -> None:
    rows = [line for line in content.splitlines() if line.startswith("|")]
    assert len(rows) == 5  # head, rule, two categories, average
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows} == {4}, rows
    assert "<script" not in content.replace("\\<", "")


def check_csv(content: str) -> None:
    rows = list(csv.reader(io.StringIO(content)))
    assert {len(row) for row in rows} == {13}
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULA)]


def check_latex(content: str) -> None:
    assert content.count("\\begin{tabular}") == content.count("\\end{tabular}") == 1
    bare = re.sub(r"\\[\\{}$&#%_]", "", content)
    assert bare.count("{") == bare.count("}")
    assert "\\input" not in content and "\\write" not in content and "^^" not in content


def check_terminal(content: str) -> None:
    assert content.replace("\n", "").isprintable()


CHECKS = {
    "markdown": check_markdown,
    "csv": check_csv,
    "latex": check_latex,
    "terminal": check_terminal,
}


@pytest.mark.parametrize("format_", CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_tables(hostile: Hostile, name: str, format_: str) -> None:
    content = hostile.handled(lambda: render(table(name), format_))  # type: ignore[arg-type]
    content.encode()
    CHECKS[format_](content)


@given(name=st.text("\\{}$&#%_~^|<>*`[]\"'=@+-, \n\x1b\u202e螺é/x", min_size=1, max_size=20))
def test_any_name(hostile: Hostile, name: str) -> None:
    found = table(name)
    for format_, check in CHECKS.items():
        check(hostile.handled(lambda format_=format_: render(found, format_)))  # type: ignore[misc, arg-type]


def test_latex_sets_them_all(hostile: Hostile, tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    names = [param.values[0] for param in NAMES if len(str(param.values[0])) < 60]
    records = [trial("promptad", name, 1, 0, 0.5, title=str(name)[:9]) for name in names]
    body = hostile.handled(lambda: render(build_tables(records)[0], "latex"))
    assert compile_pdf(tmp_path, body).exists()


def _store(folder: Path, name: str) -> Store:
    records = []
    for category in (name, "mesh", "wood"):
        for method, value in (("promptad", 0.6), ("devnet", 0.4), ("clip", 0.5)):
            records += [
                trial(method, category, 1, seed, value + seed / 10, title=name + method) for seed in (0, 1)
            ]
    for each in records:
        each["provenance"]["command"] = each["provenance"]["device"] = name
    return keep(Store(folder / "store"), records)


@pytest.mark.parametrize("name", NAMES)
def test_pages_and_figures(hostile: Hostile, tmp_path: Path, name: str) -> None:
    store = _store(tmp_path, name).root
    hostile.command("report", "--store", store, "--images", 0, "--output", tmp_path / "page.html", exit_code=0)
    found = Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "img" not in found.tags
    assert not [attribute for attribute in found.attributes if attribute.startswith("on")]
    hostile.command("figure", "categories", "--store", store, "--output", tmp_path / "a.svg", exit_code=0)
    ElementTree.parse(tmp_path / "a.svg")  # well-formed
    if len(name) > 60 or not name.isprintable():
        hostile.command("figure", "categories", "--store", store, "--output", tmp_path / "a.png", exit_code=0)
        hostile.command("figure", "cd", "--store", store, "--output", tmp_path / "a.pdf", exit_code=0)


def test_half_a_surrogate_pair_in_a_store_is_no_text(hostile: Hostile, tmp_path: Path) -> None:
    store = _store(tmp_path, "HALF").root
    for path in store.rglob("*.json"):
        path.write_text(path.read_text().replace("HALF", "\\ud800"))
    for words in (["table"], ["table", "--format", "csv"], ["report", "--images", "0"], ["compare"]):
        hostile.command(*words, "--store", store)


@pytest.mark.parametrize("name", NAMES)
def test_results_of_a_check(hostile: Hostile, name: str) -> None:
    numbers = {"verdict": "worse", "fails": True, "expected": 0.5, "measured": 0.4, "reason": name}
    result = Result(name, name, name, name, 1, 0, "image_auroc", "exact", **numbers)  # type: ignore[arg-type]
    ElementTree.fromstring(hostile.handled(lambda: junit.render(Check(name, (result,)))))
