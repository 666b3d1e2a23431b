"""What stands in bold, with the tests behind it computed by SciPy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats
from trial_records import record

from bench.errors import BenchError
from bench.report.tables.formats import render
from bench.report.tables.table import Table, build_tables

Values = Mapping[str, Sequence[float] | float]  # method -> one value per seed, or one for a method without


def records(values: Values, category: str = "weave", shots: int = 1) -> list[dict[str, Any]]:
    found = []
    for method, own in values.items():
        if isinstance(own, float):
            found.append(record(method, category, None, None, own))
        else:
            found += [record(method, category, shots, seed, value) for seed, value in enumerate(own)]
    return found


def table(found: list[dict[str, Any]], **options: Any) -> Table:
    (made,) = build_tables(found, **options)
    return made


def best(made: Table, row: str = "weave", group: str = "1-shot") -> set[str]:
    (line,) = [line for line in made.rows if line.head == row]
    pairs = zip(made.columns, line.cells, strict=True)
    return {column.method for column, cell in pairs if cell.best and column.group == group}


def test_of_a_false_positive_rate_the_smallest_is_best() -> None:
    found = records({"a": [0.30, 0.31, 0.32], "b": [0.9, 0.91, 0.92], "c": [0.31, 0.30, 0.33]})
    for each in found:
        values = each["metrics"]["exact"]["values"]
        values["image_fpr95"] = values["image_auroc"]
    for rule in ("maximum", "tested"):
        made = table(found, metrics=["image_fpr95"], best=rule)
        assert best(made) == ({"a"} if rule == "maximum" else {"a", "c"})
        ranks = {column.method: cell.rank for column, cell in zip(made.columns, made.rows[0].cells, strict=True)}
        assert ranks == {"a": 1, "c": 2, "b": 3}
        assert best(table(found, best=rule)) == {"b"}
    assert "the smallest number" in table(found, metrics=["image_fpr95"], best="tested").best_note


def wide(values: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Method -> one value per category, two seeds that spread a little around it."""
    return [
        record(method, f"c{i:02}", 1, seed, value + (-1) ** seed / 1000)
        for method, own in values.items()
        for i, value in enumerate(own)
        for seed in (0, 1)
    ]


# ---------------------------------------------------------------- category rows: over seeds


def test_what_a_paired_test_does_not_tell_from_the_best_is_bold() -> None:
    values = {"a": [0.90, 0.93, 0.91, 0.94], "b": [0.91, 0.90, 0.92, 0.93], "c": [0.80, 0.84, 0.81, 0.83]}
    p_b, p_c = (stats.ttest_rel(values["a"], values[other]).pvalue for other in "bc")
    assert p_b > 0.05 > 2 * p_c
    made = table(records(values))
    assert made.best == "tested"
    assert best(made) == {"a", "b"}
    assert [cell.rank for cell in made.rows[0].cells] == [1, 2, 3]  # ranks stay those of the numbers


def test_seeds_are_paired() -> None:
    # Seeds differ by far more than the methods do, but one method is better with each of them.
    values = {"a": [0.51, 0.71, 0.92, 0.62], "b": [0.50, 0.69, 0.91, 0.61]}
    assert stats.ttest_ind(values["a"], values["b"]).pvalue > 0.9
    assert stats.ttest_rel(values["a"], values["b"]).pvalue < 0.05
    assert best(table(records(values))) == {"a"}


def test_several_comparisons_are_corrected() -> None:
    values = {"a": [0.90, 0.92, 0.91], "b": [0.86, 0.84, 0.86], "c": [0.855, 0.84, 0.86]}
    p_values = [stats.ttest_rel(values["a"], values[other]).pvalue for other in "bc"]
    assert all(0.025 < p < 0.05 for p in p_values)
    for other in "bc":
        assert best(table(records({"a": values["a"], other: values[other]}))) == {"a"}
    assert best(table(records(values))) == {"a", "b", "c"}


@pytest.mark.parametrize("constant", [0.885, 0.70])
def test_a_method_without_seeds_is_tested_as_a_constant(constant: float) -> None:
    own = [0.90, 0.88, 0.91, 0.87]
    expected = stats.ttest_1samp(own, constant).pvalue
    found = best(table(records({"clip": constant, "a": own})))
    assert found == ({"a", "clip"} if expected > 0.05 else {"a"})


def test_the_best_may_itself_be_the_constant() -> None:
    found = table(records({"clip": 0.9, "a": [0.91, 0.80, 0.92, 0.81], "b": [0.50, 0.52, 0.51, 0.53]}))
    assert best(found) == {"clip", "a"}


def test_two_constants_are_compared_as_they_are() -> None:
    values: Values = {"clip": 0.901, "winclip": 0.902, "a": [0.5, 0.6, 0.55]}
    assert best(table(records(values))) == {"winclip"}
    assert best(table(records({**values, "clip": 0.9021}))) == {"winclip", "clip"}


def test_equal_in_print_is_never_told_apart() -> None:
    values = {"a": [0.90004, 0.90014, 0.90024], "b": [0.90001, 0.90011, 0.90021], "c": [0.7, 0.7001, 0.7002]}
    assert stats.ttest_rel(values["a"], values["b"]).pvalue < 0.001
    assert best(table(records(values))) == {"a", "b"}


def test_methods_that_are_all_equal_are_all_bold() -> None:
    assert best(table(records({"a": [0.7, 0.7], "b": [0.7, 0.7]}))) == {"a", "b"}


def test_too_few_common_seeds_allow_no_test() -> None:
    found = records({"a": [0.90, 0.91, 0.89], "b": [0.89, 0.90, 0.90]})
    assert best(table(found)) == {"a", "b"}
    for lost in found[4:]:
        lost |= {"status": "failed", "reason": "out of memory", "metrics": {}}
    assert best(table(found)) == {"a"}


def test_column_groups_are_apart() -> None:
    found = records({"a": [0.90, 0.92], "b": [0.50, 0.51]}) + records({"a": [0.5, 0.6], "b": [0.6, 0.5]}, shots=10)
    made = table(found)
    assert best(made, group="1-shot") == {"a"}
    assert best(made, group="10-shot") == {"a", "b"}


def test_one_method_alone_is_not_the_best() -> None:
    assert not table(records({"a": [0.90, 0.92]})).has_best


# ---------------------------------------------------------------- the Average row: over categories

STEPS = np.arange(1, 10) / 1000  # nine differences, all distinct


def test_the_average_is_tested_over_categories() -> None:
    base = np.linspace(0.70, 0.95, 9)
    uneven = 3 * STEPS * [9, 1, -1, 1, -1, 1, -1, 1, -1]
    values = {"a": base, "b": base - uneven, "c": base - 0.02 - STEPS}
    p_b, p_c = (stats.wilcoxon(values["a"] - values[other]).pvalue for other in "bc")
    assert p_b > 0.05 > 2 * p_c
    made = table(wide({method: own.tolist() for method, own in values.items()}))
    assert [cell.rank for cell in made.rows[-1].cells] == [1, 2, 3]
    assert best(made, "Average") == {"a", "b"}
    # The averages of both seeds say otherwise: over seeds nothing but the best would be bold.
    assert best(table(wide({m: own.tolist() for m, own in values.items()}), best="maximum"), "Average") == {"a"}


@pytest.mark.parametrize(("categories", "bold"), [(7, {"a"}), (6, {"a"})])
def test_the_average_over_too_few_categories_is_not_tested(categories: int, bold: set[str]) -> None:
    """With six categories and two comparisons no outcome is significant; all would be bold."""
    base = np.linspace(0.70, 0.95, 9)
    values = {"a": base, "b": base - 0.01 - STEPS, "c": base - 0.02 - STEPS}
    assert 2 * stats.wilcoxon(values["a"][:6] - values["b"][:6]).pvalue > 0.05
    made = table(wide({method: own[:categories].tolist() for method, own in values.items()}))
    assert best(made, "Average") == bold


def test_a_close_average_over_too_few_categories_is_not_bold_either() -> None:
    made = table(wide({"a": [0.9, 0.8, 0.7], "b": [0.8, 0.9, 0.69]}))
    assert best(made, "Average") == {"a"}


def test_an_average_that_does_not_compete_is_not_bold() -> None:
    base = np.linspace(0.70, 0.95, 9)
    found = wide({"a": base.tolist(), "b": (base - STEPS * (-1) ** np.arange(9)).tolist()})
    assert best(table(found), "Average") == {"a", "b"}
    places = [(each["trial"]["method"]["name"], each["trial"]["category"]) for each in found]
    partial = [each for each, place in zip(found, places, strict=True) if place != ("b", "c03")]
    assert best(table(partial), "Average") == {"a"}


# ---------------------------------------------------------------- the rule, and where it is said


def test_the_default_follows_the_seeds() -> None:
    one = {"a": [0.9], "b": [0.89], "clip": 0.5}
    two = {"a": [0.9, 0.91], "b": [0.89, 0.91], "clip": 0.5}
    assert (table(records(one)).best, best(table(records(one)))) == ("maximum", {"a"})
    assert (table(records(two)).best, best(table(records(two)))) == ("tested", {"a", "b"})
    assert best(table(records(two), best="maximum")) == {"a"}
    # Where there is one seed there is no test, so that the rule that was asked for changes nothing.
    assert best(table(records(one), best="tested")) == {"a"}
    with pytest.raises(BenchError, match=r"unknown rule for the best 'maximal'.*Did you mean 'maximum'"):
        table(records(one), best="maximal")


def test_maximum_is_the_largest_as_printed() -> None:
    made = table(records({"a": [0.90004, 0.90004], "b": [0.90001, 0.90001], "c": [0.89, 0.91]}), best="maximum")
    assert best(made) == {"a", "b", "c"}
    made = table(records({"a": [0.901, 0.902], "b": [0.90, 0.90]}), best="maximum")
    assert best(made) == {"a"}


def test_every_format_marks_and_explains() -> None:
    found = records({"a": [0.90, 0.93, 0.91, 0.94], "b": [0.91, 0.90, 0.92, 0.93], "c": [0.80, 0.84, 0.81, 0.83]})
    made = table(found)
    plain = render(made, "terminal", width=120)
    weave = next(line for line in plain.splitlines() if line.startswith("weave"))
    assert weave.count("*") == 2
    assert "* not significantly different from the best of its row and column group" in plain
    assert "Bold" not in plain
    markdown, latex = render(made, "markdown"), render(made, "latex")
    assert "**0.920**" in markdown and "**0.915**" in markdown and "**0.820**" not in markdown
    assert r"\bfseries 0.915" in latex and r"\bfseries 0.820" not in latex
    for text in (markdown, latex):
        assert text.count("Bold: not significantly different from the best") == 1
    for text in (plain, markdown, latex):
        assert "paired t test over seeds" in " ".join(text.split())
    largest = table(found, best="maximum")
    assert "* best of its row and column group." in render(largest, "terminal", width=120)
    assert "significantly different" not in render(largest, "markdown") + render(largest, "latex")
    assert r"\textbf{0.915}" not in render(largest, "latex")
