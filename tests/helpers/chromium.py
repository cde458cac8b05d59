"""Fixtures for pages in a headless Chromium: the browser of this machine, driven by Playwright.

The test is skipped where there is no Chromium, or no Playwright. In a test, ask for ``open_page``::

    def test_page(open_page, tmp_path):
        page = open_page((tmp_path / "page.html").as_uri(), dark=True, phone=True, offline=True)
        page.wait_for_selector("h1")
        page.keyboard.press("Enter")
        assert page.title() == "Done"
        assert open_page.problems == []
"""

import shutil

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_MS = 120_000  # generous: it only ends a test that hangs
PHONE = {
    "viewport": {"width": 360, "height": 640}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True,
}  # fmt: skip


class PageOpener:
    """Opens pages, each in a browser context of its own, and collects their problems.

    `problems` lists errors of the page, errors in its console, and addresses that it requests from a network, except
    those in the folder of a page that comes from a server itself.
    """

    def __init__(self, browser):
        self.browser = browser
        self.problems = []

    def __call__(self, address, *, before="", dark=False, phone=False, offline=False, **options):
        """Open `address`, and run the script `before` ahead of the page's own scripts.

        `options` are those of Playwright's ``browser.new_context``.
        """
        options = {**(PHONE if phone else {}), **options}
        context = self.browser.new_context(color_scheme="dark" if dark else "light", offline=offline, **options)
        context.set_default_timeout(TIMEOUT_MS)
        context.add_init_script(before)
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        allowed = ("file:", "data:", "blob:", address[: address.rindex("/") + 1])
        page.on("request", lambda request: request.url.startswith(allowed) or self.problems.append(request.url))
        page.goto(address)
        return page


def wait_until(page, condition):
    """Wait until an expression of JavaScript holds in a page.

    Playwright evaluates a string anew at each poll, which a page's Content-Security-Policy may forbid; a function once.
    """
    page.wait_for_function(f"() => {condition}")


def find_chromium():
    """The path of the browser of this machine; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(NAMES)}")
    return program


@pytest.fixture(scope="module", name="browser")
def browser_fixture():
    """A headless Chromium, as Playwright's ``Browser``."""
    program = find_chromium()
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
    with api.sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        yield browser


@pytest.fixture(name="open_page")
def open_page_fixture(browser):
    """A function that opens a page; see `PageOpener`."""
    yield PageOpener(browser)
    for context in browser.contexts:
        context.close()
