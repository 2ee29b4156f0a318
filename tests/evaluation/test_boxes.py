"""Figures of maps beside boxes and masks, each from its definition on maps made by hand."""

import math

import numpy as np
import pytest
import torch

import pellucid as pl
from helpers.detectors import Squares, scene
from pellucid.errors import DataError
from pellucid.evaluation.boxes import (
    box_figures,
    energy_inside,
    instance_curves,
    leaked,
    mask_overlap,
    mean_figures,
    places_of,
    pointing,
)
from pellucid.heatmaps import get_method

NAN = math.nan


def grid(*rows):
    return torch.tensor(rows, dtype=torch.float32)


MAP = grid([0, 1, NAN, 0], [2, 4, 0, -9], [0, 0, 0, 1])


def test_places_are_the_pixels_whose_centres_lie_inside():
    assert places_of((0.6, 0.4, 2.4, 2), (3, 4)).int().tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert int(places_of((1.6, 1.6, 1.9, 1.9), (3, 4)).sum()) == 1, "the nearest pixel at least"
    mask = np.eye(3, 4, dtype=bool)
    assert places_of(mask, (3, 4)).numpy().tolist() == mask.tolist()
    with pytest.raises(DataError, match="The mask is 4 x 3, and the map 3 x 4"):
        places_of(mask, (4, 3))
    with pytest.raises(DataError, match="a box x0,y0,x1,y1 or a mask"):
        places_of((1, 2, 3), (4, 3))


@pytest.mark.parametrize(
    ("place", "points", "energy"),
    [((0, 0, 2, 2), 1, 7 / 8), ((2, 0, 4, 3), 0, 1 / 8), ((1, 1, 2, 2), 1, 4 / 8), ((0, 0, 4, 3), 1, 1)],
)
def test_pointing_and_energy(place, points, energy):
    assert pointing(MAP, place) == points
    assert energy_inside(MAP, place) == energy


def test_equal_peaks_and_empty_maps_gain_nothing():
    flat = torch.ones(2, 4)
    assert pointing(flat, (0, 0, 1, 2)) == 0.25
    assert mask_overlap(flat, (0, 0, 2, 2)) == pytest.approx(2 / 6), "half of the ties inside"
    assert pointing(torch.zeros(2, 4), (0, 0, 1, 2)) == 0
    assert math.isnan(energy_inside(-flat, (0, 0, 1, 2)))


def test_mask_overlap_takes_as_many_pixels_as_the_place_has():
    assert mask_overlap(MAP, (0, 1, 2, 2)) == 1
    assert mask_overlap(MAP, (1, 0, 2, 2)) == pytest.approx(1 / 3)
    generator = torch.Generator().manual_seed(0)
    values, mask = torch.rand(9, 7, generator=generator), torch.rand(9, 7, generator=generator) < 0.3
    strongest = torch.zeros(63, dtype=torch.bool)
    strongest[values.flatten().argsort(descending=True)[: int(mask.sum())]] = True
    own = strongest.reshape(9, 7)
    assert mask_overlap(values, mask) == pytest.approx(float((own & mask).sum() / (own | mask).sum()))


def test_what_leaks_to_others_of_the_class():
    assert leaked(MAP, (0, 0, 2, 2), [(3, 2, 4, 3)]) == pytest.approx(1 / 8)
    assert leaked(MAP, (1, 0, 2, 2), [(0, 1, 2, 2)]) == pytest.approx(2 / 7), "the overlap is its own"
    assert math.isnan(leaked(MAP, (0, 0, 2, 2), []))
    assert math.isnan(leaked(MAP, (2, 0, 3, 1), [(2, 1, 3, 2)]))


def test_means_have_intervals_and_leave_out_what_is_undefined():
    rows = [{"a": float(k % 2), "b": NAN} for k in range(40)] + [{"b": 2.0}]
    found = mean_figures(rows)
    mean, low, high, count = found["a"]
    assert (mean, count) == (0.5, 40)
    assert low == pytest.approx(0.5 - 1.96 * 0.5 / 40**0.5, abs=0.03)
    assert high == pytest.approx(0.5 + 1.96 * 0.5 / 40**0.5, abs=0.03)
    assert found["b"][0] == 2
    assert found["b"][3] == 1
    assert math.isnan(found["b"][1]), "one map has no interval"


def test_a_map_of_a_planted_box_by_all_figures():
    model = pl.wrap(Squares(), labels=["red", "blue"], task="boxes")
    e = pl.explain(model, scene()[0], get_method("occlusion", window=8, stride=8), "box:red")
    figures = box_figures(e, (8, 16, 16, 24), [(24, 0, 32, 8)])
    assert figures == pytest.approx({"pointing": 1, "energy": 1, "mask_iou": 1, "leaked": 0})
    curves = instance_curves(e)
    e.check()
    assert curves == {"insertion": e.quality.insertion.auc, "deletion": e.quality.deletion.auc}
    assert curves["insertion"] > curves["deletion"]
