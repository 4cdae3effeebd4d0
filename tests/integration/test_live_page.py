"""Locust's page and ``/hookbench`` in a real browser, as somebody at a desk uses them."""

import importlib.util
import os
import re
import shutil
import signal

import pytest

from hookbench.brokers.ports import free_port
from tests.integration.locusts import Web

for module, extra in (("locust", "loadtest"), ("playwright", "dev")):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"no {module}: pip install -e '.[{extra}]'", allow_module_level=True)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = os.environ.get("HOOKBENCH_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), "")
if not BROWSER:
    pytest.skip(
        "no browser: install Debian's package chromium, or name one in HOOKBENCH_BROWSER",
        allow_module_level=True,
    )

WAIT_MS = 60_000


@pytest.fixture
def browser():
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - it may not be there

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield found
        found.close()


def figure(page, name):
    """A number in the head of the live page, 0 before there is one."""
    text = page.inner_text(f"#{name}").replace(",", "")
    return float(text) if re.fullmatch(r"[\d.]+", text) else 0.0


def wait_for_figure(page, name, more):
    page.wait_for_function(
        "([name, more]) => Number("
        "document.getElementById(name).textContent.replaceAll(',', '')) > more",
        arg=[name, more],
        timeout=WAIT_MS,
    )


def begin_in_form(page, *, again=False):
    """Fill the form in, as far as Locust shows it at first, and press its button."""
    if again:
        page.get_by_role("button", name="New").click()
    page.get_by_label("Number of users").fill("5")
    page.get_by_role("button", name="Start", exact=False).last.click()


def test_a_run_from_the_form_to_its_end_and_another_one(start_locust, browser, tmp_path):
    port = free_port()
    locust = start_locust("--web-host", "127.0.0.1", "--web-port", str(port), "--queue=jetstream")
    web = Web(port)
    locust.until(web.is_up, "web page")
    problems = []
    context = browser.new_context(viewport={"width": 1280, "height": 1100})
    page, live = context.new_page(), context.new_page()
    for item in (page, live):
        item.set_default_timeout(WAIT_MS)
        item.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"http://127.0.0.1:{port}/")
    begin_in_form(page)

    page.get_by_role("tab", name="Queue").click()
    done = (
        page.get_by_role("row").filter(has_text="tasks that were sent").get_by_role("cell").nth(1)
    )
    first = int(done.inner_text().replace(",", ""))
    page.wait_for_function(
        "before => [...document.querySelectorAll('tr')].some(row => /tasks that were sent/"
        ".test(row.innerText) && Number(row.cells[1].innerText.replaceAll(',', '')) > before)",
        arg=first,
        timeout=WAIT_MS,
    )
    page.screenshot(path=tmp_path / "queue.png", full_page=True)

    live.goto(f"http://127.0.0.1:{port}/hookbench")
    wait_for_figure(live, "published", 50)
    assert live.inner_text("#phase") == "nats_only"
    live.get_by_label("Ready-made faults").select_option("pause nats for=2")
    live.get_by_role("button", name="Inject").click()
    live.wait_for_function(
        "() => document.getElementById('said').textContent.includes('is in effect, for 2 s')",
        timeout=WAIT_MS,
    )
    live.wait_for_function(
        "() => document.getElementById('active').textContent.includes('pause nats')",
        timeout=WAIT_MS,
    )
    live.wait_for_function(
        "() => document.getElementById('active').textContent === 'none'", timeout=WAIT_MS
    )
    wait_for_figure(live, "p99", 500)  # who was due while it stood still waited for it
    live.get_by_role("button", name="Start a worker").click()
    live.wait_for_function(
        "() => document.querySelectorAll('#workers li').length === 2", timeout=WAIT_MS
    )
    drawn = live.evaluate("document.getElementById('charts').layout")
    assert next(item["text"] for item in drawn["annotations"]) == "nats_only"
    assert any("pause nats" in item["text"] for item in drawn["annotations"])
    live.screenshot(path=tmp_path / "live.png", full_page=True)

    page.get_by_role("button", name="Stop").first.click()
    locust.until(lambda: "account     balanced" in locust.text, "an account", timeout_s=60.0)
    verdict, published, consumed, left = locust.account()
    assert (verdict, left) == ("balanced", 0)
    assert published == consumed > 100

    begin_in_form(page, again=True)
    live.wait_for_function("() => run === 2 && points.length > 1", timeout=WAIT_MS)
    assert live.evaluate("state.shades.length") == 0
    wait_for_figure(live, "published", 50)
    assert problems == []
    assert locust.end(signal.SIGTERM) == 0, locust.text
