"""The page of ``bench report`` in a real browser: sorted, filtered, opened, narrow, light and dark."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import CATEGORIES, keep, pocket, report, scored, study, trial

from bench.metrics.registry import MEASURED
from bench.report.tables.table import build_tables
from bench.store.store import Store

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RESULTS = "#results .panel:not([hidden]) .results"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window; the tests are skipped where there is none."""
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        found = next(filter(None, map(shutil.which, NAMES)), own if Path(own).exists() else None)
        if found is None:
            pytest.skip(f"no Chromium: none of {', '.join(NAMES)} is installed, nor playwright's own")
        # Without a sandbox of its own, which a container's root user cannot have; the page is ours.
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """The study, a method that was skipped, and one trial with pictures, the last."""
    skipped = trial("regad", "chip", 1, 0, status="skipped", reason="it needs normal images")
    return [*study(), skipped, trial("clip", "button", None, None, 0.4)]


@pytest.fixture(scope="module")
def file(records: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    store, catalogue = Store(folder / "store"), pocket()
    for each in records:
        each["trial"]["dataset"]["fingerprint"] = catalogue.fingerprint
    keep(store, records)
    number = len(catalogue.select("button", "test"))
    scored(store, catalogue, records[-1], np.linspace(0, 1, number, dtype=np.float32))
    assert report(store, folder / "page.html").exit_code == 0
    return folder / "page.html"


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    """The page, opened from its file; whatever it asks for or complains about fails the test."""
    yield from opened(browser, file)


def opened(browser: Any, file: Path, **options: Any) -> Iterator[Any]:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page, wrong = context.new_page(), []
    page.set_default_timeout(10_000)
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert not wrong


def column(page: Any, place: int) -> list[str]:
    """The texts of one column of the table of results, without its average."""
    rows = page.locator(f"{RESULTS} tbody tr:visible").all()
    return [row.locator("th, td").nth(place).inner_text().strip() for row in rows]


def heads(page: Any) -> list[str]:
    found = page.locator(f"{RESULTS} thead button:visible").all_inner_texts()
    return [re.sub(r"\s+", " ", head) for head in found]


def test_sorting(page: Any) -> None:
    names = sorted([*CATEGORIES, "button"])
    assert column(page, 0) == names
    clip = page.locator(f"{RESULTS} thead button", has_text="CLIP").first
    orders = []
    for _ in range(3):
        clip.click()
        orders.append((clip.locator("..").get_attribute("aria-sort"), column(page, 0)))
    falling = ["chip", "mesh", "wood", "button"]  # 0.9, 0.8, 0.7, 0.4
    assert orders == [("descending", falling), ("ascending", falling[::-1]), (None, names)]
    assert page.locator(f"{RESULTS} tfoot th").inner_text() == "Average"


def test_what_is_missing_is_sorted_to_the_end(page: Any) -> None:
    devnet = page.locator(f"{RESULTS} thead button", has_text="DevNet").first  # mesh failed, button was not run
    for first in ("chip", "wood"):
        devnet.click()
        found = column(page, 0)
        assert found[0] == first
        assert set(found[2:]) == {"mesh", "button"}


def test_a_method_without_any_number_is_sorted_to_the_end(page: Any) -> None:
    total = page.locator("#speed thead button", has_text="Total")
    for first in ("CLIP", "PromptAD"):
        total.click()
        rows = page.locator("#speed tbody th").all_inner_texts()
        assert (rows[0], rows[-1]) == (first, "regad")


def test_sorting_by_keyboard(page: Any) -> None:
    page.locator(f"{RESULTS} thead button").first.focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert column(page, 0)[-1] == "button"
    page.keyboard.press("Space")
    assert column(page, 0)[0] == "button"


def test_another_metric(page: Any, records: list[dict[str, Any]]) -> None:
    page.locator("select[name=metric]").select_option(label="AUPRO@0.3")
    assert page.locator("#results h3:visible").all_inner_texts() == ["Pocket: AUPRO@0.3"]
    (table,) = build_tables(records, metrics=["aupro"])
    for row, numbers in zip(table.rows[:-1], page.locator(f"{RESULTS} tbody tr").all(), strict=True):
        texts = numbers.locator("td").all_inner_texts()
        for cell, text in zip(row.cells, texts, strict=True):
            assert text.startswith(f"{cell.mean:.3f}" if cell.mean is not None else cell.status)


def test_filtering(page: Any) -> None:
    assert len(heads(page)) == 1 + 2 * 4
    page.get_by_label("1-shot", exact=True).uncheck()
    assert len(heads(page)) == 1 + 4
    assert page.locator(f"{RESULTS} th[scope=colgroup]:visible").all_inner_texts() == ["10-shot"]
    page.locator(".menu summary").click()
    page.get_by_label("PromptAD", exact=True).uncheck()
    assert [head.split()[0] for head in heads(page)] == ["Category", "CLIP", "DevNet", "regad"]
    assert page.locator(f"{RESULTS} th[scope=colgroup]:visible").evaluate("head => head.colSpan") == 3
    assert "3 of 4" in page.locator(".menu summary").inner_text()
    assert page.locator("#summary tbody tr:visible").count() == 3
    page.keyboard.press("Escape")
    assert not page.get_by_label("PromptAD", exact=True).is_visible()
    page.get_by_label("Category").fill("OO")
    assert column(page, 0) == ["wood"]
    assert page.locator("details.category:visible").count() == 1
    assert page.locator("#unfinished tbody tr:visible").count() == 0  # they are mesh's and chip's
    assert page.locator("output").inner_text() == "1 of 4 categories"
    assert page.get_by_text("whatever is filtered").locator("visible=true").count() == 1
    average = page.locator(f"{RESULTS} tfoot td:visible").first
    assert float(average.get_attribute("data-value")) == pytest.approx(0.7)  # of 0.9, 0.8, 0.7 and 0.4
    page.get_by_label("Category").fill("nothing")
    assert page.locator("output").inner_text() == "No category has this in its name."
    page.get_by_role("button", name="Reset").click()
    page.locator("output", has_text="4 of 4 categories").wait_for()  # filters follow once the form has been reset
    assert len(heads(page)) == 1 + 2 * 4
    assert column(page, 0) == sorted([*CATEGORIES, "button"])


def test_drill_down_and_back(page: Any, records: list[dict[str, Any]]) -> None:
    assert page.locator(".block:visible").count() == 0
    cell = page.locator(f"{RESULTS} tr[data-category=mesh] td").nth(1).locator("a")
    cell.click()
    block = page.locator("details.block:visible", has_text="promptad[cmi=off]")
    block.locator("h5").first.wait_for()
    assert block.locator("summary").first.evaluate("summary => summary === document.activeElement")
    box = block.bounding_box()
    assert 0 < box["y"] < 400
    assert [text.split()[:2] for text in block.locator("tbody th").all_inner_texts()[:3]] == [
        ["seed", str(seed)] for seed in range(3)
    ]
    wanted = {"category": "mesh", "shots": 1, "seed": 1}
    (made,) = (
        r for r in records if wanted.items() <= r["trial"].items() and r["trial"]["method"]["name"] == "promptad"
    )
    page.locator(f"#trial-{made['key']} summary").first.click()
    facts = page.locator(f"#trial-{made['key']} .facts")
    assert made["trial"]["protocol"]["manifest"] in facts.inner_text()
    assert facts.locator("pre").inner_text() == made["provenance"]["command"]
    facts.get_by_role("button", name="Copy").click()
    facts.locator("button", has_text=re.compile("Copied|Selected")).wait_for()
    facts.locator("a").click()
    page.locator("#environment-1").wait_for()
    assert page.evaluate("document.activeElement.id") == "environment-1"
    page.go_back()
    page.go_back()
    page.locator(f"{RESULTS} tr[data-category=mesh] td").nth(1).locator("a").click()
    block.get_by_text("back to the table").click()
    assert cell.evaluate("link => link === document.activeElement")


def test_a_link_to_a_trial_opens_it(browser: Any, file: Path, records: list[dict[str, Any]]) -> None:
    for page in opened(browser, file):
        failed = next(r for r in records if r["status"] == "failed")
        page.get_by_label("Category").fill("wood")  # hides it
        page.goto(f"{file.as_uri()}#trial-{failed['key']}")
        reason = page.locator(f"#trial-{failed['key']} .reason")
        reason.wait_for()
        assert "out of memory at 3 < 4" in reason.inner_text()


def test_pictures_are_drawn(page: Any) -> None:
    page.locator(f"{RESULTS} tr[data-category=button] td").first.locator("a").click()
    pictures = page.locator("details.block:visible img")
    pictures.first.scroll_into_view_if_needed()
    drawn = "() => [...document.querySelectorAll('details[open] img')].every(image => image.naturalWidth > 0)"
    page.wait_for_function(drawn)
    assert pictures.count() >= 10
    scale = page.locator(".colours:visible").first.evaluate("part => getComputedStyle(part).backgroundImage")
    assert scale.startswith("linear-gradient(to right, rgb(68, 1, 84)")


def luminance(page: Any) -> float:
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


@pytest.mark.parametrize("system", ["light", "dark"])
def test_themes(browser: Any, file: Path, system: str) -> None:
    for page in opened(browser, file, color_scheme=system):
        bright = {"light": True, "dark": False}
        assert (luminance(page) > 128) == bright[system]
        button = page.locator("[data-theme-button]")
        assert button.inner_text() == "Theme: system"
        for theme in ("light", "dark"):
            button.click()
            assert button.inner_text() == f"Theme: {theme}"
            assert (luminance(page) > 128) == bright[theme]
        page.reload()
        assert button.inner_text() == "Theme: dark"
        assert luminance(page) < 128
        page.emulate_media(media="print")
        assert luminance(page) > 250
        assert not page.locator(".filters").is_visible()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_screens_do_not_scroll_sideways(browser: Any, file: Path, width: int) -> None:
    for page in opened(browser, file, viewport={"width": width, "height": 800}, has_touch=True):
        page.evaluate("document.querySelectorAll('details:not(.menu)').forEach(part => { part.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        region = page.locator("#results .panel:not([hidden]) .scroll").first
        if width < 400:
            assert region.evaluate("part => part.scrollWidth > part.clientWidth")  # the table does, in its frame
            region.evaluate("part => { part.scrollLeft = 200; }")
            first = page.locator(f"{RESULTS} tbody th").first.bounding_box()
            assert first["x"] == pytest.approx(region.bounding_box()["x"], abs=2)  # and its names stay


def test_without_script_everything_is_there(browser: Any, file: Path) -> None:
    for page in opened(browser, file, java_script_enabled=False):
        assert page.locator("#results .panel").count() == len(MEASURED)
        assert page.locator("#results .panel").last.is_visible()
        assert not page.locator(".filters").is_visible()
        assert not page.locator("[data-theme-button]").is_visible()
