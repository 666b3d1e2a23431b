"""``bench report``: what is on the page."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from pages import CATEGORIES, NOTE, PROVENANCE, Node, keep, pocket, read, report, scored, study, trial
from PIL import Image

from bench.metrics.registry import MEASURED
from bench.report.page import pictures
from bench.report.page.gallery import Gallery
from bench.report.tables import text
from bench.report.tables.model import NO_SEEDS
from bench.report.tables.table import build_tables
from bench.store.record import Record
from bench.store.store import Store

Make = Callable[..., Node]
Wood = tuple[Store, dict[str, Any], list[str]]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """The page of the study of :func:`pages.study`, without pictures."""
    folder = tmp_path_factory.mktemp("page")
    keep(Store(folder / "store"), study())
    assert report(Store(folder / "store"), folder / "page.html", "--images", "0").exit_code == 0
    return read(folder / "page.html")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Keeps records as a study and returns the page made of it."""

    def call(records: list[dict[str, Any]], *words: str) -> Node:
        keep(Store(tmp_path / "store"), records)
        result = report(Store(tmp_path / "store"), tmp_path / "page.html", "--images", "0", *words)
        assert result.exit_code == 0, result.output
        return read(tmp_path / "page.html")

    return call


def data_uris(page: Node) -> list[Image.Image]:
    sources = [image.attributes["src"].partition(",")[2] for image in page.all("img")]
    return [Image.open(io.BytesIO(base64.b64decode(source))) for source in sources]


# ---------------------------------------------------------------- the page as a whole


def test_page_needs_nothing_from_elsewhere(page: Node) -> None:
    for name in ("src", "href", "action", "poster", "srcset", "data"):
        for node in page.all("", **{name: ""}):
            assert node.attributes[name].startswith(("#", "data:")), node.attributes
    assert not page.all("link") + page.all("iframe") + page.all("object")
    assert "url(" not in page.one("style").text
    assert "@import" not in page.one("style").text
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    script = "".join(str(child) for child in page.one("script").children)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy


def test_every_link_has_its_place(page: Node) -> None:
    places = [node.attributes["id"] for node in page.all("", id="")]
    assert max(Counter(places).values()) == 1
    links = {node.attributes["href"][1:] for node in page.all("a")}
    assert links <= set(places)
    assert sum(link.startswith("trial-") for link in links) == 2  # the failed one and the skipped one


def test_same_store_same_page(wood: Wood, tmp_path: Path) -> None:
    pages = [tmp_path / name for name in ("one.html", "two.html")]
    for path in pages:
        assert report(wood[0], path).exit_code == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_page_lies_in_the_store_if_nothing_else_is_said(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from bench.cli.main import main

    store = Store(tmp_path / "store")
    keep(store, study())
    result = CliRunner().invoke(main, ["report", "--store", str(store.root), "--images", "0"])
    assert result.exit_code == 0, result.output
    page = store.root / "reports" / "mine.html"
    assert f"written: {page} (" in result.stderr
    assert read(page).one("h1").text == "mine"
    nothing = CliRunner().invoke(main, ["report", "--store", str(store.root), "--study", "mime"])
    assert "Did you mean 'mine'" in nothing.stderr


def test_everything_from_outside_is_escaped(make: Make) -> None:
    bad = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;"
    records = [
        trial("promptad", bad, 1, 0, 0.5, note=bad, problems=(bad,), eval_size=64),
        trial("promptad", "mesh", 1, 0, status="failed", reason=bad),
        trial("devnet", bad, 1, 0, None, reasons=dict.fromkeys(MEASURED, bad), adapted=bad, encoder=bad),
    ]
    for each in records:
        each["trial"]["method"]["title"] = f"{bad} {each['trial']['method']['name']}"
        each["notes"] = [bad]
        each["provenance"] |= {"command": bad, "traceback": bad, "device": bad}
    page = make(records)
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert not [node for node in page.all() if any(name.startswith("on") for name in node.attributes)]
    assert [pre.text for pre in page.all("pre")].count(bad) == 2 * len(records)
    assert bad in {node.attributes["data-category"] for node in page.all("", data_category="")}
    assert sum(bad in node.text for node in page.all("dd")) > 5


# ---------------------------------------------------------------- numbers


def test_tables_hold_the_numbers_of_bench_table(page: Node) -> None:
    records = study()
    tables = build_tables(records, metrics=tuple(MEASURED))
    panels = page.all("div", _class="panel")
    assert [panel.attributes["data-metric"] for panel in panels] == list(MEASURED)
    for panel, table in zip(panels, tables, strict=True):
        lines = [row.all("td") for row in panel.one("table", _class="results").all("tr")][2:]
        for line, row in zip(lines, table.rows, strict=True):
            for node, cell in zip(line, row.cells, strict=True):
                number, deviation = text.number(cell, table), text.deviation(cell, table)
                words = node.text.replace("(best)", "")
                assert words.startswith(f"{number} ± {deviation}" if deviation else number)
                assert words.endswith("".join(cell.marks))
                assert node.attributes.get("data-value") == (None if cell.mean is None else str(cell.mean))
                assert bool(node.all("strong")) == cell.best
        notes = [item.text for item in panel.one("ul", _class="notes").all("li")]
        assert notes == [f"{note.mark} {note.text}".strip() for note in table.footnotes()]


def test_summary_holds_the_averages(page: Node) -> None:
    records = study()
    summary = page.one("section", id="summary")
    tables = build_tables(records, metrics=tuple(MEASURED))
    rows = summary.one("tbody").all("tr")
    for place, row in enumerate(rows):
        values = [node.attributes.get("data-value") for node in row.all("td")[1:]]
        means = [table.rows[-1].cells[place].mean for table in tables]
        assert values == [None if mean is None else str(mean) for mean in means]
    assert len(rows) == 2 * 3


def test_percent(make: Make) -> None:
    page = make(study(), "--percent", "--metrics", "image_auroc")
    panel = page.one("div", _class="panel")
    assert panel.one("h3").text == "Pocket: image AUROC in %"
    assert panel.one("tr", data_category="chip").all("td")[0].text.startswith("90.0")
    assert "51.0" in page.one("details", id="p1-c1-2").text  # a seed's value


def test_what_is_missing_is_never_a_number(page: Node) -> None:
    row = page.all("div", _class="panel")[0].one("tr", data_category="mesh")
    cell = next(c for c in row.all("td", data_method="devnet") if c.attributes["data-shots"] == "1")
    assert cell.text.startswith("failed")
    assert "data-value" not in cell.attributes
    assert cell.attributes["title"] == (
        "failed (1 of 3 seeds): out of memory at 3 < 4; skipped (1 of 3 seeds): no anomaly to learn from; "
        "missing (1 of 3 seeds)"
    )
    block = page.one("details", id="p1-c2-3")
    assert "0.000" not in block.text
    tallies = [node.text for node in block.all("span", _class="tally")]
    assert tallies == ["failed 1", "skipped 1", "not run 1"]


def test_nothing_finished(make: Make) -> None:
    page = make([trial("devnet", category, 1, 0, status="failed", reason="boom") for category in CATEGORIES])
    assert "no finished trial with durations" in page.one("section", id="speed").text
    assert page.one("section", id="results").text.count("Not compared: ") == len(MEASURED)


def test_comparison_is_that_of_bench_compare(make: Make) -> None:
    from bench.report.comparison.compare import compare

    records = [r for r in study() if r["trial"]["method"]["name"] != "devnet"]
    panel = make(records, "--metrics", "image_auroc").one("div", _class="panel")
    (table,) = build_tables(records)
    for details, head in zip(panel.all("details", _class="comparison"), ("1-shot", "10-shot"), strict=True):
        rows = [[node.text for node in row.all("th") + row.all("td")] for row in details.one("tbody").all("tr")]
        methods = compare(table, head).methods
        assert [row[0] for row in rows] == [method.head for method in methods]
        assert [row[-1] for row in rows] == [f"{method.rank:.2f}" for method in methods]
        assert [row[1] for row in rows] == [f"{method.mean:.3f}" for method in methods]
        assert "need at least" in details.text  # a test of three categories is refused, with the reason


# ---------------------------------------------------------------- trials


def test_behind_every_number_stand_its_trials(page: Node) -> None:
    records = study()
    for row in page.all("div", _class="panel")[0].one("table", _class="results").one("tbody").all("tr"):
        for cell in row.all("td"):
            block = page.one("details", id=cell.one("a").attributes["href"][1:])
            assert block.attributes["data-method"] == cell.attributes["data-method"]
            expected = {
                f"trial-{r['key']}"
                for r in records
                if r["trial"]["category"] == row.attributes["data-category"]
                and r["trial"]["method"]["label"] == cell.attributes["data-method"]
                and r["status"] != "missing"
            }
            found = {d.attributes["id"] for d in block.all("details") if "id" in d.attributes}
            assert found == expected


def test_a_trial_says_everything_about_itself(page: Node) -> None:
    records = study()
    made = next(r for r in records if r["trial"]["method"]["name"] == "promptad" and r["trial"]["seed"] == 2)
    details = page.one("details", id=f"trial-{made['key']}")
    facts = dict(zip((n.text for n in details.all("dt")), (n.text for n in details.all("dd")), strict=True))
    assert details.one("pre").text == made["provenance"]["command"]
    assert facts["Key"] == made["key"]
    assert facts["Split manifest"] == made["trial"]["protocol"]["manifest"]
    assert facts["Data fingerprint"] == "f" * 64
    assert facts["Encoder weights"] == f"pocket/clip · {'e' * 64}"
    assert facts["Finished"] == PROVENANCE["finished"]
    assert facts["Seconds"] == "data 0.500, fit 11.0, metrics 0.250, score 0.250, total 12.0"
    for word in ("torch 2.5.1", "Python 3.12.1", "c0ffee", "cpu (4 cores)"):
        assert word in facts["Environment"]
    card = page.one("div", id="environment-1")
    assert f"{len(records) - 1} trials" in card.text  # the one that is not run has none
    rows = page.one("details", id="p1-c1-2").all("tr")
    place = next(i for i, row in enumerate(rows) if row.all("details", id=details.attributes["id"]))
    assert [n.text for n in rows[place - 1].all("th") + rows[place - 1].all("td")][:2] == ["seed 2", "0.530"]


def test_unfinished_trials_stand_with_their_reasons_the_worst_first(page: Node, make: Make) -> None:
    rows = page.one("section", id="unfinished").one("tbody").all("tr")
    texts = [[node.text for node in row.all("td")] for row in rows]
    assert [line[0] for line in texts] == ["failed", "skipped", "not run"]
    assert [line[4] for line in texts] == [
        "out of memory at 3 < 4",
        "no anomaly to learn from",
        "there is no record yet",
    ]
    assert [line[1:4] for line in texts] == [["mesh", "1", seed] for seed in "012"]
    records = [r for r in study() if r["status"] == "ok"]
    assert "unfinished" not in {node.attributes["id"] for node in make(records).all("section")}


def test_counts_and_notes_stand_at_the_top(page: Node) -> None:
    words = [item.text for item in page.one("ul", _class="counts").all("li")]
    assert words == ["39 trials", "finished 36", "failed 1", "skipped 1", "not run 1"]
    assert page.one("p", _class="callout").text == NOTE


def test_speed_is_of_finished_trials(make: Make) -> None:
    records = study()
    records[0]["provenance"]["device"] = "cuda"
    records[1]["provenance"] |= {"peak_memory_mib": 1234, "encoder_passes": 2}
    for each in records:
        if each["trial"]["method"]["name"] == "devnet" and each["status"] == "ok":
            each["provenance"]["seconds"] |= {"encode": 0.125, "fit": 0.5}
    rows = make(records).one("section", id="speed").one("tbody").all("tr")
    lines = [[node.text for node in row.all("th") + row.all("td")] for row in rows]
    # method, shots, trials, data, encode, fit, score, metrics, engine, total, all trials, passes, memory, device
    assert lines[0] == [
        "CLIP",
        NO_SEEDS,
        "1",
        "0.500",
        NO_SEEDS,  # a record of before encoders were timed apart
        "1.00",
        "0.250",
        "0.250",
        "0.000",
        "2.00",
        "2.00",
        "40",
        "900",
        "cuda",
    ]
    assert lines[1][2] == "2"  # another device is another line
    assert lines[2][:3] == ["PromptAD", "1", "9"]
    assert lines[2][9:13] == ["11.0", "99.0", "322", "900 to 1,234"]
    assert lines[4][:3] == ["DevNet", "1", "6"]
    assert lines[4][3:10] == ["0.500", "0.125", "0.500", "0.250", "0.250", "0.375", "2.00"]


def test_datasets_and_grids_have_parts_of_their_own(make: Make) -> None:
    records = [
        *study(),
        trial("clip", "bottle", None, None, 0.8, dataset="mvtec", note=""),
        trial("winclip", "bottle", None, None, 0.8, dataset="mvtec", note="", eval_size=256),
    ]
    page = make(records, "--metrics", "image_auroc,aupro")
    assert [h.text for h in page.one("section", id="summary").all("h3")] == [
        "Pocket · protocol loo",
        "Mvtec · protocol loo",
    ]
    titles = [panel.one("h3").text for panel in page.all("div", _class="panel")]
    assert titles == ["Pocket: image AUROC", "Pocket: AUPRO@0.3", "Mvtec: image AUROC", *["Mvtec: AUPRO@0.3"] * 2]
    heads = [h.text for h in page.one("section", id="summary").all("table")[1].all("th", scope="col")]
    assert heads[-2:] == ["AUPRO@0.3 64 px", "AUPRO@0.3 256 px"]


# ---------------------------------------------------------------- pictures


@pytest.fixture
def wood(tmp_path: Path) -> Wood:
    """One trial on pocket's wood whose worst and best images are known."""
    catalogue = pocket()
    made = trial("promptad", "wood", 1, 0, 0.5, fingerprint=catalogue.fingerprint)
    store = Store(tmp_path / "store")
    samples = catalogue.select("wood", "test")
    anomalous = [sample.id for sample in samples if sample.anomalous]
    normal = [sample.id for sample in samples if not sample.anomalous]
    score = {id_: 0.5 + i / 1000 for i, id_ in enumerate(anomalous)} | dict.fromkeys(normal, 0.1)
    score |= {anomalous[3]: 0.05, normal[1]: 0.5205, anomalous[7]: 0.9, anomalous[5]: 0.8}
    keep(store, [made])
    scored(store, catalogue, made, np.array([score[sample.id] for sample in samples], np.float32))
    return store, made, [anomalous[3], normal[1], anomalous[7], anomalous[5]]


def test_worst_and_best_images(wood: Wood) -> None:
    store, made, (missed, alarm, first, second) = wood
    shown = Gallery(store, {}, 2).show(Record.of(made))
    assert [picture.id for picture in shown.worst] == [missed, alarm]
    assert [picture.id for picture in shown.best] == [first, second]
    normals, others = shown.worst[0].others, shown.worst[1].others
    assert (shown.worst[0].outranked, shown.best[0].outranked) == (normals, 0)
    assert shown.worst[1].outranked == 19  # 0.500 to 0.520 without the three that were moved, and the missed one
    assert (normals, others) == (16, 30)
    assert shown.worst[1].mask is None
    assert (shown.low, shown.high) == pytest.approx((-1, 1))


def test_pictures_are_small_and_told_in_words(wood: Wood, tmp_path: Path) -> None:
    store, _, names = wood
    assert report(store, tmp_path / "page.html", "--images", "2").exit_code == 0
    page = read(tmp_path / "page.html")
    found = data_uris(page)
    assert len(found) == 4 * 3 - 1  # a normal image has no mask
    assert {max(picture.size) for picture in found} == {96, pictures.SIDE}  # pocket's images keep their size
    assert all(image.attributes["alt"] for image in page.all("img"))
    captions = [node.text for node in page.all("figcaption")]
    assert [caption.split()[0] for caption in captions] == names
    assert captions[0].endswith("16 of 16 normal images score as high or higher")
    assert captions[1].endswith("19 of 30 anomalous images score as low or lower")
    assert "map -1" in page.one("span", _class="scale").text
    assert (tmp_path / "page.html").stat().st_size < 200_000
    assert report(store, tmp_path / "none.html", "--images", "0").exit_code == 0
    assert not read(tmp_path / "none.html").all("img")


def test_images_that_are_not_there_are_missed_with_a_reason(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    keep(store, [trial("promptad", "bottle", 1, 0, 0.5, dataset="mvtec")])
    result = report(store, tmp_path / "page.html")
    assert result.exit_code == 0
    assert "note: no pictures of mvtec: mvtec needs the folder" in result.stderr
    assert "No images: no pictures of mvtec" in read(tmp_path / "page.html").text
    keep(store, [trial("promptad", "wood", 1, 0, 0.5)])
    result = report(store, tmp_path / "page.html")
    assert "is not the data that the trial was planned with" in result.stderr
    keep(store, [trial("promptad", "wood", 1, 0, 0.5, fingerprint=pocket().fingerprint)])
    assert report(store, tmp_path / "page.html").exit_code == 0
    assert "cannot be read" in read(tmp_path / "page.html").text


def test_a_wrong_folder_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    keep(store, [trial("promptad", "bottle", 1, 0, 0.5, dataset="mvtec")])
    (tmp_path / "empty").mkdir()
    result = report(store, tmp_path / "page.html", "--data-root", str(tmp_path / "empty"))
    assert result.exit_code == 2
    assert "is not MVTec AD" in result.stderr


@pytest.mark.parametrize(("score", "end"), [(0.0, 0.0), (1.0, 1.0), (9.0, 1.0), (-9.0, 0.0), (0.5, 0.5)])
def test_colours_are_those_of_the_scale(score: float, end: float) -> None:
    grey = np.full((40, 20, 3), 100, np.uint8)
    uri = pictures.overlay(grey, np.full((2, 2), score, np.float32), np.zeros((40, 20), bool), 0.0, 1.0)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), float)
    assert picture.shape == (pictures.SIDE, pictures.SIDE // 2, 3)
    expected = 0.4 * 100 + 0.6 * 255 * np.array(colormaps["viridis"](end)[:3])
    np.testing.assert_allclose(picture.mean((0, 1)), expected, atol=4)  # WebP loses a little
    ends = pictures.scale()
    assert re.fullmatch(r"#[0-9a-f]{6}", ends[0])
    assert (ends[0], ends[-1]) == ("#440154", "#fde725")  # viridis' own


def test_a_thin_defect_stays_visible() -> None:
    mask = np.zeros((1024, 1024), bool)
    mask[500, :] = True
    uri = pictures.silhouette(mask)
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert picture.shape == (128, 128)
    assert picture.any(0).all()
    assert picture.any(1).sum() == 1
