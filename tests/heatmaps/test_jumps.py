"""Scores that jump on the way from the baseline: closed forms, where the map and the jump are known by hand."""

import math

import pytest
import torch
from torch import nn

from pellucid.heatmaps import IntegratedGradients
from pellucid.heatmaps.jumps import jump


class Step(nn.Module):
    """`sum x^2` in 16 places, and 5 more beyond a threshold of something."""

    def __init__(self, beyond):
        super().__init__()
        self.beyond = beyond

    def forward(self, x):
        score = x.square().flatten(1).sum(1) + 5 * self.beyond(x).to(x.dtype)
        return torch.stack([score, torch.zeros_like(score)], 1)


X = torch.linspace(0.1, 0.9, 16).reshape(1, 1, 4, 4)
ENDS = {
    "near the baseline": (lambda x: x.abs().flatten(1).sum(1) > 1e-3, "close to the baseline"),
    "on the way": (lambda x: x.flatten(1).mean(1) > 0.37 * 0.5, "37% of the way from the baseline"),
    "at the input": (lambda x: ((x - X).abs() < 1e-6).flatten(1).all(1), "right at the input"),
}


def explained(beyond, x=X, **settings):
    passes = []

    def counted(inputs):
        passes.append(len(inputs))
        return beyond(inputs)

    (found,) = IntegratedGradients(**settings).explain(Step(counted).eval(), x, [0])
    assert sum(passes) == found.cost.forwards
    return found


@pytest.mark.parametrize("case", ENDS)
def test_the_jump_is_told_and_not_that_more_steps_help(case):
    beyond, place = ENDS[case]
    found = explained(beyond)
    assert torch.allclose(found.values, X.square(), atol=1e-3)  # the jump is in no gradient
    share = 5 / (5 + float(X.square().sum()))
    assert found.facts["completeness_gap"] == [pytest.approx(share, abs=0.01)]
    (note,) = found.notes
    assert place in note
    assert "jumps by 5 (of 9" in note
    assert "raise max_steps" not in note


def lit(x):
    """As soon as anything is not black."""
    return x.abs().flatten(1).sum(1) > 0


def test_at_the_baseline_itself_the_gap_is_that_to_the_limit_and_the_jump_is_told():
    """No integral sees one point: the map sums to `f(x) - f(0+)`, which lacks 5 of `f(x) - f(0)`."""
    rest = float(X.square().sum())
    found = explained(lit)
    torch.testing.assert_close(found.values, X.square(), atol=1e-3, rtol=0)
    assert found.facts["completeness_gap"][0] <= 0.01
    assert found.facts["jump_at_baseline"] == [pytest.approx(5, rel=1e-4)]
    ((remark,),) = found.remarks
    assert "jumps by 5 right at the baseline" in remark
    assert f"explains the other {rest:.3g} of the {5 + rest:.3g}" in remark
    assert found.notes == []
    assert explained(lit, baseline=1e-3 * X).remarks == []


def test_a_gap_that_the_jump_at_the_baseline_does_not_fill_is_still_a_note():
    """Beyond the jump of 5 comes a slope of 5 too steep for 24 gradients: the gap is a share of what is left."""

    def both(x):
        return 5 * torch.sigmoid(2000 * (x.flatten(1).mean(1) - 0.2)) / 5 + lit(x).to(x.dtype)

    found = explained(both, max_steps=24)
    rest = float(X.square().sum()) + 5
    gap = abs(float(found.values.sum()) - rest) / rest
    assert gap > 0.02
    assert found.facts["completeness_gap"] == [pytest.approx(gap, abs=2e-3)]
    assert "raise max_steps" in found.notes[0]
    assert "jumps by 5" in found.remarks[0][0]


def test_a_jump_at_the_baseline_is_told_of_the_input_that_has_it():
    """The second of three is black where the score looks, so it never crosses."""
    x = torch.cat([X, X.clone(), 2 * X])
    x[1, ..., 0, 0] = 0
    found = explained(lambda x: x[:, 0, 0, 0].abs() > 0, x)
    assert found.facts["jump_at_baseline"] == [pytest.approx(5, rel=1e-4), 0, pytest.approx(5, rel=1e-4)]
    assert [len(told) for told in found.remarks] == [1, 0, 1]
    assert max(found.facts["completeness_gap"]) <= 0.01


def test_the_baseline_that_is_advised_is_free_of_it():
    near_zero, _ = ENDS["near the baseline"]
    assert "tensor 1% of the way" in explained(near_zero).notes[0]
    assert explained(near_zero, baseline=0.01 * X).notes == []
    on_the_way, _ = ENDS["on the way"]
    assert 'From baseline="mean" it does not jump' in explained(on_the_way).notes[0]
    assert explained(on_the_way, baseline="mean").notes == []
    at_input, _ = ENDS["at the input"]
    assert "It jumps from zero, mean and blur too" in explained(at_input).notes[0]
    for baseline in ("zero", "mean", "blur"):
        assert explained(at_input, baseline=baseline).notes


def test_each_input_has_a_path_of_its_own():
    """Only the second of three crosses the threshold."""
    x = torch.cat([0.3 * X, X, 0.2 * X])
    found = explained(ENDS["on the way"][0], x)
    assert [gap > 0.01 for gap in found.facts["completeness_gap"]] == [False, True, False]
    assert ENDS["on the way"][1] in found.notes[0]


def test_a_slope_however_steep_is_no_jump():
    """Too steep for 24 gradients: there `raise max_steps` is right, and helps."""

    def slope(x):
        return torch.sigmoid(2000 * (x.flatten(1).mean(1) - 0.2))

    few, many = explained(slope, max_steps=24), explained(slope, max_steps=1600)
    assert "raise max_steps" in few.notes[0]
    assert "jump" not in few.notes[0]
    assert many.notes == []


def test_half_precision_cannot_tell():
    """Where neighbouring numbers are far apart everything jumps, so nothing is said of it."""
    beyond, _ = ENDS["on the way"]
    found = explained(beyond, X.bfloat16())
    assert "raise max_steps" in found.notes[0]


def test_all_steps_are_added_up_and_slopes_are_left_out():
    asked = []

    def score(alphas):
        asked.append(len(alphas))
        return torch.sin(3 * alphas) + 2.0 * (alphas > 1 / math.pi) - 3.0 * (alphas > 1 / math.e)

    knots = torch.linspace(0, 1, 33, dtype=torch.float64)
    found = jump(score(knots), score, 0.5)
    assert found.size == pytest.approx(-1, abs=1e-4)
    assert (found.place, found.last) == pytest.approx((1 / math.e, 1 / math.e), abs=1e-5)
    assert sum(asked[1:]) <= 4 * 14
    asked.clear()
    assert jump(score(knots) * 0, score, 0.5) is None
    assert asked == [33]
    assert jump(torch.sin(3 * knots), lambda a: torch.sin(3 * a), 0.05) is None
