"""The paper's tables from records: rows, columns, what is missing, and in every format."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable
from typing import Any

import pytest
from latex_engine import Latex
from trial_records import record

from bench.errors import BenchError
from bench.report.tables.formats import FORMATS, render, render_all
from bench.report.tables.model import Cell, Row, Table
from bench.report.tables.paper import LAYOUTS, build_layout
from bench.report.tables.paper_cells import CATEGORIES

Records = list[dict[str, Any]]
MVTEC, AITEX = CATEGORIES["mvtec"], CATEGORIES["aitex"]
STEPS = ("promptad[ccl=off,cmi=off,nor=off]", "promptad[abn=off,ccl=off,cmi=off]", "promptad[ccl=off,cmi=off]")
TWO_COLUMNS = (  # the text width of a page at this conference
    "\\documentclass[10pt,twocolumn,letterpaper]{article}"
    "\\usepackage[textwidth=6.875in,textheight=8.875in,columnsep=0.3125in]{geometry}"
)


def trained(methods: Iterable[str], categories: Iterable[str], seeds: int = 2, **facts: Any) -> Records:
    """Records of methods that learn: the later in the list the better, ten shots better than one."""
    return [
        record(method, c, shots, seed, 0.6 + i / 20 + shots / 1000 + j / 300 + seed / 500, **facts)
        for i, method in enumerate(methods)
        for j, c in enumerate(categories)
        for shots in (1, 10)
        for seed in range(seeds)
    ]


def untrained(methods: Iterable[str], categories: Iterable[str], **facts: Any) -> Records:
    return [
        record(m, c, None, None, 0.5 + i / 25 + j / 300, **facts)
        for i, m in enumerate(methods)
        for j, c in enumerate(categories)
    ]


def table1_records(**facts: Any) -> Records:
    records = []
    for dataset, categories in (("aitex", AITEX), ("mvtec", MVTEC)):
        records += trained(("promptad", "dra", "mlep", "devnet"), categories, dataset=dataset, **facts)
        records += untrained(["clip"], categories, dataset=dataset, **facts)
    return records


def table2_records() -> Records:
    learned = trained(("dra", "promptad"), MVTEC, dataset="mvtec")
    return learned + untrained(("winclip", "maskclip", "transmm"), MVTEC, dataset="mvtec")


def table3_records() -> Records:
    records = []
    for k in (2, 4, 8):
        for source in ("", ",k_source=test_good"):
            facts: dict[str, Any] = {"protocol": f"loo[k={k}{source}]", "dataset": "mvtec"}
            records += trained(("dra[ref_source=target]", "regad"), MVTEC, zero_shot=False, **facts)
            records += trained(["promptad"], MVTEC, **facts)
            for method, title in (("clip[few_shot=both]", "CLIP few-shot"), ("winclip[few_shot=on]", "WinCLIP+")):
                records += [
                    record(method, c, None, seed, 0.7 + seed / 99, title=title, zero_shot=False, **facts)
                    for c in MVTEC
                    for seed in (0, 1)
                ]
    return records


def table4_records() -> Records:
    return trained((*STEPS, "promptad[cmi=off]", "promptad"), MVTEC, dataset="mvtec")


def cross_records() -> Records:
    """VisA learned from MVTec AD, and the other way round; CLIP and WinCLIP learn nothing."""
    records = []
    for i, (target, source, categories) in enumerate(
        (("mvtec", "visa", MVTEC), ("visa", "mvtec", ("candle", "pcb1")))
    ):
        facts: dict[str, Any] = {
            "dataset": target,
            "protocol": "auxiliary",
            "source": {"label": source, "title": source},
        }
        records += untrained(["clip", "winclip"], categories, **facts)
        records += [
            record("promptad", c, None, seed, 0.7 + i / 50 + j / 300 + seed / 500, **facts)
            for j, c in enumerate(categories)
            for seed in range(2)
        ]
    return records


RECORDS = {
    "table1": table1_records,
    "table2": table2_records,
    "table3": table3_records,
    "table4": table4_records,
    "cross": cross_records,
}


def one(name: str, records: Records, **style: Any) -> Table:
    (table,) = build_layout(name, records, **style)
    return table


def row(table: Table, head: str, section: str = "") -> Row:
    (found,) = [row for row in table.rows if row.head == head and section in ("", row.section)]
    return found


def cells(table: Table, head: str, group: str = "1-shot", section: str = "") -> dict[str, Cell]:
    pairs = zip(table.columns, row(table, head, section).cells, strict=True)
    return {column.head: cell for column, cell in pairs if column.group == group}


# ---------------------------------------------------------------- Table 1


def test_table_1_has_the_papers_rows_and_columns() -> None:
    table = one("table1", table1_records())
    heads = ["CLIP", "DevNet", "mlep", "dra", "PromptAD"]
    assert [(c.group, c.head) for c in table.columns] == [(g, h) for g in ("1-shot", "10-shot") for h in heads]
    assert [row.head for row in table.rows] == [*MVTEC, "Average", "AITEX"]
    assert [row.section for row in table.rows] == ["Mvtec"] * 16 + [""]
    assert [row.average for row in table.rows] == [False] * 15 + [True, True]
    assert table.heading.startswith("Mvtec and AITEX: image AUROC (protocol loo, metric protocol exact")
    assert any(note.text == f"AITEX: average over its categories {', '.join(AITEX)}." for note in table.notes)


def test_table_1_aitex_is_the_average_over_its_fabrics() -> None:
    records = table1_records()
    values = [
        r["metrics"]["exact"]["values"]["image_auroc"]
        for r in records
        if (r["trial"]["dataset"]["name"], r["trial"]["method"]["label"], r["trial"]["shots"])
        == ("aitex", "dra", 10)
    ]
    found = cells(one("table1", records), "AITEX", "10-shot")["dra"]
    assert found.mean == pytest.approx(statistics.fmean(values))
    assert (found.covered, found.categories) == (7, 7)


def test_table_1_shows_what_is_missing() -> None:
    records = trained(["promptad"], ["bottle", "screw"], dataset="mvtec")
    records = [r for r in records if r["trial"]["shots"] == 1]
    table = one("table1", records)
    assert [row.head for row in table.rows] == [*MVTEC, "Average"]
    assert [c.head for c in table.columns][:5] == ["CLIP", "DevNet", "MLEP", "DRA", "PromptAD"]
    found = {cell.status for row in table.rows for cell in row.cells if cell.mean is None}
    assert found == {"missing"}
    average = cells(table, "Average")["PromptAD"]
    assert (average.mean, average.covered, average.categories) == (pytest.approx(0.6037, abs=1e-4), 2, 15)
    assert average.rank is None
    assert any("PromptAD at 1-shot 2 of 15" in note.text for note in table.notes)
    assert not table.has_best  # nothing to compare with
    text = render(table, "terminal", width=200)
    assert text.count("missing") > 100
    assert "0.000" not in text


def test_table_1_of_another_dataset_has_its_rows_and_of_others_after_the_paper() -> None:
    records = trained(["promptad"], ["mesh", "wood"], note="smoke") + untrained(
        ["clip", "winclip"], ["mesh", "wood"]
    )
    table = one("table1", records)
    assert [row.head for row in table.rows] == ["mesh", "wood", "Average"]
    assert {row.section for row in table.rows} == {""}
    assert [c.head for c in table.columns][:6] == ["CLIP", "DevNet", "MLEP", "DRA", "PromptAD", "winclip"]
    both = one("table1", [*records, *table1_records()])
    assert list(dict.fromkeys(row.section for row in both.rows)) == ["Mvtec", "Pocket", ""]


def test_variants_are_columns_of_their_own_under_one_name_everywhere() -> None:
    mvtec = trained(("promptad", "promptad[iters=9]"), MVTEC, dataset="mvtec")
    table = one("table1", mvtec + trained(["promptad[iters=9]"], AITEX, dataset="aitex"))
    aitex = cells(table, "AITEX")
    assert aitex["PromptAD"].status == "missing"
    assert aitex["PromptAD[iters=9]"].mean is not None


def test_why_an_average_is_incomplete_is_told_where_no_row_tells_it() -> None:
    records = table1_records()
    for r in records:
        if (r["trial"]["dataset"]["name"], r["trial"]["category"]) == ("aitex", "05"):
            r |= {"status": "skipped", "reason": "it has no anomalous test image", "metrics": {}}
    table = one("table1", records)
    notes = [note.text for note in table.notes]
    assert "Left out of averages: 05 (skipped: it has no anomalous test image)." in notes
    assert any("have a value: AITEX 6 of 7; not compared" in note for note in notes)
    records = [r for r in records if r["trial"]["category"] in ("bottle", "00", "05")]
    notes = [note.text for note in one("table1", records).notes]
    assert any("have a value: Average 1 of 15, AITEX 1 of 7; not compared" in note for note in notes)


def test_readings_of_aitex_are_rows_of_their_own() -> None:
    transfer = {
        "dataset": "aitex[classes=one]",
        "protocol": "transfer",
        "source": {"label": "mvtec", "title": "MVTec AD"},
    }
    records = table1_records() + trained(["promptad"], ["AITEX"], **transfer)
    table = one("table1", records)
    assert [row.head for row in table.rows[-2:]] == [
        "AITEX (loo)",
        "AITEX[classes=one] (transfer from MVTec AD)",
    ]
    assert cells(table, table.rows[-1].head)["PromptAD"].categories == 1


# ---------------------------------------------------------------- Tables 2 to 4


def test_table_2_is_methods_by_metrics() -> None:
    table = one("table2", table2_records())
    assert [row.head for row in table.rows] == ["transmm", "maskclip", "dra", "winclip", "PromptAD"]
    metrics = ["pixel AUROC", "AUPRO@0.3", "pixel F1-max"]
    assert [(c.group, c.head) for c in table.columns] == [(g, h) for g in ("1-shot", "10-shot") for h in metrics]
    assert table.stub == ("Method",)
    places = [cell.address for cell in row(table, "dra").cells]
    assert [place.metric for place in places if place] == ["pixel_auroc", "aupro", "pixel_f1max"] * 2
    best = [[row.head for row in table.rows if row.cells[i].rank == 1] for i in range(6)]
    assert best == [["PromptAD"]] * 6  # down the columns


def test_table_2_tests_averages_down_its_columns() -> None:
    records = trained(("dra", "promptad"), MVTEC, dataset="mvtec")
    close = [r for r in records if r["trial"]["method"]["name"] == "dra"]
    for number, r in enumerate(close):
        values = r["metrics"]["exact"]["values"]
        values |= {metric: value + 0.05 + (-1) ** (number // 4) * 0.01 for metric, value in values.items()}
    table = one("table2", records)
    assert table.best == "tested"
    assert {row.head for row in table.rows if row.cells[0].best} == {"dra", "PromptAD"}
    assert "of its column" in table.best_note
    assert "Category rows" not in table.best_note


def test_table_3_is_numbers_of_normals_by_methods() -> None:
    table = one("table3", table3_records())
    assert [(row.section, row.head) for row in table.rows] == [
        (f"K from the {part} part", k) for part in ("training", "test") for k in ("8", "4", "2")
    ]
    groups = ("1 labelled anomaly", "10 labelled anomalies")
    heads = ["CLIP few-shot", "regad", "dra", "PromptAD", "WinCLIP+"]
    assert [(c.group, c.head) for c in table.columns] == [(g, h) for g in groups for h in heads]
    assert {c.mark for c in table.columns} == {""}  # a note says it of all of them
    assert any("no number is zero-shot" in note.text for note in table.notes)
    same = "CLIP few-shot, WinCLIP+: no labelled anomalies, so the same in every column group."
    assert same in [note.text for note in table.notes]
    assert "loo with K normal images of the target" in table.heading
    place = row(table, "2", "K from the test part").cells[3].address
    assert place is not None and place.protocol == "loo[k=2,k_source=test_good]"


def test_table_3_shows_numbers_that_were_not_run() -> None:
    records = [r for r in table3_records() if r["trial"]["protocol"]["label"] == "loo[k=4]"]
    table = one("table3", records)
    assert [row.head for row in table.rows] == ["8", "4", "2"]
    assert {cell.status for cell in row(table, "8").cells} == {"missing"}
    assert {cell.address.protocol for cell in row(table, "8").cells if cell.address} == {"loo[k=8]"}
    assert {cell.status for cell in row(table, "4").cells} == {"ok"}


def test_table_4_is_components_by_shots() -> None:
    table = one("table4", table4_records())
    assert table.stub == ("ABN", "NOR", "CCL", "CMI")
    assert [row.head for row in table.rows] == [
        "ABN",
        "NOR",
        "ABN + NOR",
        "ABN + NOR + CCL",
        "ABN + NOR + CCL + CMI",
    ]
    assert [row.stub.count("✓") for row in table.rows] == [1, 1, 2, 3, 4]
    assert [c.head for c in table.columns] == ["1-shot", "10-shot"]
    means = [row.cells[0].mean for row in table.rows]
    assert means == sorted(means, key=float)
    assert table.rows[-1].cells[0].best


def test_table_4_tells_variants_with_the_same_components_apart() -> None:
    table = one("table4", table4_records() + trained(["promptad[supervision=pixel]"], MVTEC, dataset="mvtec"))
    assert table.stub[-1] == "Variant"
    assert [row.stub[-1] for row in table.rows[-2:]] == ["PromptAD", "PromptAD[supervision=pixel]"]
    without = one("table4", [r for r in table4_records() if r["trial"]["method"]["label"] != "promptad[cmi=off]"])
    assert {cell.status for cell in row(without, "ABN + NOR + CCL").cells} == {"missing"}


# ---------------------------------------------------------------- all of them


def test_a_layout_says_what_it_needs() -> None:
    with pytest.raises(BenchError, match=r"unknown layout 'tabel1'.*Did you mean 'table1'"):
        build_layout("tabel1", table1_records())
    with pytest.raises(BenchError, match=r"table1 is made of zero-shot trials .*there is .*under loo\[k=2\]"):
        build_layout("table1", table3_records())
    with pytest.raises(BenchError, match=r"table3 is made of trials with K normal images.*--study table3"):
        build_layout("table3", table1_records())
    with pytest.raises(BenchError, match="there is promptad under oneclass"):
        build_layout("table1", [record(protocol="oneclass")])
    with pytest.raises(BenchError, match="table4 is made of zero-shot trials of promptad"):
        build_layout("table4", untrained(["clip"], MVTEC))


def test_shortened_training_is_told() -> None:
    labels = ("promptad[encoder=pocket/clip,ffn=256,iters=60]", "dra[backbone=pocket/resnet,epochs=2]")
    table = one("table1", trained(labels, ["mesh", "wood"]))
    notes = [note.text for note in table.notes]
    assert "Non-default options: PromptAD with ffn=256, iters=60; dra with epochs=2." in notes
    ablation = [f"{step[:-1]},iters=60]" for step in STEPS] + ["promptad[cmi=off,iters=60]", "promptad[iters=60]"]
    notes = [note.text for note in one("table4", trained(ablation, ["mesh", "wood"])).notes]
    assert "Non-default options: all methods with iters=60." in notes


def test_two_datasets_are_two_tables_but_in_table_1() -> None:
    records = table1_records()
    assert len(build_layout("table1", records)) == 1
    assert len(build_layout("table2", records)) == 2


def test_a_seed_that_failed_is_told() -> None:
    records = table4_records()
    records[0] |= {"status": "failed", "reason": "out of memory", "metrics": {}}
    cell = one("table4", records).rows[0].cells[0]
    assert cell.status == "partial"
    assert "1 of 2" in cell.note


# ---------------------------------------------------------------- the cross-dataset table


def test_cross_has_a_row_for_each_target_method_and_training_set() -> None:
    table = one("cross", cross_records())
    assert [column.head for column in table.columns] == ["image AUROC", "image AP", "pixel AUROC", "AUPRO@0.3"]
    assert table.stub == ("Method", "Learned from")
    assert [(row.section, *row.stub) for row in table.rows] == [
        ("Mvtec", "CLIP", "nothing"),
        ("Mvtec", "winclip", "nothing"),
        ("Mvtec", "PromptAD", "visa"),
        ("Visa", "CLIP", "nothing"),
        ("Visa", "winclip", "nothing"),
        ("Visa", "PromptAD", "mvtec"),
    ]
    average = statistics.fmean(0.7 + j / 300 + 0.001 for j in range(15))
    assert table.rows[2].cells[0].mean == pytest.approx(average)
    assert (table.rows[2].cells[0].covered, table.rows[5].cells[0].covered) == (15, 2)
    # Only numbers of one target and one training set compete: WinCLIP is the better of the two, PromptAD alone.
    assert [row.cells[0].rank for row in table.rows] == [2, 1, None] * 2


def test_cross_keeps_two_training_sets_of_one_target_apart() -> None:
    other = {"dataset": "mvtec", "protocol": "auxiliary", "source": {"label": "btad", "title": "BTAD"}}
    more = [record("promptad", c, None, seed, 0.6, **other) for c in MVTEC for seed in range(2)]
    table = one("cross", [*cross_records(), *more, *untrained(["clip"], MVTEC, **other)])
    rows = [(row.stub, round(row.cells[0].mean or 0, 2)) for row in table.rows if row.section == "Mvtec"]
    assert [stub for stub, _ in rows][2:] == [("PromptAD", "btad"), ("PromptAD", "visa")]
    assert rows[2][1] == 0.6
    assert [stub for stub, _ in rows][:2] == [("CLIP", "nothing"), ("winclip", "nothing")]


def test_cross_is_made_of_trials_that_learn_from_another_dataset() -> None:
    with pytest.raises(
        BenchError, match="cross is made of trials under protocols that learn from another dataset"
    ):
        build_layout("cross", table1_records())


@pytest.mark.parametrize("name", LAYOUTS)
def test_csv_has_a_line_per_cell_with_where_it_belongs(name: str) -> None:
    tables = build_layout(name, RECORDS[name]())
    lines = list(csv.DictReader(io.StringIO(render_all(tables, "csv"))))
    assert len(lines) == sum(len(row.cells) for table in tables for row in table.rows)
    places = {
        tuple(line[f] for f in ("dataset", "metric", "protocol", "category", "shots", "method")) for line in lines
    }
    assert len(places) == len(lines)
    assert all(line["mean"] for line in lines)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_shows_every_row_head_and_number(name: str, format: Any) -> None:
    table = one(name, RECORDS[name]())
    text = " ".join(render(table, format, width=250).split())
    for found in table.rows:
        words = [cell.mean if format == "csv" else f"{cell.mean:.3f}" for cell in found.cells]
        assert all(str(word) in text for word in words)
        if format != "csv":
            shown = [head for head in found.heads if head]
            tick = r"\checkmark" if format == "latex" else "✓"
            assert all(
                head.replace("_", r"\_" * (format in ("latex", "markdown")) or "_").replace("✓", tick) in text
                for head in shown
            )


def test_terminal_lines_of_layouts_fit() -> None:
    for name, make in RECORDS.items():
        for width in (60, 80, 120):
            lines = render(one(name, make()), "terminal", width=width).splitlines()
            assert max(map(len, lines)) <= width
            assert not any(line.endswith(" ") for line in lines)


# ---------------------------------------------------------------- LaTeX


def test_labels_and_captions_are_the_layouts(latex: Latex) -> None:
    body = "".join(render_all(build_layout(name, make()), "latex") for name, make in RECORDS.items())
    assert re.findall(r"\\label\{(.*)\}", body) == [
        "tab:table1-mvtec-aitex",
        "tab:table2-mvtec",
        "tab:table3-mvtec",
        "tab:table4-mvtec",
        "tab:cross-mvtec-visa",
    ]
    assert body.count(r"\checkmark{}") == 1 + 1 + 2 + 3 + 4


@pytest.mark.parametrize("second", [False, True])
def test_latex_of_layouts_fits_a_page_of_two_columns(second: bool, latex: Latex) -> None:
    body = "".join(
        render_all(build_layout(name, make(), second=second), "latex") for name, make in RECORDS.items()
    )
    assert latex(body, TWO_COLUMNS).stat().st_size > 10_000


def test_latex_of_layouts_without_deviations_fits_an_article(latex: Latex) -> None:
    made = (build_layout(name, make(), deviations=False, percent=True) for name, make in RECORDS.items())
    latex("".join(render_all(tables, "latex") for tables in made))


def test_latex_with_everything_missing_fits(latex: Latex) -> None:
    few = [r for make in RECORDS.values() for r in make() if r["trial"]["category"] in ("bottle", "screw", "03")]
    latex("".join(render_all(build_layout(name, few), "latex") for name in LAYOUTS), TWO_COLUMNS)
