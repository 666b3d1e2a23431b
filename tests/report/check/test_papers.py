"""Measured cells beside papers' numbers: what counts as the same, and what is not comparable."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import keep, write_splits
from trial_records import record

import bench.reported
from bench.datasets.mvtec import OFFICIAL
from bench.errors import BenchError
from bench.report.check.comparable import protocol_differs
from bench.report.check.papers import MARGIN, compare
from bench.report.check.verdicts import Result
from bench.reported import Reported
from bench.store.record import Record
from bench.store.store import Store

REPORTED = bench.reported.load()
PAPER = "PromptAD-WACV2024"
TABLE = {
    (row.category, row.shots): row.value
    for row in REPORTED
    if row.table == "promptad-1" and row.method == "PromptAD" and row.dataset == "mvtec"
}


def of(
    method: str, category: str, shots: int | None, seed: int | None, value: float, **options: Any
) -> dict[str, Any]:
    options = {"dataset": "mvtec", "encoder": "openai/ViT-B-16", **options}
    return record(method, category, shots, seed, value, **options)


def promptad(offset: float = 0.0, seeds: int = 4, spread: float = 0.003, **options: Any) -> list[dict[str, Any]]:
    """One shot, all categories: the paper's values, ``offset``, and noise that averages out over the seeds."""
    noise = np.random.default_rng(0).normal(0, spread, (15, seeds))
    noise -= noise.mean(axis=1, keepdims=True)
    return [
        of("promptad", category, 1, seed, TABLE[category, 1] + offset + noise[i, seed], **options)
        for i, category in enumerate(OFFICIAL)
        for seed in range(seeds)
    ]


def check(
    tmp_path: Path,
    records: list[dict[str, Any]],
    reported: list[Reported] = REPORTED,
    metrics: tuple[str, ...] = ("image_auroc",),
    papers: tuple[str, ...] | None = (PAPER,),
    **options: Any,
) -> list[Result]:
    store = keep(Store(tmp_path / "store"), records)
    known = [each for each in records if each["trial"]["category"] in OFFICIAL]
    write_splits(store, known, **options)
    return compare(records, reported, store, metrics=metrics, papers=papers)[0]


def table1(results: list[Result], method: str = "promptad") -> dict[str, Result]:
    return {r.category: r for r in results if r.against == f"{PAPER}, Table 1" and r.method == method}


def test_what_agrees_to_within_the_margin_is_reproduced(tmp_path: Path) -> None:
    found = table1(check(tmp_path, promptad(0.004)))
    assert len(found) == 16
    assert {result.verdict for result in found.values()} == {"reproduced"}
    assert not any(result.fails for result in found.values())
    assert found["wood"].difference == pytest.approx(0.004)
    assert "TOST within 0.015" in found["wood"].reason and "4 seeds, 10 runs there" in found["wood"].reason


@pytest.mark.parametrize(("offset", "verdict", "fails"), [(-0.03, "worse", True), (0.0, "reproduced", False)])
def test_every_cell_has_its_verdict(tmp_path: Path, offset: float, verdict: str, fails: bool) -> None:
    found = table1(check(tmp_path, promptad(offset)))
    assert {(found[c].verdict, found[c].fails) for c in OFFICIAL} == {(verdict, fails)}


def test_better_is_no_failure(tmp_path: Path) -> None:
    records = [of("promptad", "screw", 1, seed, 0.8 + seed / 1000) for seed in range(5)]
    found = table1(check(tmp_path, records))
    assert (found["screw"].verdict, found["screw"].fails) == ("better", False)


def test_seeds_that_scatter_too_much_show_nothing_and_fail(tmp_path: Path) -> None:
    found = table1(check(tmp_path, promptad(0.0, seeds=3, spread=0.08)))
    assert Counter(found[c].verdict for c in OFFICIAL)["undecided"] > 10
    assert all(found[c].fails for c in OFFICIAL if found[c].verdict == "undecided")
    assert "reproduced" not in {found[c].verdict for c in ("metal_nut", "screw", "pill")}


def test_one_seed_has_a_tolerance_in_place_of_a_test(tmp_path: Path) -> None:
    offsets = {"wood": 0.0, "tile": MARGIN - 0.001, "grid": MARGIN + 0.001, "pill": -MARGIN - 0.001}
    records = [of("promptad", c, 1, 0, TABLE[c, 1] + offset) for c, offset in offsets.items()]
    found = table1(check(tmp_path, records))
    verdicts = {c: found[c].verdict for c in offsets}
    assert verdicts == {"wood": "reproduced", "tile": "reproduced", "grid": "better", "pill": "worse"}
    assert found["wood"].reason == "one seed, so no test: tolerance 0.015"


def test_a_reported_deviation_is_used(tmp_path: Path) -> None:
    known = [
        dataclasses.replace(row, deviation=0.05, runs=3)
        if row.category == "pill" and row.table == "promptad-1"
        else row
        for row in REPORTED
    ]
    records = promptad(0.004)
    assert table1(check(tmp_path, records))["pill"].verdict == "reproduced"
    found = table1(check(tmp_path, records, known))["pill"]
    assert found.verdict == "undecided"
    assert "3 runs there, deviation 0.05 there" in found.reason


def test_a_missing_number_is_missing_and_fails(tmp_path: Path) -> None:
    records = promptad()
    planned = [each for each in records if each["trial"]["category"] == "zipper"]
    others = [each for each in records if each["trial"]["category"] != "zipper"]
    gone = [{**each, "status": "missing", "metrics": {}} for each in planned]
    found = table1(check(tmp_path / "a", [*others, *gone]))
    assert {(found[c].verdict, found[c].fails) for c in ("zipper", "average")} == {("missing", True)}
    assert found["wood"].verdict == "reproduced"
    failed = [{**each, "status": "failed", "reason": "out of memory", "metrics": {}} for each in planned]
    found = table1(check(tmp_path / "b", [*others, *failed]))
    assert found["zipper"].verdict == "missing" and "out of memory" in found["zipper"].reason
    found = table1(check(tmp_path / "c", [*others, *planned[1:], *gone[:1]]))
    assert found["zipper"].verdict == "missing"  # a mean over fewer seeds than planned is not what was asked for


def test_an_average_over_some_categories_is_not_the_papers(tmp_path: Path) -> None:
    records = [each for each in promptad() if each["trial"]["category"] in ("wood", "tile", "grid")]
    found = table1(check(tmp_path, records))
    assert found.keys() == {"wood", "tile", "grid", "average"}
    assert found["average"].verdict == "not comparable"
    assert found["average"].reason == "an average over 3 categories; the dataset has 15"
    only = [row for row in REPORTED if row.average or row.paper != PAPER]  # categories are known from others
    assert table1(check(tmp_path, records, only))["average"].verdict == "not comparable"


def test_an_average_that_is_off_is_compared_twice(tmp_path: Path) -> None:
    """Printed 0.908, the mean of the rows 0.9064: a number from 0.8914 to 0.893 agrees with the second only."""
    results = check(tmp_path, promptad(-0.0145, spread=0.0))
    printed = next(r for r in results if r.against == f"{PAPER}, Table 1" and r.category == "average")
    rows = next(r for r in results if r.against == f"{PAPER}, Table 1, mean of its 15 rows")
    assert (printed.expected, printed.verdict) == (0.908, "worse")
    assert rows.expected == pytest.approx(0.9064)
    assert rows.verdict == "reproduced"


def test_pocket_meets_no_paper(tmp_path: Path) -> None:
    records = [of("promptad", c, 1, 0, TABLE[c, 1], dataset="pocket") for c in ("wood", "capsule")]
    store = keep(Store(tmp_path / "store"), records)
    results, notes = compare(records, REPORTED, store)
    assert results == []
    assert notes == ["no paper reports such numbers on pocket"]


def test_an_adapted_method_is_not_the_papers(tmp_path: Path) -> None:
    found = table1(check(tmp_path, promptad(adapted="trained on the moon")))
    said = {(r.verdict, r.fails, r.reason) for r in found.values()}
    assert said == {("not comparable", False, "adapted: trained on the moon")}
    assert found["wood"].expected == 0.991 and found["wood"].measured == pytest.approx(0.991, abs=1e-9)


def test_other_options_are_another_method(tmp_path: Path) -> None:
    records = [of("promptad[iters=60]", "wood", 1, 0, 0.991), of("promptad[cmi=off]", "tile", 1, 0, 0.5)]
    results = check(tmp_path, records)
    found = table1(results, "promptad[iters=60]")
    assert found["wood"].reason == "other options: promptad[iters=60], not promptad"
    ablation = [r for r in results if r.method == "promptad[cmi=off]" and r.against.endswith("Table 4")]
    assert len(ablation) == 5  # the rows of Table 4; of those, one is this variant's
    own = [r for r in ablation if r.expected == 0.838]
    assert own[0].reason == "an average over 2 categories; the dataset has 15"
    assert all("other options" in r.reason for r in ablation if r is not own[0])


def test_protocols_must_be_the_same(tmp_path: Path) -> None:
    def changed(name: str, **config: Any) -> dict[str, Any]:
        found = of("promptad", "wood", 1, 0, 0.991)
        found["trial"]["protocol"] |= {"name": name, "label": name, "config": config}
        return found

    for each, reason in [
        (changed("transfer"), "another protocol: loo there, transfer here"),
        (changed("loo", types="all"), "another protocol: loo has non-default options"),
        (changed("loo", k=4), "another protocol: 0 normal images of the target there, 4 here"),
    ]:
        found = table1(check(tmp_path / reason[-9:], [each]))
        assert (found["wood"].verdict, found["wood"].reason) == ("not comparable", reason)


def test_a_clip_that_does_not_learn_is_not_the_one_that_does(tmp_path: Path) -> None:
    """PromptAD's CLIP changes with the number of labelled anomalies, so it was trained somehow."""
    results = check(tmp_path, [of("clip", "wood", None, None, 0.713)])
    assert {r.verdict for r in results} == {"not comparable"}
    assert {r.reason for r in results if r.category == "wood"} == {"another protocol: trained there, not here"}


def test_an_encoder_that_is_not_stated_is_not_comparable(tmp_path: Path) -> None:
    records = [of("clip", category, None, None, 0.741) for category in OFFICIAL]
    (found,) = check(tmp_path, records, papers=("AnomalyCLIP-ICLR2024",))
    assert found.reason == "which encoder was used is not stated there"


def test_a_method_without_training_meets_training_free_numbers(tmp_path: Path) -> None:
    quoted = {r.category: r.value for r in REPORTED if r.table == "winclip-quoted" and r.metric == "image_auroc"}
    options = {"encoder": "laion400m_e31/ViT-B-16-plus-240"}
    records = [of("winclip", category, None, None, quoted[category], **options) for category in OFFICIAL]
    results = check(tmp_path, records, papers=None)
    of_paper = [r for r in results if r.against.startswith("WinCLIP-CVPR2023")]
    assert len(of_paper) == 16 and {r.verdict for r in of_paper} == {"reproduced"}
    assert of_paper[0].reason == "no seeds, so no test: tolerance 0.015"
    again = [r for r in results if r.against.startswith("caoyunkang")]
    assert {r.reason for r in again} == {"taken as winclip-cy there, as exact here (bench explain-gap shows both)"}
    few = [r for r in results if r.against.startswith("zqhang") and r.verdict == "not comparable"]
    assert Counter(r.reason.partition(":")[0] for r in few) == {"another protocol": 4 * 16}


def test_pixel_metrics_need_the_same_metric_protocol(tmp_path: Path) -> None:
    records = promptad(seeds=2)
    (found,) = check(tmp_path / "a", records, metrics=("aupro",))
    assert (found.against, found.verdict) == (f"{PAPER}, Table 2", "not comparable")
    assert found.reason == "how its pixel metrics are taken is not stated there"
    known = [
        dataclasses.replace(row, metric_protocol="grid200", shots=1) for row in REPORTED if row.paper == PAPER
    ]
    (found,) = check(tmp_path / "b", records, known, metrics=("aupro",))
    assert found.reason == "taken as grid200 there, as exact here (bench explain-gap shows both)"
    for each in records:
        values = {**each["metrics"]["exact"]["values"], "aupro": 0.728}
        each["metrics"]["grid200"] = {**each["metrics"]["exact"], "values": values}
    known = [row for row in known if row.metric == "aupro"] + [
        row for row in REPORTED if row.category != "average"
    ]
    (found,) = check(tmp_path / "c", records, known, metrics=("aupro",))
    assert (found.verdict, found.measured, found.metric_protocol) == (
        "reproduced",
        pytest.approx(0.728),
        "grid200",
    )


@pytest.mark.parametrize(
    ("less", "reason"),
    [
        ({"test": -1}, "part of the dataset: 78 of 79 test images"),
        ({"normal": -1}, "part of the dataset: 3381 of 3382"),
    ],
)
def test_part_of_mvtec_is_not_mvtec(tmp_path: Path, less: dict[str, int], reason: str) -> None:
    found = table1(check(tmp_path, [of("promptad", "wood", 1, 0, 0.991)], **less))
    assert found["wood"].verdict == "not comparable"
    assert found["wood"].reason.startswith(reason)


def test_aitex_is_not_comparable(tmp_path: Path) -> None:
    results = check(tmp_path, [of("promptad", "00", 1, 0, 0.927, dataset="aitex")])
    assert [(r.category, r.verdict, r.expected) for r in results] == [("average", "not comparable", 0.927)]
    assert results[0].reason == "another protocol: how AITEX is divided into categories is not stated"


def test_what_the_study_does_not_have_is_counted(tmp_path: Path) -> None:
    records = promptad(seeds=1)
    store = keep(Store(tmp_path / "store"), records)
    write_splits(store, records)
    results, notes = compare(records, REPORTED, store, metrics=("image_auroc",), papers=(PAPER,))
    number = sum(r.paper == PAPER and r.metric == "image_auroc" and r.dataset == "mvtec" for r in REPORTED)
    referred = {(r.against, r.category, r.expected) for r in results if "mean of its" not in r.against}
    said = "not in the study: methods, shots or categories of"
    assert notes == [f"{said} {number + 1 - len(referred)} reported numbers"]


def test_a_margin_that_makes_no_sense(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="a fraction between 0 and 1"):
        compare([], REPORTED, Store(tmp_path), margin=1.5)


# ---------------------------------------------------------------- the cross-dataset protocol


def reported(**facts: Any) -> Reported:
    """An average of AnomalyCLIP's Table 1: KSDD, learned on MVTec AD."""
    rows = bench.reported.load()
    (row,) = (
        row
        for row in rows
        if (row.table, row.method, row.dataset, row.metric)
        == ("anomalyclip-1", "AnomalyCLIP", "ksdd", "image_auroc")
    )
    return dataclasses.replace(row, **facts)


@pytest.mark.parametrize(
    ("row", "protocol", "source", "reason"),
    [
        (reported(), "auxiliary", "mvtec", ""),
        (reported(), "auxiliary", "visa", "learned from mvtec there, from visa here"),
        (
            reported(trained_on="mvtec+colondb"),
            "auxiliary",
            "mvtec",
            "learned from mvtec+colondb there, from mvtec here",
        ),
        (reported(trained_on="unstated"), "auxiliary", "mvtec", "learned from unstated there, from mvtec here"),
        (reported(), "transfer", "mvtec", "another protocol: auxiliary mvtec there, transfer here"),
        (reported(shots=10), "auxiliary", "mvtec", "another protocol: transfer mvtec there, auxiliary here"),
        (reported(kind="second_hand"), "auxiliary", "mvtec", "known at second hand only"),
    ],
)
def test_a_number_is_compared_with_what_has_learned_on_the_same(
    row: Reported, protocol: str, source: str, reason: str
) -> None:
    content = record("anomalyclip", "ksdd", None, 0, 0.8, dataset="ksdd", source={"name": source, "label": source})
    config = {"k": 0, "k_source": "train_good", "types": "all", "part": "test", "anomalies": 0, "seen": "all"}
    content["trial"]["protocol"] |= {"name": protocol, "label": protocol, "config": config}
    content["trial"]["method"]["trained"] = True
    assert protocol_differs(row, Record.of(content)) == reason


def test_ksdd_of_anomalyclip_is_there_with_its_training_set() -> None:
    assert (reported().trained_on, reported().protocol, reported().shots) == ("mvtec", "transfer", None)
