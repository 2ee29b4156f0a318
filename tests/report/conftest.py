"""A headless Chromium for pages; tests that need one are skipped, with the reason, where there is none."""

import shutil
from contextlib import contextmanager

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page of the browser, and what it complained of or asked other hosts for."""

    def __init__(self, page, hosts):
        self.page, self.errors, self.requests = page, [], []
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith(hosts) else self.requests.append(r.url))


@pytest.fixture
def opened(browser):
    """`with opened(file or address, width=..., dark=...) as watched`; at the end nothing was wrong with it."""

    @contextmanager
    def open_page(address, *, width=1200, height=900, dark=False, hosts=("file:", "data:", "blob:")):
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        try:
            watched = Watched(context.new_page(), tuple(hosts))
            watched.page.goto(address if "://" in str(address) else f"file://{address}")
            yield watched
            assert watched.errors == []
            assert watched.requests == []
        finally:
            context.close()

    return open_page
