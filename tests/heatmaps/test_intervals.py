"""Intervals of sampled maps against what the maps converge to: they hold it at 95 %, from two blocks of masks on."""

import pytest
import torch
from tests.helpers.games import seed
from torch import nn

from pellucid.heatmaps import RISE
from pellucid.heatmaps.sampling import orthogonal_block
from pellucid.heatmaps.sensitivity import HSIC, hsic, median_distance
from pellucid.numerics.statistics import half_width

RUNS = [pytest.param(30, 0.89, 0.995), pytest.param(400, 0.91, 0.98, marks=pytest.mark.slow)]
"""A coarse grid on 8 x 8 places has four shifts, and two blocks share one in a quarter of the runs: the hard case."""


class Bent(nn.Module):
    """A steep vote of an 8 x 8 picture's places."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.rand(8, 8, generator=seed(3)) ** 3, requires_grad=False)

    def forward(self, x):
        return torch.sigmoid(8 * ((x[:, 0] * self.weights).sum((1, 2)) / self.weights.sum() - 0.5))[:, None]


@pytest.fixture(scope="module")
def far():
    """What RISE converges to: 256 blocks."""
    with torch.no_grad():
        return RISE(cells=4, samples=2**14, seed=999).attribute(Bent().eval(), torch.ones(1, 1, 8, 8), 0)[0]


@pytest.mark.parametrize("samples", [128, 256, "auto"])  # of 64 in a block
@pytest.mark.parametrize(("runs", "least", "most"), RUNS)
def test_rise(far, samples, runs, least, most):
    net, inside = Bent().eval(), []
    for number in range(runs):
        (found,) = RISE(cells=4, samples=samples, tolerance=0.3, seed=number).explain(net, torch.ones(1, 1, 8, 8), [0])
        inside.append((found.extras["low"][0] <= far) & (far <= found.extras["high"][0]))
    assert least <= float(torch.stack(inside).float().mean()) <= most


@pytest.mark.parametrize("blocks", [2, 4, 8])
@pytest.mark.parametrize(("runs", "least", "most"), RUNS)
def test_hsic(blocks, runs, least, most):
    """Cells without influence too, whose values are squares of noise."""
    cells, method = 8, HSIC()
    weights = torch.tensor([1.0, 0.7, 0.4, 0.2, 0.1, 0, 0, 0], dtype=torch.float64)

    def masks(count, generator):
        return torch.stack([orthogonal_block(cells, generator) for _ in range(count)])

    def score(z):
        return torch.sigmoid(6 * (z.double() @ weights - 1.2)) + 0.2 * z[..., 4] * z[..., 5]

    every = ((torch.arange(2**cells)[:, None] >> torch.arange(cells)) & 1).double()  # the population, each once
    truth = hsic(every, score(every)[None], median_distance(score(every)[None])) * (255 / 256) ** 2
    held = []
    for number in range(runs):
        drawn = masks(blocks, seed(number))
        values, error = method.estimate(drawn, score(drawn)[None])
        low, high = method.ends(values, error, torch.tensor([blocks]))
        held.append((low <= truth + 1e-12) & (truth <= high))
    assert least <= float(torch.stack(held).float().mean()) <= most


def test_two_blocks_have_a_wide_interval_and_not_two_errors():
    (found,) = RISE(cells=4, samples=128).explain(Bent().eval(), torch.ones(1, 1, 8, 8), [0])
    low, high, error = (found.extras[name] for name in ("low", "high", "standard_error"))
    torch.testing.assert_close((high - low) / 2, half_width(error, 1).float(), rtol=1e-4, atol=1e-6)
    assert ((high - low) >= 24 * error).all()
