from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trial_records import record

from bench.errors import BenchError
from bench.metrics.registry import TITLES
from bench.report.frame import frame
from bench.report.tables.table import Cell, Table, build_tables


def one_table(records: list[dict[str, Any]], **options: Any) -> Table:
    (table,) = build_tables(records, **options)
    return table


def cell(table: Table, row: str, method: str, group: str = "1-shot") -> Cell:
    (found,) = [
        candidate
        for line in table.rows
        if line.head == row
        for column, candidate in zip(table.columns, line.cells, strict=True)
        if (column.method, column.group) == (method, group)
    ]
    return found


def notes(table: Table) -> str:
    return "\n".join(f"{note.mark} {note.text}" for note in table.notes)


# ---------------------------------------------------------------- numbers


def test_a_cell_is_mean_and_sample_deviation_over_seeds() -> None:
    table = one_table([record(seed=seed, value=value) for seed, value in enumerate((0.7, 0.8, 0.75))])
    found = cell(table, "weave", "promptad")
    assert found.mean == pytest.approx(0.75)
    assert found.deviation == pytest.approx(0.05)  # with N - 1
    assert (found.status, found.seeds, found.expected) == ("ok", 3, 3)


def test_average_is_that_of_the_per_seed_averages() -> None:
    values = np.random.default_rng(0).random((4, 5))  # categories, seeds
    table = one_table(
        [record(category=f"c{c}", seed=s, value=float(values[c, s])) for c in range(4) for s in range(5)]
    )
    found = cell(table, "Average", "promptad")
    assert found.mean == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert found.deviation != pytest.approx(values.std(axis=1, ddof=1).mean())
    assert (found.status, found.covered) == ("ok", 4)
    assert table.rows[-1].average


def test_one_seed_shows_no_deviation() -> None:
    table = one_table([record(category=c, seed=4) for c in ("bolt", "weave")])
    assert [row.cells[0].deviation for row in table.rows] == [None] * 3
    assert not table.has_deviations
    assert "1 seed)" in table.heading
    assert "±" not in notes(table)


def test_untrained_method_stands_in_every_shot_group() -> None:
    records = [record("clip", shots=None, seed=None, value=0.6)]
    records += [record(shots=shots, seed=seed, value=0.9) for shots in (10, 1) for seed in (0, 1)]
    table = one_table(records)
    assert [(c.group, c.head) for c in table.columns] == [
        ("1-shot", "CLIP"),
        ("1-shot", "PromptAD"),
        ("10-shot", "CLIP"),
        ("10-shot", "PromptAD"),
    ]
    left, right = (cell(table, "weave", "clip", group) for group in ("1-shot", "10-shot"))
    assert left == right
    assert (left.mean, left.deviation, left.structural, left.status) == (0.6, None, True, "ok")
    assert cell(table, "Average", "clip").structural
    assert "CLIP: no training and no seeds" in notes(table)


def test_untrained_methods_alone_need_no_groups() -> None:
    table = one_table([record("clip", shots=None, seed=None), record("other", shots=None, seed=None, value=0.7)])
    assert [column.group for column in table.columns] == ["", ""]
    assert "no seeds)" in table.heading
    assert "k-shot" not in notes(table)


def test_untrained_but_seeded_method_has_a_deviation() -> None:
    records = [record("dice", shots=None, seed=seed, value=0.5 + seed / 10) for seed in (0, 1)]
    table = one_table([*records, *(record(shots=1, seed=seed) for seed in (0, 1))])
    assert cell(table, "weave", "dice").deviation == pytest.approx(0.0707107)
    assert not cell(table, "weave", "dice").structural


def test_order_of_records_does_not_matter() -> None:
    records = [record(m, c, s, k) for m in ("a", "b") for c in "xyz" for s in (1, 10) for k in (0, 1)]
    table = one_table(records, methods=["b", "a"])
    random.Random(0).shuffle(records)
    shuffled = one_table(records, methods=["b", "a"])
    assert [row.head for row in shuffled.rows] == ["x", "y", "z", "Average"]
    assert shuffled.columns == table.columns
    assert shuffled.digest == table.digest


# ---------------------------------------------------------------- methods and metrics by name


def test_methods_choose_and_order_by_label_or_name() -> None:
    records = [record(m) for m in ("promptad", "clip", "promptad[cmi=off]", "devnet")]
    assert [c.method for c in one_table(records).columns] == ["promptad", "clip", "promptad[cmi=off]", "devnet"]
    table = one_table(records, methods=["devnet", "promptad"])
    assert [c.method for c in table.columns] == ["devnet", "promptad"]
    variants = [record("promptad[cmi=off]"), record("promptad[ccl=off]"), record("clip")]
    table = one_table(variants, methods=["promptad", "clip"])
    assert [c.method for c in table.columns] == ["promptad[ccl=off]", "promptad[cmi=off]", "clip"]
    with pytest.raises(BenchError, match=r"'promtad'.*Did you mean 'promptad'"):
        build_tables(records, methods=["promtad"])


def test_heads_are_titles_with_the_options_that_set_them_apart() -> None:
    table = one_table([record("promptad"), record("clip")])
    assert [c.head for c in table.columns] == ["PromptAD", "CLIP"]
    table = one_table([record("promptad"), record("promptad[cmi=off]"), record("clip")])
    assert [c.head for c in table.columns] == ["PromptAD", "PromptAD[cmi=off]", "CLIP"]
    assert [c.method for c in table.columns] == ["promptad", "promptad[cmi=off]", "clip"]


@pytest.mark.parametrize(
    ("labels", "heads"),
    [
        (
            ["promptad[encoder=pocket/clip,ffn=256,iters=100]", "promptad[encoder=pocket/clip,ffn=256,iters=200]"],
            ["PromptAD[iters=100]", "PromptAD[iters=200]"],
        ),
        (
            ["promptad[ffn=256]", "promptad[cmi=off,ffn=256]", "promptad[cmi=off,ffn=256,iters=9]"],
            ["PromptAD", "PromptAD[cmi=off]", "PromptAD[cmi=off,iters=9]"],
        ),
        (["promptad[ffn=256,iters=100]", "devnet[ffn=256]"], ["PromptAD", "DevNet"]),
        (
            ["promptad[ffn=x[a=1,b=2]]", "promptad[ffn=x[a=1]]"],
            ["PromptAD[ffn=x[a=1,b=2]]", "PromptAD[ffn=x[a=1]]"],
        ),
    ],
)
def test_options_that_all_variants_share_are_not_in_the_heads(labels: list[str], heads: list[str]) -> None:
    table = one_table([record(label) for label in labels])
    assert [c.head for c in table.columns] == heads
    assert f"Encoders: pocket/clip ({', '.join(heads)})." in notes(table)


def test_variant_with_a_title_of_its_own_needs_no_options() -> None:
    probe = record("clip[encoder=pocket/clip,variant=probe]")
    probe["trial"]["method"]["title"] = "CLIP linear probe"
    table = one_table([record("clip[encoder=pocket/clip]"), probe])
    assert [c.head for c in table.columns] == ["CLIP", "CLIP linear probe"]


def test_two_methods_with_one_title_have_their_labels() -> None:
    other = record("other[iters=9]")
    other["trial"]["method"]["title"] = "PromptAD"
    same = record("another")
    same["trial"]["method"]["title"] = "PromptAD"
    table = one_table([record("promptad"), other, same])
    assert [c.head for c in table.columns] == ["promptad", "PromptAD[iters=9]", "another"]


def test_variants_of_several_versions_have_options_and_version() -> None:
    old, new = record("promptad[ffn=2,iters=9]"), record("promptad[ffn=2,iters=9]", version="2")
    table = one_table([old, new, record("promptad[ffn=2]")])
    assert [c.head for c in table.columns] == [
        "PromptAD[iters=9] (version 1)",
        "PromptAD[iters=9] (version 2)",
        "PromptAD",
    ]


def test_one_table_per_dataset_and_metric() -> None:
    tables = build_tables([record(), record(dataset="mvtec")], metrics=["image_auroc", "aupro"])
    assert [(t.title, t.metric_name) for t in tables] == [
        ("Pocket", "image AUROC"),
        ("Pocket", "AUPRO@0.3"),
        ("Mvtec", "image AUROC"),
        ("Mvtec", "AUPRO@0.3"),
    ]


def test_heading_says_what_the_numbers_are() -> None:
    table = one_table(
        [record(shots=1, seed=0), record(shots=10, seed=0), record(shots=10, seed=1)],
        metrics=["pixel_auroc"],
        percent=True,
    )
    assert table.heading == (
        "Pocket: pixel AUROC in % (protocol loo, metric protocol exact at 64 px, "
        "1 seed at 1-shot, 2 seeds at 10-shot)"
    )


def test_unknown_metric_or_metric_protocol() -> None:
    with pytest.raises(BenchError, match="Did you mean 'image_auroc'"):
        build_tables([record()], metrics=["image_auroq"])
    with pytest.raises(BenchError, match=r"unknown metric protocol 'grid200'.*exact"):
        build_tables([record()], protocol="grid200")


def test_no_records_no_tables() -> None:
    assert build_tables([]) == []


# ---------------------------------------------------------------- what is not there


def test_failed_seeds_do_not_count_and_are_explained() -> None:
    failed = [record(seed=seed, status="failed", reason="out of memory") for seed in (1, 2)]
    found = cell(one_table([record(seed=0, value=0.8), *failed]), "weave", "promptad")
    assert (found.mean, found.deviation, found.status) == (0.8, None, "partial")
    assert found.note == "mean of 1 of 3 seeds; failed (2 of 3 seeds): out of memory"
    assert len(found.keys) == 3


def test_reasons_that_differ_in_numbers_alone_are_told_once() -> None:
    reasons = ["constant image scores: all 9 equal 0.5", "constant image scores: all 9 equal 0.7", "killed"]
    records = [record(seed=i, status="failed", reason=reason) for i, reason in enumerate(reasons)]
    assert cell(one_table(records), "weave", "promptad").note == (
        "failed (2 of 3 seeds): constant image scores: all 9 equal 0.5 (and alike); failed (1 of 3 seeds): killed"
    )


def test_failed_cell_has_a_reason_and_no_number() -> None:
    table = one_table(
        [record(category="bolt", status="failed", reason="out of\n memory."), record("clip", "bolt")]
    )
    found = cell(table, "bolt", "promptad")
    assert (found.status, found.mean, found.note) == ("failed", None, "failed: out of memory")
    assert f"{found.mark} failed: out of memory." in notes(table)
    average = cell(table, "Average", "promptad")
    assert (average.status, average.mean, average.mark) == ("failed", None, found.mark)


def test_skipped_and_undefined_cells() -> None:
    table = one_table(
        [
            record("regad", status="skipped", reason="needs normal images of the target"),
            record("plain", value=None, reasons={"image_auroc": "the method gives no image scores"}),
        ]
    )
    assert cell(table, "weave", "regad").status == "skipped"
    assert cell(table, "weave", "regad").note == "skipped: needs normal images of the target"
    assert cell(table, "weave", "plain").status == "undefined"
    assert cell(table, "weave", "plain").note == "no value: the method gives no image scores"


def test_number_that_is_none_is_undefined() -> None:
    found = cell(one_table([record(value=float("nan"))]), "weave", "promptad")
    assert (found.status, found.mean) == ("undefined", None)


def test_missing_cells_and_seeds() -> None:
    table = one_table(
        [
            record("devnet", "bolt", seed=0),
            record("devnet", "bolt", seed=1),
            record("promptad", "bolt", seed=0),
            record("devnet", "weave", seed=0),
            record("devnet", "weave", seed=1),
        ]
    )
    assert cell(table, "weave", "promptad") == Cell("missing", expected=2)
    assert "missing: there is no record of such a trial." in notes(table)
    assert cell(table, "bolt", "promptad").note == "mean of 1 of 2 seeds; missing (1 of 2 seeds)"


def test_method_that_ran_at_one_number_of_shots_only() -> None:
    table = one_table([record("devnet", shots=1), record("promptad", shots=1), record("promptad", shots=10)])
    assert cell(table, "weave", "devnet", "10-shot").status == "missing"
    assert cell(table, "Average", "devnet", "10-shot").status == "missing"


def test_planned_trials_make_what_is_missing_known() -> None:
    planned = record(category="tile", seed=1, status="missing")
    table = one_table([record(seed=0), record(seed=1), planned])
    assert [row.head for row in table.rows] == ["tile", "weave", "Average"]
    assert cell(table, "tile", "promptad").status == "missing"
    assert cell(table, "Average", "promptad").covered == 1
    assert planned["key"] not in table.keys
    done = record(category="tile", seed=1)
    assert cell(one_table([done, planned]), "tile", "promptad").status == "ok"


def test_average_over_some_categories_is_marked_and_does_not_compete() -> None:
    records = [record("devnet", c, value=0.6) for c in ("bolt", "weave")]
    records += [record("promptad", "bolt", value=0.9)]
    records += [record("promptad", "weave", status="failed", reason="out of memory")]
    table = one_table(records)
    average = cell(table, "Average", "promptad")
    assert (average.mean, average.covered, average.rank, average.status) == (0.9, 1, None, "partial")
    assert cell(table, "Average", "devnet").rank == 1
    assert "† average over the categories that have a value: PromptAD at 1-shot 1 of 2" in notes(table)


def test_average_over_incomplete_seeds() -> None:
    values = {("a", 0): 0.5, ("a", 1): 0.6, ("a", 2): 0.7, ("b", 0): 0.8, ("b", 1): 0.6}
    records = [record(category=c, seed=s, value=v) for (c, s), v in values.items()]
    average = cell(one_table(records), "Average", "promptad")
    assert average.mean == pytest.approx((0.6 + 0.7) / 2)  # of what the column shows
    assert average.deviation == pytest.approx(statistics.stdev([0.65, 0.6]))
    assert (average.seeds, average.expected, average.status) == (2, 3, "partial")
    assert average.note == "seeds with a value in every averaged category: 2 of 3; the deviation is theirs"


def test_problems_are_noted_where_they_concern_the_metric() -> None:
    problems = ("saturated image scores: 5 of 9 anomalous", "constant maps: each of the 4 maps")
    records = [record(seed=0, problems=problems), record(seed=1)]
    image, pixel = build_tables(records, metrics=["image_auroc", "aupro"])
    found = cell(image, "weave", "promptad")
    assert (found.status, found.note) == ("ok", "saturated image scores (1 of 2 seeds)")
    assert cell(pixel, "weave", "promptad").note == "constant maps (1 of 2 seeds)"


def test_equal_notes_share_a_mark_and_marks_do_not_run_out() -> None:
    records = [record(category=f"c{i:02}", status="failed", reason=f"reason {i // 2}") for i in range(60)]
    table = one_table([*records, *(record("clip", f"c{i:02}") for i in range(60))])
    marks = [cell(table, f"c{i:02}", "promptad").mark for i in range(60)]
    assert marks[:5] == ["a", "a", "b", "b", "c"]
    assert marks[50:54] == ["z", "z", "aa", "aa"]


# ---------------------------------------------------------------- the best


def test_best_is_per_row_and_group_and_ties_as_printed_are_all_best() -> None:
    values = {("a", 1): 0.70004, ("b", 1): 0.70001, ("c", 1): 0.6, ("a", 10): 0.5, ("b", 10): 0.8, ("c", 10): 0.6}
    table = one_table([record(m, shots=s, value=v) for (m, s), v in values.items()])
    ranks = {(m, s): cell(table, "weave", m, f"{s}-shot").rank for m, s in values}
    assert ranks == {("a", 1): 1, ("b", 1): 1, ("c", 1): 2, ("a", 10): 3, ("b", 10): 1, ("c", 10): 2}


def test_one_method_alone_is_not_the_best() -> None:
    assert not one_table([record(shots=1), record(shots=10)]).has_best


# ---------------------------------------------------------------- what must not be mixed


@pytest.mark.parametrize(
    ("difference", "heads"),
    [
        ({"version": "2"}, ["PromptAD (version 1)", "PromptAD (version 2)"]),
        (
            {"encoder": "openai/ViT-B-16", "sha256": "a" * 64},
            ["PromptAD (pocket/clip)", "PromptAD (openai/ViT-B-16)"],
        ),
        ({"sha256": "a" * 64}, ["PromptAD (weights eeeeeeee)", "PromptAD (weights aaaaaaaa)"]),
    ],
)
def test_other_version_or_encoder_is_another_column(difference: dict[str, Any], heads: list[str]) -> None:
    table = one_table([record(value=0.5), record(value=0.7, seed=1, **difference), record("clip")])
    assert [c.head for c in table.columns] == [*heads, "CLIP"]
    assert [row.cells[0].mean for row in table.rows] == [0.5, 0.5]
    assert [row.cells[1].mean for row in table.rows] == [0.7, 0.7]


def test_other_prompt_file_is_another_column() -> None:
    records = [record(category=c, prompts="a" * 64) for c in ("bolt", "weave")]
    records += [record(category="weave", prompts="b" * 64, seed=1)]
    heads = [c.head for c in one_table(records).columns]
    assert heads == ["PromptAD (prompts aaaaaaaa)", "PromptAD (prompts bbbbbbbb)"]


def test_prompt_hash_per_category_is_one_column_until_one_changes() -> None:
    records = [record(category="bolt", prompts="a"), record(category="weave", prompts="b")]
    assert len(one_table(records).columns) == 1
    with pytest.raises(BenchError, match=r"promptad on weave.*different prompts"):
        build_tables([*records, record(category="weave", prompts="c", seed=1)])


def test_other_data_is_another_table() -> None:
    tables = build_tables([record(value=0.5), record("clip", value=0.9, fingerprint="a" * 64)])
    assert [t.title for t in tables] == ["Pocket (data ffffffff)", "Pocket (data aaaaaaaa)"]
    assert [len(t.columns) for t in tables] == [1, 1]


def test_transfer_from_another_dataset_is_another_table() -> None:
    tables = build_tables([record(), record(source={"label": "visa", "title": "VisA"})])
    assert "protocol loo from VisA" in tables[1].heading
    assert tables[0].protocol != tables[1].protocol


def test_other_split_cannot_share_a_cell() -> None:
    one, other = record(), record(manifest="b" * 64)
    with pytest.raises(BenchError, match=r"promptad on weave, 1-shot, seed 0: .*protocol\.manifest") as error:
        build_tables([one, other])
    assert one["key"][:12] in str(error.value)
    assert other["key"][:12] in str(error.value)


def test_methods_with_other_splits_side_by_side_are_noted() -> None:
    table = one_table([record("devnet"), record("promptad", manifest="b" * 64), record("clip", "bolt")])
    assert "Not the same splits: DevNet, PromptAD differ in 1 of 2 splits" in notes(table)
    assert "Not the same splits" not in notes(one_table([record("devnet"), record("promptad")]))


def test_other_grid_of_evaluation_concerns_pixel_metrics_alone() -> None:
    records = [record("devnet", eval_size=64), record("promptad", eval_size=256)]
    (image,) = build_tables(records)
    assert image.eval_size == ""
    assert [c.mean for c in image.rows[0].cells] == [0.5, 0.5]
    small, large = build_tables(records, metrics=["pixel_auroc"])
    assert (small.eval_size, large.eval_size) == ("64 px", "256 px")
    assert cell(small, "weave", "promptad").note == "missing: measured at 256 px"


def test_same_record_twice_counts_once_and_success_beats_failure() -> None:
    failed = record(status="failed", reason="killed")
    done = record(value=0.7)
    assert failed["key"] == done["key"]
    for records in ([failed, done], [done, failed], [done, done]):
        assert cell(one_table(records), "weave", "promptad").mean == 0.7


def test_broken_record_is_named() -> None:
    broken = record()
    del broken["trial"]["category"]
    with pytest.raises(BenchError, match=f"record {broken['key'][:12]} is not a trial record.*category"):
        build_tables([broken])


# ---------------------------------------------------------------- footnotes


def test_footnotes_on_dataset_methods_and_encoders() -> None:
    note = "pocket is a rendered smoke-and-regression set; its numbers say nothing about MVTec AD."
    records = [
        record("regad", zero_shot=False, note=note, encoder="timm/resnet18"),
        record("devnet", adapted="it has no reference scores", note=note, encoder="timm/resnet18"),
        record("clip", note=note),
    ]
    table = one_table(records)
    assert table.notes[0].text == note
    assert "‡ not zero-shot, but given images of the target category: regad." in notes(table)
    assert [c.mark for c in table.columns] == ["‡", "", ""]
    assert "DevNet, adapted: it has no reference scores." in notes(table)
    assert "Encoders: timm/resnet18 (regad, DevNet); pocket/clip (CLIP)." in notes(table)
    assert notes(table).count(note) == 1


# ---------------------------------------------------------------- any records at all

trials = st.lists(
    st.tuples(
        st.sampled_from(["clip", "devnet", "promptad"]),
        st.sampled_from(["bolt", "tile", "weave"]),
        st.sampled_from([1, 10]),
        st.integers(0, 2),
        st.sampled_from(["ok", "ok", "ok", "failed", "skipped", "missing"]),
        st.one_of(st.none(), st.floats(0, 1)),
    ),
    min_size=1,
    unique_by=lambda t: t[:4],
)


@settings(max_examples=150, deadline=None)
@given(trials)
def test_every_number_is_the_mean_of_what_there_is(found: list[Any]) -> None:
    records = [record(m, c, s, k, v, status=status) for m, c, s, k, status, v in found]
    for table in build_tables(records):
        total = len({c for _, c, *_ in found})
        for i, column in enumerate(table.columns):
            *categories, average = (row.cells[i] for row in table.rows)
            assert len(categories) == total
            for row, candidate in zip(table.rows, categories, strict=False):
                values = [
                    v
                    for m, c, s, _, status, v in found
                    if (m, c, s) == (column.method, row.head, column.shots) and status == "ok" and v is not None
                ]
                assert candidate.seeds == len(values)
                assert (candidate.mean is None) == (not values)
                if values:
                    assert candidate.mean == pytest.approx(statistics.fmean(values))
                    assert (candidate.status == "ok") == (candidate.seeds == candidate.expected)
                if len(values) > 1:
                    assert candidate.deviation == pytest.approx(statistics.stdev(values), abs=1e-12)
                assert candidate.status == "ok" or candidate.note or candidate.status == "missing"
            means = [c.mean for c in categories if c.mean is not None]
            assert (average.mean is None) == (not means)
            assert average.covered == len(means)
            if means:
                assert average.mean == pytest.approx(statistics.fmean(means))
                complete = len(means) == total and all(c.status == "ok" for c in categories)
                assert (average.status == "ok") == complete
        ran = {r["key"] for r in records if r["status"] != "missing"}
        assert set(table.keys) == ran


# ---------------------------------------------------------------- speed


def test_ten_thousand_records_take_no_time() -> None:
    records = [
        record(f"m{m}", f"c{c}", s, k, 0.5)
        for m in range(17)
        for c in range(15)
        for s in (1, 10)
        for k in range(20)
    ]
    start = time.process_time()
    table = one_table(records)
    assert time.process_time() - start < 2
    assert len(table.keys) == len(records) == 10_200


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys, bench.report.tables.table, bench.report.tables.formats, bench.report.frame; "
        "print([m for m in ('pandas', 'rich', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- the data frame


def test_frame_has_a_line_per_trial_and_a_column_per_metric() -> None:
    records = [
        record("clip", shots=None, seed=None, value=0.6),
        record(shots=10, seed=3, value=0.8, values={"aupro": None}),
        record(shots=10, seed=4, status="failed", reason="out of memory"),
    ]
    data = frame(records)
    assert data["label"].tolist() == ["clip", "promptad", "promptad"]
    assert data["image_auroc"].tolist()[:2] == [0.6, 0.8]
    assert data["aupro"].isna().tolist() == [False, True, True]
    assert str(data["seed"].dtype) == "Int64"
    assert data["seed"].isna().tolist() == [True, False, False]
    assert data["reason"].tolist()[2] == "out of memory"
    assert frame([]).empty
    assert set(TITLES) <= set(frame([]).columns)
