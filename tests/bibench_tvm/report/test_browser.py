"""The page in a browser: Debian's Chromium, which `run_tests.sh` installs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from bibench_tvm.report.assemble import SECTIONS


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.fail("There is no chromium. Type: sudo apt-get install -y --no-install-recommends chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path)
        yield opened
        opened.close()


def open_page(browser: Browser, file: Path, **context: Any) -> tuple[Page, list[str], list[str]]:
    """The page, what its console said, and all that it asked for."""
    page = browser.new_context(**context).new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    return page, said, asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1100])
def test_it_opens(browser: Browser, full_page: Path, scheme: str, width: int) -> None:
    size = {"width": width, "height": 800}
    page, said, asked = open_page(browser, full_page, color_scheme=scheme, viewport=size)
    assert said == [] and asked == [full_page.as_uri()]
    # Nothing is wider than the screen but what is scrolled by itself.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = page.evaluate("[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)")
    assert len(boxes) == 16 and min(boxes) > 50
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    ink = page.evaluate("getComputedStyle(document.querySelector('svg text')).fill")
    assert (dark, ink) == ((True, "rgb(228, 232, 236)") if scheme == "dark" else (False, "rgb(28, 32, 36)"))


def test_the_keyboard_reaches_every_section(browser: Browser, full_page: Path) -> None:
    page, _, _ = open_page(browser, full_page)
    page.keyboard.press("Tab")
    focused = """(() => { const at = document.activeElement; return at === document.body ? null
        : [at.getAttribute("href"), at.tagName, at.closest("section")?.id ?? ""] })()"""
    assert page.evaluate(focused)[0] == "#main"
    stops = []
    while (stop := page.evaluate(focused)) and len(stops) < 2000:
        stops.append(stop)
        page.keyboard.press("Tab")
    links, tags, within = zip(*stops, strict=True)
    sections = page.evaluate("[...document.querySelectorAll('section')].map(s => s.id)")
    assert list(links[1 : len(SECTIONS) + 1]) == [f"#{name}" for name in sections]
    assert tags.count("SUMMARY") == page.locator("summary").count() > 16
    assert set(within) == {"", *sections}
    page.locator("nav a").nth(7).focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('section').id") == sections[7]


def test_a_number_leads_to_its_command(browser: Browser, full_page: Path) -> None:
    page, _, _ = open_page(browser, full_page)
    link = page.locator("#inference a[href^='#r']:visible").first
    target = page.locator(f"{link.get_attribute('href')} code").first
    assert not target.is_visible()
    link.focus()
    page.keyboard.press("Enter")
    target.wait_for(state="visible", timeout=5000)
    assert "python -m bibench_tvm" in target.inner_text()


def test_it_prints(browser: Browser, full_page: Path) -> None:
    page, said, _ = open_page(browser, full_page)
    pdf = page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(pdf) > 50_000 and said == []
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
