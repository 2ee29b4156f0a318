"""What a widely used library gets wrong (Quantus 0.6), and what comes out here.

Its other errors are held elsewhere: insertion that never inserts, subsets that are none, empty masks that are hit,
similarity with oneself and attention weights that are never shuffled (`test_metrics.py`, `test_evaluate.py`).
"""

import math
import warnings

import numpy as np
import pytest
import torch

import pellucid as pl
from helpers.evaluations import Formula, candidate, linear, read, sample
from helpers.nets import noise
from pellucid.evaluation.banks import MapValues, RankCurves
from pellucid.evaluation.metrics import METRICS
from pellucid.evaluation.sample import Inquiry
from pellucid.evaluation.sanity import randomised_copy

X = noise(3, 14, 14).abs()


@pytest.fixture(scope="module")
def model():
    def answer(x):
        corner = x[..., :7, :7].mean((1, 2, 3))
        return torch.stack([corner * 9 - 5, 2 - corner], 1)

    return pl.wrap(Formula(answer).eval(), scores="softmax")


def corner(module, x, target):
    heat = torch.zeros(len(x), 14, 14)
    heat[:, :7, :7] = 1 + x.mean(1)[:, :7, :7]
    return heat


@pytest.mark.parametrize("name", ["road", "road-morf", "irof", "continuity", "pixel-flipping"])
def test_colour_pictures_are_measured(model, name):
    found = pl.evaluate(model, noise(3, 3, 14, 14).abs() + 1, {"corner": corner}, name)
    assert np.isfinite(found["corner", name]).all()


def test_every_sample_counts_whatever_the_batch(model):
    x = noise(5, 3, 14, 14).abs() + torch.arange(5).reshape(5, 1, 1, 1) * 0.2
    whole = pl.evaluate(model, x, {"corner": corner}, "road,sensitivity-n,relevance-mass", masks=[(0, 0, 7, 7)] * 5)
    assert whole.scores.shape[2] == 5
    assert np.isfinite(whole.scores[0]).all()
    alone = pl.evaluate(model, x[4:], {"corner": corner}, "road,sensitivity-n,relevance-mass", masks=[(0, 0, 7, 7)])
    assert whole.scores[0, :, 4] == pytest.approx(alone.scores[0, :, 0], abs=1e-5)


def test_completeness_is_a_distance_not_an_equality():
    weights = noise(3, 14, 14, seed=4)
    exact = (X * weights).sum(0)
    gap, half = read(METRICS["completeness-gap"].on("zero"), sample(X, linear(weights)), exact, exact / 2)
    assert gap < 1e-4
    assert half == pytest.approx(0.5, abs=1e-4)


def test_infidelity_takes_any_size_of_input():
    x = noise(1, 13, 11)
    assert read(METRICS["infidelity"].on("zero"), sample(x), x[0]) == pytest.approx([0], abs=1e-6)


def test_areas_hang_neither_on_the_number_of_steps_nor_leave_the_input_out():
    flat = torch.ones(1, 16, 16)
    of = sample(flat)
    for steps in (4, 8, 16):
        bank = RankCurves("zero", steps=steps)
        with Inquiry(of) as inquiry:
            (found,) = bank.answers(inquiry, [candidate(noise(16, 16), of)])
        assert float(found.morf[0]) == 256
        assert found.area(found.morf) / 256 == pytest.approx(0.5, abs=1e-5)


def test_the_size_of_another_samples_map_changes_nothing():
    spot, huge = torch.eye(14), 1e6 * noise(14, 14)
    alone = read(METRICS["sparseness"], sample(X), spot)[0]
    assert read(METRICS["sparseness"], sample(X), huge, spot)[1] == alone


def test_histograms_have_their_bins():
    ramp = torch.linspace(0, 1, 1000, dtype=torch.float64)
    assert METRICS["histogram-entropy"].measure(MapValues(ramp)) == pytest.approx(math.log(10), abs=1e-3)


def test_failures_are_said_and_settings_stay_with_their_method(model):
    seen = []

    def first(module, x, target, scale=2.0):
        seen.append(scale)
        raise ValueError("no map today")

    def second(module, x, target, scale=1.0):
        seen.append(scale)
        return x.mean(1) * scale

    found = pl.evaluate(model, X[None], {"first": first, "second": second}, "entropy")
    assert set(seen) == {1.0, 2.0}
    assert found.said[0][0] == "first"
    assert "no map today" in found.said[0][2]
    assert math.isnan(found["first", "entropy"][0])


def test_warnings_of_others_are_left_on(model):
    def warns(module, x, target):
        warnings.warn("look here", stacklevel=1)
        return x.mean(1)

    with pytest.warns(UserWarning, match="look here"):
        pl.evaluate(model, X[None], {"warns": warns}, "entropy")


def test_layers_of_one_size_are_shuffled_each_in_its_own_order():
    net = torch.nn.Sequential(torch.nn.Linear(9, 9), torch.nn.Linear(9, 9))
    net[1].weight.data.copy_(net[0].weight.data)
    twin = randomised_copy(net, noise(1, 9), 0)
    assert not torch.equal(twin[0].weight, twin[1].weight)


def test_a_first_layer_without_a_bias_meets_the_shifted_scale():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(4 * 14 * 14, 2),
    )  # fmt: skip
    found = pl.evaluate(pl.wrap(net.eval()), X[None], "saliency", "input-invariance")
    assert found["saliency", "input-invariance"] == pytest.approx([0], abs=1e-5)  # at the padded rim too


def test_maps_without_a_positive_value_are_measured():
    negative = -X.mean(0) - 1
    of = sample(X)
    for name in ("srg", "entropy", "sparseness", "sensitivity-n"):
        assert math.isfinite(read(METRICS[name].on("zero"), of, negative)[0]), name
