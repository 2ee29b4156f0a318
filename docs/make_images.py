"""Make every picture in the documentation with Pellucid itself: `python docs/make_images.py [NAME ...]`.

The photos are CC0 or public domain files inside scikit-image; the model is the embedded one. Clips are generated, and
explained on networks trained on them; the head is the MNI template of nilearn, under deepbet's network (`pip install
nilearn deepbet`). Pages are shown by Debian's Chromium. Nothing is downloaded.
"""

import io
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from matplotlib.figure import Figure
from method_pictures import OF_METHODS
from PIL import Image

import pellucid as pl
from pellucid.heatmaps import (
    RISE,
    CompleteRegion,
    IntegratedGradients,
    LayerCAM,
    NecessaryRegion,
    SufficientRegion,
)
from pellucid.render import figure_png


class Drawn(Protocol):
    """A result with a figure."""

    def figure(self) -> Figure:
        """Its figure."""


IMAGES = Path(__file__).parent / "images"
LARGEST = 250_000  # bytes a picture
OF_A_PAGE = 160_000  # of those on the methods' own pages
TRUE_COLOUR = 60_000  # bytes from which on a picture gets a palette
SHEETS = 200_000  # of those that are all textures and crops
UNITS = [0, 1, 2, 3, 4, 5]


def coffee(model: pl.VisionModel) -> pl.Heatmaps:
    """Three methods, measured."""
    methods = ["grad-cam", "hires-cam", IntegratedGradients()]
    return pl.explain(model, "sample:coffee", method=methods, check=True)


def brain(_: pl.VisionModel) -> pl.Heatmaps:
    """What deepbet's network calls brain, beside the grey and white matter of the template: what a study ends in."""
    from importlib.metadata import distribution
    from importlib.util import find_spec

    from pellucid.media import read_volume

    class Scaled(torch.nn.Module):
        """A window scaled as deepbet does, and its network's answer."""

        def __init__(self, network: torch.nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> Any:
            axes = (2, 3, 4)
            deviation = x.std(axes, keepdim=True).clamp(min=1e-6)
            return self.network(0.226 * (x - x.mean(axes, keepdim=True)) / deviation + 0.449)

    file = Path(str(distribution("deepbet").locate_file("data/models/bbox_model.pt")))
    network = pl.Unscripted(torch.jit.load(file).eval())
    model = pl.wrap(
        pl.SlidingWindow(Scaled(network), (128, 128, 128)),
        transform=pl.VolumePreprocess(spacing=1.85, intensity="percentile"),
        labels=["background", "brain"],
        name="deepbet, box network",
    )
    maps = pl.explain(model, "volume:mni-t1", ["grad-cam", "saliency"], "region:brain")
    where = (find_spec("nilearn").submodule_search_locations or [""])[0]  # type: ignore[union-attr]
    data = Path(where) / "datasets" / "data"
    grey, white = (read_volume(next(data.glob(f"mni_icbm152_{kind}_*.nii.gz"))).values for kind in ("gm", "wm"))
    for e in maps:
        e.reliability((grey + white) > 127)
        e.extras["truth"] = torch.from_numpy((grey + white) > 127)[None]
    return maps


def contrast(model: pl.VisionModel) -> pl.Heatmaps:
    """Why a tabby rather than a lynx?"""
    methods = ["hires-cam", IntegratedGradients(max_steps=100)]
    return pl.explain(model, "sample:cat", method=methods, target="tabby>lynx", check=True)


def boxes(model: pl.VisionModel) -> pl.Heatmaps:
    """What two boxes of a toy detector go by: one around what is bright, one around what is dark."""
    plain = pl.Preprocess(input_size=(96, 144), resize=(96, 144), mean=(0, 0, 0), std=(1, 1, 1))
    toy = pl.wrap(_bright_and_dark, labels=["bright", "dark"], transform=plain, name="bright and dark")
    return pl.explain(toy, "sample:coffee", RISE(samples=2048), ["box:bright", "box:dark", "box:bright/left"])


def _bright_and_dark(batch: torch.Tensor) -> list[dict[str, list[Any]]]:
    """A box around what is bright and one around what is dark; a score is how much of its box is so."""
    answers: list[dict[str, list[Any]]] = []
    for picture in batch.mean(1):
        found: dict[str, list[Any]] = {"boxes": [], "labels": [], "scores": []}
        for label, places in enumerate([picture > 0.75, picture < 0.12]):
            rows, columns = places.nonzero(as_tuple=True)
            if len(rows) > 20:
                y, x = (torch.quantile(at.float(), torch.tensor([0.05, 0.95])).tolist() for at in (rows, columns))
                inside = places[int(y[0]) : int(y[1]) + 1, int(x[0]) : int(x[1]) + 1]
                found["boxes"].append([x[0], y[0], x[1], y[1]])
                found["labels"].append(label)
                found["scores"].append(float(inside.float().mean()))
        answers.append(found)
    return answers


def enough(model: pl.VisionModel) -> pl.Heatmaps:
    """A map, and what is enough, needed, and both."""
    methods = [RISE(samples=1024), SufficientRegion(), NecessaryRegion(), CompleteRegion()]
    return pl.explain(model, "sample:coffee", method=methods)


def ways(model: pl.VisionModel) -> pl.Heatmaps:
    """Up to three regions that would each do by themselves, on two baselines."""
    return pl.explain(model, "sample:cat", method=[SufficientRegion(many=3, baseline=b) for b in ("zero", "blur")])


def every_method(model: pl.VisionModel) -> pl.Heatmaps:
    """All white-box methods that suit, on one sheet."""
    return pl.explain(model, "sample:cat", method=pl.advise(model).methods())


def channels(model: pl.VisionModel) -> pl.Heatmaps:
    """One number for each channel of a layer."""
    return pl.Heatmaps([pl.explain(model, "sample:coffee", method="channel-relevance")])


def depth(model: pl.VisionModel) -> pl.Heatmaps:
    """One method at layers from shallow to deep."""
    methods = [LayerCAM(layer=layer) for layer in ("blocks.1", "blocks.3", "blocks.5", "bn2")]
    return pl.explain(model, "sample:coffee", method=methods)


def superpixels(model: pl.VisionModel) -> pl.Importance:
    """What each superpixel adds to the score, with intervals."""
    return pl.importance(model, "sample:cat", "superpixels", "shapley")


def local_tree(model: pl.VisionModel) -> pl.Importance:
    """The score as rules about which superpixels are there."""
    return pl.importance(model, "sample:cat", "superpixels", "tree", count=10, target="Egyptian cat")


def importance_channels(model: pl.VisionModel) -> pl.Importance:
    """What each channel of a layer adds."""
    return pl.importance(model, "sample:coffee", "channels", "shapley", layer="blocks.6")


def importance_folder(model: pl.VisionModel) -> pl.Importance:
    """What each channel adds over many pictures."""
    names = ("cat", "coffee", "rocket", "motorcycle", "astronaut", "camera", "clock", "coins", "horse", "page")
    return pl.importance(model, [f"sample:{name}" for name in names], "channels", "gradient", layer="blocks.6")


def concepts(model: pl.VisionModel) -> pl.Concepts:
    """What the last layer tells apart in crops of a few photos."""
    photos = ("astronaut", "cat", "coffee", "rocket", "motorcycle", "retina", "coins", "galaxies", "ihc", "page")
    given = [f"sample:{name}" for name in photos]
    return pl.concepts(model, given, "bn2", "nmf", count=12, crops=4, limit=80)


def units(model: pl.VisionModel) -> pl.FeatureImages:
    """Six channels of a middle layer."""
    return pl.visualize(model, layer="blocks.3", channel=UNITS)


def espresso(model: pl.VisionModel) -> pl.FeatureImages:
    """A class, by phases only."""
    return pl.FeatureImages([pl.visualize(model, target="espresso", parametrization="maco")])


def stages(model: pl.VisionModel) -> pl.Stages:
    """One method at every stage of the network, and what flows through each."""
    return pl.stages(model, "sample:cat", "lrp")


def layers(model: pl.VisionModel) -> pl.Activations:
    """A picture through the layers."""
    return pl.activations(model, "sample:cat", layer=["blocks.0", "blocks.2", "blocks.4"])


def atlas(model: pl.VisionModel) -> pl.AtlasSheet:
    """A layer over all sample pictures."""
    return pl.atlas(model, "sample:*", layer="blocks.5")


@dataclass(frozen=True)
class Why:
    """The reasons of a readable model for one picture."""

    model: pl.Distilled
    picture: str

    def figure(self) -> Figure:
        """The picture beside its reasons."""
        return self.model.evidence(self.picture, most=4)


def tree(_model: pl.VisionModel) -> pl.Distilled:
    """A tree in place of a small network."""
    return pl.distill("digits:", "tree", "cnn")


def why(_model: pl.VisionModel) -> Why:
    """Why a bottleneck says what it says of one digit."""
    return Why(pl.distill("digits:", "bottleneck", "cnn"), "digits:7")


SHEETLIKE = (pl.FeatureImages, pl.Activations, pl.AtlasSheet, pl.Distilled, Why)


def video_motion(_model: pl.VisionModel) -> pl.Heatmaps:
    """A clip whose truth is known: the green square's steps decide, the red one's say nothing."""
    return pl.explain("suite:motion", "suite:motion", method="grad-cam,occlusion", check=True)


def video_overlay(_model: pl.VisionModel) -> pl.VideoHeatmap:
    """The same clip under its map, as a video."""
    return pl.explain("suite:motion", "suite:motion", method="grad-cam")


PICTURES: dict[str, Callable[[pl.VisionModel], Drawn]] = {
    f.__name__: f
    for f in (
        *OF_METHODS, coffee, boxes, enough, ways, every_method, channels, depth, contrast, superpixels, local_tree,
        importance_channels, importance_folder, units, espresso, layers, stages, atlas, concepts, tree, why,
        video_motion, brain,
    )
}  # fmt: skip


@contextmanager
def page_of(width: int, height: int) -> Iterator[Any]:
    """A page of headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as api:
        browser = api.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield browser.new_page(viewport={"width": width, "height": height})
        browser.close()


def few_colours(png: bytes) -> bytes:
    """The picture in the 256 colours that suit it best."""
    buffer = io.BytesIO()
    dithered(Image.open(io.BytesIO(png)).convert("RGB")).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def report(model: pl.VisionModel) -> bytes:
    """The report that `make demo` writes, as it opens."""
    found = pl.explain(model, "sample:cat", method=["grad-cam", "hires-cam", "layer-cam"], check=True)
    with tempfile.TemporaryDirectory() as folder, page_of(1180, 900) as page:
        file = Path(folder) / "report.html"
        file.write_text(found.html())
        page.goto(f"file://{file}")
        page.locator(".pv-pane").last.wait_for()
        box = page.locator(".pv-picture").first.bounding_box()
        page.mouse.move(box["x"] + 0.52 * box["width"], box["y"] + 0.62 * box["height"])
        return few_colours(page.screenshot())


@contextmanager
def opened_studio(models: str = "efficientnet-lite0") -> Iterator[tuple[Any, str]]:
    """A page of a studio that has just started, and its address."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        port = door.getsockname()[1]
        door.close()
        command = [sys.executable, "-m", "pellucid", "studio", folder, "--port", str(port), "--model", models]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            found = re.search(r"http\S+", process.stdout.readline())
            assert found is not None
            with page_of(1180, 900) as page:
                page.set_default_timeout(300_000)
                page.goto(found[0])
                page.locator("form.ask").wait_for()
                yield page, found[0].partition("?")[0]
        finally:
            process.terminate()


def shown(page: Any, last: str) -> bytes:
    """What a page shows once its frame holds the last of something."""
    page.frame_locator("iframe").locator(last).last.wait_for()
    page.wait_for_timeout(1500)
    return few_colours(page.screenshot())


def studio(_: pl.VisionModel) -> bytes:
    """A result in the studio."""
    with opened_studio() as (page, _address):
        page.select_option("[name=sample]", "cat")
        page.check("input[value='layer-cam']")
        page.fill("[name=target]", "tabby,lynx")
        page.click("button.go")
        return shown(page, ".pv-pane")


def studio_asked(_: pl.VisionModel) -> bytes:
    """A question before it is asked: methods with what they cost here."""
    with opened_studio() as (page, _address):
        page.select_option("[name=sample]", "coffee")
        for name in ("hires-cam", "layer-cam"):
            page.check(f"input[value='{name}']")
        page.fill("[name=target]", "espresso")
        page.locator("output.cost:not(:empty)").wait_for()
        page.locator(".methods").evaluate("e => e.scrollTop = 0")
        return few_colours(page.screenshot())


def studio_clip(_: pl.VisionModel) -> bytes:
    """A clip, with the evidence over time."""
    with opened_studio("suite:motion") as (page, address):
        page.goto(f"{address}video")
        page.select_option("[name=suite]", "motion")
        page.click("button.go")
        frame = page.frame_locator("iframe")
        frame.locator(".pv-time").wait_for()
        frame.locator(".pv-time").scroll_into_view_if_needed()
        return shown(page, ".pv-time")


def studio_unit(_: pl.VisionModel) -> bytes:
    """The picture of a unit."""
    with opened_studio() as (page, address):
        page.locator("output.cost:not(:empty)").wait_for()  # its layers are known then
        page.goto(f"{address}model")
        page.locator("[name=layer]").first.select_option("blocks.3")
        page.fill("[name=channel]", "3")
        page.locator("button.go").first.click()
        return shown(page, ".unit img")


PAGES: dict[str, Callable[[pl.VisionModel], bytes]] = {
    f.__name__: f for f in (report, studio, studio_asked, studio_clip, studio_unit)
}


def dithered(panel: Image.Image) -> Image.Image:
    """The panel in the 256 colours that suit it best."""
    palette = panel.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=2)
    return panel.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


VIDEOS: dict[str, Callable[[pl.VisionModel], pl.VideoHeatmap]] = {f.__name__: f for f in (video_overlay,)}


def write(name: str, found: Drawn) -> Path:
    """The panel as PNG, in true colour if that is small, else with a palette of its own, dithered."""
    largest = OF_A_PAGE if name in {drawn.__name__ for drawn in OF_METHODS} else LARGEST
    for dpi in (100, 90, 80, 70, 60, 50, 45):
        figure = found.figure(top=6, pictures=6) if isinstance(found, pl.Concepts) else found.figure()
        panel = Image.open(io.BytesIO(figure_png(figure, dpi)))
        sheet = isinstance(found, SHEETLIKE) or name == every_method.__name__
        for picture in (panel, panel.quantize(256, method=Image.Quantize.FASTOCTREE) if sheet else dithered(panel)):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", optimize=True)
            if buffer.tell() < (TRUE_COLOUR if picture is panel else SHEETS if sheet else largest):
                path = IMAGES / f"{name}.png"
                path.write_bytes(buffer.getvalue())
                return path
    raise SystemExit(f"{name} does not fit into {largest} bytes: explain fewer things in it.")


def main(names: list[str]) -> None:
    """Make the pictures named, or all."""
    IMAGES.mkdir(exist_ok=True)
    model = pl.load()
    for name in names or [*PICTURES, *VIDEOS, *PAGES]:
        if name in PAGES:
            path = IMAGES / f"{name}.png"
            path.write_bytes(PAGES[name](model))
            print(f"{path.name}: {path.stat().st_size // 1000} kB")
            continue
        if name in VIDEOS:
            path = IMAGES / f"{name}.webm"
            path.write_bytes(VIDEOS[name](model).video())
            print(f"{path.name}: {path.stat().st_size // 1000} kB")
            continue
        found = PICTURES[name](model)
        path = write(name, found)
        print(f"{path.name}: {path.stat().st_size // 1000} kB")
        if isinstance(found, pl.Importance):
            print(
                *(f"  {row['rank']}. {row['player']} {row['importance']:+.3g}" for row in found.table()[:5]), sep="\n"
            )
            continue
        for e in found if isinstance(found, list) else []:
            asked = f"{e.method} for {e.target}" if isinstance(e, pl.Heatmap) else e.objective
            print(f"  {asked}", *([e.quality.line] if e.quality else []), *e.notes, sep="\n    ")


if __name__ == "__main__":
    main(sys.argv[1:])
