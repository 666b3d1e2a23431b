"""``bench table`` on made-up records: layouts, several studies, formats, and the trials behind a number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from trial_records import record

import bench
from bench.cli.main import main
from bench.errors import BenchError
from bench.store.store import Store


def call(store: Store, *words: str) -> Result:
    return CliRunner().invoke(main, ["table", "--store", str(store.root), *words])


def refused(store: Store, *words: str) -> str:
    result = call(store, *words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr


def remember(
    store: Store, name: str, records: list[dict[str, Any]], *, layout: str = "", planned: int = 0
) -> None:
    """Write records as a study's; the last ``planned`` are planned only."""
    done = records[: len(records) - planned]
    for each in done:
        each["provenance"] = {"command": f"bench run --categories {each['trial']['category']}"}
        store.write(each, None)
    missing = [{**each, "status": "missing", "metrics": {}} for each in records[len(done) :]]
    content = {
        "name": name,
        "hash": f"hash-of-{name}",
        "keys": [each["key"] for each in records],
        "methods": list(dict.fromkeys(each["trial"]["method"]["label"] for each in records)),
        "layout": layout,
        "missing": missing,
    }
    store.write_study(name, content)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two studies: promptad on two datasets; the later one is of layout table1 and lacks one trial."""
    kept = Store(tmp_path / "store")
    aitex = [record("promptad", c, 1, 0, 0.8, dataset="aitex") for c in ("00", "01")]
    remember(kept, "on-aitex", aitex)
    pocket = [record("promptad", c, 1, 0, 0.9) for c in ("mesh", "weave", "wood")]
    remember(kept, "on-pocket", pocket, layout="table1", planned=1)
    return kept


def test_a_studys_own_layout_is_the_default(store: Store) -> None:
    own = call(store, "--study", "on-pocket").stdout
    assert "DevNet" in own and "10-shot" in own
    assert own == call(store, "--study", "on-pocket", "--layout", "table1").stdout
    plain = call(store, "--study", "on-pocket", "--layout", "plain").stdout
    assert "DevNet" not in plain
    assert "pixel AUROC" in plain
    assert call(store, "--study", "on-pocket", "--metrics", "aupro").stdout.startswith("Pocket: AUPRO@0.3")
    assert "DevNet" not in call(store, "--study", "on-aitex").stdout


def test_several_studies_make_one_table(store: Store) -> None:
    both = ("--study", "on-pocket", "--study", "on-aitex", "--layout", "table1")
    text = call(store, *both).stdout
    assert text.startswith("Pocket and AITEX: image AUROC")
    (aitex,) = [line for line in text.splitlines() if line.startswith("AITEX") and "0.800" in line]
    assert "0.800†" in aitex  # two of seven fabrics
    latex = call(store, *both, "--format", "latex").stdout
    first = latex.splitlines()[0]
    assert "study on-pocket, SHA-256 of its trials hash-of-on-pocket; study on-aitex, SHA-256" in first


def test_planned_trials_are_missing_cells(store: Store) -> None:
    lines = call(store, "--study", "on-pocket", "--format", "csv").stdout.splitlines()
    (wood,) = [line for line in lines if ",wood,1,promptad," in line]
    assert ",missing,no record," in wood


def test_mistakes_are_told(store: Store) -> None:
    assert "Did you mean 'table2'" in refused(store, "--layout", "tabel2")
    assert "has metrics of its own" in refused(store, "--layout", "table1", "--metrics", "aupro")
    assert "Did you mean 'on-aitex'" in refused(store, "--study", "on-pocket", "--study", "onaitex")
    assert "table3 is made of" in refused(store, "--layout", "table3")


def test_why_tells_the_trials_of_a_number(store: Store) -> None:
    text = call(store, "--study", "on-pocket", "--why", "promptad/1-shot/weave").stdout
    assert "image AUROC: 0.900" in text
    assert "bench run --categories weave" in text
    assert str(store.root / "records") in text
    assert "Did you mean 'weave'" in refused(store, "--study", "on-pocket", "--why", "promptad/1-shot/waeve")


def test_why_reaches_numbers_that_the_layout_does_not_show(store: Store) -> None:
    assert "weave" not in call(store, "--study", "on-pocket", "--layout", "table2").stdout
    text = call(store, "--study", "on-pocket", "--layout", "table2", "--why", "promptad/weave/aupro").stdout
    assert "AUPRO@0.3: 0.900 (exact at 64 px)" in text


def test_html_is_the_pages(store: Store) -> None:
    assert "bench report --images 0" in refused(store, "--study", "on-pocket", "--format", "html")


# ---------------------------------------------------------------- the same from Python


def test_results_are_a_data_frame(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bench.results("on-pocket", store=store.root)
    assert data[["category", "status"]].values.tolist() == [["mesh", "ok"], ["weave", "ok"], ["wood", "missing"]]
    assert data["image_auroc"].isna().tolist() == [False, False, True]
    assert len(bench.results(store=store.root)) == 4  # whatever study they are of
    monkeypatch.setenv("BENCH_STORE", str(store.root))
    assert len(bench.results()) == 4
    with pytest.raises(BenchError, match="Did you mean 'on-pocket'"):
        bench.results("on-poket")
    with pytest.raises(BenchError, match="there is no store in"):
        bench.results(store=store.root / "nowhere")
