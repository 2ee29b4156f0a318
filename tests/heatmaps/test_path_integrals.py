"""Path methods against integrals that can be written down, and against the exact values of PAIR's own tests."""

import math

import pytest
import torch
from torch import nn

from pellucid.engine.baselines import blur
from pellucid.heatmaps import XRAI, BlurIG, GuidedIG, IntegratedGradients


class Score(nn.Module):
    """A formula of the flat input as class 1, beside a class that is always 0."""

    def __init__(self, formula):
        super().__init__()
        self.formula = formula

    def forward(self, x):
        score = self.formula(x.flatten(1))
        return torch.stack([0 * score, score], 1)


APART = Score(lambda x: 5 * x[:, 0] + x[:, 1] ** 2 + x[:, 2].sin())
LINEAR = Score(lambda x: 2 * x[:, 0] + x[:, 1])
SQUARES = Score(lambda x: 2 * x[:, 0] ** 2 + x[:, 1] ** 2)
SQUARE = Score(lambda x: (2 * x[:, 0] + x[:, 1]) ** 2)


@pytest.mark.parametrize(("method", "settings"), [(IntegratedGradients, {}), (GuidedIG, {"steps": 300})])
def test_pairs_exact_values_where_each_value_speaks_for_itself(method, settings):
    """Whatever the path, a value has the change of its own term."""
    x, start = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[0.5, 1.0, 1.0]]])
    found = method(baseline=start, **settings).attribute(APART, x, 1).flatten().tolist()
    assert found == pytest.approx([2.5, 3, math.sin(3) - math.sin(1)], abs=0.01)


@pytest.mark.parametrize(
    ("net", "x", "start", "settings", "expected"),
    [
        (LINEAR, (10, 5), (-1, -3), {"distance": 0.5}, (22, 8)),
        (LINEAR, (10, 5), (0, 0), {"distance": 0.5}, (20, 5)),
        (SQUARES, (3, 3), (0, 0), {"distance": 0.4}, (18, 9)),
        (SQUARE, (3, 3), (0, 0), {"distance": 0.0}, (54, 27)),  # the straight path
        (SQUARE, (3, 3), (0, 0), {"fraction": 1.0, "distance": 0.5}, (54, 27)),
        (SQUARE, (3, 3), (0, 0), {"distance": 1.0}, (72, 9)),  # the second value first, then the first
    ],
)
def test_pairs_exact_values_of_guided_ig(net, x, start, settings, expected):
    x, start = (torch.tensor([[values]], dtype=torch.float32) for values in (x, start))
    method = GuidedIG(**{"steps": 300, "fraction": 0.1, "baseline": start, **settings})
    assert method.attribute(net, x, 1).flatten().tolist() == pytest.approx(expected, rel=0.01)


def test_a_bounded_guided_path_lies_between_the_straight_and_the_free_one():
    x = torch.full((1, 1, 2), 3.0)
    first, second = GuidedIG(steps=400, fraction=0.1, distance=0.2).attribute(SQUARE, x, 1).flatten().tolist()
    assert first + second == pytest.approx(81, rel=0.01)
    assert 55 < first < 71


def test_pairs_exact_values_of_blur_ig():
    """The sum of sines: each pixel has the sine of its value, less that of its value in the blurred picture."""
    x = torch.zeros(1, 1, 5, 5)
    x[..., 1, 1], x[..., 2, 2] = 0.7, 1.0
    method = BlurIG(steps=100, sigma=2.0)
    expected = x.sin() - blur(x, torch.Generator(), 2.0).sin()
    torch.testing.assert_close(method.attribute(Score(lambda x: x.sin().sum(1)), x, 1), expected, atol=5e-3, rtol=0)


def test_blur_ig_of_a_product_is_its_integral_along_the_blur():
    """A Gaussian blob of variance `s^2`, blurred by `t`, is one of variance `V = s^2 + t^2`, lower by `s / sqrt(V)`.

    The score is its value `c` in the middle times its value `e` at distance `d`, so that the middle has the integral of
    `e dc = s^2 / 2 exp(-d^2 / 2V) V^-2 dV`, which is `s^2 / d^2 (exp(-d^2 / 2V) - exp(-d^2 / 2s^2))` at the last `V`.
    """
    size, s, d, sigma = 101, 4.0, 5, 0.06
    x = torch.exp(-0.5 * ((torch.arange(size) - size // 2) / s) ** 2).reshape(1, 1, size)
    middle, aside = size // 2, size // 2 + d
    found = BlurIG(steps=300, sigma=sigma).attribute(Score(lambda x: x[:, middle] * x[:, aside]), x, 1)[0, 0]
    last = s**2 + (sigma * size) ** 2
    near, far = math.exp(-(d**2) / (2 * s**2)), math.exp(-(d**2) / (2 * last))
    in_middle = s**2 / d**2 * (far - near)
    assert found[middle].item() == pytest.approx(in_middle, rel=2e-3)
    assert found[aside].item() == pytest.approx(near - s**2 / last * far - in_middle, rel=2e-3)
    assert found.count_nonzero() == 2


def test_xrai_gathers_the_integral_of_squares_in_regions():
    """From the least and the greatest value: `w (x^2 - (0^2 + 1^2) / 2) / 2` of each pixel, the same in each band."""
    x = torch.tensor([1.0, 0.5, 0.0]).repeat_interleave(4)[None, None, :, None].expand(1, 3, 12, 12).contiguous()
    weights = torch.tensor([3.0, 2.0, 1.0]).repeat_interleave(4)[:, None].expand(12, 12)
    net = Score(lambda x: (weights * x.reshape(-1, 3, 12, 12) ** 2).sum((1, 2, 3)) / 2)
    found = XRAI(least=4).attribute(net, x, 1)[0]
    expected = weights * 3 * (x[0, 0] ** 2 - 0.5) / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
