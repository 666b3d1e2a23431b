from __future__ import annotations

import csv
import hashlib
import io
import re
from typing import Any

import pytest
from latex_engine import Latex
from rich.cells import cell_len
from rich.console import Console
from trial_records import record

from bench.errors import BenchError
from bench.report.tables.formats import FORMATS, print_table, render, render_all
from bench.report.tables.latex import escape as latex_escape
from bench.report.tables.table import Table, build_tables

NOTE = "pocket is a rendered smoke-and-regression set; its numbers say nothing about MVTec AD."
SPECIALS = r"\{}$&#%_~^"
ODD_NAMES = [
    "a_b",
    "50%",
    "$x$ & y",
    "#1",
    "{b}",
    "~t^h",
    "back\\slash",
    "[opt]",
    "*star",
    "Größe",
    "<a|b>",
    "模様",
]


def study(seeds: int = 3, *, broken: bool = False, **options: Any) -> Table:
    """Three methods, three categories, two numbers of shots; with ``broken`` some trials failed."""
    records = []
    for i, category in enumerate(("metal_nut", "tile", "weave")):
        records.append(record("clip", category, None, None, 0.7 + i / 100, note=NOTE))
        for method, base in (("devnet", 0.72), ("promptad", 0.88)):
            for shots in (1, 10):
                for seed in range(seeds):
                    failed = broken and method == "promptad" and (category, shots) == ("tile", 1)
                    half = broken and method == "devnet" and (category, shots, seed) == ("weave", 10, 2)
                    records.append(
                        record(
                            method,
                            category,
                            shots,
                            seed,
                            base + i / 50 + seed / 100 + shots / 1000,
                            status="failed" if failed or half else "ok",
                            reason="out of memory",
                            note=NOTE,
                        )
                    )
    (table,) = build_tables(records, **options)
    return table


def styled(table: Table, width: int = 120) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=width)
    print_table(table, console)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


# ---------------------------------------------------------------- terminal


@pytest.mark.parametrize("width", [60, 80, 100, 120])
@pytest.mark.parametrize("broken", [False, True])
def test_terminal_lines_fit(width: int, broken: bool) -> None:
    lines = render(study(broken=broken), "terminal", width=width).splitlines()
    assert max(map(cell_len, lines)) <= width
    assert not any(line.endswith(" ") for line in lines)


def test_terminal_puts_groups_side_by_side_or_below_each_other() -> None:
    wide = render(study(), "terminal", width=120)
    assert sum(line.startswith("weave") for line in wide.splitlines()) == 1
    narrow = render(study(), "terminal", width=80)
    assert sum(line.startswith("weave") for line in narrow.splitlines()) == 2
    assert [line.strip() for line in narrow.splitlines() if "shot" in line][:2] == ["1-shot", "10-shot"]


def test_terminal_aligns_numbers() -> None:
    lines = render(study(percent=True), "terminal", width=120).splitlines()
    rows = [line for line in lines if line.startswith(("metal_nut", "tile", "weave", "Average"))]
    assert len({tuple(m.start() for m in re.finditer(r"\.", row)) for row in rows}) == 1


def test_terminal_stars_the_best_in_plain_text_and_bolds_it_otherwise() -> None:
    plain = render(study(best="maximum"), "terminal", width=120)
    row = next(line for line in plain.splitlines() if line.startswith("weave"))
    assert row.count("*") == 2
    assert "* best of its row and column group." in plain
    assert "\x1b" not in plain
    rich = styled(study())
    assert "*" not in rich
    assert "\x1b[1m0.931\x1b[0m" in rich


def test_print_table_to_a_file_has_no_escape_codes() -> None:
    console = Console(file=io.StringIO(), width=80)
    print_table(study(), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert text == render(study(), "terminal", width=80)


def test_terminal_shows_what_is_missing_and_why() -> None:
    text = render(study(broken=True), "terminal", width=80)
    assert "failed[a]" in text
    assert "[a] failed (all 3 seeds): out of memory." in text
    assert re.search(r"^\[b\] mean of 2 of 3 seeds; failed \(1 of 3 seeds\): out of memory\.$", text, re.M)
    assert "0.911 ± 0.010†" in text
    assert "0.000" not in text


def test_terminal_wraps_long_names() -> None:
    label = "promptad[cmi=off,clip_layers=3+7+9]"
    records = [record("promptad", "c" * 90), record(label, "c" * 90), record("clip", "模様")]
    (table,) = build_tables(records)
    lines = render(table, "terminal", width=60).splitlines()
    assert max(map(cell_len, lines[: lines.index("Average")] if "Average" in lines else lines)) <= 60
    text = "".join(lines)
    assert "PromptAD[" in text
    assert "cmi=off]" in text
    assert sum(line.count("c" * 15) for line in lines) == 6


def test_names_bring_no_control_characters() -> None:
    (table,) = build_tables([record(category="a\x1b[31m\nb")])
    for format in FORMATS:
        if format != "csv":
            assert "\x1b" not in render(table, format)  # type: ignore[arg-type]


def test_very_narrow_terminal_is_no_error() -> None:
    assert "Average" in render(study(), "terminal", width=10)


# ---------------------------------------------------------------- Markdown


def test_markdown_is_a_table() -> None:
    from markdown_it import MarkdownIt

    text = render(study(broken=True), "markdown")
    html = MarkdownIt("commonmark").enable("table").render(text)
    rows = re.findall(r"<tr>(.*?)</tr>", html, re.S)
    assert len(rows) == 1 + 4
    assert {len(re.findall(r"<t[hd]", row)) for row in rows} == {7}
    assert '<td style="text-align:right"><strong>0.931</strong> ± 0.010</td>' in html
    assert "failed<sup>a</sup>" in html
    assert "PromptAD (10-shot)" in html
    assert "<li>" + NOTE in html


def test_markdown_escapes_names() -> None:
    from markdown_it import MarkdownIt

    records = [record(category=name) for name in [*ODD_NAMES, "_x_", "`c`", "&amp;"]]
    (table,) = build_tables(records)
    html = MarkdownIt("commonmark").enable("table").render(render(table, "markdown"))
    cells = re.findall(r"<tr>\n<td[^>]*>(.*?)</td>", html, re.S)
    escaped = [n.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for n in ODD_NAMES]
    assert sorted(cells) == sorted([*escaped, "_x_", "`c`", "&amp;amp;", "<strong>Average</strong>"])


# ---------------------------------------------------------------- CSV


def test_csv_has_a_line_per_cell_with_numbers_in_full() -> None:
    table = study(broken=True, percent=True)
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(lines) == 4 * 6
    assert ",".join(lines[0]).startswith(
        "dataset,metric,protocol,category,shots,method,mean,std,seeds,status,reason,"
    )
    for line, found in zip(lines, (c for row in table.rows for c in row.cells), strict=True):
        assert line["mean"] == ("" if found.mean is None else repr(found.mean))
        assert line["status"] == found.status
    by_place = {(line["category"], line["shots"], line["method"]): line for line in lines}
    failed = by_place["tile", "1", "promptad"]
    assert (failed["mean"], failed["std"], failed["seeds"], failed["status"]) == ("", "", "0", "failed")
    assert failed["reason"] == "failed (all 3 seeds): out of memory"
    clip = by_place["tile", "10", "clip"]
    assert (clip["mean"], clip["std"], clip["seeds"]) == ("0.71", "", "")
    assert by_place["Average", "1", "promptad"]["reason"] == "average of 2 of 3 categories"


def test_csv_of_several_tables_has_one_header() -> None:
    tables = build_tables([record(dataset="a"), record(dataset="b")], metrics=["image_auroc", "aupro"])
    lines = render_all(tables, "csv").splitlines()
    assert len(lines) == 1 + 4 * 2
    assert sum(line.startswith("dataset,") for line in lines) == 1


# ---------------------------------------------------------------- LaTeX


def test_latex_has_what_a_paper_needs() -> None:
    table = study(broken=True)
    text = render(table, "latex")
    keys = sorted({key for row in table.rows for cell in row.cells for key in cell.keys})
    digest = hashlib.sha256("\n".join(keys).encode()).hexdigest()
    assert re.match(rf"% zsad-bench \S+\n% 39 records, SHA-256 of their keys {digest}\n% needs \\usepackage", text)
    for part in (
        r"\toprule",
        r"\cmidrule(lr){2-4}\cmidrule(lr){5-7}",
        r"\multicolumn{3}{c}{10-shot}",
        r"{@{}l*{1}{S[table-format=1.3{\,{\tiny$\pm$\,--}}]}*{1}{S[table-format=1.3{\,{\tiny$\pm$\,0.010}}]}",
        r"*{1}{S[table-format=1.3{\,{\tiny$\pm$\,0.010}\textsuperscript{b}}]}",
        r"\bfseries 0.931{\mdseries\,{\tiny$\pm$\,0.010}}",
        r"0.710{\mdseries\,{\tiny$\pm$\,--}}",
        r"metal\_nut & ",
        r"{failed\textsuperscript{a}}",
        r"0.911{\mdseries\,{\tiny$\pm$\,0.010}\textsuperscript{\textdagger{}}}",
        r"\label{tab:pocket-loo-image-auroc}",
        r"\caption{Pocket: image AUROC (protocol loo, metric protocol exact at 64~px, 3~seeds).}",
        r"\par\smallskip\raggedright\footnotesize",
    ):
        assert part in text
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 1


def test_latex_labels_tell_grids_of_evaluation_apart() -> None:
    records = [record("devnet", eval_size=64), record("promptad", eval_size=256), record("clip", eval_size=128)]
    tables = build_tables(records, metrics=["image_auroc", "aupro"])
    assert re.findall(r"\\label{(.*)}", render_all(tables, "latex")) == [
        "tab:pocket-loo-image-auroc",
        "tab:pocket-loo-aupro-64-px",
        "tab:pocket-loo-aupro-256-px",
        "tab:pocket-loo-aupro-128-px",
    ]
    assert r"\label{tab:pocket-loo-aupro}" in render_all(tables[:2], "latex")


def test_latex_escape() -> None:
    assert latex_escape("a_b 50% é") == r"a\_b 50\% é"
    assert [latex_escape(c) for c in SPECIALS] == [
        r"\textbackslash{}",
        r"\{",
        r"\}",
        r"\$",
        r"\&",
        r"\#",
        r"\%",
        r"\_",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
    ]
    assert latex_escape("Čšůž Ångström ßø naïve") == "Čšůž Ångström ßø naïve"
    for rare, point in (("模", "6A21"), ("Ω", "03A9"), ("ð", "00F0"), ("\N{BUG}", "1F41B")):
        assert latex_escape(rare) == rf"\ifdefined\Umathchar {rare}\else{{[}}U+{point}{{]}}\fi{{}}"


def test_latex_aligns_percentages_of_all_lengths() -> None:
    records = [record(category="a", value=1.0), record(category="b", value=0.5)]
    (table,) = build_tables(records, percent=True)
    assert "S[table-format=3.1]" in render(table, "latex")


def test_latex_underlines_the_second_and_names_the_study() -> None:
    text = render(study(second=True, study="study mine, SHA-256 abc"), "latex")
    assert r"0.771{\llap{\underline{\phantom{0.771}}}\mdseries" in text
    assert "Underlined: second." in text
    assert re.match(r"% zsad-bench \S+; study mine, SHA-256 abc\n", text)
    assert "underline" not in render(study(), "latex")


@pytest.mark.parametrize("format", FORMATS)
def test_deviations_can_be_left_out(format: Any) -> None:
    text = render(study(deviations=False), format)
    if format != "csv":
        assert "±" not in text
        assert "pm" not in text
        assert "significantly different" in text  # the tests stay


def test_latex_compiles_and_fits_the_page(latex: Latex) -> None:
    odd = [
        record(method, category, shots=1, seed=seed, value=0.5 + seed / 10, zero_shot=method == "clip", note=NOTE)
        for category in ODD_NAMES
        for method in ("clip", "promptad", "promptad[cmi=off,clip_layers=3+7+9]")
        for seed in (0, 1)
    ]
    tables = [study(broken=True), study(1, percent=True), *build_tables(odd, metrics=["aupro"])]
    # the labels of the first two would be the same
    body = render(tables[0], "latex") + render(tables[1], "latex").replace("\\label", "% \\label")
    latex(body + render(tables[2], "latex"))


# ---------------------------------------------------------------- all formats


def test_unknown_format() -> None:
    with pytest.raises(BenchError, match=r"unknown format 'latx'.*Did you mean 'latex'"):
        render(study(), "latx")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_ends_with_a_line_break_and_tells_the_note(format: Any) -> None:
    text = render(study(), format)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    if format != "csv":
        assert "MVTec AD." in text


@pytest.mark.parametrize("format", FORMATS)
def test_no_tables_is_no_error(format: Any) -> None:
    render_all([], format)
