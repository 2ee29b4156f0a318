"""The viewer, the report and the studio: how quickly a page is there and answers, and what it costs to make one."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import pellucid as pl
from benchmarks.report import Row, Section, at_least, at_most, single
from benchmarks.startup import seconds
from benchmarks.timing import Spread
from pellucid import storage
from pellucid.verbs.report import report
from pellucid.verbs.verify import read


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    repeats: int
    maps: int


FULL, QUICK = Size(repeats=5, maps=100), Size(repeats=2, maps=20)
TITLE = "The viewer, the report and the studio"
_WIDE, _HIGH = 1000, 750
_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]"
_EXPLAIN = [sys.executable, "-m", "pellucid", "explain", "sample:cat", "--method", "recipro-cam", "--no-check"]


@contextmanager
def _browser() -> Iterator[Any]:
    """Headless Chromium, drawing in software; None where there is none."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        path = None
    if path is None:
        yield None
        return
    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


_REDRAWS = """async ([count, wide, high]) => {
  const input = document.querySelector('[data-control=threshold]'), canvas = document.createElement('canvas');
  canvas.width = wide; canvas.height = high;
  const context = canvas.getContext('2d'), image = context.createImageData(canvas.width, canvas.height);
  const words = new Uint32Array(image.data.buffer);
  const time = (work) => {
    const begun = performance.now();
    for (let k = 0; k < count; k++) work(k);
    return (performance.now() - begun) / count;
  };
  const empty = () => { for (let i = 0; i < words.length; i++) words[i] = i; context.putImageData(image, 0, 0); };
  const slide = (k) => { input.value = (k % 90) / 100; input.dispatchEvent(new Event('input')); };
  time(empty); time(slide);
  return [time(slide), time(empty)];
}"""


def _large(folder: Path) -> pl.Heatmap:
    """A map of a picture of 1000 x 750 pixels."""
    from PIL import Image

    file = folder / "large.png"
    Image.open(pl.media.samples.sample_path("coffee")).resize((_WIDE, _HIGH)).save(file)
    found: pl.Heatmap = pl.explain(pl.load(), str(file), "hires-cam")
    return found


def viewer(size: Size, _device: str) -> Iterator[Section]:
    """A slider moved, beside the redraw of an empty canvas of the same size."""
    about = f"The threshold of a map over {_WIDE} x {_HIGH} pixels is moved, 60 times a round, in headless Chromium."
    section = Section("The viewer", about)
    with tempfile.TemporaryDirectory() as folder, _browser() as browser:
        if browser is None:
            section.skipped = "no Chromium and playwright"
            yield section
            return
        page = Path(folder) / "page.html"
        page.write_text(_large(Path(folder)).html())
        shown = browser.new_page(viewport={"width": 1200, "height": 900})
        shown.goto(f"file://{page}")
        shown.locator("canvas.pv-map").first.wait_for()
        rounds = [shown.evaluate(_REDRAWS, [60, _WIDE, _HIGH]) for _ in range(3 * size.repeats)]
    section.rows = [
        Row("a slider moved : an empty canvas drawn again", Spread.of([a / b for a, b in rounds]), " x", at_most(3)),
        Row("frames a second while a slider moves", Spread.of([1000 / a for a, _ in rounds]), "", at_least(50)),
    ]
    yield section


def pages(size: Size, _device: str) -> Iterator[Section]:
    """A report of many heat maps, beside reading them."""
    section = Section("The report", f"{size.maps} heat maps of different pictures, saved beforehand.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        e = pl.explain(pl.load(), "sample:cat", "hires-cam")
        for k in range(size.maps):
            about = replace(e.record, model={**e.record.model, "weights": f"{k}"})  # each by itself, with its picture
            storage.save(replace(e, record=about), folder / f"{k}.hires-cam")
        files = sorted(folder.glob("*.json"))
        report(files[:2])
        built, alone = [], []
        for _ in range(size.repeats):
            begun = time.process_time()
            for file in files:
                read(file)
            between = time.process_time()
            text = report(files).text
            built.append((time.process_time() - between) / size.maps)
            alone.append((between - begun) / size.maps)
    beyond = [1000 * (b - a) for a, b in zip(alone, built, strict=True)]
    section.rows = [
        Row("processor time of a map, beyond reading it", Spread.of(beyond), " ms", at_most(20)),
        single("the page", len(text.encode()) / 1e6, " MB", at_most(40.0 * size.maps / 100)),
    ]
    yield section


@contextmanager
def _studio(home: Path) -> Iterator[tuple[str, float, int]]:
    """A running studio: its link, how long until it answered, its process."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pellucid", "studio", str(home), "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http\S+", process.stdout.readline())
    assert found is not None
    while True:
        with socket.socket() as door:
            if door.connect_ex(("127.0.0.1", port)) == 0:
                break
    try:
        yield found[0], time.perf_counter() - begun, process.pid
    finally:
        process.terminate()
        process.wait()


def _used(pid: int) -> float:
    """Processor seconds of a process, from the system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _worker(pid: int) -> int:
    """The process that a studio asks."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def studio(size: Size, _device: str) -> Iterator[Section]:
    """How soon it answers, how soon a result is seen, what an explanation costs there."""
    section = Section("The studio", "`pellucid studio`, its worker warm, over loopback.")
    with tempfile.TemporaryDirectory() as name, _browser() as browser:
        imports = [seconds([sys.executable, "-c", "import torch, fastapi"], name)[0] for _ in range(size.repeats)]
        ready = []
        for _ in range(size.repeats):
            with _studio(Path(name)) as (_, until, _):
                ready.append(until)
        ratios = [a / b for a, b in zip(ready, imports, strict=True)]
        section.rows.append(Row("ready : importing torch and fastapi", Spread.of(ratios), " x", at_most(1.5)))
        if browser is None:
            section.skipped = "no Chromium and playwright"
            yield section
            return
        with _studio(Path(name)) as (link, _, pid):
            section.rows += _used_in(browser.new_page(), link, lambda: _used(_worker(pid)), size.repeats)
    yield section


def _used_in(page: Any, link: str, used: Callable[[], float], repeats: int) -> list[Row]:
    page.goto(link)
    page.locator("form.ask").wait_for(timeout=120_000)
    costs, paints = [], []
    for k in range(repeats + 1):
        page.goto(link.split("/?", maxsplit=1)[0])
        page.select_option("[name=sample]", "cat")
        page.uncheck("input[value='grad-cam']")
        page.check("input[value='recipro-cam']")
        before = used()
        page.click("button.go")
        page.frame_locator("iframe").locator("article").first.wait_for(timeout=120_000)
        if k:
            costs.append(used() - before)
    for _ in range(3 * repeats):
        page.reload()
        page.wait_for_function(f"{_PAINT} !== undefined")  # it may come after the page is loaded
        paints.append(page.evaluate(f"{_PAINT}.startTime"))
    model = pl.load()
    plain = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            begun = time.process_time()
            pl.explain(model, "sample:cat", "recipro-cam").save(folder)
            plain.append(time.process_time() - begun)
        alone = [seconds([*_EXPLAIN, "--out", str(k)], folder)[1] for k in range(repeats)]
    command, python = (float(np.median(costs) / np.median(other)) for other in (alone, plain[1:]))
    return [
        Row("first paint of a result", Spread.of(paints), " ms", at_most(300)),
        single(
            "processor time of an explanation : the command line's", command, " x", at_most(1.1), "which starts anew"
        ),
        single(
            "processor time of an explanation : the same in Python",
            python,
            " x",
            at_most(1.1),
            "map and picture, no page",
        ),
    ]


SECTIONS: dict[str, Callable[[Size, str], Iterator[Section]]] = {"viewer": viewer, "report": pages, "studio": studio}
