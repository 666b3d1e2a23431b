"""``bench check`` and ``bench pin``: exit codes, files, and what stands in them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner, Result
from studies import keep, write_splits
from trial_records import record

from bench.cli.main import main
from bench.store.store import Store

Call = Callable[..., Result]
CATEGORIES = ("bolt", "cloth", "plate")


def study(offset: float = 0.0, **options: Any) -> list[dict[str, Any]]:
    records = [record("clip", category, None, None, 0.7, **options) for category in CATEGORIES]
    return records + [
        record("promptad", c, 1, seed, 0.6 + offset, **options) for c in CATEGORIES for seed in (0, 1)
    ]


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, list(words))

    return run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results" / "runs")


def test_pin_then_check(call: Call, store: Store, tmp_path: Path) -> None:
    keep(store, study())
    result = call("pin", "--dry-run")
    assert result.exit_code == 0 and result.stdout.count("\n+") == 8
    assert not (tmp_path / "results/pinned").exists()
    assert call("pin").exit_code == 0
    assert (tmp_path / "results/pinned/mine.json").is_file()
    assert call("pin").stdout == ""  # nothing changes
    result = call("check")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "pinned: clip: 24 reproduced",
        "pinned: promptad: 56 reproduced",
        "note: no paper reports such numbers on pocket",
        "passed: 80 reproduced",
    ]


def test_some_metrics_alone_are_pinned(call: Call, store: Store) -> None:
    keep(store, study())
    assert call("pin", "--metrics", "image_auroc,aupro").exit_code == 0
    result = call("check")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "passed: 20 reproduced"
    assert "(exact): not pinned, so not compared (bench pin)" in result.stdout
    assert call("pin", "--metrics", "image_aurok").exit_code == 2


def test_a_drift_fails_and_pin_shows_it(call: Call, store: Store) -> None:
    keep(store, study())
    call("pin")
    keep(store, study(-0.08))
    result = call("check", "--metrics", "image_auroc")
    assert result.exit_code == 1
    assert "1 of 10 fail:" in result.stdout
    line = next(line for line in result.stdout.splitlines() if line.startswith("  worse"))
    assert line.startswith(
        "  worse: pinned: promptad, pocket, all trials: image_auroc: 0.6000 expected 0.5200 measured"
    )
    assert result.stdout.splitlines()[-1] == "failed: 9 reproduced, 1 worse"
    result = call("pin")
    line = next(line for line in result.stdout.splitlines() if line.startswith("~ promptad, pocket, bolt, 1-shot"))
    assert "aupro 0.600000 -> 0.520000" in line
    assert call("check").exit_code == 0


def test_a_change_of_the_last_digits_fails_only_if_asked_for(call: Call, store: Store) -> None:
    keep(store, study())
    call("pin")
    keep(store, study(1e-4))
    assert call("check").exit_code == 0
    assert call("check", "--exact").exit_code == 1


def test_without_anything_to_compare_with_the_exit_code_says_so(call: Call, store: Store) -> None:
    keep(store, study())
    result = call("check")
    assert result.exit_code == 3
    assert result.stdout.splitlines()[-1] == "nothing was compared"
    assert "no pinned numbers in results/pinned/mine.json (bench pin makes them)" in result.stdout
    result = call("check", "--against", "pinned")
    assert result.exit_code == 2
    assert "make them: bench pin --study mine" in result.stderr
    assert call("check", "--against", "reported").exit_code == 3


def test_papers(call: Call, store: Store) -> None:
    records = [record("promptad", "wood", 1, 0, 0.991, dataset="mvtec", encoder="openai/ViT-B-16")]
    records += [record("devnet", "wood", 1, 0, 0.9, dataset="mvtec", adapted="pooled")]
    write_splits(keep(store, records), records)
    words = ("check", "--against", "reported", "--papers", "PromptAD-WACV2024", "--metrics", "image_auroc")
    result = call(*words)
    assert result.exit_code == 0, result.output
    assert "PromptAD-WACV2024, Table 1: promptad: 1 reproduced, 1 not comparable" in result.stdout
    assert "PromptAD-WACV2024, Table 1: devnet: 2 not comparable" in result.stdout
    assert "  not comparable: adapted: pooled (2)" in result.stdout
    records = [record("promptad", "wood", 1, 0, 0.95, dataset="mvtec", encoder="openai/ViT-B-16")]
    write_splits(keep(store, records), records)
    assert call(*words).exit_code == 1
    assert call(*words, "--margin", "0.05").exit_code == 0
    assert (
        "unknown paper 'PromptAD-WACV2042'. Did you mean 'PromptAD-WACV2024'?"
        in call("check", "--papers", "PromptAD-WACV2042").stderr
    )


def test_junit_and_markdown_and_json(call: Call, store: Store, tmp_path: Path) -> None:
    keep(store, study())
    call("pin")
    keep(store, study(-0.2))
    summary = tmp_path / "summary.md"
    summary.write_text("# before\n")
    result = call("check", "--junit", "check.xml", "--markdown", "summary.md", "--json")
    assert result.exit_code == 1

    content = json.loads(result.stdout)
    assert content["exit_code"] == 1
    failed = [each for each in content["results"] if each["fails"]]
    # Less of a false positive rate is better.
    assert {each["verdict"] for each in failed if each["metric"] != "image_fpr95"} == {"worse"}
    assert {each["verdict"] for each in failed if each["metric"] == "image_fpr95"} == {"better"}
    assert len(failed) == 6 * 8 + 8
    assert failed[0]["expected"] == 0.6 and failed[0]["measured"] == 0.4

    root = ElementTree.parse(tmp_path / "check.xml").getroot()
    suites = {suite.get("name"): suite for suite in root}
    assert suites.keys() == {"pinned: clip", "pinned: promptad"}
    assert (suites["pinned: clip"].get("tests"), suites["pinned: clip"].get("failures")) == ("24", "0")
    assert (suites["pinned: promptad"].get("tests"), suites["pinned: promptad"].get("failures")) == ("56", "56")
    case = suites["pinned: promptad"][0]
    assert case.get("name") == "promptad, pocket, bolt, 1-shot, seed 0: aupro"
    assert "worse: expected 0.6, measured 0.4" in (case[0].get("message") or "")
    names = [case.get("name") for suite in root for case in suite]
    assert len(set(names)) == len(names)

    text = summary.read_text()
    assert text.startswith("# before\n### bench check: mine\n\nfailed: 24 reproduced, 7 better, 49 worse\n")
    assert "| pinned | `promptad` | 7 better, 49 worse |" in text
    assert (
        "| **worse** | pinned: promptad, pocket, bolt, 1-shot, seed 0: aupro | 0.6000 | 0.4000 | -0.2000 |" in text
    )


def test_a_number_that_was_not_compared_is_skipped_in_junit_never_passed(
    call: Call, store: Store, tmp_path: Path
) -> None:
    keep(store, [record("devnet", "wood", 1, 0, 0.9, dataset="mvtec", adapted="pooled")])
    result = call("check", "--papers", "PromptAD-WACV2024", "--junit", "check.xml")
    assert result.exit_code == 3
    (suite,) = ElementTree.parse(tmp_path / "check.xml").getroot()
    assert (suite.get("tests"), suite.get("skipped"), suite.get("failures")) == ("2", "2", "0")
    assert all(case[0].tag == "skipped" for case in suite)


def test_names_with_signs_do_not_break_the_files(call: Call, store: Store, tmp_path: Path) -> None:
    name = "b|o<l>&t\x07"
    keep(store, [record("promptad", name, 1, 0, 0.5)])
    call("pin")
    keep(store, [record("promptad", name, 1, 0, 0.9)])
    assert call("check", "--junit", "check.xml", "--markdown", "summary.md").exit_code == 1
    ElementTree.parse(tmp_path / "check.xml")
    assert "b\\|o<l>" in (tmp_path / "summary.md").read_text()


def test_the_job_in_the_readme_does_what_it_says(call: Call, tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    block = text.partition("whole GitHub Actions job is")[2].partition("```yaml\n")[2].partition("```")[0]
    assert len(block.splitlines()) == 10
    steps = yaml.safe_load(block)["jobs"]["numbers"]["steps"]
    commands = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("bench ")]
    assert [command[1] for command in commands] == ["run", "check"]
    run, check = ([word.replace("$GITHUB_STEP_SUMMARY", "summary.md") for word in words[1:]] for words in commands)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/mine.yaml").write_text("methods: [clip]\ndatasets: [pocket]\ncategories: [wood]\n")
    assert call(*run, "--workers", "0").exit_code == 0
    assert call(*check).exit_code == 3  # nothing is pinned yet, and that is said
    assert call("pin", "--study", "mine").exit_code == 0
    assert call(*check).exit_code == 0
    assert (tmp_path / "check.xml").is_file()
    assert (tmp_path / "summary.md").read_text().count("### bench check: mine") == 2


def test_nothing_was_run(call: Call) -> None:
    for command in ("check", "pin"):
        result = call(command)
        assert result.exit_code == 2
        assert "no study was run" in result.stderr
