"""Metrics that few libraries have: compactness, a patch that decides, and two banks put together."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist
from torch import nn

import pellucid as pl
from pellucid.evaluation.banks.altered import ItselfAndCurves, ItselfAndImputed, MapOfItself
from pellucid.evaluation.banks.curves import RankedScores
from pellucid.evaluation.banks.maps import MapValues
from pellucid.evaluation.banks.patched import AdversarialPatch, PatchedMap
from pellucid.evaluation.metrics import METRICS, as_metrics
from pellucid.evaluation.sample import Sample
from pellucid.evaluation.schedule import Schedule
from pellucid.models.targets import Class
from pellucid.numerics.spanning import spanning_length


def value(name, found):
    return METRICS[name].measure(found)


# --- compactness


def test_the_spanning_tree_is_that_of_all_distances():
    rng = np.random.default_rng(0)
    for shape in ((9, 9), (5, 6, 4)):
        points = np.argwhere(rng.random(shape) < 0.3).astype(float)
        length, volume = spanning_length(points)
        assert length == pytest.approx(minimum_spanning_tree(cdist(points, points)).sum())
        assert volume == pytest.approx(ConvexHull(points).volume)


def test_points_in_a_line_or_a_plane_have_a_tree_and_no_volume():
    line = np.array([[0.0, 0], [3, 3], [1, 1]])
    assert spanning_length(line) == (pytest.approx(3 * 2**0.5), 0.0)
    plane = np.array([[0.0, 0, 2], [0, 1, 2], [1, 0, 2], [1, 1, 2]])
    assert spanning_length(plane) == (pytest.approx(3), 0.0)


def test_compactness_by_hand():
    heat = torch.zeros(4, 5, dtype=torch.float64)
    heat[1:3, 1:3] = torch.tensor([[1.0, -2.0], [3.0, 1.0]])
    # Four places, a tree of three unit steps, a hull of one unit: 4 / 3 over a diagonal of sqrt(41).
    assert value("mst-c", MapValues(heat)) == pytest.approx(100 * 41**0.5 * 4 / 3)
    apart = torch.zeros(4, 5, dtype=torch.float64)
    apart[::3, ::4] = 1.0
    assert value("mst-c", MapValues(apart)) < value("mst-c", MapValues(heat))
    assert math.isnan(value("mst-c", MapValues(torch.zeros(4, 5))))


# --- two banks put together


def curves(kept):
    fractions = torch.linspace(0, 1, 11, dtype=torch.float64)
    most = torch.full((11, 3), -1.0, dtype=torch.float64)
    most[0] = 1
    least = torch.full((11, 3), -1.0, dtype=torch.float64)
    least[:kept] = 1
    return RankedScores(fractions, most, least)


def test_arcc_by_hand():
    mask = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    itself = MapOfItself(mask, mask, torch.ones(3), torch.ones(3))
    found = ItselfAndCurves(itself, curves(11))
    road = value("road", found.curves)
    assert road == pytest.approx(0.475)  # the area between 1 and a curve that falls at once
    assert value("arcc", found) == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.95))
    assert value("arcc", ItselfAndCurves(itself, curves(1))) == 0


class Corner(nn.Module):
    """Is there light in the upper left?"""

    def forward(self, x):
        light = x[:, :, :4, :4].mean((1, 2, 3)) * 10
        return torch.stack([light, 5 - light], 1)


def test_a_bank_of_banks_asks_nothing_besides():
    alone = Schedule.of(as_metrics("coherency,road"), [])
    joined = Schedule.of(as_metrics("coherency,road,arcc"), [])
    assert joined.forwards((12, 12), 3) == alone.forwards((12, 12), 3)
    assert joined.redrawn == alone.redrawn
    assert set(ItselfAndImputed.reads) == {METRICS["coherency"].bank, METRICS["road"].bank}
    x = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    model = pl.wrap(Corner().eval(), scores="softmax")
    both = pl.evaluate(model, x, "saliency", "coherency,road,sparseness,arcc")
    single = pl.evaluate(model, x, "saliency", "arcc")
    np.testing.assert_allclose(both["saliency", "arcc"], single["saliency", "arcc"])
    assert single.record.run["forwards"] <= both.record.run["forwards"]
    assert not any(text.startswith(":") for _, _, text in single.said)


# --- a patch that decides


def test_overlap_with_a_patch_by_hand():
    where = torch.tensor([True, True, False, False])
    assert value("impact-coverage", PatchedMap(torch.tensor([3.0, 2.0, 1.0, 0.0]), where)) == 1
    assert value("impact-coverage", PatchedMap(torch.tensor([3.0, 0.0, 2.0, 0.0]), where)) == pytest.approx(1 / 3)
    assert value("impact-coverage", PatchedMap(torch.zeros(4), where)) == pytest.approx(1 / 3)


class Brightest(nn.Module):
    """Which colour is there most of?"""

    def forward(self, x):
        return x.mean((2, 3)) * 20


@pytest.fixture(scope="module")
def looking():
    return pl.wrap(Brightest().eval(), scores="softmax")


def test_the_patch_brings_the_other_answer_about_and_changes_nothing_else(looking):
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    top = int(looking.module(x).argmax())
    bank, sample = AdversarialPatch(share=0.5), Sample(looking, x, Class(top))
    place = bank.place(sample.space, 0)
    assert place.sum() == 64
    other = Class((top + 1) % 3)
    patched = bank.patched(sample, other, place)
    assert int(looking.module(patched).argmax()) == other.index
    torch.testing.assert_close(patched[..., ~place], x[..., ~place])
    assert float(patched.min()) >= float(x.min())
    assert float(patched.max()) <= float(x.max())
    assert patched.grad_fn is None


def test_a_patch_that_decides_nothing_is_said(looking):
    model = pl.wrap(Corner().eval(), scores="softmax")
    x = torch.ones(1, 3, 12, 12)
    board = pl.evaluate(model, x, "saliency", "impact-coverage,sparseness")
    assert any("nothing to find" in text for _, _, text in board.said)
    assert np.isnan(board["saliency", "impact-coverage"]).all()
    assert np.isfinite(board["saliency", "sparseness"]).all()


def test_who_follows_the_gradient_finds_the_patch_and_chance_does_not(looking):
    x = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    board = pl.evaluate(looking, x, "occlusion", "impact-coverage")
    found = board["occlusion", "impact-coverage"]
    assert np.isfinite(found).any()
    assert np.nanmean(found) > np.nanmean(board["random order", "impact-coverage"])
