"""``bench compare`` and ``--best`` on records with known numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scipy import stats
from trial_records import record

from bench.cli.main import main
from bench.data.catalogue import Catalogue, open_catalogue
from bench.report.statistics import compare_pairs, friedman, image_interval, summarise
from bench.store.store import Store
from bench.tools.spec import parse_spec

CATEGORIES = tuple(f"c{i}" for i in range(9))
BASE = np.linspace(0.60, 0.75, 9)
# method -> (categories, seeds)
VALUES = {
    "devnet": BASE[:, None] + np.array([0.02, 0.00, 0.01]),
    "promptad": BASE[:, None] + np.array([0.21, 0.20, 0.22]) - np.arange(9)[:, None] / 100,
}
CLIP = BASE + 0.012 * (-1.0) ** np.arange(9) + 0.01

Run = Callable[..., Result]


def study(shots: tuple[int, ...] = (1,), categories: int = 9) -> list[dict[str, Any]]:
    """CLIP without seeds, and two methods with three."""
    found = [record("clip", category, None, None, float(v)) for category, v in zip(CATEGORIES, CLIP, strict=True)]
    for method, values in VALUES.items():
        for i, seed in np.ndindex(values.shape):
            found += [record(method, CATEGORIES[i], k, int(seed), float(values[i, seed])) for k in shots]
    return [r for r in found if r["trial"]["category"] in CATEGORIES[:categories]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Keeps records as the study "mine" and calls ``bench`` on their store."""

    def call(records: list[dict[str, Any]], *words: str) -> Result:
        store = Store(tmp_path / "store")
        for each in records:
            if each["status"] != "missing" and store.record(each["key"]) != each:
                store.write(each, None)
        missing = [each for each in records if each["status"] == "missing"]
        labels = list(dict.fromkeys(each["trial"]["method"]["label"] for each in records))
        keys = [each["key"] for each in records]
        store.write_study("mine", {"keys": keys, "methods": labels, "missing": missing})
        command = words if words[:1] == ("table",) else ("compare", *words)
        return CliRunner().invoke(main, [*command, "--store", str(store.root)])

    return call


def refused(result: Result) -> str:
    """The message of a call that must end as a user's error."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_everything_is_in_print(run: Run) -> None:
    result = run(study())
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert "Pocket: image AUROC, 1-shot (protocol loo, metric protocol exact" in text
    assert "unit of the tests is the category: 9" in text
    assert "9 categories give little power" in text
    over = summarise(VALUES["promptad"].mean(axis=0).tolist())
    row = next(line for line in text.splitlines() if line.startswith("PromptAD ") and " vs " not in line)
    mean, deviation, low, high = (f"{x:.3f}" for x in (over.mean, over.deviation, over.low, over.high))
    assert row.split() == ["PromptAD", mean, deviation, low, "to", high, "3", "1.00"]
    clip = next(line for line in text.splitlines() if line.startswith("CLIP ") and " vs " not in line)
    assert clip.split()[1:5] == [f"{CLIP.mean():.3f}", "–", "–", "–"]  # noqa: RUF001 - as the tables do
    assert text.count("  holds\n") == 2
    assert text.count("  does not hold\n") == 1
    assert "Friedman χ²" in text and "the methods differ" in text
    assert max(map(len, text.splitlines())) <= 100


def test_json_has_the_numbers_of_the_statistics(run: Run) -> None:
    content = json.loads(run(study(), "--json").stdout)
    assert content["study"] == "mine"
    (found,) = content["comparisons"]
    assert (found["unit"], len(found["categories"])) == ("category", 9)
    labels = [method["method"] for method in found["methods"]]
    assert labels[0] == "promptad"
    means = {"clip": CLIP, **{method: values.mean(axis=1) for method, values in VALUES.items()}}
    matrix = np.stack([means[label] for label in labels], axis=1)
    for pair, expected in zip(found["pairs"], compare_pairs(matrix), strict=True):
        assert pair["methods"] == [labels[expected.first], labels[expected.second]]
        numbers = (expected.difference, expected.p, expected.corrected)
        assert (pair["difference"], pair["p"], pair["p_holm"]) == pytest.approx(numbers)
        assert pair["holds"] == expected.holds
    p = stats.wilcoxon((means["promptad"] - means["devnet"]).round(12)).pvalue
    assert next(x["p"] for x in found["pairs"] if set(x["methods"]) == {"promptad", "devnet"}) == p
    overall = friedman(matrix)
    assert found["friedman"]["p"] == pytest.approx(overall.p)
    assert found["friedman"]["critical_difference"] == pytest.approx(overall.critical)
    assert found["friedman"]["nemenyi"]["promptad"]["clip"] == pytest.approx(
        overall.nemenyi[0, labels.index("clip")]
    )
    assert [method["rank"] for method in found["methods"]] == pytest.approx(list(overall.ranks))
    assert found["methods"][0]["mean"] == pytest.approx(VALUES["promptad"].mean())
    assert run(study(), "--json").stdout == run(study(), "--json").stdout


def test_two_methods_are_a_pair_but_no_friedman(run: Run) -> None:
    result = run(study(), "--methods", "promptad,clip")
    assert "Holm over 1 pair\n" in result.stdout
    assert "at least 3 methods; there are 2" in result.stdout
    assert "DevNet" not in result.stdout
    (found,) = json.loads(run(study(), "--methods", "promptad,clip", "--json").stdout)["comparisons"]
    assert found["friedman"] is None
    assert found["pairs"][0]["p"] == found["pairs"][0]["p_holm"]
    assert "Did you mean 'promptad'" in refused(run(study(), "--methods", "promtad"))


@pytest.mark.parametrize(("categories", "lines"), [(6, 1), (2, 2)])
def test_too_few_categories_for_a_test_are_refused(run: Run, categories: int, lines: int) -> None:
    text = " ".join(run(study(categories=categories)).stdout.split())
    assert "3 methods need at least 7 categories" in text
    assert "signed-rank test, two-sided" not in text
    assert ("3 methods need at least 3 categories" in text) == (lines == 2)
    assert "PromptAD" in text  # the numbers are there all the same
    (found,) = json.loads(run(study(categories=categories), "--json").stdout)["comparisons"]
    assert found["pairs"] is None
    assert len(found["refused"]) == lines


def test_nothing_to_compare(run: Run) -> None:
    message = refused(run(study(), "--methods", "promptad"))
    assert "at least 2 methods with values; there is PromptAD" in message
    assert "at least 2 categories where all methods have a value; there is 1" in refused(run(study(categories=1)))
    assert "unknown metric 'image_auc'" in refused(run(study(), "--metric", "image_auc"))
    assert "one metric at a time" in refused(run(study(), "--metric", "image_auroc,aupro"))
    assert "Did you mean 'mine'" in refused(run(study(), "--study", "mein"))


def test_no_study_says_how_to_start(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["compare", "--store", str(tmp_path / "none")])
    assert "start with: bench run" in refused(result)


def test_what_is_missing_is_left_out_and_said(run: Run) -> None:
    records = study()
    lost = [r for r in records if (r["trial"]["category"], r["trial"]["method"]["name"]) == ("c4", "devnet")]
    for each in lost:
        each |= {"status": "failed", "reason": "out of memory", "metrics": {}}
    records += [record("regad", c, 1, 0, status="skipped", reason="needs normal images") for c in CATEGORIES]
    records += [record("promptad", "c9", 1, 0, status="missing")]
    text = run(records).stdout
    assert "left out: c4: no value for DevNet" in text
    assert "left out: regad: it has no value" in text
    assert "left out: c9: no value for" in text
    assert "is the category: 8" in text
    (found,) = json.loads(run(records, "--json").stdout)["comparisons"]
    assert "c4" not in found["categories"]
    kept = np.delete(VALUES["promptad"], 4, axis=0)
    assert found["methods"][0]["mean"] == pytest.approx(kept.mean())
    assert found["methods"][0]["deviation"] == pytest.approx(kept.mean(axis=0).std(ddof=1))


def test_a_seed_that_a_category_lacks_is_not_in_the_interval(run: Run) -> None:
    records = study()
    for each in records:
        trial = each["trial"]
        if (trial["category"], trial["method"]["name"], trial["seed"]) == ("c4", "promptad", 2):
            each |= {"status": "failed", "reason": "out of memory", "metrics": {}}
    (found,) = json.loads(run(records, "--json").stdout)["comparisons"]
    best = found["methods"][0]
    whole = VALUES["promptad"][:, :2].mean(axis=0)
    assert (best["method"], best["seeds"]) == ("promptad", 2)
    assert best["deviation"] == pytest.approx(whole.std(ddof=1))
    assert len(found["categories"]) == 9


def test_one_seed_has_no_t_interval(run: Run) -> None:
    records = [r for r in study() if r["trial"]["seed"] in (None, 0)]
    text = run(records).stdout
    assert "A t interval takes two seeds or more" in text
    assert " to " not in text
    (found,) = json.loads(run(records, "--json").stdout)["comparisons"]
    assert {method["interval"] for method in found["methods"]} == {None}
    assert found["pairs"] is not None  # the unit is the category, whatever the number of seeds


def test_column_groups_are_compared_apart(run: Run) -> None:
    text = run(study((1, 10))).stdout
    assert "image AUROC, 1-shot" in text and "image AUROC, 10-shot" in text
    text = run(study((1, 10)), "--shots", "10").stdout
    assert "1-shot" not in text.replace("10-shot", "")
    assert "nothing at 5 shots; there is: 1, 10" in refused(run(study((1, 10)), "--shots", "5"))
    # A group that cannot be compared does not take the others with it.
    result = run([*study(), *(record("promptad", c, 10, 0) for c in CATEGORIES)], "--methods", "promptad,devnet")
    assert result.exit_code == 0
    assert "not compared: Pocket: image AUROC, 10-shot" in result.stderr


def test_figure(run: Run, tmp_path: Path) -> None:
    for suffix in ("png", "pdf", "svg"):
        file = tmp_path / f"ranks.{suffix}"
        result = run(study(), "--figure", str(file))
        assert result.exit_code == 0, result.output
        assert file.stat().st_size > 3000
    words = (tmp_path / "ranks.svg").read_text()
    for word in ("PromptAD", "CLIP", "DevNet", "9 categories", "critical difference", "1-shot"):
        assert word in words


@pytest.mark.parametrize(
    ("words", "shots", "categories", "message"),
    [
        (("--figure", "ranks.gif"), (1,), 9, ".pdf, .svg, .png"),
        (("--figure", "ranks.png"), (1, 10), 9, "draws one comparison; choose with --study and --shots"),
        (("--figure", "ranks.png"), (1,), 2, "3 methods need at least 3 categories"),
        (("--figure", "ranks.png", "--methods", "clip,promptad"), (1,), 9, "at least 3 methods; there are 2"),
    ],
)
def test_no_figure_without_its_test(
    run: Run,
    words: tuple[str, ...],
    shots: tuple[int, ...],
    categories: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(run(study(shots, categories), *words))
    assert not list(tmp_path.glob("ranks.*"))


def test_best_is_an_option_of_the_table(run: Run) -> None:
    tested = run(study(), "table", "--format", "markdown").stdout
    largest = run(study(), "table", "--format", "markdown", "--best", "maximum").stdout
    assert "Bold: not distinguishable from the best" in tested
    assert "distinguishable" not in largest
    assert tested.count("**0.") >= largest.count("**0.") > 0


# ---------------------------------------------------------------- intervals from images


@pytest.fixture
def data(toy_root: Path) -> Catalogue:
    return open_catalogue(parse_spec("folder"), toy_root)


def scored(data: Catalogue, store: Store, seeds: int, shift: float, method: str) -> dict[str, Any]:
    """Random scores for every test image, kept in the store; returns what the interval should be made of."""
    rng = np.random.default_rng(3)
    parts, keys = [], []
    for category in data.categories:
        ids = data.in_neutral_order([sample.id for sample in data.select(category, "test")])
        labels = data.labels(ids)
        scores = (rng.normal(size=(seeds, len(ids))) + shift * labels).astype(np.float32)
        parts.append((scores, labels))
        for seed in range(seeds):
            made = record(method, category, 1, seed, 0.5, dataset="folder", fingerprint=data.fingerprint)
            store.write(made, {"image": scores[seed]}, ids)
            keys.append(made["key"])
    return {"parts": parts, "keys": keys}


def test_interval_from_images_and_seeds(data: Catalogue, toy_root: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    found = {name: scored(data, store, 2, shift, name) for name, shift in (("devnet", 0.5), ("promptad", 2.0))}
    keys = [key for each in found.values() for key in each["keys"]]
    store.write_study("mine", {"keys": keys, "methods": list(found), "missing": []})
    words = ["compare", "--store", str(store.root), "--interval", "images", "--json"]
    result = CliRunner().invoke(main, [*words, "--data-root", str(toy_root)])
    assert result.exit_code == 0, result.output
    (comparison,) = json.loads(result.stdout)["comparisons"]
    for method in comparison["methods"]:
        expected = image_interval(found[method["method"]]["parts"])
        assert method["image_interval"] == pytest.approx([expected.low, expected.high])
    text = CliRunner().invoke(main, [*words[:-1], "--data-root", f"folder={toy_root}"]).stdout
    assert "resampled test images" in text

    assert "--data-root" in refused(CliRunner().invoke(main, words))
    pixels = CliRunner().invoke(main, [*words, "--data-root", str(toy_root), "--metric", "aupro"])
    assert "not for aupro" in refused(pixels)
    (toy_root / "bolt/test/good/000.png").write_bytes((toy_root / "bolt/test/good/001.png").read_bytes())
    other = CliRunner().invoke(main, [*words, "--data-root", str(toy_root)])
    assert "not the data that were scored" in refused(other)
