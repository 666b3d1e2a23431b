"""Pinned numbers: the file, its differences, and trials beside it."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trial_records import record

from bench.errors import BenchError
from bench.metrics.registry import TITLES
from bench.report.check.pinned import MARGIN, TOGETHER, TRAINED, UNTRAINED, compare, never_pinned
from bench.report.check.pins import Pins, difference, measured, read, write
from bench.report.check.verdicts import Check, Result

CATEGORIES = ("bolt", "cloth", "plate")
Change = Callable[[dict[str, Any]], None]


def study() -> list[dict[str, Any]]:
    """A method without training, and one with it: 2 shots, 2 seeds."""
    records = _records()
    for each in records:
        each["trial"]["method"]["config"] = {"topk": 0.1}
        each["trial"]["protocol"]["config"] = {"types": "one"}
        for block in each["metrics"].values():
            block["version"] = "1"
    return records


def _records() -> list[dict[str, Any]]:
    records = [record("clip", category, None, None, 0.6 + i / 10) for i, category in enumerate(CATEGORIES)]
    for i, category in enumerate(CATEGORIES):
        for shots in (1, 10):
            values = {**dict.fromkeys(TITLES, 0.5 + i / 10 + shots / 100), "aupro": 1 / 3}
            records += [record("promptad", category, shots, seed, values=values) for seed in (0, 1)]
    return records


def changed(change: Change, *, method: str = "promptad", count: int | None = None) -> Pins:
    """The study as it is measured after a change in the first ``count`` of a method's trials."""
    records = study()
    own = [each for each in records if each["trial"]["method"]["name"] == method]
    for each in own[:count]:
        change(each)
    return measured("mine", records)


def by(amount: float, *metrics: str) -> Change:
    def change(each: dict[str, Any]) -> None:
        values = each["metrics"]["exact"]["values"]
        for metric in metrics or TITLES:
            values[metric] += amount

    return change


PINS = measured("mine", study())


def check(now: Pins, *, exact: bool = False, metrics: tuple[str, ...] = tuple(TITLES)) -> list[Result]:
    return compare(PINS, now, metrics, exact=exact)


def failures(results: list[Result]) -> Counter[tuple[str, str]]:
    return Counter(
        (TOGETHER if each.category == TOGETHER else "trial", each.verdict) for each in results if each.fails
    )


# ------------------------------------------------------------ the file


def test_the_file_holds_what_was_measured(tmp_path: Path) -> None:
    path = tmp_path / "pins" / "mine.json"
    write(path, PINS)
    again = read(path)
    assert again == PINS
    assert again.pins.keys() == PINS.pins.keys()
    text = path.read_text()
    assert text.count('"category"') == 15  # one line per trial, with every seed's own values
    line = next(line for line in text.splitlines() if '"plate", "shots": 10, "seed": 1' in line)
    assert json.loads(line.rstrip(","))["exact"]["image_auroc"] == 0.8
    assert '"aupro": 0.333333,' in line
    content = json.loads(text)
    section = content["sections"][0]
    assert content["study"] == "mine"
    assert section["dataset"]["fingerprint"] == "f" * 64
    assert section["metrics"] == {"exact": {"eval_size": 64, "version": "1"}}
    assert section["method"].keys() == {"name", "label", "version", "config"}


def test_the_file_does_not_depend_on_the_order_of_the_records(tmp_path: Path) -> None:
    write(tmp_path / "a.json", PINS)
    write(tmp_path / "b.json", measured("mine", study()[::-1]))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_metric_without_a_value_and_a_skipped_trial_are_pinned_as_such(tmp_path: Path) -> None:
    records = [record("promptad", "bolt", 1, 0, values={"aupro": None})]
    records += [record("promptad", "cloth", 1, 0, status="skipped", reason="no anomaly")]
    now = measured("mine", records)
    write(tmp_path / "a.json", now)
    pins = read(tmp_path / "a.json")
    assert {each.verdict for each in compare(pins, now, TITLES)} == {"reproduced"}
    every = [record("promptad", category, 1, 0, 0.5) for category in ("bolt", "cloth")]
    found = compare(pins, measured("mine", every), TITLES)
    assert {(e.category, e.metric, e.verdict) for e in found if e.fails} == {
        ("bolt", "aupro", "not comparable"),
        ("cloth", "", "not comparable"),
    }


@pytest.mark.parametrize("status", ["failed", "missing"])
def test_a_study_with_gaps_is_not_pinned(tmp_path: Path, status: str) -> None:
    records = [*study(), record("promptad", "ring", 1, 0, status=status, reason="out of memory")]
    with pytest.raises(
        BenchError, match=r"study mine lacks numbers to pin: 1 of 16 trials .*promptad, pocket, ring"
    ):
        write(tmp_path / "a.json", measured("mine", records))
    assert not (tmp_path / "a.json").exists()


def test_trials_measured_in_different_ways_are_not_pinned_together(tmp_path: Path) -> None:
    def other(each: dict[str, Any]) -> None:
        each["metrics"]["exact"]["version"] = "2"

    with pytest.raises(BenchError, match=r"measured in different ways \(metrics\.exact\.version: "):
        write(tmp_path / "a.json", changed(other, count=1))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 9}', '{"format": 1, "study": "a"}'])
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BenchError, match="write it again: bench pin"):
        read(tmp_path / "a.json")


def test_the_difference_names_what_changes() -> None:
    assert difference(PINS, PINS) == []
    lines = difference(PINS, changed(by(0.01, "image_auroc"), count=1))
    assert lines == ["~ promptad, pocket, bolt, 1-shot, seed 0 (exact): image_auroc 0.510000 -> 0.520000"]
    more = measured("mine", [*study(), record("promptad", "ring", 1, 0, 0.5)])
    assert difference(PINS, more) == ["+ promptad, pocket, ring, 1-shot, seed 0"]
    assert difference(more, PINS) == ["- promptad, pocket, ring, 1-shot, seed 0"]

    def newer(each: dict[str, Any]) -> None:
        each["trial"]["method"]["version"] = "2"

    assert difference(PINS, changed(newer)) == ["~ promptad on pocket: method.version: 1 -> 2"]


# ------------------------------------------------------------ the comparison


@pytest.mark.parametrize("exact", [False, True])
def test_the_same_numbers_are_reproduced_in_any_order(exact: bool) -> None:
    results = check(measured("mine", study()[::-1]), exact=exact)
    assert {(each.verdict, each.fails) for each in results} == {("reproduced", False)}
    trials = 15 * len(TITLES)
    assert len(results) == (trials if exact else trials + len(TITLES))
    assert Check("mine", tuple(results)).exit_code == 0


def test_a_method_without_training_is_held_tightly() -> None:
    assert not failures(check(changed(by(0.9 * UNTRAINED), method="clip")))
    found = failures(check(changed(by(-1.1 * UNTRAINED), method="clip", count=1)))
    # Of a false positive rate less is better.
    assert found == {("trial", "worse"): len(TITLES) - 1, ("trial", "better"): 1}
    found = failures(check(changed(by(1.1 * UNTRAINED), method="clip", count=1)))
    assert found == {
        ("trial", "better"): len(TITLES) - 1,
        ("trial", "worse"): 1,
    }  # a drift, even if it is welcome


def test_a_single_training_may_differ_more_but_not_any_amount() -> None:
    assert not failures(check(changed(by(0.9 * TRAINED, "aupro"), count=1), metrics=("image_auroc",)))
    found = check(changed(by(-1.1 * TRAINED, "image_auroc"), count=1))
    assert failures(found)["trial", "worse"] == 1


def test_a_method_that_is_worse_throughout_fails_with_no_trial_out_of_tolerance() -> None:
    found = check(changed(by(-1.5 * MARGIN, "image_auroc")))
    assert failures(found) == {(TOGETHER, "worse"): 1}
    (together,) = (each for each in found if each.fails)
    assert together.metric == "image_auroc"
    assert together.difference == pytest.approx(-1.5 * MARGIN)
    assert "TOST of 12 paired differences within 0.05" in together.reason
    assert failures(check(changed(by(1.5 * MARGIN, "image_auroc")))) == {(TOGETHER, "better"): 1}
    assert not failures(check(changed(by(-0.5 * MARGIN, "image_auroc"))))


def test_scatter_fails_even_where_the_mean_is_right() -> None:
    def scattered(size: float) -> Pins:
        steps = iter(np.tile([size, -size], 6))
        return changed(lambda each: by(float(next(steps)), "image_auroc")(each))

    found = check(scattered(0.1))
    assert failures(found) == {(TOGETHER, "undecided"): 1}
    assert not failures(check(scattered(0.02)))


def test_a_single_trial_has_the_margin_as_its_tolerance() -> None:
    one = [record("promptad", "bolt", 1, 0, 0.5)]
    pins = measured("mine", one)
    for amount, verdict in [(0.9 * MARGIN, "reproduced"), (1.1 * MARGIN, "better"), (-1.1 * MARGIN, "worse")]:
        now = copy.deepcopy(one)
        by(amount)(now[0])
        found = compare(pins, measured("mine", now), ("image_auroc",))
        assert [(each.category, each.verdict) for each in found] == [("bolt", "reproduced"), (TOGETHER, verdict)]


def test_exact_holds_every_digit() -> None:
    found = check(changed(by(3e-6, "image_auroc"), count=1), exact=True)
    assert failures(found) == {("trial", "better"): 1}
    assert not failures(check(changed(by(3e-7, "image_auroc"), count=1), exact=True))


def test_nothing_passes_unseen() -> None:
    records = study()
    fewer = check(measured("mine", records[:-1]))
    assert [(e.verdict, e.reason) for e in fewer if e.fails] == [("missing", "pinned, but not in the study")]
    more = check(measured("mine", [*records, record("promptad", "ring", 1, 0, 0.5)]))
    assert [(e.verdict, e.reason) for e in more if e.fails] == [("missing", "not pinned yet (bench pin)")]
    for status in ("failed", "missing"):
        gone = [*records[:-1], {**records[-1], "status": status, "reason": "boom", "metrics": {}}]
        (found,) = (e for e in check(measured("mine", gone)) if e.fails)
        assert (found.verdict, found.reason) == ("missing", f"{status}: boom")

    def without(each: dict[str, Any]) -> None:
        each["metrics"]["exact"]["values"]["aupro"] = None

    (found,) = (e for e in check(changed(without, count=1)) if e.fails)
    assert (found.metric, found.verdict, found.reason) == ("aupro", "missing", "has no value any more")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("method", "version"), "2", "method.version: 1 -> 2"),
        (("method", "config", "topk"), 0.2, "method.config.topk: 0.1 -> 0.2"),
        (("method", "config"), {}, "method.config.topk: 0.1 -> none"),
        (("dataset", "fingerprint"), "0" * 64, "dataset.fingerprint: ffffffffffff… -> 000000000000…"),
        (("dataset", "version"), "2", "dataset.version: 1 -> 2"),
        (("protocol", "config", "types"), "all", "protocol.config.types: one -> all"),
        (("protocol", "manifest"), "abc", "split: "),
        (("prompts",), "abc", "prompts: none -> abc"),
        (("encoders",), {"encoder": {"name": "x", "sha256": "y"}}, "encoders.encoder.name: pocket/clip -> x"),
    ],
)
def test_another_identity_is_not_comparable(path: tuple[str, ...], value: Any, said: str) -> None:
    def change(each: dict[str, Any]) -> None:
        part = each["trial"]
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value

    found = [each for each in check(changed(change, count=1)) if each.fails]
    assert [each.verdict for each in found] == ["not comparable"]
    assert said in found[0].reason


def test_a_metric_that_is_taken_in_another_way_is_not_comparable() -> None:
    def change(each: dict[str, Any]) -> None:
        each["metrics"]["exact"]["version"] = "2"

    found = [each for each in check(changed(change)) if each.fails]
    assert {each.verdict for each in found} == {"not comparable"}
    assert found[0].reason == "metric protocol exact, since it was pinned: version: 1 -> 2"

    def more(each: dict[str, Any]) -> None:
        each["metrics"]["grid200"] = each["metrics"]["exact"]

    assert not failures(check(changed(more, count=1)))  # never pinned
    pins = changed(more)
    now = compare(pins, PINS, TITLES)
    assert {each.reason for each in now if each.fails} == {"metric protocol grid200: pinned, but not measured"}
    partly = compare(changed(more, count=1), pins, TITLES)
    assert {each.reason for each in partly if each.fails} == {"metric protocol grid200: not pinned"}


def test_metrics_and_metric_protocols_that_were_never_pinned_are_a_note() -> None:
    def more(each: dict[str, Any]) -> None:
        each["metrics"]["grid200"] = copy.deepcopy(each["metrics"]["exact"])
        each["metrics"]["exact"]["values"]["image_new"] = 0.5

    now = changed(more)
    assert not failures(check(now, metrics=(*TITLES, "image_new")))
    assert never_pinned(PINS, now) == [
        "image_new (exact): not pinned, so not compared (bench pin)",
        "metric protocol grid200: not pinned, so not compared (bench pin)",
    ]
    assert never_pinned(PINS, PINS) == []

    def some(each: dict[str, Any]) -> None:
        each["metrics"]["exact"]["values"]["image_new"] = 0.5

    # Pinned for one trial alone: the others' numbers are not passed over.
    found = compare(changed(some, count=1), changed(some), (*TITLES, "image_new"))
    assert {(each.metric, each.reason) for each in found if each.fails} == {
        ("image_new", "had no value when it was pinned")
    }


@pytest.mark.parametrize(("metric", "verdict"), [("image_auroc", "worse"), ("image_fpr95", "better")])
def test_the_registry_says_which_direction_is_better(metric: str, verdict: str) -> None:
    found = check(changed(by(-0.3, metric)))
    assert {each.verdict for each in found if each.fails} == {verdict}
    assert {each.metric for each in found if each.fails} == {metric}


def test_what_was_not_recorded_when_it_was_pinned_is_no_difference() -> None:
    """A new option at its default leaves the label as it was; if it matters, the numbers say so."""

    def change(each: dict[str, Any]) -> None:
        each["trial"]["method"]["config"]["new"] = True
        each["metrics"]["exact"]["new"] = "1"

    assert not failures(check(changed(change)))
    assert difference(PINS, changed(change)) == [
        "~ promptad on pocket: method.config.new: none -> on; metrics.exact.new: none -> 1"
    ]


def test_pins_of_another_study_are_refused() -> None:
    with pytest.raises(BenchError, match="those of study mine, not of yours"):
        compare(PINS, measured("yours", study()), TITLES)
