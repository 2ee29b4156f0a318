"""Boxes and regions as layers over a map: where they lie in the original's pixels, and each shown or not."""

import re

import numpy as np
import pytest
import torch

from pellucid.explanation import Prediction
from pellucid.media import Geometry
from pellucid.render.viewer.outlines import edge_path, outlines
from pellucid.results import Heatmaps
from report.cases import heatmap

WHOLE = Geometry((60, 90), (60, 90), ((0.0, 60.0), (0.0, 90.0)))
DOG, CAT = (10.0, 5.0, 40.0, 30.0), (50.0, 20.0, 80.0, 55.0)


def detected():
    answers = [Prediction(1, "dog", 0.9, place=DOG), Prediction(2, "<b>cat</b>", 0.8, place=CAT)]
    extras = {"box": torch.tensor([DOG])}
    return heatmap(np.eye(6), geometry=WHOLE, prediction=answers, extras=extras, target="box 1: dog")


def sufficient():
    cells = torch.zeros(1, 3, 6, 9)
    cells[0, 0, 1:3, 2:5] = 1
    cells[0, 1, 4, 0] = 1
    values = (cells[0] / torch.arange(1, 4).reshape(-1, 1, 1)).sum(0)
    return heatmap(values.numpy(), geometry=WHOLE, extras={"regions": cells}, method="sufficient", signed=False)


def region():
    inside = torch.zeros(1, 60, 90, dtype=torch.bool)
    inside[0, 20:40, 30:60] = True
    return heatmap(np.eye(6), geometry=WHOLE, extras={"region": inside}, method="saliency", target="region: road")


def lengths(path):
    """How long all lines of a path are, across and down."""
    across = sum(float(b) - float(a) for a, b in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)", path))
    down = sum(float(b) - float(a) for a, b in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", path))
    return across, down


@pytest.mark.parametrize("seed", range(5))
def test_an_edge_lies_between_every_inside_and_its_outside(seed):
    inside = np.random.default_rng(seed).random((7, 9)) < 0.5
    ringed = np.pad(inside, 1)
    across = sum(ringed[y, x] != ringed[y + 1, x] for y in range(8) for x in range(11))
    down = sum(ringed[y, x] != ringed[y, x + 1] for y in range(9) for x in range(10))
    assert lengths(edge_path(inside, 2, 3)) == (3 * across, 2 * down)
    assert edge_path(np.zeros((3, 3), bool)) == ""


def test_shapes_are_those_of_the_results():
    found = outlines([detected(), sufficient(), region()])
    assert [(s["layer"], s.get("map")) for s in found] == [
        ("answers", None),
        ("asked", 0),
        ("sufficient", 1),
        ("sufficient", 1),
        ("region", 2),
    ]
    assert found[0]["box"] == list(CAT)
    assert found[1]["box"] == list(DOG)
    x0, y0, x1, y1 = 20, 10, 50, 30  # cells of ten pixels
    assert lengths(found[2]["path"]) == pytest.approx((2 * (x1 - x0), 2 * (y1 - y0)), abs=2)
    assert found[2]["at"] == pytest.approx([x0, y0], abs=1)
    assert lengths(found[4]["path"]) == pytest.approx((2 * 30, 2 * 20), abs=2)
    assert outlines([heatmap(np.eye(6), geometry=WHOLE)]) == []


def test_a_place_has_a_ring_around_it():
    inside = torch.zeros(1, 60, 90, dtype=torch.bool)
    inside[0, 30, 45] = True
    [shape] = outlines([heatmap(np.eye(6), geometry=WHOLE, extras={"region": inside})])
    assert shape["path"].startswith("M43.2 30.5a2.2") or shape["path"].startswith("M43.3 30.5a2.2")


def test_layers_are_shown_and_hidden_by_their_names_and_by_a_key(tmp_path, opened):
    file = tmp_path / "page.html"
    file.write_text(Heatmaps([detected(), sufficient(), region()]).html())
    with opened(file) as watched:
        page = watched.page

        def shown():
            return [p.locator("g").count() for p in page.locator(".pv-picture svg").all()]

        assert shown() == [2, 3, 2]
        names = page.locator(".pv-picture svg").nth(0).locator("g").evaluate_all("g => g.map((e) => e.ariaLabel)")
        assert names == ["<b>cat</b> 80%", "box 1: dog"]
        box = page.locator(".pv-layer-asked rect").bounding_box()
        whole = page.locator(".pv-picture").nth(0).bounding_box()
        share = [(box["x"] - whole["x"]) / whole["width"], (box["y"] - whole["y"]) / whole["height"]]
        assert share == pytest.approx([DOG[0] / 90, DOG[1] / 60], abs=0.02)
        for layer, left in {
            "answers": [1, 2, 1],
            "sufficient": [1, 0, 1],
            "asked": [0, 0, 1],
            "region": [0, 0, 0],
        }.items():
            control = page.locator(f"[data-control={layer}]")
            assert page.locator(f'label[for="{control.get_attribute("id")}"]').inner_text()
            control.uncheck()
            assert shown() == left
        page.locator(".pv-stage").focus()
        page.keyboard.press("o")
        assert shown() == [2, 3, 2]
        assert page.locator("[data-control=region]").is_checked()
        page.keyboard.press("o")
        assert shown() == [0, 0, 0]
