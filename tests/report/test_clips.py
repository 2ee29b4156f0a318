"""Clips and volumes in the viewer: the frame that is shown, the evidence over time, planes; raw values everywhere."""

import numpy as np
import pytest
import torch

from pellucid.media import Geometry
from pellucid.media.clip import Clip
from pellucid.results import Heatmaps, VideoHeatmap
from report.cases import heatmap, record
from report.test_viewer import point_at, same, told

TICKS = (0.0, 0.25, 0.5, 1.0, 1.25, 1.5)
IN_TIME = Geometry((6, 40, 60), (6, 32, 32), ((0.0, 6.0), (4.0, 36.0), (14.0, 46.0)), ticks=TICKS, unit="s")
VOLUME = Geometry((9, 30, 40), (9, 30, 40), ((0.0, 9.0), (0.0, 30.0), (0.0, 40.0)))


def clip(seed=0, **kwargs):
    values = np.random.default_rng(seed).normal(size=(3, 5, 5)) + np.array([0.1, 3.0, -1.0]).reshape(3, 1, 1)
    made = heatmap(values, geometry=IN_TIME, picture=None, record=record(name="clip"), **kwargs)
    error = {"standard_error": torch.full((1, 3, 5, 5), 0.25)}
    return VideoHeatmap(**{**vars(made), "extras": error, "picture": footage()})


def footage():
    frames = np.zeros((6, 40, 60, 3), np.uint8)
    frames[..., 1] = np.arange(6).reshape(6, 1, 1) * 40
    return Clip(frames, TICKS, "clip", "", "0")


@pytest.fixture
def page_of(tmp_path):
    def write(*explanations):
        file = tmp_path / "page.html"
        file.write_text(Heatmaps(explanations).html())
        return file

    return write


def test_a_frame_is_shown_with_its_own_values(page_of, opened):
    e = clip()
    truth = e.heatmap()[0].numpy()
    random = np.random.default_rng(2)
    with opened(page_of(e)) as watched:
        page = watched.page
        for index in (0, 2, 5):
            page.locator("[data-control=index]").fill(str(index))
            for pixel in zip(random.integers(0, 40, 17), random.integers(0, 60, 17), strict=True):
                point_at(page, pixel, truth.shape[1:])
                at, values = told(page)
                assert at == (index, *pixel)
                assert same(values[0], truth[at])
            assert f"{TICKS[index]:g} s" in page.locator(".pv-said").inner_text()


def test_the_strip_is_the_temporal_curve_and_leads_to_the_peak(page_of, opened):
    e = clip()
    curve = e.temporal()
    with opened(page_of(e)) as watched:
        page = watched.page
        bars = page.locator(".pv-time rect[data-value]")
        assert [float(b.get_attribute("data-value")) for b in bars.all()] == pytest.approx(list(curve.values))
        assert page.locator(".pv-time .pv-band").count() == 3
        peak = int(np.abs(np.array(TICKS) - curve.peak).argmin())
        assert f"{peak + 1} / 6" in page.locator(".pv-time").inner_text()  # where it opens
        box = page.locator(".pv-time svg").bounding_box()
        page.mouse.click(box["x"] + 0.99 * box["width"], box["y"] + 10)
        assert "6 / 6, 1.5 s" in page.locator(".pv-time").inner_text()
        page.locator(".pv-stage").focus()
        page.keyboard.press(",")
        assert "5 / 6" in page.locator(".pv-time").inner_text()


def test_the_ground_is_the_frame_of_the_video(page_of, opened):
    pytest.importorskip("av")
    with opened(page_of(clip())) as watched:
        page = watched.page
        page.wait_for_function("document.querySelector('video').readyState >= 2")
        for index, green in ((0, 0), (5, 200), (0, 0)):  # a frame that never comes is the timeout of the wait
            page.locator("[data-control=index]").fill(str(index))
            found = page.wait_for_function(
                "green => { const c = document.querySelector('canvas.pv-ground');"
                " const there = c.getContext('2d').getImageData(3, 3, 1, 1).data[1];"
                " return Math.abs(there - green) <= 12 ? [there] : null }",
                arg=green,
            )
            assert found.json_value()[0] == pytest.approx(green, abs=12)


def test_a_volume_is_cut_in_three_planes(page_of, opened):
    values = np.random.default_rng(5).normal(size=(3, 6, 8))
    e = heatmap(values, geometry=VOLUME, picture=None)
    truth = e.heatmap()[0].numpy()
    with opened(page_of(e)) as watched:
        page = watched.page
        for plane in (0, 1, 2):
            page.select_option("[data-control=plane]", str(plane))
            index = truth.shape[plane] - 2
            page.locator("[data-control=index]").fill(str(index))
            flat = [n for axis, n in enumerate(truth.shape) if axis != plane]
            for pixel in [(1, 2), (flat[0] // 2, flat[1] // 3)]:
                point_at(page, pixel, flat)
                at, found = told(page)
                assert at[plane] == index
                assert same(found[0], truth[at])
