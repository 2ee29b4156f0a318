"""What speaks against maps that pass the other tests: a gradient of another function, a map beside its place."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.cases import STRETCH, planted_net
from pellucid.evaluation.mirror import reflection
from pellucid.evaluation.objections import objected
from pellucid.evaluation.slope import slope
from pellucid.heatmaps import GradCAM
from pellucid.heatmaps.base import Attribution, Method
from pellucid.models.targets import Class
from pellucid.scoring.job import Job

PLACE = (slice(8, 24), slice(40, 56))


def scene():
    values = np.random.default_rng(0).integers(100, 150, (64, 64, 3)).astype(np.uint8)
    values[PLACE] = 250
    return values


class HalfCut(nn.Module):
    """A sum of two linear functions, of which the graph knows one."""

    def __init__(self, a, b, known=True):
        super().__init__()
        self.a, self.b, self.known = nn.Parameter(a), nn.Parameter(b), known

    def forward(self, x):
        other = (x * self.b).sum((1, 2, 3))
        s = (x * self.a).sum((1, 2, 3)) + (other if self.known else other.detach())
        return torch.stack([s, -s], 1)


def linear(known):
    g = torch.Generator().manual_seed(0)
    a, b, x = (torch.rand(1, 3, 8, 8, generator=g) for _ in range(3))
    return pl.wrap(HalfCut(a, b, known)), a, b, x


def test_the_slope_of_a_linear_function_is_known_by_hand():
    model, *_, x = linear(known=True)
    assert slope(model, x, Class(0)) == pytest.approx(1, abs=1e-3)
    model, a, b, x = linear(known=False)
    expected = float((a * (a + b)).sum() / (a * a).sum())
    assert slope(model, x, Class(0)) == pytest.approx(expected, rel=1e-3)
    assert expected > 1.5


def test_a_gradient_of_zero_has_no_slope():
    class Flat(nn.Module):
        def forward(self, x):
            return torch.stack([x.sum((1, 2, 3)) * 0, x.sum((1, 2, 3))], 1)

    assert slope(pl.wrap(Flat()), torch.rand(1, 3, 8, 8), Class(0)) is None


class Rounded(nn.Module):
    """A network of two ways, one through a layer whose answers are rounded: it has no backward edge."""

    def __init__(self, net, rounded):
        super().__init__()
        self.net, self.rounded = net, rounded

    def forward(self, x):
        y = self.net(x)
        z = 3 * y
        return y + (torch.round(z * 1000) / 1000 if self.rounded else z)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_rounded_layer_is_said_of_gradient_methods_alone(rounded):
    model = pl.wrap(Rounded(planted_net(), rounded), transform=STRETCH, labels=("bright", "dark"))
    by_gradient, by_masks = pl.explain(model, scene(), ["grad-cam", "occlusion"], "bright", check=True)
    assert by_gradient.quality.verdict == ("partly faithful" if rounded else "faithful")
    assert ("along its gradient the score changes" in by_gradient.quality.line) is rounded
    assert "along its gradient" not in by_masks.quality.line


# ---------------------------------------------------------------- the mirror


def spot(row, column, width=1.5, side=14):
    at = torch.arange(side) + 0.5
    return torch.exp(-((at[:, None] - row) ** 2 + (at - column) ** 2) / (2 * width**2))


@pytest.mark.parametrize("by", [-2, 0, 2])
def test_what_is_displaced_lies_twice_as_far_apart_in_the_mirror(by):
    true = spot(6, 5)
    found = reflection(true.roll(by, 1), true.flip(1).roll(by, 1), (14, 14))
    assert found.apart == 2 * by
    assert found.moved == pytest.approx(1, abs=0.02)
    assert found.displaced is (by != 0)


def test_maps_that_have_nothing_in_common_are_not_called_displaced():
    g = torch.Generator().manual_seed(0)
    for _ in range(20):
        one, other = torch.randn(2, 14, 14, generator=g)
        assert not reflection(one, other, (14, 14)).displaced


@dataclass(frozen=True, kw_only=True)
class Moved(GradCAM):
    """Grad-CAM whose map is moved on the way: what a wrong geometry does."""

    by: int = 0
    name: ClassVar[str] = "moved"

    def combine(self, A, G):
        return super().combine(A, G).roll(self.by, 2)


def test_a_map_beside_its_place_is_not_called_faithful():
    net = nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        net[0].weight[0], net[0].weight[1] = 1 / 48, -1 / 48
        net[0].bias.copy_(torch.tensor([-0.8, 0.5]))
        net[4].weight.copy_(torch.tensor([[200.0, 0], [0, 20]]))
        net[4].bias.zero_()
    model = pl.wrap(net.eval(), transform=STRETCH, labels=("bright", "dark"))
    wide = scene()
    wide[8:40, 20:56] = 250
    true, beside = pl.explain(model, wide, [Moved(by=0), Moved(by=-3)], "bright")
    assert true.check().verdict == "faithful"
    passed = replace(true.quality, line="faithful: by the other tests")
    assert objected(passed, true, true.session, true.explained, true.ran) is passed
    found = objected(passed, beside, beside.session, beside.explained, beside.ran)
    assert found.verdict == "partly faithful"
    assert "beside the mirrored map" in found.line
    assert found.line.endswith("; by the other tests")


@dataclass(frozen=True)
class Known(Method):
    """A map that is given."""

    name: ClassVar[str] = "known"
    needs: ClassVar[str] = "outputs"
    uses_target: ClassVar[bool] = False

    @classmethod
    def run(cls, methods: Sequence["Known"], job: Job):
        values = torch.zeros(len(job.inputs), 64, 64)
        values[:, PLACE[0], PLACE[1]] = 1
        return [[Attribution(values) for _ in job.targets] for _ in methods]

    def parameters(self):
        return {}


class Formula(nn.Module):
    """How bright one place is: left is not right to it."""

    def forward(self, x):
        s = (x[:, :, PLACE[0], PLACE[1]].mean((1, 2, 3)) - 0.8) * 40
        return torch.stack([s, -s], 1)


def test_a_model_that_reads_one_place_is_not_asked_in_a_mirror():
    quality = pl.explain(pl.wrap(Formula(), transform=STRETCH), scene(), Known(), 0).check()
    assert quality.verdict == "faithful"
