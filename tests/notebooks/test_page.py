"""The page of a report in a real browser: at a phone's width and a desk's, light and dark."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hookbench.report.pdf import CHROMIUM_VARIABLE

for module, extra in (("papermill", "notebooks"), ("playwright", "dev")):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"no {module}: pip install -e '.[{extra}]'", allow_module_level=True)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get(CHROMIUM_VARIABLE) or next(filter(None, map(shutil.which, BROWSERS)), "")
if not BROWSER:
    pytest.skip(
        f"no browser: install Debian's package chromium, or name one in {CHROMIUM_VARIABLE}",
        allow_module_level=True,
    )

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data"
RUNS = ("guide", "hardened", "faults", "redis_list", "redis_stream", "jetstream")
WIDTHS = (390, 1200)
A4_PIXELS = 702
"""Of A4's 210 mm without two margins of 12 mm, at 96 to the inch."""
LEAST_CONTRAST = 4.5
"""Of text: https://www.w3.org/TR/WCAG21/#contrast-minimum"""

OUTSIDE = """
() => [...document.querySelectorAll('body *')].filter(item => {
  const scrolls = element => element && (
    ['auto', 'scroll'].includes(getComputedStyle(element).overflowX)
    || scrolls(element.parentElement)
  );
  const box = item.getBoundingClientRect();
  const wide = box.right > document.documentElement.clientWidth + 1 || box.left < -1;
  return wide && box.width > 0 && !scrolls(item.parentElement);
}).map(item => `${item.tagName} ${item.className} ${item.textContent.slice(0, 60)}`)
"""
CLIPPED = """
() => [...document.querySelectorAll('p, li, pre, h1, h2, a')].filter(item => {
  const style = getComputedStyle(item);
  return item.clientWidth > 0 && style.overflowX !== 'auto'
    && item.scrollWidth > item.clientWidth + 1;
}).map(item => `${item.tagName} ${item.textContent.slice(0, 60)}`)
"""
CONTRASTS = """
() => {
  const light = text => {
    const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(value => value / 255)
      .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = item => {
    const colour = getComputedStyle(item).backgroundColor;
    const none = colour === 'rgba(0, 0, 0, 0)';
    return none && item.parentElement ? ground(item.parentElement) : colour;
  };
  return [...document.querySelectorAll('p, li, pre, h1, h2, a, th, td, code')].map(item => {
    const [low, high] = [light(getComputedStyle(item).color), light(ground(item))]
      .sort((one, other) => one - other);
    return [(high + 0.05) / (low + 0.05), item.tagName];
  });
}
"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    command = [
        *(sys.executable, "-m", "hookbench", "report", *(str(DATA / name) for name in RUNS)),
        *("--capacity", str(DATA / "capacity"), "--to", str(path), "--pdf"),
    ]
    answer = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        env={**os.environ, CHROMIUM_VARIABLE: BROWSER},
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == [str(path), str(path.with_suffix(".pdf"))]
    assert "notebook 1 of 7, cell 1 of " in answer.stderr
    return path


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it may not be there

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_and_all_can_be_read(page_file, browser, width, scheme, tmp_path):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    problems, asked = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(page_file.as_uri())
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(CLIPPED) == []
    images = page.evaluate("[...document.images].map(item => [item.naturalWidth, item.width])")
    assert len(images) > 10
    assert all(0 < shown <= min(natural, width) for natural, shown in images)
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert min(found)[0] >= LEAST_CONTRAST, min(found)
    assert problems == []
    assert all(url.startswith(("file:", "data:")) for url in asked)
    context.close()


def test_nothing_is_cut_off_on_paper(page_file, browser):
    context = browser.new_context(viewport={"width": A4_PIXELS, "height": 1040}, offline=True)
    page = context.new_page()
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= A4_PIXELS
    assert page.evaluate(OUTSIDE) == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)", "also where the screen is dark"
    context.close()


def test_contents_lead_to_every_part(page_file, browser):
    context = browser.new_context(viewport={"width": 390, "height": 900}, offline=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    links = page.locator("nav a")
    assert links.count() == 7
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(item => item.id)")
    assert len(ids) == len(set(ids))
    for number in range(links.count()):
        links.nth(number).click()
        top = page.locator(f"section#part{number + 1}").bounding_box()["y"]
        height = page.evaluate("document.documentElement.scrollHeight - scrollY - innerHeight")
        assert top == pytest.approx(0, abs=60) or height <= 1, "as far up as the page goes"
    context.close()


def test_pdf_is_one_of_several_pages(page_file):
    data = page_file.with_suffix(".pdf").read_bytes()
    assert data.startswith(b"%PDF-")
    assert (
        data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") + data.count(b"/Type/Page/") >= 7
    )
