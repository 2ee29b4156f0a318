"""Standing, forced choice and verdict on planted cases."""

import math

import pytest
import torch

from helpers.cases import PLAIN, SIDE, bright_net, save
from helpers.nets import noise
from pellucid.features.exemplars import Selection, UnitExemplars, find_exemplars
from pellucid.features.feature_image import FeatureQuality, judge
from pellucid.features.measures import ByActivation
from pellucid.features.natural import Choice, Standing, compare, forced_choice, standing
from pellucid.models.layers import describe
from pellucid.models.sources import wrap


def distribution(values):
    values = torch.tensor(values, dtype=torch.float64)
    levels = torch.quantile(values, torch.linspace(0, 1, 101, dtype=torch.float64))
    return UnitExemplars(0, (), (), (), levels, float(values.mean()), float(values.std(correction=0)), len(values))


def test_where_a_value_stands():
    natural = distribution([float(v) for v in range(101)])
    assert standing(150.0, natural) == Standing(150.0, 100.0, 1.5, pytest.approx((150 - 50) / math.sqrt(850)), 101)
    assert standing(25.5, natural).percentile == pytest.approx(25.5)
    assert standing(0.0, natural).percentile == 0
    assert standing(-3.0, natural).percentile == 0
    assert standing(100.5, natural).percentile == 100
    assert math.isnan(standing(1.0, distribution([-2.0, -1.0])).ratio)  # nothing natural is positive
    same = standing(3.0, distribution([2.0, 2.0]))
    assert same.percentile == 100
    assert math.isnan(same.deviations)


def test_forced_choice_of_planted_clusters():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 32, generator=generator).mul(5)
    near = one + torch.randn(6, 32, generator=generator)
    far = other + torch.randn(5, 32, generator=generator)
    assert forced_choice(one, near, far) == Choice(1.0, 1.0, 30)
    assert forced_choice(other, near, far).synthetic == 0.0  # the picture of another unit
    assert forced_choice(one, near, far).exemplars == 1.0
    assert math.isnan(forced_choice(one, near[:1], far).exemplars)


def test_forced_choice_by_a_plain_loop():
    s, a, b = noise(9), noise(4, 9, seed=1), noise(3, 9, seed=2)
    centre = torch.cat([a, b]).mean(0)

    def cosine(x, y):
        return torch.dot(x - centre, y - centre) / (x - centre).norm() / (y - centre).norm()

    right = sum(cosine(s, x) > cosine(s, y) for x in a for y in b) / 12
    told = 0
    for i in range(4):
        rest = torch.stack([a[j] for j in range(4) if j != i]).mean(0)
        told += sum(cosine(rest, a[i]) > cosine(rest, y) for y in b) / 12
    found = forced_choice(s, a, b)
    assert found.synthetic == pytest.approx(float(right))
    assert found.exemplars == pytest.approx(float(told))


def test_forced_choice_is_chance_where_nothing_differs():
    same = torch.ones(4, 8)
    assert forced_choice(torch.ones(8), same, same[:3]) == Choice(0.5, 0.5, 12)
    generator = torch.Generator().manual_seed(0)
    shares = [
        forced_choice(*(torch.randn(*n, 20, generator=generator) for n in ((), (4,), (4,)))).synthetic
        for _ in range(300)
    ]
    assert abs(sum(shares) / 300 - 0.5) < 0.05


def test_compare_uses_the_other_units_of_the_layer(tmp_path):
    """Bright pictures excite unit 0, dark ones unit 1: a white picture agrees with the first, not with the second."""
    import numpy as np

    model = wrap(bright_net(), transform=PLAIN)
    generator = np.random.default_rng(0)
    for i in range(8):
        array = generator.integers(*((0, 90) if i < 4 else (160, 255)), (64, 64, 3)).astype(np.uint8)
        save(tmp_path / f"{i}.png", array)
    measure = ByActivation(describe(model.module, torch.zeros(1, 3, SIDE, SIDE), "1"))
    natural = find_exemplars(model, tmp_path, measure, Selection(top=4, bottom=4), cache=False).units
    white, black = torch.ones(3, SIDE, SIDE), torch.zeros(3, SIDE, SIDE)
    (bright, choice), (dark, _) = compare(model, measure, natural, torch.stack([white, black]))
    assert bright.value == pytest.approx(0.5, abs=1e-5)  # mean brightness minus a half
    assert dark.value == pytest.approx(0.5, abs=1e-5)
    assert bright.percentile == dark.percentile == 100
    assert bright.ratio > 1
    assert choice.synthetic == choice.exemplars == 1
    (wrong, choice), _ = compare(model, measure, natural, torch.stack([black, white]))
    assert wrong.value == 0
    assert wrong.percentile == 0
    assert choice.synthetic == 0


GOOD = Standing(2.0, 100.0, 2.0, 5.0, 50)
TOLD = Choice(0.9, 1.0, 16)


@pytest.mark.parametrize(
    ("standing_", "choice", "figures", "flags", "verdict", "words"),
    [
        (GOOD, TOLD, {"robust": 0.9}, {}, "agrees", "it agrees with the natural exemplars"),
        (Standing(1.0, 97.0, 0.8, 2.0, 50), TOLD, {}, {}, "weak", "more than 97 % of 50 natural pictures"),
        (GOOD, TOLD, {"robust": 0.2}, {}, "fragile", "adversarial"),
        (GOOD, Choice(0.4, 0.9, 16), {}, {}, "unlike", "believe the exemplars"),
        (GOOD, Choice(0.4, 0.5, 16), {}, {}, "unlike", "several things"),
        (None, None, {"robust": 0.9}, {}, "unproven", "nothing natural to compare with"),
        (GOOD, TOLD, {}, {"never_fired": True}, "dead", "never fired"),
        (GOOD, TOLD, {}, {"not_finite": True}, "dead", "NaN"),
    ],
)  # fmt: skip
def test_the_verdict_and_its_sentence(standing_, choice, figures, flags, verdict, words):
    found = judge(standing_, choice, figures, **flags)
    assert found.verdict == verdict
    assert words in found.line
    again = FeatureQuality.from_dict(found.as_dict())
    assert again.as_dict() == found.as_dict()


def test_the_sentence_tells_every_figure():
    figures = {"robust": 0.8, "rank": 3.0, "path": 0.41, "fine": 0.07, "seeds": 0.9, "still": 0.3, "of": 80.0}
    line = judge(GOOD, TOLD, figures).line
    for part in (
        "2 x the strongest of 50 natural pictures",
        "random views keep 80%",
        "3rd of its layer",
        "0.41 of 1",
        "7% fine detail",
        "seeds agree 0.90",
        "standing still 30%",
        "forced choice 90% right from it, 100% from exemplars",
    ):
        assert part in line
    assert "11th" in judge(None, None, {"rank": 11.0}).line
