"""Metrics that are read from a map drawn again, from sizes of pictures, beside an oracle, and from all samples."""

import math
import zlib

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pl
from helpers.evaluations import sample
from pellucid.evaluation.banks import MapAndTruth, ShownAlone, SoftMask
from pellucid.evaluation.banks.altered import MapOfItself, TwoMaps
from pellucid.evaluation.banks.curves import RankedScores, shown_sizes, unit_ranks
from pellucid.evaluation.banks.maps import OneOfAll
from pellucid.evaluation.banks.oracle import MapAndOracle
from pellucid.evaluation.banks.redrawn import MovedMaps, NearbyMaps, ShuffledWeights
from pellucid.evaluation.competitors import competitor
from pellucid.evaluation.metrics import METRICS, as_metrics
from pellucid.evaluation.sample import Inquiry, Sample
from pellucid.models.targets import Class
from pellucid.verbs.evaluate_suite import evaluate_suite


def value(name, found):
    return METRICS[name].measure(found)


def curve(shown, sizes):
    """Probability and lead alike, as the most relevant is shown."""
    least = torch.tensor(shown, dtype=torch.float64).flip(0)[:, None].expand(-1, 3)
    fractions = torch.linspace(0, 1, len(shown), dtype=torch.float64)
    return RankedScores(fractions, least, least, lambda: torch.tensor(sizes, dtype=torch.float64))


# --- how much the picture says


def test_area_over_size_by_hand():
    # Half of what the picture says brings all of the probability: 0 to 1 over the first half, then 1.
    assert value("sic", curve([0.2, 1.0, 1.0], [10, 20, 30])) == pytest.approx(0.25 + 0.5)
    # What falls again counts as its height before, as in the paper's code; of sizes too.
    assert value("sic", curve([0.2, 1.0, 0.9, 1.0], [10, 30, 20, 30])) == pytest.approx(0.5)
    assert value("aic", curve([-1.0, 1.0, 1.0], [0, 1, 4])) == pytest.approx(0.5 * 0.25 + 0.75)
    assert math.isnan(value("sic", curve([1.0, 0.5, 1.0], [1, 2, 3]))), "the baseline is answered as surely"
    assert math.isnan(value("aic", curve([1.0, 1.0], [1, 2])))


def test_sizes_are_those_of_the_pictures_that_are_shown():
    x = torch.rand(1, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    sample = Sample(None, x, Class(0))
    heat = torch.rand(6, 7, generator=torch.Generator().manual_seed(1))
    ranks, units = unit_ranks(heat[None], None)
    sizes = shown_sizes(sample, ranks[0], units, torch.tensor([0.0, 0.5, 1.0]), "zero")
    for size, kept in zip(sizes.tolist(), (0, 21, 42), strict=True):
        mask = torch.zeros(42)
        mask[heat.flatten().argsort(descending=True)[:kept]] = 1
        picture = (x[0] * mask.reshape(6, 7)).numpy()
        low, high = float(x.min()), float(x.max())
        levels = ((picture - np.float32(low)) / np.float32(high - low) * 255).round().clip(0, 255).astype(np.int64)
        steps = np.concatenate([levels[..., :1], np.diff(levels, axis=-1)], -1) % 256
        assert size == len(zlib.compress(steps.astype(np.uint8).tobytes(), 6))


# --- what the map holds, and what it does not


def test_an_answer_is_lost_where_what_the_map_holds_is_hidden():
    plain, gone, kept = torch.tensor([1.0, 0.9, 2.0]), torch.tensor([0.0, 0.1, -1.0]), torch.tensor([0.0, 0.6, 1.0])
    assert value("answer-lost", ShownAlone(plain, gone)) == 1
    assert value("answer-lost", ShownAlone(plain, kept)) == 0
    assert math.isnan(value("answer-lost", ShownAlone(torch.zeros(3), gone)))
    assert METRICS["answer-lost"].bank == SoftMask(inside=False)


def test_the_harmonic_mean_of_coherency_size_and_drop():
    mask = torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    found = MapOfItself(mask, mask, torch.tensor([0.0, 0.8, 1.0]), torch.tensor([0.0, 0.4, 1.0]))
    assert value("coherency", found) == pytest.approx(1)
    assert value("adcc", found) == pytest.approx(3 / (1 / 1 + 1 / 0.5 + 1 / 0.5))
    against = MapOfItself(mask, 1 - mask, found.plain, found.shown)
    assert value("coherency", against) == pytest.approx(0)
    assert value("adcc", against) == pytest.approx(0, abs=1e-9)


# --- drawn again


def test_changes_by_hand():
    two = (torch.tensor([3.0, 4.0]), torch.tensor([3.0, 2.0]))
    assert value("continuity", MovedMaps(two, two, 4.0)) == pytest.approx(0.5)
    assert value("input-invariance", TwoMaps(*two)) == pytest.approx(2 / 5)
    assert value("input-invariance", TwoMaps(two[0], two[0])) == 0
    assert value("reversal-equivariance", TwoMaps(two[0], -two[0])) == pytest.approx(-1)


def test_the_change_of_features_by_hand():
    one = torch.ones(2, dtype=torch.float64)
    features = torch.stack([one, 1.5 * one, one + torch.tensor([0.1, 0.0])])
    found = NearbyMaps(one, torch.stack([1.2 * one, one]), one, 2 * one, one, one, lambda: features)
    assert value("rrs", found) == pytest.approx(0.2 / 0.5)


class Doubled(nn.Module):
    """A linear score, behind a layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 1, bias=False)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head(self.first(x).mean((2, 3)))


@pytest.fixture(scope="module")
def linear():
    torch.manual_seed(0)
    return pl.wrap(Doubled().eval(), scores="softmax")


def test_gradients_do_not_see_the_scale_and_a_product_with_the_input_does(linear):
    x = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    rivals = {"saliency": None, "input-x-gradient": None, "grad-cam": None}
    found = pl.evaluate(linear, x, rivals, "input-invariance,rrs,smprt,coherency,adcc")
    assert found["saliency", "input-invariance"] == pytest.approx([0, 0], abs=1e-6)
    by, mean = [float(one.std()) for one in x], [float(one.norm()) for one in x]
    wanted = [b * 6 / m for b, m in zip(by, mean, strict=True)]  # the constant, over the norm of the input
    assert found["input-x-gradient", "input-invariance"] == pytest.approx(wanted, rel=1e-5)
    assert np.isfinite(found["grad-cam", "input-invariance"]).all()
    assert np.isfinite(found["input-x-gradient", "rrs"]).all()
    assert np.isfinite(found["grad-cam", "smprt"]).all()
    assert found["random order", "input-invariance"] == pytest.approx([0, 0], abs=1e-6)


def test_smooth_randomisation_of_no_noise_is_the_plain_one(linear):
    x = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = ShuffledWeights(draws=2, radius=0.0)
    twin = METRICS["mprt"].__class__(**{**vars(METRICS["mprt"]), "name": "still", "bank": smooth})
    found = pl.evaluate(linear, x, "input-x-gradient", ["mprt", twin])
    assert found["input-x-gradient", "still"] == pytest.approx(found["input-x-gradient", "mprt"], abs=1e-9)


# --- beside the truth


def test_relevance_is_carried_to_the_mask():
    heat, truth = np.zeros((4, 4)), np.zeros((4, 4), bool)
    heat[0, 0] = 2
    truth[0, 3] = True
    found = MapAndTruth(heat.ravel(), truth.ravel(), (4, 4))
    assert value("mass-nearness", found) == pytest.approx(1 - 0.75 / math.sqrt(2))
    truth[0, 0] = True  # half of it stays
    assert value("mass-nearness", MapAndTruth(heat.ravel(), truth.ravel(), (4, 4))) == pytest.approx(1 - 0.375 / 2**0.5)
    assert math.isnan(value("mass-nearness", MapAndTruth(np.zeros(16), truth.ravel(), (4, 4))))


def test_concept_influence_of_the_known_case():
    truth = np.zeros((224, 224), bool)
    truth[50:150, 50:150] = True
    found = MapAndTruth(truth.astype(float).ravel(), truth.ravel(), truth.shape)
    assert value("concept-influence", found) == pytest.approx(5.0176)


def test_agreement_with_an_oracle_by_hand():
    true = torch.arange(10.0, 0, -1, dtype=torch.float64).repeat_interleave(2)  # the first two places are a tenth
    true[1] = 9.5
    same = MapAndOracle(2 * true, true)
    for name in ("feature", "sign", "rank", "signed-rank", "pairwise"):
        assert value(f"{name}-agreement", same) == pytest.approx(1), name
    swapped = true.clone()
    swapped[0], swapped[1] = -9.5, 10.0
    found = MapAndOracle(swapped, true)
    assert value("feature-agreement", found) == 1
    assert value("sign-agreement", found) == 0.5
    assert value("rank-agreement", found) == 0
    assert value("signed-rank-agreement", found) == 0
    assert value("pairwise-agreement", MapAndOracle(-true, true)) == 0
    assert value("oracle-correlation", MapAndOracle(-true, true)) == pytest.approx(-1)


def test_only_suites_have_an_oracle(linear):
    assert "feature-agreement" not in {m.name for m in as_metrics("all", masks=True)}
    found = evaluate_suite("single", "input-x-gradient", "feature-agreement,pairwise-agreement", count=1)
    assert found["oracle", "feature-agreement"] == pytest.approx([1])
    assert found["input-x-gradient", "feature-agreement"][0] > found["random order", "feature-agreement"][0]
    x = torch.rand(1, 1, 6, 6)
    alone = pl.evaluate(linear, x, "saliency", "feature-agreement")
    assert any("Only of a suite" in text for _, _, text in alone.said)


# --- all samples together


def test_samples_that_are_explained_alike():
    maps = np.array([[1.0, 0, 0], [2.0, 0, 0.1], [1.0, 0.1, 0], [0, 0, 1.0]])
    classes = np.array([5, 5, 7, 5])
    for name in ("sufficiency", "consistency"):
        found = [value(name, OneOfAll(maps, classes, at)) for at in range(4)]
        assert found[:3] == [0.5, 0.5, 0]
        assert math.isnan(found[3]), "nothing is explained like it"


def test_what_is_read_across_is_read_again_in_a_run_that_goes_on(linear, tmp_path):
    x = torch.rand(3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    once = pl.evaluate(linear, x, "input-x-gradient", "sufficiency,consistency", target=0, keep=tmp_path)
    again = pl.evaluate(linear, x, "input-x-gradient", "sufficiency,consistency", target=0, keep=tmp_path)
    assert np.isfinite(once["edges", "sufficiency"]).sum() == np.isfinite(again["edges", "sufficiency"]).sum()
    np.testing.assert_array_equal(once.scores, again.scores)
    seen = once.scores[np.isfinite(once.scores)]
    assert (seen == 1).all(), "one class"


def test_a_crop_is_explained_as_its_part_of_the_whole():
    x = torch.rand(3, 16, 12, generator=torch.Generator().manual_seed(0))
    given = sample(x)
    metric = METRICS["crop-equivariance"]
    crop, _ = metric.bank.question(given)
    inner = torch.nn.functional.interpolate(x[None, :, 1:15, 1:11], size=(16, 12), mode="bilinear")
    torch.testing.assert_close(crop, inner)

    def measured(rival):
        c = competitor("rival", rival, {})
        with Inquiry(given) as inquiry:
            (own,) = c.draw(given.model, given.x, given.target, given).candidates(c)
            (answer,) = metric.bank.answers(inquiry, [own])
        return metric.measure(answer)

    assert measured(lambda _m, x, _t: x.mean(1)) == pytest.approx(1)  # says of each place what stands there
    fixed = torch.zeros(1, 16, 12)
    fixed[:, :, 0] = 1.0  # says the same of every input: the rim is gone from the crop of the map
    assert measured(lambda _m, _x, _t: fixed) == 0
