"""The studio as people use it: in a browser, with a worker that computes."""

import re
import socket
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

import pellucid as pl
from report.conftest import CHROMIUM, browser  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow
pytest.importorskip("fastapi", reason="the extra `studio` is not installed")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """The address with its token, and the folder."""
    home = tmp_path_factory.mktemp("studio")
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    command = [sys.executable, "-m", "pellucid", "studio", str(home), "--port", str(port),
               "--model", "efficientnet-lite0,suite:motion", "--device", "cpu"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = re.search(r"http\S+", process.stdout.readline())[0]
    yield address, home
    process.terminate()
    process.wait(300)


@pytest.fixture
def visit(browser, studio):  # noqa: F811
    """`with visit() as page`: a visitor of their own; at the end there was no error and no other host."""
    address, _ = studio
    host = address.split("/?")[0]

    @contextmanager
    def come(width=1200, dark=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        page, wrong = context.new_page(), []
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: wrong.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith((host, "data:", "blob:")) else wrong.append(r.url))
        page.set_default_timeout(180_000)
        try:
            page.goto(address)
            page.locator("form.ask").wait_for()  # the worker is there
            yield page
            assert wrong == []
        finally:
            context.close()

    return come


def asked(page, *methods, target="", check=False):
    for box in page.locator("input[name=method]").all():
        box.set_checked(box.get_attribute("value") in methods)
    page.fill("[name=target]", target)
    page.locator("[name=check]").set_checked(check)
    page.click("button.go")


def framed(page):
    frame = page.frame_locator("iframe")
    frame.locator("article").first.wait_for()
    return frame


def test_from_an_upload_to_the_result_and_its_permalink(visit, tmp_path):
    file = tmp_path / "my <cat>.png"
    Image.open(pl.media.samples.sample_path("cat")).save(file)
    with visit() as page:
        page.set_input_files("[name=file]", str(file))
        asked(page, "grad-cam", "hires-cam", target="tabby")
        frame = framed(page)
        assert frame.locator(".pv-pane").count() == 2
        assert "pellucid explain 'my <cat>.png'" in page.locator("pre").first.inner_text()
        frame.locator("[data-control=mode]").select_option("difference")
        page.reload()
        assert framed(page).locator(".pv-pane").count() == 2
        page.goto(page.url.split("/results")[0] + "/library?q=hires")
        assert page.locator("tbody tr").count() == 1


def test_what_it_finds_is_what_the_command_line_finds(visit, studio, embedded_model):
    with visit() as page:
        page.select_option("[name=sample]", "coffee")
        asked(page, "layer-cam", target="espresso")
        framed(page)
        id = page.url.rpartition("/")[2]
    e = pl.explain(embedded_model, "sample:coffee", "layer-cam", "espresso")
    saved = pl.read(next((studio[1] / id).glob("*.json")))
    assert np.array_equal(saved.attribution, e.attribution)


def test_a_target_that_does_not_exist_is_told_as_on_the_command_line_and_the_worker_lives(visit, embedded_model):
    with pytest.raises(pl.TargetError) as told:
        pl.explain(embedded_model, "sample:cat", "grad-cam", "tabbby")
    with visit() as page:
        page.select_option("[name=sample]", "cat")
        asked(page, "grad-cam", target="tabbby")
        page.locator("[role=alert]").wait_for()
        assert page.locator("[role=alert]").inner_text() == str(told.value)
        page.goto(page.url.split("/results")[0])
        page.set_input_files("[name=file]", {"name": "no.png", "mimeType": "image/png", "buffer": b"not a picture"})
        asked(page, "grad-cam")
        page.locator("[role=alert]").wait_for()
        assert "no.png" in page.locator("[role=alert]").inner_text()
        assert ".studio" not in page.locator("[role=alert]").inner_text()
        page.goto(page.url.split("/results")[0])
        page.select_option("[name=sample]", "cat")
        asked(page, "grad-cam")
        framed(page)


def test_a_long_job_tells_its_progress_and_is_cancelled(visit):
    with visit() as page:
        page.select_option("[name=sample]", "cat")
        asked(page, "rise")
        page.locator("progress[value]").wait_for()
        page.click("text=Cancel")
        page.locator(".state:text-is('cancelled')").wait_for()
        assert page.locator("progress[value]").count() == 0
        page.goto(page.url.split("/results")[0])
        page.select_option("[name=sample]", "cat")
        asked(page, "grad-cam")
        assert framed(page).locator(".pv-stage").count() == 1


def test_two_visitors_see_their_own(visit):
    with visit() as one, visit() as two:
        one.select_option("[name=sample]", "cat")
        asked(one, "grad-cam")
        framed(one)
        two.goto(one.url.split("/results")[0] + "/jobs")
        assert two.locator("article").count() == 0
        one.goto(one.url.split("/results")[0] + "/jobs")
        assert one.locator("article").count() >= 1


def test_a_clip_a_comparison_and_a_model_by_keys_in_the_dark_on_a_small_screen(visit):
    with visit(width=360, dark=True) as page:
        base = page.url.rstrip("/")
        page.goto(f"{base}/video")
        page.select_option("[name=suite]", "motion")
        page.select_option("[name=model]", "suite:motion")
        page.locator("button.go").focus()
        page.keyboard.press("Enter")
        frame = framed(page)
        assert frame.locator(".pv-time rect[data-value]").count() > 1
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        for place in ("library", "compare", "model", "jobs", "importance"):
            page.goto(f"{base}/{place}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, place
        page.goto(f"{base}/compare")
        for box in page.locator("input[name=id]").all()[:2]:
            box.check()
        page.locator("main button").focus()
        page.keyboard.press("Enter")
        assert framed(page).locator(".pv-pane").count() >= 1
        page.goto(f"{base}/model")
        assert "bn2" in page.locator("table").inner_text()
